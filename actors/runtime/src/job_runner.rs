//! Runs the jobs of one concern: durable first, then acknowledged, then run.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use jobs::{NewJob, Outcome};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc, watch};
use wire::job::{Job, JobAccepted, JobId, JobState, Progress};
use wire::{Code, ErrorBody, Request};

use crate::concern::{Call, Effect};
use crate::job_context::JobContext;
use crate::job_desk::{Desk, Recover};
use crate::keeper::panic_text;

/// Progress is stored and published at most this often, in milliseconds.
const PROGRESS_EVERY_MS: u64 = 200;

/// What becomes of a job whose process died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnCrash {
    /// It can be run again from its request, and finishes what was begun.
    Resume,
    /// It ends as `failed`.
    Fail,
}

type Body = Arc<dyn Fn(JobContext, Value) -> BoxFuture<'static, Result<Value, ErrorBody>> + Send + Sync>;

/// The kinds of job of a concern: one row each.
#[derive(Default, Clone)]
pub struct Kinds(BTreeMap<&'static str, (OnCrash, Body)>);

impl Kinds {
    /// No kinds.
    pub fn new() -> Self {
        Self::default()
    }

    /// Jobs of the verb of `R`, as a future on the program's tokio runtime.
    pub fn on<R, Out, Fut>(
        mut self,
        on_crash: OnCrash,
        body: impl Fn(JobContext, R) -> Fut + Send + Sync + 'static,
    ) -> Self
    where
        R: Request<Reply = JobAccepted>,
        Out: Serialize,
        Fut: Future<Output = Result<Out, ErrorBody>> + Send + 'static,
    {
        let body: Body = Arc::new(move |context, request| match decoded::<R>(request) {
            Ok(request) => body(context, request).map(|out| encoded(out?)).boxed(),
            Err(e) => std::future::ready(Err(e)).boxed(),
        });
        self.0.insert(R::VERB, (on_crash, body));
        self
    }

    /// Jobs of the verb of `R` that block: hashing, compression, plain file I/O.
    pub fn on_blocking<R, Out>(
        mut self,
        on_crash: OnCrash,
        body: impl Fn(JobContext, R) -> Result<Out, ErrorBody> + Send + Sync + 'static,
    ) -> Self
    where
        R: Request<Reply = JobAccepted>,
        Out: Serialize,
    {
        let body = Arc::new(body);
        let body: Body = Arc::new(move |context, request| {
            let body = body.clone();
            let work = move || encoded(body(context, decoded::<R>(request)?)?);
            async move {
                match tokio::task::spawn_blocking(work).await {
                    Ok(result) => result,
                    // passed on, so that both sorts of body die in one place
                    Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
                    Err(_ended) => Err(ErrorBody::new(Code::Unavailable, "the process is ending")),
                }
            }
            .boxed()
        });
        self.0.insert(R::VERB, (on_crash, body));
        self
    }
}

fn decoded<R: Request>(request: Value) -> Result<R, ErrorBody> {
    serde_json::from_value(request).map_err(|e| {
        ErrorBody::new(
            Code::Invalid,
            format!("the job's request can't be read: {e}; nothing was done"),
        )
    })
}

fn encoded(out: impl Serialize) -> Result<Value, ErrorBody> {
    serde_json::to_value(out).map_err(|e| {
        ErrorBody::new(
            Code::Internal,
            format!("the job's result can't be encoded: {e}; the work is done"),
        )
    })
}

struct Inner {
    concern: &'static str,
    kinds: Kinds,
    desk: Arc<Desk>,
    // unbounded in itself: the store's jobs_open_max bounds what is sent
    to_run: mpsc::UnboundedSender<JobId>,
}

/// Runs the jobs of one concern; clones are the same runner.
#[derive(Clone)]
pub struct Runner(Arc<Inner>);

impl Runner {
    /// Starts to work, with what an earlier process left as [`Recover`] says.
    pub(crate) fn start(desk: Arc<Desk>, concern: &'static str, kinds: Kinds, parallel_jobs_max: usize) -> Self {
        let (to_run, queue) = mpsc::unbounded_channel();
        let runner = Self(Arc::new(Inner {
            concern,
            kinds,
            desk: desk.clone(),
            to_run,
        }));
        let left = desk.take_left(concern);
        let weak = Arc::downgrade(&runner.0);
        let recovering = runner.clone();
        desk.tokio.spawn(async move { recovering.take_up(left).await });
        desk.tokio
            .clone()
            .spawn(dispatch(desk, weak, queue, parallel_jobs_max.max(1)));
        runner
    }

    /// Accepts a job of the verb of `R`: durable first, then the answer.
    pub fn accept<A: 'static, R: Request<Reply = JobAccepted>>(
        &self,
        request: &R,
        call: &Call,
    ) -> Effect<A, JobAccepted> {
        let runner = self.clone();
        let request_id = call.headers.request_id.clone();
        match serde_json::to_value(request) {
            Ok(request) => Effect::run(async move { runner.submit(R::VERB, request, request_id).await }),
            Err(e) => Effect::answer(Err(ErrorBody::new(
                Code::Invalid,
                format!("the request can't be kept: {e}"),
            ))),
        }
    }

    /// Accepts a job.
    ///
    /// # Errors
    /// `invalid` for an unknown kind, or the store's; nothing was accepted then.
    pub async fn submit(
        &self,
        kind: &str,
        request: Value,
        request_id: Option<String>,
    ) -> Result<JobAccepted, ErrorBody> {
        let Inner {
            concern,
            kinds,
            desk,
            to_run,
        } = &*self.0;
        if !kinds.0.contains_key(kind) {
            return Err(ErrorBody::new(
                Code::Invalid,
                format!("{concern} has no jobs of kind '{kind}'; nothing was accepted"),
            ));
        }
        let new = NewJob {
            concern: (*concern).to_owned(),
            kind: kind.to_owned(),
            request_id,
            request,
        };
        let submitted = desk.jobs.submit(new).await?;
        if let Ok(job) = desk.jobs.show(&submitted.job).await {
            // a duplicate of a job that waits or was interrupted is run as well: someone asks for it now
            if matches!(job.state, JobState::Queued | JobState::Interrupted) {
                let _dispatcher_ended_when_draining = to_run.send(job.id.clone());
            }
            if !submitted.duplicate {
                desk.announce(&job).await;
            }
        }
        Ok(JobAccepted {
            job: submitted.job,
            duplicate: submitted.duplicate,
        })
    }

    async fn take_up(&self, left: Vec<Job>) {
        let Inner {
            kinds, desk, to_run, ..
        } = &*self.0;
        for job in left {
            let on_crash = kinds.0.get(job.kind.as_str()).map(|(on_crash, _)| *on_crash);
            match (job.state, on_crash) {
                (JobState::Interrupted, Some(OnCrash::Fail)) => {
                    let why = ErrorBody::new(
                        Code::Unavailable,
                        format!(
                            "job {} ended with the process that ran it and can't be taken up again",
                            job.id
                        ),
                    )
                    .hint("ask for it again");
                    conclude(desk, &job.id, Outcome::Failed(why)).await;
                }
                (_, Some(_)) if desk.recover == Recover::Resume => {
                    let _dispatcher_ended_when_draining = to_run.send(job.id);
                }
                _ => {}
            }
        }
    }

    async fn run(&self, id: JobId) {
        let desk = &self.0.desk;
        let cancel = desk.register(&id);
        match desk.jobs.start(&id).await {
            Ok(job) => {
                desk.announce(&job).await;
                let outcome = self.carry_out(job, cancel).await;
                conclude(desk, &id, outcome).await;
            }
            // cancelled while it waited, or sent twice
            Err(e) if e.kind == jobs::Kind::Conflict => {}
            Err(e) => tracing::error!(job = %id, error = %e, "job not started; the next start of windlass tries again"),
        }
        desk.deregister(&id);
    }

    async fn carry_out(&self, job: Job, cancel: tokio_util::sync::CancellationToken) -> Outcome {
        let Inner { kinds, desk, .. } = &*self.0;
        let Some((_, body)) = kinds.0.get(job.kind.as_str()) else {
            let message = format!("this windlass has no jobs of kind '{}.{}'", job.concern, job.kind);
            return Outcome::Failed(ErrorBody::new(Code::Unavailable, message));
        };
        let (id, request) = (job.id.clone(), job.request.clone());
        let (context, progress) = JobContext::new(job, desk.clock.clone(), cancel.clone());
        let reporter = desk.tokio.spawn(report(desk.clone(), id.clone(), progress));
        let body = body.clone();
        // a task of its own, so that a panic of the body (or of the closure that makes it) ends there
        let ended = desk.tokio.spawn(async move { body(context, request).await }).await;
        // its sender went with the context; what it had not written yet, it writes before it ends
        let _reporter_never_fails = reporter.await;
        match ended {
            Ok(Ok(result)) => Outcome::Done(result),
            Ok(Err(e)) if desk.leaving.is_cancelled() && cancel.is_cancelled() => Outcome::Interrupted(e),
            Ok(Err(e)) if cancel.is_cancelled() => Outcome::Cancelled(e),
            Ok(Err(e)) => Outcome::Failed(e),
            Err(e) if e.is_panic() => {
                let why = panic_text(e.into_panic());
                tracing::error!(job = %id, why, "job panicked");
                let message = format!("job {id} panicked: {why}; what had begun may be done in part");
                Outcome::Failed(ErrorBody::new(Code::Internal, message).hint("the log has more"))
            }
            Err(_) => Outcome::Interrupted(ErrorBody::new(Code::Unavailable, "the process is ending")),
        }
    }
}

