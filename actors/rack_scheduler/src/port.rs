//! What this concern needs of hosts, in its own words: to take VMs, and to let them go.

use std::fmt::Debug;

use async_trait::async_trait;
use wire::rack_scheduler::{Provided, RackProvide, RackWithdraw};

/// Reaches hosts.
#[async_trait]
pub trait Hosts: Debug + Send + Sync {
    /// Asks a host to make VMs. A host that can't be reached has not accepted: `why` says so.
    async fn provide(&self, host: &str, message: RackProvide) -> Provided;
    /// Tells a host that VMs are no longer its own. False when it didn't hear; it is told again later.
    async fn withdraw(&self, host: &str, message: RackWithdraw) -> bool;
}

/// Nobody is told: whoever asked for a placement reads its answer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

#[async_trait]
impl Hosts for Silent {
    async fn provide(&self, _: &str, _: RackProvide) -> Provided {
        Provided {
            accepted: true,
            why: None,
        }
    }
    async fn withdraw(&self, _: &str, _: RackWithdraw) -> bool {
        true
    }
}
