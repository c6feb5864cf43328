//! What a snapshot is and what taking it moved.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{SAMPLE_ID, Seconds, SnapshotKind, f64_eq};

/// One disk within a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiskInfo {
    /// Its name within the VM.
    pub name: String,
    /// Where it was when the snapshot was taken.
    pub path: String,
    /// `raw`; later `qcow2`, `block`.
    pub format: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Id of the manifest's root node in hex; `None` when the disk was all zeros.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// What taking it moved.
    pub moved: Moved,
}

/// What a snapshot moved, in bytes and counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Moved {
    /// Bytes that the filesystem has allocated to the disk.
    pub allocated_bytes: u64,
    /// Bytes read from the disk.
    pub read_bytes: u64,
    /// Of them in runs of zeros, which cost nothing more.
    pub zero_bytes: u64,
    /// Bytes hashed.
    pub hashed_bytes: u64,
    /// Bytes that had to be cut afresh, for the earlier snapshot's cut points did not fit.
    pub recut_bytes: u64,
    /// Chunks of the disk.
    pub chunks: u64,
    /// Of them not in the repository before.
    pub new_chunks: u64,
    /// Their bytes before compression.
    pub new_raw_bytes: u64,
    /// Their bytes as stored.
    pub stored_bytes: u64,
}

impl Moved {
    /// Sums two.
    pub fn plus(self, other: Self) -> Self {
        Self {
            allocated_bytes: self.allocated_bytes + other.allocated_bytes,
            read_bytes: self.read_bytes + other.read_bytes,
            zero_bytes: self.zero_bytes + other.zero_bytes,
            hashed_bytes: self.hashed_bytes + other.hashed_bytes,
            recut_bytes: self.recut_bytes + other.recut_bytes,
            chunks: self.chunks + other.chunks,
            new_chunks: self.new_chunks + other.new_chunks,
            new_raw_bytes: self.new_raw_bytes + other.new_raw_bytes,
            stored_bytes: self.stored_bytes + other.stored_bytes,
        }
    }
}

/// A snapshot as listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotInfo {
    /// ULID.
    pub id: String,
    /// The VM's name.
    pub vm: String,
    /// Why it was taken.
    pub kind: SnapshotKind,
    /// The host that took it.
    pub host: String,
    /// When it was taken, RFC 3339.
    pub created_at: String,
    /// Until when it can't be forgotten without `force`, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_until: Option<String>,
    /// The VM's disks.
    pub disks: Vec<DiskInfo>,
    /// Bytes of the definition that is kept; `None` when none was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition_bytes: Option<u64>,
    /// Seconds that it took.
    pub took_s: f64_eq::Seconds,
}

impl SnapshotInfo {
    /// A snapshot for documents and golden tests.
    pub fn sample() -> Self {
        Self {
            id: SAMPLE_ID.into(),
            vm: "web1".into(),
            kind: SnapshotKind::User,
            host: "h1".into(),
            created_at: "2026-11-24T03:00:00Z".into(),
            held_until: None,
            disks: vec![DiskInfo {
                name: "root".into(),
                path: "/srv/web1.raw".into(),
                format: "raw".into(),
                size_bytes: 2 << 30,
                root: Some("9f".repeat(32)),
                moved: Moved {
                    allocated_bytes: 295 << 20,
                    read_bytes: 295 << 20,
                    ..Moved::default()
                },
            }],
            definition_bytes: Some(812),
            took_s: Seconds(0.5),
        }
    }
}
