//! The chunk repository on a [`store::Store`]: blobs, packs, index, manifests, snapshots. The bytes are specified in
//! `docs/FORMAT.md`.
//!
//! ```text
//! write: BlobSink::put (CPU threads: dedup, compress, append) -> pack -> PUT (durable) -> index -> snapshot object, last
//! read:  snapshot -> manifest nodes -> chunk ids -> index -> coalesced range reads of packs -> checked blobs
//! ```
//!
//! What is absent: nothing here rests on a conditional write, a lock, or a clock of this host compared with another's;
//! no object is ever overwritten; no blob leaves this crate unchecked; nothing here knows a VM's disk or a path on it.

mod blob;
mod cache;
mod config;
#[cfg(test)]
mod decoders_tests;
mod doc;
mod error;
mod fetch;
#[cfg(test)]
mod golden_tests;
mod id;
mod index;
mod io;
pub mod manifest;
mod pack;
mod repo;
mod session;
#[cfg(test)]
mod testing;
mod verify;

pub use blob::{BLOB_RAW_BYTES_MAX, BlobKind, BlobSink, DrySink, Put};
pub use cache::Cache;
pub use config::{FORMAT_VERSION, RepoConfig, RepoParams};
pub use doc::{BlobRef, DiskEntry, SnapshotDoc, SnapshotDraft, SnapshotId};
pub use error::{Kind, RepoError};
pub use fetch::{FetchLimits, FetchPlan, Stored};
pub use id::BlobId;
pub use manifest::{ChunkRef, ManifestRef, NodeSource};
pub use repo::{Progress, Repo, RepoCounts, SnapshotPage, Snapshots};
pub use session::{Session, SessionLimits};
pub use verify::{FINDINGS_MAX, VerifyReport};

/// Result of a repository call.
pub type Result<T> = std::result::Result<T, RepoError>;
