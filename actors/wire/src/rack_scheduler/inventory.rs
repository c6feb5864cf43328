//! What there is: regions, zones, rows, racks, hosts; their states; and what hosts report.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CONCERN, Resources, SAMPLE_ID, sample_host, sample_vm};
use crate::messages::request;

/// How a host is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HostState {
    /// Takes VMs.
    #[default]
    Up,
    /// Takes nothing new; its VMs are moving.
    Draining,
    /// Gone.
    Lost,
    /// Takes nothing new; its VMs stay.
    Cordoned,
}

/// What kind of place it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Holds zones.
    Region,
    /// Holds rows.
    Zone,
    /// Holds racks.
    Row,
    /// Holds hosts.
    Rack,
}

/// A region, zone, row or rack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlaceArg {
    /// Its id, unique in the fleet.
    pub id: String,
    /// What kind.
    pub level: Level,
    /// The place that it stands in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostArg {
    /// Its id, unique in the fleet.
    pub id: String,
    /// Its rack; one that is not among the places stands in row and zone `default`.
    pub rack: String,
    /// What it has.
    pub capacity: Resources,
    /// What it carries.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How it is.
    #[serde(default)]
    pub state: HostState,
}

/// An inventory. `windlass rack load FILE` reads it as TOML or JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InventoryArg {
    /// Regions, zones, rows and racks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<PlaceArg>,
    /// Hosts.
    pub hosts: Vec<HostArg>,
    /// Virtual CPUs that are sold for each 100 that a host has; 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpus_sold_percent: Option<u64>,
    /// MiB of memory that are sold for each 100 that a host has; 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_sold_percent: Option<u64>,
}

/// Adds racks and hosts, or changes those that are there. What is booked stays booked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RackLoad {
    /// The inventory, or a part of it by whole racks.
    pub inventory: InventoryArg,
    /// Hosts of the named racks that are not in it go; those with VMs make it a conflict.
    #[serde(default)]
    pub replace: bool,
}

/// What was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Loaded {
    /// Racks that were written.
    pub racks: u64,
    /// Hosts in them.
    pub hosts: u64,
}

/// Shows what there is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RackInventory {
    /// Only this rack, with its hosts; all racks without hosts when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rack: Option<String>,
    /// Racks after this one; for lists that come in pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Also each host of each rack: for maps.
    #[serde(default)]
    pub hosts: bool,
}

/// A host as it is booked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostRow {
    /// The host.
    pub id: String,
    /// How it is.
    pub state: HostState,
    /// What can be sold of it.
    pub sold: Resources,
    /// What is booked.
    pub booked: Resources,
    /// VMs that are booked, by placement and group.
    pub vms: BTreeMap<String, u64>,
    /// What it last reported that differs from what is booked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drift: Vec<Drift>,
}

/// A rack as it is booked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RackRow {
    /// The rack.
    pub id: String,
    /// Its row.
    pub row: String,
    /// Its zone.
    pub zone: String,
    /// Its region.
    pub region: String,
    /// Hosts that are up, and all.
    pub hosts_up: u64,
    /// All hosts.
    pub hosts_total: u64,
    /// What can be sold of its hosts that are up.
    pub sold: Resources,
    /// What is booked on them.
    pub booked: Resources,
    /// Its hosts, when they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostRow>,
}

/// What there is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomReport {
    /// The racks, by name.
    pub racks: Vec<RackRow>,
    /// Racks of the whole inventory.
    pub racks_total: u64,
    /// Hosts of the whole inventory.
    pub hosts_total: u64,
    /// Ask again with `after` this: there is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more_after: Option<String>,
}

/// Sets a host's state. What is booked on it stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RackMark {
    /// The host.
    pub host: String,
    /// How it is.
    pub state: HostState,
}

/// Sets or shows what a tenant may have booked at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RackQuota {
    /// The tenant.
    pub tenant: String,
    /// The bound; a field that is 0 bounds nothing. Shows it when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Resources>,
}

/// A tenant's quota and what is booked of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TenantQuota {
    /// The tenant.
    pub tenant: String,
    /// The bound; a field that is 0 bounds nothing.
    pub quota: Resources,
    /// What is booked.
    pub booked: Resources,
}

/// A VM that a host really has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReportedVm {
    /// Its placement.
    pub placement: String,
    /// Its name.
    pub vm: String,
    /// What it has.
    pub has: Resources,
}

