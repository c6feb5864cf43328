//! [`Jobs`] in the tables of a [`state::Database`]: one process at a time, so leases are kept in memory and end by this
//! process's monotonic clock; what another process held is found at [`Jobs::recover`].

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition};
use state::Database;
use tokio::sync::Notify;
use wire::job::{Job, JobId, JobState, Progress};
use wire::{Code, ErrorBody};

use crate::core::{Now, Record};
use crate::redb_tables::{JOBS, OPEN, QUEUED, Tables, decoded, queue, redb_error};
use crate::{
    INTERRUPTED_JOBS_MAX, Jobs, JobsError, LIST_JOBS_MAX, Limits, NewJob, Outcome, Queues, Result, Source, Submitted,
    Taken, Ticket, Worker, check_body,
};

/// While jobs are in hand, takers look this often for leases that lapsed, in milliseconds of real time.
const LOOK_EVERY_MS: u64 = 1_000;

/// When each job in hand lapses, by the monotonic clock.
type Leases = HashMap<JobId, u64>;

/// [`Jobs`] in a redb file or in memory.
#[derive(Clone)]
pub struct Redb {
    db: Database,
    source: Source,
    limits: Arc<Mutex<Limits>>,
    leases: Arc<Mutex<Leases>>,
    more: Arc<Notify>,
}

impl Redb {
    /// Jobs on an open database. Clones share their leases.
    pub fn new(db: Database, source: Source, limits: Limits) -> Self {
        Self {
            db,
            source,
            limits: Arc::new(Mutex::new(limits)),
            leases: Arc::default(),
            more: Arc::default(),
        }
    }

    fn limits(&self) -> Limits {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn renew(&self, id: &JobId) {
        let until = (self.source.monotonic_ms)().saturating_add(self.limits().lease_ms);
        self.leases().insert(id.clone(), until);
    }

    /// Runs `work` in one durable transaction; undone when it fails.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tables<'_>, Now) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (now, limits) = (self.source.now(), self.limits());
        self.db
            .write(move |txn| work(&mut Tables::open(txn, limits)?, now))
            .await
    }

