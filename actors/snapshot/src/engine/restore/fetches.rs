//! The fetching part: windows of chunks, coalesced by the repository, written as they come.

use std::sync::{Mutex, PoisonError};

use futures::StreamExt;
use repo::{BlobId, FetchLimits, Repo, Stored};
use tokio::runtime::Handle;

use super::{Run, parallel};
use crate::engine::progress::Progress;
use crate::{Result, SnapshotError};

/// Chunks that a writing thread takes at once: handing over each alone costs a wakened thread each.
const BATCH_CHUNKS_MAX: usize = 16;
/// Batches that wait for a writing thread.
const QUEUE_BATCHES_MAX: usize = 3;

/// What a fetch took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Fetched {
    pub(crate) requests: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) raw_bytes: u64,
}

/// Fetches `ids` (each once) and hands each chunk to `take` on one of `threads` threads, as it came: `take` opens it, with memory
/// that it finds as the chunk before left it.
pub(crate) fn fetch_into(
    repo: &Repo,
    handle: &Handle,
    limits: &FetchLimits,
    threads: usize,
    progress: &Progress,
    ids: &[BlobId],
    take: impl Fn(&Stored, &mut Vec<u8>) -> Result<()> + Sync,
) -> Result<Fetched> {
    let plan = repo.plan_fetch(ids, limits)?;
    let fetched = Fetched {
        requests: plan.requests(),
        stored_bytes: plan.fetched_bytes(),
        raw_bytes: plan.raw_bytes(),
    };
    let _entered = handle.enter();
    let mut batches = repo.fetch_stored(plan, limits).ready_chunks(BATCH_CHUNKS_MAX);
    let (send, receive) = crossbeam_channel::bounded::<Vec<repo::Result<Stored>>>(QUEUE_BATCHES_MAX);
    let failed: Mutex<Option<SnapshotError>> = Mutex::new(None);
    let fail = |error| {
        failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(error);
    };
    let mut count = 0;
    let span = tracing::Span::current();
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            let (receive, take, fail, span) = (receive.clone(), &take, &fail, &span);
            scope.spawn(move || {
                let _in_trace = span.enter();
                // of this thread, so that what is opened is still in its core's cache when it is taken
                let mut memory = Vec::new();
                for stored in receive.into_iter().flatten() {
                    let stored = stored.map_err(SnapshotError::from);
                    if let Err(error) = stored.and_then(|stored| take(&stored, &mut memory)) {
                        fail(error);
                        return;
                    }
                }
            });
        }
        drop(receive); // so that sending fails once every thread gave up
        let sent = loop {
            if failed.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                break Ok(());
            }
            match progress.check().map(|()| handle.block_on(batches.next())) {
                Ok(Some(batch)) => {
                    let chunks = batch.len();
                    if send.send(batch).is_err() {
                        break Ok(());
                    }
                    count += chunks;
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        drop(send);
        sent.unwrap_or_else(fail);
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None if count == ids.len() => Ok(fetched),
        None => {
            let why = format!("the repository gave {count} of {} chunks and no error", ids.len());
            Err(SnapshotError::new(crate::Kind::Internal, why))
        }
    }
}

/// A chunk and the places that still need it.
struct Wanting {
    id: BlobId,
    places: Vec<u32>,
}

impl Run<'_> {
    /// Fetches `ids` and counts them.
    pub(super) fn fetch_ids(
        &mut self,
        ids: &[BlobId],
        take: impl Fn(BlobId, &[u8]) -> Result<()> + Sync,
    ) -> Result<()> {
        let with = &self.with;
        let threads = with.options.threads;
        let fetched = fetch_into(
            with.repo,
            with.handle,
            &with.options.fetch,
            threads,
            with.progress,
            ids,
            |stored, memory| take(stored.id(), stored.open_in(memory)?),
        )?;
        self.report.fetch_requests += fetched.requests;
        self.report.fetched_bytes += fetched.stored_bytes;
        self.report.fetched_raw_bytes += fetched.raw_bytes;
        Ok(())
    }

    /// Fetches all that isn't on the disk, and writes it.
    pub(super) fn fetch_all(&mut self) -> Result<()> {
        let started = (self.with.clock)();
        self.with
            .progress
            .begin("fetch", self.plan.totals().fetched_places_bytes);
        for window in self.plan.fetches.chunks(self.with.options.window_chunks_max.max(1)) {
            let mut wanting: Vec<Wanting> = window
                .iter()
                .map(|f| Wanting {
                    id: self.plan.id(f.id),
                    places: self.plan.fetch_places(f).to_vec(),
                })
                .collect();
            if self.careful {
                self.drop_right(&mut wanting)?;
            }
            self.fetch_places(&mut wanting)?;
        }
        self.spent("fetch", started);
        Ok(())
    }

    /// Leaves out places that hold their chunk already.
    fn drop_right(&self, wanting: &mut Vec<Wanting>) -> Result<()> {
        parallel::for_each(wanting, self.with.options.threads, |buffer: &mut Vec<u8>, one| {
            self.with.progress.check()?;
            let mut wrong = Vec::with_capacity(one.places.len());
            for place in &one.places {
                let at = self.plan.place(*place);
                buffer.resize(at.len as usize, 0);
                self.with.disk.read_at(buffer, at.offset)?;
                if self.with.repo.id_of(buffer) == one.id {
                    self.with.progress.add(u64::from(at.len));
                } else {
                    wrong.push(*place);
                }
            }
            one.places = wrong;
            Ok(())
        })?;
        wanting.retain(|one| !one.places.is_empty());
        Ok(())
    }

    fn fetch_places(&mut self, wanting: &mut [Wanting]) -> Result<()> {
        if wanting.is_empty() {
            return Ok(());
        }
        wanting.sort_unstable_by_key(|one| one.id);
        let ids: Vec<BlobId> = wanting.iter().map(|one| one.id).collect();
        let (with, plan) = (self.with, self.plan);
        self.fetch_ids(&ids, |id, data| {
            let found = wanting.binary_search_by_key(&id, |one| one.id).ok();
            for place in found.iter().flat_map(|at| &wanting[*at].places) {
                with.disk.write_at(data, plan.place(*place).offset)?;
                with.progress.add(data.len() as u64);
            }
            Ok(())
        })?;
        for place in wanting.iter().flat_map(|one| &one.places) {
            self.report.written_bytes += u64::from(plan.place(*place).len);
        }
        Ok(())
    }

    /// Fetches the chunks of these places and writes them anew.
    pub(super) fn fetch_again(&mut self, places: &[u32]) -> Result<()> {
        let mut by_id: Vec<(BlobId, u32)> = places
            .iter()
            .map(|p| (self.plan.id(self.plan.place(*p).id), *p))
            .collect();
        by_id.sort_unstable();
        let mut wanting: Vec<Wanting> = by_id
            .chunk_by(|a, b| a.0 == b.0)
            .map(|same| Wanting {
                id: same[0].0,
                places: same.iter().map(|(_, place)| *place).collect(),
            })
            .collect();
        self.fetch_places(&mut wanting)
    }
}
