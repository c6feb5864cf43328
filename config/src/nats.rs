//! `[nats]`: the servers that the hosts of a fleet meet at.

use serde::{Deserialize, Serialize};

use crate::key::{Key, KeyType, Preset, Reload, Section};

/// The servers that the hosts of a fleet meet at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nats {
    /// Their URLs, with commas between.
    pub servers: String,
    /// A file of two lines: user, password; or nothing.
    pub user_file: String,
    /// A file with the seed of an nkey; or nothing.
    pub nkey_file: String,
    /// A `.creds` file; or nothing.
    pub creds_file: String,
    /// The person whose credentials these are; or nothing: a host's.
    pub person: String,
    /// The log of a server on this host; or nothing.
    pub server_log: String,
    /// The authority of the servers' certificates; or nothing.
    pub ca_file: String,
    /// Our certificate; or nothing.
    pub cert_file: String,
    /// Its key; or nothing.
    pub key_file: String,
    /// Copies of what the servers keep; 0 is as many as fit.
    pub replicas: u64,
    /// Silence after which a server is asked whether it lives, in seconds.
    pub ping_interval_s: u64,
    /// How long the servers may take to acknowledge a write, in seconds.
    pub ack_timeout_s: u64,
    /// Jobs of all hosts that may be open.
    pub jobs_open_max: u64,
    /// Finished jobs of all hosts that are kept.
    pub jobs_kept_max: u64,
}

impl Nats {
    /// The URLs of the servers.
    pub fn server_list(&self) -> Vec<String> {
        let urls = self.servers.split(',').map(str::trim).filter(|url| !url.is_empty());
        urls.map(str::to_owned).collect()
    }
    /// What no key can say alone: the key at fault, and why.
    pub(crate) fn fault(&self) -> Option<(&'static str, String)> {
        let named = [&self.user_file, &self.nkey_file, &self.creds_file];
        if named.iter().filter(|file| !file.is_empty()).count() > 1 {
            let why = "at most one of user_file, nkey_file and creds_file may be named";
            return Some(("nats.user_file", why.to_owned()));
        }
        (self.cert_file.is_empty() != self.key_file.is_empty()).then(|| {
            (
                "nats.cert_file",
                "cert_file and key_file go together; one is missing".to_owned(),
            )
        })
    }
}

pub(crate) static SECTION: Section = Section {
    name: "nats",
    about: "The NATS servers that the hosts of a fleet meet at, when bus.mode is \"nats\". docs/lattice.md tells how to run them.",
    reload: Reload::Only(&["jobs_kept_max"]),
    keys: &[
        Key {
            path: "nats.servers",
            kind: KeyType::NatsServers,
            preset: Preset::Text("nats://127.0.0.1:4222"),
            about: "Their URLs, nats:// or tls://, with commas between. Naming them (--nats, WINDLASS_NATS, or here) also sets bus.mode to \"nats\" where nothing else is said.",
        },
        Key {
            path: "nats.user_file",
            kind: KeyType::SecretOrEmpty,
            preset: Preset::Text(""),
            about: "Where two lines are, user and password: a file, env:NAME, or credential:NAME (of systemd). At most one of user_file, nkey_file and creds_file.",
        },
        Key {
            path: "nats.nkey_file",
            kind: KeyType::SecretOrEmpty,
            preset: Preset::Text(""),
            about: "Where the seed of an nkey (SU...) is: a file, env:NAME, or credential:NAME.",
        },
        Key {
            path: "nats.creds_file",
            kind: KeyType::SecretOrEmpty,
            preset: Preset::Text(""),
            about: "Where a .creds file, with a JWT and its seed, is: a file, env:NAME, or credential:NAME.",
        },
        Key {
            path: "nats.person",
            kind: KeyType::TokenOrEmpty,
            preset: Preset::Text(""),
            about: "The name of the person whose credentials these are, for verbs: `windlass nats-permissions --person NAME` gives a person's own subjects. Empty: the host's.",
        },
        Key {
            path: "nats.server_log",
            kind: KeyType::PathOrEmpty,
            preset: Preset::Text(""),
            about: "The log of a NATS server that runs on this host: whom it refuses is noted in the audit, for a server tells nobody else. Empty: none.",
        },
        Key {
            path: "nats.ca_file",
            kind: KeyType::PathOrEmpty,
            preset: Preset::Text(""),
            about: "Certificates (PEM) of the authority that signed the servers'; the system's when empty.",
        },
        Key {
            path: "nats.cert_file",
            kind: KeyType::PathOrEmpty,
            preset: Preset::Text(""),
            about: "This host's certificate (PEM), for servers that want one; goes with key_file.",
        },
        Key {
            path: "nats.key_file",
            kind: KeyType::PathOrEmpty,
            preset: Preset::Text(""),
            about: "The key of cert_file (PEM).",
        },
        Key {
            path: "nats.replicas",
            kind: KeyType::Integer { min: 0, max: 5 },
            preset: Preset::Integer(0),
            about: "Copies of events, state and jobs: 1, 3 or 5; 0 is 3 where the servers are a cluster, else 1.",
        },
        Key {
            path: "nats.ping_interval_s",
            kind: KeyType::Integer { min: 1, max: 120 },
            preset: Preset::Integer(5),
            about: "Silence after which a server is asked whether it lives; two unanswered are a lost connection.",
        },
        Key {
            path: "nats.ack_timeout_s",
            kind: KeyType::Integer { min: 1, max: 60 },
            preset: Preset::Integer(5),
            about: "How long the servers may take to acknowledge a write; it is sent again twice before it is an error.",
        },
        Key {
            path: "nats.jobs_open_max",
            kind: KeyType::Integer {
                min: 1,
                max: 10_000_000,
            },
            preset: Preset::Integer(100_000),
            about: "Jobs of all hosts together that may wait or run; more are answered `busy`. Fixed when the stream is made.",
        },
        Key {
            path: "nats.jobs_kept_max",
            kind: KeyType::Integer { min: 1, max: 1_000_000 },
            preset: Preset::Integer(10_000),
            about: "Finished jobs of all hosts together that are kept; the oldest go first.",
        },
    ],
};
