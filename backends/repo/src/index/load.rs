//! Bringing index segments from the cache or the store, and writing them.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use memmap2::Mmap;
use store::Store;

use super::IndexName;
use super::segment::{self, Backing, PackSize, SEGMENT_BYTES_MAX, Segment};
use crate::cache::{self, RepoCache};
use crate::io::{self, key};
use crate::pack::Entry;
use crate::{RepoError, Result};

/// A segment of a store that is no local directory is held in memory up to this many bytes, beyond in a file.
const HELD_BYTES_MAX: usize = 64 << 10;

/// Large segments read at once.
pub(crate) const ALONE_LOADS_MAX: usize = 8;

/// Key of the segment with these bytes.
fn segment_key(bytes: &[u8]) -> String {
    format!("index/{}", blake3::hash(bytes).to_hex())
}

/// Writes a segment of what `packs` hold, durable when this returns, and opens it.
pub(crate) async fn write_segment(loader: &Loader, packs: Vec<(PackSize, Vec<Entry>)>) -> Result<Segment> {
    let (object, bytes) = tokio::task::spawn_blocking(move || {
        let bytes = Bytes::from(segment::encode(packs));
        (segment_key(&bytes), bytes)
    })
    .await
    .map_err(|e| RepoError::internal("index", e))?;
    io::put(&loader.store, &object, bytes.clone()).await?;
    loader.open(object, Some(bytes), true).await
}

/// Where segments come from.
#[derive(Debug, Clone)]
pub(crate) struct Loader {
    pub(crate) store: Arc<dyn Store>,
    /// `None` for a local directory: it is mapped itself.
    pub(crate) cache: Option<RepoCache>,
}

impl Loader {
    /// Opens the segment `object`, mapped when it is a local file; what came from the store is kept in the cache when `keep`
    /// says so.
    pub(crate) async fn load(&self, object: String, size_bytes: u64, keep: bool) -> Result<Segment> {
        if size_bytes > SEGMENT_BYTES_MAX {
            return Err(RepoError::corrupt(
                object,
                format!("an index segment of {size_bytes} bytes"),
            ));
        }
        if let (Some(cache), Some(name)) = (self.cache.clone(), IndexName::from_key(&object)) {
            let cached = io::blocking("index", move || Ok(from_cache(&cache, &name))).await?;
            if let Some(segment) = cached {
                return Ok(segment);
            }
        }
        self.open(object, None, keep).await
    }

    async fn open(&self, object: String, bytes: Option<Bytes>, keep: bool) -> Result<Segment> {
        let local = self.store.local_path(&key(&object)?);
        let bytes = match (&local, bytes) {
            (Some(_), _) => None,
            (None, Some(bytes)) => Some(bytes),
            (None, None) => Some(
                io::get(&self.store, &object, SEGMENT_BYTES_MAX)
                    .await
                    .map_err(RepoError::of_referenced)?,
            ),
        };
        let cache = self.cache.clone().filter(|_| keep);
        tokio::task::spawn_blocking(move || match (local, bytes) {
            (Some(path), _) => {
                let named = object.clone();
                let failed = move |e: std::io::Error| fault(&named, &e);
                let backing = map(&File::open(path).map_err(&failed)?).map_err(&failed)?;
                Segment::open(object, backing)
            }
            (None, bytes) => fetched(cache.as_ref(), object, bytes.unwrap_or_default()),
        })
        .await
        .map_err(|e| RepoError::internal("index", e))?
    }
}

fn fault(object: &str, error: &std::io::Error) -> RepoError {
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => store::Kind::NotFound,
        std::io::ErrorKind::PermissionDenied => store::Kind::Denied,
        std::io::ErrorKind::StorageFull => store::Kind::Full,
        _ => store::Kind::Other,
    };
    RepoError::from(store::StoreError::new(kind, "map", object, error))
}

/// The segment of that name as the cache has it, all of it checked.
fn from_cache(cache: &RepoCache, name: &IndexName) -> Option<Segment> {
    let file = cache.open_checked(cache::Kind::Segments, &name.to_hex())?;
    let backing = match map(&file).ok()? {
        // a map of its own for each of many small ones would be dear
        Backing::Mapped(map) if map.len() <= HELD_BYTES_MAX => Backing::Held(Bytes::copy_from_slice(&map)),
        backing => backing,
    };
    // its bytes have their name: when they can't be read, no cache is to blame, and the store's copy will tell
    Some(Segment::open(name.key(), backing).ok()?.of_cache())
}

/// A segment whose bytes came from the store.
fn fetched(cache: Option<&RepoCache>, object: String, bytes: Bytes) -> Result<Segment> {
    let name = IndexName::from_key(&object).filter(|name| segment_key(&bytes) == name.key());
    if let (Some(cache), Some(name)) = (cache, name)
        && cache.put(cache::Kind::Segments, &name.to_hex(), &[&bytes])
        && bytes.len() > HELD_BYTES_MAX
        && let Some(file) = cache.open(cache::Kind::Segments, &name.to_hex())
        && let Ok(backing) = map(&file)
    {
        return Ok(Segment::open(object, backing)?.of_cache());
    }
    let backing = if bytes.len() > HELD_BYTES_MAX {
        aside(&[&bytes]).unwrap_or(Backing::Held(bytes))
    } else {
        Backing::Held(bytes)
    };
    Segment::open(object, backing)
}

/// Bytes in an unnamed file, mapped; `None` when the system gives none.
pub(super) fn aside(parts: &[&[u8]]) -> Option<Backing> {
    let written = tempfile::tempfile().and_then(|mut file| {
        for part in parts {
            file.write_all(part)?;
        }
        map(&file)
    });
    written.ok()
}

pub(super) fn map(file: &File) -> std::io::Result<Backing> {
    if file.metadata()?.len() == 0 {
        return Ok(Backing::Held(Bytes::new()));
    }
    // SAFETY: the file is an object of the repository or an entry of the cache, which nobody changes or shortens once it is
    // visible (removal only unlinks it), or an unnamed file that this process alone has.
    let map = unsafe { Mmap::map(file)? };
    Ok(Backing::Mapped(map))
}
