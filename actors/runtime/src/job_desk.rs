//! What all job runners of a house share: the store, the running jobs' cancellation, the events.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bus::{Events, Received};
use jobs::{Jobs, Worker};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::event::CloudEvent;
use wire::job::{Job, JobChanged, JobId};
use wire::subject::EventFilter;
use wire::{ConcernName, ErrorBody, HostId, Topic};

use crate::{Announcer, Clock, Kind, RuntimeError};

/// What a house does with jobs that an earlier process left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recover {
    /// A daemon: it takes what waits in its queues.
    Resume,
    /// A single command: what was running is marked `interrupted` and left; nothing but what is asked for now runs.
    MarkInterrupted,
}

/// A request or result over this many bytes of JSON is left out of events and lists; `jobs.show` has it.
const BODY_SHOWN_BYTES_MAX: usize = 16 << 10;
/// After the drain's time is up: how long a job that was told to end may take to its next safe point.
const SAFE_POINT_TIMEOUT_MS: u64 = 2_000;

/// What a host takes; orders of a person change it while the house stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// All that there is.
    All,
    /// Only what names this host.
    Own,
    /// Nothing.
    Nothing,
}

/// Shared by the runners and the jobs concern.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) jobs: Arc<dyn Jobs>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) announcer: Announcer,
    /// This process, as the queues know it.
    pub(crate) worker: Worker,
    pub(crate) recover: Recover,
    pub(crate) tokio: tokio::runtime::Handle,
    /// The process drains: nothing new is started.
    pub(crate) draining: CancellationToken,
    pub(crate) running: TaskTracker,
    admission: watch::Sender<Admission>,
    /// Cancelled when running jobs have to be left; anew after each time.
    leaving: Mutex<CancellationToken>,
    cancels: Mutex<HashMap<JobId, CancellationToken>>,
}

/// How a running job hears that it has to end.
#[derive(Debug, Clone)]
pub(crate) struct Stops {
    /// For any reason.
    pub(crate) cancel: CancellationToken,
    /// Because the process or the host drains: the job is left to the next taker.
    pub(crate) leaving: CancellationToken,
}

impl Desk {
    /// To be called on a tokio runtime.
    pub(crate) fn new(jobs: Arc<dyn Jobs>, announcer: Announcer, worker: Worker, recover: Recover) -> Arc<Self> {
        Arc::new(Self {
            jobs,
            clock: announcer.clock.clone(),
            announcer,
            worker,
            recover,
            tokio: tokio::runtime::Handle::current(),
            draining: CancellationToken::new(),
            running: TaskTracker::new(),
            admission: watch::Sender::new(Admission::All),
            leaving: Mutex::new(CancellationToken::new()),
            cancels: Mutex::new(HashMap::new()),
        })
    }

    /// Takes stock of what earlier processes left, and listens.
    pub(crate) async fn open(self: &Arc<Self>) -> Result<(), RuntimeError> {
        self.jobs.recover(&self.worker).await?;
        let concern = ConcernName::new(JobChanged::CONCERN)
            .map_err(|e| RuntimeError::new(Kind::Invalid, format!("jobs can't be heard of: {e}")))?;
        let changes = EventFilter::Exactly(concern, JobChanged::WHAT.to_owned());
        let heard = self
            .announcer
            .bus
            .subscribe(changes, bus::EVENTS_QUEUED_DEFAULT)
            .await?;
        tokio::spawn(hear_of_cancels(Arc::downgrade(self), heard));
        Ok(())
    }

    fn cancels(&self) -> MutexGuard<'_, HashMap<JobId, CancellationToken>> {
        self.cancels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leaving(&self) -> MutexGuard<'_, CancellationToken> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the dispatchers follow.
    pub(crate) fn admission(&self) -> watch::Receiver<Admission> {
        self.admission.subscribe()
    }

    pub(crate) fn set_admission(&self, admission: Admission) {
        self.admission
            .send_if_modified(|now| std::mem::replace(now, admission) != admission);
    }

    /// Tells running jobs to end at their next safe point and leaves them to the next taker.
    pub(crate) fn leave_running(&self) {
        std::mem::take(&mut *self.leaving()).cancel();
    }

    /// To be called as soon as a job is in hand, so that no cancellation falls between.
    pub(crate) fn register(&self, id: &JobId) -> Stops {
        let leaving = self.leaving().clone();
        let cancel = leaving.child_token();
        self.cancels().insert(id.clone(), cancel.clone());
        Stops { cancel, leaving }
    }

    pub(crate) fn deregister(&self, id: &JobId) {
        self.cancels().remove(id);
    }

    /// The job has to end, if it runs here.
    pub(crate) fn tell_to_end(&self, id: &JobId) {
        if let Some(token) = self.cancels().get(id) {
            token.cancel();
        }
    }

    /// Cancels durably, then tells the job if it runs here.
    pub(crate) async fn cancel(&self, id: &JobId) -> jobs::Result<Job> {
        let job = self.jobs.cancel(id).await?;
        if !job.state.is_final() {
            self.tell_to_end(id);
        }
        self.announce(&job).await;
        Ok(job)
    }

    /// Queues it again durably.
    pub(crate) async fn retry(&self, id: &JobId) -> Result<Job, ErrorBody> {
        let job = self.jobs.retry(id).await?;
        self.announce(&job).await;
        Ok(job)
    }

    /// The host that alone may do this job, when that isn't this one.
    pub(crate) async fn of_another_host(&self, id: &JobId) -> Result<Option<HostId>, ErrorBody> {
        let target = self.jobs.show(id).await?.target;
        Ok(target.filter(|host| *host != self.worker.host))
    }

    /// Publishes `jobs.changed`; that an event was not heard is no fault of the job.
    pub(crate) async fn announce(&self, job: &Job) {
        self.announcer.announce(JobChanged(shown(job.clone()))).await;
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
        self.leave_running();
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

/// A job that runs here may be cancelled at any host: its `jobs.changed` says so. A lost event is made good when the job's
/// ticket is kept.
async fn hear_of_cancels(desk: Weak<Desk>, mut heard: Events) {
    while let Some(received) = heard.next().await {
        let Received::Event { payload, .. } = received else {
            continue;
        };
        let Some(desk) = desk.upgrade() else { return };
        let event = serde_json::from_slice::<CloudEvent<JobChanged>>(&payload);
        if let Ok(event) = event
            && event.data.0.cancel_asked
            && !event.data.0.state.is_final()
        {
            desk.tell_to_end(&event.data.0.id);
        }
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
