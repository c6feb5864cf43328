//! Refuses a disk that something else uses, before a byte of it is written.
//!
//! In use means: a loop device or swap stands on it, it is mounted, part of a btrfs, or held by device mapper, MD or the like,
//! another process has it open for writing, or another process holds a lock on it. What is true of a partition is true of
//! its device, and the other way round ([`kin`]). Files are compared by device and inode, block devices by their number, so
//! hard links, symlinks and mount namespaces don't hide a user. What this process may not look at (another user's
//! `/proc/PID/fd` without privileges) is skipped; so are users inside the kernel that show nowhere in `/proc` or `/sys` (an
//! in-kernel iSCSI target: a device's own claim, `O_EXCL`, keeps those away when it is opened), and a writer that closed the
//! file and kept a shared mapping of it. The exclusive `flock` that the writer then takes is the agreement among windlass
//! processes.

use std::fs::{File, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::process::{Flock, FlockType};

use crate::engine::locks;
use crate::{Kind, Result, SnapshotError};

mod kin;

use kin::Kin;

/// Most users that one error names.
const USERS_NAMED_MAX: usize = 3;

/// Looks for users of a disk. The roots are `/proc` and `/sys` but for tests.
#[derive(Debug, Clone)]
pub struct Guard {
    proc_root: PathBuf,
    sys_root: PathBuf,
    own_pid: u32,
}

impl Default for Guard {
    fn default() -> Self {
        Self::new("/proc".into(), "/sys".into(), std::process::id())
    }
}

/// Who uses a disk, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct User {
    what: String,
    hint: String,
}

impl Guard {
    /// A guard that looks below these roots and takes `own_pid` for itself.
    pub fn new(proc_root: PathBuf, sys_root: PathBuf, own_pid: u32) -> Self {
        Self {
            proc_root,
            sys_root,
            own_pid,
        }
    }

    /// Checks a disk that is to be overwritten. Call it before the writer opens the disk: its lock is looked for too.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` when it is neither a regular file nor a block device; `Conflict` when it is in use, naming
    /// the user and what to do; `Denied` when it can't be opened for writing.
    pub fn check(&self, path: &Path) -> Result<()> {
        let meta = check_shape(path)?;
        let mut users = self.users(path, &meta);
        if users.is_empty() {
            users.extend(self.lock_holder(path, &meta)?);
        }
        refuse(path, &users)
    }

    /// Checks again for users that came in between, when this process itself has the disk open and locked.
    ///
    /// # Errors
    /// As [`Guard::check`].
    pub fn check_again(&self, path: &Path) -> Result<()> {
        let meta = check_shape(path)?;
        refuse(path, &self.users(path, &meta))
    }

    /// The process that holds QEMU's image locks on a disk, as far as we may look.
    pub fn image_lock_holder(&self, meta: &Metadata) -> Option<String> {
        let kin = Kin::of(&self.sys_root, meta);
        let pids = names(&self.proc_root)
            .into_iter()
            .filter_map(|name| name.parse::<u32>().ok());
        let holds = |pid: &u32| {
            let process = self.proc_root.join(pid.to_string());
            names(&process.join("fd")).iter().any(|fd| {
                let info = || std::fs::read_to_string(process.join("fdinfo").join(fd)).unwrap_or_default();
                kin.opened_by(&process.join("fd").join(fd)).is_some() && info().lines().any(is_image_lock)
            })
        };
        let pid = pids.into_iter().find(holds)?;
        Some(format!("process {pid} ({})", self.comm(pid)))
    }

    /// All users that show in `/proc` and `/sys`.
    fn users(&self, path: &Path, meta: &Metadata) -> Vec<User> {
        let kin = Kin::of(&self.sys_root, meta);
        let mut users = self.loop_devices(path, &kin);
        users.extend(self.device_users(&kin));
        users.extend(self.swap(&kin));
        users.extend(self.mounted(&kin));
        users.extend(self.writers(&kin));
        // a mount shows by its numbers and by its source
        let mut seen = Vec::new();
        users.retain(|user| {
            let new = !seen.contains(&user.what);
            seen.push(user.what.clone());
            new
        });
        users
    }

