//! Files below one directory, blocking: what makes a PUT durable and a range cheap.
//!
//! This is our own and not `object_store`'s `LocalFileSystem` (0.14.2, `with_fsync(true)`), which was read and measured:
//! - It fsyncs the parents of a new directory only in the call that made it. A second PUT into that directory can return
//!   while the first is still before that fsync, and a process killed there leaves a directory that nobody fsyncs again:
//!   both lose acknowledged objects at a power loss. Here no PUT returns before its whole chain of directories was fsynced
//!   by this process.
//! - Its DELETE isn't fsynced, so a forgotten snapshot could come back; its LIST fails on a directory that it can't read
//!   (`lost+found`), and knows no text prefix.
//! - Its range GET opens the file each time and reserves the range's length before it looks at the file's.

use std::collections::{HashSet, VecDeque};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use store::{Key, Spare};

use crate::direct;

/// Files kept open for range GETs. Restores read many ranges of few packs.
const OPEN_FILES_MAX: usize = 64;
/// Ranges from this length on are read into memory that was used before.
const LENT_BYTES_MIN: usize = 256 << 10;
/// So many bytes of it wait for the next range while others are in use, in pieces of a range.
const SPARE_BYTES_MAX: u64 = 64 << 20;
const SPARE_PIECE_BYTES: usize = 4 << 20;

/// A temporary file that is older than this by the file system's own clock belongs to a PUT that was killed.
const LEFT_OVER_AFTER: Duration = Duration::from_secs(3600);

/// What reading an object may answer besides I/O errors.
#[derive(Debug)]
pub(crate) enum ReadError {
    Io(io::Error),
    TooLarge { size_bytes: u64 },
    Short { size_bytes: u64 },
}

impl From<io::Error> for ReadError {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

/// The directory of a store.
#[derive(Debug)]
pub(crate) struct Files {
    root: PathBuf,
    /// Directories whose entry, and those of all above up to the root, this process has fsynced.
    durable: Mutex<HashSet<PathBuf>>,
    open: Mutex<VecDeque<(Key, Arc<File>)>>,
    temporary: AtomicU64,
    /// For large ranges.
    spare: Arc<Spare>,
}

fn fsync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// "No such object" for whatever is in the object's place and is no file.
fn no_object() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::NOENT.raw_os_error())
}

/// A path through a file (`a/b` where `a` is an object) is "not there" to a reader.
fn absent_if_not_directory(e: io::Error) -> io::Error {
    if e.kind() == io::ErrorKind::NotADirectory {
        no_object()
    } else {
        e
    }
}

/// Makes `path` and what is missing above it, so that they survive a power loss.
pub(crate) fn create_root(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    // Which of them an earlier, killed call made can't be seen, so all are fsynced; those above that this user may not
    // read are not of this call's making.
    for directory in path.ancestors() {
        match fsync_directory(directory) {
            Err(e)
                if directory != path
                    && matches!(e.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput) => {}
            done => done?,
        }
    }
    Ok(())
}

