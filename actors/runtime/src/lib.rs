//! actix, confined to this crate: concerns are plain types that it keeps alive.
//!
//! ```text
//! bus -> inlet (deadline, slot in the mailbox) -> shelf -> keeper (one thread a concern) -> Concern: decide at once
//!                                                             ^                                |
//!                                                             `--- Effect: a future, then the answer
//! ```
//!
//! * [`Concern`], [`Routes`], [`Effect`]: what the author of a concern writes: one row a verb, a handler that decides on
//!   `&mut self`, and a future for what takes time; where it has them, [`Kinds`] of job and a [`Round`] of work.
//! * [`Announcer`]: publishes a host's events.
//! * [`House`]: starts concerns and job runners, answers `house.status` and `jobs.*`, drains.
//! * `hosts`: this host's heartbeat in State, what it knows of the others, orders of people (`hosts.*`).
//! * `keeper`: hosts a concern on its own thread, catches every panic, answers the message at fault `internal`, builds a
//!   successor within a restart budget, and keeps the queue meanwhile.
//! * `inlet`: between bus and mailbox, on the bus's own thread; full means `busy`, late means `deadline`, and nothing is dropped
//!   in silence. `shelf`: where the keeper finds what came, all at once.
//! * [`Kinds`], [`JobContext`]: long work: durable first, then acknowledged, then run by the concern's runner.
//! * [`House::renew`]: other limits, and every concern built anew by its factory, which reads the configuration of the day.
//! * [`Traced`], [`within_span`]: a request's and a job's log lines have the id of its trace, and so has what it asks and tells.
//! * [`Clock`]: time and randomness; [`SystemClock`] is the only place that reads them from the host.
//!
//! Invariants: no input and no panic of a concern ends the process or another concern; every request that reached a mailbox
//! is answered exactly once; an accepted job is durable.
//!
//! What is absent: no supervision by actix (its own dies with a panicking handler), no `do_send`, no unbounded mailbox; a
//! handler that never returns can't be interrupted, so handlers decide and leave what blocks to an [`Effect`] or a job.

mod announcer;
#[cfg(any(test, feature = "testing"))]
mod bare;
mod clock;
mod concern;
mod error;
mod hosts;
mod house;
mod inlet;
mod job_book;
mod job_context;
mod job_desk;
mod job_runner;
mod keeper;
mod ledger;
mod measures;
mod restart;
mod rounds;
mod shelf;
mod slots;
mod system;
mod traced;

#[cfg(test)]
mod tests;

pub use announcer::Announcer;
#[cfg(any(test, feature = "testing"))]
pub use bare::Bare;
#[cfg(any(test, feature = "testing"))]
pub use clock::ManualClock;
pub use clock::{Clock, SystemClock, job_source, rfc3339, state_clock, ulid};
pub use concern::{Call, Concern, Effect, Routes};
pub use error::{Kind, RuntimeError};
pub use hosts::{HostsOptions, Membership, own_keys, shared_keys};
pub use house::{House, HouseOptions};
pub use job_context::{CANCELLED, JobContext};
pub use job_desk::{Admission, Recover};
pub use job_runner::{Kinds, OnCrash};
pub use measures::{BUCKETS_S, Histogram, Measures};
pub use restart::Restart;
pub use rounds::Round;
pub use slots::{Slot, Slots};
pub use traced::{Traced, next_step, within_span};

/// The limits of one concern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Messages that may wait; the next asker hears `busy`.
    pub mailbox_messages_max: usize,
    /// Effects that may be under way; further messages wait.
    pub in_flight_max: usize,
    /// What an asker who heard `busy` is told to wait, in milliseconds.
    pub retry_after_ms: u64,
    /// How often it may die.
    pub restart: Restart,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            mailbox_messages_max: 1_000,
            in_flight_max: 64,
            retry_after_ms: 100,
            restart: Restart::default(),
        }
    }
}
