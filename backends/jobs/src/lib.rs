//! Port [`Jobs`]: work that is durable before it is acknowledged, for one host or for many.
//!
//! ```text
//! submit --durable--> queued --take--> running --finish--> done | failed | cancelled --retry--> queued
//!                        ^                | the worker died, fell silent, or left it in good order
//!                        `---- take --- interrupted --- too often --> dead --retry--> queued
//! ```
//!
//! A job waits in the queue of its concern on one host ([`Target::Host`]) or in that of its concern on any host
//! ([`Target::Any`]). Whoever takes it holds a [`Ticket`], good for one attempt, and has to say every
//! [`Jobs::keep_every`] that it lives. A ticket that was silent for [`Limits::lease_ms`] lapses: the job goes to the next
//! taker, and what the old ticket says afterwards is refused. So a job may be *begun* more than once; it *ends* once, by
//! its record, and only then is it gone from its queue.
//!
//! * [`Redb`] keeps jobs in the state's own file ([`state::Database`]); on [`state::Database::in_memory`] it is the fake of
//!   the tests. JetStream's implementation is in the crate `nats`.
//! * [`Record`] has the rules of that drawing, without I/O; [`invariants`] what no write of one may do.
//! * `conformance` (feature `testing`) is what every implementation has to pass.
//!
//! Invariants: a submitted job is never lost and never submitted twice under one request id; a job ends once between two
//! retries; no two clocks of two hosts are ever compared.
//!
//! What is absent: nothing here runs a job (`runtime` does); no clock and no randomness (closures bring them).

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use serde_json::Value;
use wire::job::{Job, JobId, JobState, Progress};
use wire::{ErrorBody, HostId};

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod core;
mod error;
pub mod invariants;
mod redb_jobs;
mod redb_tables;

#[cfg(test)]
mod tests;

pub use core::{Now, Record, next_id};
pub use error::{JobsError, Kind};
pub use redb_jobs::Redb;

/// The result of this crate's calls.
pub type Result<T> = std::result::Result<T, JobsError>;

/// Largest request or result of a job, in bytes of JSON: the two together fit into one message of a bus.
pub const BODY_BYTES_MAX: usize = 448 << 10;
/// Interrupted jobs that wait to be taken up; at recovery the oldest beyond these end as failed, so that a host on which
/// only single commands run doesn't fill up.
pub const INTERRUPTED_JOBS_MAX: usize = 100;
/// Dead jobs that are kept; the oldest go first.
pub const DEAD_JOBS_MAX: u64 = 1_000;
/// Most jobs that one [`Jobs::list`] returns.
pub const LIST_JOBS_MAX: usize = 1_000;

/// What a job store keeps, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Jobs that are not final; the next submitter hears `Busy`.
    pub jobs_open_max: u64,
    /// Final jobs that are kept; the oldest go first.
    pub jobs_kept_max: u64,
    /// How long a request id names its job, in milliseconds.
    pub idempotency_keep_ms: u64,
    /// How long a ticket may be silent before its job is given to the next taker, in milliseconds.
    pub lease_ms: u64,
    /// How often a job may be delivered to workers that die or fall silent; then it is `dead`.
    pub deliveries_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            jobs_open_max: 1_000,
            jobs_kept_max: 1_000,
            idempotency_keep_ms: 24 * 3_600_000,
            lease_ms: 30_000,
            deliveries_max: 5,
        }
    }
}

/// Time and randomness, brought by whoever builds a store.
#[derive(Clone)]
pub struct Source {
    /// The time in Unix milliseconds.
    pub now_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Milliseconds since some fixed moment; never goes back.
    pub monotonic_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// The given Unix milliseconds as RFC 3339 in UTC.
    pub rfc3339: fn(u64) -> String,
    /// Random bits for ids.
    pub random: Arc<dyn Fn() -> u128 + Send + Sync>,
}

