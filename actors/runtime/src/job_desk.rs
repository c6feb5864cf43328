//! What all job runners of a house share: the store, the running jobs' cancellation, the events.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bus::Bus;
use jobs::Jobs;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::HostId;
use wire::event::CloudEvent;
use wire::job::{Job, JobChanged, JobId};

use crate::{Clock, rfc3339, ulid};

/// What a house does with jobs that an earlier process left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recover {
    /// A daemon: queued jobs run, interrupted ones that can be taken up again are.
    Resume,
    /// A single command: they are marked `interrupted` and left; nothing but what is asked for now runs.
    MarkInterrupted,
}

/// A request or result over this many bytes of JSON is left out of events and lists; `jobs.show` has it.
const BODY_SHOWN_BYTES_MAX: usize = 16 << 10;
/// After the drain's time is up: how long a job that was told to end may take to its next safe point.
const SAFE_POINT_TIMEOUT_MS: u64 = 2_000;

/// Shared by the runners and the jobs concern.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) jobs: Arc<dyn Jobs>,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) host: HostId,
    pub(crate) recover: Recover,
    pub(crate) tokio: tokio::runtime::Handle,
    /// Nothing new is started.
    pub(crate) draining: CancellationToken,
    /// Running jobs are told to end, to be taken up by the next process.
    pub(crate) leaving: CancellationToken,
    pub(crate) running: TaskTracker,
    cancels: Mutex<HashMap<JobId, CancellationToken>>,
    /// Open jobs of an earlier process, until their concern's runner takes them.
    left: Mutex<Vec<Job>>,
}

impl Desk {
    pub(crate) async fn open(
        jobs: Arc<dyn Jobs>,
        bus: Arc<dyn Bus>,
        clock: Arc<dyn Clock>,
        host: HostId,
        recover: Recover,
    ) -> jobs::Result<Self> {
        let left = jobs.recover().await?;
        Ok(Self {
            jobs,
            bus,
            clock,
            host,
            recover,
            tokio: tokio::runtime::Handle::current(),
            draining: CancellationToken::new(),
            leaving: CancellationToken::new(),
            running: TaskTracker::new(),
            cancels: Mutex::new(HashMap::new()),
            left: Mutex::new(left),
        })
    }

    fn cancels(&self) -> MutexGuard<'_, HashMap<JobId, CancellationToken>> {
        self.cancels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The jobs that an earlier process left to `concern`; once.
    pub(crate) fn take_left(&self, concern: &str) -> Vec<Job> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let (taken, others) = left.drain(..).partition(|job| job.concern == concern);
        *left = others;
        taken
    }

    /// To be called before a job is started, so that no cancellation falls between.
    pub(crate) fn register(&self, id: &JobId) -> CancellationToken {
        let token = self.leaving.child_token();
        self.cancels().insert(id.clone(), token.clone());
        token
    }

    pub(crate) fn deregister(&self, id: &JobId) {
        self.cancels().remove(id);
    }

    /// Cancels durably, then tells the job if it runs here.
    pub(crate) async fn cancel(&self, id: &JobId) -> jobs::Result<Job> {
        let job = self.jobs.cancel(id).await?;
        if !job.state.is_final()
            && let Some(token) = self.cancels().get(id)
        {
            token.cancel();
        }
        self.announce(&job).await;
        Ok(job)
    }

    /// Publishes `jobs.changed`; that an event was not heard is no fault of the job.
    pub(crate) async fn announce(&self, job: &Job) {
        let event = CloudEvent::new(
            ulid(&*self.clock),
            &self.host,
            rfc3339(self.clock.now_ms()),
            JobChanged(shown(job.clone())),
        );
        if let Err(e) = bus::announce(&*self.bus, &event).await {
            tracing::warn!(job = %job.id, error = %e, "jobs.changed was not published");
        }
    }

    /// Starts nothing new, waits for running jobs, then tells the rest to end; they become `interrupted`. Returns how many
    /// were still running when the time was up.
    pub(crate) async fn drain(&self, timeout: Duration) -> usize {
        self.draining.cancel();
        self.running.close();
        if tokio::time::timeout(timeout, self.running.wait()).await.is_ok() {
            return 0;
        }
        let left = self.running.len();
        self.leaving.cancel();
        let safe_point = Duration::from_millis(SAFE_POINT_TIMEOUT_MS);
        if tokio::time::timeout(safe_point, self.running.wait()).await.is_err() {
            tracing::warn!(
                jobs = self.running.len(),
                "jobs still run; the next start finds them interrupted"
            );
        }
        left
    }
}

/// A job as events and lists show it: without large bodies.
pub(crate) fn shown(mut job: Job) -> Job {
    if job.request.to_string().len() > BODY_SHOWN_BYTES_MAX {
        job.request = Value::Null;
    }
    if job
        .result
        .as_ref()
        .is_some_and(|r| r.to_string().len() > BODY_SHOWN_BYTES_MAX)
    {
        job.result = None;
    }
    job
}
