//! Writing a snapshot's disk as a new file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CONCERN, SAMPLE_ID, sample_accepted, sample_repo};
use crate::job::JobAccepted;
use crate::messages::request;

/// Writes a snapshot's disk as a whole new sparse file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotExport {
    /// A snapshot's id, a unique beginning of one, or `latest` (then `vm` says whose).
    pub id: String,
    /// Needed with `latest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<String>,
    /// Which disk, by name; may be absent when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<String>,
    /// `raw`.
    pub format: String,
    /// The file to make; it must not exist.
    pub output: String,
    /// Where from; the configured default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
}

/// Result of an export.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExportReport {
    /// The snapshot's id.
    pub id: String,
    /// The disk's name.
    pub disk: String,
    /// The file that was made.
    pub output: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Bytes written; the rest are holes.
    pub written_bytes: u64,
    /// Bytes that crossed from the store.
    pub fetched_bytes: u64,
    /// Seconds.
    pub took_s: f64,
}

request!(
    SnapshotExport,
    JobAccepted,
    "export",
    Host,
    Changes,
    "Write a snapshot's disk as a new sparse file",
    Admin,
    SnapshotExport {
        id: SAMPLE_ID.into(),
        vm: None,
        disk: Some("root".into()),
        format: "raw".into(),
        output: "/srv/copy.raw".into(),
        repo: sample_repo()
    },
    sample_accepted()
);
