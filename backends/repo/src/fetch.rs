//! Reading many blobs with few requests: ranges of packs, coalesced, many in flight, bounded in memory. They come as they are
//! stored, and are opened where they are needed: raw bytes are several times as many.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use store::Store;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::blob::{Compression, decompress, decompress_into};
use crate::index::Hit;
use crate::pack::{Entry, PackName};
use crate::{BlobId, RepoError, Result, io};

/// Most range reads at once.
pub const IN_FLIGHT_LIMIT: usize = 32;
/// Blobs that are opened in one go where many are wanted opened.
const OPENED_AT_ONCE: usize = 32;
/// Unit in which memory is accounted.
const MEMORY_UNIT_BYTES: u64 = 4 << 10;

/// Limits of a fetch.
#[derive(Debug, Clone)]
pub struct FetchLimits {
    /// Range reads at once; 1 to [`IN_FLIGHT_LIMIT`].
    pub in_flight_max: usize,
    /// Stored bytes held in memory until they are taken.
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
    /// The place of its first wanted blob among all that are wanted.
    turn: usize,
    pub(crate) entries: Vec<Entry>,
}

impl FetchRange {
    fn memory_units(&self, limits: &FetchLimits) -> u32 {
        let units = (self.end - self.start).div_ceil(MEMORY_UNIT_BYTES);
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
    /// Coalesces; each id once. Ranges are read in the order in which something of them is wanted first: who asks in the order of a disk
    /// gets what is close together there at about the same time.
    pub(crate) fn new(hits: Vec<(PackName, Entry)>, limits: &FetchLimits) -> Self {
        let mut hits: Vec<_> = hits.into_iter().enumerate().collect();
        hits.sort_unstable_by_key(|(turn, (pack, entry))| (*pack, entry.offset, entry.id, *turn));
        hits.dedup_by(|next, kept| next.1.1.id == kept.1.1.id);
        let mut ranges: Vec<FetchRange> = Vec::new();
        for (turn, (pack, entry)) in hits {
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
                    && length <= limits.range_bytes_max;
                if fits {
                    last.end = last.end.max(end);
                    last.raw += raw;
                    last.useful += useful;
                    last.turn = last.turn.min(turn);
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
                turn,
                entries: vec![entry],
            });
        }
        ranges.sort_unstable_by_key(|range| range.turn);
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

/// A blob as it came from the store: neither opened nor checked.
#[derive(Debug, Clone)]
pub struct Stored {
    source: Arc<Source>,
    entry: Entry,
    bytes: Bytes,
}

/// What the blobs of a range have in common.
#[derive(Debug)]
struct Source {
    key: [u8; 32],
    pack: PackName,
}

impl Stored {
    /// The id that it should have.
    pub fn id(&self) -> BlobId {
        self.entry.id
    }
    /// How many raw bytes it should have.
    pub fn raw_len(&self) -> usize {
        self.entry.raw as usize
    }
    /// Its raw bytes into all of `place`, and checked there against its id.
    ///
    /// # Errors
    /// `Corrupt`, naming pack and place; `place` may hold anything then.
    pub fn open_to(&self, place: &mut [u8]) -> Result<()> {
        let (entry, fail) = (&self.entry, |why: String| damaged(&self.source.pack, &self.entry, &why));
        decompress_into(entry.compression, &self.bytes, place).map_err(fail)?;
        matches_id(&self.source.key, entry, place).map_err(fail)
    }
    /// Its raw bytes, checked against its id: in `memory`, which grows as needed, or where they came, if they are stored raw.
    ///
    /// # Errors
    /// `Corrupt`, naming pack and place.
    pub fn open_in<'a>(&'a self, memory: &'a mut Vec<u8>) -> Result<&'a [u8]> {
        let (entry, fail) = (&self.entry, |why: String| damaged(&self.source.pack, &self.entry, &why));
        let len = entry.raw as usize;
        let raw = match entry.compression {
            Compression::None if self.bytes.len() == len => &self.bytes[..],
            compression => {
                if memory.len() < len {
                    memory.resize(len, 0);
                }
                decompress_into(compression, &self.bytes, &mut memory[..len]).map_err(fail)?;
                &memory[..len]
            }
        };
        matches_id(&self.source.key, entry, raw).map_err(fail)?;
        Ok(raw)
    }
    /// Its raw bytes, checked against its id, in memory of their own.
    ///
    /// # Errors
    /// As [`Stored::open_in`].
    pub fn open(&self) -> Result<Bytes> {
        open_blob(&self.source.key, &self.source.pack, &self.entry, self.bytes.clone())
    }
}

/// Reads one range.
async fn read_range(store: &Arc<dyn Store>, key: [u8; 32], range: FetchRange) -> Result<Vec<Stored>> {
    let stored = io::get_range(store, &range.pack.key(), range.start..range.end)
        .await
        .map_err(|e| RepoError::of_referenced(e).at(range.start))?;
    let source = Arc::new(Source { key, pack: range.pack });
    let blob = |entry: Entry| {
        let from = (u64::from(entry.offset) - range.start) as usize;
        Stored {
            source: source.clone(),
            bytes: stored.slice(from..from + entry.stored as usize),
            entry,
        }
    };
    Ok(range.entries.into_iter().map(blob).collect())
}

type Batch = (Result<Vec<Stored>>, OwnedSemaphorePermit);

/// As [`run`], each blob opened and checked, off the async threads.
pub(crate) fn run_opened(
    store: Arc<dyn Store>,
    key: [u8; 32],
    plan: FetchPlan,
    limits: FetchLimits,
) -> BoxStream<'static, Result<(BlobId, Bytes)>> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let open = |batch: Vec<Result<Stored>>| {
        io::blocking("fetch", move || {
            let open = |stored: Result<Stored>| stored.and_then(|s| Ok((s.id(), s.open()?)));
            Ok(batch.into_iter().map(open).collect::<Vec<_>>())
        })
    };
    run(store, key, plan, limits)
        .ready_chunks(OPENED_AT_ONCE)
        .map(open)
        .buffered(cores)
        .flat_map(|opened| stream::iter(opened.unwrap_or_else(|e| vec![Err(e)])))
        // the first error is the last item
        .scan(false, |failed, blob| {
            let ended = std::mem::replace(failed, blob.is_err() || *failed);
            async move { (!ended).then_some(blob) }
        })
        .boxed()
}

/// Runs a plan. Blobs come unordered, each once; the first error ends the stream.
pub(crate) fn run(
    store: Arc<dyn Store>,
    key: [u8; 32],
    plan: FetchPlan,
    limits: FetchLimits,
) -> BoxStream<'static, Result<Stored>> {
    let (send, receive) = mpsc::channel::<Batch>(IN_FLIGHT_LIMIT);
    tokio::spawn(tracing::Instrument::in_current_span(drive(
        store, key, plan, limits, send,
    )));
    stream::unfold(receive, |mut receive| async move {
        let (batch, held) = receive.recv().await?;
        let items: Vec<Result<Stored>> = match batch {
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
        let (store, send) = (store.clone(), send.clone());
        tasks.spawn(async move {
            // a task that dies must not let its blobs be missing in silence
            let batch = match tokio::spawn(async move { read_range(&store, key, range).await }).await {
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
