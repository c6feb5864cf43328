//! The daemon itself: its status, and what its keeper tells of concerns.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::HostId;
use crate::catalog::Room;
use crate::messages::{request, sample_host, topic};

const CONCERN: &str = "house";

pub(crate) fn room() -> Room {
    Room::default()
        .request::<Status>()
        .topic::<ConcernFailed>()
        .topic::<DataLost>()
}

/// Asks a host how it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Status {}

/// How a concern is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConcernState {
    /// Not configured to run here.
    Off,
    /// Serving.
    Up,
    /// Died and waiting to be built again.
    Restarting,
    /// Finishing what it has, taking nothing new.
    Draining,
    /// Spent its restart budget; the others go on.
    Failed,
    /// Ended in good order.
    Stopped,
}

/// One concern of a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConcernStatus {
    /// The concern's one spelling.
    pub concern: String,
    /// How it is.
    pub state: ConcernState,
    /// Messages waiting in its mailbox.
    pub mailbox_messages: u64,
    /// How many may wait.
    pub mailbox_messages_max: u64,
    /// Messages answered since boot, by outcome (`ok` or an error code).
    pub answered: std::collections::BTreeMap<String, u64>,
    /// Deaths since boot, by cause (`panic`, …).
    pub deaths: std::collections::BTreeMap<String, u64>,
    /// What the actor itself says of its state.
    pub observed: serde_json::Value,
}

/// How a host is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StatusReply {
    /// Its id.
    pub host: HostId,
    /// windlass's version.
    pub version: String,
    /// The process.
    pub pid: u32,
    /// When it started, RFC 3339.
    pub started_at: String,
    /// `embedded` or `lattice`.
    pub mode: String,
    /// Where its state is kept.
    pub state_dir: String,
    /// Each concern that is configured.
    pub concerns: Vec<ConcernStatus>,
    /// Jobs that are queued or running.
    pub jobs_open: u64,
    /// What the daemon gave up when it started; absent where it gave up nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardening: Option<Hardening>,
}

/// What a daemon gave up when it started, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hardening {
    /// No program that it runs gains rights by it.
    pub no_new_privs: bool,
    /// System calls that are refused.
    pub seccomp: String,
    /// Places of the file system that are out of reach.
    pub landlock: String,
    /// Capabilities that it kept.
    pub capabilities: Vec<String>,
}

request!(
    Status,
    StatusReply,
    "status",
    Host,
    Reads,
    "How this host and each of its concerns is",
    Viewer,
    Self {},
    StatusReply {
        host: sample_host(),
        version: "0.1.0".into(),
        pid: 4711,
        started_at: "2026-11-24T03:00:00Z".into(),
        mode: "embedded".into(),
        state_dir: "/var/lib/windlass".into(),
        concerns: vec![ConcernStatus {
            concern: "snapshot".into(),
            state: ConcernState::Up,
            mailbox_messages: 0,
            mailbox_messages_max: 1000,
            answered: [("ok".to_owned(), 12)].into(),
            deaths: [("panic".to_owned(), 1)].into(),
            observed: serde_json::json!({"jobs_running": 1}),
        }],
        jobs_open: 1,
        hardening: Some(Hardening {
            no_new_privs: true,
            seccomp: "on: 62 system calls are refused".into(),
            landlock: "on: no files but those of its places".into(),
            capabilities: vec!["CAP_DAC_OVERRIDE".into()],
        }),
    }
);

/// Event: a concern spent its restart budget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConcernFailed {
    /// Where.
    pub host: HostId,
    /// Which.
    pub concern: String,
    /// How often it died within the budget's window.
    pub deaths: u64,
    /// The last cause.
    pub cause: String,
}

topic!(
    ConcernFailed,
    "concern_failed",
    "A concern spent its restart budget; the others go on",
    Self {
        host: sample_host(),
        concern: "snapshot".into(),
        deaths: 6,
        cause: "panic".into(),
    }
);

/// Event: what a store had acknowledged is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DataLost {
    /// Who noticed.
    pub host: HostId,
    /// Whose: a stream of the NATS servers.
    pub store: String,
    /// What is gone, for people.
    pub what: String,
}

topic!(
    DataLost,
    "data_lost",
    "What a store had acknowledged is gone",
    Self {
        host: sample_host(),
        store: "KV_windlass".into(),
        what: "stream KV_windlass of the NATS servers was made anew: what it held up to sequence 12 is gone".into(),
    }
);
