//! `[rack_scheduler]`: the rack scheduler.

use serde::{Deserialize, Serialize};

use crate::key::{Key, KeyType, Preset, Reload, Section};

/// The rack scheduler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RackScheduler {
    /// Where the inventory comes from.
    pub inventory: Inventory,
    /// Virtual CPUs sold for each 100 that a heartbeat tells of.
    pub vcpus_sold_percent: u64,
    /// Memory sold for each 100 that a heartbeat tells of.
    pub memory_sold_percent: u64,
    /// Whether hosts hear of their VMs.
    pub provide: Provide,
    /// How long a host may take to answer, in seconds.
    pub provide_timeout_s: u64,
    /// How long a tentative booking stands, in seconds.
    pub tentative_s: u64,
    /// How often a request is planned anew.
    pub attempts_max: u64,
    /// Seconds between two sweeps.
    pub sweep_every_s: u64,
}

/// Where the inventory comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Inventory {
    /// `windlass rack load`.
    Files,
    /// Heartbeats of hosts too.
    Heartbeats,
}

/// Whether hosts hear of their VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provide {
    /// Whoever asked reads the answer.
    Off,
    /// Each host is asked and may refuse.
    Ask,
}

pub(crate) static SECTION: Section = Section {
    name: "rack_scheduler",
    about: "Many VMs become groups, each with a home rack.",
    reload: Reload::All,
    keys: &[
        Key {
            path: "rack_scheduler.inventory",
            kind: KeyType::Choice(&["files", "heartbeats"]),
            preset: Preset::Text("files"),
            about: "files: hosts come by `windlass rack load` alone. heartbeats: hosts that beat join by themselves, too, at each sweep; see [host] for where one stands.",
        },
        Key {
            path: "rack_scheduler.vcpus_sold_percent",
            kind: KeyType::Integer { min: 1, max: 10_000 },
            preset: Preset::Integer(100),
            about: "Virtual CPUs that are sold for each 100 of which a heartbeat tells. Files say it themselves.",
        },
        Key {
            path: "rack_scheduler.memory_sold_percent",
            kind: KeyType::Integer { min: 1, max: 10_000 },
            preset: Preset::Integer(100),
            about: "Memory that is sold for each 100 of which a heartbeat tells. Files say it themselves.",
        },
        Key {
            path: "rack_scheduler.provide",
            kind: KeyType::Choice(&["off", "ask"]),
            preset: Preset::Text("off"),
            about: "off: nobody but the asker hears of a placement. ask: each host is asked to make its VMs; one that refuses or does not answer is replaced.",
        },
        Key {
            path: "rack_scheduler.provide_timeout_s",
            kind: KeyType::Integer { min: 1, max: 600 },
            preset: Preset::Integer(5),
            about: "How long a host may take to answer when it is asked.",
        },
        Key {
            path: "rack_scheduler.tentative_s",
            kind: KeyType::Integer { min: 1, max: 3600 },
            preset: Preset::Integer(10),
            about: "How long a booking stands that was not decided; then whoever meets it drops it.",
        },
        Key {
            path: "rack_scheduler.attempts_max",
            kind: KeyType::Integer { min: 1, max: 1000 },
            preset: Preset::Integer(16),
            about: "How often a request is planned anew when other schedulers were faster; then it is answered `busy`.",
        },
        Key {
            path: "rack_scheduler.sweep_every_s",
            kind: KeyType::Integer { min: 1, max: 86_400 },
            preset: Preset::Integer(60),
            about: "How often a daemon goes on with what another one left unfinished.",
        },
    ],
};
