//! Reading many blobs with few requests: ranges of packs, coalesced, many in flight, bounded in memory.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use store::{Spare, Store};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::blob::{Compression, decompress, decompress_into};
use crate::index::Hit;
use crate::pack::{Entry, PackName};
use crate::{BlobId, RepoError, Result, io};

/// Most range reads at once.
pub const IN_FLIGHT_LIMIT: usize = 32;
/// Raw bytes of one range, at most (a single blob may have more): what compresses well must not swell memory.
const RANGE_RAW_BYTES_MAX: u64 = 16 << 20;
/// Unit in which memory is accounted.
const MEMORY_UNIT_BYTES: u64 = 4 << 10;

/// Limits of a fetch.
#[derive(Debug, Clone)]
pub struct FetchLimits {
    /// Range reads at once; 1 to [`IN_FLIGHT_LIMIT`].
    pub in_flight_max: usize,
    /// Stored and raw bytes held in memory until they are taken.
    pub memory_bytes_max: u64,
    /// Largest gap between blobs that is read along, in bytes.
    pub gap_bytes_max: u64,
    /// Bytes read in vain, at most, in thousandths of a range.
    pub waste_permille_max: u64,
    /// Longest range, in bytes (a single blob may be longer).
    pub range_bytes_max: u64,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            in_flight_max: 16,
            memory_bytes_max: 96 << 20,
            gap_bytes_max: 16 << 10,
            waste_permille_max: 30,
            range_bytes_max: 4 << 20,
        }
    }
}

impl FetchLimits {
    /// For manifest nodes: small, and close together, so requests cost more than bytes.
    pub(crate) fn nodes() -> Self {
        Self {
            gap_bytes_max: 64 << 10,
            waste_permille_max: 750,
            range_bytes_max: 1 << 20,
            ..Self::default()
        }
    }
}

/// One range of one pack, and what lies in it.
#[derive(Debug, Clone)]
pub(crate) struct FetchRange {
    pub(crate) pack: PackName,
    pub(crate) start: u64,
    pub(crate) end: u64,
    raw: u64,
    useful: u64,
    pub(crate) entries: Vec<Entry>,
}

impl FetchRange {
    fn memory_units(&self, limits: &FetchLimits) -> u32 {
        let units = (self.end - self.start + self.raw).div_ceil(MEMORY_UNIT_BYTES);
        units.clamp(1, memory_units(limits)) as u32
    }
}

fn memory_units(limits: &FetchLimits) -> u64 {
    (limits.memory_bytes_max / MEMORY_UNIT_BYTES).clamp(1, 1 << 24)
}

/// Which ranges of which packs to read. About 60 bytes of memory a blob: plan whole disks in parts.
#[derive(Debug, Clone, Default)]
pub struct FetchPlan {
    pub(crate) ranges: Vec<FetchRange>,
}

