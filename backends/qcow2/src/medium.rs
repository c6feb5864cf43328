//! What an image lies on: a file or a block device.

use std::fmt::Debug;
use std::io;
use std::ops::Range;

/// Bytes that an image lies on, read and written by many threads at once.
pub trait Medium: Debug + Send + Sync {
    /// How many bytes there are.
    fn len_bytes(&self) -> io::Result<u64>;
    /// What tells it from others, also under another name.
    fn identity(&self) -> (u64, u64);
    /// Fills `buffer` from `offset`; `UnexpectedEof` past the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// As [`Medium::read_at`], from the medium itself and not from the page cache.
    fn read_back(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `data` at `offset`; past the end it grows, and what lies between reads as zeros.
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()>;
    /// Gives the blocks of a run back where that can be; the bytes are lost either way.
    fn discard(&self, range: Range<u64>) -> io::Result<()>;
    /// What was written so far survives power loss.
    fn sync(&self) -> io::Result<()>;
    /// The first run of data at or after `offset` (`None`: only holes follow).
    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>>;
}
