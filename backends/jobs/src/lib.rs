//! Port [`Jobs`]: work that is durable before it is acknowledged.
//!
//! ```text
//! submit --durable--> queued --start--> running --finish--> done | failed | cancelled
//!                        ^                 | the process died, or left it when it drained
//!                        `---- start ---- interrupted
//! ```
//!
//! * [`Redb`] keeps jobs in the state's own file ([`state::Database`]); on [`state::Database::in_memory`] it is the fake of
//!   the tests.
//! * `core` has the rules of that drawing, without I/O.
//! * `conformance` (feature `testing`) is what every implementation has to pass.
//!
//! Invariants: a submitted job is never lost and never submitted twice under one request id; a final job never changes.
//!
//! What is absent: nothing here runs a job (`runtime::jobs` does); no clock and no randomness (closures bring them).

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use wire::ErrorBody;
use wire::job::{Job, JobId, Progress};

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod core;
mod error;
mod redb_jobs;

#[cfg(test)]
mod tests;

pub use error::{JobsError, Kind};
pub use redb_jobs::Redb;

/// The result of this crate's calls.
pub type Result<T> = std::result::Result<T, JobsError>;

/// Largest request or result of a job, in bytes of JSON.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Interrupted jobs that wait to be taken up; at recovery the oldest beyond these end as failed, so that a host on which
/// only single commands run doesn't fill up.
pub const INTERRUPTED_JOBS_MAX: usize = 100;
/// Most jobs that one [`Jobs::list`] returns.
pub const LIST_JOBS_MAX: usize = 1_000;

/// What a job store keeps, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Jobs that are not final; the next submitter hears `Busy`.
    pub jobs_open_max: u64,
    /// Final jobs that are kept; the oldest go first.
    pub jobs_kept_max: u64,
    /// How long a request id names its job, in hours.
    pub idempotency_keep_h: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            jobs_open_max: 1_000,
            jobs_kept_max: 1_000,
            idempotency_keep_h: 24,
        }
    }
}

/// Time and randomness, brought by whoever builds a store.
#[derive(Clone)]
pub struct Source {
    /// The time in Unix milliseconds.
    pub now_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// The given Unix milliseconds as RFC 3339 in UTC.
    pub rfc3339: fn(u64) -> String,
    /// Random bits for ids.
    pub random: Arc<dyn Fn() -> u128 + Send + Sync>,
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
    /// Not ended: left when the process drained; it can be started again.
    Interrupted(ErrorBody),
}

/// The port. One store belongs to one host.
#[async_trait]
pub trait Jobs: Debug + Send + Sync + 'static {
    /// Accepts a job; it is durable when this returns.
    ///
    /// # Errors
    /// `Conflict` when the request id names a job with another request, `Busy` at `jobs_open_max`, `Invalid` for a request
    /// over [`BODY_BYTES_MAX`].
    async fn submit(&self, new: NewJob) -> Result<Submitted>;

    /// The concern's oldest `queued` job becomes `running` and is the caller's; `None` when there is none.
    ///
    /// # Errors
    /// As the storage's.
    async fn claim(&self, concern: &str) -> Result<Option<Job>>;

    /// This job, `queued` or `interrupted`, becomes `running` and is the caller's.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` in any other state.
    async fn start(&self, id: &JobId) -> Result<Job>;

    /// Records how far a running job is; may be lost by a crash. Callers see to it that it isn't called too often.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it isn't running.
    async fn progress(&self, id: &JobId, progress: Progress) -> Result<Job>;

    /// A running job ended (or an interrupted one is given up: `Failed`); durable when this returns.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it isn't running; `Invalid` for a result over [`BODY_BYTES_MAX`].
    async fn finish(&self, id: &JobId, outcome: Outcome) -> Result<Job>;

    /// Asks for the end of a job: a `queued` or `interrupted` one is `cancelled` at once, a `running` one is marked, so that
    /// it ends even when its process dies, and returned as it is. A final job is returned unchanged.
    ///
    /// # Errors
    /// `NotFound`.
    async fn cancel(&self, id: &JobId) -> Result<Job>;

    /// One job.
    ///
    /// # Errors
    /// `NotFound`.
    async fn show(&self, id: &JobId) -> Result<Job>;

    /// Jobs, newest first, at most `jobs_max` ([`LIST_JOBS_MAX`] if that is less).
    ///
    /// # Errors
    /// As the storage's.
    async fn list(&self, jobs_max: usize) -> Result<Vec<Job>>;

    /// Jobs that are not final.
    ///
    /// # Errors
    /// As the storage's.
    async fn open_count(&self) -> Result<u64>;

    /// To be called at boot, before anything is started: what was `running` becomes `interrupted` (`cancelled` where that had
    /// been asked for). Returns all open jobs, oldest first.
    ///
    /// # Errors
    /// As the storage's.
    async fn recover(&self) -> Result<Vec<Job>>;
}