impl FetchPlan {
    /// Sorts and coalesces; each id once.
    pub(crate) fn new(mut hits: Vec<(PackName, Entry)>, limits: &FetchLimits) -> Self {
        hits.sort_unstable_by(|a, b| {
            a.0.cmp(&b.0)
                .then(a.1.offset.cmp(&b.1.offset))
                .then(a.1.id.cmp(&b.1.id))
        });
        hits.dedup_by(|next, kept| next.1.id == kept.1.id);
        let mut ranges: Vec<FetchRange> = Vec::new();
        for (pack, entry) in hits {
            let (start, end) = (
                u64::from(entry.offset),
                u64::from(entry.offset) + u64::from(entry.stored),
            );
            let (raw, useful) = (u64::from(entry.raw), u64::from(entry.stored));
            if let Some(last) = ranges.last_mut().filter(|last| last.pack == pack) {
                let length = end.max(last.end) - last.start;
                let waste = length.saturating_sub(last.useful + useful);
                let fits = start.saturating_sub(last.end) <= limits.gap_bytes_max
                    && waste * 1000 <= length * limits.waste_permille_max
                    && length <= limits.range_bytes_max
                    && last.raw + raw <= RANGE_RAW_BYTES_MAX;
                if fits {
                    last.end = last.end.max(end);
                    last.raw += raw;
                    last.useful += useful;
                    last.entries.push(entry);
                    continue;
                }
            }
            ranges.push(FetchRange {
                pack,
                start,
                end,
                raw,
                useful,
                entries: vec![entry],
            });
        }
        Self { ranges }
    }
    /// Range reads that it takes.
    pub fn requests(&self) -> u64 {
        self.ranges.len() as u64
    }
    /// Bytes that will cross from the store.
    pub fn fetched_bytes(&self) -> u64 {
        self.ranges.iter().map(|r| r.end - r.start).sum()
    }
    /// Bytes of the blobs before compression.
    pub fn raw_bytes(&self) -> u64 {
        self.ranges.iter().map(|r| r.raw).sum()
    }
    /// Blobs.
    pub fn blobs(&self) -> u64 {
        self.ranges.iter().map(|r| r.entries.len() as u64).sum()
    }
}

/// What of a hit a fetch needs.
pub(crate) fn wanted(hit: Hit) -> (PackName, Entry) {
    (hit.name, hit.entry)
}

fn damaged(pack: &PackName, entry: &Entry, why: &str) -> RepoError {
    RepoError::corrupt(pack.key(), format!("blob {}: {why}", entry.id)).at(u64::from(entry.offset))
}

fn matches_id(key: &[u8; 32], entry: &Entry, raw: &[u8]) -> std::result::Result<(), String> {
    if BlobId::keyed(key, raw) == entry.id {
        Ok(())
    } else {
        Err("its bytes do not match its id".to_owned())
    }
}

/// The raw bytes of a blob of `pack`, checked against its id.
pub(crate) fn open_blob(key: &[u8; 32], pack: &PackName, entry: &Entry, stored: Bytes) -> Result<Bytes> {
    let fail = |why: String| damaged(pack, entry, &why);
    let raw = match entry.compression {
        Compression::None if stored.len() == entry.raw as usize => stored,
        compression => decompress(compression, &stored, entry.raw as usize)
            .map_err(fail)?
            .into(),
    };
    matches_id(key, entry, &raw).map_err(fail)?;
    Ok(raw)
}

/// The raw bytes of all blobs of a range, each checked against its id, in one piece of `spare` memory; what is stored raw
/// stays where it was read to.
fn open_range(key: &[u8; 32], range: &FetchRange, stored: &Bytes, spare: &Arc<Spare>) -> Result<Vec<(BlobId, Bytes)>> {
    let packed = |entry: &&Entry| entry.compression != Compression::None;
    let mut raw = spare.lend(range.entries.iter().filter(packed).map(|e| e.raw as usize).sum());
    let (mut rest, mut at) = (raw.bytes_mut(), 0);
    let mut places = Vec::with_capacity(range.entries.len());
    for entry in &range.entries {
        let from = (u64::from(entry.offset) - range.start) as usize;
        let stored = stored.slice(from..from + entry.stored as usize);
        if !packed(&entry) {
            places.push(Err(open_blob(key, &range.pack, entry, stored)?));
            continue;
        }
        let (own, after) = rest.split_at_mut(entry.raw as usize);
        decompress_into(entry.compression, &stored, own)
            .and_then(|()| matches_id(key, entry, own))
            .map_err(|why| damaged(&range.pack, entry, &why))?;
        places.push(Ok(at..at + own.len()));
        (rest, at) = (after, at + own.len());
    }
    let raw = raw.freeze();
    let bytes = places.into_iter().map(|place| match place {
        Ok(place) => raw.slice(place),
        Err(bytes) => bytes,
    });
    Ok(range.entries.iter().map(|e| e.id).zip(bytes).collect())
}

