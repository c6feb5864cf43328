//! Messages of the metal broker: the best bare-metal machine for a cluster, by the customer's policy.
//!
//! One room an errand; all of it is named `wire::metal_broker::…`. [`ClusterAsk`] is what someone wants, [`Machine`] is what a
//! provider has, [`Cluster`] is what became of a claim. Each message names its tenant: nothing of another one is seen by it.

use crate::catalog::Room;

const CONCERN: &str = "metal_broker";

mod ask;
mod claim;
mod look;
mod machine;
mod policy;
mod select;

pub use ask::{ClusterAsk, Domain, RoleAsk};
pub use claim::{
    Cluster, ClusterState, Member, MemberState, MetalClaim, MetalClaimed, MetalConfirm, MetalQuarantine,
    MetalQuarantined, MetalRelease, MetalReleased, Quarantined,
};
pub use look::{
    ClusterListing, ClusterRow, InventoryReport, MachineRow, MachineState, MetalInventory, MetalList, MetalShow,
    ProviderRow,
};
pub use machine::{Health, Machine};
pub use policy::{
    DemandRow, ForecastReport, MetalForecast, MetalPolicyCheck, MetalPolicySet, MetalPolicyTest, PolicyReport, RuleRow,
};
pub use select::{
    Chosen, Explanation, ForecastUse, MetalExplain, MetalSelect, Missing, RuleError, Selection, Term, WhyNot,
};

pub(crate) fn room() -> Room {
    Room::default()
        .request::<MetalSelect>()
        .request::<MetalExplain>()
        .request::<MetalClaim>()
        .request::<MetalConfirm>()
        .request::<MetalRelease>()
        .request::<MetalInventory>()
        .request::<MetalQuarantine>()
        .request::<MetalPolicyCheck>()
        .request::<MetalPolicyTest>()
        .request::<MetalPolicySet>()
        .request::<MetalForecast>()
        .request::<MetalList>()
        .request::<MetalShow>()
        .topic::<MetalClaimed>()
        .topic::<MetalReleased>()
        .topic::<MetalQuarantined>()
}

/// Longest name of a machine, tenant, provider, rack, zone, location, role or feature, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Most nodes of one cluster request.
pub const NODES_MAX: u64 = 256;
/// Most roles of one cluster request.
pub const ROLES_MAX: usize = 8;
/// Most features and labels of one machine.
pub const FEATURES_MAX: usize = 64;
/// Most machines of one tenant.
pub const MACHINES_MAX: usize = 100_000;
/// Most of anything that one machine has, in the unit of its field: more is a slip of the pen or of a BMC.
pub const AMOUNT_MAX: u64 = 10_000_000;
/// Longest policy, in bytes.
pub const POLICY_BYTES_MAX: usize = 64 << 10;
/// The dearest price class.
pub const PRICE_CLASS_MAX: u64 = 9;
