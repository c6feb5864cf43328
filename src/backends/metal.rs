//! Providers of bare-metal machines: one file each in `metal_broker.providers_dir`. Read when the concern is built, so a reload takes
//! up what changed. A file that can't be understood is told in the log and leaves the others alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::Config;
use metal_broker::actor::OverBus;
use metal_broker::core::forecast::Horizon;
use metal_broker::core::name::check_name;
use metal_broker::engine::{Broker, Settings};
use metal_broker::port::{Provider, Providers, Silent};
use serde::Deserialize;

use crate::backends::Ports;
use crate::house::Parts;

/// Longest description of a provider, in bytes: a line or two for each controller.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// How long the rack scheduler may take to answer, in milliseconds.
const RACKS_TIMEOUT_MS: u64 = 5_000;

/// What every description has.
#[derive(Debug, Deserialize)]
struct Head {
    tenant: String,
    kind: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    #[serde(rename = "tenant")]
    _tenant: String,
    #[serde(rename = "kind")]
    _kind: String,
    path: PathBuf,
}

/// The broker whose view of the inventory all that follow share.
pub fn first(parts: &Parts) -> Broker {
    let (ports, config) = (&parts.ports, parts.today.config());
    Broker::new(
        config.host_id.clone(),
        ports.state.clone(),
        ports.bus.clone(),
        ports.clock.clone(),
        Providers::new(),
        Arc::new(Silent),
        Settings::default(),
    )
}

/// The same broker, by the configuration of the day.
pub fn of_today(first: &Broker, ports: &Ports, config: &Config) -> Broker {
    let (metal, mut broker) = (&config.metal_broker, first.clone());
    let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    broker.settings = Settings {
        tentative_ms: metal.tentative_s * 1_000,
        lease_ms: metal.lease_s * 1_000,
        attempts_max: metal.attempts_max,
        refresh_every_ms: metal.refresh_every_s * 1_000,
        provider_timeout_ms: metal.provider_timeout_s * 1_000,
        stock_timeout_ms: metal.stock_timeout_s * 1_000,
        sweep_every_ms: metal.sweep_every_s * 1_000,
        clusters_kept_max: size(metal.clusters_kept_max),
        horizon: Horizon {
            horizon_s: metal.horizon_h * 3_600,
            requests_min: size(metal.forecast_requests_min),
            ..Horizon::default()
        },
    };
    broker.providers = Arc::new(providers(&metal.providers_dir));
    broker.racks = Arc::new(OverBus {
        bus: ports.bus.clone(),
        host: config.host_id.clone(),
        timeout_ms: RACKS_TIMEOUT_MS,
    });
    broker
}

fn providers(dir: &str) -> Providers {
    if dir.is_empty() {
        return Providers::new();
    }
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::warn!(%error, dir, "providers of machines can't be read; there are none");
            return Providers::new();
        }
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "toml"));
    paths.sort_unstable();
    let mut providers = Providers::new();
    for path in paths {
        match provider(&path) {
            Ok(provider) => providers.push(provider),
            Err(why) => tracing::warn!(file = %path.display(), why, "a provider of machines is left out"),
        }
    }
    providers
}

/// One provider, by its description.
fn provider(path: &Path) -> Result<Arc<dyn Provider>, String> {
    let size = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("it has {size} bytes; at most {FILE_BYTES_MAX}"));
    }
    let name = path.file_stem().and_then(|n| n.to_str()).unwrap_or_default();
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    // a line of such a file may hold what nobody should read in a log: of an error only its place is told
    let wrong = |e: toml::de::Error| match e.span() {
        Some(span) => format!("line {}: {}", text[..span.start].lines().count().max(1), e.message()),
        None => e.message().to_owned(),
    };
    let head: Head = toml::from_str(&text).map_err(wrong)?;
    check_name("provider", name).map_err(|e| e.message)?;
    check_name("tenant", &head.tenant).map_err(|e| e.message)?;
    match head.kind.as_str() {
        "file" => {
            let file: FileText = toml::from_str(&text).map_err(wrong)?;
            let beside = path.parent().unwrap_or(Path::new("/"));
            Ok(Arc::new(machine_file::MachineFile::new(
                &head.tenant,
                name,
                &beside.join(file.path),
            )))
        }
        "redfish" => {
            let settings: redfish::Settings = toml::from_str(&text).map_err(wrong)?;
            Ok(Arc::new(redfish::Redfish::new(name, settings).map_err(|e| e.message)?))
        }
        "ironic" => {
            let settings: ironic::Settings = toml::from_str(&text).map_err(wrong)?;
            Ok(Arc::new(ironic::Ironic::new(name, settings).map_err(|e| e.message)?))
        }
        other => Err(format!(
            "it speaks '{}'; file, redfish and ironic are known",
            other.escape_debug()
        )),
    }
}
