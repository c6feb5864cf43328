//! Messages about the chunk repository; the snapshot concern answers them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::job::JobAccepted;
use crate::messages::{SAMPLE_ID, request, sample_accepted};
use crate::snapshot::CONCERN;

/// How disks are cut into chunks; fixed for a repository's life, so that equal data has equal ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum Chunker {
    /// Content-defined: FastCDC, v2020 (Xia et al., doi 10.1109/TPDS.2020.2984632). Sizes in bytes, even, min <= avg <= max.
    Fastcdc {
        /// Smallest chunk, in bytes (but for the end of a run of data).
        min_bytes: u32,
        /// Wanted mean, in bytes.
        avg_bytes: u32,
        /// Largest chunk, in bytes.
        max_bytes: u32,
    },
    /// Chunks of one size at multiples of it: for disks whose writer is aligned, and where CPU is dear.
    Fixed {
        /// Chunk size in bytes, a multiple of 4096.
        chunk_bytes: u32,
    },
}

impl Default for Chunker {
    fn default() -> Self {
        Self::Fastcdc {
            min_bytes: 16 << 10,
            avg_bytes: 64 << 10,
            max_bytes: 256 << 10,
        }
    }
}

/// Makes a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RepoInit {
    /// Where; the configured default when absent. `file:///…`, `s3://…`, `gs://…`, `az://…`, `memory://…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    /// How to cut; the configured default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunker: Option<Chunker>,
}

/// Shows what a repository is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RepoShow {
    /// Where; the configured default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
}

/// What a repository is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RepoInfo {
    /// Its URL, without secrets.
    pub url: String,
    /// Its ULID.
    pub id: String,
    /// Version of its format.
    pub version: u32,
    /// When it was made, RFC 3339.
    pub created_at: String,
    /// How disks are cut.
    pub chunker: Chunker,
    /// What its server was seen to honour when it was made; absent for local ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreHonours>,
}

/// What a store was seen to honour when the repository was made. windlass rests on the first four alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoreHonours {
    /// A range GET gives exactly the range.
    pub ranges: bool,
    /// GET and HEAD see an object, its replacement and its absence at once.
    pub read_after_write: bool,
    /// LIST tells an object at once.
    pub list_after_write: bool,
    /// Last-Modified is told alike by HEAD and LIST, and doesn't run backwards.
    pub last_modified: bool,
    /// LIST tells keys in the order of their bytes.
    pub list_ordered: bool,
    /// A PUT that asks for an absent key is refused when the key is there; absent when that couldn't be tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditional_put: Option<bool>,
    /// A PUT whose checksum doesn't fit its body is refused; absent when that couldn't be tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksums_checked: Option<bool>,
    /// A GET tells the checksum that the PUT had; absent when that couldn't be tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksums_told: Option<bool>,
}

/// Counts what a repository holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RepoStats {
    /// Where; the configured default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
}

/// What a repository holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RepoCounts {
    /// Its URL, without secrets.
    pub url: String,
    /// Snapshots.
    pub snapshots: u64,
    /// Packs.
    pub packs: u64,
    /// Bytes in packs.
    pub pack_bytes: u64,
    /// Index objects.
    pub indexes: u64,
    /// Bytes in index objects.
    pub index_bytes: u64,
    /// Chunks of disks that the index knows.
    pub chunks: u64,
    /// Their bytes before compression.
    pub chunk_raw_bytes: u64,
    /// Their bytes as stored.
    pub chunk_stored_bytes: u64,
    /// Manifest nodes that the index knows.
    pub nodes: u64,
    /// Sum of the sizes of all disks of all snapshots, in bytes.
    pub disk_bytes: u64,
}

/// Makes a repository's index anew from what its packs say that they hold: for when an index object is damaged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RepoRebuildIndex {
    /// Where; the configured default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
}

/// Result of making the index anew.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RebuiltIndex {
    /// The repository's URL, without secrets.
    pub url: String,
    /// Chunks and manifest nodes that the new index knows.
    pub blobs: u64,
}

impl RepoInfo {
    fn sample() -> Self {
        Self {
            url: "file:///srv/windlass/repo".into(),
            id: SAMPLE_ID.into(),
            version: 1,
            created_at: "2026-11-24T03:00:00Z".into(),
            chunker: Chunker::default(),
            store: Some(StoreHonours {
                ranges: true,
                read_after_write: true,
                list_after_write: true,
                last_modified: true,
                list_ordered: true,
                conditional_put: Some(false),
                checksums_checked: Some(true),
                checksums_told: Some(true),
            }),
        }
    }
}

fn sample_url() -> Option<String> {
    Some("file:///srv/windlass/repo".into())
}

request!(
    RepoInit,
    RepoInfo,
    "repo_init",
    Host,
    Changes,
    "Make a repository",
    Admin,
    Self {
        repo: sample_url(),
        chunker: Some(Chunker::default()),
    },
    RepoInfo::sample()
);

request!(
    RepoShow,
    RepoInfo,
    "repo_show",
    Host,
    Reads,
    "What a repository is",
    Viewer,
    Self { repo: sample_url() },
    RepoInfo::sample()
);

request!(
    RepoStats,
    RepoCounts,
    "repo_stats",
    Host,
    Reads,
    "What a repository holds",
    Viewer,
    Self { repo: sample_url() },
    RepoCounts {
        url: "file:///srv/windlass/repo".into(),
        snapshots: 3,
        packs: 21,
        ..RepoCounts::default()
    }
);

request!(
    RepoRebuildIndex,
    JobAccepted,
    "repo_rebuild_index",
    Host,
    Changes,
    "Make a repository's index anew from its packs",
    Admin,
    Self { repo: sample_url() },
    sample_accepted()
);
