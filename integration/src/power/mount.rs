//! A file system over FUSE that does what it is asked and writes down what was asked.
//!
//! Names live in memory, the bytes of each file in one file of a scratch directory, so that a removed file that is still
//! open, or a name used twice, can't be confused. fsync is recorded and not done: what would be lost is worked out later
//! by [`CrashStates`](super::CrashStates), so recording is fast.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use fuser::{BackgroundSession, Config, Errno, FileAttr, FileType, INodeNo, MountOption, OpenFlags, RenameFlags};
use rustix::fs::{FallocateFlags, OFlags};

use super::log::{Ino, Log, Node, Op, ROOT};

mod filesystem;

/// Bytes of writes that one recording holds in memory at most; beyond, writes fail with `EFBIG`.
pub const RECORDED_BYTES_MAX: u64 = 4 << 30;

type Answer<T> = Result<T, Errno>;

struct Entry {
    node: Node,
    mode: u32,
    links: u32,
    modified: SystemTime,
    changed: SystemTime,
    accessed: SystemTime,
    /// The bytes, for a file.
    file: Option<Arc<File>>,
    /// Type bits of a socket or pipe.
    special: Option<FileType>,
    /// Directory above, for a directory.
    parent: Ino,
    names: BTreeMap<OsString, Ino>,
}

type Listing = Vec<(Ino, FileType, OsString)>;

#[derive(Default)]
struct State {
    entries: HashMap<Ino, Entry>,
    listings: HashMap<u64, Listing>,
    last_ino: Ino,
    last_listing: u64,
    recorded_bytes: u64,
    log: Log,
}

#[derive(Clone)]
struct Recorder {
    scratch: PathBuf,
    state: Arc<Mutex<State>>,
}

/// A mounted recording. Dropping it unmounts.
pub struct Recording {
    state: Arc<Mutex<State>>,
    session: Option<BackgroundSession>,
    mountpoint: PathBuf,
}

impl std::fmt::Debug for Recording {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recording")
            .field("mountpoint", &self.mountpoint)
            .finish_non_exhaustive()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a file system's own clock is what its times are defined by"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

impl Recording {
    /// Mounts a copy of the tree `initial` on the empty directory `mountpoint`; bytes go to files in the directory
    /// `scratch`. `initial` stays as it is, and must, for the crash states are built from it.
    ///
    /// # Errors
    /// What the mount answers, with what is needed to make it work; I/O errors of copying.
    pub fn mount(initial: &Path, mountpoint: &Path, scratch: &Path) -> io::Result<Self> {
        let recorder = Recorder {
            scratch: scratch.to_owned(),
            state: Arc::default(),
        };
        recorder.import(initial)?;
        let state = Arc::clone(&recorder.state);
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("windlass-recording".into()), MountOption::RW];
        let session = fuser::spawn_mount(recorder, mountpoint, &config).map_err(|e| {
            let why = format!(
                "the power-loss layer could not be mounted on {}: {e}. It needs /dev/fuse and root; without root also the \
                 package fuse3 (fusermount3) and read and write permission on /dev/fuse",
                mountpoint.display()
            );
            io::Error::new(e.kind(), why)
        })?;
        Ok(Self {
            state,
            session: Some(session),
            mountpoint: mountpoint.to_owned(),
        })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mountpoint
    }

    /// Writes a mark into the log.
    pub fn mark(&self, text: &str) {
        lock(&self.state).log.ops.push(Op::Mark(text.to_owned()));
    }

    /// Operations recorded so far.
    pub fn ops(&self) -> usize {
        lock(&self.state).log.ops.len()
    }

