//! Opening: what may be a disk, and the locks that go with each way of using it.

use std::fs::{File, Metadata, OpenOptions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::{FlockOperation, Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use super::RawDisk;
use crate::engine::guard::Guard;
use crate::engine::{block, locks};
use crate::{Kind, Result, SnapshotError};

/// How a disk is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read, whoever else uses it: a change shows in the fingerprint.
    Look,
    /// Read, and QEMU lets nobody write to it meanwhile.
    Read,
    /// Written, by nobody else: under an exclusive `flock`, QEMU's image locks, and for a device the kernel's own claim.
    Write,
}

impl RawDisk {
    /// Opens a disk for reading, whoever else uses it.
    ///
    /// # Errors
    /// As [`RawDisk::open`].
    pub fn open_read(path: &Path) -> Result<Self> {
        Self::open(path, Access::Look)
    }

    /// Opens a disk for reading and writing, alone.
    ///
    /// # Errors
    /// As [`RawDisk::open`].
    pub fn open_write(path: &Path) -> Result<Self> {
        Self::open(path, Access::Write)
    }

    /// Opens a disk and takes its locks, held until the value is dropped (or the process dies).
    ///
    /// # Errors
    /// `NotFound`, `Denied`; `Invalid` when it is empty or neither a regular file nor a block device; `Unavailable` for a
    /// device without a medium; `Conflict` when another process, or another open of this one, uses it in a way that doesn't
    /// go with `access`.
    pub fn open(path: &Path, access: Access) -> Result<Self> {
        let failed = |what: &str, e: &std::io::Error| SnapshotError::io(what, path.display(), e);
        // Asked before opening, as well as after: to open a FIFO waits, and to open a device can have effects.
        let before = std::fs::metadata(path).map_err(|e| failed("open disk", &e))?;
        check_type(path, &before)?;
        let exclusive = before.file_type().is_block_device() && access == Access::Write;
        let flags = OFlags::NONBLOCK | if exclusive { OFlags::EXCL } else { OFlags::empty() };
        let file = OpenOptions::new()
            .read(true)
            .write(access == Access::Write)
            .custom_flags(flags.bits().cast_signed())
            .open(path)
            .map_err(|e| match Errno::from_io_error(&e) {
                Some(Errno::BUSY) => in_use(path, "the kernel uses it: it is mounted, swap, or part of LVM or RAID"),
                _ => failed("open disk", &e),
            })?;
        let meta = file.metadata().map_err(|e| failed("read attributes of disk", &e))?;
        check_type(path, &meta)?;
        let disk = Self::of_file(path, file, &meta, access)?;
        disk.take_locks(&meta)?;
        if disk.device.is_some() {
            // What others left in the page cache is written now, and not while the disk is read. A device that can't
            // is read all the same: its own error tells more.
            let _ = disk.file.sync_data();
        }
        Ok(disk)
    }

    fn of_file(path: &Path, file: File, meta: &Metadata, access: Access) -> Result<Self> {
        let device = meta
            .file_type()
            .is_block_device()
            .then(|| block::directory(Path::new("/sys"), meta));
        let mut disk = Self {
            path: path.into(),
            file,
            size_bytes: 0,
            access,
            identity: match &device {
                Some(device) => (meta.rdev(), block::identity(device)),
                None => (meta.dev(), meta.ino()),
            },
            device,
            direct: OnceLock::new(),
        };
        disk.size_bytes = disk.len_now().map_err(|e| disk.error("read the size of disk", &e))?;
        match (disk.size_bytes, &disk.device) {
            (0, None) => Err(SnapshotError::new(
                Kind::Invalid,
                format!("{} is empty: a disk has at least one byte", path.display()),
            )),
            (0, Some(_)) => Err(SnapshotError::new(
                Kind::Unavailable,
                format!("block device {} has no medium; nothing was changed", path.display()),
            )
            .hint("bring the device back, then run the same command again")),
            _ => Ok(disk),
        }
    }

    fn take_locks(&self, meta: &Metadata) -> Result<()> {
        let claim = match self.access {
            Access::Look => return Ok(()),
            Access::Read => locks::Claim::Read,
            Access::Write => {
                self.flock()?;
                locks::Claim::Write
            }
        };
        let against = locks::take(&self.file, claim).map_err(|e| self.error("lock disk", &e))?;
        let Some(does) = against else { return Ok(()) };
        let who = Guard::default().image_lock_holder(meta);
        let who = who.unwrap_or_else(|| "another process".to_owned());
        let error = in_use(&self.path, &format!("{who} holds QEMU's image lock and {does}"));
        Err(match self.access {
            Access::Read => error.hint(
                "stop the VM; or, for a disk that doesn't change meanwhile (the VM is paused) or lies on XFS or btrfs: --crash-consistent",
            ),
            _ => error.hint("stop the VM, then try again"),
        })
    }

    fn flock(&self) -> Result<()> {
        match rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(()),
            Err(Errno::WOULDBLOCK) => Err(SnapshotError::new(
                Kind::Conflict,
                format!(
                    "disk {} is locked by another process; nothing was changed",
                    self.path.display()
                ),
            )
            .hint(format!("fuser -v {}", self.path.display()))),
            Err(error) => Err(SnapshotError::io("lock disk", self.path.display(), &error.into())),
        }
    }

    /// A clone that shares its blocks with the disk and doesn't change with it. It has no name, so it goes with the process.
    /// `None` where the filesystem can't.
    pub(crate) fn clone_of_this_moment(&self) -> Result<Option<Self>> {
        let path = self.path.canonicalize();
        let path = path.map_err(|e| SnapshotError::io("find disk", self.path.display(), &e))?;
        let (None, Some(directory)) = (&self.device, path.parent()) else {
            return Ok(None);
        };
        let Ok(clone) = rustix::fs::open(directory, OFlags::TMPFILE | OFlags::RDWR, Mode::RUSR | Mode::WUSR) else {
            return Ok(None);
        };
        if rustix::fs::ioctl_ficlone(&clone, &self.file).is_err() {
            return Ok(None);
        }
        let file = File::from(clone);
        let size_bytes = rustix::fs::seek(&file, SeekFrom::End(0))
            .map_err(|e| SnapshotError::io("read the size of a clone of disk", path.display(), &e.into()))?;
        Ok(Some(Self {
            path: self.path.clone(),
            file,
            size_bytes,
            access: Access::Look,
            identity: self.identity,
            device: None,
            direct: OnceLock::new(),
        }))
    }
}

fn in_use(path: &Path, how: &str) -> SnapshotError {
    let why = format!("disk {} is in use: {how}; nothing was changed", path.display());
    SnapshotError::new(Kind::Conflict, why)
}

fn check_type(path: &Path, meta: &Metadata) -> Result<()> {
    let kind = meta.file_type();
    let what = if kind.is_file() || kind.is_block_device() {
        return Ok(());
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a character device"
    };
    Err(SnapshotError::new(
        Kind::Invalid,
        format!(
            "{} is {what}, not a disk: a file or a block device is needed",
            path.display()
        ),
    ))
}
