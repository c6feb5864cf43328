//! Many snapshot objects in one file: one file each would cost a block and an open for some hundred bytes.
//!
//! ```text
//! objects back to back | for each: 26 characters of its id, offset (8), length (4) | number of objects (8) | "WINDDOCS"
//! ```

use std::collections::HashMap;

use bytes::Bytes;
use memmap2::Mmap;

use super::{Kind, RepoCache};
use crate::SnapshotId;
use crate::pack::{le_u32, le_u64};

const MAGIC: [u8; 8] = *b"WINDDOCS";
const ID_BYTES: usize = 26;
const ROW_BYTES: usize = ID_BYTES + 12;
const TAIL_BYTES: usize = 16;
/// A batch is written once its objects have so many bytes.
const BATCH_BYTES: usize = 4 << 20;
/// Batches smaller than this are small, and more small ones than that are put together.
const SMALL_BYTES: u64 = 1 << 20;
const SMALL_BATCHES_MAX: usize = 16;
/// Bytes of batches that are kept open: all small ones, and two large ones.
const OPEN_BYTES_MAX: u64 = 24 << 20;

/// A batch's name says which ids it spans.
#[derive(Debug, Clone)]
struct Batch {
    name: String,
    first: String,
    last: String,
    bytes: u64,
}

impl Batch {
    fn of(name: String, bytes: u64) -> Option<Self> {
        let mut parts = name.split('-');
        let (first, last) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        Some(Self {
            first,
            last,
            bytes,
            name,
        })
    }
    fn spans(&self, id: &str) -> bool {
        self.first.as_str() <= id && id <= self.last.as_str()
    }
}

/// Snapshot objects of one pass over them, in the order of their ids: read from batches, and new ones kept in new batches.
/// Calls block.
#[derive(Debug)]
pub(crate) struct DocBatches {
    cache: RepoCache,
    batches: Vec<Batch>,
    /// What the last calls read: neighbours stand together.
    open: Vec<(Batch, HashMap<SnapshotId, Bytes>)>,
    fresh: Vec<(SnapshotId, Bytes)>,
    fresh_bytes: usize,
}

impl DocBatches {
    pub(crate) fn new(cache: RepoCache) -> Self {
        let batch = |(name, bytes)| Batch::of(name, bytes);
        let batches = cache.list(Kind::Snapshots).into_iter().filter_map(batch).collect();
        Self {
            cache,
            batches,
            open: Vec::new(),
            fresh: Vec::new(),
            fresh_bytes: 0,
        }
    }

    /// The object's bytes, as they were once fetched. They carry their own checksum.
    pub(crate) fn get(&mut self, id: &SnapshotId) -> Option<Bytes> {
        let text = id.to_string();
        let spanning: Vec<Batch> = self.batches.iter().filter(|b| b.spans(&text)).cloned().collect();
        spanning
            .into_iter()
            .find_map(|batch| self.opened(batch)?.get(id).cloned())
    }

    fn opened(&mut self, batch: Batch) -> Option<&HashMap<SnapshotId, Bytes>> {
        if let Some(at) = self.open.iter().position(|(open, _)| open.name == batch.name) {
            return Some(&self.open[at].1);
        }
        let Some(objects) = read(&self.cache, &batch.name) else {
            self.batches.retain(|b| b.name != batch.name);
            return None;
        };
        self.open.push((batch, objects));
        while self.open.len() > 1 && self.open.iter().map(|(b, _)| b.bytes).sum::<u64>() > OPEN_BYTES_MAX {
            self.open.remove(0);
        }
        self.open.last().map(|(_, objects)| objects)
    }

    /// Keeps an object that was fetched and is whole.
    pub(crate) fn add(&mut self, id: SnapshotId, bytes: Bytes) {
        self.fresh_bytes += bytes.len();
        self.fresh.push((id, bytes));
        if self.fresh_bytes >= BATCH_BYTES {
            self.write();
        }
    }

