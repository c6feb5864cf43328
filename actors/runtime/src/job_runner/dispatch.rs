//! Where a runner's jobs come from.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::FutureExt;
use jobs::{Outcome, Queues, Taken};
use tokio::sync::{Semaphore, mpsc, watch};
use wire::job::JobId;

use super::{Inner, attempt};
use crate::job_desk::{Admission, Desk};

/// After a store that failed, it is asked again after this long, then after twice as long, in milliseconds.
const ASK_AGAIN_MS: u64 = 100;
/// The longest of these pauses, in milliseconds.
const ASK_AGAIN_MS_MAX: u64 = 5_000;

/// A daemon: takes what waits in its queues, at most as many at once as there are slots, until the house drains.
pub(super) async fn from_queues(runner: Weak<Inner>, slots: Arc<Semaphore>) {
    let Some((desk, concern)) = runner.upgrade().map(|inner| (inner.desk.clone(), inner.concern)) else {
        return;
    };
    let mut admission = desk.admission();
    let mut pause_ms = ASK_AGAIN_MS;
    while !desk.draining.is_cancelled() {
        let slot = tokio::select! {
            biased;
            () = desk.draining.cancelled() => return,
            slot = slots.clone().acquire_owned() => slot,
        };
        let Ok(slot) = slot else { return };
        match take(&desk, concern, &mut admission).await {
            Ok(Some(taken)) => {
                pause_ms = ASK_AGAIN_MS;
                let Some(inner) = runner.upgrade() else {
                    return hand_back(&desk, &taken).await;
                };
                // between the last look and now a drain may have begun
                if desk.draining.is_cancelled() || *admission.borrow() == Admission::Nothing {
                    hand_back(&desk, &taken).await;
                    continue;
                }
                desk.tokio.spawn(desk.running.track_future(async move {
                    attempt::run(&inner, taken).await;
                    drop(slot);
                }));
            }
            Ok(None) => {}
            Err(e) => {
                tracing::warn!(concern, error = %e, pause_ms, "no jobs can be taken now");
                let _drained = tokio::time::timeout(Duration::from_millis(pause_ms), desk.draining.cancelled()).await;
                pause_ms = (pause_ms * 2).min(ASK_AGAIN_MS_MAX);
            }
        }
    }
}

/// One job, or `None` when what this host takes changed or the house drains.
async fn take(desk: &Desk, concern: &str, admission: &mut watch::Receiver<Admission>) -> jobs::Result<Option<Taken>> {
    let now = *admission.borrow_and_update();
    let queues = match now {
        Admission::All => Queues::OwnAndShared,
        Admission::Own => Queues::Own,
        Admission::Nothing => {
            let _changed = tokio::select! {
                biased;
                () = desk.draining.cancelled() => return Ok(None),
                changed = admission.changed() => changed,
            };
            return Ok(None);
        }
    };
    let (draining, mut changes) = (desk.draining.clone(), admission.clone());
    let until = async move {
        tokio::select! {
            biased;
            () = draining.cancelled() => {}
            _changed = changes.changed() => {}
        }
    };
    desk.jobs.take(&desk.worker, concern, queues, until.boxed()).await
}

async fn hand_back(desk: &Desk, taken: &Taken) {
    if let Err(e) = desk.jobs.finish(&taken.ticket, Outcome::HandedBack).await {
        tracing::warn!(job = %taken.job.id, error = %e, "not handed back; it is delivered again once its lease is over");
    }
}

/// A single command: what it was asked for.
pub(super) async fn what_is_asked(
    runner: Weak<Inner>,
    mut asked: mpsc::UnboundedReceiver<JobId>,
    slots: Arc<Semaphore>,
) {
    let Some(desk) = runner.upgrade().map(|inner| inner.desk.clone()) else {
        return;
    };
    loop {
        let next = async {
            let slot = slots.clone().acquire_owned().await.ok()?;
            Some((slot, asked.recv().await?))
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
            match inner.desk.jobs.take_this(&inner.desk.worker, &id).await {
                Ok(taken) => attempt::run(&inner, taken).await,
                // cancelled while it waited, done before, or sent twice
                Err(e) if matches!(e.kind, jobs::Kind::Conflict | jobs::Kind::NotFound) => {}
                Err(e) => {
                    tracing::error!(job = %id, error = %e, "job not started; the next start of windlass tries again");
                }
            }
            drop(slot);
        }));
    }
}
