//! The repository's own description: object `config`.

use std::fmt;

use serde::{Deserialize, Serialize};
use ulid::Ulid;
use wire::repo::{Chunker, RepoInfo, StoreHonours};

use crate::doc::{self, DocKind};
use crate::{RepoError, Result};

/// Version of the format that this code writes. Rule: version N reads N and N-1.
pub const FORMAT_VERSION: u32 = 1;
/// Key of the object.
pub(crate) const CONFIG_KEY: &str = "config";
pub(crate) const CONFIG_BYTES_MAX: u64 = 64 << 10;

/// What a repository is. Written once, by [`crate::Repo::init`].
#[derive(Clone, PartialEq, Eq)]
pub struct RepoConfig {
    /// Its ULID.
    pub id: String,
    /// Version of its format.
    pub version: u32,
    /// When it was made, RFC 3339.
    pub created_at: String,
    /// How disks are cut: fixed for its life, so that equal data has equal ids.
    pub chunker: Chunker,
    /// What its store was seen to honour when it was made.
    pub store: Option<StoreHonours>,
    pub(crate) key: [u8; 32],
}

/// What makes a new repository; clock and entropy come in as arguments.
#[derive(Clone)]
pub struct RepoParams {
    /// How disks are cut.
    pub chunker: Chunker,
    /// Now, RFC 3339.
    pub created_at: String,
    /// Its ULID.
    pub id: Ulid,
    /// 32 bytes of good randomness: the key of the blob ids.
    pub key: [u8; 32],
    /// Whether to try out what the store honours, and to write it down.
    pub try_store: bool,
}

impl RepoParams {
    /// Parameters with id and key from the system's entropy.
    ///
    /// # Errors
    /// `Kind::Internal` when the system gives no entropy.
    pub fn generate(chunker: Chunker, created_at: impl Into<String>) -> Result<Self> {
        let mut key = [0u8; 32];
        getrandom::fill(&mut key)
            .map_err(|e| RepoError::internal(CONFIG_KEY, format_args!("no entropy from the system: {e}")))?;
        Ok(Self {
            chunker,
            created_at: created_at.into(),
            id: Ulid::generate(),
            key,
            try_store: false,
        })
    }
}

impl fmt::Debug for RepoParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RepoParams")
            .field("id", &self.id)
            .field("chunker", &self.chunker)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RepoConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RepoConfig")
            .field("id", &self.id)
            .field("version", &self.version)
            .field("created_at", &self.created_at)
            .field("chunker", &self.chunker)
            .finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
struct ConfigBody {
    id: String,
    created_at: String,
    chunker: Chunker,
    blob_key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    store: Option<StoreHonours>,
}

impl RepoConfig {
    pub(crate) fn new(params: &RepoParams) -> Result<Self> {
        check_chunker(&params.chunker)?;
        Ok(Self {
            id: params.id.to_string(),
            version: FORMAT_VERSION,
            created_at: params.created_at.clone(),
            chunker: params.chunker,
            store: None,
            key: params.key,
        })
    }
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let body = ConfigBody {
            id: self.id.clone(),
            created_at: self.created_at.clone(),
            chunker: self.chunker,
            blob_key: hex::encode(self.key),
            store: self.store,
        };
        doc::encode(DocKind::Repository, &body)
    }
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let (version, body): (u32, ConfigBody) = doc::decode(DocKind::Repository, CONFIG_KEY, bytes)?;
        let mut key = [0u8; 32];
        hex::decode_to_slice(&body.blob_key, &mut key)
            .map_err(|e| RepoError::corrupt(CONFIG_KEY, format!("blob_key: {e}")))?;
        check_chunker(&body.chunker).map_err(|e| RepoError::corrupt(CONFIG_KEY, e.message))?;
        Ok(Self {
            id: body.id,
            version,
            created_at: body.created_at,
            chunker: body.chunker,
            store: body.store,
            key,
        })
    }
    /// As shown to people.
    pub fn info(&self, url: impl Into<String>) -> RepoInfo {
        RepoInfo {
            url: url.into(),
            id: self.id.clone(),
            version: self.version,
            created_at: self.created_at.clone(),
            chunker: self.chunker,
            store: self.store,
        }
    }
}

/// What a probe saw, as it is written down.
pub(crate) fn honours(seen: &store::Honours) -> StoreHonours {
    StoreHonours {
        ranges: seen.ranges,
        read_after_write: seen.read_after_write,
        list_after_write: seen.list_after_write,
        last_modified: seen.last_modified,
        list_ordered: seen.list_ordered,
        conditional_put: seen.tried.conditional_put,
        checksums_checked: seen.tried.checksums_checked,
        checksums_told: seen.tried.checksums_told,
    }
}

/// Smallest chunk size that may be configured, in bytes: below it the index outweighs the data.
const CHUNK_BYTES_MIN: u32 = 4 << 10;
/// Largest chunk size that may be configured, in bytes: half a leaf of a manifest.
const CHUNK_BYTES_MAX: u32 = 2 << 20;

fn check_chunker(chunker: &Chunker) -> Result<()> {
    let fault = match *chunker {
        Chunker::Fastcdc {
            min_bytes,
            avg_bytes,
            max_bytes,
        } => {
            if !(CHUNK_BYTES_MIN <= min_bytes && min_bytes <= avg_bytes && avg_bytes <= max_bytes) {
                Some(format!("chunk sizes must keep {CHUNK_BYTES_MIN} <= min <= avg <= max"))
            } else if max_bytes > CHUNK_BYTES_MAX {
                Some(format!("the largest chunk may have at most {CHUNK_BYTES_MAX} bytes"))
            } else if [min_bytes, avg_bytes, max_bytes].iter().any(|b| b % 2 != 0) {
                Some("chunk sizes must be even".to_owned())
            } else {
                None
            }
        }
        Chunker::Fixed { chunk_bytes } => {
            let fine = chunk_bytes.is_multiple_of(4096) && (CHUNK_BYTES_MIN..=CHUNK_BYTES_MAX).contains(&chunk_bytes);
            (!fine).then(|| format!("a fixed chunk size must be a multiple of 4096, at most {CHUNK_BYTES_MAX}"))
        }
    };
    match fault {
        Some(fault) => Err(RepoError::invalid("chunker", fault)),
        None => Ok(()),
    }
}
