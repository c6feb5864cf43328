//! One attempt at a job: the body runs, its ticket is kept, its progress is told, its end is stored.

use std::sync::Arc;
use std::time::Duration;

use jobs::{Outcome, Taken, Ticket};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wire::job::{Job, Progress};
use wire::{Code, ErrorBody};

use super::{Inner, OnCrash};
use crate::job_context::JobContext;
use crate::job_desk::{Desk, Stops};
use crate::keeper::panic_text;
use crate::traced::{Traced, next_step};

/// Progress is stored and published at most this often, in milliseconds.
const PROGRESS_EVERY_MS: u64 = 200;
/// How long the store is asked to keep a job's end before it is left to the next taker, in milliseconds.
const CONCLUDE_MS_MAX: u64 = 60_000;
/// The pause before the store is asked again; each is twice the one before, in milliseconds.
const CONCLUDE_AGAIN_MS: u64 = 100;
/// The longest of these pauses, in milliseconds.
const CONCLUDE_AGAIN_MS_MAX: u64 = 3_000;

/// Runs a job that was taken, to the end of this attempt. Whoever took it, and however often: it belongs to the trace of the
/// request that asked for it.
pub(super) async fn run(inner: &Arc<Inner>, taken: Taken) {
    let trace = next_step(taken.job.traceparent.as_deref(), &*inner.desk.clock);
    let traced = Traced::job(trace, &taken.job);
    traced.run(run_traced(inner, taken, &traced)).await;
}

async fn run_traced(inner: &Arc<Inner>, taken: Taken, traced: &Traced) {
    let desk = &inner.desk;
    let Taken { job, ticket } = taken;
    tracing::info!(resumed = ticket.resumed, "job begins");
    let stops = desk.register(&job.id);
    desk.announce(&job).await;
    let ended = CancellationToken::new();
    let keeping = desk
        .tokio
        .spawn(traced.run(keep(desk.clone(), ticket.clone(), stops.cancel.clone(), ended.clone())));
    let outcome = carry_out(inner, job, &ticket, &stops, traced).await;
    conclude(desk, &ticket, outcome).await;
    // kept until its end is stored, however long that takes
    ended.cancel();
    let _keeper_never_fails = keeping.await;
    desk.deregister(&ticket.job);
}

async fn carry_out(inner: &Arc<Inner>, mut job: Job, ticket: &Ticket, stops: &Stops, traced: &Traced) -> Outcome {
    let desk = &inner.desk;
    let kind = inner.work().kinds.rows.get(job.kind.as_str()).cloned();
    let Some((on_crash, body)) = kind else {
        let message = format!("this windlass has no jobs of kind '{}.{}'", job.concern, job.kind);
        return Outcome::Failed(ErrorBody::new(Code::Unavailable, message));
    };
    if ticket.resumed && on_crash == OnCrash::Fail {
        let message = format!(
            "job {} ended with the process that ran it and can't be taken up again",
            job.id
        );
        return Outcome::Failed(ErrorBody::new(Code::Unavailable, message).hint("ask for it again"));
    }
    // it may be large, and the body has it now
    let (id, request) = (job.id.clone(), job.request.take());
    let (context, progress) = JobContext::new(job, desk.clock.clone(), stops.cancel.clone());
    let reporter = desk
        .tokio
        .spawn(traced.run(report(desk.clone(), ticket.clone(), progress)));
    // a task of its own, so that a panic of the body (or of the closure that makes it) ends there
    let ended = desk
        .tokio
        .spawn(traced.run(async move { body(context, request).await }))
        .await;
    // its sender went with the context; what it had not written yet, it writes before it ends
    let _reporter_never_fails = reporter.await;
    match ended {
        Ok(Ok(result)) => Outcome::Done(result),
        Ok(Err(e)) if stops.leaving.is_cancelled() => Outcome::Interrupted(e),
        Ok(Err(e)) if stops.cancel.is_cancelled() => Outcome::Cancelled(e),
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

/// Says again and again that the job's worker lives, until `ended`. A worker that can't say so for as long as a lease, or
/// whose job has another worker, tells its job to end: someone else has it.
async fn keep(desk: Arc<Desk>, ticket: Ticket, cancel: CancellationToken, ended: CancellationToken) {
    let every = desk.jobs.keep_every();
    let mut kept_ms = desk.clock.monotonic_ms();
    let lease_ms = u64::try_from(every.as_millis()).unwrap_or(u64::MAX).saturating_mul(3);
    loop {
        if tokio::time::timeout(every, ended.cancelled()).await.is_ok() {
            return;
        }
        match desk.jobs.keep(&ticket).await {
            Ok(job) => {
                kept_ms = desk.clock.monotonic_ms();
                if job.cancel_asked {
                    cancel.cancel();
                }
            }
            Err(_) if ended.is_cancelled() => return,
            Err(e) if e.is_permanent() => {
                tracing::warn!(job = %ticket.job, error = %e, "the job is lost to this host; told to end");
                cancel.cancel();
                return;
            }
            Err(e) => {
                let silent_ms = desk.clock.monotonic_ms().saturating_sub(kept_ms);
                tracing::warn!(job = %ticket.job, error = %e, silent_ms, "the job's lease was not renewed");
                if silent_ms >= lease_ms {
                    cancel.cancel();
                }
            }
        }
    }
}

/// Writes and publishes progress, throttled; ends when the job's context is gone.
async fn report(desk: Arc<Desk>, ticket: Ticket, mut progress: watch::Receiver<Progress>) {
    // a change that was not seen yet is told before the end is
    while progress.changed().await.is_ok() {
        let now = progress.borrow_and_update().clone();
        match desk.jobs.progress(&ticket, now).await {
            Ok(job) => desk.announce(&job).await,
            Err(e) => tracing::warn!(job = %ticket.job, error = %e, "progress not stored"),
        }
        // the pause ends with the job: nobody waits for it in vain
        let mut ahead = progress.clone();
        let ended = async { while ahead.changed().await.is_ok() {} };
        let _paused = tokio::time::timeout(Duration::from_millis(PROGRESS_EVERY_MS), ended).await;
    }
}

/// Stores how a job ended and tells so. A result that can't be kept fails the job instead; a store that doesn't answer is
/// asked again for a while.
async fn conclude(desk: &Desk, ticket: &Ticket, mut outcome: Outcome) {
    let id = &ticket.job;
    let began_ms = desk.clock.monotonic_ms();
    let mut pause_ms = CONCLUDE_AGAIN_MS;
    loop {
        let error = match desk.jobs.finish(ticket, outcome.clone()).await {
            Ok(job) => {
                tracing::info!(state = job.state.as_str(), "job ends");
                return desk.announce(&job).await;
            }
            Err(e) => e,
        };
        let asked_ms = desk.clock.monotonic_ms().saturating_sub(began_ms);
        if error.kind == jobs::Kind::Invalid && matches!(outcome, Outcome::Done(_)) {
            let message = format!("job {id} is done, but its result can't be kept: {error}");
            outcome = Outcome::Failed(ErrorBody::new(Code::Internal, message));
        } else if error.kind == jobs::Kind::Conflict {
            tracing::warn!(job = %id, error = %error, "this host's end of the job counts no more");
            return;
        } else if error.is_permanent() || asked_ms >= CONCLUDE_MS_MAX {
            tracing::error!(job = %id, error = %error, "the end of a job was not stored; it is delivered again");
            return;
        } else {
            tracing::warn!(job = %id, error = %error, pause_ms, "the end of a job is not stored yet");
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            pause_ms = (pause_ms * 2).min(CONCLUDE_AGAIN_MS_MAX);
        }
    }
}
