//! An image in memory.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::chain::Files;
use crate::medium::Medium;

static NEXT: AtomicU64 = AtomicU64::new(1);

/// What was asked of a [`Memory`] that changes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Bytes at an offset.
    Write(u64, Vec<u8>),
    /// What was before is durable.
    Sync,
}

/// Bytes in memory, and a record of what was written to them.
#[derive(Debug)]
pub struct Memory {
    bytes: Mutex<Vec<u8>>,
    log: Mutex<Vec<Op>>,
    number: u64,
}

impl Memory {
    /// A medium that holds these bytes.
    pub fn new(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self {
            bytes: Mutex::new(bytes),
            log: Mutex::new(Vec::new()),
            number: NEXT.fetch_add(1, Ordering::Relaxed),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it holds now.
    pub fn bytes(&self) -> Vec<u8> {
        self.lock().clone()
    }

    /// What was done to it since it was asked last.
    pub fn take_log(&self) -> Vec<Op> {
        std::mem::take(&mut *self.log.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn record(&self, op: Op) {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push(op);
    }
}

/// Writes as a file does: past the end it grows.
pub fn apply(bytes: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let end = offset as usize + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset as usize..end].copy_from_slice(data);
}

impl Medium for Memory {
    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.lock().len() as u64)
    }
    fn identity(&self) -> (u64, u64) {
        (0, self.number)
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = self.lock();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let there = start.checked_add(buffer.len()).and_then(|end| bytes.get(start..end));
        buffer.copy_from_slice(there.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
    fn read_back(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_at(buffer, offset)
    }
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        if offset.saturating_add(data.len() as u64) > 1 << 30 {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        apply(&mut self.lock(), offset, data);
        self.record(Op::Write(offset, data.to_vec()));
        Ok(())
    }
    fn discard(&self, range: Range<u64>) -> io::Result<()> {
        // what is lost is anybody's guess: something that nobody takes for data
        let len = self.lock().len() as u64;
        let lost = vec![0xdd; range.end.min(len).saturating_sub(range.start) as usize];
        self.write_at(&lost, range.start)
    }
    fn sync(&self) -> io::Result<()> {
        self.record(Op::Sync);
        Ok(())
    }
    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let len = self.lock().len() as u64;
        Ok((offset < len).then_some(offset..len))
    }
}

/// Longest part of a disk that [`use_as_image`] reads, in bytes.
const USED_BYTES: u64 = 300_000;

/// Uses any bytes as an image: opens it for writing, reads its beginning, walks its data, writes and punches. Whatever is
/// wrong with them must come out as an error.
///
/// # Panics
/// When a run of data is none.
pub fn use_as_image(bytes: &[u8]) {
    let Ok(image) = crate::open(Memory::new(bytes.to_vec()), Path::new("bytes"), &NoFiles, true) else {
        return;
    };
    let size = image.size_bytes().min(USED_BYTES);
    let _ = image.read_at(&mut vec![0; size as usize], 0);
    let (mut at, mut runs) = (0, 0);
    while let (true, Ok(Some(run))) = (runs < 2000, image.next_data(at)) {
        assert!(run.end > run.start && run.start >= at, "{run:?} after {at}");
        (at, runs) = (run.end, runs + 1);
    }
    let _ = image.write_at(&vec![9; 3000.min(size as usize)], size / 2);
    let _ = image.punch(0..size / 3);
    let _ = image.sync();
}

/// No backing image is ever there.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFiles;

impl Files for NoFiles {
    fn open(&self, _: &Path) -> io::Result<Arc<dyn Medium>> {
        Err(io::ErrorKind::NotFound.into())
    }
}
