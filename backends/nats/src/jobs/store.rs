//! The port.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use jobs::{
    DEAD_JOBS_MAX, Jobs, JobsError, Kind, LIST_JOBS_MAX, NewJob, Outcome, Queues, Record, Result, Submitted, Taken,
    Ticket, Worker, check_body,
};
use tokio::time::Instant;
use wire::job::{Job, JobId, JobState, Progress};

use super::records::{Change, Kept, Named, QueueOf, digest};
use super::{Held, Inner, JetstreamJobs, lock};
use crate::streams::Ack;

/// Progress is written to the record at most this often; followers hear it by events.
const PROGRESS_WRITTEN_EVERY: Duration = Duration::from_secs(1);
/// How often a record is read anew because somebody wrote it in between.
const TRIES_MAX: usize = 50;
/// Records that a list reads at once.
const READS_AT_ONCE: usize = 16;

fn overtaken(id: &JobId) -> JobsError {
    JobsError::new(
        Kind::Busy,
        format!("job {id} changes all the time; it was left unchanged"),
    )
}

impl Inner {
    /// The record of a job; of one that nobody took yet, what its message says, with revision 0.
    async fn look_up(&self, id: &JobId) -> Result<(Kept, u64)> {
        // a job may be taken, or end, between the two looks
        for _ in 0..2 {
            let (kept, revision) = self.records.find(id).await?;
            if let Some(found) = self.seen(id, kept, revision).await? {
                return Ok(found);
            }
        }
        Err(JobsError::not_found(id))
    }

    /// The same where its queue is known.
    async fn look_up_in(&self, queue: &QueueOf, id: &JobId) -> Result<(Kept, u64)> {
        for _ in 0..2 {
            let (kept, revision) = self.records.get(queue, id).await?;
            if let Some(found) = self.seen(id, kept, revision).await? {
                return Ok(found);
            }
        }
        Err(JobsError::not_found(id))
    }

    async fn seen(&self, id: &JobId, kept: Option<Kept>, revision: u64) -> Result<Option<(Kept, u64)>> {
        match (kept, revision) {
            (Some(kept), revision) => Ok(Some((kept, revision))),
            // forgotten; its message may wait to be dropped
            (None, 1..) => Err(JobsError::not_found(id)),
            (None, 0) => {
                let waiting = self.queue.find(id).await?;
                Ok(waiting.map(|waiting| {
                    let kept = Kept {
                        record: waiting.record,
                        message: waiting.sequence,
                        beats: 0,
                    };
                    (kept, revision)
                }))
            }
        }
    }

    async fn submit(&self, new: NewJob) -> Result<Submitted> {
        check_body("the request", &new.request)?;
        let id = self.next_id();
        if let Some(request_id) = &new.request_id {
            let keep_ms = self.limits().idempotency_keep_ms;
            if let Some(known) = self.records.name(&new, request_id, &id, keep_ms).await? {
                return self.submit_again(new, known).await;
            }
        }
        let named = new.request_id.is_some().then_some("");
        let mut record = Record::accepted(id.clone(), new, &self.source.now());
        let queued = match self.sign(&mut record) {
            Ok(()) => self.queue.publish(&record, named).await.map(|_| ()),
            Err(e) => Err(e),
        };
        if let Err(e) = queued {
            // whatever is not certain stays: the next submit under this id queues the same job
            if matches!(e.kind, Kind::Busy | Kind::Invalid | Kind::Denied) {
                self.records.unname(&record.job).await;
            }
            return Err(e);
        }
        Ok(Submitted {
            job: id,
            duplicate: false,
            accepted: Some(Box::new(record.job)),
        })
    }

    /// A request id that is known. Whoever gave it may have died before the job was queued: then it is queued now.
    async fn submit_again(&self, new: NewJob, known: Named) -> Result<Submitted> {
        let request_id = new.request_id.clone().unwrap_or_default();
        if known.digest != digest(&new.request) {
            return Err(JobsError::other_request(&request_id, &known.job));
        }
        let is_queued = known.forgotten || self.look_up(&known.job).await.map(|_| true).or_else(absent)?;
        if !is_queued {
            let mut record = Record::accepted(known.job.clone(), new, &self.source.now());
            self.sign(&mut record)?;
            self.queue.publish(&record, Some("")).await?;
        }
        Ok(Submitted {
            job: known.job,
            duplicate: true,
            accepted: None,
        })
    }

    pub(super) fn in_hand(&self, id: &JobId) -> Option<Arc<tokio::sync::Mutex<Held>>> {
        lock(&self.held).get(id).cloned()
    }

