//! The intent journal: what a restore is about to do, durable before it overwrites anything.
//!
//! One file for each unfinished restore of a disk, `restores/<vm>@<disk>-<8 hex>.json` in the state directory: a line
//! `windlass restore-journal v1 blake3=<hex of the rest>`, then JSON. It is replaced by writing a temporary file, fsync,
//! rename, fsync of the directory; so a reader sees the old or the new one whole, and it is found again after power loss.
//!
//! ```text
//! create (both snapshots are durable) -> checkpoint* (the disk was synced first) -> phase Done -> remove
//! ```
//!
//! kill -9 leaves: before the rename a temporary file, which the next write replaces and `list` passes over; afterwards
//! a journal that the next restore or undo of the disk goes on from. A damaged journal is an error, never an absent one.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use repo::ManifestRef;
use serde::{Deserialize, Serialize};

use crate::{Kind, Result, SnapshotError};

/// Newest format of the journal. Version 2 has the disk's format; version 1, which disks that aren't qcow2 still get, is raw.
pub const JOURNAL_VERSION: u32 = 2;
/// Largest journal, in bytes.
const JOURNAL_BYTES_MAX: u64 = 256 << 10;
/// Most unfinished restores of one host.
const JOURNALS_MAX: usize = 4096;
/// Directory of the journals, within the state directory.
const DIRECTORY: &str = "restores";

/// Where a restore goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// To the target snapshot.
    Forward,
    /// Back to the common snapshot.
    Undo,
}

/// How far a restore is. Each phase may be run again from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Chunks are copied within the disk; `checkpoint` tells how far.
    Copy,
    /// Chunks are fetched and holes punched.
    Fetch,
    /// What was written is read back and checked.
    Verify,
    /// The disk is as it should be, and durable.
    Done,
}

/// A snapshot's state of the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The snapshot's full id.
    pub snapshot: String,
    /// Its manifest of this disk.
    pub manifest: ManifestRef,
}

/// What a restore of one disk is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// ULID of the restore; one for all disks that it restores.
    pub restore: String,
    /// The VM's name.
    pub vm: String,
    /// The disk's name within the VM.
    pub disk: String,
    /// Where the disk is.
    pub path: PathBuf,
    /// Device and inode of the disk when the restore began.
    pub identity: (u64, u64),
    /// The repository's URL, without secrets.
    pub repo_url: String,
    /// The repository's id.
    pub repo_id: String,
    /// The wanted state.
    pub target: State,
    /// The state before the restore: the way back.
    pub common: State,
    /// When it began, RFC 3339.
    pub started_at: String,
    /// The disk's format, when it is `qcow2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
}

/// A journal's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What is to be done.
    pub intent: Intent,
    /// Which way.
    pub direction: Direction,
    /// How far.
    pub phase: Phase,
    /// Steps of the copying part that are done and durable.
    pub checkpoint: u64,
    /// Which plan `checkpoint` counts in: a hash of it. Another windlass may plan another order.
    #[serde(default)]
    pub plan: String,
}

impl Record {
    /// The state that the disk is to have, and the other one.
    pub fn to_and_from(&self) -> (&State, &State) {
        let Intent { target, common, .. } = &self.intent;
        match self.direction {
            Direction::Forward => (target, common),
            Direction::Undo => (common, target),
        }
    }
}

/// The journals of a host.
#[derive(Debug, Clone)]
pub struct Journals {
    directory: PathBuf,
}

impl Journals {
    /// Those in this state directory, which exists; the journals' own directory is made when it is first needed.
    pub fn new(state_directory: &Path) -> Self {
        Self {
            directory: state_directory.join(DIRECTORY),
        }
    }

