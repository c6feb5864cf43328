//! `[snapshot]`: the snapshot concern.

use serde::{Deserialize, Serialize};

use crate::key::{Key, KeyType, Preset, Reload, Section};

/// The snapshot concern.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Threads that hash and compress; 0 for all cores.
    pub threads: u64,
    /// Days that a common snapshot can't be forgotten.
    pub common_held_days: u64,
    /// Jobs at once.
    pub jobs_parallel_max: u64,
}

pub(crate) static SECTION: Section = Section {
    name: "snapshot",
    about: "Disks of VMs go into the repository, and come back by their difference.",
    reload: Reload::All,
    keys: &[
        Key {
            path: "snapshot.threads",
            kind: KeyType::Integer { min: 0, max: 512 },
            preset: Preset::Integer(0),
            about: "Threads that cut, hash and compress; 0 means as many as there are cores.",
        },
        Key {
            path: "snapshot.common_held_days",
            kind: KeyType::Integer { min: 0, max: 3650 },
            preset: Preset::Integer(7),
            about: "Days that a common snapshot (the way back of a restore) can't be forgotten without --force.",
        },
        Key {
            path: "snapshot.jobs_parallel_max",
            kind: KeyType::Integer { min: 1, max: 64 },
            preset: Preset::Integer(1),
            about: "Snapshots and restores at once on this host; others wait. Memory grows with each.",
        },
    ],
};