    /// Changes the record of a job in hand. Somebody else's word (a cancel) is taken in; a ticket that counts no more ends
    /// it here.
    async fn change_held(
        &self,
        ticket: &Ticket,
        held: &mut Held,
        change: impl Fn(&mut Record) -> Result<()> + Send,
    ) -> Result<()> {
        for _ in 0..TRIES_MAX {
            held.kept.record.holds(ticket)?;
            let mut after = held.kept.clone();
            change(&mut after.record)?;
            after.beats += 1;
            let written = Change {
                before: Some(&held.kept.record),
                kept: &after,
                writer: Some(&ticket.worker),
            };
            if let Some(revision) = self.records.swap(written, held.revision).await? {
                (held.kept, held.revision, held.written_at) = (after, revision, Instant::now());
                return Ok(());
            }
            let queue = held.kept.record.job.target.clone();
            let (theirs, revision) = self.records.get(&queue, &ticket.job).await?;
            let mut theirs = theirs.ok_or_else(|| JobsError::not_found(&ticket.job))?;
            theirs.record.holds(ticket)?;
            // what wasn't written yet is newer than what is
            theirs.record.job.progress = held.kept.record.job.progress.clone();
            (held.kept, held.revision) = (theirs, revision);
        }
        Err(overtaken(&ticket.job))
    }

    /// A ticket of which this process knows nothing (any more): the record says why.
    async fn not_in_hand<T>(&self, ticket: &Ticket) -> Result<T> {
        let (kept, _) = self.look_up(&ticket.job).await?;
        kept.record.holds(ticket)?;
        let message = format!("job {} is not in the hands of this process", ticket.job);
        Err(JobsError::new(Kind::Conflict, message))
    }

    fn let_go_when_lost<T>(&self, ticket: &Ticket, result: &Result<T>) {
        if result.as_ref().is_err_and(|e| e.kind == Kind::Conflict) {
            lock(&self.held).remove(&ticket.job);
        }
    }

    async fn keep(&self, ticket: &Ticket) -> Result<Job> {
        let Some(held) = self.in_hand(&ticket.job) else {
            return self.not_in_hand(ticket).await;
        };
        let mut held = held.lock().await;
        if let Err(e) = held.message.ack(Ack::Progress).await {
            tracing::debug!(job = %ticket.job, error = %e, "the queue wasn't told that the job goes on");
        }
        let kept = self.change_held(ticket, &mut held, |_| Ok(())).await;
        self.let_go_when_lost(ticket, &kept);
        kept.map(|()| held.kept.record.job.clone())
    }

    async fn progress(&self, ticket: &Ticket, progress: Progress) -> Result<Job> {
        let Some(held) = self.in_hand(&ticket.job) else {
            return self.not_in_hand(ticket).await;
        };
        let mut held = held.lock().await;
        let now = self.source.now();
        if held.written_at.elapsed() < PROGRESS_WRITTEN_EVERY {
            held.kept.record.progress(ticket, progress, &now)?;
        } else {
            let written = self
                .change_held(ticket, &mut held, |record| {
                    record.progress(ticket, progress.clone(), &now)
                })
                .await;
            self.let_go_when_lost(ticket, &written);
            written?;
        }
        Ok(held.kept.record.job.clone())
    }

    async fn finish(&self, ticket: &Ticket, outcome: Outcome) -> Result<Job> {
        if let Outcome::Done(result) = &outcome {
            check_body("the result", result)?;
        }
        let Some(held) = self.in_hand(&ticket.job) else {
            return self.not_in_hand(ticket).await;
        };
        let mut held = held.lock().await;
        let now = self.source.now();
        let ended = self
            .change_held(ticket, &mut held, |record| record.finish(ticket, outcome.clone(), &now))
            .await;
        self.let_go_when_lost(ticket, &ended);
        ended?;
        lock(&self.held).remove(&ticket.job);
        let job = held.kept.record.job.clone();
        if let (true, Some(authority)) = (job.state.is_final(), &self.authority) {
            authority.ended(&held.kept.record).await;
        }
        // only now, that its end is durable
        let told = match job.state.is_final() {
            true => held.message.ack(Ack::Done).await,
            false => held.message.ack(Ack::Back).await,
        };
        if let Err(e) = told {
            tracing::debug!(job = %ticket.job, error = %e, "the queue wasn't told of a job's end; its message comes again");
        }
        drop(held);
        if job.state.is_final() {
            self.forget_old().await;
        }
        Ok(job)
    }

