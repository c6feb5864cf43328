//! Many hosts: the ports over NATS, and the only room where async-nats is used.
//!
//! ```text
//! Settings --connect--> Lattice --+--> Bus over subjects and queue groups, events in the stream WINDLASS_EVENTS
//!                                 +--> State over JetStream's key-value store
//!                                 `--> Jobs over JetStream's work queues
//! ```
//!
//! * [`Lattice`] is the connection that all of them share. It is made again by itself with backoff and full jitter; its
//!   slow consumers are counted and said once a minute.
//! * [`NatsBus`]: requests, services announced by NATS's own protocol, events that were acknowledged and are followed without
//!   gaps.
//! * [`NatsState`]: one stream with one message a key; its sequence is the revision.
//! * [`Seen`]: what the servers kept when a host looked last, so that a lost store shows.
//! * [`Permissions`]: what a host and a person need of the servers, and no more; [`Refusal`]: what was refused, to whom.
//! * `streams`: what jobs and state need of JetStream; the seam at which a simulated world stands.
//! * [`Settings`]: servers, credentials from files, TLS, time-outs.
//!
//! What is absent: no type of async-nats in a public signature, no consensus of our own (queue groups, compare-and-set and
//! durable consumers are the servers'), no answer for a write that the servers didn't acknowledge.

mod acknowledged;
mod announce;
mod backoff;
mod error;
mod events;
mod health;
mod jobs;
mod lattice;
mod nats_bus;
mod permissions;
mod refusals;
mod replies;
mod seen;
mod server_log;
mod serving;
mod settings;
mod state;
mod streams;
mod tail;

#[cfg(test)]
mod tests;

pub use error::{Kind, NatsError};
pub use jobs::{JetstreamJobs, JobsOptions};
pub use lattice::Lattice;
pub use nats_bus::{Identity, NatsBus};
pub use permissions::{Grants, Permissions, check_user_key};
pub use refusals::{Refusal, Refused};
pub use seen::{Loss, Seen};
pub use settings::{Credentials, Settings, Tls};
pub use state::NatsState;

/// What a simulated world brings: streams that lose, delay and repeat.
#[cfg(any(test, feature = "testing"))]
pub mod testing {
    pub use crate::replies::NoAnswer;
    pub use crate::streams::{
        Ack, Consumer, Delivered, EXPECTED, Follows, MESSAGE_ID, NotStored, OPERATION, Outgoing, Pulls, Stored,
        Streams, TTL, not_answered,
    };
    pub use crate::tail::Tailed;
}
