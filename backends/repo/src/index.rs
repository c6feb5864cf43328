//! The index: which pack holds which blob. Many immutable segments, mapped, and looked up together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::pack::{Entry, PackName};
use crate::{BlobId, RepoError};

mod join;
mod load;
mod segment;

pub(crate) use join::{SMALL_BYTES_MAX, SMALL_LOADS_MAX, is_small};
pub(crate) use load::{ALONE_LOADS_MAX, Loader, write_segment};
pub(crate) use segment::{PackSize, Segment};

/// Segments of at most this many records are also listed in the joint directory.
const SMALL_RECORDS_MAX: usize = 16 << 10;
/// Most records in the joint directory (16 bytes each).
const JOINT_RECORDS_MAX: usize = 1 << 20;
/// Below this many segments a joint directory gains nothing.
const JOINT_SEGMENTS_MIN: usize = 4;

/// Name of an index object: BLAKE3 of its bytes.
pub(crate) type IndexName = crate::id::ObjectName;

impl crate::id::ObjectName {
    /// The name in an object's key.
    pub(crate) fn from_key(key: &str) -> Option<Self> {
        Self::from_hex(key.strip_prefix("index/")?)
    }
    /// Its object's key.
    pub(crate) fn key(&self) -> String {
        format!("index/{}", self.to_hex())
    }
}

/// Where a blob stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hit {
    /// Which segment of the index says so.
    pub(crate) segment: u32,
    /// Which record of the segment.
    pub(crate) record: u32,
    /// Which pack of the segment's table.
    pub(crate) pack: u32,
    pub(crate) name: PackName,
    pub(crate) pack_bytes: u64,
    pub(crate) entry: Entry,
}

/// All segments as of some moment. Never changes; a newer one replaces it.
#[derive(Debug, Default)]
pub(crate) struct Index {
    segments: Vec<Arc<Segment>>,
    /// Segments that are searched one by one.
    alone: Vec<u32>,
    /// Prefix, segment and record of all records of the others, sorted.
    joint: Vec<(u64, u32, u32)>,
}

impl Index {
    pub(crate) fn new(segments: Vec<Arc<Segment>>) -> Self {
        let mut by_size: Vec<u32> = (0..segments.len() as u32).collect();
        by_size.sort_by_key(|i| segments[*i as usize].records());
        let mut room = if segments.len() < JOINT_SEGMENTS_MIN {
            0
        } else {
            JOINT_RECORDS_MAX
        };
        let (mut alone, mut joint) = (Vec::new(), Vec::new());
        for i in by_size {
            let segment = &segments[i as usize];
            let records = segment.records();
            if records > SMALL_RECORDS_MAX || records > room {
                alone.push(i);
                continue;
            }
            room -= records;
            segment.for_each(|record, id, _| joint.push((id.prefix(), i, record)));
        }
        joint.sort_unstable();
        // large ones first: there most blobs are
        alone.reverse();
        Self { segments, alone, joint }
    }

    pub(crate) fn segments(&self) -> &[Arc<Segment>] {
        &self.segments
    }

    /// Where `id` stands; `None` when no whole part of the index knows it.
    pub(crate) fn find(&self, id: &BlobId) -> Option<Hit> {
        for &i in &self.alone {
            if let Some(hit) = self.segments[i as usize].find(i, id) {
                return Some(hit);
            }
        }
        let prefix = id.prefix();
        let from = interpolated_point(self.joint.len(), prefix, |k| self.joint[k].0);
        for &(at, segment, record) in &self.joint[from..] {
            if at != prefix {
                break;
            }
            if let Some(hit) = self.segments[segment as usize]
                .get(segment, record)
                .filter(|h| h.entry.id == *id)
            {
                return Some(hit);
            }
        }
        None
    }

    /// The damage met so far, one error a segment.
    pub(crate) fn damage(&self) -> Vec<RepoError> {
        self.segments.iter().filter_map(|s| s.damage()).collect()
    }
}

/// First position whose key is not below `key`, for `len` ascending keys that are spread evenly, as hashes are: guess
/// by proportion, widen from there, then halve.
fn interpolated_point(len: usize, key: u64, key_at: impl Fn(usize) -> u64) -> usize {
    if len == 0 {
        return 0;
    }
    let guess = ((u128::from(key) * len as u128) >> 64) as usize;
    let (mut low, mut high) = (guess, guess);
    let mut step = 4;
    // the answer lies in low..=high once key_at(low - 1) < key <= key_at(high)
    while low > 0 && key_at(low - 1) >= key {
        high = low - 1;
        low = low.saturating_sub(step);
        step *= 4;
    }
    step = 4;
    while high < len && key_at(high) < key {
        low = high + 1;
        high = (high + step).min(len);
        step *= 4;
    }
    while low < high {
        let middle = low + (high - low) / 2;
        if key_at(middle) < key {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

/// Which packs of an index a session refers to.
#[derive(Debug)]
pub(crate) struct Marks {
    packs: Vec<Vec<AtomicU64>>,
}

impl Marks {
    pub(crate) fn new(index: &Index) -> Self {
        let bits = |s: &Arc<Segment>| (0..s.packs().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Self {
            packs: index.segments.iter().map(bits).collect(),
        }
    }
    pub(crate) fn mark(&self, hit: &Hit) {
        let word = &self.packs[hit.segment as usize][hit.pack as usize / 64];
        let bit = 1u64 << (hit.pack % 64);
        // most packs are marked many times: a load is cheaper than a shared write
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }
    /// The marked packs and their sizes.
    pub(crate) fn marked(&self, index: &Index) -> BTreeMap<PackName, u64> {
        let mut marked = BTreeMap::new();
        for (segment, words) in index.segments.iter().zip(&self.packs) {
            for pack in 0..segment.packs() {
                if words[pack / 64].load(Ordering::Relaxed) & 1 << (pack % 64) != 0 {
                    let PackSize { name, bytes } = segment.pack(pack as u32);
                    marked.insert(name, bytes);
                }
            }
        }
        marked
    }
}

#[cfg(test)]
mod tests;

/// For tests of other modules.
#[cfg(test)]
pub(crate) mod testing {
    use super::segment::{self, Backing};
    use super::*;
    use crate::pack::SealedPack;

    pub(crate) fn encoded(pack: &SealedPack) -> Vec<u8> {
        let size = PackSize {
            name: pack.name,
            bytes: pack.bytes.len() as u64,
        };
        segment::encode(vec![(size, pack.entries.clone())])
    }
    /// Makes the checksums fit whatever the bytes are.
    pub(crate) fn forge(bytes: &mut [u8]) {
        segment::forge(bytes);
    }
    /// Opens the bytes and looks `entries` up: what was found, and whether damage was met.
    pub(crate) fn open_and_find(bytes: Vec<u8>, entries: &[Entry]) -> crate::Result<(Vec<Entry>, bool)> {
        let name = format!("index/{}", "0".repeat(64));
        let segment = Arc::new(Segment::open(name, Backing::Held(bytes.into()))?);
        let index = Index::new(vec![segment.clone()]);
        let marks = Marks::new(&index);
        let found: Vec<Hit> = entries.iter().filter_map(|e| index.find(&e.id)).collect();
        found.iter().for_each(|hit| marks.mark(hit));
        segment.for_each(|record, _, _| {
            segment.get(0, record);
        });
        Ok((
            found.into_iter().map(|hit| hit.entry).collect(),
            segment.damage().is_some(),
        ))
    }
}