    fn loop_devices(&self, path: &Path, kin: &Kin) -> Vec<User> {
        let canonical = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let mut users = Vec::new();
        for name in names(&self.sys_root.join("block"))
            .into_iter()
            .filter(|n| n.starts_with("loop"))
        {
            let device = self.sys_root.join("block").join(&name);
            let Some(backing) = read_line(&device.join("loop/backing_file")) else {
                continue;
            };
            let backing = PathBuf::from(backing.strip_suffix(" (deleted)").unwrap_or(&backing));
            let Some(is) = kin.named_by(&backing).or((backing == canonical).then_some("it")) else {
                continue;
            };
            let numbers = std::iter::once(device.join("dev")).chain(
                names(&device)
                    .into_iter()
                    .filter(|n| n.starts_with(&name))
                    .map(|n| device.join(n).join("dev")),
            );
            let mounts: Vec<String> = numbers
                .filter_map(|dev| read_line(&dev))
                .flat_map(|dev| self.mount_points(&dev))
                .collect();
            users.push(match mounts.first() {
                Some(at) => User {
                    what: format!("{is} backs /dev/{name}, which is mounted at {at}"),
                    hint: format!("umount {at} && losetup -d /dev/{name}"),
                },
                None => User {
                    what: format!("{is} backs /dev/{name}"),
                    hint: format!("losetup -d /dev/{name}"),
                },
            });
        }
        users
    }

    /// Who stands on a block device or on what shares its bytes: mounts, devices made of it, a btrfs with it.
    fn device_users(&self, kin: &Kin) -> Vec<User> {
        let mut users = Vec::new();
        for device in &kin.devices {
            let is = &device.is;
            users.extend(self.mount_points(&device.numbers).into_iter().map(|at| User {
                what: format!("{is} is mounted at {at}"),
                hint: format!("umount {at}"),
            }));
            users.extend(names(&device.directory.join("holders")).into_iter().map(|holder| User {
                what: format!("{is} is part of /dev/{holder}"),
                hint: format!("lsblk /dev/{holder}"),
            }));
        }
        // a btrfs of several devices is mounted under the name of one
        let all = self.sys_root.join("fs/btrfs");
        for id in names(&all) {
            let members = all.join(&id).join("devices");
            let numbers = names(&members).into_iter().map(|name| members.join(name).join("dev"));
            let mut found = numbers.filter_map(|dev| read_line(&dev));
            if let Some(device) = found.find_map(|numbers| kin.numbered(&numbers)) {
                users.push(User {
                    what: format!("{} is part of the mounted btrfs {id}", device.is),
                    hint: format!("umount it: findmnt --source UUID={id}"),
                });
            }
        }
        users
    }

    fn mount_lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.proc_root.join("self/mountinfo")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Where the device with these numbers is mounted.
    fn mount_points(&self, numbers: &str) -> Vec<String> {
        let lines = self.mount_lines();
        let of_device = lines.iter().map(|line| line.split(' ').collect::<Vec<_>>());
        of_device
            .filter(|fields| fields.get(2) == Some(&numbers))
            .filter_map(|f| f.get(4).map(|at| unescape(at)))
            .collect()
    }

