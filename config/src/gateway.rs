//! `[gateway]`: HTTP on a Unix socket.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::key::{Key, KeyType, Preset, Section};

/// The HTTP gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    /// The Unix socket.
    pub socket: PathBuf,
    /// Requests that may be under way at once.
    pub requests_in_flight_max: u64,
    /// Followers of events at once.
    pub followers_max: u64,
}

pub(crate) static SECTION: Section = Section {
    name: "gateway",
    about: "HTTP on a Unix socket (mode 0600): how the command line reaches a running daemon.",
    keys: &[
        Key {
            path: "gateway.socket",
            kind: KeyType::Path,
            preset: Preset::Derived("windlass.sock in state_dir"),
            about: "Where the socket is made.",
        },
        Key {
            path: "gateway.requests_in_flight_max",
            kind: KeyType::Integer { min: 1, max: 10_000 },
            preset: Preset::Integer(256),
            about: "Requests that may be under way at once; more are answered `busy`.",
        },
        Key {
            path: "gateway.followers_max",
            kind: KeyType::Integer { min: 1, max: 10_000 },
            preset: Preset::Integer(64),
            about: "Followers of events at once; more are answered `busy`.",
        },
    ],
};
