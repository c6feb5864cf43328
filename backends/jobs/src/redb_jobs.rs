//! [`Jobs`] in the tables of a [`state::Database`].
//!
//! Tables: `jobs` has every job by id (ids sort by time), `jobs_queued` and `jobs_open` the ids in those states, `jobs_ended`
//! the final ones by the time of their end, `jobs_requests` the job of each request id. A change of a job and of these is one
//! transaction.

use std::fmt;

use async_trait::async_trait;
use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};
use serde_json::Value;
use state::Database;
use wire::job::{Job, JobId, JobState, Progress};
use wire::{Code, ErrorBody};

use crate::core::{Record, next_id};
use crate::{
    BODY_BYTES_MAX, INTERRUPTED_JOBS_MAX, Jobs, JobsError, Kind, LIST_JOBS_MAX, Limits, NewJob, Outcome, Result,
    Source, Submitted,
};

const JOBS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("jobs");
/// By concern and id.
const QUEUED: TableDefinition<'static, (&str, &str), ()> = TableDefinition::new("jobs_queued");
const OPEN: TableDefinition<'static, &str, ()> = TableDefinition::new("jobs_open");
/// By Unix milliseconds of the end and id.
const ENDED: TableDefinition<'static, (u64, &str), ()> = TableDefinition::new("jobs_ended");
/// Concern, kind and request id: the job, and when it was submitted.
const REQUESTS: TableDefinition<'static, (&str, &str, &str), (&str, u64)> = TableDefinition::new("jobs_requests");
/// The keys of [`REQUESTS`] by the time of their submission.
const REQUESTS_BY_TIME: TableDefinition<'static, (u64, &str, &str, &str), ()> =
    TableDefinition::new("jobs_requests_by_time");
/// Outlived request ids that one submit removes at most, so that no single one pays for all.
const FORGET_AT_ONCE_MAX: usize = 64;

/// [`Jobs`] in a redb file or in memory.
#[derive(Clone)]
pub struct Redb {
    db: Database,
    source: Source,
    limits: Limits,
}

impl Redb {
    /// Jobs on an open database.
    pub fn new(db: Database, source: Source, limits: Limits) -> Self {
        Self { db, source, limits }
    }

    /// Runs `work` in one durable transaction; undone when it fails.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tables<'_>, Now) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (now, limits) = (self.now(), self.limits);
        self.db
            .write(move |txn| work(&mut Tables::open(txn, limits)?, now))
            .await
    }

    fn now(&self) -> Now {
        let ms = (self.source.now_ms)();
        Now {
            ms,
            text: (self.source.rfc3339)(ms),
        }
    }

    /// Changes one job.
    async fn change(
        &self,
        id: &JobId,
        work: impl FnOnce(&mut Record, Now) -> Result<()> + Send + 'static,
    ) -> Result<Job> {
        let id = id.clone();
        self.write(move |tables, now| {
            let before = tables.record(&id)?;
            let mut after = before.clone();
            work(&mut after, now)?;
            tables.store(Some(&before), &after)?;
            Ok(after.job)
        })
        .await
    }
}

impl fmt::Debug for Redb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redb")
            .field("db", &self.db)
            .field("limits", &self.limits)
            .finish()
    }
}

/// When a call was made.
#[derive(Debug, Clone)]
struct Now {
    ms: u64,
    text: String,
}

fn redb_error(e: impl Into<redb::Error>) -> JobsError {
    state::StateError::of_redb("using the jobs", e).into()
}

/// The tables of one write transaction.
struct Tables<'txn> {
    jobs: redb::Table<'txn, &'static str, &'static [u8]>,
    queued: redb::Table<'txn, (&'static str, &'static str), ()>,
    open: redb::Table<'txn, &'static str, ()>,
    ended: redb::Table<'txn, (u64, &'static str), ()>,
    requests: redb::Table<'txn, (&'static str, &'static str, &'static str), (&'static str, u64)>,
    requests_by_time: redb::Table<'txn, (u64, &'static str, &'static str, &'static str), ()>,
    limits: Limits,
}

impl<'txn> Tables<'txn> {
    fn open(txn: &'txn WriteTransaction, limits: Limits) -> Result<Self> {
        Ok(Self {
            jobs: txn.open_table(JOBS).map_err(redb_error)?,
            queued: txn.open_table(QUEUED).map_err(redb_error)?,
            open: txn.open_table(OPEN).map_err(redb_error)?,
            ended: txn.open_table(ENDED).map_err(redb_error)?,
            requests: txn.open_table(REQUESTS).map_err(redb_error)?,
            requests_by_time: txn.open_table(REQUESTS_BY_TIME).map_err(redb_error)?,
            limits,
        })
    }

    fn record(&self, id: &JobId) -> Result<Record> {
        let bytes = self.jobs.get(id.0.as_str()).map_err(redb_error)?;
        decoded(id, bytes.ok_or_else(|| JobsError::not_found(id))?.value())
    }

