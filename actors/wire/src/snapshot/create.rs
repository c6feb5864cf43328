//! Taking a snapshot.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CONCERN, DiskArg, SnapshotInfo, sample_accepted, sample_disks, sample_repo};
use crate::job::JobAccepted;
use crate::messages::{request, topic};

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
    /// Read disks although a VM holds them: each as it is at one moment where the filesystem can clone it (XFS, btrfs);
    /// elsewhere it must not change while it is read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub crash_consistent: bool,
    /// Where to; the configured default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
}

request!(
    SnapshotCreate,
    JobAccepted,
    "create",
    Host,
    Changes,
    "Take a snapshot of all disks of a VM and of its definition",
    Operator,
    SnapshotCreate {
        vm: "web1".into(),
        disks: sample_disks(),
        definition: Some("/etc/vm/web1.xml".into()),
        crash_consistent: false,
        repo: sample_repo()
    },
    sample_accepted()
);

/// Event: a snapshot exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotCreated {
    /// The snapshot.
    pub snapshot: SnapshotInfo,
}

topic!(
    SnapshotCreated,
    "created",
    "A snapshot exists",
    Self {
        snapshot: SnapshotInfo::sample()
    }
);
