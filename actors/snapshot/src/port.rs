//! What this concern needs of a disk, in its own words. `engine::raw` is a raw file or a block device, `engine::qcow2` an image of
//! QEMU's.

use std::fmt::Debug;
use std::ops::Range;

use async_trait::async_trait;
use repo::Repo;
use wire::repo::Chunker;

use crate::Result;

/// Opens repositories by their URL; the composition root knows how.
#[async_trait]
pub trait Repos: Debug + Send + Sync {
    /// The repository at `url`, or the configured default. The default one, when it is a local directory that isn't there
    /// yet, is made.
    ///
    /// # Errors
    /// `NotFound` for none there, `Invalid` for a URL of another form.
    async fn open(&self, url: Option<&str>) -> Result<Repo>;
    /// Makes a repository.
    ///
    /// # Errors
    /// `Conflict` when there is one already.
    async fn init(&self, url: Option<&str>, chunker: Option<Chunker>) -> Result<Repo>;
}

/// What tells that a disk was changed while it was read: compared before and after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    /// Size in bytes.
    pub size_bytes: u64,
    /// Modification time in nanoseconds; of a device, how much was written to it.
    pub modified_ns: i128,
    /// Status change time in nanoseconds; of a device, the number of its medium.
    pub changed_ns: i128,
    /// Device and inode; of a device, its number and a hash of its lasting name.
    pub identity: (u64, u64),
}

/// A disk that is read: by many threads at once.
pub trait DiskRead: Debug + Send + Sync {
    /// Where it is, for messages.
    fn path(&self) -> &std::path::Path;
    /// `raw`, `block` or `qcow2`.
    fn format(&self) -> &'static str;
    /// Size in bytes.
    fn size_bytes(&self) -> u64;
    /// Bytes that the filesystem has allocated to it.
    fn allocated_bytes(&self) -> Result<u64>;
    /// The first run of data at or after `offset` (`None`: only holes follow). What lies between runs reads as zeros.
    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>>;
    /// Fills `buffer` from `offset`; reading past the end is an error.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()>;
    /// For noticing changes.
    fn fingerprint(&self) -> Result<Fingerprint>;
}

/// A disk that is written, under an exclusive lock for as long as this value lives.
pub trait DiskWrite: DiskRead {
    /// Writes all of `data` at `offset`.
    fn write_at(&self, data: &[u8], offset: u64) -> Result<()>;
    /// Makes a run read as zeros and gives its blocks back to the filesystem where it can.
    fn punch(&self, range: Range<u64>) -> Result<()>;
    /// Everything written so far survives power loss when this returns.
    fn sync(&self) -> Result<()>;
    /// Fills `buffer` from the medium, not from the page cache. Only after [`DiskWrite::sync`].
    fn read_back(&self, buffer: &mut [u8], offset: u64) -> Result<()>;
}
