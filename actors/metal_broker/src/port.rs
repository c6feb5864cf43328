//! What this concern needs from outside, in its own words: providers of machines, and the rack scheduler's ear.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use wire::metal_broker::{Machine, Member};

use crate::{MetalError, Result};

/// What a provider has, and what was wrong with the rest of it.
#[derive(Debug, Clone, Default)]
pub struct Stock {
    /// The machines as they are, sound or not: the broker looks.
    pub machines: Vec<Machine>,
    /// Machines that couldn't be read now, by id where that is known: what was known of them before stays.
    pub unread: Vec<String>,
    /// For people.
    pub troubles: Vec<String>,
}

/// One provider of bare-metal machines, of one tenant.
#[async_trait]
pub trait Provider: Debug + Send + Sync {
    /// Its tenant.
    fn tenant(&self) -> &str;
    /// Its name, unique among its tenant's.
    fn name(&self) -> &str;
    /// What it speaks: `file`, `redfish`, `ironic`.
    fn kind(&self) -> &'static str;
    /// Everything that it has. One machine that is slow or broken holds no other up.
    ///
    /// # Errors
    /// When nothing can be read: `Unavailable`, `Denied`, `Invalid`.
    async fn stock(&self) -> Result<Stock>;
    /// One machine as it is at this moment.
    ///
    /// # Errors
    /// `NotFound` when it has gone; as [`Provider::stock`].
    async fn look(&self, machine: &str) -> Result<Machine>;
    /// Takes a machine for a cluster at the provider, where the provider knows such a thing, and shows it as it is then. Again, by
    /// the same cluster, is no error.
    ///
    /// # Errors
    /// `Conflict` when somebody else has it there; as [`Provider::look`].
    async fn take(&self, machine: &str, cluster: &str) -> Result<Machine>;
    /// Lets go of what [`Provider::take`] took. Of a machine that this cluster doesn't have, or that has gone: no error.
    ///
    /// # Errors
    /// As [`Provider::look`], but for `NotFound`.
    async fn give_back(&self, machine: &str, cluster: &str) -> Result<()>;
}

/// The providers of all tenants.
pub type Providers = Vec<Arc<dyn Provider>>;

/// Tells the rack scheduler.
#[async_trait]
pub trait RackHosts: Debug + Send + Sync {
    /// A machine is up: it is a host from now on.
    ///
    /// # Errors
    /// When the rack scheduler doesn't take it, or doesn't answer; it is told again later.
    async fn join(&self, member: &Member, machine: &Machine) -> std::result::Result<(), MetalError>;
    /// A machine was given back: it is a host no more.
    ///
    /// # Errors
    /// As [`RackHosts::join`].
    async fn leave(&self, machine: &str) -> std::result::Result<(), MetalError>;
}

/// Nobody is told.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

#[async_trait]
impl RackHosts for Silent {
    async fn join(&self, _: &Member, _: &Machine) -> std::result::Result<(), MetalError> {
        Ok(())
    }
    async fn leave(&self, _: &str) -> std::result::Result<(), MetalError> {
        Ok(())
    }
}

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