    fn write(&mut self) {
        let mut fresh = std::mem::take(&mut self.fresh);
        self.fresh_bytes = 0;
        fresh.sort_by_key(|(id, _)| *id);
        fresh.dedup_by_key(|(id, _)| *id);
        let Some((first, last)) = fresh.first().zip(fresh.last()).map(|(f, l)| (f.0, l.0)) else {
            return;
        };
        let bytes = encode(&fresh);
        let name = format!("{first}-{last}-{}", blake3::hash(&bytes).to_hex());
        if self.cache.put(Kind::Snapshots, &name, &[&bytes])
            && let Some(batch) = Batch::of(name, bytes.len() as u64)
        {
            self.batches.push(batch);
        }
    }

    /// Ends a pass: what was fetched is kept, and small batches become few. Objects that `is_wanted` doesn't know go then.
    pub(crate) fn finish(mut self, is_wanted: impl Fn(&SnapshotId) -> bool) {
        self.write();
        let small: Vec<Batch> = self.batches.iter().filter(|b| b.bytes < SMALL_BYTES).cloned().collect();
        if small.len() <= SMALL_BATCHES_MAX {
            return;
        }
        let before = self.batches.len();
        for batch in &small {
            let Some(objects) = read(&self.cache, &batch.name) else {
                continue;
            };
            for (id, bytes) in objects.into_iter().filter(|(id, _)| is_wanted(id)) {
                self.add(id, bytes);
            }
        }
        self.write();
        if !self.cache.is_writable() {
            return;
        }
        let written = &self.batches[before..];
        for batch in small.iter().filter(|b| !written.iter().any(|w| w.name == b.name)) {
            self.cache.remove(Kind::Snapshots, &batch.name);
        }
    }
}

fn encode(objects: &[(SnapshotId, Bytes)]) -> Vec<u8> {
    let bytes: usize = objects.iter().map(|(_, bytes)| bytes.len() + ROW_BYTES).sum();
    let mut out = Vec::with_capacity(bytes + TAIL_BYTES);
    objects.iter().for_each(|(_, bytes)| out.extend_from_slice(bytes));
    let mut offset = 0u64;
    for (id, bytes) in objects {
        out.extend_from_slice(id.to_string().as_bytes());
        out.extend_from_slice(&offset.to_le_bytes());
        // a snapshot object has at most 4 MiB
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        offset += bytes.len() as u64;
    }
    out.extend_from_slice(&(objects.len() as u64).to_le_bytes());
    out.extend_from_slice(&MAGIC);
    out
}

/// Maps a batch, checked against its name.
fn read(cache: &RepoCache, name: &str) -> Option<HashMap<SnapshotId, Bytes>> {
    let file = cache.open(Kind::Snapshots, name)?;
    // SAFETY: nobody changes or shortens an entry of the cache once it is visible; removal only unlinks it.
    let map = unsafe { Mmap::map(&file) };
    let whole = map
        .ok()
        .filter(|map| name.ends_with(blake3::hash(map).to_hex().as_str()));
    match whole.and_then(|map| decode(Bytes::from_owner(map))) {
        Some(objects) => Some(objects),
        None => {
            cache.bad(Kind::Snapshots, name, "its bytes do not match its name");
            None
        }
    }
}

fn decode(bytes: Bytes) -> Option<HashMap<SnapshotId, Bytes>> {
    let tail = bytes.len().checked_sub(TAIL_BYTES)?;
    if bytes[tail + 8..] != MAGIC {
        return None;
    }
    let count = usize::try_from(le_u64(&bytes[tail..])).ok()?;
    let rows = tail.checked_sub(count.checked_mul(ROW_BYTES)?)?;
    let row = |row: &[u8]| {
        let id = std::str::from_utf8(&row[..ID_BYTES]).ok()?.parse().ok()?;
        let from = usize::try_from(le_u64(&row[ID_BYTES..])).ok()?;
        let end = from.checked_add(le_u32(&row[ID_BYTES + 8..]) as usize)?;
        (end <= rows).then(|| (id, bytes.slice(from..end)))
    };
    bytes[rows..tail].chunks_exact(ROW_BYTES).map(row).collect()
}
