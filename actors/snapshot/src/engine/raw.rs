//! A raw disk: byte `n` of the file or block device is byte `n` of the disk. qcow2 images lie on these too.
//!
//! Holes of files are found with `SEEK_DATA`/`SEEK_HOLE` and made with `FALLOC_FL_PUNCH_HOLE`; filesystems that know neither
//! get whole reads and written zeros. Block devices have no holes that show: they are read whole. The same call on a device
//! gives its blocks back only where the device then promises zeros (`BLKDEV_ZERO_NOUNMAP` and kin in the kernel decide);
//! elsewhere zeros are written.
//!
//! What is absent: nothing here resizes, renames or removes a file (but a qcow2 image grows); nothing here waits for a lock.

use std::fs::File;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{Advice, FallocateFlags, SeekFrom};
use rustix::io::Errno;

use crate::engine::block;
use crate::port::{DiskRead, DiskWrite, Fingerprint};
use crate::{Kind, Result, SnapshotError};

mod direct;
mod opening;

pub(crate) use direct::{AlignedBuffer, DIRECT_ALIGN_BYTES};
pub use opening::Access;

/// Longest single write of zeros where holes can't be punched, in bytes.
const ZEROS_BYTES: usize = 256 << 10;

/// A raw disk, open; how is told by its [`Access`].
#[derive(Debug)]
pub struct RawDisk {
    path: PathBuf,
    file: File,
    size_bytes: u64,
    access: Access,
    identity: (u64, u64),
    /// The directory below `/sys` of a block device.
    device: Option<PathBuf>,
    /// The same inode opened with `O_DIRECT`; `None` inside where the filesystem refuses it.
    direct: OnceLock<Option<File>>,
}

impl RawDisk {
    /// How it was opened.
    pub fn access(&self) -> Access {
        self.access
    }

    /// The open file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// What tells it from others: device and inode of a file; number and lasting name of a block device.
    pub(crate) fn identity_of_file(&self) -> (u64, u64) {
        self.identity
    }

    /// Its size at this moment: a file may have changed it, a device may be gone.
    pub(crate) fn len_now(&self) -> std::io::Result<u64> {
        if self.device.is_some() {
            return Ok(rustix::fs::seek(&self.file, SeekFrom::End(0))?);
        }
        Ok(self.file.metadata()?.len())
    }

    fn error(&self, what: &str, error: &std::io::Error) -> SnapshotError {
        let (shown, size_bytes) = (self.path.display(), self.size_bytes);
        if self.device.is_some() && self.len_now().is_ok_and(|len| len < size_bytes) {
            return SnapshotError::new(
                Kind::Unavailable,
                format!("can't {what} {shown}: the device is gone or has become smaller (it had {size_bytes} bytes): {error}"),
            )
            .hint("bring the device back");
        }
        SnapshotError::io(what, shown, error)
    }

    /// Refuses a run that is not wholly within the disk, and writing to a disk that was opened for reading.
    fn check_write(&self, range: &Range<u64>) -> Result<()> {
        if self.access != Access::Write {
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

    /// The logical block of a device, in bytes.
    fn block_bytes(&self) -> Result<Option<u64>> {
        if self.device.is_none() {
            return Ok(None);
        }
        let bytes = rustix::fs::ioctl_blksszget(&self.file);
        let bytes = bytes.map_err(|e| self.error("read the block size of disk", &e.into()))?;
        Ok(Some(u64::from(bytes).max(1)))
    }

    fn punch_blocks(&self, range: Range<u64>) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        match self.punched(&range) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.write_zeros(range),
            Err(error) => Err(self.error("punch a hole into disk", &error.into())),
        }
    }

    fn punched(&self, range: &Range<u64>) -> rustix::io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::io::retry_on_intr(|| rustix::fs::fallocate(&self.file, flags, range.start, range.end - range.start))
    }

    /// Gives blocks back where that can be; what they hold doesn't matter any more.
    pub(crate) fn give_back_blocks(&self, range: Range<u64>) -> std::io::Result<()> {
        match self.punched(&range) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
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

    fn shrunk(&self) -> SnapshotError {
        if self.device.is_some() {
            return self.error("read disk", &std::io::ErrorKind::UnexpectedEof.into());
        }
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
        if self.device.is_some() { "block" } else { "raw" }
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn allocated_bytes(&self) -> Result<u64> {
        if self.device.is_some() {
            return Ok(self.size_bytes); // what it doesn't hold can't be seen
        }
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

    /// A device has no times: its number among the media of this host, and how much was written to it. What another
    /// process left in the page cache shows when it is written, so it is told to be when the disk is opened.
    fn fingerprint(&self) -> Result<Fingerprint> {
        if let Some(device) = &self.device {
            return Ok(Fingerprint {
                size_bytes: self.len_now().map_err(|e| self.error("read the size of disk", &e))?,
                modified_ns: block::written_sectors(device).into(),
                changed_ns: block::sequence(device).into(),
                identity: self.identity,
            });
        }
        let meta = self
            .file
            .metadata()
            .map_err(|e| self.error("read attributes of disk", &e))?;
        let ns = |seconds: i64, ns: i64| i128::from(seconds) * 1_000_000_000 + i128::from(ns);
        Ok(Fingerprint {
            size_bytes: meta.len(),
            modified_ns: ns(meta.mtime(), meta.mtime_nsec()),
            changed_ns: ns(meta.ctime(), meta.ctime_nsec()),
            identity: self.identity,
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
        let Some(block_bytes) = self.block_bytes()? else {
            return self.punch_blocks(range);
        };
        // a device gives whole blocks back
        let start = range.start.next_multiple_of(block_bytes).min(range.end);
        let end = (range.end - range.end % block_bytes).max(start);
        self.write_zeros(range.start..start)?;
        self.punch_blocks(start..end)?;
        self.write_zeros(end..range.end)
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

#[cfg(test)]
mod tests;
