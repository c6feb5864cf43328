//! Taking machines and giving them back: `claim`, `confirm`, `release`, `quarantine`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ask::sample_ask;
use super::{CONCERN, ClusterAsk};
use crate::messages::{SAMPLE_ID, request, topic};

/// Takes machines for a cluster: all or none. They are leased until confirmed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MetalClaim {
    /// Whose machines.
    pub tenant: String,
    /// The cluster.
    pub ask: ClusterAsk,
    /// A shipped policy by name; the tenant's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
}

/// How a cluster's machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// Taken; nobody has said yet that it is up.
    Leased,
    /// Up.
    Up,
}

/// A machine of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Member {
    /// The role that it serves.
    pub role: String,
    /// The machine.
    pub machine: String,
    /// Its provider.
    pub provider: String,
    /// The rack that was promised.
    pub rack: String,
    /// The zone that was promised.
    pub zone: String,
    /// How it is.
    pub state: MemberState,
}

/// How a cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClusterState {
    /// Machines are being taken; a broker that dies here leaves nothing taken.
    Claiming,
    /// Taken, and leased until each machine is confirmed.
    Leased,
    /// Every machine is up.
    Confirmed,
    /// Given back.
    Released,
    /// It came to nothing.
    Void,
}

/// What became of a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cluster {
    /// Its id.
    pub id: String,
    /// Whose.
    pub tenant: String,
    /// What was asked for.
    pub ask: ClusterAsk,
    /// How it is.
    pub state: ClusterState,
    /// Its machines.
    pub members: Vec<Member>,
    /// When it was claimed, RFC 3339.
    pub claimed_at: String,
    /// Machines that were replaced since.
    #[serde(default)]
    pub replaced: Vec<String>,
    /// The request came before; this is what became of it.
    #[serde(default)]
    pub duplicate: bool,
}

/// Says of a cluster's machine that it came up, and where; or that it did not, and then it is quarantined and replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MetalConfirm {
    /// Whose cluster.
    pub tenant: String,
    /// The cluster.
    pub id: String,
    /// The machine.
    pub machine: String,
    /// It is up.
    pub up: bool,
    /// The rack in which it found itself; not checked when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rack: Option<String>,
    /// The zone in which it found itself; not checked when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// Gives a cluster's machines back. Again is no error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MetalRelease {
    /// Whose cluster.
    pub tenant: String,
    /// The cluster.
    pub id: String,
}

/// Keeps a machine from being chosen, or lets it be chosen again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MetalQuarantine {
    /// Whose machine.
    pub tenant: String,
    /// The machine.
    pub machine: String,
    /// Lets it be chosen again.
    #[serde(default)]
    pub lift: bool,
    /// Why, for people.
    #[serde(default)]
    pub why: String,
}

/// A machine's quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Quarantined {
    /// The machine.
    pub machine: String,
    /// It is kept from being chosen.
    pub quarantined: bool,
    /// Why.
    pub why: String,
    /// The cluster that has it meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
}

/// A cluster has its machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MetalClaimed {
    /// Whose.
    pub tenant: String,
    /// The cluster.
    pub id: String,
    /// Its machines.
    pub machines: Vec<String>,
}

/// A cluster's machines were given back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MetalReleased {
    /// Whose.
    pub tenant: String,
    /// The cluster.
    pub id: String,
}

/// A machine is kept from being chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MetalQuarantined {
    /// Whose.
    pub tenant: String,
    /// The machine.
    pub machine: String,
    /// Why.
    pub why: String,
}

fn sample_cluster(state: ClusterState) -> Cluster {
    Cluster {
        id: SAMPLE_ID.into(),
        tenant: "acme".into(),
        ask: sample_ask(),
        state,
        members: vec![Member {
            role: "control".into(),
            machine: "m17".into(),
            provider: "hall-1".into(),
            rack: "r17".into(),
            zone: "z1".into(),
            state: MemberState::Leased,
        }],
        claimed_at: "2026-11-25T10:00:00Z".into(),
        replaced: vec!["m3".into()],
        duplicate: false,
    }
}

pub(super) fn sample_shown() -> Cluster {
    sample_cluster(ClusterState::Confirmed)
}

request!(
    MetalClaim,
    Cluster,
    "claim",
    Cluster,
    ChangesOnce,
    "Take machines for a cluster, all or none; they are leased until confirmed",
    Operator,
    MetalClaim {
        tenant: "acme".into(),
        ask: sample_ask(),
        policy: None,
    },
    sample_cluster(ClusterState::Leased)
);

request!(
    MetalConfirm,
    Cluster,
    "confirm",
    Cluster,
    Changes,
    "Say of a cluster's machine that it came up, or that it did not",
    Operator,
    MetalConfirm {
        tenant: "acme".into(),
        id: SAMPLE_ID.into(),
        machine: "m17".into(),
        up: true,
        rack: Some("r17".into()),
        zone: None,
    },
    sample_cluster(ClusterState::Confirmed)
);

request!(
    MetalRelease,
    Cluster,
    "release",
    Cluster,
    Changes,
    "Give a cluster's machines back",
    Operator,
    MetalRelease {
        tenant: "acme".into(),
        id: SAMPLE_ID.into(),
    },
    sample_cluster(ClusterState::Released)
);

request!(
    MetalQuarantine,
    Quarantined,
    "quarantine",
    Cluster,
    Changes,
    "Keep a machine from being chosen, or let it be chosen again",
    Operator,
    MetalQuarantine {
        tenant: "acme".into(),
        machine: "m3".into(),
        lift: false,
        why: "its fan rattles".into(),
    },
    Quarantined {
        machine: "m3".into(),
        quarantined: true,
        why: "its fan rattles".into(),
        cluster: Some(SAMPLE_ID.into()),
    }
);

topic!(
    MetalClaimed,
    "claimed",
    "A cluster has its machines",
    MetalClaimed {
        tenant: "acme".into(),
        id: SAMPLE_ID.into(),
        machines: vec!["m17".into()],
    }
);

topic!(
    MetalReleased,
    "released",
    "A cluster's machines were given back",
    MetalReleased {
        tenant: "acme".into(),
        id: SAMPLE_ID.into(),
    }
);

topic!(
    MetalQuarantined,
    "quarantined",
    "A machine is kept from being chosen",
    MetalQuarantined {
        tenant: "acme".into(),
        machine: "m3".into(),
        why: "it did not come up in 900 s".into(),
    }
);
