//! What this host says of itself: from the configuration, and where that says nothing, from the system.

use std::path::Path;

use config::Config;
use wire::hosts::{HostCapacity, HostFacts};
use wire::{Code, ErrorBody};

use crate::concerns;

/// In the state directory: the boot id of the daemon that had it last.
const BOOT_FILE: &str = "boot_id";

/// The facts.
pub fn facts(config: &Config) -> HostFacts {
    let host = &config.host;
    let said = |text: &str| Some(text.to_owned()).filter(|t| !t.is_empty());
    let or = |said: u64, found: fn(&Path) -> u64| match said {
        0 => found(&config.state_dir),
        said => said,
    };
    HostFacts {
        rack: said(&host.rack),
        row: said(&host.row),
        zone: said(&host.zone),
        labels: host.labels(),
        capacity: HostCapacity {
            vcpus: u32::try_from(or(host.vcpus, cores)).unwrap_or(u32::MAX),
            memory_bytes: or(host.memory_bytes, memory_bytes),
            disk_bytes: or(host.disk_bytes, disk_bytes),
            gpus: u32::try_from(host.gpus).unwrap_or(u32::MAX),
            nics: u32::try_from(host.nics).unwrap_or(u32::MAX),
        },
        concerns: concerns::TABLE.iter().map(|row| row.name.to_owned()).collect(),
        version: env!("CARGO_PKG_VERSION").into(),
    }
}

fn cores(_: &Path) -> u64 {
    std::thread::available_parallelism().map_or(1, |n| n.get() as u64)
}

/// 0 where the system doesn't tell.
fn memory_bytes(_: &Path) -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.map_or(0, |kib| kib << 10)
}

/// 0 where the system doesn't tell.
fn disk_bytes(state_dir: &Path) -> u64 {
    rustix::fs::statvfs(state_dir).map_or(0, |fs| fs.f_blocks.saturating_mul(fs.f_frsize))
}

/// The boot id of the daemon that had this state directory before; from now on it is `boot`. Only whoever holds the
/// directory's lock may ask: then the earlier daemon is gone.
///
/// # Errors
/// `unavailable` when the file can't be written.
pub fn exchange_boot(state_dir: &Path, boot: &str) -> Result<Option<String>, ErrorBody> {
    let (path, new) = (state_dir.join(BOOT_FILE), state_dir.join("boot_id.new"));
    let earlier = std::fs::read_to_string(&path).ok();
    // one that is torn or old only costs the time of a lease
    std::fs::write(&new, boot)
        .and_then(|()| std::fs::rename(&new, &path))
        .map_err(|e| {
            ErrorBody::new(
                Code::Unavailable,
                format!("{} can't be written: {e}; nothing was started", path.display()),
            )
        })?;
    Ok(earlier
        .map(|id| id.trim().to_owned())
        .filter(|id| !id.is_empty() && id.len() <= 64))
}
