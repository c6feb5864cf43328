//! A raw file as a disk: byte `n` of the file is byte `n` of the disk.
//!
//! Holes are found with `SEEK_DATA`/`SEEK_HOLE` and made with `FALLOC_FL_PUNCH_HOLE`; filesystems that know neither get
//! whole reads and written zeros. Block devices take this seat in the next release.
//!
//! What is absent: nothing here grows, shrinks, renames or removes a file; nothing here waits for a lock.

use std::fs::{File, OpenOptions};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{Advice, FallocateFlags, FlockOperation, SeekFrom};
use rustix::io::Errno;

use crate::port::{DiskRead, DiskWrite, Fingerprint};
use crate::{Kind, Result, SnapshotError};

/// Alignment of direct reads: at least the logical block of every medium in use, in bytes.
const DIRECT_ALIGN_BYTES: usize = 4096;
/// Longest single direct read, in bytes.
const DIRECT_BYTES_MAX: usize = 1 << 20;
/// Longest single write of zeros where holes can't be punched, in bytes.
const ZEROS_BYTES: usize = 256 << 10;

/// A raw disk file, open for reading, or for reading and writing under an exclusive `flock`.
#[derive(Debug)]
pub struct RawDisk {
    path: PathBuf,
    file: File,
    size_bytes: u64,
    writable: bool,
    /// The same inode opened with `O_DIRECT`; `None` inside where the filesystem refuses it.
    direct: OnceLock<Option<File>>,
}

impl RawDisk {
    /// Opens a disk for reading. Takes no lock: a changed disk shows in [`DiskRead::fingerprint`].
    ///
    /// # Errors
    /// `NotFound`, `Denied`; `Invalid` when it is empty or no regular file.
    pub fn open_read(path: &Path) -> Result<Self> {
        Self::open(path, false)
    }

    /// Opens a disk for reading and writing and takes its exclusive lock, held until the value is dropped (or the
    /// process dies).
    ///
    /// # Errors
    /// As [`RawDisk::open_read`]; `Conflict` when another process or another open of this one holds the lock.
    pub fn open_write(path: &Path) -> Result<Self> {
        let disk = Self::open(path, true)?;
        match rustix::fs::flock(&disk.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(disk),
            Err(Errno::WOULDBLOCK) => Err(SnapshotError::new(
                Kind::Conflict,
                format!(
                    "disk {} is locked by another process; nothing was changed",
                    path.display()
                ),
            )
            .hint(format!("fuser -v {}", path.display()))),
            Err(error) => Err(SnapshotError::io("lock disk", path.display(), &error.into())),
        }
    }

    fn open(path: &Path, writable: bool) -> Result<Self> {
        // Asked before opening, as well as after: to open a FIFO waits, and to open a device can have effects.
        let before = std::fs::metadata(path).map_err(|e| SnapshotError::io("open disk", path.display(), &e))?;
        check_type(path, &before)?;
        let file = OpenOptions::new()
            .read(true)
            .write(writable)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
            .open(path)
            .map_err(|e| SnapshotError::io("open disk", path.display(), &e))?;
        let meta = file
            .metadata()
            .map_err(|e| SnapshotError::io("read attributes of disk", path.display(), &e))?;
        check_type(path, &meta)?;
        if meta.len() == 0 {
            return Err(SnapshotError::new(
                Kind::Invalid,
                format!("{} is empty: a disk has at least one byte", path.display()),
            ));
        }
        Ok(Self {
            path: path.into(),
            file,
            size_bytes: meta.len(),
            writable,
            direct: OnceLock::new(),
        })
    }

    fn error(&self, what: &str, error: &std::io::Error) -> SnapshotError {
        SnapshotError::io(what, self.path.display(), error)
    }

