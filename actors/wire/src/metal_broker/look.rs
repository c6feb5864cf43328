//! What there is: `inventory`, `ls`, `show`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::claim::sample_shown;
use super::machine::sample_machine;
use super::{CONCERN, Cluster, ClusterState, Machine};
use crate::messages::{SAMPLE_ID, request};

/// Shows a tenant's machines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MetalInventory {
    /// Whose.
    pub tenant: String,
    /// Machines after this one; for lists that come in pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Asks the tenant's providers first.
    #[serde(default)]
    pub refresh: bool,
}

/// How a machine is to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MachineState {
    /// It may be chosen.
    Free,
    /// A cluster has it.
    Claimed,
    /// It is kept from being chosen.
    Quarantined,
    /// Its provider has it in hand.
    Taken,
    /// Its health is critical.
    Broken,
}

/// A machine and how it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MachineRow {
    /// The machine.
    pub machine: Machine,
    /// How it is.
    pub state: MachineState,
    /// The cluster that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// When its provider was last read, seconds ago.
    pub age_s: u64,
}

/// A provider and how its last reading went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProviderRow {
    /// Its name.
    pub name: String,
    /// What it speaks: `file`, `redfish`, `ironic`.
    pub kind: String,
    /// Machines that it has.
    pub machines: u64,
    /// When it was last read, seconds ago; absent when never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_s: Option<u64>,
    /// What was wrong: machines that were left out, controllers that didn't answer. At most a hundred lines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<String>,
}

/// A tenant's machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InventoryReport {
    /// Where they come from.
    pub providers: Vec<ProviderRow>,
    /// The machines, by id.
    pub machines: Vec<MachineRow>,
    /// Machines of the whole inventory.
    pub machines_total: u64,
    /// Hardware classes of it: machines that differ in nothing that is asked for.
    pub classes: u64,
    /// Ask again with `after` this: there is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more_after: Option<String>,
}

/// Lists a tenant's clusters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MetalList {
    /// Whose.
    pub tenant: String,
    /// Clusters after this one; for lists that come in pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// A cluster in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterRow {
    /// Its id.
    pub id: String,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How it is.
    pub state: ClusterState,
    /// Its machines.
    pub machines: u64,
    /// When it was claimed, RFC 3339.
    pub claimed_at: String,
}

/// A tenant's clusters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterListing {
    /// By id.
    pub clusters: Vec<ClusterRow>,
    /// Ask again with `after` this: there is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more_after: Option<String>,
}

/// Shows a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MetalShow {
    /// Whose.
    pub tenant: String,
    /// Its id.
    pub id: String,
}

request!(
    MetalInventory,
    InventoryReport,
    "inventory",
    Cluster,
    Changes,
    "Show a tenant's machines and where they come from",
    Operator,
    MetalInventory {
        tenant: "acme".into(),
        after: Some("m16".into()),
        refresh: true,
    },
    InventoryReport {
        providers: vec![ProviderRow {
            name: "hall-1".into(),
            kind: "redfish".into(),
            machines: 240,
            age_s: Some(42),
            troubles: vec!["https://10.0.0.9: no answer in 5 s; what was known of it stays".into()],
        }],
        machines: vec![MachineRow {
            machine: sample_machine(),
            state: MachineState::Claimed,
            cluster: Some(SAMPLE_ID.into()),
            age_s: 42,
        }],
        machines_total: 240,
        classes: 6,
        more_after: Some("m17".into()),
    }
);

request!(
    MetalList,
    ClusterListing,
    "ls",
    Cluster,
    Reads,
    "List a tenant's clusters",
    Viewer,
    MetalList {
        tenant: "acme".into(),
        after: Some("01J".into()),
    },
    ClusterListing {
        clusters: vec![ClusterRow {
            id: SAMPLE_ID.into(),
            name: Some("shop".into()),
            state: ClusterState::Leased,
            machines: 8,
            claimed_at: "2026-11-25T10:00:00Z".into(),
        }],
        more_after: Some(SAMPLE_ID.into()),
    }
);

request!(
    MetalShow,
    Cluster,
    "show",
    Cluster,
    Reads,
    "Show a cluster and its machines",
    Viewer,
    MetalShow {
        tenant: "acme".into(),
        id: SAMPLE_ID.into(),
    },
    sample_shown()
);
