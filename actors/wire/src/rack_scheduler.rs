//! Messages of the rack scheduler: many VMs become groups, each with a home rack.
//!
//! One room an errand; all of it is named `wire::rack_scheduler::…`. [`RackAsk`] is what someone wants, and the file that
//! `windlass rack place` reads; [`Placement`] is what became of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::catalog::Room;
use crate::messages::SAMPLE_ID;

const CONCERN: &str = "rack_scheduler";

mod ask;
mod change;
mod inventory;
mod look;
mod place;
mod provide;

pub use ask::{Divide, GroupArg, Inside, Mode, RackAsk, Relation, RelationKind, Select, Strength, VmSpec};
pub use change::{EvacuateReport, Moved, RackEvacuate, RackGrow, RackRelease, RackShrink, Released, Stuck};
pub use inventory::{
    Drift, DriftKind, HostArg, HostRow, HostState, InventoryArg, Level, Loaded, PlaceArg, RackInventory, RackLoad,
    RackMark, RackQuota, RackReport, RackRow, ReportReply, ReportedVm, RoomReport, TenantQuota,
};
pub use look::{
    Explanation, GroupWhy, RackExplain, RackList, RackListed, RackListing, RackShow, RackWhatif, Refusal, WhatifReport,
};
pub use place::{
    Constraint, PlacedGroup, PlacedHost, Placement, PlacementState, PlanReport, RackPlace, RackPlaced, RackPlan,
    RackReleased, Shortfall, Unplaced,
};
pub use provide::{ProvideVm, Provided, RackProvide, RackWithdraw, Withdrawn};

pub(crate) fn room() -> Room {
    Room::default()
        .request::<RackPlace>()
        .request::<RackPlan>()
        .request::<RackRelease>()
        .request::<RackGrow>()
        .request::<RackShrink>()
        .request::<RackEvacuate>()
        .request::<RackLoad>()
        .request::<RackInventory>()
        .request::<RackMark>()
        .request::<RackQuota>()
        .request::<RackReport>()
        .request::<RackList>()
        .request::<RackShow>()
        .request::<RackExplain>()
        .request::<RackWhatif>()
        .request::<RackProvide>()
        .request::<RackWithdraw>()
        .topic::<RackPlaced>()
        .topic::<RackReleased>()
}

/// Longest name of a host, rack, row, zone, region, group or tenant, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Most VMs of one placement: its record and its answer stay below a message's size.
pub const VMS_MAX: u64 = 10_000;
/// Most groups of one placement.
pub const GROUPS_MAX: usize = 1_000;
/// Most different kinds of VM of one placement.
pub const SPECS_MAX: usize = 16;
/// Most relations of one placement.
pub const RELATIONS_MAX: usize = 1_000;
/// Most hosts of one rack.
pub const RACK_HOSTS_MAX: usize = 256;
/// Most racks of an inventory.
pub const RACKS_MAX: usize = 100_000;
/// Most hosts of an inventory.
pub const HOSTS_MAX: usize = 1_000_000;
/// Most of anything that one host has or one VM wants, in the unit of its field.
pub const AMOUNT_MAX: u64 = 1_000_000_000;

/// What a VM wants or a host has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Resources {
    /// Virtual CPUs.
    #[serde(default)]
    pub vcpus: u64,
    /// Memory in MiB.
    #[serde(default)]
    pub memory_mib: u64,
    /// Local disk in GiB.
    #[serde(default)]
    pub disk_gib: u64,
    /// GPUs.
    #[serde(default)]
    pub gpus: u64,
    /// Network interfaces.
    #[serde(default)]
    pub nics: u64,
}

fn sample_vm() -> Resources {
    Resources {
        vcpus: 4,
        memory_mib: 8192,
        disk_gib: 40,
        gpus: 0,
        nics: 1,
    }
}

fn sample_host() -> Resources {
    Resources {
        vcpus: 64,
        memory_mib: 262_144,
        disk_gib: 4000,
        gpus: 0,
        nics: 32,
    }
}
