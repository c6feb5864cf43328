//! The tables of [`crate::Redb`], kept in step within one transaction.
//!
//! `jobs` has every job by id (ids sort by time), `jobs_queued` the waiting ones by queue, `jobs_open` the ids that are not
//! final, `jobs_ended` the final ones by the time of their end but for the dead ones, which are in `jobs_dead`;
//! `jobs_requests` has the job of each request id.

use redb::{ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};
use wire::HostId;
use wire::job::{JobId, JobState};

use crate::core::{Now, Record, next_id};
use crate::{DEAD_JOBS_MAX, JobsError, Kind, Limits, NewJob, Result, Submitted};

pub(crate) const JOBS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("jobs");
/// By queue (see [`queue`]) and id.
pub(crate) const QUEUED: TableDefinition<'static, (&str, &str), ()> = TableDefinition::new("jobs_queued");
pub(crate) const OPEN: TableDefinition<'static, &str, ()> = TableDefinition::new("jobs_open");
/// By Unix milliseconds of the end and id.
const ENDED: TableDefinition<'static, (u64, &str), ()> = TableDefinition::new("jobs_ended");
const DEAD: TableDefinition<'static, &str, ()> = TableDefinition::new("jobs_dead");
/// Concern, kind and request id: the job, and when it was submitted.
const REQUESTS: TableDefinition<'static, (&str, &str, &str), (&str, u64)> = TableDefinition::new("jobs_requests");
/// The keys of [`REQUESTS`] by the time of their submission.
const REQUESTS_BY_TIME: TableDefinition<'static, (u64, &str, &str, &str), ()> =
    TableDefinition::new("jobs_requests_by_time");
/// Outlived request ids that one submit removes at most, so that no single one pays for all.
const FORGET_AT_ONCE_MAX: usize = 64;

pub(crate) fn redb_error(e: impl Into<redb::Error>) -> JobsError {
    state::StateError::of_redb("using the jobs", e).into()
}

/// The queue of a concern: on one host, or on all. No concern has an `@` in its name.
pub(crate) fn queue(concern: &str, host: Option<&HostId>) -> String {
    match host {
        Some(host) => format!("{concern}@{host}"),
        None => concern.to_owned(),
    }
}

pub(crate) fn decoded(id: &JobId, bytes: &[u8]) -> Result<Record> {
    Record::decode(bytes).map_err(|e| {
        JobsError::new(
            Kind::Corrupt,
            format!("job {id} can't be read: {e}; it was left unchanged"),
        )
    })
}

/// The tables of one write transaction.
pub(crate) struct Tables<'txn> {
    jobs: redb::Table<'txn, &'static str, &'static [u8]>,
    queued: redb::Table<'txn, (&'static str, &'static str), ()>,
    open: redb::Table<'txn, &'static str, ()>,
    ended: redb::Table<'txn, (u64, &'static str), ()>,
    dead: redb::Table<'txn, &'static str, ()>,
    requests: redb::Table<'txn, (&'static str, &'static str, &'static str), (&'static str, u64)>,
    requests_by_time: redb::Table<'txn, (u64, &'static str, &'static str, &'static str), ()>,
    limits: Limits,
}

fn waits(state: JobState) -> bool {
    matches!(state, JobState::Queued | JobState::Interrupted)
}

impl<'txn> Tables<'txn> {
    pub(crate) fn open(txn: &'txn WriteTransaction, limits: Limits) -> Result<Self> {
        Ok(Self {
            jobs: txn.open_table(JOBS).map_err(redb_error)?,
            queued: txn.open_table(QUEUED).map_err(redb_error)?,
            open: txn.open_table(OPEN).map_err(redb_error)?,
            ended: txn.open_table(ENDED).map_err(redb_error)?,
            dead: txn.open_table(DEAD).map_err(redb_error)?,
            requests: txn.open_table(REQUESTS).map_err(redb_error)?,
            requests_by_time: txn.open_table(REQUESTS_BY_TIME).map_err(redb_error)?,
            limits,
        })
    }

    pub(crate) fn record(&self, id: &JobId) -> Result<Record> {
        let bytes = self.jobs.get(id.0.as_str()).map_err(redb_error)?;
        decoded(id, bytes.ok_or_else(|| JobsError::not_found(id))?.value())
    }

