//! Messages of the snapshot concern.
//!
//! One room an errand; all of it is named `wire::snapshot::…`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::catalog::Room;
use crate::messages::{SAMPLE_ID, sample_accepted};
use crate::repo::{RepoInit, RepoRebuildIndex, RepoShow, RepoStats};

pub(crate) const CONCERN: &str = "snapshot";

mod create;
mod export;
mod forget;
mod info;
mod look;
mod restore;
mod verify;

pub use create::{SnapshotCreate, SnapshotCreated};
pub use export::{ExportReport, SnapshotExport};
pub use forget::{Forgotten, SnapshotForget, SnapshotForgotten};
pub use info::{DiskInfo, Moved, SnapshotInfo};
pub use look::{DiffReport, DiskDiff, SnapshotDiff, SnapshotList, SnapshotListing, SnapshotShow};
pub use restore::{DiskRestore, DiskRestored, RestoreReport, SnapshotPlan, SnapshotRestore, SnapshotUndo};
pub use verify::{SnapshotVerify, VerifyReport};

pub(crate) fn room() -> Room {
    Room::default()
        .request::<RepoInit>()
        .request::<RepoShow>()
        .request::<RepoStats>()
        .request::<RepoRebuildIndex>()
        .request::<SnapshotCreate>()
        .request::<SnapshotRestore>()
        .request::<SnapshotPlan>()
        .request::<SnapshotUndo>()
        .request::<SnapshotExport>()
        .request::<SnapshotVerify>()
        .request::<SnapshotList>()
        .request::<SnapshotShow>()
        .request::<SnapshotDiff>()
        .request::<SnapshotForget>()
        .topic::<SnapshotCreated>()
        .topic::<SnapshotForgotten>()
        .topic::<DiskRestored>()
}

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
    /// `raw` (also a block device) or `qcow2`; when absent, as it was recorded, else as it looks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
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

/// A run of bytes of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ByteRange {
    /// Where it begins.
    pub offset_bytes: u64,
    /// How long it is.
    pub length_bytes: u64,
}

fn sample_repo() -> Option<String> {
    Some("file:///srv/windlass/repo".into())
}

fn sample_disks() -> Vec<DiskArg> {
    vec![DiskArg {
        name: Some("root".into()),
        path: "/srv/web1.raw".into(),
        format: Some("raw".into()),
    }]
}
