//! From a recording to the directory trees that a power loss may leave.
//!
//! The model is stricter than any one file system: what POSIX doesn't promise may be lost.
//! - fsync or fdatasync of a file makes its data and size durable as they are then, and nothing else.
//! - fsync of a directory makes its entries durable as they are then, not its own entry in the directory above.
//! - Changes of one directory's entries reach the disk in order; those of different directories, and data of files, in any.
//! - A rename between directories may leave the file under both names, never under none.
//! - Data that was not fsynced survives or not in pages of 4 KiB, each for itself; a size may survive without its data
//!   (zeros are read then), and data of a later write without that of an earlier one.
//!
//! Not modelled: sectors smaller than a page that are torn, times, owners, permission changes (always durable), extended
//! attributes, and `sync(2)`, which FUSE does not see (so it counts for nothing).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::log::{Ino, Log, Node, Op, ROOT};
use crate::Random;

/// Granularity in which data survives, in bytes.
pub const PAGE_BYTES: u64 = 4096;

/// Which of the changes that were not made durable survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// None of them.
    Nothing,
    /// All of them: what `kill -9` leaves.
    Everything,
    /// Each page, size change and tail of directory changes by chance; same seed, same state.
    Random(u64),
    /// All changes of names; of the data changes the later half, while the earlier ones are lost.
    ReorderedLast,
}

/// What the file system promises beyond POSIX.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rules {
    /// fsync of a file also makes the entries durable that it was created under or renamed to, as ext4 and XFS do.
    pub fsync_of_file_keeps_its_entry: bool,
}

/// Crash states of one recording.
#[derive(Debug)]
pub struct CrashStates<'a> {
    initial: PathBuf,
    log: &'a Log,
    rules: Rules,
}

/// One change of one directory's entries. A rename between directories is two.
#[derive(Debug, Clone)]
struct EntryChange {
    /// Index of the operation.
    op: usize,
    remove: Option<OsString>,
    add: Option<(OsString, Ino)>,
    /// The removal half of a rename to another directory, which holds only if the other half does.
    needs: Option<Ino>,
}

impl<'a> CrashStates<'a> {
    /// States of `log`, that was recorded from the tree in `initial`, which must be unchanged since.
    pub fn new(initial: &Path, log: &'a Log) -> Self {
        Self::with_rules(initial, log, Rules::default())
    }

    /// As [`CrashStates::new`], on a file system that promises more.
    pub fn with_rules(initial: &Path, log: &'a Log, rules: Rules) -> Self {
        Self {
            initial: initial.to_owned(),
            log,
            rules,
        }
    }

