//! The keys before the first table, and the defaults that depend on the machine and the user.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::key::{Key, KeyType, Preset, Reload, Section};

pub(crate) static SECTION: Section = Section {
    name: "",
    about: "This host.",
    reload: Reload::None,
    keys: &[
        Key {
            path: "host_id",
            kind: KeyType::Token,
            preset: Preset::Derived("the host's name"),
            about: "This host's id in subjects: unique in the fleet, stable over restarts.",
        },
        Key {
            path: "state_dir",
            kind: KeyType::Path,
            preset: Preset::Derived(
                "/var/lib/windlass for root, $XDG_STATE_HOME/windlass (~/.local/state/windlass) for others",
            ),
            about: "Where state is kept: jobs, journals of restores, the gateway's socket. One process at a time.",
        },
    ],
};

/// Where this host stands, what it has, and how often it says that it lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its rack; empty: not said.
    pub rack: String,
    /// The row of racks; empty: not said.
    pub row: String,
    /// The zone; empty: not said.
    pub zone: String,
    /// Words of its owner, as `name=value,name=value`.
    pub labels: String,
    /// Virtual CPUs for workloads; 0: as many as the host has.
    pub vcpus: u64,
    /// Memory for workloads, in bytes; 0: as much as the host has.
    pub memory_bytes: u64,
    /// Disk for workloads, in bytes; 0: what the file system of the state directory has.
    pub disk_bytes: u64,
    /// GPUs for workloads.
    pub gpus: u64,
    /// Network interfaces that VMs can have.
    pub nics: u64,
    /// How far apart its beats are, in milliseconds.
    pub beat_ms: u64,
}

impl Host {
    /// The labels, by name.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let pairs = self.labels.split(',').filter_map(|pair| pair.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

pub(crate) static HOST_SECTION: Section = Section {
    name: "host",
    about: "Where this host stands and what it has: `windlass hosts` shows it, and what places workloads reads it.",
    reload: Reload::None,
    keys: &[
        Key {
            path: "host.rack",
            kind: KeyType::TokenOrEmpty,
            preset: Preset::Text(""),
            about: "Its rack; empty when nobody knows.",
        },
        Key {
            path: "host.row",
            kind: KeyType::TokenOrEmpty,
            preset: Preset::Text(""),
            about: "The row of racks that it stands in.",
        },
        Key {
            path: "host.zone",
            kind: KeyType::TokenOrEmpty,
            preset: Preset::Text(""),
            about: "The zone: what shares power and network.",
        },
        Key {
            path: "host.labels",
            kind: KeyType::Labels,
            preset: Preset::Text(""),
            about: "Your own words for it, such as \"disk=nvme,owner=ada\".",
        },
        Key {
            path: "host.vcpus",
            kind: KeyType::Integer { min: 0, max: 65_536 },
            preset: Preset::Integer(0),
            about: "Virtual CPUs for workloads; 0 means as many as the host has.",
        },
        Key {
            path: "host.memory_bytes",
            kind: KeyType::Integer { min: 0, max: 1 << 50 },
            preset: Preset::Integer(0),
            about: "Memory for workloads; 0 means as much as the host has.",
        },
        Key {
            path: "host.disk_bytes",
            kind: KeyType::Integer { min: 0, max: 1 << 60 },
            preset: Preset::Integer(0),
            about: "Disk for workloads; 0 means what the file system of the state directory has.",
        },
        Key {
            path: "host.gpus",
            kind: KeyType::Integer { min: 0, max: 65_536 },
            preset: Preset::Integer(0),
            about: "GPUs for workloads; nobody looks for them on the host itself.",
        },
        Key {
            path: "host.nics",
            kind: KeyType::Integer { min: 0, max: 65_536 },
            preset: Preset::Integer(0),
            about: "Network interfaces that VMs can have; nobody looks for them on the host itself.",
        },
        Key {
            path: "host.beat_ms",
            kind: KeyType::Integer { min: 200, max: 60_000 },
            preset: Preset::Integer(5_000),
            about: "How often the host says that it lives; one that is silent for three beats is lost to the others.",
        },
    ],
};

/// What the defaults depend on, and the environment: given, never looked up here.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The environment.
    pub env: BTreeMap<String, String>,
    /// True when the user is root.
    pub is_root: bool,
    /// The host's name.
    pub host_name: String,
    /// The working directory; relative paths of flags and variables begin there.
    pub working_dir: PathBuf,
}

impl Surroundings {
    /// A variable that is set to something: empty ones count as absent.
    pub fn var(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }
    /// An XDG base directory (<https://specifications.freedesktop.org/basedir/>): relative values are invalid and passed over.
    fn xdg(&self, name: &str, below_home: &str) -> Option<PathBuf> {
        let absolute = |text: &str| Some(PathBuf::from(text)).filter(|p| p.is_absolute());
        self.var(name)
            .and_then(absolute)
            .or_else(|| self.var("HOME").and_then(absolute).map(|home| home.join(below_home)))
    }
    /// The default of `state_dir`.
    pub(crate) fn state_dir(&self) -> PathBuf {
        if self.is_root {
            return PathBuf::from("/var/lib/windlass");
        }
        self.xdg("XDG_STATE_HOME", ".local/state")
            .map_or_else(|| self.working_dir.join(".windlass"), |dir| dir.join("windlass"))
    }
    /// The default of `repo.cache_dir`.
    pub(crate) fn cache_dir(&self) -> PathBuf {
        if self.is_root {
            return PathBuf::from("/var/cache/windlass");
        }
        self.xdg("XDG_CACHE_HOME", ".cache")
            .map_or_else(|| self.working_dir.join(".windlass/cache"), |dir| dir.join("windlass"))
    }
    /// Where a configuration file is looked for when none is named.
    pub fn config_file(&self) -> Option<PathBuf> {
        if self.is_root {
            return Some(PathBuf::from("/etc/windlass/windlass.toml"));
        }
        self.xdg("XDG_CONFIG_HOME", ".config")
            .map(|dir| dir.join("windlass/windlass.toml"))
    }
    /// The default of `host_id`: the host's name up to its first dot, with what a subject can't carry made `-`.
    pub(crate) fn host_id(&self) -> String {
        let short = self.host_name.split('.').next().unwrap_or_default();
        let clean: String = short
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || c == '_' || c == '-' {
                    c
                } else {
                    '-'
                }
            })
            .take(wire::subject::TOKEN_BYTES_MAX)
            .collect();
        if clean.is_empty() { "localhost".into() } else { clean }
    }
}
