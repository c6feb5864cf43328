//! Many small segments as few large ones, on this machine alone: every snapshot leaves a segment, so a repository may have
//! a hundred thousand. Opened one by one they would cost a file, a map and a page of memory each.
//!
//! ```text
//! a segment of all records | names of the index objects that it stands for, 32 bytes each | how many (8) | "WINDJOIN"
//! ```
//!
//! Only objects whose bytes match their name are joined: a damaged one stays alone, so that it is told by its name.

use std::collections::HashMap;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream;

use super::segment::{self, Backing, PackSize, Row, Segment};
use super::{IndexName, Loader, load};
use crate::cache::{Kind, RepoCache};
use crate::pack::le_u64;
use crate::{RepoError, Result, io};

/// Segments up to this many bytes are joined.
pub(crate) const SMALL_BYTES_MAX: u64 = 1 << 20;
/// Records of a joined segment, about; it is joined with others until it has half of them.
const JOINED_RECORDS: usize = 300_000;
/// Small segments that may stand alone.
const ALONE_MAX: usize = 64;
/// The same for a local directory, where each is mapped as it is, without a request.
const ALONE_LOCAL_MAX: usize = 4096;
/// Small segments read at once.
pub(crate) const SMALL_LOADS_MAX: usize = 32;
const MAGIC: [u8; 8] = *b"WINDJOIN";
const TAIL_BYTES: u64 = 16;
const NAME_BYTES: usize = 32;

/// What opening many segments came to.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) segments: Vec<Arc<Segment>>,
    /// Objects that can't be opened.
    pub(crate) damaged: Vec<RepoError>,
}

