//! Checking that snapshots can be restored.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CONCERN, sample_accepted, sample_repo};
use crate::job::JobAccepted;
use crate::messages::request;

/// Checks that snapshots can be restored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotVerify {
    /// Which; every snapshot when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Only that every manifest is whole and every chunk stands in a pack of the right size; without, every byte is read.
    #[serde(default)]
    pub quick: bool,
    /// Where; the configured default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
}

/// Result of a check. A damaged repository ends the job with `corrupt`, with the first findings in the message.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VerifyReport {
    /// Snapshots checked.
    pub snapshots: u64,
    /// Manifest nodes read.
    pub nodes: u64,
    /// Chunks checked.
    pub chunks: u64,
    /// Bytes read from the store.
    pub read_bytes: u64,
    /// Seconds.
    pub took_s: f64,
}

request!(
    SnapshotVerify,
    JobAccepted,
    "verify",
    Host,
    Changes,
    "Check that snapshots can be restored",
    Operator,
    SnapshotVerify {
        id: None,
        quick: true,
        repo: sample_repo()
    },
    sample_accepted()
);
