//! Reads a disk into a repository: every core takes the next leaf that has data, reads, cuts, hashes and stores it; the
//! finished leaves are brought back into order and become the manifest.
//!
//! Memory: a leaf and its chunk list for each thread, the chunk lists of at most [`Options::window_leaves`] finished
//! leaves, and so many of the earlier snapshot's; independent of the disk's size.
//!
//! What is absent: nothing here writes to the disk or decides what is visible in the repository.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use repo::manifest::{Builder, LEAF_SPAN_BYTES};
use repo::{BlobId, BlobKind, BlobSink, ChunkRef, ManifestRef, NodeSource, Put};
use tokio::runtime::Handle;
use wire::repo::Chunker;
use wire::snapshot::Moved;

use crate::core::cut::{Cutter, LeafBytes, LeafChunk};
use crate::engine::progress::Progress;
use crate::port::DiskRead;
use crate::{Kind, Result, SnapshotError};

mod feed;

use feed::{Feed, Task};

/// How a disk is read.
#[derive(Debug, Clone)]
pub struct Options {
    /// Threads that read, cut, hash and compress; at least 1.
    pub threads: usize,
    /// Leaves that may be finished out of order before the fastest threads wait for the slowest; at least `threads`.
    pub window_leaves: usize,
}

impl Default for Options {
    /// A thread for each core.
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            threads,
            window_leaves: 16 * threads,
        }
    }
}

/// A disk that is in a repository now (durable only when the session is finished).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ingested {
    /// Its content.
    pub manifest: ManifestRef,
    /// What that moved.
    pub moved: Moved,
}

/// The error for a disk that changed under the reader's eyes.
pub fn changed(path: &Path) -> SnapshotError {
    SnapshotError::new(
        Kind::Conflict,
        format!(
            "disk {} changed while it was read; no snapshot was recorded",
            path.display()
        ),
    )
    .hint("stop or freeze what writes to the disk (the VM), then take the snapshot again")
}

/// Puts the chunks of `disk` and its manifest's nodes into `sink`. With `base`, the manifest of an earlier state of the
/// disk by the same `chunker` and where its nodes are, unchanged data costs hashing alone; the outcome is the same
/// without. Blocks: call it on a blocking thread; `handle` is where the base's nodes are read.
///
/// # Errors
/// `Conflict` when the disk changed meanwhile, `Cancelled`, `Invalid` for a chunker out of range, and the disk's, the
/// base's and the sink's. What was put into the sink until then stays there and is referred to by nothing.
pub fn ingest(
    disk: &dyn DiskRead,
    sink: &dyn BlobSink,
    chunker: Chunker,
    base: Option<(Arc<dyn NodeSource>, ManifestRef)>,
    handle: &Handle,
    options: &Options,
    progress: &Progress,
) -> Result<Ingested> {
    let before = disk.fingerprint()?;
    let size_bytes = disk.size_bytes();
    let allocated_bytes = disk.allocated_bytes()?;
    progress.begin("scan", allocated_bytes.min(size_bytes));

    let threads = options.threads.max(1);
    let work = Work {
        disk,
        sink,
        cutter: Cutter::new(&chunker)?,
        progress,
        window: options.window_leaves.max(threads) as u64,
        feed: Mutex::new(Feed::new(disk, base, handle)),
        merge: Mutex::new(Merge {
            builder: Builder::new(sink, size_bytes),
            next: 0,
            waiting: BTreeMap::new(),
            moved: Moved {
                allocated_bytes,
                ..Moved::default()
            },
            error: None,
        }),
        merged: Condvar::new(),
        stopped: AtomicBool::new(false),
    };
    let span = tracing::Span::current();
    std::thread::scope(|scope| {
        let run = || span.in_scope(|| work.run());
        let started: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        for thread in started {
            // One that panicked has left its error.
            let _ = thread.join();
        }
    });

    let merge = work.merge.into_inner().unwrap_or_else(PoisonError::into_inner);
    // A disk that became shorter shows as a failed read: the cause is told, not the symptom.
    if merge.error.as_ref().is_none_or(|e| e.kind == Kind::Conflict) && disk.fingerprint()? != before {
        return Err(changed(disk.path()));
    }
    if let Some(error) = merge.error {
        return Err(error);
    }
    Ok(Ingested {
        manifest: merge.builder.finish()?,
        moved: merge.moved,
    })
}

/// What the threads share.
struct Work<'a> {
    disk: &'a dyn DiskRead,
    sink: &'a dyn BlobSink,
    cutter: Cutter,
    progress: &'a Progress,
    window: u64,
    feed: Mutex<Feed<'a>>,
    merge: Mutex<Merge<'a>>,
    /// A leaf was merged, or all must stop.
    merged: Condvar,
    stopped: AtomicBool,
}