    async fn cancel(&self, id: &JobId) -> Result<Job> {
        for _ in 0..TRIES_MAX {
            let (mut kept, revision) = self.look_up(id).await?;
            let before = kept.clone();
            kept.record.cancel(&self.source.now());
            if kept == before {
                return Ok(kept.record.job);
            }
            let change = Change {
                before: (revision > 0).then_some(&before.record),
                kept: &kept,
                writer: None,
            };
            if self.records.swap(change, revision).await?.is_none() {
                continue;
            }
            if kept.record.job.state.is_final() {
                // its message is dropped when it comes
                self.forget_old().await;
            }
            return Ok(kept.record.job);
        }
        Err(overtaken(id))
    }

    async fn retry(&self, id: &JobId) -> Result<Job> {
        let (kept, revision) = self.look_up(id).await?;
        self.intact(&kept.record)?;
        let mut after = kept.clone();
        after.record.retry(&self.source.now())?;
        self.sign(&mut after.record)?;
        after.beats += 1;
        // the message first: it alone brings the job back; the record only says so sooner
        let again = format!(".{}", after.record.retries);
        after.message = self.queue.publish(&after.record, Some(&again)).await?;
        let change = Change {
            before: Some(&kept.record),
            kept: &after,
            writer: None,
        };
        match self.records.swap(change, revision).await {
            Ok(Some(_)) if kept.record.job.state == JobState::Dead => {
                self.records.unnote_dead(&after.record.job.target, id).await;
            }
            Ok(_) => {}
            Err(e) => tracing::debug!(job = %id, error = %e, "queued again; its record says so when it is taken"),
        }
        Ok(after.record.job)
    }

    async fn list(&self, jobs_max: usize, state: Option<JobState>) -> Result<Vec<Job>> {
        let is_dead = state == Some(JobState::Dead);
        let mut ids: BTreeMap<JobId, QueueOf> = self.records.ids(is_dead).await?.into_iter().collect();
        if !is_dead {
            ids.extend(self.queue.ids().await?);
        }
        let newest_first: Vec<(JobId, QueueOf)> = ids.into_iter().rev().collect();
        let looks = newest_first
            .into_iter()
            .map(|(id, queue)| async move { self.look_up_in(&queue, &id).await });
        let mut found = futures::stream::iter(looks).buffered(READS_AT_ONCE).boxed();
        let mut jobs = Vec::new();
        let jobs_max = jobs_max.min(LIST_JOBS_MAX);
        while jobs.len() < jobs_max {
            match found.next().await {
                Some(Ok((kept, _))) if state.is_none_or(|s| s == kept.record.job.state) => jobs.push(kept.record.job),
                Some(Ok(_)) => {}
                // forgotten since it was listed
                Some(Err(e)) if e.kind == Kind::NotFound => {}
                Some(Err(e)) => return Err(e),
                None => break,
            }
        }
        Ok(jobs)
    }

    /// What an earlier process of this host had in hand waits again, in a message of its own: the one that the process had
    /// would come only when its lease is over.
    async fn recover(&self, worker: &Worker) -> Result<()> {
        let open = self.queue.ids().await?;
        let looks = open
            .into_iter()
            .map(|(id, queue)| async move { self.records.get(&queue, &id).await });
        let reads = futures::stream::iter(looks).buffered(READS_AT_ONCE).boxed();
        let found: Vec<(Option<Kept>, u64)> = reads.try_collect().await?;
        for (kept, revision) in found {
            let Some(mut kept) = kept.filter(|kept| kept.record.job.host.as_ref() == Some(&worker.host)) else {
                continue;
            };
            if !kept.record.was_left_by(worker) {
                continue;
            }
            let before = kept.clone();
            let why = "the process that ran this job ended";
            kept.record.lapse(why, self.limits().deliveries_max, &self.source.now());
            kept.beats += 1;
            let job = kept.record.job.clone();
            if job.state == JobState::Dead {
                self.records.note_dead(&job.target, &job.id).await?;
            }
            let change = Change {
                before: Some(&before.record),
                kept: &kept,
                writer: None,
            };
            // the old message is dropped when it comes
            if self.records.swap(change, revision).await?.is_some() && !job.state.is_final() {
                let name = format!(".{}.{}", kept.record.retries, worker.boot);
                self.queue.publish(&kept.record, Some(&name)).await?;
            }
        }
        Ok(())
    }

    /// Forgets the oldest ended jobs beyond what is kept. A failure is the next end's business.
    pub(super) async fn forget_old(&self) {
        if self.is_time_to_forget()
            && let Err(e) = self.forget_now().await
        {
            tracing::debug!(error = %e, "old jobs were not forgotten");
        }
    }

