//! Making the index anew from the packs' trailers.

use futures::StreamExt;
use futures::stream;

use super::Repo;
use crate::index::{PackSize, write_segment};
use crate::pack::{self, Entry, FOOTER_BYTES, PACK_READ_BYTES_MAX, PackName};
use crate::{RepoError, Result, io};

/// Trailers read at once.
const TRAILER_LOADS_MAX: usize = 16;
/// Entries of one new segment, about.
const SEGMENT_ENTRIES: usize = 800_000;

impl Repo {
    /// Writes a new index from what all packs say that they hold, then removes the old index objects. Packs whose
    /// trailer is damaged are told in the log and left out. Returns how many blobs were found. A session of another
    /// process that ends meanwhile loses nothing: its segment is not among those removed.
    ///
    /// # Errors
    /// The store's; then the old index is still there.
    pub async fn rebuild_index(&self) -> Result<u64> {
        let mut old = Vec::new();
        io::list(self.store(), "index/", |meta| old.push(meta.key.as_str().to_owned())).await?;
        let mut packs = Vec::new();
        io::list(self.store(), "packs/", |meta| {
            if let Some(name) = PackName::from_key(meta.key.as_str()) {
                packs.push(PackSize {
                    name,
                    bytes: meta.size_bytes,
                });
            }
        })
        .await?;
        packs.sort_unstable();
        let mut trailers = stream::iter(
            packs
                .into_iter()
                .map(|pack| async move { (pack, self.trailer(&pack).await) }),
        )
        .buffered(TRAILER_LOADS_MAX);
        let (mut found, mut pending, mut pending_entries, mut written) = (0, Vec::new(), 0, Vec::new());
        while let Some((pack, entries)) = trailers.next().await {
            let entries: Vec<Entry> = match entries {
                Ok(entries) => entries,
                Err(error) if error.kind == crate::Kind::Corrupt => {
                    tracing::warn!(%error, "pack left out of the new index");
                    continue;
                }
                Err(error) => return Err(error),
            };
            found += entries.len() as u64;
            pending_entries += entries.len();
            pending.push((pack, entries));
            if pending_entries >= SEGMENT_ENTRIES {
                pending_entries = 0;
                written.push(write_segment(&self.loader(), std::mem::take(&mut pending)).await?);
            }
        }
        drop(trailers);
        if !pending.is_empty() {
            written.push(write_segment(&self.loader(), pending).await?);
        }
        // a new segment with the same bytes as an old one has its name
        old.retain(|object| !written.iter().any(|segment| segment.object() == object));
        io::delete(self.store(), &old).await?;
        self.refresh_index().await?;
        Ok(found)
    }

    async fn trailer(&self, pack: &PackSize) -> Result<Vec<Entry>> {
        let object = pack.name.key();
        let footer_at = pack
            .bytes
            .checked_sub(FOOTER_BYTES as u64)
            .ok_or_else(|| RepoError::corrupt(object.clone(), format!("has only {} bytes", pack.bytes)))?;
        let read = |start: u64| {
            let object = object.clone();
            async move {
                io::get_range(self.store(), &object, start..pack.bytes)
                    .await
                    .map_err(RepoError::of_referenced)
            }
        };
        let footer = read(footer_at).await?;
        let length = match pack::trailer_bytes(&object, &footer, pack.bytes) {
            // a newer version, or a damaged byte: the pack's name tells
            Err(error) if matches!(error.kind, crate::Kind::TooNew { .. }) => {
                let whole = io::get(self.store(), &object, PACK_READ_BYTES_MAX)
                    .await
                    .map_err(RepoError::of_referenced)?;
                return pack::decode_whole(&pack.name, &whole);
            }
            length => length?,
        };
        let trailer = read(pack.bytes - length).await?;
        pack::decode_trailer(&object, &trailer, pack.bytes)
    }
}