    /// Stores a job and keeps the other tables in step with its state.
    fn store(&mut self, before: Option<&Record>, after: &Record) -> Result<()> {
        let (job, id) = (&after.job, after.job.id.0.as_str());
        let bytes = serde_json::to_vec(after).map_err(|e| {
            JobsError::new(
                Kind::Invalid,
                format!("job {id} can't be encoded: {e}; it was left unchanged"),
            )
        })?;
        self.jobs.insert(id, bytes.as_slice()).map_err(redb_error)?;
        let state_before = before.map(|b| b.job.state);
        if state_before == Some(job.state) {
            return Ok(());
        }
        if state_before == Some(JobState::Queued) {
            self.queued.remove((job.concern.as_str(), id)).map_err(redb_error)?;
        }
        if job.state == JobState::Queued {
            self.queued.insert((job.concern.as_str(), id), ()).map_err(redb_error)?;
        }
        if job.state.is_final() {
            self.open.remove(id).map_err(redb_error)?;
            self.ended.insert((after.ended_ms, id), ()).map_err(redb_error)?;
            self.forget_old_jobs()
        } else {
            self.open.insert(id, ()).map_err(redb_error).map(|_| ())
        }
    }

    fn forget_old_jobs(&mut self) -> Result<()> {
        while self.ended.len().map_err(redb_error)? > self.limits.jobs_kept_max {
            let oldest = self.ended.pop_first().map_err(redb_error)?;
            let Some(id) = oldest.map(|(key, _)| key.value().1.to_owned()) else {
                break;
            };
            self.jobs.remove(id.as_str()).map_err(redb_error)?;
        }
        Ok(())
    }

    /// The job that a request id names, if it is still remembered.
    fn known_request(&mut self, new: &NewJob, request_id: &str, now_ms: u64) -> Result<Option<JobId>> {
        self.forget_old_requests(now_ms)?;
        let keep_ms = self.limits.idempotency_keep_h.saturating_mul(3_600_000);
        let key = (new.concern.as_str(), new.kind.as_str(), request_id);
        let found = self.requests.get(key).map_err(redb_error)?.map(|found| {
            let (id, submitted_ms) = found.value();
            (JobId(id.to_owned()), submitted_ms)
        });
        let Some((id, submitted_ms)) = found else {
            return Ok(None);
        };
        if submitted_ms.saturating_add(keep_ms) <= now_ms {
            self.forget_request(submitted_ms, key)?;
            return Ok(None);
        }
        match self.record(&id) {
            Ok(record) if record.job.request != new.request => Err(JobsError::new(
                Kind::Conflict,
                format!("request id '{request_id}' names job {id}, which has another request; nothing was submitted"),
            )
            .hint(format!("windlass jobs show {id}, or use another request id"))),
            // a job that is no longer kept was done all the same
            Ok(_) => Ok(Some(id)),
            Err(e) if e.kind == Kind::NotFound => Ok(Some(id)),
            Err(e) => Err(e),
        }
    }

    fn remember_request(&mut self, new: &NewJob, request_id: &str, id: &JobId, now_ms: u64) -> Result<()> {
        let (concern, kind) = (new.concern.as_str(), new.kind.as_str());
        self.requests
            .insert((concern, kind, request_id), (id.0.as_str(), now_ms))
            .map_err(redb_error)?;
        self.requests_by_time
            .insert((now_ms, concern, kind, request_id), ())
            .map_err(redb_error)?;
        Ok(())
    }

    fn forget_old_requests(&mut self, now_ms: u64) -> Result<()> {
        let keep_ms = self.limits.idempotency_keep_h.saturating_mul(3_600_000);
        for _ in 0..FORGET_AT_ONCE_MAX {
            let oldest = self.requests_by_time.first().map_err(redb_error)?.map(|(key, _)| {
                let (ms, concern, kind, id) = key.value();
                (ms, concern.to_owned(), kind.to_owned(), id.to_owned())
            });
            match oldest {
                Some((ms, concern, kind, id)) if ms.saturating_add(keep_ms) <= now_ms => {
                    self.forget_request(ms, (&concern, &kind, &id))?;
                }
                _ => break,
            }
        }
        Ok(())
    }

    fn forget_request(&mut self, submitted_ms: u64, key: (&str, &str, &str)) -> Result<()> {
        self.requests.remove(key).map_err(redb_error)?;
        self.requests_by_time
            .remove((submitted_ms, key.0, key.1, key.2))
            .map_err(redb_error)?;
        Ok(())
    }

    fn submit(&mut self, new: NewJob, now: Now, random: u128) -> Result<Submitted> {
        if let Some(request_id) = &new.request_id
            && let Some(job) = self.known_request(&new, request_id, now.ms)?
        {
            return Ok(Submitted { job, duplicate: true });
        }
        if self.open.len().map_err(redb_error)? >= self.limits.jobs_open_max {
            return Err(JobsError::new(
                Kind::Busy,
                format!(
                    "{} jobs are open, the most; nothing was submitted",
                    self.limits.jobs_open_max
                ),
            )
            .hint("wait for some to end, or cancel them: windlass jobs ls"));
        }
        let last = self
            .jobs
            .last()
            .map_err(redb_error)?
            .map(|(id, _)| id.value().to_owned());
        let id = next_id(last.as_deref(), now.ms, random);
        if let Some(request_id) = &new.request_id {
            self.remember_request(&new, request_id, &id, now.ms)?;
        }
        self.store(None, &Record::accepted(id.clone(), new, now.text))?;
        Ok(Submitted {
            job: id,
            duplicate: false,
        })
    }
}

