//! `[hardening]`: what the daemon gives up when it starts.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::key::{Key, KeyType, Preset, Reload, Section};

/// What the daemon gives up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardening {
    /// Whether it gives up anything.
    pub mode: OnOff,
    /// Whether it may run programs.
    pub programs: Programs,
    /// Directories of disks, with commas between; empty: anywhere.
    pub disk_dirs: String,
}

/// On, or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnOff {
    /// On.
    On,
    /// Off.
    Off,
}

/// Whether programs may be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Programs {
    /// None.
    Deny,
    /// Any.
    Allow,
}

impl Hardening {
    /// The directories of disks; none: anywhere.
    pub fn disk_dir_list(&self) -> Vec<PathBuf> {
        let dirs = self.disk_dirs.split(',').map(str::trim).filter(|dir| !dir.is_empty());
        dirs.map(PathBuf::from).collect()
    }
}

pub(crate) static SECTION: Section = Section {
    name: "hardening",
    about: "What `windlass serve` gives up when it starts, for good: capabilities, system calls, programs, places of the file system. docs/security.md tells what each concern keeps, and `windlass status` what holds.",
    reload: Reload::None,
    keys: &[
        Key {
            path: "hardening.mode",
            kind: KeyType::Choice(&["on", "off"]),
            preset: Preset::Text("on"),
            about: "\"off\" gives up nothing, for finding out whether this is in the way of something.",
        },
        Key {
            path: "hardening.programs",
            kind: KeyType::Choice(&["deny", "allow"]),
            preset: Preset::Text("deny"),
            about: "Whether the daemon may run programs. It runs none itself; a credential_process of AWS's configuration is one.",
        },
        Key {
            path: "hardening.disk_dirs",
            kind: KeyType::Paths,
            preset: Preset::Text(""),
            about: "Directories below which the disks, their exports and local repositories are, with commas between. When some are named, the daemon reaches no other files than these and its own. Empty: disks may be anywhere.",
        },
    ],
};
