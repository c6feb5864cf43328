//! What a request means: names that are taken, which disk of a snapshot a person speaks of, which snapshot is `latest`.

use std::collections::BTreeSet;

use wire::snapshot::{DISKS_MAX, DiskArg, NAME_BYTES_MAX, SnapshotKind};

use crate::core::format::Format;
use crate::{Kind, Result, SnapshotError};

/// A disk of a request with its name settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedDisk {
    /// Its name within the VM.
    pub name: String,
    /// Where it is.
    pub path: String,
    /// Its format, when the request says so.
    pub format: Option<Format>,
}

/// The format that a request gives a disk.
///
/// # Errors
/// `Invalid` for an unknown one.
fn asked_format(disk: &DiskArg) -> Result<Option<Format>> {
    disk.format.as_deref().map(Format::parse).transpose()
}

/// What a snapshot says of one of its disks, as far as matching goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded<'a> {
    /// Its name within the VM.
    pub name: &'a str,
    /// Where it was.
    pub path: &'a str,
}

fn invalid(message: impl Into<String>) -> SnapshotError {
    SnapshotError::new(Kind::Invalid, message)
}

/// Checks a VM's or disk's name: 1 to 128 of letters, digits, `.`, `_` and `-`, not beginning with a `.` or `-`.
pub fn check_name(what: &str, name: &str) -> Result<()> {
    let fine = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.starts_with(['.', '-'])
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if fine {
        return Ok(());
    }
    let shown: String = name.chars().take(40).collect();
    Err(invalid(format!(
        "'{shown}' can't be the name of a {what}: use 1 to {NAME_BYTES_MAX} letters, digits, '.', '_' and '-', beginning with a letter, digit or '_'"
    )))
}

/// The name that a path gives a disk: its file name without extension.
fn name_from_path(path: &str) -> Result<String> {
    let file = path.rsplit('/').next().unwrap_or_default();
    let stem = match file.rsplit_once('.') {
        Some((stem, _)) if !stem.is_empty() => stem,
        _ => file,
    };
    check_name("disk", stem).map_err(|e| e.hint(format!("give the disk a name: --disk root={path}")))?;
    Ok(stem.to_owned())
}

/// Settles the names of a create's disks.
///
/// # Errors
/// `Invalid` for no disk, too many, a bad name, or one name or path twice.
pub fn name_disks(vm: &str, disks: &[DiskArg]) -> Result<Vec<NamedDisk>> {
    check_name("VM", vm)?;
    if disks.is_empty() {
        return Err(invalid(format!("no disk given for VM {vm}")).hint("add --disk PATH"));
    }
    if disks.len() > DISKS_MAX {
        return Err(invalid(format!(
            "{} disks given for VM {vm}; at most {DISKS_MAX} are taken",
            disks.len()
        )));
    }
    let (mut names, mut paths, mut named) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for disk in disks {
        let name = match &disk.name {
            Some(name) => {
                check_name("disk", name)?;
                name.clone()
            }
            None => name_from_path(&disk.path)?,
        };
        if !paths.insert(disk.path.clone()) {
            return Err(invalid(format!("disk {} is given twice", disk.path)));
        }
        if !names.insert(name.clone()) {
            return Err(invalid(format!("two disks of VM {vm} would be called {name}"))
                .hint(format!("name them: --disk {name}={} --disk OTHER=PATH", disk.path)));
        }
        named.push(NamedDisk {
            name,
            path: disk.path.clone(),
            format: asked_format(disk)?,
        });
    }
    Ok(named)
}

/// Which recorded disks a restore speaks of, and where each is now. With no disks given: all, where they were.
///
/// `--disk PATH` is the disk that was at that path, or the only one of that name's; `--disk NAME=PATH` is the disk of that
/// name, wherever it is now.
///
/// # Errors
/// `Invalid` for a disk that the snapshot doesn't have, or one given twice.
pub fn match_disks(vm: &str, snapshot: &str, recorded: &[Recorded<'_>], asked: &[DiskArg]) -> Result<Vec<NamedDisk>> {
    if asked.is_empty() {
        return Ok(recorded
            .iter()
            .map(|r| NamedDisk {
                name: r.name.into(),
                path: r.path.into(),
                format: None,
            })
            .collect());
    }
    let known = || {
        recorded
            .iter()
            .map(|r| format!("{} ({})", r.name, r.path))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let mut found: Vec<NamedDisk> = Vec::new();
    for disk in asked {
        let hit = match &disk.name {
            Some(name) => recorded.iter().find(|r| r.name == name),
            None => recorded.iter().find(|r| r.path == disk.path).or_else(|| {
                // a bare name where a path is expected: `--disk root`, which the CLI made absolute or left as it was
                recorded.iter().find(|r| r.name == disk.path)
            }),
        };
        let Some(hit) = hit else {
            let what = disk.name.as_deref().unwrap_or(&disk.path);
            return Err(invalid(format!(
                "disk {what} was never recorded for VM {vm}: snapshot {snapshot} has {}; nothing was changed",
                known()
            ))
            .hint(format!(
                "if the disk has moved, say which one it is: --disk NAME={}",
                disk.path
            )));
        };
        if found.iter().any(|f| f.name == hit.name || f.path == disk.path) {
            return Err(invalid(format!("disk {} is given twice", hit.name)));
        }
        let path = if disk.name.is_none() && disk.path == hit.name {
            hit.path
        } else {
            &disk.path
        };
        found.push(NamedDisk {
            name: hit.name.into(),
            path: path.into(),
            format: asked_format(disk)?,
        });
    }
    Ok(found)
}

/// Which of a VM's snapshots a person means by `text`: an id, a unique beginning of 8 characters or more, or `latest`
/// (the newest of `SnapshotKind::User`). `snapshots` are ids with their kind; ids sort by time.
///
/// # Errors
/// `NotFound` for none, `Invalid` for a beginning that is too short or fits several.
pub fn choose<'a>(vm: Option<&str>, snapshots: &[(&'a str, SnapshotKind)], text: &str) -> Result<&'a str> {
    let whose = vm.map_or_else(String::new, |vm| format!(" of VM {vm}"));
    let hint = vm.map_or_else(
        || "windlass snapshot ls".to_owned(),
        |vm| format!("windlass snapshot ls --vm {vm}"),
    );
    if text == "latest" {
        if vm.is_none() {
            return Err(invalid("'latest' needs to know whose").hint("add --vm NAME"));
        }
        let newest = snapshots
            .iter()
            .filter(|(_, kind)| *kind == SnapshotKind::User)
            .map(|(id, _)| *id)
            .max();
        return newest
            .ok_or_else(|| SnapshotError::new(Kind::NotFound, format!("there is no snapshot{whose}")).hint(hint));
    }
    let upper = text.to_ascii_uppercase();
    if let Some((id, _)) = snapshots.iter().find(|(id, _)| *id == upper) {
        return Ok(id);
    }
    if upper.len() < 8 {
        return Err(invalid(format!(
            "'{text}' is too short for a snapshot's id: give 8 characters or more, or 'latest'"
        ))
        .hint(hint));
    }
    let mut fits = snapshots.iter().map(|(id, _)| *id).filter(|id| id.starts_with(&upper));
    match (fits.next(), fits.next()) {
        (Some(id), None) => Ok(id),
        (None, _) => Err(SnapshotError::new(Kind::NotFound, format!("there is no snapshot {text}{whose}")).hint(hint)),
        (Some(a), Some(b)) => Err(invalid(format!(
            "'{text}' fits several snapshots{whose}, {a} and {b} among them"
        ))
        .hint(hint)),
    }
}

#[cfg(test)]
mod tests;
