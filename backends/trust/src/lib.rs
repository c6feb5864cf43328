//! Who belongs to a fleet, and what of theirs is heard.
//!
//! ```text
//! request --SignedBus: sign--> servers --SignedBus: heard once, from a member?--> the concern's queue
//! job     --SignedJobs: sign--> stream --SignedJobs: as it was signed?----------> begun, or set aside with the reason
//! order   --SignedState: sign-> bucket --SignedState: a member's, and newer?----> obeyed
//! membership: statements in the bucket, signed by members --> Book of every host --> whom all of the above hear
//! ```
//!
//! * [`core`]: the decisions, without I/O.
//! * [`Fleet`]: this process among the members; [`Place`]: what it keeps of that on its disk.
//! * [`SignedBus`], [`SignedJobs`], [`SignedState`]: the ports of a fleet, decorated. One host alone has none of them: what doesn't
//!   leave the process needs no signature.
//! * [`Membership`]: follows what members sign of one another, lets joiners in, puts members out. [`join()`]: the joiner's side.
//!
//! Invariants: nothing that changes something is carried out unless a member of the fleet, by this host's own book, signed it as it
//! is, in time, and it wasn't carried out before; a secret is in no message, no record, no log and no `Debug`; what was refused is
//! counted and told.
//!
//! What is absent: no encryption (TLS does that), no signature on answers, events, heartbeats and what concerns keep in the state
//! (docs/security.md says what follows), no cache of verdicts: every message has its own nonce, so no verdict serves twice. What
//! is kept between messages are public keys, taken apart and found not weak once, until their member is put out.

pub mod core;
mod error;
mod fleet;
#[cfg(any(test, feature = "testing"))]
mod fuzzing;
mod grants;
mod join;
mod membership;
mod place;
mod signed_bus;
mod signed_jobs;
mod signed_state;

#[cfg(test)]
mod tests;

pub use crate::core::book::{Book, Row};
pub use crate::core::keys::{Identity, PublicKey};
pub use crate::core::refusal::Refusal;
pub use crate::core::token::Token;
pub use crate::core::window::Bounds;
pub use error::{Kind, TrustError};
pub use fleet::{Fleet, FleetNow, Refused, Tell};
#[cfg(any(test, feature = "testing"))]
pub use fuzzing::{hear_anything, seeds};
pub use grants::{TOKEN_S_MAX, make_token};
pub use join::join;
pub use membership::{JOINS, Membership};
pub use place::{Belonging, Place};
pub use signed_bus::SignedBus;
pub use signed_jobs::{JOB_MS_MAX, SignedJobs};
pub use signed_state::SignedState;

/// Below these hosts write in the state that they share: statements, grants and joins, which are signed; nonces that are claimed.
pub const SHARED: [&str; 2] = [membership::ROOT, signed_bus::CLAIMS];

/// The result of this crate's calls.
pub type Result<T> = std::result::Result<T, TrustError>;