fn decoded(id: &JobId, bytes: &[u8]) -> Result<Record> {
    serde_json::from_slice(bytes).map_err(|e| {
        JobsError::new(
            Kind::Corrupt,
            format!("job {id} can't be read: {e}; it was left unchanged"),
        )
    })
}

fn check_body(what: &str, body: &Value) -> Result<()> {
    let bytes = body.to_string().len();
    if bytes <= BODY_BYTES_MAX {
        return Ok(());
    }
    Err(JobsError::new(
        Kind::Invalid,
        format!("{what} has {bytes} bytes; at most {BODY_BYTES_MAX} are kept; nothing was written"),
    ))
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
        self.write(move |tables, now| tables.submit(new, now, random)).await
    }

    async fn claim(&self, concern: &str) -> Result<Option<Job>> {
        let concern = concern.to_owned();
        self.write(move |tables, now| {
            let oldest = {
                let mut range = tables.queued.range((concern.as_str(), "")..).map_err(redb_error)?;
                let first = range.next().transpose().map_err(redb_error)?;
                first.and_then(|(key, _)| {
                    let (owner, id) = key.value();
                    (owner == concern).then(|| JobId(id.to_owned()))
                })
            };
            let Some(id) = oldest else { return Ok(None) };
            let before = tables.record(&id)?;
            let mut after = before.clone();
            after.start(now.text)?;
            tables.store(Some(&before), &after)?;
            Ok(Some(after.job))
        })
        .await
    }

    async fn start(&self, id: &JobId) -> Result<Job> {
        self.change(id, |record, now| record.start(now.text)).await
    }

    async fn progress(&self, id: &JobId, progress: Progress) -> Result<Job> {
        let (id, now, limits) = (id.clone(), self.now(), self.limits);
        self.db
            .write_lazily(move |txn| {
                let mut tables = Tables::open(txn, limits)?;
                let before = tables.record(&id)?;
                let mut after = before.clone();
                after.progress(progress, now.text)?;
                tables.store(Some(&before), &after)?;
                Ok(after.job)
            })
            .await
    }

    async fn finish(&self, id: &JobId, outcome: Outcome) -> Result<Job> {
        if let Outcome::Done(result) = &outcome {
            check_body("the result", result)?;
        }
        self.change(id, |record, now| record.finish(outcome, now.text, now.ms))
            .await
    }

    async fn cancel(&self, id: &JobId) -> Result<Job> {
        self.change(id, |record, now| {
            record.cancel(now.text, now.ms);
            Ok(())
        })
        .await
    }

    async fn show(&self, id: &JobId) -> Result<Job> {
        let id = id.clone();
        self.db
            .read(move |txn| {
                let Some(jobs) = opened(txn, JOBS)? else {
                    return Err(JobsError::not_found(&id));
                };
                let bytes = jobs.get(id.0.as_str()).map_err(redb_error)?;
                Ok(decoded(&id, bytes.ok_or_else(|| JobsError::not_found(&id))?.value())?.job)
            })
            .await
    }

    async fn list(&self, jobs_max: usize) -> Result<Vec<Job>> {
        self.db
            .read(move |txn| {
                let Some(jobs) = opened(txn, JOBS)? else {
                    return Ok(Vec::new());
                };
                let newest_first = jobs.iter().map_err(redb_error)?.rev();
                newest_first
                    .take(jobs_max.min(LIST_JOBS_MAX))
                    .map(|row| {
                        let (id, bytes) = row.map_err(redb_error)?;
                        Ok(decoded(&JobId(id.value().to_owned()), bytes.value())?.job)
                    })
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

    async fn recover(&self) -> Result<Vec<Job>> {
        self.write(|tables, now| {
            let ids: Vec<JobId> = tables
                .open
                .iter()
                .map_err(redb_error)?
                .map(|row| Ok(JobId(row.map_err(redb_error)?.0.value().to_owned())))
                .collect::<Result<_>>()?;
            let (mut open, mut interrupted) = (Vec::new(), 0);
            for id in ids.into_iter().rev() {
                let before = tables.record(&id)?;
                let mut after = before.clone();
                after.recover(now.text.clone(), now.ms);
                interrupted += usize::from(after.job.state == JobState::Interrupted);
                if after.job.state == JobState::Interrupted && interrupted > INTERRUPTED_JOBS_MAX {
                    let why = format!("{INTERRUPTED_JOBS_MAX} later jobs were interrupted too; this one is given up");
                    let why = ErrorBody::new(Code::Unavailable, why).hint("ask for it again");
                    after.finish(Outcome::Failed(why), now.text.clone(), now.ms)?;
                }
                if after != before {
                    tables.store(Some(&before), &after)?;
                }
                if !after.job.state.is_final() {
                    open.push(after.job);
                }
            }
            open.reverse();
            Ok(open)
        })
        .await
    }
}