    /// This host forgets its own jobs and those that all hosts share; the others look after theirs.
    async fn forget_now(&self) -> Result<()> {
        // in this order: what is taken meanwhile is in no list of ended ones, or is found running
        let waiting: BTreeSet<JobId> = self.queue.ids().await?.into_iter().map(|(id, _)| id).collect();
        let dead: BTreeSet<JobId> = self.records.ids(true).await?.into_iter().map(|(id, _)| id).collect();
        let recorded: BTreeMap<JobId, QueueOf> = self.records.ids(false).await?.into_iter().collect();
        // of those that have a message, the record tells: a job may end before its message is dropped
        let mut unsure = recorded.clone();
        unsure.retain(|id, _| waiting.contains(id));
        let looks = unsure
            .into_iter()
            .map(|(id, queue)| async move { Result::Ok(self.records.get(&queue, &id).await?.0) });
        let looked: Vec<Option<Kept>> = futures::stream::iter(looks)
            .buffered(READS_AT_ONCE)
            .try_collect()
            .await?;
        let is_over = |kept: Kept| kept.record.job.state.is_final().then_some(kept.record.job.id);
        let over: BTreeSet<JobId> = looked.into_iter().flatten().filter_map(is_over).collect();
        let ended = |is_dead: bool| {
            let ended = recorded
                .iter()
                .filter(|(id, _)| !waiting.contains(*id) || over.contains(*id));
            let ended = ended.filter(|(id, _)| dead.contains(*id) == is_dead);
            ended.collect::<Vec<(&JobId, &QueueOf)>>()
        };
        for (filed, most) in [
            (ended(false), self.limits().jobs_kept_max),
            (ended(true), DEAD_JOBS_MAX),
        ] {
            let too_many = filed.len().saturating_sub(usize::try_from(most).unwrap_or(usize::MAX));
            for (id, queue) in filed.into_iter().take(too_many) {
                if self.is_ours(queue) {
                    self.forget_one(queue, id, waiting.contains(id)).await?;
                }
            }
        }
        Ok(())
    }

    fn is_ours(&self, queue: &QueueOf) -> bool {
        match (queue, &self.host) {
            (Some(queue), Some(host)) => queue == host,
            _ => true,
        }
    }

    async fn forget_one(&self, queue: &QueueOf, id: &JobId, is_waiting: bool) -> Result<()> {
        let (Some(kept), revision) = self.records.get(queue, id).await? else {
            return Ok(());
        };
        if !kept.record.job.state.is_final() {
            return Ok(());
        }
        // its request id outlives it
        self.records
            .note_forgotten(&kept.record, self.limits().idempotency_keep_ms)
            .await?;
        if self.records.forget(queue, id, revision, is_waiting).await? && kept.record.job.state == JobState::Dead {
            self.records.unnote_dead(queue, id).await;
        }
        Ok(())
    }
}

fn absent(e: JobsError) -> Result<bool> {
    match e.kind {
        Kind::NotFound => Ok(false),
        _ => Err(e),
    }
}

#[async_trait]
impl Jobs for JetstreamJobs {
    async fn submit(&self, new: NewJob) -> Result<Submitted> {
        self.0.submit(new).await
    }
    async fn take(
        &self,
        worker: &Worker,
        concern: &str,
        queues: Queues,
        until: BoxFuture<'static, ()>,
    ) -> Result<Option<Taken>> {
        self.0.take(worker, concern, queues, until).await
    }
    async fn take_this(&self, _worker: &Worker, id: &JobId) -> Result<Taken> {
        let message = format!("job {id} can't be taken out of turn: its queue belongs to many hosts");
        Err(JobsError::new(Kind::Invalid, message))
    }
    fn keep_every(&self) -> Duration {
        self.0.lease() / 3
    }
    async fn keep(&self, ticket: &Ticket) -> Result<Job> {
        self.0.keep(ticket).await
    }
    async fn progress(&self, ticket: &Ticket, progress: Progress) -> Result<Job> {
        self.0.progress(ticket, progress).await
    }
    async fn finish(&self, ticket: &Ticket, outcome: Outcome) -> Result<Job> {
        self.0.finish(ticket, outcome).await
    }
    async fn cancel(&self, id: &JobId) -> Result<Job> {
        self.0.cancel(id).await
    }
    async fn retry(&self, id: &JobId) -> Result<Job> {
        self.0.retry(id).await
    }
    async fn show(&self, id: &JobId) -> Result<Job> {
        Ok(self.0.look_up(id).await?.0.record.job)
    }
    async fn list(&self, jobs_max: usize, state: Option<JobState>) -> Result<Vec<Job>> {
        self.0.list(jobs_max, state).await
    }
    async fn open_count(&self) -> Result<u64> {
        self.0.queue.count().await
    }
    async fn recover(&self, worker: &Worker) -> Result<()> {
        self.0.recover(worker).await
    }
    fn set_limits(&self, limits: jobs::Limits) {
        self.0.set_limits(limits);
    }
}
