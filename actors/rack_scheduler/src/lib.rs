//! The rack scheduler: a request for many VMs becomes groups; each group gets a home rack, and its VMs hosts there. So
//! software that knows about racks sees true failure domains: near inside a group, apart between groups.
//!
//! ```text
//! place: ask -> checked (core::ask) -> plan on the view (core::place) -> tentative bookings, a compare-and-set for each rack
//!        -> one write to the placement's record decides -> bookings settle, now or later -> hosts hear `provide`
//! ```
//!
//! Rooms: [`core`] decides, without I/O; [`port`] is what hosts must be able to answer; [`engine`] keeps the view of the
//! inventory and moves decisions into the state; [`actor`] answers messages.
//!
//! Invariants: no host is ever oversold, whoever dies when (each write of a rack's record is checked on the record that it
//! replaces); a placement is committed in all its racks or in none; a request id has one effect; the same request on the same
//! inventory gets the same answer.
//!
//! What is absent: no lock and no leader (several schedulers work on one inventory), nothing that rests on two hosts' clocks,
//! no record that grows without bound.

pub mod actor;
pub mod core;
pub mod engine;
pub mod error;
pub mod port;
#[cfg(any(test, feature = "testing"))]
pub mod scenario;

#[cfg(test)]
mod tests;

pub use error::{Kind, RackError};

/// Result of this concern's calls.
pub type Result<T> = std::result::Result<T, RackError>;
