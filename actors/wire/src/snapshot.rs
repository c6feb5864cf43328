//! Messages of the snapshot concern.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Address, Request, Topic, job::JobAccepted};

/// Longest VM or disk name, in bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// Most disks of one VM.
pub const DISKS_MAX: usize = 64;

/// A disk of a VM, as the asker names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiskArg {
    /// Its name within the VM; the file's name without extension when absent. Stable over moves of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where it is on the addressed host.
    pub path: String,
}

/// Why a snapshot was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotKind {
    /// Someone asked for it.
    User,
    /// The state that a restore replaced: the way back.
    Common,
}

/// Takes a snapshot of all the disks of a VM and of its definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotCreate {
    /// The VM's name.
    pub vm: String,
    /// Its disks, at least one.
    pub disks: Vec<DiskArg>,
    /// A file that defines the VM (libvirt XML, JSON, …), kept as it is; at most 16 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
    /// Where to; the configured default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
}

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

/// Seconds that compare by their bits, so that messages can derive `Eq`.
pub mod f64_eq {
    use super::{Deserialize, JsonSchema, Serialize};

    /// A length of time in seconds.
    #[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
    #[serde(transparent)]
    pub struct Seconds(pub f64);
    impl PartialEq for Seconds {
        fn eq(&self, other: &Self) -> bool {
            self.0.to_bits() == other.0.to_bits()
        }
    }
    impl Eq for Seconds {}
}
pub use f64_eq::Seconds;

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

/// A run of bytes of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ByteRange {
    /// Where it begins.
    pub offset_bytes: u64,
    /// How long it is.
    pub length_bytes: u64,
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

/// Lists snapshots, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotList {
    /// Only this VM's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<String>,
    /// Where; the configured default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
}

/// Snapshots, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotListing {
    /// The snapshots.
    pub snapshots: Vec<SnapshotInfo>,
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

/// Forgets a snapshot. Its chunks stay until no snapshot needs them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotForget {
    /// Its id or a unique beginning (`latest` is refused).
    pub id: String,
    /// Also when it is held, or the way back of an unfinished restore's is not concerned.
    #[serde(default)]
    pub force: bool,
    /// Where; the configured default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
}

/// What was forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Forgotten {
    /// Its full id.
    pub id: String,
    /// The VM's name.
    pub vm: String,
}

const SAMPLE_ID: &str = "01JCXQ6Y9D3W6V3S1W8Y5Z4K2M";

fn sample_repo() -> Option<String> {
    Some("file:///srv/windlass/repo".into())
}

fn sample_disks() -> Vec<DiskArg> {
    vec![DiskArg {
        name: Some("root".into()),
        path: "/srv/web1.raw".into(),
    }]
}

fn sample_accepted() -> JobAccepted {
    JobAccepted {
        job: crate::job::JobId(SAMPLE_ID.into()),
        duplicate: false,
    }
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

macro_rules! request {
    ($kind:ty, $reply:ty, $verb:literal, $about:literal, $sample:expr, $sample_reply:expr) => {
        impl Request for $kind {
            type Reply = $reply;
            const CONCERN: &'static str = "snapshot";
            const VERB: &'static str = $verb;
            const ADDRESS: Address = Address::Host;
            const ABOUT: &'static str = $about;
            fn sample() -> Self {
                $sample
            }
            fn sample_reply() -> $reply {
                $sample_reply
            }
        }
    };
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
    SnapshotCreate,
    JobAccepted,
    "create",
    "Take a snapshot of all disks of a VM and of its definition",
    SnapshotCreate {
        vm: "web1".into(),
        disks: sample_disks(),
        definition: Some("/etc/vm/web1.xml".into()),
        repo: sample_repo()
    },
    sample_accepted()
);
request!(
    SnapshotRestore,
    JobAccepted,
    "restore",
    "Put a snapshot's disks back in place",
    sample_restore(),
    sample_accepted()
);
request!(
    SnapshotPlan,
    JobAccepted,
    "plan",
    "What a restore would do",
    SnapshotPlan {
        restore: sample_restore()
    },
    sample_accepted()
);
request!(
    SnapshotUndo,
    JobAccepted,
    "undo",
    "Return to what was before the last restore",
    SnapshotUndo {
        vm: "web1".into(),
        disks: vec![],
        repo: sample_repo()
    },
    sample_accepted()
);
request!(
    SnapshotExport,
    JobAccepted,
    "export",
    "Write a snapshot's disk as a new sparse file",
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
request!(
    SnapshotVerify,
    JobAccepted,
    "verify",
    "Check that snapshots can be restored",
    SnapshotVerify {
        id: None,
        quick: true,
        repo: sample_repo()
    },
    sample_accepted()
);
request!(
    SnapshotList,
    SnapshotListing,
    "ls",
    "List snapshots, oldest first",
    SnapshotList {
        vm: Some("web1".into()),
        repo: sample_repo()
    },
    SnapshotListing {
        snapshots: vec![SnapshotInfo::sample()]
    }
);
request!(
    SnapshotShow,
    SnapshotInfo,
    "show",
    "Show one snapshot",
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
    "Compare two snapshots",
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
request!(
    SnapshotForget,
    Forgotten,
    "forget",
    "Forget a snapshot",
    SnapshotForget {
        id: SAMPLE_ID.into(),
        force: false,
        repo: sample_repo()
    },
    Forgotten {
        id: SAMPLE_ID.into(),
        vm: "web1".into()
    }
);

/// Event: a snapshot exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotCreated {
    /// The snapshot.
    pub snapshot: SnapshotInfo,
}

/// Event: a snapshot is no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotForgotten {
    /// Its full id.
    pub id: String,
    /// The VM's name.
    pub vm: String,
}

/// Event: a VM's disks equal a snapshot again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DiskRestored {
    /// What was done.
    pub report: RestoreReport,
}

macro_rules! topic {
    ($kind:ty, $what:literal, $about:literal, $sample:expr) => {
        impl Topic for $kind {
            const CONCERN: &'static str = "snapshot";
            const WHAT: &'static str = $what;
            const ABOUT: &'static str = $about;
            fn sample() -> Self {
                $sample
            }
        }
    };
}

topic!(
    SnapshotCreated,
    "created",
    "A snapshot exists",
    Self {
        snapshot: SnapshotInfo::sample()
    }
);
topic!(
    SnapshotForgotten,
    "forgotten",
    "A snapshot is no more",
    Self {
        id: SAMPLE_ID.into(),
        vm: "web1".into()
    }
);
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