    /// Refuses a run that is not wholly within the disk, and writing to a disk that was opened for reading.
    fn check_write(&self, range: &Range<u64>) -> Result<()> {
        if !self.writable {
            return Err(SnapshotError::new(
                Kind::Internal,
                format!(
                    "disk {} was opened for reading and can't be written",
                    self.path.display()
                ),
            ));
        }
        if range.start > range.end || range.end > self.size_bytes {
            return Err(SnapshotError::new(
                Kind::Internal,
                format!(
                    "a write to bytes {}..{} is outside of disk {} of {} bytes; it was not done",
                    range.start,
                    range.end,
                    self.path.display(),
                    self.size_bytes
                ),
            ));
        }
        Ok(())
    }

    fn seek(&self, to: SeekFrom) -> Result<Option<u64>> {
        match rustix::fs::seek(&self.file, to) {
            Ok(at) => Ok(Some(at)),
            Err(Errno::NXIO) => Ok(None),
            // The filesystem doesn't know holes: all of it is data.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some(match to {
                SeekFrom::Data(at) => at,
                _ => self.size_bytes,
            })),
            Err(error) => Err(self.error("find the holes of disk", &error.into())),
        }
    }

    fn write_zeros(&self, range: Range<u64>) -> Result<()> {
        let zeros = vec![0; ZEROS_BYTES];
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(ZEROS_BYTES as u64);
            self.write_at(&zeros[..len as usize], at)?;
            at += len;
        }
        Ok(())
    }

    /// The second open of the same inode, for direct reads. By descriptor, so that a renamed path can't lead elsewhere.
    fn direct(&self) -> Option<&File> {
        self.direct
            .get_or_init(|| {
                OpenOptions::new()
                    .read(true)
                    .custom_flags(rustix::fs::OFlags::DIRECT.bits().cast_signed())
                    .open(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
                    .ok()
            })
            .as_ref()
    }

    /// Reads with `O_DIRECT`. `Ok(false)`: the filesystem refuses it, nothing was read.
    fn read_direct(&self, buffer: &mut [u8], offset: u64) -> Result<bool> {
        let Some(file) = self.direct() else { return Ok(false) };
        let mut done = 0;
        let mut space = AlignedBuffer::new(DIRECT_BYTES_MAX.min(buffer.len() + 2 * DIRECT_ALIGN_BYTES));
        while done < buffer.len() {
            let at = offset + done as u64;
            let skip = (at % DIRECT_ALIGN_BYTES as u64) as usize;
            let aligned = space.bytes();
            let want = (skip + buffer.len() - done)
                .next_multiple_of(DIRECT_ALIGN_BYTES)
                .min(aligned.len());
            let got = match file.read_at(&mut aligned[..want], at - skip as u64) {
                Ok(got) => got,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) if done == 0 && Errno::from_io_error(&error) == Some(Errno::INVAL) => return Ok(false),
                Err(error) => return Err(self.error("read back disk", &error)),
            };
            if got <= skip {
                return Err(self.shrunk());
            }
            let len = (got - skip).min(buffer.len() - done);
            buffer[done..done + len].copy_from_slice(&aligned[skip..skip + len]);
            done += len;
        }
        Ok(true)
    }

    fn shrunk(&self) -> SnapshotError {
        SnapshotError::new(
            Kind::Conflict,
            format!(
                "disk {} of {} bytes became shorter while it was read",
                self.path.display(),
                self.size_bytes
            ),
        )
    }
}

impl DiskRead for RawDisk {
    fn path(&self) -> &Path {
        &self.path
    }