impl Source {
    /// Now.
    pub fn now(&self) -> Now {
        let ms = (self.now_ms)();
        Now {
            ms,
            text: (self.rfc3339)(ms),
        }
    }
}

impl Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Source")
    }
}

/// Who stands behind jobs, in a store that many hosts share: whoever queues a job signs it, whoever takes it looks before it
/// begins.
#[async_trait]
pub trait Authority: Debug + Send + Sync + 'static {
    /// Puts its word on a job that is about to be queued, or queued again.
    ///
    /// # Errors
    /// `denied` when it can't; nothing is queued then.
    fn sign(&self, record: &mut Record) -> std::result::Result<(), ErrorBody>;

    /// Looks whether somebody who counts stands behind the job as it is.
    ///
    /// # Errors
    /// Why nobody does; the job is set aside with that.
    fn check(&self, record: &Record) -> std::result::Result<(), ErrorBody>;

    /// Looks whether a job that has ended is still what somebody once stood behind: only that is queued again.
    ///
    /// # Errors
    /// Why it isn't; it is left as it is.
    fn intact(&self, record: &Record) -> std::result::Result<(), ErrorBody>;

    /// A job has ended here, and its record says so: it is not to be begun again by that word, even when the servers forget the
    /// record.
    async fn ended(&self, record: &Record);
}

/// Which hosts may do a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// This one: the request names a path, a device or a process there.
    Host(HostId),
    /// Any that serves the concern.
    Any,
}

/// One process of one host: who takes jobs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Worker {
    /// The host.
    pub host: HostId,
    /// The process: another word after each start.
    pub boot: String,
}

/// From which queues of a concern jobs are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queues {
    /// The host's own.
    Own,
    /// The host's own, and the one that all hosts share.
    OwnAndShared,
}

/// The right to work on a job, for one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The job.
    pub job: JobId,
    /// Which of its attempts.
    pub attempt: u32,
    /// Who has it.
    pub worker: Worker,
    /// An earlier attempt began and didn't end.
    pub resumed: bool,
}

/// A job in hand.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// The job, `running`.
    pub job: Job,
    /// What to show with every word about it.
    pub ticket: Ticket,
}

/// A job to be done.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    /// The concern that does it.
    pub concern: String,
    /// The verb that asked for it.
    pub kind: String,
    /// The idempotency key: the same key, concern and kind name one job.
    pub request_id: Option<String>,
    /// The trace that it belongs to; of a duplicate the first one's counts.
    pub traceparent: Option<String>,
    /// Which hosts may do it.
    pub target: Target,
    /// The request.
    pub request: Value,
}

/// What [`Jobs::submit`] did.
#[derive(Debug, Clone, PartialEq)]
pub struct Submitted {
    /// The job; a new one is `queued`.
    pub job: JobId,
    /// True when the request id was known and names an earlier job.
    pub duplicate: bool,
    /// The job as it was accepted; `None` for a duplicate.
    pub accepted: Option<Box<Job>>,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// With this reply.
    Done(Value),
    /// With this error.
    Failed(ErrorBody),
    /// Because someone asked for it.
    Cancelled(ErrorBody),
    /// Not ended: left in good order when the process or the host drained; it can be taken up again.
    Interrupted(ErrorBody),
    /// Not begun: given back as it was.
    HandedBack,
}

