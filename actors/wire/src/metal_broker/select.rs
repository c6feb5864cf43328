//! Picking machines and saying why: `select`, `explain`. Nothing is changed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ask::sample_ask;
use super::{CONCERN, ClusterAsk};
use crate::messages::request;

/// Says which machines a cluster would get; nothing is changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MetalSelect {
    /// Whose machines.
    pub tenant: String,
    /// The cluster.
    pub ask: ClusterAsk,
    /// A shipped policy by name; the tenant's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
}

/// One part of what a machine costs for a role, in millionths of a weight of 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Term {
    /// Which: `excess.cores`, `forecast`, `health`, or a policy's own.
    pub name: String,
    /// How much.
    pub cost_millionths: i64,
}

/// A machine that was chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Chosen {
    /// The role that it serves.
    pub role: String,
    /// The machine.
    pub machine: String,
    /// Its rack.
    pub rack: String,
    /// Its zone.
    pub zone: String,
    /// What it costs.
    pub cost_millionths: i64,
    /// Of what parts; empty where nothing counts against it.
    pub terms: Vec<Term>,
}

/// A rule of the policy that erred. It excluded nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RuleError {
    /// The rule or score.
    pub rule: String,
    /// A machine on which it erred.
    pub machine: String,
    /// Why.
    pub why: String,
    /// How often it erred in this selection.
    pub times: u64,
}

/// Whether the forecast counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ForecastUse {
    /// It did.
    pub used: bool,
    /// Why, or why not.
    pub why: String,
}

/// What is missing, where a cluster doesn't fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Missing {
    /// The role.
    pub role: String,
    /// Nodes without a machine.
    pub nodes: u64,
    /// What most machines fail by, and how many.
    pub why: String,
    /// What would have to change.
    pub change: String,
}

/// What a cluster would get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Selection {
    /// Every node has a machine.
    pub fits: bool,
    /// The machines; none unless it fits.
    pub chosen: Vec<Chosen>,
    /// What the set costs as a whole, spread counted in.
    pub cost_millionths: i64,
    /// By this policy.
    pub policy: String,
    /// Whether the forecast counted.
    pub forecast: ForecastUse,
    /// Rules that erred.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rule_errors: Vec<RuleError>,
    /// What is missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Missing>,
    /// Age of the oldest part of the inventory, in seconds; 0 without machines.
    pub inventory_age_s: u64,
}

/// Says why these machines and no others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MetalExplain {
    /// Whose machines.
    pub tenant: String,
    /// The cluster.
    pub ask: ClusterAsk,
    /// Only of this machine; of all, up to a thousand, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// A shipped policy by name; the tenant's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
}

/// Why a machine was not chosen for a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WhyNot {
    /// The machine.
    pub machine: String,
    /// For this role.
    pub role: String,
    /// The first rule that it fails; absent where it may be used and others are better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fails: Option<String>,
    /// How much more it costs than the dearest that was chosen for the role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub costs_more_millionths: Option<i64>,
    /// By what parts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub terms: Vec<Term>,
    /// What would have to change.
    pub change: String,
}

/// Why these machines and no others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    /// What would be chosen.
    pub selection: Selection,
    /// Every other machine, by id.
    pub others: Vec<WhyNot>,
    /// Others that are left out here.
    pub others_left_out: u64,
}

pub(super) fn sample_selection() -> Selection {
    Selection {
        fits: true,
        chosen: vec![Chosen {
            role: "control".into(),
            machine: "m17".into(),
            rack: "r17".into(),
            zone: "z1".into(),
            cost_millionths: 187_500,
            terms: vec![Term {
                name: "excess.cores".into(),
                cost_millionths: 187_500,
            }],
        }],
        cost_millionths: 187_500,
        policy: "least_excess".into(),
        forecast: ForecastUse {
            used: false,
            why: "3 of 30 requests seen: least excess alone".into(),
        },
        rule_errors: vec![RuleError {
            rule: "near the lake".into(),
            machine: "m3".into(),
            why: "No such key: lake".into(),
            times: 4,
        }],
        missing: vec![Missing {
            role: "worker".into(),
            nodes: 1,
            why: "14 of 20 machines have too few GPUs".into(),
            change: "2 more GPUs on one machine, such as m4".into(),
        }],
        inventory_age_s: 42,
    }
}

request!(
    MetalSelect,
    Selection,
    "select",
    Cluster,
    Reads,
    "Say which machines a cluster would get; nothing is changed",
    Viewer,
    MetalSelect {
        tenant: "acme".into(),
        ask: sample_ask(),
        policy: Some("spread".into()),
    },
    sample_selection()
);

request!(
    MetalExplain,
    Explanation,
    "explain",
    Cluster,
    Reads,
    "Say why these machines and no others",
    Viewer,
    MetalExplain {
        tenant: "acme".into(),
        ask: sample_ask(),
        machine: Some("m4".into()),
        policy: None,
    },
    Explanation {
        selection: sample_selection(),
        others: vec![WhyNot {
            machine: "m4".into(),
            role: "control".into(),
            fails: Some("has 32 GiB of memory, 77 are needed".into()),
            costs_more_millionths: Some(12),
            terms: vec![],
            change: "45 GiB more memory, or a smaller node".into(),
        }],
        others_left_out: 0,
    }
);
