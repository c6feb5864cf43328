//! Changing what is placed: release, grow, shrink, evacuate.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CONCERN, HostState, Placement, SAMPLE_ID, VmSpec};
use crate::messages::request;

/// Gives a placement back. Again is no error while it is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RackRelease {
    /// Its id or a unique beginning.
    pub id: String,
}

/// What was given back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Released {
    /// The placement.
    pub id: String,
    /// VMs that gave their place back now.
    pub vms: u64,
}

/// Adds VMs to a placement's groups, in their home racks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RackGrow {
    /// The placement's id or a unique beginning.
    pub id: String,
    /// What is added: the smallest groups get it first.
    pub vms: Vec<VmSpec>,
    /// Only to these groups; to all when empty.
    #[serde(default)]
    pub groups: Vec<String>,
}

/// Takes VMs from a placement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RackShrink {
    /// The placement's id or a unique beginning.
    pub id: String,
    /// So many: from the largest groups, the youngest VMs first.
    #[serde(default)]
    pub count: u64,
    /// These, by name.
    #[serde(default)]
    pub vms: Vec<String>,
}

/// Moves VMs off a host or a rack that is drained or lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RackEvacuate {
    /// The host: its VMs move within their home racks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The rack: its groups get another home.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rack: Option<String>,
    /// `draining` or `lost`.
    pub state: HostState,
    /// With a host: a group that has no room left in its home rack moves as a whole.
    #[serde(default)]
    pub move_groups: bool,
}

/// A VM that moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Moved {
    /// Of which placement.
    pub placement: String,
    /// The VM.
    pub vm: String,
    /// Where it was.
    pub from: String,
    /// Where it is.
    pub to: String,
}

/// VMs that could not move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stuck {
    /// Of which placement.
    pub placement: String,
    /// Of which group.
    pub group: String,
    /// How many; they stay booked where they are.
    pub vms: u64,
    /// Why.
    pub why: String,
}

/// What an evacuation did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EvacuateReport {
    /// Hosts that take nothing new now.
    pub hosts: u64,
    /// VMs that moved.
    pub moved: Vec<Moved>,
    /// VMs that could not.
    pub stuck: Vec<Stuck>,
}

request!(
    RackRelease,
    Released,
    "release",
    Cluster,
    Changes,
    "Give a placement back",
    Operator,
    RackRelease { id: SAMPLE_ID.into() },
    Released {
        id: SAMPLE_ID.into(),
        vms: 100
    }
);

request!(
    RackGrow,
    Placement,
    "grow",
    Cluster,
    ChangesOnce,
    "Add VMs to a placement's groups, in their home racks",
    Operator,
    RackGrow {
        id: SAMPLE_ID.into(),
        vms: vec![VmSpec {
            count: 10,
            vcpus: 4,
            memory_mib: 8192,
            ..VmSpec::default()
        }],
        groups: vec!["g0".into()],
    },
    Placement::sample()
);

request!(
    RackShrink,
    Placement,
    "shrink",
    Cluster,
    Changes,
    "Take VMs from a placement",
    Operator,
    RackShrink {
        id: SAMPLE_ID.into(),
        count: 0,
        vms: vec!["g0-1".into()],
    },
    Placement::sample()
);

request!(
    RackEvacuate,
    EvacuateReport,
    "evacuate",
    Cluster,
    Changes,
    "Move VMs off a host or a rack that is drained or lost",
    Operator,
    RackEvacuate {
        host: Some("r17-h3".into()),
        rack: None,
        state: HostState::Lost,
        move_groups: false,
    },
    EvacuateReport {
        hosts: 1,
        moved: vec![Moved {
            placement: SAMPLE_ID.into(),
            vm: "g0-0".into(),
            from: "r17-h3".into(),
            to: "r17-h5".into(),
        }],
        stuck: vec![Stuck {
            placement: SAMPLE_ID.into(),
            group: "g1".into(),
            vms: 1,
            why: "no room in r17".into(),
        }],
    }
);