/// The port.
#[async_trait]
pub trait Jobs: Debug + Send + Sync + 'static {
    /// Accepts a job; it is durable when this returns.
    ///
    /// # Errors
    /// `Conflict` when the request id names a job with another request, `Busy` at `jobs_open_max`, `Invalid` for a request
    /// over [`BODY_BYTES_MAX`].
    async fn submit(&self, new: NewJob) -> Result<Submitted>;

    /// A waiting job (`queued` or `interrupted`) of the concern becomes `running` and is the worker's; the oldest of a
    /// queue first. Waits for one until `until` ends, and answers `None` then. May be dropped at any time: a job that was on
    /// its way is delivered again after a while.
    ///
    /// # Errors
    /// As the storage's.
    async fn take(
        &self,
        worker: &Worker,
        concern: &str,
        queues: Queues,
        until: BoxFuture<'static, ()>,
    ) -> Result<Option<Taken>>;

    /// This job, `queued` or `interrupted`, becomes `running` and is the worker's: for a single command, which does what it
    /// was asked for and nothing of others.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` in any other state; `Invalid` in a store that several hosts share.
    async fn take_this(&self, worker: &Worker, id: &JobId) -> Result<Taken>;

    /// How often [`Jobs::keep`] has to be called: some three times within the lease.
    fn keep_every(&self) -> Duration;

    /// The worker lives. Returns the job as it is; `cancel_asked` may have come.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when the ticket counts no more: the worker has to stop.
    async fn keep(&self, ticket: &Ticket) -> Result<Job>;

    /// Records how far a running job is; may be lost by a crash. Callers see to it that it isn't called too often.
    ///
    /// # Errors
    /// As [`Jobs::keep`].
    async fn progress(&self, ticket: &Ticket, progress: Progress) -> Result<Job>;

    /// A running job ended, or is left to the next taker; durable when this returns, and then only is it gone from its
    /// queue.
    ///
    /// # Errors
    /// As [`Jobs::keep`]; `Invalid` for a result over [`BODY_BYTES_MAX`].
    async fn finish(&self, ticket: &Ticket, outcome: Outcome) -> Result<Job>;

    /// Asks for the end of a job: a `queued` or `interrupted` one is `cancelled` at once, a `running` one is marked, so that
    /// it ends even when its worker dies, and returned as it is. A final job is returned unchanged.
    ///
    /// # Errors
    /// `NotFound`.
    async fn cancel(&self, id: &JobId) -> Result<Job>;

    /// Queues a job again that is `dead`, `failed` or `cancelled`; it may be delivered as often as a new one.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` in any other state; `Busy` as [`Jobs::submit`].
    async fn retry(&self, id: &JobId) -> Result<Job>;

    /// One job.
    ///
    /// # Errors
    /// `NotFound`.
    async fn show(&self, id: &JobId) -> Result<Job>;

    /// Jobs, newest first, at most `jobs_max` ([`LIST_JOBS_MAX`] if that is less); with `state` only those in it.
    ///
    /// # Errors
    /// As the storage's.
    async fn list(&self, jobs_max: usize, state: Option<JobState>) -> Result<Vec<Job>>;

    /// Jobs that are not final.
    ///
    /// # Errors
    /// As the storage's.
    async fn open_count(&self) -> Result<u64>;

    /// To be called once when a process starts, before it takes anything: what earlier processes of this worker's host had
    /// in hand is left by them, and waits for the next taker.
    ///
    /// # Errors
    /// As the storage's.
    async fn recover(&self, worker: &Worker) -> Result<()>;

    /// Other limits from now on. What was fixed when the store was opened stays: the lease, on which every ticket counts, and,
    /// where many hosts share a queue, `jobs_open_max`.
    fn set_limits(&self, limits: Limits);
}

/// Counts what is written to it.
struct Counted(usize);

impl std::io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Refuses a request or a result that is too large to be kept.
///
/// # Errors
/// `Invalid`.
pub fn check_body(what: &str, body: &Value) -> Result<()> {
    let mut bytes = Counted(0);
    serde_json::to_writer(&mut bytes, body).map_err(|e| {
        JobsError::new(
            Kind::Invalid,
            format!("{what} can't be encoded: {e}; nothing was written"),
        )
    })?;
    let bytes = bytes.0;
    if bytes <= BODY_BYTES_MAX {
        return Ok(());
    }
    Err(JobsError::new(
        Kind::Invalid,
        format!("{what} has {bytes} bytes; at most {BODY_BYTES_MAX} are kept; nothing was written"),
    ))
}
