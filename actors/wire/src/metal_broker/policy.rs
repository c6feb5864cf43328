//! Policies and the forecast: `policy_check`, `policy_test`, `policy_set`, `forecast`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ask::sample_ask;
use super::select::sample_selection;
use super::{CONCERN, ClusterAsk, ForecastUse, Selection};
use crate::messages::request;

/// Reads a policy and says what it means; nothing is changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MetalPolicyCheck {
    /// The policy as TOML.
    pub text: String,
}

/// One rule or score of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RuleRow {
    /// Its name.
    pub name: String,
    /// It is evaluated once for each hardware class; else once for each machine that is looked at.
    pub per_class: bool,
    /// An error of it stops the selection.
    pub required: bool,
    /// The most steps that one evaluation may take.
    pub cost: u64,
}

/// What a policy means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyReport {
    /// Its name.
    pub name: String,
    /// Its rules, in the order in which they are asked.
    pub rules: Vec<RuleRow>,
    /// Its scores.
    pub scores: Vec<RuleRow>,
    /// The tenant whose policy it is from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

/// Selects by a policy that isn't the tenant's yet; nothing is changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MetalPolicyTest {
    /// Whose machines.
    pub tenant: String,
    /// The policy as TOML.
    pub text: String,
    /// The cluster.
    pub ask: ClusterAsk,
}

/// Makes a policy the tenant's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MetalPolicySet {
    /// Whose.
    pub tenant: String,
    /// The policy as TOML.
    pub text: String,
}

/// Says what is expected to be asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MetalForecast {
    /// Whose.
    pub tenant: String,
}

/// What was asked for of one kind, and what is expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DemandRow {
    /// The kind of node, as people read it.
    pub need: String,
    /// Nodes that were asked for in the long window.
    pub seen_long: u64,
    /// Nodes that were asked for in the short window.
    pub seen_short: u64,
    /// Expected within the horizon, in thousandths of a node.
    pub expected_milli: u64,
    /// Free machines that would do.
    pub free: u64,
    /// The chance that more are wanted than are free, in millionths.
    pub short_millionths: u64,
}

/// What is expected to be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ForecastReport {
    /// How far it looks, in seconds.
    pub horizon_s: u64,
    /// The long window, in seconds.
    pub long_window_s: u64,
    /// The short window, in seconds.
    pub short_window_s: u64,
    /// Whether it counts, and why.
    pub gate: ForecastUse,
    /// By kind of node.
    pub demand: Vec<DemandRow>,
}

fn sample_report(tenant: Option<&str>) -> PolicyReport {
    PolicyReport {
        name: "keep_gpu_for_gpu".into(),
        rules: vec![RuleRow {
            name: "no GPU idles".into(),
            per_class: true,
            required: true,
            cost: 7,
        }],
        scores: vec![RuleRow {
            name: "far from the door".into(),
            per_class: false,
            required: false,
            cost: 12,
        }],
        tenant: tenant.map(str::to_owned),
    }
}

const SAMPLE_POLICY: &str =
    "name = \"mine\"\n\n[[rules]]\nname = \"no GPU idles\"\nallow = \"machine.gpus == 0 || cluster.gpus > 0\"\n";

request!(
    MetalPolicyCheck,
    PolicyReport,
    "policy_check",
    Cluster,
    Reads,
    "Read a policy and say what it means; nothing is changed",
    Viewer,
    MetalPolicyCheck {
        text: SAMPLE_POLICY.into()
    },
    sample_report(None)
);

request!(
    MetalPolicyTest,
    Selection,
    "policy_test",
    Cluster,
    Reads,
    "Select by a policy that isn't the tenant's yet; nothing is changed",
    Viewer,
    MetalPolicyTest {
        tenant: "acme".into(),
        text: SAMPLE_POLICY.into(),
        ask: sample_ask(),
    },
    sample_selection()
);

request!(
    MetalPolicySet,
    PolicyReport,
    "policy_set",
    Cluster,
    Changes,
    "Make a policy the tenant's own",
    Admin,
    MetalPolicySet {
        tenant: "acme".into(),
        text: SAMPLE_POLICY.into(),
    },
    sample_report(Some("acme"))
);

request!(
    MetalForecast,
    ForecastReport,
    "forecast",
    Cluster,
    Reads,
    "Say what is expected to be asked for, and whether that counts",
    Viewer,
    MetalForecast { tenant: "acme".into() },
    ForecastReport {
        horizon_s: 86_400,
        long_window_s: 1_209_600,
        short_window_s: 86_400,
        gate: ForecastUse {
            used: true,
            why: "replayed: 3 refusals with it, 5 without".into(),
        },
        demand: vec![DemandRow {
            need: "64 cores, 512 GiB".into(),
            seen_long: 120,
            seen_short: 9,
            expected_milli: 8_570,
            free: 11,
            short_millionths: 154_000,
        }],
    }
);