    /// Builds in `into` (made, or empty) the tree after a power loss just after operation `at` was answered.
    ///
    /// # Errors
    /// I/O errors of reading the initial tree and writing the new one; `InvalidInput` when `at` is past the end.
    pub fn materialise(&self, at: usize, policy: Policy, into: &Path) -> io::Result<()> {
        if at >= self.log.ops.len() {
            let why = format!("operation {at} of {}", self.log.ops.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let ops = &self.log.ops[..=at];
        let mut chance = Random::new(match policy {
            Policy::Random(seed) => seed ^ (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            _ => 0,
        });
        let entries = self.entries(ops, policy, &mut chance);
        let data = self.data(ops, policy, &mut chance);
        fs::create_dir_all(into)?;
        let mut build = Build {
            states: self,
            ops,
            entries: &entries,
            data: &data,
            modes: modes(ops),
            placed: HashMap::new(),
            seen: HashSet::new(),
        };
        build.directory(ROOT, into)
    }

    /// Entries of each directory that survive.
    fn entries(&self, ops: &[Op], policy: Policy, chance: &mut Random) -> BTreeMap<Ino, BTreeMap<OsString, Ino>> {
        let mut changes: BTreeMap<Ino, Vec<EntryChange>> = BTreeMap::new();
        let mut durable: BTreeMap<Ino, usize> = BTreeMap::new();
        for (i, op) in ops.iter().enumerate() {
            for (dir, change) in entry_changes(i, op) {
                changes.entry(dir).or_default().push(change);
            }
            match op {
                Op::FsyncDir { ino } => {
                    let done = changes.get(ino).map_or(0, Vec::len);
                    durable.insert(*ino, done);
                }
                Op::Fsync { ino } if self.rules.fsync_of_file_keeps_its_entry => {
                    keep_entries_of(*ino, &changes, &mut durable);
                }
                _ => {}
            }
        }
        let mut survive: BTreeMap<Ino, usize> = BTreeMap::new();
        for (dir, list) in &changes {
            let sure = durable.get(dir).copied().unwrap_or(0);
            survive.insert(
                *dir,
                match policy {
                    Policy::Nothing => sure,
                    Policy::Everything | Policy::ReorderedLast => list.len(),
                    Policy::Random(_) => sure + chance.below((list.len() - sure) as u64 + 1) as usize,
                },
            );
        }
        let added: BTreeSet<(usize, Ino)> = survive
            .iter()
            .flat_map(|(dir, n)| {
                changes[dir][..*n]
                    .iter()
                    .filter(|c| c.add.is_some())
                    .map(|c| (c.op, *dir))
            })
            .collect();
        let mut entries = self.initial_entries();
        for (dir, n) in &survive {
            let names = entries.entry(*dir).or_default();
            for change in &changes[dir][..*n] {
                let other_half_lost = change.needs.is_some_and(|to| !added.contains(&(change.op, to)));
                if let Some(name) = change.remove.as_ref().filter(|_| !other_half_lost) {
                    names.remove(name);
                }
                if let Some((name, ino)) = &change.add {
                    names.insert(name.clone(), *ino);
                }
            }
        }
        entries
    }

    fn initial_entries(&self) -> BTreeMap<Ino, BTreeMap<OsString, Ino>> {
        let mut entries: BTreeMap<Ino, BTreeMap<OsString, Ino>> = BTreeMap::new();
        for (path, (ino, _)) in &self.log.initial {
            let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
            let dir = parent
                .and_then(|p| self.log.initial.get(p))
                .map_or(ROOT, |(ino, _)| *ino);
            if let Some(name) = path.file_name() {
                entries.entry(dir).or_default().insert(name.to_owned(), *ino);
            }
        }
        entries
    }

    /// For each file the changes of data that survive, in order.
    fn data(&self, ops: &[Op], policy: Policy, chance: &mut Random) -> BTreeMap<Ino, Vec<Piece>> {
        let mut synced_until: BTreeMap<Ino, usize> = BTreeMap::new();
        for (i, op) in ops.iter().enumerate() {
            if let Op::Fsync { ino } = op {
                synced_until.insert(*ino, i);
            }
        }
        let sure = |i: usize, op: &Op, ino: Ino| {
            synced_until.get(&ino).is_some_and(|until| i < *until) || matches!(op, Op::Write { sync: true, .. })
        };
        let unsure = ops
            .iter()
            .enumerate()
            .filter(|(i, op)| op.data_of().is_some_and(|ino| !sure(*i, op, ino)))
            .count();
        let mut unsure_before = 0;
        let mut data: BTreeMap<Ino, Vec<Piece>> = BTreeMap::new();
        for (i, op) in ops.iter().enumerate() {
            let Some(ino) = op.data_of() else { continue };
            let pieces = data.entry(ino).or_default();
            if sure(i, op, ino) {
                pieces.push(Piece::whole(i, op));
                continue;
            }
            match policy {
                Policy::Nothing => {}
                Policy::Everything => pieces.push(Piece::whole(i, op)),
                Policy::ReorderedLast if unsure_before >= unsure / 2 => pieces.push(Piece::whole(i, op)),
                Policy::ReorderedLast => {}
                Policy::Random(_) => torn(i, op, chance, pieces),
            }
            unsure_before += 1;
        }
        data
    }
}

/// A part of an operation that survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    /// Bytes `start..end` of the file, out of the write `op`.
    Bytes { op: usize, start: u64, end: u64 },
    /// These bytes read as zeros, as far as the file reaches.
    Zeros { start: u64, end: u64 },
    /// The size is exactly this.
    Size(u64),
    /// The size is at least this.
    AtLeast(u64),
}

impl Piece {
    fn whole(i: usize, op: &Op) -> Self {
        match op {
            Op::Write { offset, data, .. } => Self::Bytes {
                op: i,
                start: *offset,
                end: offset + data.len() as u64,
            },
            Op::Zero { offset, length, .. } => Self::Zeros {
                start: *offset,
                end: offset + length,
            },
            Op::SetSize { size, .. } => Self::Size(*size),
            Op::Extend { size, .. } => Self::AtLeast(*size),
            _ => Self::AtLeast(0),
        }
    }
}

fn torn(i: usize, op: &Op, chance: &mut Random, pieces: &mut Vec<Piece>) {
    match Piece::whole(i, op) {
        Piece::Bytes { op, start, end } => {
            if chance.one_in(2) {
                pieces.push(Piece::AtLeast(end));
            }
            for (start, end) in pages(start, end).filter(|_| chance.one_in(2)) {
                pieces.push(Piece::Bytes { op, start, end });
            }
        }
        Piece::Zeros { start, end } => {
            for (start, end) in pages(start, end).filter(|_| chance.one_in(2)) {
                pieces.push(Piece::Zeros { start, end });
            }
        }
        other => {
            if chance.one_in(2) {
                pieces.push(other);
            }
        }
    }
}

fn pages(start: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
    let first = start / PAGE_BYTES;
    let last = end.div_ceil(PAGE_BYTES);
    (first..last).map(move |p| (start.max(p * PAGE_BYTES), end.min((p + 1) * PAGE_BYTES)))
}

fn entry_changes(i: usize, op: &Op) -> Vec<(Ino, EntryChange)> {
    let change = |remove, add| EntryChange {
        op: i,
        remove,
        add,
        needs: None,
    };
    match op {
        Op::Create { dir, name, ino, .. } | Op::Link { ino, dir, name } => {
            vec![(*dir, change(None, Some((name.clone(), *ino))))]
        }
        Op::Remove { dir, name } => vec![(*dir, change(Some(name.clone()), None))],
        Op::Rename {
            ino,
            from_dir,
            from,
            to_dir,
            to,
        } if from_dir == to_dir => {
            vec![(*to_dir, change(Some(from.clone()), Some((to.clone(), *ino))))]
        }
        Op::Rename {
            ino,
            from_dir,
            from,
            to_dir,
            to,
        } => {
            let removal = EntryChange {
                needs: Some(*to_dir),
                ..change(Some(from.clone()), None)
            };
            vec![(*to_dir, change(None, Some((to.clone(), *ino)))), (*from_dir, removal)]
        }
        _ => Vec::new(),
    }
}

/// As a journal does it: what makes the entry durable takes all earlier changes of that directory with it.
fn keep_entries_of(ino: Ino, changes: &BTreeMap<Ino, Vec<EntryChange>>, durable: &mut BTreeMap<Ino, usize>) {
    for (dir, list) in changes {
        if let Some(last) = list
            .iter()
            .rposition(|c| c.add.as_ref().is_some_and(|(_, added)| *added == ino))
        {
            let sure = durable.entry(*dir).or_default();
            *sure = (*sure).max(last + 1);
        }
    }
}

fn modes(ops: &[Op]) -> HashMap<Ino, (Node, u32)> {
    ops.iter()
        .filter_map(|op| match op {
            Op::Create { ino, node, mode, .. } => Some((*ino, (node.clone(), *mode))),
            _ => None,
        })
        .collect()
}

/// Writes one state out.
struct Build<'a> {
    states: &'a CrashStates<'a>,
    ops: &'a [Op],
    entries: &'a BTreeMap<Ino, BTreeMap<OsString, Ino>>,
    data: &'a BTreeMap<Ino, Vec<Piece>>,
    modes: HashMap<Ino, (Node, u32)>,
    /// Files that have a name already: a second one is a hard link.
    placed: HashMap<Ino, PathBuf>,
    seen: HashSet<Ino>,
}

impl Build<'_> {
    fn directory(&mut self, dir: Ino, into: &Path) -> io::Result<()> {
        self.seen.insert(dir);
        let Some(names) = self.entries.get(&dir) else {
            return Ok(());
        };
        for (name, ino) in names {
            let path = into.join(name);
            let initial = self
                .states
                .log
                .initial
                .iter()
                .find(|(_, (i, _))| i == ino)
                .map(|(p, (_, n))| (p.clone(), n.clone()));
            let (node, mode) = match (self.modes.get(ino), &initial) {
                (Some((node, mode)), _) => (node.clone(), Some(*mode)),
                (None, Some((_, node))) => (node.clone(), None),
                (None, None) => {
                    return Err(io::Error::other(format!(
                        "the recording names node {ino}, which it never made"
                    )));
                }
            };
            match node {
                // A directory that was moved may be found in both places: one of them gets it.
                Node::Directory if self.seen.contains(ino) => {}
                Node::Directory => {
                    fs::create_dir(&path)?;
                    self.directory(*ino, &path)?;
                }
                Node::Symlink(target) => std::os::unix::fs::symlink(target, &path)?,
                Node::Special => {}
                Node::File => self.file(*ino, initial.map(|(p, _)| p), mode, &path)?,
            }
        }
        Ok(())
    }