/// Reads one range and checks what lies in it, off the async threads.
async fn read_range(
    store: &Arc<dyn Store>,
    key: [u8; 32],
    range: FetchRange,
    decoding: Arc<Decoding>,
) -> Result<Vec<(BlobId, Bytes)>> {
    let stored = io::get_range(store, &range.pack.key(), range.start..range.end)
        .await
        .map_err(|e| RepoError::of_referenced(e).at(range.start))?;
    // never closed
    let _turn = decoding.turns.acquire().await;
    let spare = decoding.spare.clone();
    io::blocking("fetch", move || open_range(&key, &range, &stored, &spare)).await
}

/// What opening ranges shares: raw bytes are several times the stored ones, so no more ranges are opened at once than there are
/// cores to do it, and the rest wait as they came.
struct Decoding {
    turns: Semaphore,
    spare: Arc<Spare>,
}

type Batch = (Result<Vec<(BlobId, Bytes)>>, OwnedSemaphorePermit);

/// Runs a plan. Blobs come unordered, each once; the first error ends the stream.
pub(crate) fn run(
    store: Arc<dyn Store>,
    key: [u8; 32],
    plan: FetchPlan,
    limits: FetchLimits,
) -> BoxStream<'static, Result<(BlobId, Bytes)>> {
    let (send, receive) = mpsc::channel::<Batch>(IN_FLIGHT_LIMIT);
    tokio::spawn(tracing::Instrument::in_current_span(drive(
        store, key, plan, limits, send,
    )));
    stream::unfold(receive, |mut receive| async move {
        let (batch, held) = receive.recv().await?;
        let items: Vec<Result<(BlobId, Bytes)>> = match batch {
            Ok(blobs) => blobs.into_iter().map(Ok).collect(),
            Err(e) => {
                receive.close();
                while receive.try_recv().is_ok() {}
                vec![Err(e)]
            }
        };
        // the memory counts as used until the last blob of the range was taken
        let items = stream::iter(items).chain(stream::once(async move { drop(held) }).filter_map(|()| async { None }));
        Some((items, receive))
    })
    .flatten()
    .boxed()
}

/// Starts range reads as memory and `in_flight_max` allow, whether or not the consumer polls just now; ends when the
/// consumer is gone.
async fn drive(store: Arc<dyn Store>, key: [u8; 32], plan: FetchPlan, limits: FetchLimits, send: mpsc::Sender<Batch>) {
    let memory = Arc::new(Semaphore::new(memory_units(&limits) as usize));
    let requests = Arc::new(Semaphore::new(limits.in_flight_max.clamp(1, IN_FLIGHT_LIMIT)));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let decoding = Arc::new(Decoding {
        turns: Semaphore::new(cores),
        spare: Arc::new(Spare::new(limits.memory_bytes_max, RANGE_RAW_BYTES_MAX as usize)),
    });
    let mut tasks = tokio::task::JoinSet::new();
    for range in plan.ranges {
        let units = range.memory_units(&limits);
        let permits = async {
            let held = memory.clone().acquire_many_owned(units).await.ok()?;
            Some((held, requests.clone().acquire_owned().await.ok()?))
        };
        let (held, request) = tokio::select! {
            permits = permits => match permits { Some(permits) => permits, None => break },
            () = send.closed() => break,
        };
        let (store, send, decoding) = (store.clone(), send.clone(), decoding.clone());
        tasks.spawn(async move {
            // a task that dies must not let its blobs be missing in silence
            let batch = match tokio::spawn(async move { read_range(&store, key, range, decoding).await }).await {
                Ok(batch) => batch,
                Err(e) => Err(RepoError::internal("fetch", e)),
            };
            drop(request);
            let _ = send.send((batch, held)).await;
        });
        while tasks.try_join_next().is_some() {}
    }
    tokio::select! {
        () = async { while tasks.join_next().await.is_some() {} } => {}
        () = send.closed() => {}
    }
}