    /// Changes one job.
    async fn change<T: Send + 'static>(
        &self,
        id: &JobId,
        work: impl FnOnce(&mut Record, &Now) -> Result<T> + Send + 'static,
    ) -> Result<(Job, T)> {
        let id = id.clone();
        let (record, value) = self
            .write(move |tables, now| tables.change(&id, |record| work(record, &now)))
            .await?;
        Ok((record.job, value))
    }

    /// Tickets that were silent for too long count no more.
    async fn let_lapse(&self) -> Result<()> {
        let now_ms = (self.source.monotonic_ms)();
        let lapsed: Vec<JobId> = {
            let mut leases = self.leases();
            let lapsed: Vec<JobId> = leases
                .iter()
                .filter(|(_, until)| **until <= now_ms)
                .map(|(id, _)| id.clone())
                .collect();
            lapsed.iter().for_each(|id| {
                leases.remove(id);
            });
            lapsed
        };
        let Limits {
            lease_ms,
            deliveries_max,
            ..
        } = self.limits();
        for id in lapsed {
            let why = format!("its worker was silent for {lease_ms} ms");
            self.change(&id, move |record, now| {
                record.lapse(&why, deliveries_max, now);
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// The oldest waiting job of these queues, without waiting. Looks before it writes: an idle taker costs no transaction.
    async fn claim(&self, worker: &Worker, queues: Vec<String>) -> Result<Option<Taken>> {
        let names = queues.clone();
        let some_wait = self
            .db
            .read(move |txn| -> Result<bool> {
                let Some(queued) = opened(txn, QUEUED)? else {
                    return Ok(false);
                };
                for name in &names {
                    let mut range = queued.range((name.as_str(), "")..).map_err(redb_error)?;
                    let first = range.next().transpose().map_err(redb_error)?;
                    if first.is_some_and(|(key, _)| key.value().0 == name) {
                        return Ok(true);
                    }
                }
                Ok(false)
            })
            .await?;
        if !some_wait {
            return Ok(None);
        }
        let (worker, this) = (worker.clone(), self.clone());
        self.write(move |tables, now| {
            let Some(id) = tables.oldest(&queues)? else {
                return Ok(None);
            };
            let (record, ticket) = tables.change(&id, |record| record.take(&worker, &now))?;
            // here, so that a taker who stops waiting leaves a job that lapses
            this.renew(&id);
            Ok(Some(Taken {
                job: record.job,
                ticket,
            }))
        })
        .await
    }
}

impl fmt::Debug for Redb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redb")
            .field("db", &self.db)
            .field("limits", &self.limits())
            .finish()
    }
}

/// Opens a table for reading; one that was never written is `None`.
fn opened<K: redb::Key + 'static, V: redb::Value + 'static>(
    txn: &ReadTransaction,
    table: TableDefinition<'static, K, V>,
) -> Result<Option<redb::ReadOnlyTable<K, V>>> {
    match txn.open_table(table) {
        Ok(table) => Ok(Some(table)),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(e) => Err(redb_error(e)),
    }
}

#[async_trait]
impl Jobs for Redb {
    async fn submit(&self, new: NewJob) -> Result<Submitted> {
        check_body("the request", &new.request)?;
        let random = (self.source.random)();
        let submitted = self.write(move |tables, now| tables.submit(new, &now, random)).await?;
        self.more.notify_waiters();
        Ok(submitted)
    }

    async fn take(
        &self,
        worker: &Worker,
        concern: &str,
        queues: Queues,
        until: BoxFuture<'static, ()>,
    ) -> Result<Option<Taken>> {
        let mut names = vec![queue(concern, Some(&worker.host))];
        if queues == Queues::OwnAndShared {
            names.push(queue(concern, None));
        }
        let mut until = until;
        loop {
            // listening begins before the look, so that no submit falls between
            let more = self.more.notified();
            tokio::pin!(more);
            more.as_mut().enable();
            self.let_lapse().await?;
            if let Some(taken) = self.claim(worker, names.clone()).await? {
                return Ok(Some(taken));
            }
            let look_ms = (self.limits().lease_ms / 3).clamp(1, LOOK_EVERY_MS);
            let some_in_hand = !self.leases().is_empty();
            tokio::select! {
                () = &mut until => return Ok(None),
                () = &mut more => {}
                () = tokio::time::sleep(Duration::from_millis(look_ms)), if some_in_hand => {}
            }
        }
    }

    async fn take_this(&self, worker: &Worker, id: &JobId) -> Result<Taken> {
        let worker = worker.clone();
        let (job, ticket) = self.change(id, move |record, now| record.take(&worker, now)).await?;
        self.renew(id);
        Ok(Taken { job, ticket })
    }

    fn keep_every(&self) -> Duration {
        Duration::from_millis((self.limits().lease_ms / 3).max(1))
    }

    async fn keep(&self, ticket: &Ticket) -> Result<Job> {
        let (id, held) = (ticket.job.clone(), ticket.clone());
        let job = self
            .db
            .read(move |txn| {
                let record = read_record(txn, &id)?;
                record.holds(&held)?;
                Ok::<_, JobsError>(record.job)
            })
            .await?;
        self.renew(&ticket.job);
        Ok(job)
    }

    async fn progress(&self, ticket: &Ticket, progress: Progress) -> Result<Job> {
        let (held, now, limits) = (ticket.clone(), self.source.now(), self.limits());
        self.db
            .write_lazily(move |txn| {
                let mut tables = Tables::open(txn, limits)?;
                let (record, ()) = tables.change(&held.job, |record| record.progress(&held, progress, &now))?;
                Ok(record.job)
            })
            .await
    }

    async fn finish(&self, ticket: &Ticket, outcome: Outcome) -> Result<Job> {
        if let Outcome::Done(result) = &outcome {
            check_body("the result", result)?;
        }
        let held = ticket.clone();
        let (job, ()) = self
            .change(&ticket.job, move |record, now| record.finish(&held, outcome, now))
            .await?;
        self.leases().remove(&ticket.job);
        if !job.state.is_final() {
            self.more.notify_waiters();
        }
        Ok(job)
    }

    async fn cancel(&self, id: &JobId) -> Result<Job> {
        let cancelled = self.change(id, |record, now| {
            record.cancel(now);
            Ok(())
        });
        Ok(cancelled.await?.0)
    }

    async fn retry(&self, id: &JobId) -> Result<Job> {
        let id = id.clone();
        let job = self
            .write(move |tables, now| {
                let (record, ()) = tables.change(&id, |record| record.retry(&now))?;
                tables.has_room()?;
                Ok(record.job)
            })
            .await?;
        self.more.notify_waiters();
        Ok(job)
    }

    async fn show(&self, id: &JobId) -> Result<Job> {
        let id = id.clone();
        self.db.read(move |txn| Ok(read_record(txn, &id)?.job)).await
    }

    async fn list(&self, jobs_max: usize, state: Option<JobState>) -> Result<Vec<Job>> {
        self.db
            .read(move |txn| {
                let Some(jobs) = opened(txn, JOBS)? else {
                    return Ok(Vec::new());
                };
                let newest_first = jobs.iter().map_err(redb_error)?.rev();
                newest_first
                    .map(|row| {
                        let (id, bytes) = row.map_err(redb_error)?;
                        Ok(decoded(&JobId(id.value().to_owned()), bytes.value())?.job)
                    })
                    .filter(|job: &Result<Job>| match (job, state) {
                        (Ok(job), Some(state)) => job.state == state,
                        _ => true,
                    })
                    .take(jobs_max.min(LIST_JOBS_MAX))
                    .collect()
            })
            .await
    }

    async fn open_count(&self) -> Result<u64> {
        self.db
            .read(|txn| match opened(txn, OPEN)? {
                Some(open) => open.len().map_err(redb_error),
                None => Ok(0),
            })
            .await
    }

    async fn recover(&self, worker: &Worker) -> Result<()> {
        let (worker, deliveries_max) = (worker.clone(), self.limits().deliveries_max);
        self.write(move |tables, now| {
            let mut interrupted = 0;
            for id in tables.open_ids()?.into_iter().rev() {
                let before = tables.record(&id)?;
                let mut after = before.clone();
                if after.was_left_by(&worker) {
                    after.lapse("the process that ran this job ended", deliveries_max, &now);
                }
                interrupted += usize::from(after.job.state == JobState::Interrupted);
                if after.job.state == JobState::Interrupted && interrupted > INTERRUPTED_JOBS_MAX {
                    let why = format!("{INTERRUPTED_JOBS_MAX} later jobs were interrupted too; this one is given up");
                    after.give_up(ErrorBody::new(Code::Unavailable, why).hint("ask for it again"), &now);
                }
                // also unchanged ones: records of the first version stood in no queue while they were interrupted
                tables.store(Some(&before), &after)?;
            }
            Ok(())
        })
        .await?;
        self.more.notify_waiters();
        Ok(())
    }

    fn set_limits(&self, limits: Limits) {
        let mut now = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        *now = Limits {
            lease_ms: now.lease_ms,
            ..limits
        };
    }
}

fn read_record(txn: &ReadTransaction, id: &JobId) -> Result<Record> {
    let Some(jobs) = opened(txn, JOBS)? else {
        return Err(JobsError::not_found(id));
    };
    let bytes = jobs.get(id.0.as_str()).map_err(redb_error)?;
    decoded(id, bytes.ok_or_else(|| JobsError::not_found(id))?.value())
}
