//! Looking at snapshots: list, show, compare.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ByteRange, CONCERN, SAMPLE_ID, SnapshotInfo, sample_repo};
use crate::messages::request;

/// Lists snapshots, oldest first, page by page.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotList {
    /// Only this VM's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<String>,
    /// Only those after the snapshot with this id: the last one of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// At most so many; 0: as many as a page holds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub count_max: u32,
    /// Where; the configured default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
}

/// Snapshots, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotListing {
    /// The snapshots.
    pub snapshots: Vec<SnapshotInfo>,
    /// There may be more after the last of them: ask again with `after`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// Shows one snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotShow {
    /// Its id or a unique beginning, or `latest` (then `vm` says whose).
    pub id: String,
    /// Needed with `latest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<String>,
    /// Where; the configured default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
}

/// Compares two snapshots' disks of the same name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotDiff {
    /// The one.
    pub a: String,
    /// The other.
    pub b: String,
    /// Only this disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<String>,
    /// Where; the configured default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
}

/// How one disk differs between two snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiskDiff {
    /// The disk's name.
    pub name: String,
    /// How many ranges differ.
    pub ranges: u64,
    /// The first of them, at most 1,000.
    pub first_ranges: Vec<ByteRange>,
    /// Bytes in those that differ.
    pub differing_bytes: u64,
    /// Manifest nodes that were read to find out.
    pub nodes_read: u64,
}

/// How two snapshots differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiffReport {
    /// The one's full id.
    pub a: String,
    /// The other's full id.
    pub b: String,
    /// Disks that both have.
    pub disks: Vec<DiskDiff>,
    /// Names of disks that only `a` has.
    pub only_a: Vec<String>,
    /// Names of disks that only `b` has.
    pub only_b: Vec<String>,
}

request!(
    SnapshotList,
    SnapshotListing,
    "ls",
    Host,
    Reads,
    "List snapshots, oldest first",
    Viewer,
    SnapshotList {
        vm: Some("web1".into()),
        after: Some(SAMPLE_ID.into()),
        count_max: 100,
        repo: sample_repo()
    },
    SnapshotListing {
        snapshots: vec![SnapshotInfo::sample()],
        more: true
    }
);

request!(
    SnapshotShow,
    SnapshotInfo,
    "show",
    Host,
    Reads,
    "Show one snapshot",
    Viewer,
    SnapshotShow {
        id: SAMPLE_ID.into(),
        vm: None,
        repo: sample_repo()
    },
    SnapshotInfo::sample()
);

request!(
    SnapshotDiff,
    DiffReport,
    "diff",
    Host,
    Reads,
    "Compare two snapshots",
    Viewer,
    SnapshotDiff {
        a: SAMPLE_ID.into(),
        b: SAMPLE_ID.into(),
        disk: None,
        repo: sample_repo()
    },
    DiffReport {
        a: SAMPLE_ID.into(),
        b: SAMPLE_ID.into(),
        only_a: vec![],
        only_b: vec![],
        disks: vec![DiskDiff {
            name: "root".into(),
            ranges: 1,
            first_ranges: vec![ByteRange {
                offset_bytes: 4096,
                length_bytes: 65536
            }],
            differing_bytes: 65536,
            nodes_read: 6
        }]
    }
);
