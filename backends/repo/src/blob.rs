//! Blobs: what is stored, and the trait that takes them in.

use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use crate::id::IdMap;
use crate::manifest::NodeSource;
use crate::{BlobId, Repo, RepoError, Result};

/// Longest blob before compression, in bytes (a VM's definition may have that much).
pub const BLOB_RAW_BYTES_MAX: usize = 16 << 20;

/// What a blob is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlobKind {
    /// A chunk of a disk.
    Data,
    /// A node of a manifest.
    Node,
    /// A VM's definition.
    Definition,
}

impl BlobKind {
    pub(crate) fn code(self) -> u8 {
        match self {
            BlobKind::Data => 1,
            BlobKind::Node => 2,
            BlobKind::Definition => 3,
        }
    }
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(BlobKind::Data),
            2 => Some(BlobKind::Node),
            3 => Some(BlobKind::Definition),
            _ => None,
        }
    }
}

/// What a put did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The blob was there, in the repository or earlier in this session.
    Known,
    /// It was added.
    New {
        /// Its bytes as stored.
        stored_bytes: u32,
    },
}

/// Takes blobs in. Called from many CPU threads at once; blocks while the store lags behind, so never call it from an
/// async task's thread.
pub trait BlobSink: Send + Sync {
    /// The id that `raw` has in this repository.
    fn id_of(&self, raw: &[u8]) -> BlobId;
    /// True when the blob is in the repository or in this session; the pack in which it stands is then held to be
    /// referred to.
    fn known(&self, id: &BlobId) -> bool;
    /// Adds a blob unless it is known. `id` must be `id_of(raw)`.
    ///
    /// # Errors
    /// `Kind::Invalid` for a blob that is empty or too large; otherwise the first error of the session, which has failed.
    fn put(&self, kind: BlobKind, id: &BlobId, raw: &[u8]) -> Result<Put>;
}

/// How the stored bytes of a blob came from its raw bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Zstd,
}

impl Compression {
    pub(crate) fn code(self) -> u8 {
        match self {
            Compression::None => 0,
            Compression::Zstd => 1,
        }
    }
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Compression::None),
            1 => Some(Compression::Zstd),
            _ => None,
        }
    }
}

struct Squeezer {
    level: i32,
    compressor: zstd::bulk::Compressor<'static>,
    out: Vec<u8>,
}

thread_local! {
    static SQUEEZER: RefCell<Option<Squeezer>> = const { RefCell::new(None) };
    static INFLATER: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Compresses `raw` with this thread's compressor and lends what is to be stored to `with`: the compressed bytes, or
/// `raw` itself when compression saves less than 1/32.
pub(crate) fn compress<R>(raw: &[u8], level: i32, with: impl FnOnce(Compression, &[u8]) -> R) -> Result<R> {
    SQUEEZER.with_borrow_mut(|slot| {
        let fail = |e: std::io::Error| RepoError::internal("zstd", e);
        let squeezer = match slot {
            Some(s) if s.level == level => s,
            _ => slot.insert(Squeezer {
                level,
                compressor: zstd::bulk::Compressor::new(level).map_err(fail)?,
                out: Vec::new(),
            }),
        };
        let bound = zstd::zstd_safe::compress_bound(raw.len());
        squeezer.out.clear();
        squeezer.out.reserve(bound);
        let n = squeezer
            .compressor
            .compress_to_buffer(raw, &mut squeezer.out)
            .map_err(fail)?;
        if n < raw.len() - raw.len() / 32 {
            Ok(with(Compression::Zstd, &squeezer.out[..n]))
        } else {
            Ok(with(Compression::None, raw))
        }
    })
}

/// The raw bytes of a blob, or why they can't be had. `raw_len` was checked against [`BLOB_RAW_BYTES_MAX`] by whoever
/// decoded it.
pub(crate) fn decompress(
    compression: Compression,
    stored: &[u8],
    raw_len: usize,
) -> std::result::Result<Vec<u8>, String> {
    let mut raw = vec![0; raw_len];
    decompress_into(compression, stored, &mut raw)?;
    Ok(raw)
}

/// As [`decompress`], into all of `raw`.
pub(crate) fn decompress_into(
    compression: Compression,
    stored: &[u8],
    raw: &mut [u8],
) -> std::result::Result<(), String> {
    match compression {
        Compression::None if stored.len() == raw.len() => {
            raw.copy_from_slice(stored);
            Ok(())
        }
        Compression::None => Err(format!("{} bytes stored raw instead of {}", stored.len(), raw.len())),
        Compression::Zstd => INFLATER.with_borrow_mut(|slot| {
            let inflater = match slot {
                Some(i) => i,
                None => slot.insert(zstd::bulk::Decompressor::new().map_err(|e| e.to_string())?),
            };
            let len = inflater
                .decompress_to_buffer(stored, &mut *raw)
                .map_err(|e| format!("zstd: {e}"))?;
            if len == raw.len() {
                Ok(())
            } else {
                Err(format!("decompresses to {len} bytes instead of {}", raw.len()))
            }
        }),
    }
}

/// A [`BlobSink`] that stores nothing: for plans. Manifest nodes that the repository lacks are kept in memory (up to
/// 3 KiB for each differing 4 MiB of disk), and it is a [`NodeSource`] of those and the repository's.
#[derive(Debug)]
pub struct DrySink {
    repo: Repo,
    nodes: Mutex<IdMap<Bytes>>,
}

impl DrySink {
    /// A sink beside `repo`.
    pub fn new(repo: &Repo) -> Self {
        Self {
            repo: repo.clone(),
            nodes: Mutex::default(),
        }
    }
    fn node(&self, id: &BlobId) -> Option<Bytes> {
        self.nodes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned()
    }
}

impl BlobSink for DrySink {
    fn id_of(&self, raw: &[u8]) -> BlobId {
        self.repo.id_of(raw)
    }
    fn known(&self, id: &BlobId) -> bool {
        self.repo.contains(id) || self.node(id).is_some()
    }
    /// A new data blob is `New` with its raw length each time that it comes: nothing is kept of it.
    fn put(&self, kind: BlobKind, id: &BlobId, raw: &[u8]) -> Result<Put> {
        if self.repo.contains(id) {
            return Ok(Put::Known);
        }
        if kind == BlobKind::Node {
            let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
            if nodes.insert(*id, Bytes::copy_from_slice(raw)).is_some() {
                return Ok(Put::Known);
            }
        }
        Ok(Put::New {
            stored_bytes: u32::try_from(raw.len()).unwrap_or(u32::MAX),
        })
    }
}

#[async_trait]
impl NodeSource for DrySink {
    async fn nodes(&self, ids: &[BlobId]) -> Result<Vec<Bytes>> {
        let mut found: Vec<Option<Bytes>> = ids.iter().map(|id| self.node(id)).collect();
        let missing: Vec<BlobId> = ids
            .iter()
            .zip(&found)
            .filter(|(_, f)| f.is_none())
            .map(|(id, _)| *id)
            .collect();
        let mut read = self.repo.nodes(&missing).await?.into_iter();
        for slot in found.iter_mut().filter(|f| f.is_none()) {
            *slot = read.next();
        }
        found
            .into_iter()
            .map(|f| f.ok_or_else(|| RepoError::internal("manifest", "a node source answered too few nodes")))
            .collect()
    }
}
