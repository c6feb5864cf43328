//! `/v1/blob/<id>`: bytes that no message carries, straight out of the repository, checked chunk by chunk.
//!
//! ```text
//! <snapshot>.disk.<name>      a disk's content at that time, raw
//! <snapshot>.definition       the file that defines the VM, as it was given
//! ```
//!
//! A blob never changes, so its tag is made from the names of its content. Memory: some windows of [`WINDOW_BYTES`], of which
//! the caller takes one while the next are fetched; a caller who takes nothing makes everything wait, and then ends.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::StreamExt;
use repo::manifest::{self, LEAF_SPAN_BYTES};
use repo::{BlobId, ChunkRef, FetchLimits, ManifestRef, Repo, SnapshotDoc};
use runtime::Slot;
use tokio::sync::mpsc;
use wire::{Code, ErrorBody};

/// Bytes of a disk that are fetched at once.
const WINDOW_BYTES: u64 = 2 * LEAF_SPAN_BYTES;
/// Windows that wait for the caller.
const WINDOWS_AHEAD: usize = 1;
/// Zeros are given in pieces of so many bytes.
static ZEROS: [u8; 256 << 10] = [0; 256 << 10];

/// What an id names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BlobName {
    Disk { snapshot: String, disk: String },
    Definition { snapshot: String },
}

impl BlobName {
    pub(super) fn parse(id: &str) -> Result<Self, ErrorBody> {
        let whole = |snapshot: &str| {
            let fits = snapshot.len() == 26 && snapshot.bytes().all(|b| b.is_ascii_alphanumeric());
            fits.then(|| snapshot.to_owned())
        };
        let (snapshot, what) = id.split_once('.').unwrap_or_default();
        let name = match (whole(snapshot), what.split_once('.')) {
            (Some(snapshot), None) if what == "definition" => Some(Self::Definition { snapshot }),
            (Some(snapshot), Some(("disk", disk))) if !disk.is_empty() => Some(Self::Disk {
                snapshot,
                disk: disk.to_owned(),
            }),
            _ => None,
        };
        name.ok_or_else(|| {
            ErrorBody::new(Code::Invalid, "no blob has such an id")
                .hint("SNAPSHOT.disk.NAME or SNAPSHOT.definition, with the snapshot's whole id: windlass snapshot ls")
        })
    }
    fn snapshot(&self) -> &str {
        match self {
            Self::Disk { snapshot, .. } | Self::Definition { snapshot } => snapshot,
        }
    }
}

/// Where a blob's bytes are.
#[derive(Debug, Clone)]
enum Content {
    Disk(ManifestRef),
    Held(Bytes),
}

/// A blob that was found.
#[derive(Debug, Clone)]
pub(super) struct Blob {
    repo: Repo,
    content: Content,
    pub(super) size_bytes: u64,
    /// Changes with the content, without quotes.
    pub(super) tag: String,
}

impl Blob {
    /// Finds it.
    pub(super) async fn find(repo: Repo, name: &BlobName) -> Result<Self, ErrorBody> {
        let doc = repo.snapshot(name.snapshot()).await?;
        match name {
            BlobName::Disk { disk, .. } => {
                let entry = doc.disk(disk).ok_or_else(|| absent(&doc, &format!("disk {disk}")))?;
                let manifest = entry.manifest;
                let root = manifest
                    .root
                    .map_or_else(|| "zeros".to_owned(), |root| root.to_string());
                Ok(Self {
                    repo,
                    content: Content::Disk(manifest),
                    size_bytes: manifest.size_bytes,
                    tag: format!("{root}-{}", manifest.size_bytes),
                })
            }
            BlobName::Definition { .. } => {
                let definition = doc.definition.ok_or_else(|| absent(&doc, "definition"))?;
                // at most 16 MiB: the largest blob there is
                let bytes = repo.read(&definition.id).await?;
                Ok(Self {
                    repo,
                    size_bytes: bytes.len() as u64,
                    content: Content::Held(bytes),
                    tag: definition.id.to_string(),
                })
            }
        }
    }

