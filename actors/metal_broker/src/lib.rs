//! The metal broker: the best bare-metal machine for a cluster, by the customer's policy: enough of everything, as little left over
//! as can be, and no machine whose excess somebody else will want soon.
//!
//! ```text
//! providers -> inventory (state, by tenant) -> fleet in columns (core::fleet)
//! select: ask -> needs (core::ask) -> classes that do -> rules, costs (core::pick) -> one machine, or a set (core::set)
//! claim:  set -> record `Claiming` -> a booking a machine, by compare-and-set -> the provider is asked again -> `Leased`
//! confirm: it came up where it was promised -> `Confirmed` -> hosts of the rack scheduler, by message
//! ```
//!
//! Rooms: [`core`] decides, without I/O; [`port`] is what a provider must be able to do; [`engine`] keeps each tenant's view and
//! moves decisions into the state; [`actor`] answers messages.
//!
//! Invariants: a machine has one cluster at most, whoever dies when (its booking is created where there is none); a cluster has
//! all its machines or none; nothing of one tenant is read for another; a rule that errs excludes nothing in silence; the same
//! request on the same inventory gets the same answer.
//!
//! What is absent: no lock and no leader, nothing that rests on two hosts' clocks (a lease ends by the watcher's own), no secret
//! (providers hold references to them), no loop in a policy that hasn't got a bound before it runs.

pub mod actor;
pub mod core;
pub mod engine;
pub mod error;
#[cfg(any(test, feature = "testing"))]
pub mod fake;
pub mod port;
#[cfg(any(test, feature = "testing"))]
pub mod scenario;

#[cfg(test)]
mod tests;

pub use error::{Kind, MetalError};

/// Result of this concern's calls.
pub type Result<T> = std::result::Result<T, MetalError>;
