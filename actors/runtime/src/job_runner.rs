//! Runs the jobs of one concern: durable first, then acknowledged, then run.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use jobs::{NewJob, Target};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc};
use wire::job::{JobAccepted, JobId};
use wire::{Address, Code, ErrorBody, Headers, Request};

use crate::concern::{Call, Effect};
use crate::job_context::JobContext;
use crate::job_desk::{Desk, Recover};
use crate::traced::Traced;

mod attempt;
mod dispatch;

/// What becomes of a job whose worker died or fell silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnCrash {
    /// It can be run again from its request, and finishes what was begun; also while the silent worker still runs, for a
    /// host that is cut off notices it a while later.
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
            let traced = Traced::current();
            let work = move || match traced {
                Some(traced) => traced.in_scope(work),
                None => work(),
            };
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
    work: Mutex<Work>,
    desk: Arc<Desk>,
    slots: Arc<Semaphore>,
    /// For a single command: what it was asked for. Unbounded in itself: the store's jobs_open_max bounds what is sent.
    asked: Option<mpsc::UnboundedSender<JobId>>,
}

/// What a reload changes.
struct Work {
    kinds: Kinds,
    parallel_jobs_max: usize,
}

impl Inner {
    fn work(&self) -> MutexGuard<'_, Work> {
        // nothing panics under this lock
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the jobs of one concern; clones are the same runner.
#[derive(Clone)]
pub struct Runner(Arc<Inner>);

impl Runner {
    /// Starts to work: on what waits in the queues, or on what is asked for alone, as [`Recover`] says.
    pub(crate) fn start(desk: Arc<Desk>, concern: &'static str, kinds: Kinds, parallel_jobs_max: usize) -> Self {
        let parallel_jobs_max = parallel_jobs_max.max(1);
        let slots = Arc::new(Semaphore::new(parallel_jobs_max));
        let (asked, queue) = mpsc::unbounded_channel();
        let daemon = desk.recover == Recover::Resume;
        let tokio = desk.tokio.clone();
        let runner = Self(Arc::new(Inner {
            concern,
            work: Mutex::new(Work {
                kinds,
                parallel_jobs_max,
            }),
            desk,
            slots: slots.clone(),
            asked: (!daemon).then_some(asked),
        }));
        let weak = Arc::downgrade(&runner.0);
        if daemon {
            tokio.spawn(dispatch::from_queues(weak, slots));
        } else {
            tokio.spawn(dispatch::what_is_asked(weak, queue, slots));
        }
        runner
    }

    #[cfg(test)]
    pub(crate) fn kinds(&self) -> Kinds {
        self.0.work().kinds.clone()
    }

    /// Jobs that begin from now on are of these kinds, and at most so many run at once. Those that run go on as they began.
    pub fn renew(&self, kinds: Kinds, parallel_jobs_max: usize) {
        let Inner { desk, slots, .. } = &*self.0;
        let after = parallel_jobs_max.max(1);
        let mut work = self.0.work();
        let before = std::mem::replace(&mut work.parallel_jobs_max, after);
        work.kinds = kinds;
        drop(work);
        slots.add_permits(after.saturating_sub(before));
        let fewer = u32::try_from(before.saturating_sub(after)).unwrap_or(u32::MAX);
        if fewer > 0 {
            let slots = slots.clone();
            // behind the job that waits for a slot already, before those that come
            desk.tokio.spawn(async move {
                if let Ok(taken_away) = slots.acquire_many_owned(fewer).await {
                    taken_away.forget();
                }
            });
        }
    }

    /// Accepts a job of the verb of `R`: durable first, then the answer.
    pub fn accept<A: 'static, R: Request<Reply = JobAccepted>>(
        &self,
        request: &R,
        call: &Call,
    ) -> Effect<A, JobAccepted> {
        let runner = self.clone();
        let headers = call.headers.clone();
        // what was addressed to this host is its own; what any host may answer, any host may do
        let target = match R::ADDRESS {
            Address::Host => Target::Host(runner.0.desk.worker.host.clone()),
            Address::Cluster => Target::Any,
        };
        match serde_json::to_value(request) {
            Ok(request) => Effect::run(async move { runner.submit(R::VERB, request, headers, target).await }),
            Err(e) => Effect::answer(Err(ErrorBody::new(
                Code::Invalid,
                format!("the request can't be kept: {e}"),
            ))),
        }
    }

    /// Accepts a job; of the headers the request id and the trace count.
    ///
    /// # Errors
    /// `invalid` for an unknown kind, or the store's; nothing was accepted then.
    pub async fn submit(
        &self,
        kind: &str,
        request: Value,
        headers: Headers,
        target: Target,
    ) -> Result<JobAccepted, ErrorBody> {
        let Inner {
            concern, desk, asked, ..
        } = &*self.0;
        if !self.0.work().kinds.0.contains_key(kind) {
            return Err(ErrorBody::new(
                Code::Invalid,
                format!("{concern} has no jobs of kind '{kind}'; nothing was accepted"),
            ));
        }
        let new = NewJob {
            concern: (*concern).to_owned(),
            kind: kind.to_owned(),
            request_id: headers.request_id,
            traceparent: headers.traceparent,
            target,
            request,
        };
        let submitted = desk.jobs.submit(new).await?;
        if let Some(asked) = asked {
            // a duplicate of a job that waits or was interrupted is run as well: someone asks for it now
            let _dispatcher_ended_when_draining = asked.send(submitted.job.clone());
        }
        if let Some(job) = &submitted.accepted {
            desk.announce(job).await;
        }
        Ok(JobAccepted {
            job: submitted.job,
            duplicate: submitted.duplicate,
        })
    }
}
