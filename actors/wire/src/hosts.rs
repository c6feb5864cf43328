//! Which hosts there are, how they are, and what they have been told to do.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Address, HostId, Request, Topic};

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

impl Request for HostList {
    type Reply = HostListing;
    const CONCERN: &'static str = "hosts";
    const VERB: &'static str = "ls";
    const ADDRESS: Address = Address::Cluster;
    const ABOUT: &'static str = "The hosts, where they stand, what they have and how they are";
    fn sample() -> Self {
        Self {}
    }
    fn sample_reply() -> HostListing {
        HostListing {
            hosts: vec![HostInfo::sample()],
        }
    }
}

macro_rules! of_one_host {
    ($(#[$doc:meta])* $name:ident, $verb:literal, $about:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        pub struct $name {
            /// Which host.
            pub host: HostId,
        }

        impl Request for $name {
            type Reply = HostInfo;
            const CONCERN: &'static str = "hosts";
            const VERB: &'static str = $verb;
            const ADDRESS: Address = Address::Cluster;
            const ABOUT: &'static str = $about;
            fn sample() -> Self {
                Self { host: sample_host() }
            }
            fn sample_reply() -> HostInfo {
                HostInfo::sample()
            }
        }
    };
}

of_one_host!(
    /// Asks for one host.
    HostShow,
    "show",
    "One host"
);
of_one_host!(
    /// Tells a host to take only work that names it.
    HostCordon,
    "cordon",
    "Give a host no work but what names it"
);
of_one_host!(
    /// Tells a host to take work again.
    HostUncordon,
    "uncordon",
    "Give a host work again"
);
of_one_host!(
    /// Tells a host to take no jobs, and to finish or hand back what it has.
    HostDrain,
    "drain",
    "Give a host no jobs; it finishes or hands back what it has"
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

impl Topic for HostLost {
    const CONCERN: &'static str = "hosts";
    const WHAT: &'static str = "lost";
    const ABOUT: &'static str = "A host was silent for three beats";
    fn sample() -> Self {
        Self {
            host: sample_host(),
            boot: sample_boot(),
            silent_ms: 15_000,
            jobs_running: 1,
        }
    }
}

/// Event: a host came, came back, was told something, has drained or ended in good order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct HostChanged(pub HostInfo);

impl Topic for HostChanged {
    const CONCERN: &'static str = "hosts";
    const WHAT: &'static str = "changed";
    const ABOUT: &'static str = "A host came, came back, was told something, has drained or ended";
    fn sample() -> Self {
        Self(HostInfo::sample())
    }
}

fn sample_host() -> HostId {
    HostId::new("h1").unwrap_or_else(|_| unreachable!("h1 is a token"))
}

fn sample_boot() -> String {
    "01JCXQ6Y9D3W6V3S1W8Y5Z4K2M".into()
}

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
            boot: sample_boot(),
            silent_ms: 1_200,
            beat_every_ms: 5_000,
            jobs_running: 1,
            facts: HostFacts::sample(),
        }
    }
}
