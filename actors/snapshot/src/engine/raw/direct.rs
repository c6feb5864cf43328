//! Reads past the page cache.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use rustix::io::Errno;

use super::RawDisk;
use crate::Result;

/// Alignment of direct reads: at least the logical block of every medium in use, in bytes.
pub(crate) const DIRECT_ALIGN_BYTES: usize = 4096;
/// Longest single direct read, in bytes.
const DIRECT_BYTES_MAX: usize = 1 << 20;

impl RawDisk {
    /// The second open of the same inode, for direct reads. By descriptor, so that a renamed path can't lead elsewhere.
    pub(super) fn direct(&self) -> Option<&File> {
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
    pub(super) fn read_direct(&self, buffer: &mut [u8], offset: u64) -> Result<bool> {
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
}

/// Memory at a multiple of [`DIRECT_ALIGN_BYTES`], as `O_DIRECT` asks for.
#[derive(Debug)]
pub(crate) struct AlignedBuffer {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuffer {
    /// `len` is rounded down to a multiple of the alignment, at least one.
    pub(crate) fn new(len: usize) -> Self {
        let len = (len - len % DIRECT_ALIGN_BYTES).max(DIRECT_ALIGN_BYTES);
        let memory = vec![0; len + DIRECT_ALIGN_BYTES];
        let past = memory.as_ptr().addr() % DIRECT_ALIGN_BYTES;
        Self {
            memory,
            start: (DIRECT_ALIGN_BYTES - past) % DIRECT_ALIGN_BYTES,
            len,
        }
    }

    /// All of it.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}