impl Loaded {
    /// Takes what a load gave; an object that was removed since the listing is none.
    fn take(&mut self, loaded: Result<Segment>) -> Result<Option<Arc<Segment>>> {
        match loaded {
            Ok(segment) => Ok(Some(Arc::new(segment))),
            Err(error) if error.kind == crate::Kind::Corrupt => {
                tracing::warn!(%error, "index object left out");
                self.damaged.push(error);
                Ok(None)
            }
            Err(error) if error.kind == crate::Kind::Store(store::Kind::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// True when a segment is worth joining with others.
pub(crate) fn is_small(segment: &Segment) -> bool {
    if segment.is_joined() {
        segment.records() < JOINED_RECORDS / 2
    } else {
        segment.bytes() <= SMALL_BYTES_MAX
    }
}

impl Loader {
    /// How many small segments may stand alone.
    pub(crate) fn alone_max(&self) -> usize {
        let local = io::key("config").is_ok_and(|key| self.store.local_path(&key).is_some());
        if local { ALONE_LOCAL_MAX } else { ALONE_MAX }
    }

    /// Opens joined segments of the cache that stand for nothing but what `listed` names, and takes those names out of it.
    pub(crate) async fn joined(&self, listed: &mut HashMap<IndexName, u64>) -> Result<Vec<Arc<Segment>>> {
        let Some(cache) = self.cache.clone() else {
            return Ok(Vec::new());
        };
        let mut left = std::mem::take(listed);
        let (found, left) = io::blocking("index", move || {
            let mut heads: Vec<(String, Vec<IndexName>)> = cache
                .list(Kind::Joined)
                .into_iter()
                .filter_map(|(name, size)| Some((name.clone(), names_in(&cache, &name, size)?)))
                .collect();
            heads.sort_by_key(|(_, names)| std::cmp::Reverse(names.len()));
            let mut found = Vec::new();
            for (name, names) in heads {
                if names.is_empty() || !names.iter().all(|n| left.contains_key(n)) {
                    continue;
                }
                if let Some(segment) = from_cache(&cache, &name, &names) {
                    names.iter().for_each(|n| {
                        left.remove(n);
                    });
                    found.push(Arc::new(segment));
                }
            }
            Ok((found, left))
        })
        .await?;
        *listed = left;
        Ok(found)
    }

    /// Opens objects one by one.
    pub(crate) async fn one_by_one(&self, objects: Vec<(String, u64)>, loads_max: usize) -> Result<Loaded> {
        let load = |(object, size)| async move { self.load(object, size, true).await };
        let mut loads = stream::iter(objects.into_iter().map(load)).buffer_unordered(loads_max);
        let mut all = Loaded::default();
        while let Some(loaded) = loads.next().await {
            if let Some(segment) = all.take(loaded)? {
                all.segments.push(segment);
            }
        }
        drop(loads);
        Ok(all)
    }

    /// Joins open segments and objects that are small. Those that can't be joined stand alone in what is returned.
    pub(crate) async fn join(&self, open: Vec<Arc<Segment>>, mut small: Vec<(IndexName, u64)>) -> Result<Loaded> {
        let mut all = Loaded::default();
        let mut batch = Batch::default();
        for segment in open {
            if batch.add(&segment) {
                self.seal_when_full(&mut batch, &mut all).await?;
            } else if segment.is_cached() {
                self.drop_cached(&segment);
                small.extend(segment.names().into_iter().map(|name| (name, 0)));
            } else {
                all.segments.push(segment);
            }
        }
        let load = |(name, size): (IndexName, u64)| async move { self.load(name.key(), size, false).await };
        let mut loads = stream::iter(small.into_iter().map(load)).buffer_unordered(SMALL_LOADS_MAX);
        while let Some(loaded) = loads.next().await {
            let Some(segment) = all.take(loaded)? else { continue };
            if segment.check_whole().is_err() || !batch.add(&segment) {
                all.segments.push(segment);
                continue;
            }
            self.seal_when_full(&mut batch, &mut all).await?;
        }
        drop(loads);
        if !batch.names.is_empty() {
            all.segments.push(self.seal(&mut batch).await?);
        }
        Ok(all)
    }

    /// Removes the cache's entry of a segment that turned out to be damaged.
    pub(crate) fn drop_cached(&self, segment: &Segment) {
        let Some(cache) = &self.cache else { return };
        let (kind, name) = match segment.object().strip_prefix(JOINED_OBJECT) {
            Some(name) => (Kind::Joined, name),
            None => (Kind::Segments, segment.object().trim_start_matches("index/")),
        };
        cache.bad(kind, name, "a page of records does not match its checksum");
    }

    async fn seal_when_full(&self, batch: &mut Batch, all: &mut Loaded) -> Result<()> {
        if batch.rows.len() >= JOINED_RECORDS {
            all.segments.push(self.seal(batch).await?);
        }
        Ok(())
    }

    /// Makes a segment of the batch, which is empty then.
    async fn seal(&self, batch: &mut Batch) -> Result<Arc<Segment>> {
        let (cache, taken) = (self.cache.clone(), std::mem::take(batch));
        let (segment, emptied) = io::blocking("index", move || sealed(cache.as_ref(), taken)).await?;
        *batch = emptied;
        Ok(Arc::new(segment))
    }
}

fn sealed(cache: Option<&RepoCache>, mut batch: Batch) -> Result<(Segment, Batch)> {
    let mut names = std::mem::take(&mut batch.names);
    names.sort_unstable();
    let head = batch.head();
    let (pages, tail) = (batch.rows.as_flattened(), tail_of(&names));
    let mut hasher = blake3::Hasher::new();
    [&head, pages, &tail].iter().for_each(|part| {
        hasher.update(part);
    });
    let name = hasher.finalize().to_hex();
    let kept = cache.and_then(|cache| {
        let is_there = cache.put(Kind::Joined, &name, &[&head, pages, &tail]);
        from_cache(cache, &name, &names).filter(|_| is_there)
    });
    let segment = match kept {
        Some(segment) => {
            // what it replaces is of no more use to anybody
            for (kind, old) in batch.from.iter().filter(|(_, old)| **old != *name) {
                cache.inspect(|cache| cache.remove(*kind, old));
            }
            segment
        }
        None => {
            let backing = load::aside(&[&head, pages]);
            let backing = backing.unwrap_or_else(|| Backing::Held([&head, pages].concat().into()));
            Segment::open(object_of(&name), backing)?.standing_for(names)
        }
    };
    // the rows' memory is used again: fresh memory for each would not all go back to the system
    batch.rows.clear();
    batch.from.clear();
    Ok((segment, batch))
}

/// What is being joined.
#[derive(Debug, Default)]
struct Batch {
    packs: HashMap<PackSize, u32>,
    rows: Vec<Row>,
    names: Vec<IndexName>,
    /// Entries of the cache that it makes needless.
    from: Vec<(Kind, String)>,
}

impl Batch {
    /// Puts the rows in order; what stands before them in a segment.
    fn head(&mut self) -> Vec<u8> {
        let mut packs: Vec<(PackSize, u32)> = self.packs.drain().collect();
        packs.sort_unstable();
        let mut numbers = vec![0; packs.len()];
        for (number, (_, old)) in packs.iter().enumerate() {
            numbers[*old as usize] = number as u32;
        }
        self.rows
            .iter_mut()
            .for_each(|row| segment::renumber(row, |old| numbers[old as usize]));
        let packs: Vec<PackSize> = packs.into_iter().map(|(pack, _)| pack).collect();
        segment::encode_head(&packs, &mut self.rows)
    }

    /// Adds a segment's records; false, and nothing is added, when one of them can't be read.
    fn add(&mut self, segment: &Segment) -> bool {
        let before = self.rows.len();
        if self.rows.capacity() == 0 {
            self.rows.reserve(JOINED_RECORDS + JOINED_RECORDS / 8);
        }
        for at in 0..segment.records() as u32 {
            let Some(hit) = segment.get(0, at) else {
                self.rows.truncate(before);
                return false;
            };
            let pack = PackSize {
                name: hit.name,
                bytes: hit.pack_bytes,
            };
            let next = self.packs.len() as u32;
            let number = *self.packs.entry(pack).or_insert(next);
            self.rows.push(segment::row_of(&hit.entry, number));
        }
        let names = segment.names();
        match segment.object().strip_prefix(JOINED_OBJECT) {
            Some(name) => self.from.push((Kind::Joined, name.to_owned())),
            None => self.from.extend(names.iter().map(|n| (Kind::Segments, n.to_hex()))),
        }
        self.names.extend(names);
        true
    }
}

/// How a joined segment is called in messages.
const JOINED_OBJECT: &str = "joined index ";

fn object_of(name: &str) -> String {
    format!("{JOINED_OBJECT}{name}")
}

fn tail_of(names: &[IndexName]) -> Vec<u8> {
    let mut tail: Vec<u8> = names.iter().flat_map(|n| n.0).collect();
    tail.extend_from_slice(&(names.len() as u64).to_le_bytes());
    tail.extend_from_slice(&MAGIC);
    tail
}

/// What an entry stands for; it is not checked here, so it only says whether a look at all of it is worth while.
fn names_in(cache: &RepoCache, name: &str, size_bytes: u64) -> Option<Vec<IndexName>> {
    let read = || {
        let file = cache.peek(Kind::Joined, name)?;
        let mut tail = [0u8; TAIL_BYTES as usize];
        let tail_at = size_bytes.checked_sub(TAIL_BYTES)?;
        file.read_exact_at(&mut tail, tail_at).ok()?;
        let names_at = tail_at.checked_sub(le_u64(&tail).checked_mul(NAME_BYTES as u64)?)?;
        let mut names = vec![0u8; usize::try_from(tail_at - names_at).ok()?];
        file.read_exact_at(&mut names, names_at).ok()?;
        let name = |bytes: &[u8]| bytes.try_into().map(crate::id::ObjectName).ok();
        (tail[8..] == MAGIC).then(|| names.chunks_exact(NAME_BYTES).filter_map(name).collect())
    };
    let names = read();
    if names.is_none() {
        cache.bad(Kind::Joined, name, "it has no end");
    }
    names
}

fn from_cache(cache: &RepoCache, name: &str, names: &[IndexName]) -> Option<Segment> {
    let file = cache.open_checked(Kind::Joined, name)?;
    let Ok(Backing::Mapped(map)) = load::map(&file) else {
        return None;
    };
    let length = map.len().checked_sub(tail_of(names).len())?;
    let segment = Segment::open(object_of(name), Backing::Part(map, length)).ok()?;
    Some(segment.of_cache().standing_for(names.to_vec()))
}
