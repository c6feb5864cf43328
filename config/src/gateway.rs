//! `[gateway]`: HTTP on a Unix socket, and on TCP where that is asked for.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::key::{Key, KeyType, Preset, Reload, Section};

/// The HTTP gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    /// The Unix socket.
    pub socket: PathBuf,
    /// Address on which it also listens; empty: on none.
    pub listen: String,
    /// A name by which callers of that address may call it.
    pub public_name: String,
    /// The file with the token that callers of that address must show.
    pub token_file: PathBuf,
    /// The file with the tokens of people, each with a name and a role.
    pub tokens_file: PathBuf,
    /// Connections at once, on the socket and on the address each.
    pub connections_max: u64,
    /// Time for a request's head, and for each wait of a connection.
    pub idle_timeout_s: u64,
    /// Blobs that are streamed at once.
    pub blobs_in_flight_max: u64,
    /// Requests that may be under way at once.
    pub requests_in_flight_max: u64,
    /// Followers of events at once.
    pub followers_max: u64,
}

pub(crate) static SECTION: Section = Section {
    name: "gateway",
    about: "HTTP on a Unix socket (mode 0600): how the command line reaches a running daemon.",
    reload: Reload::Only(&["blobs_in_flight_max", "requests_in_flight_max", "followers_max"]),
    keys: &[
        Key {
            path: "gateway.socket",
            kind: KeyType::Path,
            preset: Preset::Derived("windlass.sock in state_dir"),
            about: "Where the socket is made.",
        },
        Key {
            path: "gateway.listen",
            kind: KeyType::Listen,
            preset: Preset::Text(""),
            about: "Address and port on which the gateway listens as well, such as 127.0.0.1:7070; empty: none. Callers need the token; without TLS, so keep it on loopback or behind a proxy that has it (docs/gateway.md).",
        },
        Key {
            path: "gateway.public_name",
            kind: KeyType::HostName,
            preset: Preset::Text(""),
            about: "A name by which callers of gateway.listen may call it, besides its address (the Host header is checked); empty: none.",
        },
        Key {
            path: "gateway.token_file",
            kind: KeyType::Path,
            preset: Preset::Derived("gateway.token in state_dir"),
            about: "A token of an admin, for callers of gateway.listen: 32 to 4096 visible characters in a file that only its owner can read. Needn't be there when tokens_file has tokens.",
        },
        Key {
            path: "gateway.tokens_file",
            kind: KeyType::Path,
            preset: Preset::Derived("gateway.tokens in state_dir"),
            about: "Tokens of people for callers of gateway.listen, each with a name and a role, as `windlass gateway token add` writes them: only what they hash to. Read again when it changes.",
        },
        Key {
            path: "gateway.connections_max",
            kind: KeyType::Integer { min: 1, max: 10_000 },
            preset: Preset::Integer(512),
            about: "Connections at once, on the socket and on gateway.listen each; more wait to be taken.",
        },
        Key {
            path: "gateway.idle_timeout_s",
            kind: KeyType::Integer { min: 1, max: 3600 },
            preset: Preset::Integer(30),
            about: "Time for a request's head, for its body, and for a caller to take more of an answer; then the connection ends.",
        },
        Key {
            path: "gateway.blobs_in_flight_max",
            kind: KeyType::Integer { min: 1, max: 1000 },
            preset: Preset::Integer(8),
            about: "Blobs that are streamed at once, each with up to 40 MiB of memory; more are answered `busy`.",
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
