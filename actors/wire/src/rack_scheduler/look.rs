//! Looking: placements, why they are where they are, and what would fit.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CONCERN, Constraint, Inside, Placement, RackAsk, Resources, SAMPLE_ID, Select, Shortfall, VmSpec};
use crate::messages::request;

/// Lists placements, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RackList {
    /// Only this tenant's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Those after this id; for lists that come in pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// A placement in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RackListed {
    /// The placement.
    pub id: String,
    /// How it is.
    pub state: super::PlacementState,
    /// When it was committed, RFC 3339.
    pub created_at: String,
    /// Who pays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Groups with a home.
    pub groups: u64,
    /// VMs with a place.
    pub vms: u64,
    /// VMs without.
    pub unplaced: u64,
}

/// Placements, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RackListing {
    /// The placements.
    pub placements: Vec<RackListed>,
    /// Ask again with `after` this: there is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more_after: Option<String>,
}

/// Shows one placement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RackShow {
    /// Its id or a unique beginning.
    pub id: String,
}

/// Says why a placement is where it is, or why something doesn't fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RackExplain {
    /// A placement's id or a unique beginning: what its request would meet now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Or what someone wants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ask: Option<RackAsk>,
}

/// Why racks were passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refusal {
    /// What stood in the way.
    pub constraint: Constraint,
    /// In how many racks.
    pub racks: u64,
    /// One of them.
    pub example: String,
}

/// Why a group is where it is, or nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GroupWhy {
    /// The group.
    pub group: String,
    /// Its home rack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rack: Option<String>,
    /// Racks that could take it alone.
    pub racks_able: u64,
    /// Racks that could not.
    pub refused: Vec<Refusal>,
    /// For people.
    pub why: String,
}

/// Why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    /// All of it fits.
    pub fits: bool,
    /// Each group.
    pub groups: Vec<GroupWhy>,
    /// What is missing, when something is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shortfall: Option<Shortfall>,
}

/// Asks how many VMs of a kind fit, and what runs out first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RackWhatif {
    /// The kind; its `count` is the size of a group, 1 when there are none.
    pub vm: VmSpec,
    /// Inside each group.
    #[serde(default)]
    pub inside: Inside,
    /// Where.
    #[serde(default)]
    pub select: Select,
}

/// How many fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WhatifReport {
    /// VMs, each for itself.
    pub vms: u64,
    /// Groups of `count` VMs, each in one rack.
    pub groups: u64,
    /// Racks that can take at least one such group.
    pub racks: u64,
    /// What runs out first, on most hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs_out: Option<Constraint>,
    /// What stays free once they are there.
    pub left: Resources,
}

request!(
    RackList,
    RackListing,
    "ls",
    Cluster,
    Reads,
    "List placements, oldest first",
    Viewer,
    RackList {
        tenant: Some("ads".into()),
        after: None,
    },
    RackListing {
        placements: vec![RackListed {
            id: SAMPLE_ID.into(),
            state: super::PlacementState::Placed,
            created_at: "2026-11-24T03:00:00Z".into(),
            tenant: Some("ads".into()),
            groups: 10,
            vms: 100,
            unplaced: 0,
        }],
        more_after: None,
    }
);

request!(
    RackShow,
    Placement,
    "show",
    Cluster,
    Reads,
    "Show one placement",
    Viewer,
    RackShow { id: SAMPLE_ID.into() },
    Placement::sample()
);

request!(
    RackExplain,
    Explanation,
    "explain",
    Cluster,
    Reads,
    "Say why groups are where they are, or why they don't fit",
    Viewer,
    RackExplain {
        id: None,
        ask: Some(RackAsk::sample()),
    },
    Explanation {
        fits: true,
        groups: vec![GroupWhy {
            group: "g0".into(),
            rack: Some("r17".into()),
            racks_able: 12,
            refused: vec![Refusal {
                constraint: Constraint::Memory,
                racks: 488,
                example: "r1".into(),
            }],
            why: "the least is left over there, of 12 racks that could take it".into(),
        }],
        shortfall: None,
    }
);

request!(
    RackWhatif,
    WhatifReport,
    "whatif",
    Cluster,
    Reads,
    "Say how many VMs of a kind fit, and what runs out first",
    Viewer,
    RackWhatif {
        vm: VmSpec {
            count: 10,
            vcpus: 4,
            memory_mib: 8192,
            ..VmSpec::default()
        },
        inside: Inside::default(),
        select: Select::default(),
    },
    WhatifReport {
        vms: 1200,
        groups: 110,
        racks: 80,
        runs_out: Some(Constraint::Memory),
        left: super::sample_host(),
    }
);
