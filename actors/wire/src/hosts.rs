//! Which hosts there are, how they are, and what they have been told to do.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::catalog::Room;
use crate::messages::{SAMPLE_ID, request, sample_host, topic};
use crate::{HostId, members};

const CONCERN: &str = "hosts";

pub(crate) fn room() -> Room {
    Room::default()
        .request::<HostList>()
        .request::<HostShow>()
        .request::<HostCordon>()
        .request::<HostUncordon>()
        .request::<HostDrain>()
        .request::<members::HostToken>()
        .request::<members::HostRevoke>()
        .request::<members::HostMembers>()
        .topic::<HostLost>()
        .topic::<HostChanged>()
        .topic::<members::HostRefused>()
}

/// How a host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HostState {
    /// It beats, and takes work.
    Up,
    /// It beats, and takes only work that names it.
    Cordoned,
    /// It takes no jobs and finishes or hands back what it has.
    Draining,
    /// It takes no jobs and has none.
    Drained,
    /// Silent for three beats. Whether it works on, nobody can tell from outside.
    Lost,
    /// Ended in good order.
    Stopped,
}

impl HostState {
    /// The state as it stands on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            HostState::Up => "up",
            HostState::Cordoned => "cordoned",
            HostState::Draining => "draining",
            HostState::Drained => "drained",
            HostState::Lost => "lost",
            HostState::Stopped => "stopped",
        }
    }
}

/// What a person told a host; it holds over restarts, until it is taken back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HostOrder {
    /// Take work.
    #[default]
    Serve,
    /// Take only work that names this host.
    Cordon,
    /// Take no jobs, and finish or hand back what is in hand.
    Drain,
}

/// Where a host stands and what it can do; its own configuration says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostFacts {
    /// Its rack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rack: Option<String>,
    /// The row of racks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row: Option<String>,
    /// The zone: what shares power and network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Words of its owner.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What it has.
    pub capacity: HostCapacity,
    /// The concerns that it serves.
    pub concerns: Vec<String>,
    /// windlass's version.
    pub version: String,
}

/// What a host has for workloads, in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostCapacity {
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Disk, in bytes.
    pub disk_bytes: u64,
    /// GPUs.
    #[serde(default, skip_serializing_if = "none_of_it")]
    pub gpus: u32,
    /// Network interfaces that VMs can have.
    #[serde(default, skip_serializing_if = "none_of_it")]
    pub nics: u32,
}

fn none_of_it(amount: &u32) -> bool {
    *amount == 0
}

/// A host's heartbeat, as it stands in State.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostBeat {
    /// Which host.
    pub host: HostId,
    /// Which of its processes: another one after each start.
    pub boot: String,
    /// Counts this process's beats. No time stands here: nobody compares two hosts' clocks.
    pub count: u64,
    /// How far apart its beats are, in milliseconds.
    pub beat_every_ms: u64,
    /// What it does with jobs now.
    pub state: HostState,
    /// Jobs that it has in hand.
    pub jobs_running: u64,
    /// Where it stands and what it can do.
    pub facts: HostFacts,
}

/// A host as the others see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostInfo {
    /// Its id.
    pub host: HostId,
    /// How it is.
    pub state: HostState,
    /// What it was told.
    pub order: HostOrder,
    /// Which of its processes beat last.
    pub boot: String,
    /// How long ago the host that answers heard of it, in milliseconds of the answering host's own clock.
    pub silent_ms: u64,
    /// How far apart its beats are, in milliseconds.
    pub beat_every_ms: u64,
    /// Jobs that it had in hand at its last beat.
    pub jobs_running: u64,
    /// Where it stands and what it can do.
    pub facts: HostFacts,
}

/// Asks which hosts there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostList {}

/// Hosts, by id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostListing {
    /// The hosts.
    pub hosts: Vec<HostInfo>,
}

request!(
    HostList,
    HostListing,
    "ls",
    Cluster,
    Reads,
    "The hosts, where they stand, what they have and how they are",
    Viewer,
    Self {},
    HostListing {
        hosts: vec![HostInfo::sample()],
    }
);

/// Asks for one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostShow {
    /// Which host.
    pub host: HostId,
}

request!(
    HostShow,
    HostInfo,
    "show",
    Cluster,
    Reads,
    "One host",
    Viewer,
    Self { host: sample_host() },
    HostInfo::sample()
);

/// Tells a host to take only work that names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostCordon {
    /// Which host.
    pub host: HostId,
}

request!(
    HostCordon,
    HostInfo,
    "cordon",
    Cluster,
    Changes,
    "Give a host no work but what names it",
    Operator,
    Self { host: sample_host() },
    HostInfo::sample()
);

/// Tells a host to take work again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostUncordon {
    /// Which host.
    pub host: HostId,
}

request!(
    HostUncordon,
    HostInfo,
    "uncordon",
    Cluster,
    Changes,
    "Give a host work again",
    Operator,
    Self { host: sample_host() },
    HostInfo::sample()
);

/// Tells a host to take no jobs, and to finish or hand back what it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostDrain {
    /// Which host.
    pub host: HostId,
}

request!(
    HostDrain,
    HostInfo,
    "drain",
    Cluster,
    Changes,
    "Give a host no jobs; it finishes or hands back what it has",
    Operator,
    Self { host: sample_host() },
    HostInfo::sample()
);

/// Event: a host was silent for three beats.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostLost {
    /// Which host.
    pub host: HostId,
    /// Which of its processes.
    pub boot: String,
    /// How long it had been silent, in milliseconds of the clock of the host that says so.
    pub silent_ms: u64,
    /// Jobs that it had in hand at its last beat; their queues deliver them to others.
    pub jobs_running: u64,
}

topic!(
    HostLost,
    "lost",
    "A host was silent for three beats",
    Self {
        host: sample_host(),
        boot: SAMPLE_ID.into(),
        silent_ms: 15_000,
        jobs_running: 1,
    }
);

/// Event: a host came, came back, was told something, has drained or ended in good order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct HostChanged(pub HostInfo);

topic!(
    HostChanged,
    "changed",
    "A host came, came back, was told something, has drained or ended",
    Self(HostInfo::sample())
);

impl HostFacts {
    /// Facts for documents and tests.
    pub fn sample() -> Self {
        Self {
            rack: Some("r12".into()),
            row: Some("c".into()),
            zone: Some("eu1-a".into()),
            labels: [("disk".to_owned(), "nvme".to_owned())].into(),
            capacity: HostCapacity {
                vcpus: 64,
                memory_bytes: 256 << 30,
                disk_bytes: 4 << 40,
                gpus: 4,
                nics: 32,
            },
            concerns: vec!["snapshot".into()],
            version: "0.1.0".into(),
        }
    }
}

impl HostInfo {
    /// A host for documents and golden tests.
    pub fn sample() -> Self {
        Self {
            host: sample_host(),
            state: HostState::Up,
            order: HostOrder::Serve,
            boot: SAMPLE_ID.into(),
            silent_ms: 1_200,
            beat_every_ms: 5_000,
            jobs_running: 1,
            facts: HostFacts::sample(),
        }
    }
}
