//! Which leaf comes next: only those with data, with what the filesystem says of their holes and, from the earlier
//! snapshot's manifest, their old chunks.

use std::ops::Range;
use std::sync::Arc;

use futures::StreamExt;
use repo::manifest::{self, LEAF_SPAN_BYTES, Leaf};
use repo::{BlobId, ManifestRef, NodeSource};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::Result;
use crate::core::cut::{BLOCK_BYTES, HOLE_BYTES, LeafChunk};
use crate::port::DiskRead;

/// Leaves of the earlier manifest that are read ahead.
const OLD_LEAVES_AHEAD: usize = 64;

/// A leaf to do.
#[derive(Debug)]
pub(super) struct Task {
    /// Counts from 0 without gaps.
    pub number: u64,
    /// Which leaf of the disk.
    pub index: u64,
    /// Its length in bytes.
    pub len: usize,
    /// What is to be read of it: as `LeafBytes::runs` asks.
    pub runs: Vec<Range<usize>>,
    /// Its chunks in the earlier snapshot.
    pub old: Vec<LeafChunk<BlobId>>,
}

/// Gives out the leaves in order.
pub(super) struct Feed<'a> {
    disk: &'a dyn DiskRead,
    size_bytes: u64,
    tasks: u64,
    /// Where the next leaf begins.
    at: u64,
    /// The run of data at or after `at`, as far as it is known.
    run: Option<Range<u64>>,
    base: Option<Base>,
}

struct Base {
    leaves: mpsc::Receiver<repo::Result<Leaf>>,
    /// Received, and not yet passed by.
    next: Option<Leaf>,
}

impl<'a> Feed<'a> {
    pub(super) fn new(
        disk: &'a dyn DiskRead,
        base: Option<(Arc<dyn NodeSource>, ManifestRef)>,
        handle: &Handle,
    ) -> Self {
        let size_bytes = disk.size_bytes();
        let base = base
            .filter(|(_, manifest)| manifest.root.is_some())
            .map(|(nodes, manifest)| {
                let (sender, leaves) = mpsc::channel(OLD_LEAVES_AHEAD);
                // Ends by itself: with the last leaf, or when the receiver is dropped.
                handle.spawn(async move {
                    let mut stream = manifest::leaves(nodes, manifest, 0..size_bytes);
                    while let Some(leaf) = stream.next().await {
                        if sender.send(leaf).await.is_err() {
                            return;
                        }
                    }
                });
                Base { leaves, next: None }
            });
        Self {
            disk,
            size_bytes,
            tasks: 0,
            at: 0,
            run: None,
            base,
        }
    }

    /// The next leaf with data. Waits for the earlier manifest.
    pub(super) fn next(&mut self) -> Result<Option<Task>> {
        let Some(first) = self.data_from(self.at)? else {
            return Ok(None);
        };
        let index = first.start / LEAF_SPAN_BYTES;
        let start = index * LEAF_SPAN_BYTES;
        let end = (start + LEAF_SPAN_BYTES).min(self.size_bytes);
        let len = (end - start) as usize;
        let mut runs = Vec::new();
        let mut data = Some(first);
        while let Some(run) = data.filter(|run| run.start < end) {
            let within = (run.start.max(start) - start) as usize..(run.end.min(end) - start) as usize;
            add_run(&mut runs, within, len);
            // Stays known beyond this leaf's end.
            if run.end >= end {
                break;
            }
            data = self.data_from(run.end)?;
        }
        let old = match &mut self.base {
            Some(base) => base.chunks_of(index)?,
            None => Vec::new(),
        };
        self.at = end;
        self.tasks += 1;
        Ok(Some(Task {
            number: self.tasks - 1,
            index,
            len,
            runs,
            old,
        }))
    }

    /// The run of data at or after `offset`, cut to begin there.
    fn data_from(&mut self, offset: u64) -> Result<Option<Range<u64>>> {
        if offset >= self.size_bytes {
            return Ok(None);
        }
        if self.run.as_ref().is_none_or(|run| run.end <= offset) {
            self.run = self.disk.next_data(offset)?;
        }
        Ok(self.run.clone().map(|run| run.start.max(offset)..run.end))
    }
}

/// Adds a run that lies after all in `runs`, widened to whole blocks. Gaps shorter than a hole are read along: they are
/// zeros, and part of a chunk.
fn add_run(runs: &mut Vec<Range<usize>>, run: Range<usize>, leaf_len: usize) {
    let mut start = run.start - run.start % BLOCK_BYTES;
    let mut end = run.end.next_multiple_of(BLOCK_BYTES).min(leaf_len);
    if leaf_len - end < HOLE_BYTES {
        end = leaf_len;
    }
    match runs.last_mut() {
        Some(last) if start < last.end + HOLE_BYTES => last.end = last.end.max(end),
        last => {
            if last.is_none() && start < HOLE_BYTES {
                start = 0;
            }
            runs.push(start..end);
        }
    }
}

impl Base {
    /// The old chunks of leaf `index`; asked for in increasing order.
    fn chunks_of(&mut self, index: u64) -> Result<Vec<LeafChunk<BlobId>>> {
        while self.next.as_ref().is_none_or(|leaf| leaf.index < index) {
            match self.leaves.blocking_recv() {
                Some(leaf) => self.next = Some(leaf?),
                None => return Ok(Vec::new()),
            }
        }
        let Some(leaf) = self.next.take_if(|leaf| leaf.index == index) else {
            return Ok(Vec::new());
        };
        let start = index * LEAF_SPAN_BYTES;
        let to_chunk = |c: &repo::ChunkRef| {
            let offset = u32::try_from(c.offset.checked_sub(start)?).ok()?;
            Some(LeafChunk {
                offset,
                len: c.len,
                id: c.id,
            })
        };
        Ok(leaf.chunks.iter().filter_map(to_chunk).collect())
    }
}

#[cfg(test)]
mod tests;