    fn file(&mut self, ino: Ino, initial: Option<PathBuf>, mode: Option<u32>, path: &Path) -> io::Result<()> {
        if let Some(first) = self.placed.get(&ino) {
            return fs::hard_link(first, path);
        }
        match initial {
            Some(from) => crate::disk::copy_sparse(&self.states.initial.join(from), path)?,
            None => drop(File::create(path)?),
        }
        let file = File::options().read(true).write(true).open(path)?;
        for piece in self.data.get(&ino).into_iter().flatten() {
            self.apply(&file, *piece)?;
        }
        if let Some(mode) = mode {
            file.set_permissions(fs::Permissions::from_mode(mode & 0o7777))?;
        }
        self.placed.insert(ino, path.to_owned());
        Ok(())
    }

    fn apply(&self, file: &File, piece: Piece) -> io::Result<()> {
        match piece {
            Piece::Bytes { op, start, end } => match &self.ops[op] {
                Op::Write { offset, data, .. } => {
                    file.write_all_at(&data[(start - offset) as usize..(end - offset) as usize], start)
                }
                _ => Err(io::Error::other("bytes of what is no write")),
            },
            Piece::Zeros { start, end } => {
                let end = end.min(file.metadata()?.len());
                if start < end {
                    crate::disk::punch_hole(file, start, end - start)
                } else {
                    Ok(())
                }
            }
            Piece::Size(size) => file.set_len(size),
            Piece::AtLeast(size) if size > file.metadata()?.len() => file.set_len(size),
            Piece::AtLeast(_) => Ok(()),
        }
    }
}
