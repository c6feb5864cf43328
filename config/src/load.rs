//! Layers: defaults, file, environment, flags; the later wins, and every value keeps its origin.

use std::collections::BTreeMap;

use config_rs::{Map, Source};
use serde::Serialize;

use crate::Config;
use crate::check::{Finding, Passed, Place, Severity, read_environment, read_flags, read_text};
use crate::error::{ConfigError, Kind};
use crate::file::FileText;
use crate::host::Surroundings;
use crate::key::{Key, Preset, key, keys};
use crate::value::{self, Value};

/// Flags of the command line that set keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--state-dir`
    pub state_dir: Option<String>,
    /// `--host-id`
    pub host_id: Option<String>,
    /// `--repo`
    pub repo: Option<String>,
    /// `--nats`
    pub nats: Option<String>,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// Somebody said it there.
    Said(Place),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Said(place) => place.fmt(f),
        }
    }
}

/// One value as `windlass config show` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Dotted path.
    pub key: &'static str,
    /// The value.
    pub value: Value,
    /// Where it comes from.
    pub origin: Origin,
}

/// A configuration, with the origin of every value.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Keys and variables that nobody reads; a warning at boot.
    pub warnings: Vec<Finding>,
    pub(crate) origins: Origins,
}

/// Every key with its value, and where it comes from.
pub(crate) type Origins = BTreeMap<&'static str, (Value, Origin)>;

impl Loaded {
    /// Every value, in the order of the reference file.
    pub fn shown(&self) -> Vec<Shown> {
        keys()
            .filter_map(|k| {
                let (value, origin) = self.origins.get(k.path)?;
                Some(Shown {
                    key: k.path,
                    value: value.clone(),
                    origin: origin.clone(),
                })
            })
            .collect()
    }
    /// Where the value of that key comes from.
    pub fn origin(&self, path: &str) -> Option<&Origin> {
        self.origins.get(path).map(|(_, origin)| origin)
    }
}

/// Values of one origin, as `config` takes them.
#[derive(Debug, Clone)]
struct Layer(Vec<(&'static str, Value, Origin)>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }
    fn collect(&self) -> Result<Map<String, config_rs::Value>, config_rs::ConfigError> {
        let entry = |(path, value, origin): &(&'static str, Value, Origin)| {
            (
                (*path).to_owned(),
                config_rs::Value::new(Some(&origin.to_string()), value.to_layer()),
            )
        };
        Ok(self.0.iter().map(entry).collect())
    }
}

/// Puts the layers together.
///
/// # Errors
/// [`Kind::Invalid`] with every wrong value and its place. Unknown keys are [`Loaded::warnings`].
pub fn load(file: Option<&FileText>, surroundings: &Surroundings, flags: &Flags) -> Result<Loaded, ConfigError> {
    let mut said: Vec<Passed> = Vec::new();
    let mut findings: Vec<Finding> = Vec::new();
    let mut take = |(passed, found): (Vec<Passed>, Vec<Finding>)| {
        said.extend(passed);
        findings.extend(found);
    };
    if let Some(file) = file {
        take(read_text(file));
    }
    take(read_environment(surroundings));
    take(read_flags(&flags.named(), &surroundings.working_dir));

    let (faults, warnings): (Vec<Finding>, Vec<Finding>) =
        findings.into_iter().partition(|f| f.severity == Severity::Wrong);
    if !faults.is_empty() {
        return Err(ConfigError::findings(faults));
    }
    let said = Layer(
        said.into_iter()
            .map(|p| (p.key.path, p.value, Origin::Said(p.place)))
            .collect(),
    );
    let presets = presets(surroundings, &said);
    let layers = presets.0.into_iter().chain(said.0);
    assemble(
        layers.map(|(path, value, origin)| (path, (value, origin))).collect(),
        warnings,
    )
}

/// The configuration that these values make.
pub(crate) fn assemble(origins: Origins, warnings: Vec<Finding>) -> Result<Loaded, ConfigError> {
    let entry = |(path, (value, origin)): (&&'static str, &(Value, Origin))| (*path, value.clone(), origin.clone());
    let merged = config_rs::Config::builder()
        .add_source(Layer(origins.iter().map(entry).collect()))
        .build();
    let config: Config = merged
        .and_then(config_rs::Config::try_deserialize)
        .map_err(|e| ConfigError::new(Kind::Invalid, format!("configuration: {e}")))?;
    cross_check(&config, &origins)?;
    Ok(Loaded {
        config,
        warnings,
        origins,
    })
}

impl Flags {
    fn named(&self) -> Vec<(&'static str, &'static str, String)> {
        [
            ("--state-dir", "state_dir", &self.state_dir),
            ("--host-id", "host_id", &self.host_id),
            ("--repo", "repo.url", &self.repo),
            ("--nats", "nats.servers", &self.nats),
            // who names servers on the command line means them, whatever a file says
            ("--nats", "bus.mode", &self.nats.as_ref().map(|_| "nats".to_owned())),
        ]
        .into_iter()
        .filter_map(|(flag, path, value)| value.clone().map(|v| (flag, path, v)))
        .collect()
    }
}

/// Defaults of every key; some follow from what was said of others.
fn presets(surroundings: &Surroundings, said: &Layer) -> Layer {
    let last = said.0.iter().rev().find(|(path, ..)| *path == "state_dir");
    let state_dir = match last {
        Some((_, Value::Text(dir), _)) => dir.clone(),
        _ => surroundings.state_dir().to_string_lossy().into_owned(),
    };
    let names_servers = said.0.iter().any(|(path, ..)| *path == "nats.servers");
    let preset = |key: &Key| match key.preset {
        Preset::Text(text) => Value::Text(text.into()),
        Preset::Integer(number) => Value::Integer(number),
        Preset::Derived(_) => Value::Text(match key.path {
            "state_dir" => state_dir.clone(),
            "host_id" => surroundings.host_id(),
            "bus.mode" => if names_servers { "nats" } else { "embedded" }.to_owned(),
            "gateway.socket" => format!("{}/windlass.sock", state_dir.trim_end_matches('/')),
            "gateway.token_file" => format!("{}/gateway.token", state_dir.trim_end_matches('/')),
            "gateway.tokens_file" => format!("{}/gateway.tokens", state_dir.trim_end_matches('/')),
            "repo.url" => value::file_url(&format!("{}/repo", state_dir.trim_end_matches('/'))),
            "repo.cache_dir" => surroundings.cache_dir().to_string_lossy().into_owned(),
            // a test loads every key, so that a new derived one can't be forgotten here
            other => unreachable!("no rule for the default of {other}"),
        }),
    };
    Layer(keys().map(|k| (k.path, preset(k), Origin::Default)).collect())
}

/// What no key can say alone.
fn cross_check(config: &Config, origins: &Origins) -> Result<(), ConfigError> {
    let Some((path, why)) = config.repo.chunker.fault().or_else(|| config.nats.fault()) else {
        return Ok(());
    };
    debug_assert!(key(path).is_some());
    let place = match origins.get(path) {
        Some((_, Origin::Said(place))) => place.clone(),
        _ => Place::Default,
    };
    let message = format!("{path}: {why}");
    Err(ConfigError::findings(vec![Finding {
        place,
        severity: Severity::Wrong,
        message,
    }]))
}