impl Files {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self {
            root,
            durable: Mutex::default(),
            open: Mutex::default(),
            temporary: AtomicU64::new(0),
            spare: Arc::new(Spare::new(SPARE_BYTES_MAX, SPARE_PIECE_BYTES)),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A key has no `..`, no empty segment and no leading `/`, so this stays below the root.
    pub(crate) fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.as_str())
    }

    /// Writes a whole object: temporary file, fdatasync, rename, fsync of the directory.
    pub(crate) fn put(&self, key: &Key, body: &[u8]) -> io::Result<()> {
        let path = self.path(key);
        let directory = path.parent().unwrap_or(&self.root);
        let fresh = self.make_durable(directory)?;
        let temporary = self.temporary_beside(directory);
        let result = Self::write(&temporary, body).and_then(|()| std::fs::rename(&temporary, &path));
        if let Err(e) = result {
            // Best effort: what stays is never listed, and removed by a later process.
            let _ = std::fs::remove_file(&temporary);
            self.forget_durable(directory);
            return Err(e);
        }
        self.forget_open(key);
        fsync_directory(directory)?;
        if fresh {
            remove_left_overs(directory, &path);
        }
        Ok(())
    }

    fn write(temporary: &Path, body: &[u8]) -> io::Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(temporary)?;
        direct::write_all(&file, body)?;
        // Data and size; times don't matter.
        file.sync_data()
    }

    /// `#` is in no key, so these are never objects. The process id keeps two processes apart, the counter two calls; a
    /// left-over of an earlier process with our id is met by `create_new`, and passed by the next number.
    fn temporary_beside(&self, directory: &Path) -> PathBuf {
        loop {
            let number = self.temporary.fetch_add(1, Ordering::Relaxed);
            let path = directory.join(format!("#{}-{number}", std::process::id()));
            if !path.exists() {
                return path;
            }
        }
    }

    /// Makes sure that `directory` and all above it up to the root exist and survive a power loss. True the first time.
    fn make_durable(&self, directory: &Path) -> io::Result<bool> {
        if self.lock_durable().contains(directory) {
            return Ok(false);
        }
        if directory != self.root {
            let parent = directory.parent().unwrap_or(&self.root);
            self.make_durable(parent)?;
            match DirBuilder::new().mode(0o700).create(directory) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                    // A parent that was removed behind our back: the next PUT makes it again.
                    self.forget_durable(parent);
                    return Err(e);
                }
                _ => fsync_directory(parent)?,
            }
        }
        // Known only after its fsync: a PUT beside this one that doesn't find it here does its own.
        Ok(self.lock_durable().insert(directory.to_owned()))
    }

    fn forget_durable(&self, directory: &Path) {
        let mut durable = self.lock_durable();
        for above in directory.ancestors().take_while(|a| a.starts_with(&self.root)) {
            durable.remove(above);
        }
    }

    fn lock_durable(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_object(&self, key: &Key) -> io::Result<(File, u64)> {
        let file = File::open(self.path(key)).map_err(absent_if_not_directory)?;
        let metadata = file.metadata()?;
        if metadata.is_file() {
            Ok((file, metadata.len()))
        } else {
            Err(no_object())
        }
    }

    /// Reads a whole object.
    pub(crate) fn get(&self, key: &Key, bytes_max: u64) -> Result<Bytes, ReadError> {
        let (file, size_bytes) = self.open_object(key)?;
        if size_bytes > bytes_max {
            return Err(ReadError::TooLarge { size_bytes });
        }
        let length = usize::try_from(size_bytes).map_err(io::Error::other)?;
        let mut body = vec![0; length];
        read_exactly(&file, 0, &mut body, size_bytes)?;
        Ok(body.into())
    }

    /// Reads exactly `range`.
    pub(crate) fn get_range(&self, key: &Key, range: &Range<u64>) -> Result<Bytes, ReadError> {
        let (file, size_bytes) = self.open_cached(key)?;
        if range.end > size_bytes {
            return Err(ReadError::Short { size_bytes });
        }
        // at most the size of a file that exists
        let length = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
        if length < LENT_BYTES_MIN {
            let mut body = vec![0; length];
            read_exactly(&file, range.start, &mut body, size_bytes)?;
            return Ok(body.into());
        }
        let mut body = self.spare.lend(length);
        read_exactly(&file, range.start, body.bytes_mut(), size_bytes)?;
        Ok(body.freeze())
    }

    /// The object's file, from the cache when the file there is still the one that has the name: an fstat tells, since
    /// removing or replacing a file takes its last link.
    fn open_cached(&self, key: &Key) -> io::Result<(Arc<File>, u64)> {
        if let Some(file) = self.take_open(key) {
            let metadata = file.metadata()?;
            if metadata.nlink() > 0 {
                self.keep_open(key, &file);
                return Ok((file, metadata.len()));
            }
        }
        let (file, size_bytes) = self.open_object(key)?;
        let file = Arc::new(file);
        self.keep_open(key, &file);
        Ok((file, size_bytes))
    }

    fn take_open(&self, key: &Key) -> Option<Arc<File>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.iter().find(|(k, _)| k == key).map(|(_, file)| Arc::clone(file))
    }

    fn keep_open(&self, key: &Key, file: &Arc<File>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(k, _)| k != key);
        open.push_back((key.clone(), Arc::clone(file)));
        if open.len() > OPEN_FILES_MAX {
            open.pop_front();
        }
    }

    fn forget_open(&self, key: &Key) {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|(k, _)| k != key);
    }

    /// Size in bytes and Unix milliseconds of the last change.
    pub(crate) fn head(&self, key: &Key) -> io::Result<(u64, i64)> {
        let metadata = std::fs::metadata(self.path(key)).map_err(absent_if_not_directory)?;
        if metadata.is_file() {
            Ok((metadata.len(), modified_ms(&metadata)))
        } else {
            Err(no_object())
        }
    }

    /// Removes objects, durably. Directories stay: a PUT may be about to use them.
    pub(crate) fn delete(&self, keys: &[Key]) -> Result<(), (Key, io::Error)> {
        let mut changed = HashSet::new();
        let mut first_error = None;
        for key in keys {
            let path = self.path(key);
            self.forget_open(key);
            match std::fs::remove_file(&path) {
                Ok(()) => {
                    changed.insert((path.parent().unwrap_or(&self.root).to_owned(), key.clone()));
                }
                Err(e) if is_no_object(&e) => {}
                Err(e) => {
                    first_error.get_or_insert((key.clone(), e));
                }
            }
        }
        let mut synced = HashSet::new();
        for (directory, key) in changed {
            if synced.insert(directory.clone()) {
                fsync_directory(&directory).map_err(|e| (key, e))?;
            }
        }
        first_error.map_or(Ok(()), Err)
    }
}

/// Nothing there, or a directory there, which is no object.
fn is_no_object(e: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(e.kind(), K::NotFound | K::NotADirectory | K::IsADirectory)
}

pub(crate) fn modified_ms(metadata: &std::fs::Metadata) -> i64 {
    metadata
        .mtime()
        .saturating_mul(1000)
        .saturating_add(metadata.mtime_nsec() / 1_000_000)
}

fn read_exactly(file: &File, start: u64, body: &mut [u8], size_bytes: u64) -> Result<(), ReadError> {
    match file.read_exact_at(body, start) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(ReadError::Short { size_bytes }),
        Err(e) => Err(e.into()),
    }
}

/// Removes temporary files of killed PUTs in `directory`; `written` was written just now and tells the time. Best effort:
/// they do no harm but take space.
fn remove_left_overs(directory: &Path, written: &Path) {
    let Some(now) = std::fs::metadata(written).ok().and_then(|m| m.modified().ok()) else {
        return;
    };
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries
        .flatten()
        .filter(|e| e.file_name().as_encoded_bytes().starts_with(b"#"))
    {
        let modified = entry
            .metadata()
            .ok()
            .filter(std::fs::Metadata::is_file)
            .and_then(|m| m.modified().ok());
        let age = modified.and_then(|m| now.duration_since(m).ok()).unwrap_or_default();
        if age > LEFT_OVER_AFTER && std::fs::remove_file(entry.path()).is_ok() {
            tracing::info!(file = %entry.path().display(), "removed what a killed PUT left");
        }
    }
}