/// Starts jobs in their order, at most `parallel_jobs_max` at once, until the house drains.
async fn dispatch(
    desk: Arc<Desk>,
    runner: std::sync::Weak<Inner>,
    mut queue: mpsc::UnboundedReceiver<JobId>,
    parallel_jobs_max: usize,
) {
    let slots = Arc::new(Semaphore::new(parallel_jobs_max));
    loop {
        let next = async {
            let slot = slots.clone().acquire_owned().await.ok()?;
            Some((slot, queue.recv().await?))
        };
        let (slot, id) = tokio::select! {
            biased;
            () = desk.draining.cancelled() => return,
            next = next => match next {
                Some(next) => next,
                None => return,
            },
        };
        let Some(inner) = runner.upgrade() else { return };
        desk.tokio.spawn(desk.running.track_future(async move {
            Runner(inner).run(id).await;
            drop(slot);
        }));
    }
}

/// Writes and publishes progress, throttled; ends when the job's context is gone.
async fn report(desk: Arc<Desk>, id: JobId, mut progress: watch::Receiver<Progress>) {
    // a change that was not seen yet is told before the end is
    while progress.changed().await.is_ok() {
        let now = progress.borrow_and_update().clone();
        match desk.jobs.progress(&id, now).await {
            Ok(job) => desk.announce(&job).await,
            Err(e) => tracing::warn!(job = %id, error = %e, "progress not stored"),
        }
        // the pause ends with the job: nobody waits for it in vain
        let mut ahead = progress.clone();
        let ended = async { while ahead.changed().await.is_ok() {} };
        let _paused = tokio::time::timeout(Duration::from_millis(PROGRESS_EVERY_MS), ended).await;
    }
}

/// Stores how a job ended and tells so. A result that can't be kept fails the job instead.
async fn conclude(desk: &Desk, id: &JobId, outcome: Outcome) {
    let ended = match desk.jobs.finish(id, outcome).await {
        Err(e) if e.kind == jobs::Kind::Invalid => {
            let message = format!("job {id} is done, but its result can't be kept: {e}");
            desk.jobs
                .finish(id, Outcome::Failed(ErrorBody::new(Code::Internal, message)))
                .await
        }
        other => other,
    };
    match ended {
        Ok(job) => desk.announce(&job).await,
        Err(e) => {
            tracing::error!(job = %id, error = %e, "the end of a job was not stored; the next start finds it interrupted")
        }
    }
}