    /// Its bytes in pieces, in order. An error ends them: the caller then has fewer than were promised.
    pub(super) fn stream(self, range: Range<u64>, sent: Arc<AtomicU64>, slot: Slot) -> Pieces {
        let (send, pieces) = mpsc::channel(WINDOWS_AHEAD);
        tokio::spawn(async move {
            let result = match &self.content {
                Content::Held(bytes) => {
                    let part = bytes.slice(range.start as usize..range.end as usize);
                    send.send(Ok(vec![part])).await.map_err(|_| None)
                }
                Content::Disk(manifest) => self.disk(*manifest, range, &send).await,
            };
            if let Err(Some(error)) = result {
                tracing::warn!(%error, "a blob was not given whole");
                let _caller_gone = send.send(Err(std::io::Error::other(error.to_string()))).await;
            }
        });
        Pieces {
            pieces,
            sent,
            _slot: slot,
        }
    }

    /// `Err(None)`: the caller has gone.
    async fn disk(&self, manifest: ManifestRef, range: Range<u64>, send: &Send) -> Result<(), Option<repo::RepoError>> {
        let mut leaves = manifest::leaves(Arc::new(self.repo.clone()), manifest, range.clone());
        let (mut at, mut window) = (range.start, Vec::<ChunkRef>::new());
        while let Some(leaf) = leaves.next().await {
            let leaf = leaf.map_err(Some)?;
            let inside = |c: &ChunkRef| c.offset < range.end && c.offset + u64::from(c.len) > range.start;
            window.extend(leaf.chunks.into_iter().filter(inside));
            let end = ((leaf.index + 1) * LEAF_SPAN_BYTES).min(range.end);
            let held: u64 = window.iter().map(|c| u64::from(c.len)).sum();
            if held + LEAF_SPAN_BYTES > WINDOW_BYTES {
                self.window(&std::mem::take(&mut window), at..end, send).await?;
                at = end;
            }
        }
        self.window(&window, at..range.end, send).await
    }

    /// Gives the bytes of `range`: chunks where there are some, zeros elsewhere.
    async fn window(&self, chunks: &[ChunkRef], range: Range<u64>, send: &Send) -> Result<(), Option<repo::RepoError>> {
        let limits = FetchLimits {
            memory_bytes_max: 2 * WINDOW_BYTES,
            ..FetchLimits::default()
        };
        let ids: Vec<BlobId> = chunks.iter().map(|c| c.id).collect();
        let mut found = std::collections::HashMap::new();
        let mut blobs = self
            .repo
            .fetch(self.repo.plan_fetch(&ids, &limits).map_err(Some)?, &limits);
        while let Some(blob) = blobs.next().await {
            let (id, bytes) = blob.map_err(Some)?;
            found.insert(id, bytes);
        }
        let (mut at, mut pieces) = (range.start, Vec::new());
        for chunk in chunks {
            let bytes = found.get(&chunk.id).filter(|bytes| bytes.len() == chunk.len as usize);
            let bytes = bytes.ok_or_else(|| {
                let why = "has another length than the manifest says";
                Some(repo::RepoError::corrupt(format!("blob {}", chunk.id), why))
            })?;
            let (from, end) = (
                chunk.offset.max(at),
                (chunk.offset + u64::from(chunk.len)).min(range.end),
            );
            zeros(at..from, send, &mut pieces).await?;
            pieces.push(bytes.slice((from - chunk.offset) as usize..(end - chunk.offset) as usize));
            at = end;
        }
        zeros(at..range.end, send, &mut pieces).await?;
        send.send(Ok(pieces)).await.map_err(|_| None)
    }
}

type Send = mpsc::Sender<std::io::Result<Vec<Bytes>>>;

/// Adds zeros; long runs are given at once, so that a list of pieces stays short.
async fn zeros(range: Range<u64>, send: &Send, pieces: &mut Vec<Bytes>) -> Result<(), Option<repo::RepoError>> {
    let mut left = range.end.saturating_sub(range.start);
    while left > 0 {
        let part = left.min(ZEROS.len() as u64);
        pieces.push(Bytes::from_static(&ZEROS[..part as usize]));
        left -= part;
        if pieces.len() >= 1024 {
            send.send(Ok(std::mem::take(pieces))).await.map_err(|_| None)?;
        }
    }
    Ok(())
}