    fn path(&self, vm: &str, disk: &str) -> PathBuf {
        let whole = blake3::hash(format!("{vm}\0{disk}").as_bytes()).to_hex();
        let part = |name: &str| -> String {
            let fine = |c: char| {
                if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') {
                    c
                } else {
                    '_'
                }
            };
            name.chars().map(fine).take(60).collect()
        };
        self.directory
            .join(format!("{}@{}-{}.json", part(vm), part(disk), &whole[..8]))
    }

    /// The unfinished restore of a VM's disk.
    ///
    /// # Errors
    /// `Corrupt` when its journal is damaged, `Invalid` when a newer windlass wrote it.
    pub fn find(&self, vm: &str, disk: &str) -> Result<Option<Journal>> {
        let path = self.path(vm, disk);
        let Some(record) = read(&path)? else { return Ok(None) };
        if record.intent.vm != vm || record.intent.disk != disk {
            let whose = format!("it is that of disk {} of {}", record.intent.disk, record.intent.vm);
            return Err(damaged(&path, &whose));
        }
        Ok(Some(Journal {
            path,
            record,
            fresh: false,
        }))
    }

    /// All unfinished restores, by file name; a damaged one is an error in its place and doesn't hide others.
    ///
    /// # Errors
    /// When the directory can't be read or holds too much.
    pub fn list(&self) -> Result<Vec<Result<Journal>>> {
        let fail = |e: &std::io::Error| SnapshotError::io("list the journals in", self.directory.display(), e);
        let entries = match std::fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(fail(&e)),
        };
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry.map_err(|e| fail(&e))?.path();
            if path.extension().is_some_and(|e| e == "json") {
                paths.push(path);
            }
            if paths.len() > JOURNALS_MAX {
                let why = format!("more than {JOURNALS_MAX} journals in {}", self.directory.display());
                return Err(SnapshotError::new(Kind::Internal, why));
            }
        }
        paths.sort_unstable();
        let journal = |path: PathBuf| {
            Some(read(&path).transpose()?.map(|record| Journal {
                path,
                record,
                fresh: false,
            }))
        };
        Ok(paths.into_iter().filter_map(journal).collect())
    }

    /// The unfinished restores of the file with this device and inode, or at this path, under whichever VM's name.
    ///
    /// # Errors
    /// As [`Journals::list`], and of the first damaged journal: it may be this disk's.
    pub fn touching(&self, path: &Path, identity: (u64, u64)) -> Result<Vec<Journal>> {
        let all = self.list()?.into_iter().collect::<Result<Vec<_>>>()?;
        let same = |j: &Journal| j.record.intent.identity == identity || j.record.intent.path == path;
        Ok(all.into_iter().filter(same).collect())
    }

    /// Writes the journal of a restore that is about to begin.
    ///
    /// # Errors
    /// `Conflict` when the disk has an unfinished restore; those of the filesystem: nothing was begun.
    pub fn create(&self, intent: Intent) -> Result<Journal> {
        let path = self.path(&intent.vm, &intent.disk);
        if let Some(old) = self.find(&intent.vm, &intent.disk)? {
            return Err(old.conflict());
        }
        self.make_directory()?;
        let record = Record {
            intent,
            direction: Direction::Forward,
            phase: Phase::Copy,
            checkpoint: 0,
            plan: String::new(),
        };
        let journal = Journal {
            path,
            record,
            fresh: true,
        };
        journal.write()?;
        Ok(journal)
    }

    fn make_directory(&self) -> Result<()> {
        let fail = |e: std::io::Error| SnapshotError::io("make directory", self.directory.display(), &e);
        if self.directory.is_dir() {
            return Ok(());
        }
        std::fs::create_dir_all(&self.directory).map_err(fail)?;
        match self.directory.parent() {
            Some(parent) => sync_directory(parent),
            None => Ok(()),
        }
    }
}

/// The journal of one unfinished restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journal {
    path: PathBuf,
    record: Record,
    /// Made by this value's maker; nothing was written to the disk for it yet.
    fresh: bool,
}

impl Journal {
    /// What it says.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True the first time, when this journal was created by this very value: the disk is then as its common snapshot
    /// says. False for any other: the disk may be a mixture.
    pub(crate) fn take_fresh(&mut self) -> bool {
        std::mem::take(&mut self.fresh)
    }

    /// The error for whoever wants to begin something else with this disk.
    pub fn conflict(&self) -> SnapshotError {
        let Intent {
            restore,
            vm,
            disk,
            path,
            started_at,
            ..
        } = &self.record.intent;
        let why = format!(
            "disk {disk} of {vm} ({}) has an unfinished restore {restore} of {started_at}; nothing was changed",
            path.display()
        );
        SnapshotError::new(Kind::Conflict, why).hint(self.record.way_on())
    }

    /// Checks that the file at `path` is the one whose restore was begun. Devices may be numbered anew at a reboot, so
    /// only the inode and the size are compared.
    ///
    /// # Errors
    /// `Conflict` when it isn't.
    pub fn check_disk(&self, path: &Path, inode: u64, size_bytes: u64) -> Result<()> {
        let intent = &self.record.intent;
        let size = intent.common.manifest.size_bytes;
        if inode == intent.identity.1 && size_bytes == size {
            return Ok(());
        }
        let why = format!(
            "disk {} (inode {inode}, {size_bytes} bytes) is not the file whose restore {} was begun (inode {}, {size} bytes); nothing was changed",
            path.display(),
            intent.restore,
            intent.identity.1
        );
        Err(SnapshotError::new(Kind::Conflict, why).hint(format!(
            "put that file back at {}, or give the unfinished restore up by moving {} away",
            intent.path.display(),
            self.path.display()
        )))
    }

    /// Notes durably how far the restore is. The disk must have been synced.
    ///
    /// # Errors
    /// Those of the filesystem; the earlier note stands.
    pub fn note(&mut self, phase: Phase, checkpoint: u64, plan: &str) -> Result<()> {
        let before = self.record.clone();
        self.record.phase = phase;
        self.record.checkpoint = checkpoint;
        plan.clone_into(&mut self.record.plan);
        self.write().inspect_err(|_| self.record = before)
    }

