//! Records: what the state holds of clusters, of machines that are taken or kept apart, and how a cluster's record may change.
//!
//! ```text
//! Claiming -> Leased -> Confirmed -> Released
//!    |           `--------------------^
//!    `-> Void
//! ```
//!
//! The cluster's record is written first (`Claiming`, with its machines), then a booking for each machine, then `Leased`: the write
//! that counts. A broker that dies between leaves a record that says which bookings are to go; whoever drops it makes it `Void`
//! first, so that a broker that was only slow loses its last compare-and-set.

use serde::{Deserialize, Serialize};
use wire::metal_broker::{Cluster, ClusterState, Machine, MemberState};

/// The version of the records.
pub const VERSION: u32 = 1;

/// A cluster as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// The version.
    pub version: u32,
    /// The cluster.
    pub cluster: Cluster,
    /// When it was claimed, Unix milliseconds by the clock of who wrote it: for the history, never for a lease.
    pub at_ms: u64,
    /// When it was given back, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released_ms: Option<u64>,
    /// The policy that it was chosen by, when it was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Machines that the rack scheduler still has to hear of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub untold: Vec<String>,
}

/// A machine that a cluster has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Booking {
    /// The version.
    pub version: u32,
    /// The cluster.
    pub cluster: String,
}

/// A machine that is kept from being chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Apart {
    /// The version.
    pub version: u32,
    /// Why.
    pub why: String,
}

/// A part of what one provider has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockPart {
    /// The version.
    pub version: u32,
    /// The machines, by id.
    pub machines: Vec<Machine>,
}

/// How a provider's last reading went.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockHead {
    /// The version.
    pub version: u32,
    /// What it speaks.
    pub kind: String,
    /// When it was read, Unix milliseconds by the clock of who read it.
    pub read_ms: u64,
    /// Parts; later ones are none.
    pub parts: usize,
    /// What was wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<String>,
}

/// A policy as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRecord {
    /// The version.
    pub version: u32,
    /// Its text.
    pub text: String,
}

impl ClusterRecord {
    /// Every machine is up.
    pub fn is_up(&self) -> bool {
        self.cluster.members.iter().all(|m| m.state == MemberState::Up)
    }
    /// Its machines are its own.
    pub fn holds(&self) -> bool {
        matches!(
            self.cluster.state,
            ClusterState::Claiming | ClusterState::Leased | ClusterState::Confirmed
        )
    }
    /// Whether its record may go from its state to another.
    pub fn may_become(&self, next: ClusterState) -> bool {
        use ClusterState::{Claiming, Confirmed, Leased, Released, Void};
        matches!(
            (self.cluster.state, next),
            (Claiming, Claiming | Leased | Void)
                | (Leased, Leased | Confirmed | Released)
                | (Confirmed, Leased | Confirmed | Released)
                | (Released, Released)
                | (Void, Claiming)
        )
    }
}
