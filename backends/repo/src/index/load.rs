//! Bringing index segments from the store, and writing them.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use memmap2::Mmap;
use store::Store;

use super::segment::{self, Backing, PackSize, SEGMENT_BYTES_MAX, Segment};
use crate::io::{self, key};
use crate::pack::Entry;
use crate::{RepoError, Result};

/// A segment of a store that is no local directory is held in memory up to this many bytes, beyond in an unnamed file.
const HELD_BYTES_MAX: usize = 4 << 20;

/// Key of the segment with these bytes.
fn segment_key(bytes: &[u8]) -> String {
    format!("index/{}", blake3::hash(bytes).to_hex())
}

/// Writes a segment of what `packs` hold, durable when this returns, and opens it.
pub(crate) async fn write_segment(store: &Arc<dyn Store>, packs: Vec<(PackSize, Vec<Entry>)>) -> Result<Segment> {
    let (object, bytes) = tokio::task::spawn_blocking(move || {
        let bytes = Bytes::from(segment::encode(packs));
        (segment_key(&bytes), bytes)
    })
    .await
    .map_err(|e| RepoError::internal("index", e))?;
    io::put(store, &object, bytes.clone()).await?;
    open(store, object, Some(bytes)).await
}

/// Opens the segment `object`, mapped when the store is a local directory.
pub(crate) async fn load_segment(store: &Arc<dyn Store>, object: String, size_bytes: u64) -> Result<Segment> {
    if size_bytes > SEGMENT_BYTES_MAX {
        return Err(RepoError::corrupt(
            object,
            format!("an index segment of {size_bytes} bytes"),
        ));
    }
    open(store, object, None).await
}

async fn open(store: &Arc<dyn Store>, object: String, bytes: Option<Bytes>) -> Result<Segment> {
    let local = store.local_path(&key(&object)?);
    let bytes = match (&local, bytes) {
        (Some(_), _) => None,
        (None, Some(bytes)) => Some(bytes),
        (None, None) => Some(
            io::get(store, &object, SEGMENT_BYTES_MAX)
                .await
                .map_err(RepoError::of_referenced)?,
        ),
    };
    tokio::task::spawn_blocking(move || {
        let named = object.clone();
        let failed = move |e: std::io::Error| {
            let kind = match e.kind() {
                std::io::ErrorKind::NotFound => store::Kind::NotFound,
                std::io::ErrorKind::PermissionDenied => store::Kind::Denied,
                std::io::ErrorKind::StorageFull => store::Kind::Full,
                _ => store::Kind::Other,
            };
            RepoError::from(store::StoreError::new(kind, "map", named.clone(), e))
        };
        let backing = match (local, bytes) {
            (Some(path), _) => map(&std::fs::File::open(path).map_err(&failed)?).map_err(&failed)?,
            (None, Some(bytes)) if bytes.len() > HELD_BYTES_MAX => {
                let mut file = tempfile::tempfile().map_err(&failed)?;
                file.write_all(&bytes).map_err(&failed)?;
                map(&file).map_err(&failed)?
            }
            (None, bytes) => Backing::Held(bytes.unwrap_or_default()),
        };
        Segment::open(object, backing)
    })
    .await
    .map_err(|e| RepoError::internal("index", e))?
}

fn map(file: &std::fs::File) -> std::io::Result<Backing> {
    if file.metadata()?.len() == 0 {
        return Ok(Backing::Held(Bytes::new()));
    }
    // SAFETY: the file is an object of the repository, which nobody changes or shortens once its PUT made it visible
    // (removal only unlinks it), or an unnamed file that this process alone has.
    let map = unsafe { Mmap::map(file)? };
    Ok(Backing::Mapped(map))
}
