//! [`Jobs`] over JetStream: many hosts, one set of queues.
//!
//! ```text
//! submit --one message, acknowledged--> stream WINDLASS_JOBS (work queue; windlass.v1.job.<concern>.<host|@any>.<id>)
//!                                             | a pull consumer per (concern, host), and one per concern for all hosts
//! take <--message--------------------------- -'
//!   `--> record in the bucket windlass_jobs, by compare-and-set: running, attempt n, whose
//! keep --> "in progress" to the consumer, a beat in the record       (silent for a lease: JetStream delivers again)
//! finish --> record final, by compare-and-set --then--> the message is acknowledged, and gone
//! ```
//!
//! A submit is one durable write: until somebody takes the job, its message *is* the job. From then on the record decides;
//! the message only sees to it that somebody looks. So a message may come twice, late, or after its job has ended: `core`
//! says what that means, and the worst is a look in vain.
//!
//! A message that comes again while its record says `running` means that the worker didn't speak for a lease, or that a
//! server forgot that it did. Whoever gets it watches the record for half a lease by its own clock: a worker that lives
//! beats in it. No two clocks are compared.
//!
//! A message stays until it is pulled, even when its job has ended meanwhile (cancelled, taken up anew): who could take any message
//! out could take out another host's. The record says that there is nothing to do, and the message is acknowledged.
//!
//! What is absent: no `max_deliver` (the record counts), no lock, no clean-up process (whoever ends a job forgets the
//! oldest), no purge and no deletion by the servers' API.

mod core;
mod errors;
mod lane;
pub(crate) mod queue;
pub(crate) mod records;
mod store;
mod take;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jobs::{Authority, JobsError, Kind, Limits, Record, Source, next_id};
use tokio::time::Instant;
use wire::job::JobId;
use wire::{HostId, Sender};

use crate::error::NatsError;
use crate::lattice::Lattice;
use crate::streams::{Jetstream, Streams};
use lane::{Lane, Message};
use queue::Queue;
use records::{Kept, Records};

/// What JetStream keeps for jobs.
#[cfg(test)]
pub(crate) const STREAMS: [&str; 2] = [queue::STREAM, records::STREAM];

/// What a fleet's jobs need beside the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobsOptions {
    /// The limits; `jobs_open_max` and `jobs_kept_max` count the jobs of all hosts. All hosts should have the same.
    pub limits: Limits,
    /// How long JetStream itself drops a message that it has had, in milliseconds. It saves work only: what makes a job
    /// happen once is its record.
    pub duplicate_window_ms: u64,
}

impl Default for JobsOptions {
    fn default() -> Self {
        Self {
            limits: Limits {
                jobs_open_max: 100_000,
                jobs_kept_max: 10_000,
                ..Limits::default()
            },
            duplicate_window_ms: 120_000,
        }
    }
}

/// [`jobs::Jobs`] over JetStream; clones are the same.
#[derive(Clone, Debug)]
pub struct JetstreamJobs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Whose jobs are this process's to forget; anybody's where it is no host's.
    host: Option<HostId>,
    queue: Queue,
    records: Records,
    source: Source,
    authority: Option<Arc<dyn Authority>>,
    /// How long a worker may be silent; fixed, for the queues' consumers have it too.
    lease: Duration,
    limits: Mutex<Limits>,
    last_id: Mutex<Option<JobId>>,
    lanes: Mutex<HashMap<(HostId, String), Arc<Lane>>>,
    /// What this process has in hand.
    held: Mutex<HashMap<JobId, Arc<tokio::sync::Mutex<Held>>>>,
    /// What this process is about to have in hand; as many as it has slots.
    taking: Mutex<Vec<JobId>>,
    /// Records whose worker may have died: the revision, and since when it stands still.
    watched: Mutex<HashMap<JobId, (u64, Instant)>>,
    ended: AtomicU64,
}

