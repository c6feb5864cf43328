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
//! * [`Settings`]: servers, credentials from files, TLS, time-outs.
//!
//! What is absent: no type of async-nats in a public signature, no consensus of our own (queue groups, compare-and-set and
//! durable consumers are the servers'), no answer for a write that the servers didn't acknowledge.

mod announce;
mod backoff;
mod nats_bus;
mod error;
mod events;
mod health;
mod lattice;
mod replies;
mod serving;
mod settings;
mod tail;

#[cfg(test)]
mod tests;

pub use nats_bus::{Identity, NatsBus};
pub use error::{Kind, NatsError};
pub use lattice::Lattice;
pub use settings::{Credentials, Settings, Tls};
