//! What saves requests to distant stores: a local directory with index segments, packs of manifest nodes and snapshot
//! objects (docs/cache.md). Everything in it can go at any time: it is asked first, never alone.
//!
//! ```text
//! DIR/v1/<repository id>/segments/<BLAKE3>     an index segment as it is in the store
//!                        joined/<BLAKE3>       many small ones as one, with the names of those that it stands for
//!                        packs/<BLAKE3>        a pack of manifest nodes as it is in the store
//!                        snapshots/<first>-<last>-<BLAKE3>   many snapshot objects
//! DIR/v1/tmp/          being written
//! ```
//!
//! Invariants: an entry appears whole (written aside, then renamed) and is checked again when it is used; one that is bad
//! is removed and its bytes come from the store. No entry is ever changed, so several processes need no lock. What the
//! cache says is only believed of objects that a listing of the store has just named. No failure here fails a caller.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{Timespec, Timestamps};

mod docs;
mod evict;

pub(crate) use docs::DocBatches;

/// Version of the directory's layout: another one has a directory of its own beside it.
const LAYOUT: &str = "v1";
/// Directory of files that are being written.
const ASIDE: &str = "tmp";
/// How often an entry is written before it is left out.
const WRITES_MAX: u32 = 3;

/// What an entry is: its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Segments,
    Joined,
    Packs,
    Snapshots,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Segments, Self::Joined, Self::Packs, Self::Snapshots];
    fn dir(self) -> &'static str {
        match self {
            Self::Segments => "segments",
            Self::Joined => "joined",
            Self::Packs => "packs",
            Self::Snapshots => "snapshots",
        }
    }
}

/// A cache directory, shared by all repositories of a process and by all processes that name it.
#[derive(Debug)]
pub struct Cache {
    root: PathBuf,
    bytes_max: u64,
    /// Bytes written since the directory was last measured.
    unmeasured: AtomicU64,
    /// A write failed, and that was told: reading goes on, writing doesn't.
    read_only: AtomicBool,
}

impl Cache {
    /// The cache below `dir`, of at most `bytes_max` bytes; made when something is first written. `None`, with a warning,
    /// when the directory is somebody else's or others may write to it: what stands there could then not be believed.
    pub fn open(dir: &Path, bytes_max: u64) -> Option<Arc<Self>> {
        if bytes_max == 0 {
            return None;
        }
        let root = dir.join(LAYOUT);
        for place in [dir, &root] {
            if let Err(why) = trusted(place) {
                tracing::warn!(dir = %place.display(), why, "the cache is not used");
                return None;
            }
        }
        Some(Arc::new(Self {
            root,
            bytes_max,
            // so that the first write measures
            unmeasured: AtomicU64::new(u64::MAX / 2),
            read_only: AtomicBool::new(false),
        }))
    }

    /// The part of one repository.
    pub(crate) fn of(self: &Arc<Self>, repository: &str) -> Option<RepoCache> {
        // an id is a ULID; what is none must not name a path
        let fine = repository.len() == 26 && repository.bytes().all(|b| b.is_ascii_alphanumeric());
        fine.then(|| RepoCache {
            dir: self.root.join(repository),
            cache: self.clone(),
        })
    }

    /// Says once that writing failed, and stops trying.
    fn give_up(&self, error: &std::io::Error) {
        if !self.read_only.swap(true, Ordering::Relaxed) {
            tracing::warn!(dir = %self.root.display(), %error, "the cache can't be written; windlass goes on without it");
        }
    }
}

/// Refuses a directory that others can write to. One that isn't there is fine: it will be made.
fn trusted(dir: &Path) -> Result<(), &'static str> {
    let Ok(meta) = std::fs::metadata(dir) else {
        return Ok(());
    };
    if !meta.is_dir() {
        return Err("it is no directory");
    }
    if meta.uid() != rustix::process::geteuid().as_raw() {
        return Err("it belongs to another user");
    }
    if meta.mode() & 0o022 != 0 {
        return Err("others may write to it");
    }
    Ok(())
}

/// One repository's part of a [`Cache`]. Its calls block, and never fail: a miss is `None`.
#[derive(Debug, Clone)]
pub(crate) struct RepoCache {
    cache: Arc<Cache>,
    dir: PathBuf,
}

impl RepoCache {
    fn path(&self, kind: Kind, name: &str) -> PathBuf {
        self.dir.join(kind.dir()).join(name)
    }

    /// False once a write has failed.
    pub(crate) fn is_writable(&self) -> bool {
        !self.cache.read_only.load(Ordering::Relaxed)
    }

