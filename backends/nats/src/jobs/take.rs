//! From a delivered message to a job in hand.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jobs::{Queues, Record, Result, Taken, Worker};
use planted::Fault;
use tokio::time::Instant;
use wire::ConcernName;
use wire::job::JobId;

use super::core::{Arrived, Delivered, decide};
use super::errors::unreadable;
use super::lane::{Lane, Parcel, Until};
use super::queue::decoded;
use super::records::{Change, Kept};
use super::{Held, Inner, lock};
use crate::streams::Ack;

/// How often a record is read anew because somebody wrote it in between.
const TRIES_MAX: usize = 50;
/// Records under watch at once; the oldest watches are forgotten and begin anew.
const WATCHED_MAX: usize = 10_000;

/// What came of one look at a record.
enum Looked {
    Taken(Box<Taken>),
    /// Nothing to do for us.
    Nothing,
    /// Somebody wrote in between.
    Again,
    /// Its worker may be gone.
    Watch(u64),
}

/// A job that this process is about to have in hand, as long as this lives.
struct Taking<'a>(&'a Inner, JobId);

impl<'a> Taking<'a> {
    fn begin(inner: &'a Inner, id: &JobId) -> Self {
        lock(&inner.taking).push(id.clone());
        Self(inner, id.clone())
    }
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        let mut taking = lock(&self.0.taking);
        if let Some(at) = taking.iter().position(|id| *id == self.1) {
            taking.swap_remove(at);
        }
    }
}

impl Inner {
    fn is_in_hand(&self, id: &JobId) -> bool {
        lock(&self.held).contains_key(id) || lock(&self.taking).contains(id)
    }

    pub(super) async fn lane(&self, worker: &Worker, concern: &str) -> Result<Arc<Lane>> {
        let key = (worker.host.clone(), concern.to_owned());
        if let Some(lane) = lock(&self.lanes).get(&key) {
            return Ok(lane.clone());
        }
        let name = ConcernName::new(concern)
            .map_err(|e| jobs::JobsError::new(jobs::Kind::Invalid, format!("no jobs can be taken: {e}")))?;
        let own = self.queue.consumer(&name, Some(&worker.host)).await?;
        let shared = self.queue.consumer(&name, None).await?;
        let mut lanes = lock(&self.lanes);
        // somebody may have been faster
        Ok(lanes.entry(key).or_insert_with(|| Lane::start(own, shared)).clone())
    }

    pub(super) async fn take(
        &self,
        worker: &Worker,
        concern: &str,
        queues: Queues,
        until: BoxFuture<'static, ()>,
    ) -> Result<Option<Taken>> {
        let lane = self.lane(worker, concern).await?;
        let mut until = Until::of(until);
        while let Some(parcel) = lane.next(queues, &mut until).await {
            if let Some(taken) = self.arrived(worker, parcel, &mut until).await? {
                return Ok(Some(taken));
            }
        }
        Ok(None)
    }

    /// Looks at a message's job until it is clear what the message means. Dropped on the way, the message goes back.
    async fn arrived(&self, worker: &Worker, parcel: Parcel, until: &mut Until) -> Result<Option<Taken>> {
        let Some(message) = parcel.message() else {
            return Ok(None);
        };
        let sequence = message
            .sequence()
            .map_err(|e| unreadable("a message of the queue", e))?;
        let unnamed = JobId(format!("of message {sequence}"));
        let arrived = match decoded(&unnamed, message.payload()) {
            Ok(record) => record,
            Err(e) => {
                // it would come for ever
                tracing::error!(sequence, error = %e, "a message of the queue is no job; it was taken out");
                acknowledge(&mut Some(parcel)).await;
                return Ok(None);
            }
        };
        let mut parcel = Some(parcel);
        for _ in 0..TRIES_MAX {
            match self.look(worker, &arrived, sequence, &mut parcel).await? {
                Looked::Taken(taken) => return Ok(Some(*taken)),
                Looked::Nothing => return Ok(None),
                Looked::Again => {}
                Looked::Watch(revision) => {
                    if !self.stands_still(&arrived, revision, &parcel, until).await {
                        return Ok(None);
                    }
                }
            }
        }
        Ok(None)
    }

