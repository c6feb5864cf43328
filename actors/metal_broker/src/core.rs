//! Decisions: what a machine and a request mean, what a policy allows, which machines are best, what is expected, and why. No I/O,
//! no clock, no randomness.

pub mod ask;
pub mod explain;
pub mod fleet;
pub mod forecast;
pub mod ledger;
pub mod machine;
pub mod name;
pub mod pick;
pub mod policy;
pub mod replay;
pub mod select;
pub mod set;
pub mod verify;