    /// The oldest job of the first of these queues that has one.
    pub(crate) fn oldest(&self, queues: &[String]) -> Result<Option<JobId>> {
        for queue in queues {
            let mut range = self.queued.range((queue.as_str(), "")..).map_err(redb_error)?;
            let first = range.next().transpose().map_err(redb_error)?;
            let found = first.and_then(|(key, _)| {
                let (owner, id) = key.value();
                (owner == queue).then(|| JobId(id.to_owned()))
            });
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The ids of all jobs that are not final, oldest first.
    pub(crate) fn open_ids(&self) -> Result<Vec<JobId>> {
        let rows = self.open.iter().map_err(redb_error)?;
        rows.map(|row| Ok(JobId(row.map_err(redb_error)?.0.value().to_owned())))
            .collect()
    }

    /// After a job was opened: there was room for it.
    pub(crate) fn has_room(&self) -> Result<()> {
        if self.open.len().map_err(redb_error)? <= self.limits.jobs_open_max {
            return Ok(());
        }
        Err(JobsError::new(
            Kind::Busy,
            format!(
                "{} jobs are open, the most; nothing was submitted",
                self.limits.jobs_open_max
            ),
        )
        .hint("wait for some to end, or cancel them: windlass jobs ls"))
    }

    /// Changes one job.
    pub(crate) fn change<T>(&mut self, id: &JobId, work: impl FnOnce(&mut Record) -> Result<T>) -> Result<(Record, T)> {
        let before = self.record(id)?;
        let mut after = before.clone();
        let value = work(&mut after)?;
        if after != before {
            self.store(Some(&before), &after)?;
        }
        Ok((after, value))
    }

    /// Stores a job and keeps the other tables in step with its state.
    pub(crate) fn store(&mut self, before: Option<&Record>, after: &Record) -> Result<()> {
        debug_assert_eq!(crate::invariants::misstep(before, after, None), None);
        let (job, id) = (&after.job, after.job.id.0.as_str());
        let bytes = serde_json::to_vec(after).map_err(|e| {
            JobsError::new(
                Kind::Invalid,
                format!("job {id} can't be encoded: {e}; it was left unchanged"),
            )
        })?;
        self.jobs.insert(id, bytes.as_slice()).map_err(redb_error)?;
        let queue = queue(&job.concern, job.target.as_ref());
        if waits(job.state) {
            self.queued.insert((queue.as_str(), id), ()).map_err(redb_error)?;
        } else {
            self.queued.remove((queue.as_str(), id)).map_err(redb_error)?;
        }
        if before.map(|b| b.job.state) == Some(job.state) {
            return Ok(());
        }
        if let Some(before) = before.filter(|b| b.job.state.is_final()) {
            self.ended.remove((before.ended_ms, id)).map_err(redb_error)?;
            self.dead.remove(id).map_err(redb_error)?;
        }
        if !job.state.is_final() {
            return self.open.insert(id, ()).map_err(redb_error).map(|_| ());
        }
        self.open.remove(id).map_err(redb_error)?;
        if job.state == JobState::Dead {
            self.dead.insert(id, ()).map_err(redb_error)?;
        } else {
            self.ended.insert((after.ended_ms, id), ()).map_err(redb_error)?;
        }
        self.forget_old_jobs()
    }

    fn forget_old_jobs(&mut self) -> Result<()> {
        while self.ended.len().map_err(redb_error)? > self.limits.jobs_kept_max {
            let oldest = self.ended.pop_first().map_err(redb_error)?;
            let Some(id) = oldest.map(|(key, _)| key.value().1.to_owned()) else {
                break;
            };
            self.jobs.remove(id.as_str()).map_err(redb_error)?;
        }
        while self.dead.len().map_err(redb_error)? > DEAD_JOBS_MAX {
            let oldest = self.dead.pop_first().map_err(redb_error)?;
            let Some(id) = oldest.map(|(key, _)| key.value().to_owned()) else {
                break;
            };
            self.jobs.remove(id.as_str()).map_err(redb_error)?;
        }
        Ok(())
    }

    /// The job that a request id names, if it is still remembered.
    fn known_request(&mut self, new: &NewJob, request_id: &str, now_ms: u64) -> Result<Option<JobId>> {
        self.forget_old_requests(now_ms)?;
        let key = (new.concern.as_str(), new.kind.as_str(), request_id);
        let found = self.requests.get(key).map_err(redb_error)?.map(|found| {
            let (id, submitted_ms) = found.value();
            (JobId(id.to_owned()), submitted_ms)
        });
        let Some((id, submitted_ms)) = found else {
            return Ok(None);
        };
        if submitted_ms.saturating_add(self.limits.idempotency_keep_ms) <= now_ms {
            self.forget_request(submitted_ms, key)?;
            return Ok(None);
        }
        match self.record(&id) {
            Ok(record) if record.job.request != new.request => Err(JobsError::other_request(request_id, &id)),
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
        for _ in 0..FORGET_AT_ONCE_MAX {
            let oldest = self.requests_by_time.first().map_err(redb_error)?.map(|(key, _)| {
                let (ms, concern, kind, id) = key.value();
                (ms, concern.to_owned(), kind.to_owned(), id.to_owned())
            });
            match oldest {
                Some((ms, concern, kind, id)) if ms.saturating_add(self.limits.idempotency_keep_ms) <= now_ms => {
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

    pub(crate) fn submit(&mut self, new: NewJob, now: &Now, random: u128) -> Result<Submitted> {
        if let Some(request_id) = &new.request_id
            && let Some(job) = self.known_request(&new, request_id, now.ms)?
        {
            return Ok(Submitted {
                job,
                duplicate: true,
                accepted: None,
            });
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
        let record = Record::accepted(id.clone(), new, now);
        self.store(None, &record)?;
        // an error undoes the transaction
        self.has_room()?;
        Ok(Submitted {
            job: id,
            duplicate: false,
            accepted: Some(Box::new(record.job)),
        })
    }
}