/// A job in hand.
#[derive(Debug)]
struct Held {
    kept: Kept,
    revision: u64,
    message: Message,
    written_at: Instant,
}

/// Locks that nobody panics under.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl JetstreamJobs {
    /// Opens the fleet's jobs; makes their stream and bucket when they aren't there.
    ///
    /// # Errors
    /// `Unavailable` when the servers don't answer or can't make them.
    pub async fn open(lattice: &Lattice, source: Source, options: JobsOptions) -> Result<Self, NatsError> {
        Self::open_signed(lattice, source, options, None).await
    }

    /// The same; with an `authority` every job is signed when it is queued, and checked before it begins.
    ///
    /// # Errors
    /// As [`JetstreamJobs::open`].
    pub async fn open_signed(
        lattice: &Lattice,
        source: Source,
        options: JobsOptions,
        authority: Option<Arc<dyn Authority>>,
    ) -> Result<Self, NatsError> {
        Queue::make(lattice, &options).await?;
        let streams: Arc<dyn Streams> = Arc::new(Jetstream(lattice.clone()));
        Records::make(lattice, &*streams).await?;
        let host = lattice.settings().party.as_ref().and_then(Sender::host).cloned();
        Ok(Self::over(streams, source, options, authority, host))
    }

    /// The fleet's jobs over streams that are there.
    pub fn over(
        streams: Arc<dyn Streams>,
        source: Source,
        options: JobsOptions,
        authority: Option<Arc<dyn Authority>>,
        host: Option<HostId>,
    ) -> Self {
        Self(Arc::new(Inner {
            host,
            queue: Queue::over(streams.clone(), &options.limits),
            records: Records(streams),
            source,
            authority,
            lease: Duration::from_millis(options.limits.lease_ms),
            limits: Mutex::new(options.limits),
            last_id: Mutex::new(None),
            lanes: Mutex::default(),
            held: Mutex::default(),
            taking: Mutex::default(),
            watched: Mutex::default(),
            ended: AtomicU64::new(0),
        }))
    }
}

fn denied(why: wire::ErrorBody) -> JobsError {
    let hint = why.hint.unwrap_or_default();
    JobsError::new(Kind::Denied, why.message).hint(hint)
}

impl Inner {
    fn limits(&self) -> Limits {
        *lock(&self.limits)
    }

    fn set_limits(&self, limits: Limits) {
        let mut now = lock(&self.limits);
        *now = Limits {
            lease_ms: now.lease_ms,
            jobs_open_max: now.jobs_open_max,
            ..limits
        };
    }

    fn lease(&self) -> Duration {
        self.lease
    }

    fn next_id(&self) -> JobId {
        let mut last = lock(&self.last_id);
        let text = last.as_ref().map(|id| id.0.as_str());
        let id = next_id(text, (self.source.now_ms)(), (self.source.random)());
        *last = Some(id.clone());
        id
    }

    /// A member's word on a job that is about to be queued.
    fn sign(&self, record: &mut Record) -> jobs::Result<()> {
        let Some(authority) = &self.authority else {
            return Ok(());
        };
        authority.sign(record).map_err(denied)
    }

    /// Refuses to queue again what isn't as it was signed.
    fn intact(&self, record: &Record) -> jobs::Result<()> {
        let looked = self.authority.as_ref().map(|authority| authority.intact(record));
        looked.unwrap_or(Ok(())).map_err(denied)
    }

    /// Why nobody stands behind a job as it is.
    fn disowned(&self, record: &Record) -> Option<wire::ErrorBody> {
        self.authority.as_ref()?.check(record).err()
    }

    /// Whether it is time to forget old jobs: not at each end, for looking costs two listings.
    fn is_time_to_forget(&self) -> bool {
        let every = (self.limits().jobs_kept_max / 16).max(1);
        self.ended.fetch_add(1, Ordering::Relaxed).is_multiple_of(every)
    }
}
