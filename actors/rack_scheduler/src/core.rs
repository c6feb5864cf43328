//! Decisions without I/O: what a request means ([`ask`]), which rack and host each VM gets ([`place`]), what is missing
//! ([`shortfall`]), what would fit ([`whatif`]), what a placement's next change is ([`change`]), what the
//! records say ([`ledger`]) and what must hold of all of it ([`check`] for a plan, [`invariants`] for what is
//! written).

pub mod amounts;
pub mod ask;
pub mod beats;
pub mod change;
pub mod check;
pub mod invariants;
pub mod inventory;
pub mod ledger;
pub mod name;
pub mod pack;
pub mod place;
pub mod shortfall;
pub mod topology;
pub mod whatif;