    /// Keeps an entry; true when it is there now. What a kill leaves is a file in `tmp`; what power loss leaves may be an
    /// entry with other bytes, which its check finds: so nothing is synced.
    pub(crate) fn put(&self, kind: Kind, name: &str, parts: &[&[u8]]) -> bool {
        let bytes = parts.iter().map(|p| p.len() as u64).sum::<u64>();
        if !self.is_writable() || bytes > self.cache.bytes_max / 2 {
            return false;
        }
        let (path, aside) = (self.path(kind, name), self.cache.root.join(ASIDE));
        if path.exists() {
            return true;
        }
        let write = || {
            make_dir(&aside)?;
            make_dir(&self.dir.join(kind.dir()))?;
            write_whole(&aside, &path, parts)
        };
        // NotFound: somebody empties the directory, or swept the file before it was locked
        let mut written = write();
        for _ in 1..WRITES_MAX {
            match &written {
                Err(error) if error.kind() == ErrorKind::NotFound => written = write(),
                _ => break,
            }
        }
        match written {
            Ok(()) => self.cache.measure(bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => return false,
            Err(error) => {
                self.cache.give_up(&error);
                return false;
            }
        }
        true
    }

    /// Opens an entry and notes that it was used.
    pub(crate) fn open(&self, kind: Kind, name: &str) -> Option<File> {
        let file = File::open(self.path(kind, name)).ok()?;
        let now = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
        let used = Timestamps {
            last_access: now(rustix::fs::UTIME_OMIT),
            last_modification: now(rustix::fs::UTIME_NOW),
        };
        // on a read-only disk the order of eviction is only less true
        let _order_of_eviction = rustix::fs::futimens(&file, &used);
        Some(file)
    }

    /// Opens an entry to look at it: that is no use of it.
    pub(crate) fn peek(&self, kind: Kind, name: &str) -> Option<File> {
        File::open(self.path(kind, name)).ok()
    }

    /// Where the entry is, when it is there with that length.
    pub(crate) fn path_of(&self, kind: Kind, name: &str, size_bytes: u64) -> Option<PathBuf> {
        let file = self.open(kind, name)?;
        if file.metadata().ok()?.len() != size_bytes {
            self.bad(kind, name, "it has another length");
            return None;
        }
        Some(self.path(kind, name))
    }

    /// Opens an entry whose name ends with the BLAKE3 of its bytes, once all of them were checked: they are read, not mapped,
    /// so they don't count as this process's memory.
    pub(crate) fn open_checked(&self, kind: Kind, name: &str) -> Option<File> {
        let file = self.open(kind, name)?;
        let mut hasher = blake3::Hasher::new();
        let read = hasher.update_reader(&file).map(|h| h.finalize().to_hex());
        let why = match read {
            Ok(hash) if name.ends_with(hash.as_str()) => return Some(file),
            Ok(_) => "its bytes do not match its name".to_owned(),
            Err(error) => error.to_string(),
        };
        self.bad(kind, name, &why);
        None
    }

    /// Removes an entry that can't be used.
    pub(crate) fn bad(&self, kind: Kind, name: &str, why: &str) {
        let path = self.path(kind, name);
        tracing::warn!(entry = %path.display(), why, "a cache entry is bad: removed, the store is asked instead");
        self.remove(kind, name);
    }

    /// Removes an entry that another one replaces.
    pub(crate) fn remove(&self, kind: Kind, name: &str) {
        let _gone_already = std::fs::remove_file(self.path(kind, name));
    }

    /// The names of all entries of a kind, with their sizes.
    pub(crate) fn list(&self, kind: Kind) -> Vec<(String, u64)> {
        let Ok(entries) = std::fs::read_dir(self.dir.join(kind.dir())) else {
            return Vec::new();
        };
        let entry = |e: std::io::Result<std::fs::DirEntry>| {
            let e = e.ok()?;
            Some((e.file_name().into_string().ok()?, e.metadata().ok()?.len()))
        };
        let mut found: Vec<(String, u64)> = entries.filter_map(entry).collect();
        found.sort_unstable();
        found
    }
}

fn make_dir(dir: &Path) -> std::io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Writes aside, under a lock that tells the sweep of other processes that somebody still writes; then renames.
fn write_whole(aside: &Path, path: &Path, parts: &[&[u8]]) -> std::io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(aside)?;
    file.as_file().lock()?;
    for part in parts {
        file.write_all(part)?;
    }
    file.persist(path).map(drop).map_err(|e| e.error)
}

#[cfg(test)]
mod tests;