    /// Turns the restore round, durably, before anything is written that way.
    ///
    /// # Errors
    /// Those of the filesystem; the direction stays.
    pub fn turn(&mut self, direction: Direction) -> Result<()> {
        if self.record.direction == direction {
            return Ok(());
        }
        self.fresh = false;
        let before = self.record.clone();
        self.record.direction = direction;
        self.record.phase = Phase::Copy;
        self.record.checkpoint = 0;
        self.record.plan.clear();
        self.write().inspect_err(|_| self.record = before)
    }

    /// Removes it, durably: the restore is finished and recorded.
    ///
    /// # Errors
    /// Those of the filesystem; then the restore counts as unfinished, and going on with it finds nothing left to do.
    pub fn remove(self) -> Result<()> {
        std::fs::remove_file(&self.path).map_err(|e| SnapshotError::io("remove journal", self.path.display(), &e))?;
        sync_directory(directory_of(&self.path))
    }

    fn write(&self) -> Result<()> {
        let internal =
            |e: serde_json::Error| SnapshotError::new(Kind::Internal, format!("can't encode a journal: {e}"));
        let mut body = serde_json::to_vec_pretty(&self.record).map_err(internal)?;
        body.push(b'\n');
        let mut bytes = head(&self.record, &body).into_bytes();
        bytes.append(&mut body);
        let temporary = self.path.with_extension("json.tmp");
        let fail = |e: std::io::Error| {
            let e = SnapshotError::io("write journal", temporary.display(), &e);
            SnapshotError {
                message: format!("{}; no byte of the disk was written since the last journal", e.message),
                ..e
            }
        };
        let mut file = File::create(&temporary).map_err(fail)?;
        file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(fail)?;
        drop(file);
        std::fs::rename(&temporary, &self.path).map_err(fail)?;
        sync_directory(directory_of(&self.path))
    }
}

impl Record {
    /// What to type to bring an unfinished restore to an end.
    pub fn way_on(&self) -> String {
        let Intent { vm, target, .. } = &self.intent;
        format!(
            "windlass restore --vm {vm} --to {} goes on with it; windlass restore --vm {vm} --undo goes back",
            target.snapshot
        )
    }
}

/// The first line. A journal that an older windlass can go on with has the older version.
fn head(record: &Record, body: &[u8]) -> String {
    let version = if record.intent.format.is_some() {
        JOURNAL_VERSION
    } else {
        1
    };
    format!(
        "windlass restore-journal v{version} blake3={}\n",
        blake3::hash(body).to_hex()
    )
}

fn directory_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

fn sync_directory(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|d| d.sync_all())
        .map_err(|e| SnapshotError::io("make durable directory", path.display(), &e))
}

fn damaged(path: &Path, why: &str) -> SnapshotError {
    let message = format!(
        "the journal {} of an unfinished restore is damaged: {why}; the disk may be a mixture of two states; nothing was changed",
        path.display()
    );
    SnapshotError::new(Kind::Corrupt, message).hint(format!(
        "move {} away, then restore the disk again: that first snapshots what it holds now",
        path.display()
    ))
}

fn read(path: &Path) -> Result<Option<Record>> {
    let fail = |e: &std::io::Error| SnapshotError::io("read journal", path.display(), e);
    match std::fs::metadata(path) {
        Ok(meta) if meta.len() > JOURNAL_BYTES_MAX => return Err(damaged(path, "it is too large")),
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(fail(&e)),
    }
    let bytes = std::fs::read(path).map_err(|e| fail(&e))?;
    decode(path, &bytes).map(Some)
}

fn decode(path: &Path, bytes: &[u8]) -> Result<Record> {
    let end = bytes
        .iter()
        .position(|b| *b == b'\n')
        .ok_or_else(|| damaged(path, "it has no first line"))?;
    let line = std::str::from_utf8(&bytes[..end]).map_err(|_| damaged(path, "its first line is no text"))?;
    let body = &bytes[end + 1..];
    let rest = line
        .strip_prefix("windlass restore-journal v")
        .ok_or_else(|| damaged(path, "its first line says something else"))?;
    let (version, sum) = rest
        .split_once(" blake3=")
        .ok_or_else(|| damaged(path, "its first line has no checksum"))?;
    // Every version keeps the first line, so damage is told from a newer version.
    if sum != blake3::hash(body).to_hex().as_str() {
        return Err(damaged(path, "its bytes don't match its checksum"));
    }
    let version: u32 = version
        .parse()
        .map_err(|_| damaged(path, "its first line has no version"))?;
    if version > JOURNAL_VERSION {
        let why = format!(
            "the journal {} of an unfinished restore has version {version}; this windlass knows {JOURNAL_VERSION}; nothing was changed",
            path.display()
        );
        return Err(
            SnapshotError::new(Kind::Invalid, why).hint("use the windlass that began the restore, or a newer one")
        );
    }
    serde_json::from_slice(body).map_err(|e| damaged(path, &e.to_string()))
}

#[cfg(test)]
mod tests;