    /// A mount whose source is the file itself (file-backed mounts need no loop device since Linux 6.12).
    fn mounted(&self, kin: &Kin) -> Vec<User> {
        let mut users = Vec::new();
        for line in self.mount_lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let Some(source) = right.split(' ').nth(1).filter(|s| s.starts_with('/')) else {
                continue;
            };
            if let Some(is) = kin.named_by(Path::new(&unescape(source))) {
                let at = unescape(left.split(' ').nth(4).unwrap_or("?"));
                users.push(User {
                    what: format!("{is} is mounted at {at}"),
                    hint: format!("umount {at}"),
                });
            }
        }
        users
    }

    fn swap(&self, kin: &Kin) -> Option<User> {
        let text = std::fs::read_to_string(self.proc_root.join("swaps")).unwrap_or_default();
        let mut files = text
            .lines()
            .skip(1)
            .filter_map(|line| line.split_whitespace().next())
            .map(unescape);
        let (is, file) = files.find_map(|file| Some((kin.named_by(Path::new(&file))?, file)))?;
        Some(User {
            what: format!(
                "the host swaps to {}",
                if is == "it" { format!("it ({file})") } else { is.into() }
            ),
            hint: format!("swapoff {file}"),
        })
    }

    /// Other processes that have it open for writing.
    fn writers(&self, kin: &Kin) -> Vec<User> {
        let mut users = Vec::new();
        for name in names(&self.proc_root) {
            let Ok(pid) = name.parse::<u32>() else { continue };
            if pid == self.own_pid {
                continue; // this process's own use is settled by the lock
            }
            let process = self.proc_root.join(&name);
            let written = names(&process.join("fd"))
                .iter()
                .find_map(|fd| written_by(&process, fd, kin));
            if let Some(is) = written {
                users.push(self.process(pid, &format!("has {is} open for writing")));
            }
        }
        users
    }

    fn comm(&self, pid: u32) -> String {
        read_line(&self.proc_root.join(pid.to_string()).join("comm")).unwrap_or_else(|| "?".to_owned())
    }

    fn process(&self, pid: u32, does: &str) -> User {
        User {
            what: format!("process {pid} ({}) {does}", self.comm(pid)),
            hint: format!("stop process {pid} (is the VM still running?), then try again"),
        }
    }

    /// Whoever holds a lock that excludes ours: `flock`, POSIX, or open file description.
    fn lock_holder(&self, path: &Path, meta: &Metadata) -> Result<Option<User>> {
        let open = |e: &std::io::Error| SnapshotError::io("open for writing disk", path.display(), e);
        let file = File::options()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|e| open(&e))?;
        let flocked = match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                let _ = rustix::fs::flock(&file, FlockOperation::Unlock); // closing the file does it too
                false
            }
            Err(rustix::io::Errno::WOULDBLOCK) => true,
            Err(e) => return Err(SnapshotError::io("lock disk", path.display(), &e.into())),
        };
        let listed = self.locks(meta);
        // Hidden from `/proc/locks`: a holder in another PID namespace. Open file description locks have PID -1, which
        // rustix's debug assertions refuse, so the call is left out where the list knows one.
        let asked = if listed.is_empty() {
            // A filesystem without such locks has no holder.
            rustix::process::fcntl_getlk(&file, &Flock::from(FlockType::WriteLock))
                .ok()
                .flatten()
        } else {
            None
        };
        if !flocked && asked.is_none() && listed.is_empty() {
            return Ok(None);
        }
        let asked_pid = asked
            .and_then(|lock| lock.pid)
            .and_then(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok());
        let user = match asked_pid.or_else(|| listed.into_iter().flatten().next()) {
            Some(pid) => self.process(pid, "holds a lock on it"),
            None => User {
                what: match self.image_lock_holder(meta) {
                    Some(process) => format!("{process} holds QEMU's image lock on it"),
                    None => "another process holds a lock on it".to_owned(),
                },
                hint: format!("find it with: fuser -v {}", path.display()),
            },
        };
        Ok(Some(user))
    }

    /// Locks of other processes on the disk by `/proc/locks`, with the holder where it is told:
    /// `1: POSIX  ADVISORY  WRITE 1234 fe:00:5678 0 EOF`; device numbers in hex; PID -1 for open file descriptions.
    fn locks(&self, meta: &Metadata) -> Vec<Option<u32>> {
        let text = std::fs::read_to_string(self.proc_root.join("locks")).unwrap_or_default();
        let (major, minor) = (rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev()));
        let device = format!("{major:02x}:{minor:02x}");
        let held = |line: &str| -> Option<Option<u32>> {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if !matches!(*fields.get(1)?, "POSIX" | "OFDLCK" | "FLOCK") {
                return None; // leases and delegations don't exclude writers; "->" marks one that waits
            }
            let (on, inode) = fields.get(5)?.rsplit_once(':')?;
            // btrfs and overlayfs tell `stat` another device than this list; those have major 0. Not so devtmpfs, where
            // devices lie.
            let may_differ = major == 0 && !meta.file_type().is_block_device();
            if inode.parse::<u64>() != Ok(meta.ino()) || (on != device && !may_differ) {
                return None;
            }
            let pid = fields.get(4)?.parse::<u32>().ok();
            (pid != Some(self.own_pid)).then_some(pid)
        };
        text.lines().filter_map(held).collect()
    }
}

