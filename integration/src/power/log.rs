//! What a recording holds: every change, and every request to make changes durable, in the order they were answered.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

/// The recorder's own number of a file or directory, never used twice. The root is [`ROOT`].
pub type Ino = u64;

/// The mounted directory itself.
pub const ROOT: Ino = 1;

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link to this target.
    Symlink(PathBuf),
    /// A socket or a named pipe: lives in the mount, is in no crash state.
    Special,
}

/// One recorded operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// A new node under a name.
    Create {
        /// Directory.
        dir: Ino,
        /// Name in it.
        name: OsString,
        /// The new node's number.
        ino: Ino,
        /// What it is.
        node: Node,
        /// Permission bits.
        mode: u32,
    },
    /// A further name of a file.
    Link {
        /// The file.
        ino: Ino,
        /// Directory.
        dir: Ino,
        /// Name in it.
        name: OsString,
    },
    /// A name goes: unlink or rmdir.
    Remove {
        /// Directory.
        dir: Ino,
        /// Name in it.
        name: OsString,
    },
    /// A name becomes another one, over what had it.
    Rename {
        /// What is renamed.
        ino: Ino,
        /// Old directory.
        from_dir: Ino,
        /// Old name.
        from: OsString,
        /// New directory.
        to_dir: Ino,
        /// New name.
        to: OsString,
    },
    /// Bytes at an offset.
    Write {
        /// The file.
        ino: Ino,
        /// Where, in bytes.
        offset: u64,
        /// What.
        data: Arc<[u8]>,
        /// The file was open with `O_SYNC` or `O_DSYNC`: durable when answered.
        sync: bool,
    },
    /// truncate, ftruncate, or open with `O_TRUNC`.
    SetSize {
        /// The file.
        ino: Ino,
        /// New size in bytes.
        size: u64,
    },
    /// fallocate that makes the file at least so large.
    Extend {
        /// The file.
        ino: Ino,
        /// New size in bytes if it was smaller.
        size: u64,
    },
    /// fallocate with `PUNCH_HOLE` or `ZERO_RANGE`: reads as zeros, size kept.
    Zero {
        /// The file.
        ino: Ino,
        /// Where, in bytes.
        offset: u64,
        /// How many bytes.
        length: u64,
    },
    /// fsync or fdatasync of a file.
    Fsync {
        /// The file.
        ino: Ino,
    },
    /// fsync of a directory.
    FsyncDir {
        /// The directory.
        ino: Ino,
    },
    /// Nothing: a test's own mark, to find this moment again.
    Mark(String),
}

impl Op {
    /// The file whose data this changes.
    pub fn data_of(&self) -> Option<Ino> {
        match self {
            Self::Write { ino, .. } | Self::SetSize { ino, .. } | Self::Extend { ino, .. } | Self::Zero { ino, .. } => {
                Some(*ino)
            }
            _ => None,
        }
    }
}

/// A recording: the tree as it was, and what was done to it.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// Paths of the initial tree, relative to its root, with their numbers. Hard links share one.
    pub initial: BTreeMap<PathBuf, (Ino, Node)>,
    /// What was done, in order.
    pub ops: Vec<Op>,
}

impl Log {
    /// Index of the mark `text`.
    pub fn mark(&self, text: &str) -> Option<usize> {
        self.ops.iter().position(|op| matches!(op, Op::Mark(t) if t == text))
    }

    /// Indexes of operations after which a crash gives a state of its own, thinned evenly to at most `points_max` with the
    /// first and the last kept. Marks are none.
    pub fn crash_points(&self, points_max: usize) -> Vec<usize> {
        let all: Vec<usize> = (0..self.ops.len())
            .filter(|i| !matches!(self.ops[*i], Op::Mark(_)))
            .collect();
        if all.len() <= points_max || points_max < 2 {
            return all.into_iter().take(points_max).collect();
        }
        (0..points_max)
            .map(|i| all[i * (all.len() - 1) / (points_max - 1)])
            .collect()
    }
}
