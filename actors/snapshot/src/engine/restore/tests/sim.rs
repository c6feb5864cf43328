//! A disk in memory with a page cache: killed, powered off or rotting on demand.

use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;

use super::Seeded;
use crate::port::{DiskRead, DiskWrite, Fingerprint};
use crate::{Kind, Result, SnapshotError};

/// What befalls the disk.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    None,
    /// The process dies in the middle of this change (write, punch or sync); the cache survives.
    Kill {
        at: usize,
    },
    /// The power goes in the middle of this change: of what was written since the last sync, any part survives, in
    /// sectors, in any order.
    PowerLoss {
        at: usize,
        seed: u64,
    },
    /// The byte flips on the medium at each of the first so many syncs.
    Rot {
        offset: u64,
        syncs: usize,
    },
}

type Hook = Box<dyn FnOnce() + Send>;

struct Inner {
    medium: Vec<u8>,
    cache: Vec<u8>,
    /// Writes since the last sync.
    unsynced: Vec<(usize, Vec<u8>)>,
    changes: usize,
    syncs: usize,
    written: u64,
    hook: Option<(usize, Hook)>,
}

pub(crate) struct SimDisk {
    inner: Mutex<Inner>,
    fault: Fault,
    size: u64,
}

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimDisk({:?})", self.fault)
    }
}

impl SimDisk {
    pub(crate) fn new(bytes: &[u8], fault: Fault) -> Self {
        let inner = Inner {
            medium: bytes.to_vec(),
            cache: bytes.to_vec(),
            unsynced: Vec::new(),
            changes: 0,
            syncs: 0,
            written: 0,
            hook: None,
        };
        Self {
            inner: Mutex::new(inner),
            fault,
            size: bytes.len() as u64,
        }
    }
    /// What survives power loss.
    pub(crate) fn durable(&self) -> Vec<u8> {
        self.inner.lock().unwrap().medium.clone()
    }
    /// What is there when the machine or process is back.
    pub(crate) fn after(&self) -> Vec<u8> {
        match self.fault {
            Fault::PowerLoss { .. } => self.durable(),
            _ => self.inner.lock().unwrap().cache.clone(),
        }
    }
    pub(crate) fn changes(&self) -> usize {
        self.inner.lock().unwrap().changes
    }
    pub(crate) fn written_bytes(&self) -> u64 {
        self.inner.lock().unwrap().written
    }
    pub(crate) fn on_change(&self, at: usize, hook: impl FnOnce() + Send + 'static) {
        self.inner.lock().unwrap().hook = Some((at, Box::new(hook)));
    }

    fn change(&self, offset: u64, data: &[u8]) -> Result<()> {
        let mut inner = self.inner.lock().unwrap();
        let at = offset as usize;
        let now = inner.changes;
        inner.changes += 1;
        if inner.hook.as_ref().is_some_and(|(when, _)| *when == now)
            && let Some((_, hook)) = inner.hook.take()
        {
            hook();
        }
        let (end, seed) = match self.fault {
            Fault::Kill { at } => (at, 0),
            Fault::PowerLoss { at, seed } => (at, seed),
            _ => (usize::MAX, 0),
        };
        if now < end {
            inner.cache[at..at + data.len()].copy_from_slice(data);
            inner.unsynced.push((at, data.to_vec()));
            return Ok(());
        }
        if now == end {
            let half = &data[..data.len() / 2];
            inner.cache[at..at + half.len()].copy_from_slice(half);
            inner.unsynced.push((at, half.to_vec()));
            if matches!(self.fault, Fault::PowerLoss { .. }) {
                inner.lose(&mut Seeded(seed));
            }
        }
        Err(SnapshotError::new(Kind::Unavailable, "the simulated machine is dead"))
    }
}

impl Inner {
    fn lose(&mut self, seeded: &mut Seeded) {
        let mut unsynced = std::mem::take(&mut self.unsynced);
        for at in (1..unsynced.len()).rev() {
            unsynced.swap(at, seeded.below(at as u64 + 1) as usize);
        }
        for (offset, data) in unsynced {
            let survives = seeded.below(4);
            for (nth, sector) in data.chunks(512).enumerate() {
                // All, none, or some of it.
                if survives == 0 || (survives > 1 && seeded.below(2) == 0) {
                    let at = offset + nth * 512;
                    self.medium[at..at + sector.len()].copy_from_slice(sector);
                }
            }
        }
    }
}

impl DiskRead for SimDisk {
    fn path(&self) -> &Path {
        Path::new("/srv/web1.raw")
    }
    fn format(&self) -> &'static str {
        "raw"
    }
    fn size_bytes(&self) -> u64 {
        self.size
    }
    fn allocated_bytes(&self) -> Result<u64> {
        Ok(self.size)
    }
    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        Ok(Some(offset..self.size))
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let inner = self.inner.lock().unwrap();
        buffer.copy_from_slice(&inner.cache[offset as usize..offset as usize + buffer.len()]);
        Ok(())
    }
    fn fingerprint(&self) -> Result<Fingerprint> {
        Ok(Fingerprint {
            size_bytes: self.size,
            modified_ns: 0,
            changed_ns: 0,
            identity: (1, 2),
        })
    }
}

impl DiskWrite for SimDisk {
    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.change(offset, data)?;
        self.inner.lock().unwrap().written += data.len() as u64;
        Ok(())
    }
    fn punch(&self, range: Range<u64>) -> Result<()> {
        self.change(range.start, &vec![0; (range.end - range.start) as usize])
    }
    fn sync(&self) -> Result<()> {
        self.change(0, &[])?;
        let mut inner = self.inner.lock().unwrap();
        inner.unsynced.clear();
        inner.medium = inner.cache.clone();
        inner.syncs += 1;
        if let Fault::Rot { offset, syncs } = self.fault
            && inner.syncs <= syncs
        {
            inner.medium[offset as usize] ^= 0x40;
        }
        Ok(())
    }
    fn read_back(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let inner = self.inner.lock().unwrap();
        buffer.copy_from_slice(&inner.medium[offset as usize..offset as usize + buffer.len()]);
        Ok(())
    }
}
