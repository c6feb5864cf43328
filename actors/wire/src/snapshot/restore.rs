//! Putting disks back: restore, its plan, and the way back.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ByteRange, CONCERN, DiskArg, SAMPLE_ID, sample_accepted, sample_disks, sample_repo};
use crate::job::JobAccepted;
use crate::messages::{request, topic};

/// Puts a snapshot's disks back in place. The VM is off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotRestore {
    /// The VM's name.
    pub vm: String,
    /// A snapshot's id, a unique beginning of one (8 characters or more), or `latest`.
    pub to: String,
    /// Which disks, and where; all of the snapshot's, where they were, when empty.
    #[serde(default)]
    pub disks: Vec<DiskArg>,
    /// Where from; the configured default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
}

/// What a restore would do; changes nothing. Reads the disk as a restore would.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotPlan {
    /// The restore to plan.
    #[serde(flatten)]
    pub restore: SnapshotRestore,
}

/// Returns a VM's disks to what they were before the last restore (its common snapshot).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotUndo {
    /// The VM's name.
    pub vm: String,
    /// Which disks; all that the last restore touched when empty.
    #[serde(default)]
    pub disks: Vec<DiskArg>,
    /// The repository that the restore used; the configured default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
}

/// What a restore of one disk moves, or would.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DiskRestore {
    /// The disk's name within the VM.
    pub name: String,
    /// Where it is.
    pub path: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// How many ranges differ.
    pub ranges: u64,
    /// The first of them, at most 1,000.
    pub first_ranges: Vec<ByteRange>,
    /// Bytes that differ.
    pub differing_bytes: u64,
    /// Of them copied from elsewhere on the same disk.
    pub copied_bytes: u64,
    /// Of `copied_bytes`, held aside in memory because copies run in a circle.
    pub staged_bytes: u64,
    /// Of them fetched, counted before compression.
    pub fetched_raw_bytes: u64,
    /// Bytes that crossed from the store for them.
    pub fetched_bytes: u64,
    /// Range reads that took.
    pub fetch_requests: u64,
    /// Bytes turned back into holes.
    pub hole_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Bytes read back and checked.
    pub verified_bytes: u64,
    /// Seconds that the phases took: `scan`, `plan`, `copy`, `fetch`, `verify`, `sync`.
    pub phases_s: std::collections::BTreeMap<String, f64>,
}

/// Result of a restore, an undo or a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RestoreReport {
    /// The VM's name.
    pub vm: String,
    /// The snapshot that the disks now equal (or would).
    pub to: String,
    /// The common snapshot: the way back. `None` for a plan, or when an unfinished restore was undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub common: Option<String>,
    /// True when this went on with an unfinished restore.
    pub resumed: bool,
    /// Each disk.
    pub disks: Vec<DiskRestore>,
    /// Seconds in all; an estimate in a plan.
    pub took_s: f64,
}

fn sample_restore() -> SnapshotRestore {
    SnapshotRestore {
        vm: "web1".into(),
        to: SAMPLE_ID.into(),
        disks: sample_disks(),
        repo: sample_repo(),
    }
}

request!(
    SnapshotRestore,
    JobAccepted,
    "restore",
    Host,
    Changes,
    "Put a snapshot's disks back in place",
    Operator,
    sample_restore(),
    sample_accepted()
);

request!(
    SnapshotPlan,
    JobAccepted,
    "plan",
    Host,
    Changes,
    "What a restore would do",
    Operator,
    SnapshotPlan {
        restore: sample_restore()
    },
    sample_accepted()
);

request!(
    SnapshotUndo,
    JobAccepted,
    "undo",
    Host,
    Changes,
    "Return to what was before the last restore",
    Operator,
    SnapshotUndo {
        vm: "web1".into(),
        disks: vec![],
        repo: sample_repo()
    },
    sample_accepted()
);

/// Event: a VM's disks equal a snapshot again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DiskRestored {
    /// What was done.
    pub report: RestoreReport,
}

topic!(
    DiskRestored,
    "restored",
    "A VM's disks equal a snapshot again",
    Self {
        report: RestoreReport {
            vm: "web1".into(),
            to: SAMPLE_ID.into(),
            common: Some(SAMPLE_ID.into()),
            resumed: false,
            disks: vec![],
            took_s: 1.5
        }
    }
);
