//! `[bus]`: the message bus.

use serde::{Deserialize, Serialize};

use crate::key::{Key, KeyType, Preset, Reload, Section};

/// The message bus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bus {
    /// Which bus.
    pub mode: BusMode,
    /// Events that a slow subscriber may lag behind.
    pub events_queued_max: u64,
    /// How long an asker waits when it does not say, in seconds.
    pub request_timeout_s: u64,
}

/// Which bus carries the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BusMode {
    /// Inside the process: one host, no server.
    Embedded,
    /// NATS: as many hosts as meet at the same servers.
    Nats,
}

impl BusMode {
    /// The word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Nats => "nats",
        }
    }
}

pub(crate) static SECTION: Section = Section {
    name: "bus",
    about: "The message bus.",
    reload: Reload::Only(&["events_queued_max", "request_timeout_s"]),
    keys: &[
        Key {
            path: "bus.mode",
            kind: KeyType::Choice(&["embedded", "nats"]),
            preset: Preset::Derived("nats when nats.servers is set, else embedded"),
            about: "embedded: inside the process, one host, no server. nats: the hosts that meet at the servers of [nats].",
        },
        Key {
            path: "bus.events_queued_max",
            kind: KeyType::Integer { min: 16, max: 1 << 20 },
            preset: Preset::Integer(256),
            about: "Events that a subscriber may lag behind before it misses the oldest.",
        },
        Key {
            path: "bus.request_timeout_s",
            kind: KeyType::Integer { min: 1, max: 600 },
            preset: Preset::Integer(30),
            about: "How long an asker waits for an answer when it does not say.",
        },
    ],
};