/// What a host says that it has: a heartbeat's part for this concern.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RackReport {
    /// The host.
    pub host: String,
    /// Its VMs.
    pub vms: Vec<ReportedVm>,
}

/// How actual and booked differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DriftKind {
    /// Booked, but the host doesn't have it.
    Missing,
    /// The host has it, but it isn't booked there.
    Unbooked,
    /// Booked with other amounts.
    Differs,
    /// The host has less than is booked on it: its heartbeats, or a file, say less than before. No VM is named.
    Short,
}

/// One difference between booked and actual.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Drift {
    /// How.
    pub kind: DriftKind,
    /// The VM's placement.
    pub placement: String,
    /// The VM.
    pub vm: String,
    /// What is booked.
    pub booked: Resources,
    /// What the host has.
    pub actual: Resources,
}

/// What followed from a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReportReply {
    /// The differences.
    pub drift: Vec<Drift>,
}

fn sample_inventory() -> InventoryArg {
    InventoryArg {
        places: vec![
            PlaceArg {
                id: "z1".into(),
                level: Level::Zone,
                within: None,
            },
            PlaceArg {
                id: "r17".into(),
                level: Level::Rack,
                within: Some("z1".into()),
            },
        ],
        hosts: vec![HostArg {
            id: "r17-h3".into(),
            rack: "r17".into(),
            capacity: sample_host(),
            labels: [("disk".to_owned(), "nvme".to_owned())].into(),
            state: HostState::Up,
        }],
        vcpus_sold_percent: Some(400),
        memory_sold_percent: None,
    }
}

fn sample_drift() -> Drift {
    Drift {
        kind: DriftKind::Missing,
        placement: SAMPLE_ID.into(),
        vm: "g0-0".into(),
        booked: sample_vm(),
        actual: Resources::default(),
    }
}

request!(
    RackLoad,
    Loaded,
    "load",
    Cluster,
    Changes,
    "Add racks and hosts to the inventory, or change those that are there",
    Admin,
    RackLoad {
        inventory: sample_inventory(),
        replace: false
    },
    Loaded { racks: 1, hosts: 1 }
);

request!(
    RackInventory,
    RoomReport,
    "inventory",
    Cluster,
    Reads,
    "Show racks and hosts, and what is booked on them",
    Viewer,
    RackInventory {
        rack: Some("r17".into()),
        after: None,
        hosts: true,
    },
    RoomReport {
        racks: vec![RackRow {
            id: "r17".into(),
            row: "a".into(),
            zone: "z1".into(),
            region: "default".into(),
            hosts_up: 1,
            hosts_total: 1,
            sold: sample_host(),
            booked: sample_vm(),
            hosts: vec![HostRow {
                id: "r17-h3".into(),
                state: HostState::Up,
                sold: sample_host(),
                booked: sample_vm(),
                vms: [(format!("{SAMPLE_ID}/g0"), 1)].into(),
                drift: vec![sample_drift()],
            }],
        }],
        racks_total: 1,
        hosts_total: 1,
        more_after: Some("r17".into()),
    }
);

request!(
    RackMark,
    HostRow,
    "mark",
    Cluster,
    Changes,
    "Set a host's state: up, cordoned, draining or lost",
    Operator,
    RackMark {
        host: "r17-h3".into(),
        state: HostState::Cordoned,
    },
    HostRow {
        id: "r17-h3".into(),
        state: HostState::Cordoned,
        sold: sample_host(),
        booked: sample_vm(),
        vms: BTreeMap::new(),
        drift: vec![],
    }
);

request!(
    RackQuota,
    TenantQuota,
    "quota",
    Cluster,
    Changes,
    "Set or show what a tenant may have booked at once",
    Admin,
    RackQuota {
        tenant: "ads".into(),
        quota: Some(sample_host()),
    },
    TenantQuota {
        tenant: "ads".into(),
        quota: sample_host(),
        booked: sample_vm(),
    }
);

request!(
    RackReport,
    ReportReply,
    "report",
    Cluster,
    Changes,
    "Tell what a host really has, and hear what differs from what is booked",
    Host,
    RackReport {
        host: "r17-h3".into(),
        vms: vec![ReportedVm {
            placement: SAMPLE_ID.into(),
            vm: "g0-1".into(),
            has: sample_vm(),
        }],
    },
    ReportReply {
        drift: vec![sample_drift()]
    }
);