    fn format(&self) -> &'static str {
        "raw"
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn allocated_bytes(&self) -> Result<u64> {
        let meta = self
            .file
            .metadata()
            .map_err(|e| self.error("read attributes of disk", &e))?;
        Ok(meta.blocks() * 512) // st_blocks counts units of 512 bytes on every filesystem
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        if offset >= self.size_bytes {
            return Ok(None);
        }
        let Some(start) = self.seek(SeekFrom::Data(offset))? else {
            return Ok(None);
        };
        if start >= self.size_bytes {
            return Ok(None);
        }
        // No hole after it only when the file was cut short in between; the reader will notice.
        let end = self
            .seek(SeekFrom::Hole(start))?
            .unwrap_or(self.size_bytes)
            .min(self.size_bytes);
        Ok(Some(start..end.max(start + 1)))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.file
            .read_exact_at(buffer, offset)
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::UnexpectedEof => self.shrunk(),
                _ => self.error("read disk", &error),
            })
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        let meta = self
            .file
            .metadata()
            .map_err(|e| self.error("read attributes of disk", &e))?;
        let ns = |seconds: i64, ns: i64| i128::from(seconds) * 1_000_000_000 + i128::from(ns);
        Ok(Fingerprint {
            size_bytes: meta.len(),
            modified_ns: ns(meta.mtime(), meta.mtime_nsec()),
            changed_ns: ns(meta.ctime(), meta.ctime_nsec()),
            identity: (meta.dev(), meta.ino()),
        })
    }
}

impl DiskWrite for RawDisk {
    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.check_write(&(offset..offset.saturating_add(data.len() as u64)))?;
        self.file
            .write_all_at(data, offset)
            .map_err(|e| self.error("write disk", &e))
    }

    fn punch(&self, range: Range<u64>) -> Result<()> {
        self.check_write(&range)?;
        if range.is_empty() {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        loop {
            match rustix::fs::fallocate(&self.file, flags, range.start, range.end - range.start) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return self.write_zeros(range),
                Err(error) => return Err(self.error("punch a hole into disk", &error.into())),
            }
        }
    }

    /// A failure must not be tried again: the kernel may have dropped the pages that it could not write, and the next
    /// call then succeeds without them. Read back, or write anew.
    fn sync(&self) -> Result<()> {
        self.file
            .sync_data()
            .map_err(|e| self.error("make durable the writes to disk", &e))
    }

    /// Drops the clean pages of the run from the page cache, then reads with `O_DIRECT`; where that is refused, the
    /// dropped pages are read anew through the cache. On tmpfs the cache is the medium.
    fn read_back(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        if buffer.is_empty() {
            return Ok(());
        }
        let align = DIRECT_ALIGN_BYTES as u64;
        let start = offset - offset % align; // a page that is dropped in part stays
        let len = (offset + buffer.len() as u64).next_multiple_of(align) - start;
        // Advice: a refusal changes nothing for the direct read. It is needed for filesystems whose direct reads may
        // be answered from the cache (btrfs with compressed extents).
        let _ = rustix::fs::fadvise(&self.file, start, NonZeroU64::new(len), Advice::DontNeed);
        if self.read_direct(buffer, offset)? {
            Ok(())
        } else {
            self.read_at(buffer, offset)
        }
    }
}

/// Memory at a multiple of [`DIRECT_ALIGN_BYTES`], as `O_DIRECT` asks for.
struct AlignedBuffer {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuffer {
    /// `len` is rounded down to a multiple of the alignment, at least one.
    fn new(len: usize) -> Self {
        let len = (len - len % DIRECT_ALIGN_BYTES).max(DIRECT_ALIGN_BYTES);
        let memory = vec![0; len + DIRECT_ALIGN_BYTES];
        let past = memory.as_ptr().addr() % DIRECT_ALIGN_BYTES;
        Self {
            memory,
            start: (DIRECT_ALIGN_BYTES - past) % DIRECT_ALIGN_BYTES,
            len,
        }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

fn check_type(path: &Path, meta: &std::fs::Metadata) -> Result<()> {
    let kind = meta.file_type();
    let what = if kind.is_file() {
        return Ok(());
    } else if kind.is_block_device() {
        return Err(SnapshotError::new(
            Kind::Invalid,
            format!(
                "{} is a block device: those come in the next release; disks are raw files here",
                path.display()
            ),
        ));
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
        format!("{} is {what}, not a disk: a raw file is needed", path.display()),
    ))
}

#[cfg(test)]
mod tests;