fn absent(doc: &SnapshotDoc, what: &str) -> ErrorBody {
    ErrorBody::new(Code::NotFound, format!("snapshot {} has no {what}", doc.id))
        .hint(format!("windlass snapshot show {}", doc.id))
}

/// The pieces of a blob as they come.
pub(super) struct Pieces {
    pieces: mpsc::Receiver<std::io::Result<Vec<Bytes>>>,
    sent: Arc<AtomicU64>,
    _slot: Slot,
}

impl Pieces {
    /// As a body.
    pub(super) fn into_body(self) -> axum::body::Body {
        let pieces = futures::stream::unfold((self, Vec::new().into_iter()), |(mut all, mut some)| async move {
            loop {
                if let Some(piece) = some.next() {
                    let piece: Bytes = piece;
                    all.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
                    return Some((Ok(piece), (all, some)));
                }
                match all.pieces.recv().await? {
                    Ok(more) => some = more.into_iter(),
                    Err(error) => return Some((Err(error), (all, some))),
                }
            }
        });
        axum::body::Body::from_stream(pieces)
    }
}

/// What a `Range` header asks of `size_bytes`: `Ok(None)` for all of it, also when it asks for something that we needn't
/// understand (RFC 9110, section 14.2); `Err` when it asks for nothing that is there.
pub(super) fn wanted(header: Option<&str>, size_bytes: u64) -> Result<Option<Range<u64>>, ()> {
    let Some(spec) = header.and_then(|h| h.strip_prefix("bytes=")) else {
        return Ok(None);
    };
    let Some((first, last)) = spec.trim().split_once('-').filter(|_| !spec.contains(',')) else {
        return Ok(None);
    };
    let number = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| text.parse::<u64>().ok())
            .flatten()
    };
    let range = match (first.is_empty(), last.is_empty()) {
        (true, true) => return Ok(None),
        (true, false) => {
            let Some(length) = number(last) else { return Ok(None) };
            size_bytes.saturating_sub(length)..size_bytes
        }
        (false, open) => {
            let Some(first) = number(first) else { return Ok(None) };
            let last = if open {
                u64::MAX
            } else {
                number(last).unwrap_or(u64::MAX)
            };
            if last < first {
                return Ok(None);
            }
            first..last.saturating_add(1).min(size_bytes)
        }
    };
    if range.start >= range.end {
        Err(())
    } else {
        Ok(Some(range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        for (header, wanted_range) in [
            (None, Ok(None)),
            (Some("bytes=0-0"), Ok(Some(0..1))),
            (Some("bytes=10-"), Ok(Some(10..100))),
            (Some("bytes=-10"), Ok(Some(90..100))),
            (Some("bytes=-1000"), Ok(Some(0..100))),
            (Some("bytes=90-1000"), Ok(Some(90..100))),
            (Some("bytes=100-"), Err(())),
            (Some("bytes=-0"), Err(())),
            (Some("bytes=5-4"), Ok(None)),
            (Some("bytes=0-1,5-6"), Ok(None)),
            (Some("bytes=a-b"), Ok(None)),
            (Some("items=0-1"), Ok(None)),
            (Some("bytes=99999999999999999999-"), Ok(None)),
        ] {
            assert_eq!(wanted(header, 100), wanted_range, "{header:?}");
        }
        assert_eq!(wanted(Some("bytes=0-"), 0), Err(()));
    }

    #[test]
    fn ids_name_disks_and_definitions() {
        let id = "01JCXQ6Y9D3W6V3S1W8Y5Z4K2M";
        let disk = BlobName::Disk {
            snapshot: id.into(),
            disk: "data.1".into(),
        };
        assert_eq!(BlobName::parse(&format!("{id}.disk.data.1")).unwrap(), disk);
        let definition = BlobName::Definition { snapshot: id.into() };
        assert_eq!(BlobName::parse(&format!("{id}.definition")).unwrap(), definition);
        for bad in [
            "",
            "x",
            id,
            "x.definition",
            &format!("{id}.disk."),
            &format!("{id}.other"),
            "../../etc.disk.x",
        ] {
            assert_eq!(BlobName::parse(bad).unwrap_err().code, Code::Invalid, "{bad}");
        }
    }
}
