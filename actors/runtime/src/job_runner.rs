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

/// The kinds of job of a concern: one row each; and how many jobs run at once.
#[derive(Clone)]
pub struct Kinds {
    rows: BTreeMap<&'static str, (OnCrash, Body)>,
    parallel_max: usize,
}

impl Default for Kinds {
    fn default() -> Self {
        Self::new()
    }
}

impl Kinds {
    /// No kinds; of those that are added, one job runs at a time.
    pub fn new() -> Self {
        Self {
            rows: BTreeMap::new(),
            parallel_max: 1,
        }
    }

    /// So many jobs run at once, at least one; further ones wait.
    pub fn parallel_max(mut self, jobs: usize) -> Self {
        self.parallel_max = jobs.max(1);
        self
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
        self.rows.insert(R::VERB, (on_crash, body));
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
        self.rows.insert(R::VERB, (on_crash, body));
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
    desk: Arc<Desk>,
    slots: Arc<Semaphore>,
    work: Mutex<Work>,
}

/// What changes when the concern is built.
struct Work {
    kinds: Kinds,
    /// How many slots there are for jobs; none before there are kinds.
    slots: usize,
    /// For a single command: what it was asked for. Unbounded in itself: the store's jobs_open_max bounds what is sent.
    asked: Option<mpsc::UnboundedSender<JobId>>,
}

impl Inner {
    fn work(&self) -> MutexGuard<'_, Work> {
        // nothing panics under this lock
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the jobs of one concern; clones are the same runner.
#[derive(Clone)]
pub(crate) struct Runner(Arc<Inner>);

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Runner").field(&self.0.concern).finish()
    }
}

impl Runner {
    /// A runner without kinds: it takes no jobs.
    pub(crate) fn new(desk: Arc<Desk>, concern: &'static str) -> Self {
        Self(Arc::new(Inner {
            concern,
            desk,
            slots: Arc::new(Semaphore::new(0)),
            work: Mutex::new(Work {
                kinds: Kinds::new(),
                slots: 0,
                asked: None,
            }),
        }))
    }

    #[cfg(test)]
    pub(crate) fn kinds(&self) -> Option<Kinds> {
        let kinds = self.0.work().kinds.clone();
        Some(kinds).filter(|kinds| !kinds.rows.is_empty())
    }

    /// Jobs that begin from now on are of these kinds, and at most so many run at once. Those that run go on as they began. With
    /// the first kinds the work begins: on what waits in the queues, or on what is asked for alone, as [`Recover`] says.
    pub(crate) fn renew(&self, kinds: Kinds) {
        let Inner { desk, slots, .. } = &*self.0;
        let mut work = self.0.work();
        let before = work.slots;
        if kinds.rows.is_empty() && before == 0 {
            return;
        }
        let after = kinds.parallel_max;
        (work.kinds, work.slots) = (kinds, after);
        if before == 0 {
            let runner = Arc::downgrade(&self.0);
            if desk.recover == Recover::Resume {
                desk.tokio.spawn(dispatch::from_queues(runner, slots.clone()));
            } else {
                let (asked, queue) = mpsc::unbounded_channel();
                work.asked = Some(asked);
                desk.tokio.spawn(dispatch::what_is_asked(runner, queue, slots.clone()));
            }
        }
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

    /// Where a job waits: what was addressed to this host is its own; what any host may answer, any host may do.
    pub(crate) fn target(&self, address: Address) -> Target {
        match address {
            Address::Host => Target::Host(self.0.desk.worker.host.clone()),
            Address::Cluster => Target::Any,
        }
    }

    /// Accepts a job; of the headers the request id and the trace count.
    ///
    /// # Errors
    /// `invalid` for an unknown kind, or the store's; nothing was accepted then.
    pub(crate) async fn submit(
        &self,
        kind: &str,
        request: Value,
        headers: Headers,
        target: Target,
    ) -> Result<JobAccepted, ErrorBody> {
        let Inner { concern, desk, .. } = &*self.0;
        let (known, asked) = {
            let work = self.0.work();
            (work.kinds.rows.contains_key(kind), work.asked.clone())
        };
        if !known {
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