    async fn look(
        &self,
        worker: &Worker,
        arrived: &Record,
        sequence: u64,
        parcel: &mut Option<Parcel>,
    ) -> Result<Looked> {
        let (id, queue) = (&arrived.job.id, &arrived.job.target);
        let (kept, revision) = self.records.get(queue, id).await?;
        if kept.is_none() && revision > 0 {
            // ended, and forgotten since
            acknowledge(parcel).await;
            self.records.message_gone(queue, id, revision).await;
            return Ok(Looked::Nothing);
        }
        let meaning = decide(
            kept.as_ref(),
            Arrived {
                sequence,
                retries: arrived.retries,
                in_hand: self.is_in_hand(id),
            },
            worker,
        );
        if kept.is_none() && self.in_hand(id).is_some() {
            // somebody took its record away, and it is under way here all the same
            return Ok(Looked::Nothing);
        }
        let now = self.source.now();
        let mut kept = kept.unwrap_or_else(|| Kept {
            record: arrived.clone(),
            message: sequence,
            beats: 0,
        });
        let was_dead = kept.record.job.state == wire::job::JobState::Dead;
        let before = (revision > 0 && cfg!(debug_assertions)).then(|| kept.record.clone());
        match meaning {
            Delivered::Drop => {
                acknowledge(parcel).await;
                return Ok(Looked::Nothing);
            }
            Delivered::Mine => {
                if let Some(message) = parcel.take().and_then(Parcel::keep) {
                    let _served_by_the_next_beat = message.ack(Ack::Progress).await;
                }
                return Ok(Looked::Nothing);
            }
            Delivered::Watch if !self.stood_still(id, revision) => return Ok(Looked::Watch(revision)),
            Delivered::Watch | Delivered::TakeOver => {
                let holder = kept.record.job.host.as_ref().map_or("its worker", |h| h.as_str());
                let why = format!("{holder} was silent for {} ms", self.limits().lease_ms);
                kept.record.lapse(&why, self.limits().deliveries_max, &now);
            }
            Delivered::Unlearned => kept.record.unlearn(&now),
            Delivered::Retry => {
                // whoever asked for it again has signed that
                kept.record.authority.clone_from(&arrived.authority);
                if kept.record.retry(&now).is_err() {
                    // what is done isn't done again, whatever a message says
                    acknowledge(parcel).await;
                    return Ok(Looked::Nothing);
                }
            }
            Delivered::Take => {}
        }
        if !kept.record.job.state.is_final()
            && let Some(why) = self.disowned(&kept.record)
        {
            if meaning == Delivered::Retry {
                // the job has ended, and that stays so
                acknowledge(parcel).await;
                return Ok(Looked::Nothing);
            }
            tracing::warn!(job = %id, error = %why, "a job that nobody stands behind was set aside");
            kept.record.refuse(why, &now);
        }
        kept.message = sequence;
        kept.beats += 1;
        if kept.record.job.state.is_final() {
            return self.set_aside(before.as_ref(), &kept, revision, parcel).await;
        }
        let ticket = kept.record.take(worker, &now)?;
        let _taking = Taking::begin(self, id);
        let change = Change {
            before: before.as_ref(),
            kept: &kept,
            writer: Some(worker),
        };
        let Some(revision) = self.records.swap(change, revision).await? else {
            return Ok(Looked::Again);
        };
        lock(&self.watched).remove(id);
        if was_dead {
            self.records.unnote_dead(queue, id).await;
        }
        let Some(message) = parcel.take().and_then(Parcel::keep) else {
            return Ok(Looked::Nothing);
        };
        if planted::is(Fault::AcknowledgedEarly) {
            let _whatever_comes = message.ack(Ack::Done).await;
        }
        let job = kept.record.job.clone();
        let held = Held {
            kept,
            revision,
            message,
            written_at: Instant::now(),
        };
        lock(&self.held).insert(id.clone(), Arc::new(tokio::sync::Mutex::new(held)));
        Ok(Looked::Taken(Box::new(Taken { job, ticket })))
    }

    /// A job that nobody gets: its worker is gone, or nobody stands behind it. Dead, or cancelled.
    async fn set_aside(
        &self,
        before: Option<&Record>,
        kept: &Kept,
        revision: u64,
        parcel: &mut Option<Parcel>,
    ) -> Result<Looked> {
        let id = &kept.record.job.id;
        if kept.record.job.state == wire::job::JobState::Dead {
            self.records.note_dead(&kept.record.job.target, id).await?;
        }
        let change = Change {
            before,
            kept,
            writer: None,
        };
        if self.records.swap(change, revision).await?.is_none() {
            return Ok(Looked::Again);
        }
        lock(&self.watched).remove(id);
        tracing::warn!(job = %id, state = kept.record.job.state.as_str(), "a job was set aside");
        acknowledge(parcel).await;
        self.forget_old().await;
        Ok(Looked::Nothing)
    }

    /// True when the record has had this revision for half a lease of this host's clock. The watch begins with the first
    /// question.
    fn stood_still(&self, id: &JobId, revision: u64) -> bool {
        if planted::is(Fault::TakenUnwatched) {
            return true;
        }
        let now = Instant::now();
        let mut watched = lock(&self.watched);
        if watched.len() >= WATCHED_MAX {
            watched.clear();
        }
        let (seen, since) = watched.entry(id.clone()).or_insert((revision, now));
        if *seen != revision {
            (*seen, *since) = (revision, now);
        }
        now.duration_since(*since) >= self.lease() / 2
    }

    /// Waits for half a lease, with the message in hand. False when the caller has to let go: the worker lives, or `until`
    /// ended.
    async fn stands_still(&self, arrived: &Record, revision: u64, parcel: &Option<Parcel>, until: &mut Until) -> bool {
        if let Some(message) = parcel.as_ref().and_then(Parcel::message) {
            let _else_it_comes_again = message.ack(Ack::Progress).await;
        }
        let (id, queue) = (&arrived.job.id, &arrived.job.target);
        let since = lock(&self.watched).get(id).map(|(_, since)| *since);
        let ready = since.unwrap_or_else(Instant::now) + self.lease() / 2 + Duration::from_millis(1);
        tokio::select! {
            biased;
            () = until.comes() => return false,
            () = tokio::time::sleep_until(ready) => {}
        }
        match self.records.get(queue, id).await {
            Ok((_, now)) => now == revision,
            Err(_) => false,
        }
    }
}

/// The message has served. When the servers don't hear of it, it comes again, and its record says that there is nothing to
/// do.
async fn acknowledge(parcel: &mut Option<Parcel>) {
    if let Some(message) = parcel.take().and_then(Parcel::keep)
        && let Err(e) = message.ack(Ack::Done).await
    {
        tracing::debug!(error = %e, "a message was not acknowledged; it comes again");
    }
}