fn check_shape(path: &Path) -> Result<Metadata> {
    let shown = path.display();
    let meta = std::fs::metadata(path).map_err(|e| SnapshotError::io("find disk", path.display(), &e))?;
    let kind = meta.file_type();
    let invalid = |why: String| Err(SnapshotError::new(Kind::Invalid, why));
    if kind.is_dir() {
        return invalid(format!("{shown} is a directory, not a disk; nothing was changed"));
    }
    if !kind.is_file() && !kind.is_block_device() {
        return invalid(format!(
            "{shown} is neither a regular file nor a block device, so it is no disk; nothing was changed"
        ));
    }
    Ok(meta)
}

/// Refuses a disk of another size than the snapshot's.
///
/// # Errors
/// `Invalid`.
pub fn check_size(path: &Path, size_bytes: u64, wanted_bytes: u64) -> Result<()> {
    if size_bytes == wanted_bytes {
        return Ok(());
    }
    let shown = path.display();
    let why = format!(
        "disk {shown} has {size_bytes} bytes, but the snapshot's disk has {wanted_bytes}: a restore in place needs equal sizes; nothing was changed"
    );
    Err(SnapshotError::new(Kind::Invalid, why)
        .hint("check that this is the right disk, or write the snapshot as a new file: --output NEW"))
}

fn refuse(path: &Path, users: &[User]) -> Result<()> {
    let Some(first) = users.first() else { return Ok(()) };
    let mut named: Vec<&str> = users.iter().take(USERS_NAMED_MAX).map(|u| u.what.as_str()).collect();
    named.dedup();
    let more = match users.len().saturating_sub(USERS_NAMED_MAX) {
        0 => String::new(),
        n => format!("; and {n} more"),
    };
    let why = format!(
        "disk {} is in use: {}{more}; nothing was changed",
        path.display(),
        named.join("; ")
    );
    Err(SnapshotError::new(Kind::Conflict, why).hint(first.hint.clone()))
}

fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok())
        .collect();
    names.sort_unstable();
    names
}

fn read_line(path: &Path) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim_end_matches('\n').to_owned())
}

/// What a process's descriptor writes to, as far as it is of the disk.
fn written_by<'a>(process: &Path, fd: &str, kin: &'a Kin) -> Option<&'a str> {
    let is = kin.opened_by(&process.join("fd").join(fd))?;
    let text = std::fs::read_to_string(process.join("fdinfo").join(fd)).ok()?;
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"))?;
    let flags = u32::from_str_radix(flags.trim(), 8).ok()?;
    (flags & 0o3 != 0).then_some(is) // O_ACCMODE: 0 is O_RDONLY
}

/// A line of `fdinfo` such as `lock:  1: OFDLCK ADVISORY  READ -1 00:2c:1234 100 101`.
fn is_image_lock(line: &str) -> bool {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let first = fields.get(7).and_then(|n| n.parse().ok());
    fields.first() == Some(&"lock:")
        && fields.get(2) == Some(&"OFDLCK")
        && first.is_some_and(|n| locks::BYTES.contains(&n))
}

/// The kernel writes space, tab, newline and backslash of paths as `\ooo`.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|c| std::str::from_utf8(c).ok());
        match code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests;
