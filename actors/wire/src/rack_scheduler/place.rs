//! Placing, and what came of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CONCERN, RackAsk, Resources, SAMPLE_ID, sample_vm};
use crate::messages::{request, topic};

/// Places VMs and commits to it. The same request id has one effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RackPlace {
    /// What is wanted.
    pub ask: RackAsk,
}

/// Says where VMs would go; nothing is changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RackPlan {
    /// What is wanted.
    pub ask: RackAsk,
}

/// VMs of a group on one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlacedHost {
    /// The host.
    pub host: String,
    /// Names of the VMs: the group's, `-`, a number.
    pub vms: Vec<String>,
}

/// A group and its home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlacedGroup {
    /// Its name within the placement.
    pub name: String,
    /// Its home rack; none when nothing of it was placed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rack: Option<String>,
    /// The rack's row.
    pub row: String,
    /// The rack's zone.
    pub zone: String,
    /// Its VMs by host.
    pub hosts: Vec<PlacedHost>,
    /// Why this rack.
    pub why: String,
}

/// What stood in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Constraint {
    /// `select` leaves no rack, or names one that isn't there.
    Select,
    /// No host carries the labels.
    Labels,
    /// Virtual CPUs.
    Vcpus,
    /// Memory.
    Memory,
    /// Local disk.
    Disk,
    /// GPUs.
    Gpus,
    /// Network interfaces.
    Nics,
    /// Each rack has enough in sum, but on too many hosts.
    Fragmentation,
    /// `inside.per_host_max`.
    PerHost,
    /// Too few racks that could each take a group.
    Apart,
    /// Groups that belong together are too large for any rack.
    Together,
    /// No row or zone can take all groups that want to be near.
    Near,
    /// The tenant's quota.
    Quota,
    /// The search ended at its limit before it found a way; there may be one.
    Search,
}

/// What is missing, and what would help.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Shortfall {
    /// What stood in the way.
    pub constraint: Constraint,
    /// Of which group; none when of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// For people.
    pub message: String,
    /// What is missing, as far as it can be counted.
    #[serde(default)]
    pub missing: Resources,
    /// The smallest change that would make it fit, as far as one was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<String>,
}

/// VMs of a group that have no place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unplaced {
    /// The group.
    pub group: String,
    /// How many of its VMs.
    pub vms: u64,
}

/// Where VMs would go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanReport {
    /// All of it has a place.
    pub fits: bool,
    /// The groups.
    pub groups: Vec<PlacedGroup>,
    /// What has no place.
    pub unplaced: Vec<Unplaced>,
    /// Why, when something has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shortfall: Option<Shortfall>,
    /// Preferences that gave way, for people.
    pub gave_way: Vec<String>,
    /// Racks used.
    pub racks: u64,
}

/// How a placement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlacementState {
    /// Committed.
    Placed,
    /// Its VMs are being given back.
    Releasing,
    /// Given back; kept for a while so that the same request hears the same answer.
    Released,
}

/// A committed placement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Placement {
    /// Its id: a ULID, or what followed from the request id.
    pub id: String,
    /// How it is.
    pub state: PlacementState,
    /// When it was committed, RFC 3339.
    pub created_at: String,
    /// Who pays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Grows with every change.
    pub version: u64,
    /// All of what was asked for has a place.
    pub fits: bool,
    /// The groups.
    pub groups: Vec<PlacedGroup>,
    /// What has no place.
    pub unplaced: Vec<Unplaced>,
    /// Preferences that gave way, for people.
    pub gave_way: Vec<String>,
    /// The request came before; this is what became of it then.
    pub duplicate: bool,
}

impl PlacedGroup {
    pub(super) fn sample() -> Self {
        Self {
            name: "g0".into(),
            rack: Some("r17".into()),
            row: "a".into(),
            zone: "z1".into(),
            hosts: vec![PlacedHost {
                host: "r17-h3".into(),
                vms: vec!["g0-0".into(), "g0-1".into()],
            }],
            why: "the least is left over there, of 12 racks that could take it".into(),
        }
    }
}

impl Placement {
    pub(super) fn sample() -> Self {
        Self {
            id: SAMPLE_ID.into(),
            state: PlacementState::Placed,
            created_at: "2026-11-24T03:00:00Z".into(),
            tenant: Some("ads".into()),
            version: 1,
            fits: true,
            groups: vec![PlacedGroup::sample()],
            unplaced: vec![],
            gave_way: vec![],
            duplicate: false,
        }
    }
}

request!(
    RackPlace,
    Placement,
    "place",
    Cluster,
    ChangesOnce,
    "Place VMs in groups, each with a home rack, and commit to it",
    Operator,
    RackPlace { ask: RackAsk::sample() },
    Placement::sample()
);

request!(
    RackPlan,
    PlanReport,
    "plan",
    Cluster,
    Reads,
    "Say where VMs would go; nothing is changed",
    Viewer,
    RackPlan { ask: RackAsk::sample() },
    PlanReport {
        fits: false,
        groups: vec![PlacedGroup::sample()],
        unplaced: vec![Unplaced {
            group: "g9".into(),
            vms: 10
        }],
        shortfall: Some(Shortfall {
            constraint: Constraint::Apart,
            group: Some("g9".into()),
            message: "9 racks can each take a group of 10 VMs; 10 groups are apart".into(),
            missing: sample_vm(),
            change: Some("divide into 9 groups".into()),
        }),
        gave_way: vec![],
        racks: 9,
    }
);

/// Event: VMs have a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RackPlaced {
    /// The placement.
    pub id: String,
    /// Grows with every change.
    pub version: u64,
    /// Who pays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// VMs that have a place.
    pub vms: u64,
}

topic!(
    RackPlaced,
    "placed",
    "A placement was committed, or changed",
    Self {
        id: SAMPLE_ID.into(),
        version: 1,
        tenant: Some("ads".into()),
        vms: 100,
    }
);

/// Event: VMs gave their place back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RackReleased {
    /// The placement.
    pub id: String,
}

topic!(
    RackReleased,
    "released",
    "A placement was given back",
    Self { id: SAMPLE_ID.into() }
);
