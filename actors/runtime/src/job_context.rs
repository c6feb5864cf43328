//! What a running job gets.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wire::job::{Job, Progress};
use wire::{Code, ErrorBody};

use crate::Clock;

/// How the error of a job begins that ended because it was asked to.
pub const CANCELLED: &str = "cancelled";

#[derive(Debug)]
struct Phase {
    name: String,
    began_ms: u64,
    done_before: u64,
}

#[derive(Debug)]
struct Inner {
    job: Job,
    clock: Arc<dyn Clock>,
    cancel: CancellationToken,
    progress: watch::Sender<Progress>,
    phase: Mutex<Option<Phase>>,
}

/// A running job's view of itself. Clones are one job; any thread may use them.
#[derive(Debug, Clone)]
pub struct JobContext(Arc<Inner>);

impl JobContext {
    pub(crate) fn new(job: Job, clock: Arc<dyn Clock>, cancel: CancellationToken) -> (Self, watch::Receiver<Progress>) {
        let (progress, followed) = watch::channel(job.progress.clone());
        let inner = Inner {
            job,
            clock,
            cancel,
            progress,
            phase: Mutex::new(None),
        };
        (Self(Arc::new(inner)), followed)
    }

    /// The job as it was when it was started, without its request, which its body has; `attempts` over 1 says that it is taken up
    /// again.
    pub fn job(&self) -> &Job {
        &self.0.job
    }

    /// Tells how far the job is: `done` of `total` (0: not known) in `unit`. Cheap; call it as often as you like: what is
    /// stored and published is throttled.
    pub fn progress(&self, phase: &str, done: u64, total: u64, unit: &str) {
        let now_ms = self.0.clock.monotonic_ms();
        let mut current = self.0.phase.lock().unwrap_or_else(PoisonError::into_inner);
        let began = match &mut *current {
            Some(current) if current.name == phase => &*current,
            other => other.insert(Phase {
                name: phase.to_owned(),
                began_ms: now_ms,
                done_before: done,
            }),
        };
        let moved = done.saturating_sub(began.done_before);
        let rate_per_s = match now_ms.saturating_sub(began.began_ms) {
            0 => 0.0,
            ms => moved as f64 * 1_000.0 / ms as f64,
        };
        let left = total.saturating_sub(done);
        let progress = Progress {
            phase: phase.to_owned(),
            done,
            total,
            unit: unit.to_owned(),
            rate_per_s,
            eta_s: (total > 0 && rate_per_s > 0.0).then(|| left as f64 / rate_per_s),
        };
        // within the lock, so that of two threads the later call's numbers stay
        self.0.progress.send_replace(progress);
        drop(current);
    }

    /// True when the job should end at its next safe point: someone asked for it, or the process drains.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancel.is_cancelled()
    }

    /// Waits until [`JobContext::is_cancelled`].
    pub async fn cancelled(&self) {
        self.0.cancel.cancelled().await;
    }

    /// For safe points: `?` ends the job when it should end.
    ///
    /// # Errors
    /// `conflict`, beginning with [`CANCELLED`].
    pub fn check(&self) -> Result<(), ErrorBody> {
        if !self.is_cancelled() {
            return Ok(());
        }
        Err(ErrorBody::new(
            Code::Conflict,
            format!("{CANCELLED} on request while {}", self.0.progress.borrow().phase),
        ))
    }
}