    /// Unmounts and gives the log. Processes that still use the mount make this fail with `EBUSY`.
    ///
    /// # Errors
    /// What unmounting answers.
    pub fn finish(mut self) -> io::Result<Log> {
        if let Some(session) = self.session.take() {
            session.umount_and_join()?;
        }
        Ok(std::mem::take(&mut lock(&self.state).log))
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn add(&mut self, node: Node, mode: u32, file: Option<File>, parent: Ino) -> Ino {
        self.last_ino += 1;
        let time = now();
        let entry = Entry {
            node,
            mode,
            links: 1,
            modified: time,
            changed: time,
            accessed: time,
            file: file.map(Arc::new),
            special: None,
            parent,
            names: BTreeMap::new(),
        };
        self.entries.insert(self.last_ino, entry);
        self.last_ino
    }

    fn entry(&mut self, ino: Ino) -> Answer<&mut Entry> {
        self.entries.get_mut(&ino).ok_or(Errno::ENOENT)
    }

    fn file(&mut self, ino: Ino) -> Answer<Arc<File>> {
        let entry = self.entry(ino)?;
        entry.file.clone().ok_or(if entry.node == Node::Directory {
            Errno::EISDIR
        } else {
            Errno::EINVAL
        })
    }

    fn child(&mut self, dir: Ino, name: &OsStr) -> Answer<Ino> {
        let entry = self.entry(dir)?;
        if entry.node != Node::Directory {
            return Err(Errno::ENOTDIR);
        }
        entry.names.get(name).copied().ok_or(Errno::ENOENT)
    }

    fn touch(&mut self, ino: Ino) {
        if let Some(entry) = self.entries.get_mut(&ino) {
            entry.modified = now();
            entry.changed = entry.modified;
        }
    }

    fn place(&mut self, dir: Ino, name: &OsStr, ino: Ino) -> Answer<()> {
        self.entry(dir)?.names.insert(name.to_owned(), ino);
        self.touch(dir);
        Ok(())
    }

    fn drop_link(&mut self, ino: Ino) {
        if let Some(entry) = self.entries.get_mut(&ino) {
            entry.links = entry.links.saturating_sub(1);
            entry.changed = now();
        }
    }

    fn attributes(&mut self, ino: Ino) -> Answer<FileAttr> {
        let subdirectories = match self.entry(ino)?.node {
            Node::Directory => {
                let names: Vec<Ino> = self.entry(ino)?.names.values().copied().collect();
                names
                    .iter()
                    .filter(|i| self.entries.get(i).is_some_and(|e| e.node == Node::Directory))
                    .count()
            }
            _ => 0,
        };
        let entry = self.entry(ino)?;
        let (size, blocks) = match (&entry.file, &entry.node) {
            (Some(file), _) => {
                let metadata = file.metadata().map_err(Errno::from)?;
                (metadata.len(), metadata.blocks())
            }
            (None, Node::Symlink(target)) => (target.as_os_str().len() as u64, 0),
            _ => (4096, 8),
        };
        Ok(FileAttr {
            ino: INodeNo(ino),
            size,
            blocks,
            atime: entry.accessed,
            mtime: entry.modified,
            ctime: entry.changed,
            crtime: entry.changed,
            kind: kind(entry),
            perm: (entry.mode & 0o7777) as u16,
            nlink: if entry.node == Node::Directory && entry.links > 0 {
                2 + subdirectories as u32
            } else {
                entry.links
            },
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    fn record_bytes(&mut self, bytes: u64) -> Answer<()> {
        if self.recorded_bytes + bytes > RECORDED_BYTES_MAX {
            return Err(Errno::EFBIG);
        }
        self.recorded_bytes += bytes;
        Ok(())
    }
}

fn kind(entry: &Entry) -> FileType {
    match entry.node {
        Node::File => FileType::RegularFile,
        Node::Directory => FileType::Directory,
        Node::Symlink(_) => FileType::Symlink,
        Node::Special => entry.special.unwrap_or(FileType::Socket),
    }
}

impl Recorder {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn import(&self, initial: &Path) -> io::Result<()> {
        let mut state = self.lock();
        let root = state.add(Node::Directory, 0o755, None, ROOT);
        debug_assert_eq!(root, ROOT);
        let mut hard_links = HashMap::new();
        self.import_directory(&mut state, initial, Path::new(""), ROOT, &mut hard_links)
    }

    fn import_directory(
        &self,
        state: &mut State,
        initial: &Path,
        relative: &Path,
        dir: Ino,
        hard_links: &mut HashMap<(u64, u64), Ino>,
    ) -> io::Result<()> {
        for entry in fs::read_dir(initial.join(relative))? {
            let entry = entry?;
            let path = relative.join(entry.file_name());
            let metadata = entry.metadata()?;
            let mode = metadata.permissions().mode();
            let identity = (metadata.dev(), metadata.ino());
            let ino = if let Some(ino) = hard_links.get(&identity).filter(|_| metadata.is_file()) {
                state.entries.entry(*ino).and_modify(|e| e.links += 1);
                *ino
            } else if metadata.is_dir() {
                let ino = state.add(Node::Directory, mode, None, dir);
                self.import_directory(state, initial, &path, ino, hard_links)?;
                ino
            } else if metadata.is_symlink() {
                state.add(Node::Symlink(fs::read_link(entry.path())?), mode, None, dir)
            } else if metadata.is_file() {
                crate::disk::copy_sparse(&entry.path(), &self.scratch.join((state.last_ino + 1).to_string()))?;
                let file = self.bytes(state.last_ino + 1, false)?;
                let ino = state.add(Node::File, mode, Some(file), dir);
                state
                    .entries
                    .entry(ino)
                    .and_modify(|e| e.modified = metadata.modified().unwrap_or(e.modified));
                hard_links.insert(identity, ino);
                ino
            } else {
                continue;
            };
            let node = state.entries.get(&ino).map_or(Node::File, |e| e.node.clone());
            state.log.initial.insert(path, (ino, node));
            state.entries.entry(dir).and_modify(|e| {
                e.names.insert(entry.file_name(), ino);
            });
        }
        Ok(())
    }

    fn bytes(&self, ino: Ino, new: bool) -> io::Result<File> {
        File::options()
            .read(true)
            .write(true)
            .create(new)
            .truncate(new)
            .open(self.scratch.join(ino.to_string()))
    }

    fn make(&self, dir: Ino, name: &OsStr, node: Node, mode: u32, special: Option<FileType>) -> Answer<FileAttr> {
        let mut state = self.lock();
        match state.child(dir, name) {
            Ok(_) => return Err(Errno::EEXIST),
            Err(e) if e.code() == Errno::ENOENT.code() => {}
            Err(e) => return Err(e),
        }
        let file = match node {
            Node::File => Some(self.bytes(state.last_ino + 1, true).map_err(Errno::from)?),
            _ => None,
        };
        let ino = state.add(node.clone(), mode, file, dir);
        state.entry(ino)?.special = special;
        state.place(dir, name, ino)?;
        state.log.ops.push(Op::Create {
            dir,
            name: name.to_owned(),
            ino,
            node,
            mode: mode & 0o7777,
        });
        state.attributes(ino)
    }

    fn remove(&self, dir: Ino, name: &OsStr, directory: bool) -> Answer<()> {
        let mut state = self.lock();
        let ino = state.child(dir, name)?;
        let entry = state.entry(ino)?;
        match (entry.node == Node::Directory, directory) {
            (true, false) => return Err(Errno::EISDIR),
            (false, true) => return Err(Errno::ENOTDIR),
            (true, true) if !entry.names.is_empty() => return Err(Errno::ENOTEMPTY),
            _ => {}
        }
        state.entry(dir)?.names.remove(name);
        state.touch(dir);
        state.drop_link(ino);
        state.log.ops.push(Op::Remove {
            dir,
            name: name.to_owned(),
        });
        Ok(())
    }

    fn rename_node(&self, from_dir: Ino, from: &OsStr, to_dir: Ino, to: &OsStr, flags: RenameFlags) -> Answer<()> {
        if flags.contains(RenameFlags::RENAME_EXCHANGE) || flags.contains(RenameFlags::RENAME_WHITEOUT) {
            return Err(Errno::EINVAL);
        }
        let mut state = self.lock();
        let ino = state.child(from_dir, from)?;
        if let Ok(over) = state.child(to_dir, to) {
            if flags.contains(RenameFlags::RENAME_NOREPLACE) {
                return Err(Errno::EEXIST);
            }
            if over == ino {
                return Ok(());
            }
            let moved_directory = state.entry(ino)?.node == Node::Directory;
            let entry = state.entry(over)?;
            match (moved_directory, entry.node == Node::Directory) {
                (false, true) => return Err(Errno::EISDIR),
                (true, false) => return Err(Errno::ENOTDIR),
                (true, true) if !entry.names.is_empty() => return Err(Errno::ENOTEMPTY),
                _ => {}
            }
            state.drop_link(over);
        }
        state.entry(from_dir)?.names.remove(from);
        state.touch(from_dir);
        state.place(to_dir, to, ino)?;
        state.entry(ino)?.parent = to_dir;
        state.log.ops.push(Op::Rename {
            ino,
            from_dir,
            from: from.to_owned(),
            to_dir,
            to: to.to_owned(),
        });
        Ok(())
    }

    fn write_at(&self, ino: Ino, offset: u64, data: &[u8], flags: OpenFlags) -> Answer<u32> {
        let mut state = self.lock();
        let file = state.file(ino)?;
        state.record_bytes(data.len() as u64)?;
        file.write_all_at(data, offset).map_err(Errno::from)?;
        state.touch(ino);
        // O_SYNC holds O_DSYNC's bit.
        let sync = OFlags::from_bits_retain(flags.0 as u32).intersects(OFlags::DSYNC);
        state.log.ops.push(Op::Write {
            ino,
            offset,
            data: data.into(),
            sync,
        });
        u32::try_from(data.len()).map_err(|_| Errno::EINVAL)
    }

    fn allocate(&self, ino: Ino, offset: u64, length: u64, mode: i32) -> Answer<()> {
        let flags = FallocateFlags::from_bits_retain(mode as u32);
        let keep = flags.contains(FallocateFlags::KEEP_SIZE);
        let zero = flags.intersects(FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE);
        if flags
            .intersects(FallocateFlags::COLLAPSE_RANGE | FallocateFlags::INSERT_RANGE | FallocateFlags::UNSHARE_RANGE)
        {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut state = self.lock();
        let file = state.file(ino)?;
        rustix::fs::fallocate(&file, flags, offset, length).map_err(|e| Errno::from_i32(e.raw_os_error()))?;
        state.touch(ino);
        if zero {
            state.log.ops.push(Op::Zero { ino, offset, length });
        }
        if !keep {
            state.log.ops.push(Op::Extend {
                ino,
                size: offset + length,
            });
        }
        Ok(())
    }

    fn listing(&self, ino: Ino) -> Answer<u64> {
        let mut state = self.lock();
        let entry = state.entry(ino)?;
        if entry.node != Node::Directory {
            return Err(Errno::ENOTDIR);
        }
        let (parent, names) = (entry.parent, entry.names.clone());
        let mut listing = vec![
            (ino, FileType::Directory, ".".into()),
            (parent, FileType::Directory, "..".into()),
        ];
        for (name, child) in names {
            let kind = state.entries.get(&child).map_or(FileType::RegularFile, kind);
            listing.push((child, kind, name));
        }
        state.last_listing += 1;
        let handle = state.last_listing;
        state.listings.insert(handle, listing);
        Ok(handle)
    }
}