/// Where finished leaves come back into order.
struct Merge<'a> {
    builder: Builder<'a>,
    /// Number of the task that the manifest waits for.
    next: u64,
    /// Finished tasks after it: the leaf's index and its chunks.
    waiting: BTreeMap<u64, (u64, Vec<ChunkRef>)>,
    moved: Moved,
    /// The first.
    error: Option<SnapshotError>,
}

/// What a thread reuses from leaf to leaf.
struct Scratch {
    bytes: Vec<u8>,
    chunks: Vec<LeafChunk<BlobId>>,
}

/// Stops the others when this thread panics: they would wait forever for its leaf.
struct StopOnPanic<'a, 'b>(&'a Work<'b>);

impl Drop for StopOnPanic<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop(SnapshotError::new(
                Kind::Internal,
                "a reader thread panicked; no snapshot was recorded",
            ));
        }
    }
}

impl<'a> Work<'a> {
    fn run(&self) {
        let _guard = StopOnPanic(self);
        let mut scratch = Scratch {
            bytes: vec![0; LEAF_SPAN_BYTES as usize],
            chunks: Vec::new(),
        };
        while !self.stopped.load(Ordering::Acquire) {
            let done = self.progress.check().and_then(|()| {
                let task = lock(&self.feed).next()?;
                let Some(task) = task else { return Ok(false) };
                self.wait_for_window(task.number);
                self.leaf(&task, &mut scratch)?;
                Ok(true)
            });
            match done {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return self.stop(error),
            }
        }
    }

    /// The task that the manifest waits for never waits here, so there is always one that goes on.
    fn wait_for_window(&self, number: u64) {
        let mut merge = lock(&self.merge);
        while number >= merge.next + self.window && !self.stopped.load(Ordering::Acquire) {
            merge = self.merged.wait(merge).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn leaf(&self, task: &Task, scratch: &mut Scratch) -> Result<()> {
        let start = task.index * LEAF_SPAN_BYTES;
        let bytes = &mut scratch.bytes[..task.len];
        let mut moved = Moved::default();
        for run in &task.runs {
            self.disk.read_at(&mut bytes[run.clone()], start + run.start as u64)?;
            moved.read_bytes += run.len() as u64;
        }
        let leaf = LeafBytes {
            bytes,
            runs: &task.runs,
        };
        scratch.chunks.clear();
        let stats = self
            .cutter
            .cut(leaf, &task.old, |raw| self.sink.id_of(raw), &mut scratch.chunks);
        moved.zero_bytes = moved.read_bytes - stats.chunk_bytes;
        moved.hashed_bytes = stats.hashed_bytes;
        moved.recut_bytes = stats.recut_bytes;
        moved.chunks = scratch.chunks.len() as u64;
        for chunk in &scratch.chunks {
            let raw = &leaf.bytes[within(chunk)];
            if let Put::New { stored_bytes } = self.sink.put(BlobKind::Data, &chunk.id, raw)? {
                moved.new_chunks += 1;
                moved.new_raw_bytes += u64::from(chunk.len);
                moved.stored_bytes += u64::from(stored_bytes);
            }
        }
        let to_ref = |c: &LeafChunk<BlobId>| ChunkRef {
            offset: start + u64::from(c.offset),
            len: c.len,
            id: c.id,
        };
        let chunks = scratch.chunks.iter().map(to_ref).collect();
        self.merge(task, chunks, moved)?;
        self.progress.add(moved.read_bytes);
        Ok(())
    }

    fn merge(&self, task: &Task, chunks: Vec<ChunkRef>, moved: Moved) -> Result<()> {
        let mut merge = lock(&self.merge);
        merge.moved = merge.moved.plus(moved);
        merge.waiting.insert(task.number, (task.index, chunks));
        let merge = &mut *merge;
        while let Some((index, chunks)) = merge.waiting.remove(&merge.next) {
            merge.builder.leaf(index, &chunks)?;
            merge.next += 1;
        }
        self.merged.notify_all();
        Ok(())
    }

    fn stop(&self, error: SnapshotError) {
        let mut merge = lock(&self.merge);
        merge.error.get_or_insert(error);
        self.stopped.store(true, Ordering::Release);
        self.merged.notify_all();
    }
}

fn within(chunk: &LeafChunk<BlobId>) -> Range<usize> {
    chunk.offset as usize..(chunk.offset + chunk.len) as usize
}

/// A thread that died inside has stopped the work; what it left is only looked at for the error.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
