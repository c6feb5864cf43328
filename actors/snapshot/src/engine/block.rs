//! What Linux tells of a block device: who it is, what was written to it, who stands on it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The device's directory below `/sys`.
pub fn directory(sys_root: &Path, meta: &Metadata) -> PathBuf {
    let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    sys_root.join(format!("dev/block/{major}:{minor}"))
}

fn line(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// What tells the device from others after it was taken away and brought back: its UUID (device mapper), its world-wide
/// name, its serial number, or a loop device's file; with the partition's number. 0 when it has none of them.
pub fn identity(directory: &Path) -> u64 {
    let partition = line(&directory.join("partition"));
    let whole = if partition.is_some() {
        directory
            .canonicalize()
            .ok()
            .and_then(|d| d.parent().map(Path::to_owned))
    } else {
        None
    };
    let whole = whole.as_deref().unwrap_or(directory);
    let names = [
        "dm/uuid",
        "wwid",
        "device/wwid",
        "serial",
        "device/serial",
        "loop/backing_file",
        "md/uuid",
    ];
    let Some(name) = names.iter().find_map(|name| line(&whole.join(name))) else {
        return 0;
    };
    let offset = line(&whole.join("loop/offset")).unwrap_or_default();
    let all = format!("{name}\n{offset}\n{}", partition.unwrap_or_default());
    let hash = blake3::hash(all.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_le_bytes(first)
}

/// Sectors that were written since the device is there, as its statistics tell; what is still in the page cache doesn't show.
pub fn written_sectors(directory: &Path) -> u64 {
    let stat = line(&directory.join("stat")).unwrap_or_default();
    stat.split_whitespace().nth(6).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// A number that no other medium in this device had since the host started.
pub fn sequence(directory: &Path) -> u64 {
    line(&directory.join("diskseq"))
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
}
