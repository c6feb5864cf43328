//! The rules of a job's life, without I/O.

use serde::{Deserialize, Serialize};
use ulid::Ulid;
use wire::job::{Job, JobId, JobState, Progress};
use wire::{Code, ErrorBody};

use crate::{JobsError, NewJob, Outcome, Result};

/// A job as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) job: Job,
    /// Someone asked for its end while it ran.
    #[serde(default)]
    pub(crate) cancel_asked: bool,
    /// When it ended, Unix milliseconds.
    #[serde(default)]
    pub(crate) ended_ms: u64,
}

/// The next id: by time, and greater than `last` even when the clock stood still or went back.
pub(crate) fn next_id(last: Option<&str>, now_ms: u64, random: u128) -> JobId {
    let fresh = Ulid::from_parts(now_ms, random);
    let after_last = last
        .and_then(|text| Ulid::from_string(text).ok())
        .filter(|last| *last >= fresh)
        .and_then(|last| last.increment().ok());
    JobId(after_last.unwrap_or(fresh).to_string())
}

impl Record {
    pub(crate) fn accepted(id: JobId, new: NewJob, now: String) -> Self {
        Self {
            job: Job {
                id,
                concern: new.concern,
                kind: new.kind,
                request_id: new.request_id,
                state: JobState::Queued,
                progress: Progress::default(),
                attempts: 0,
                submitted_at: now.clone(),
                updated_at: now,
                request: new.request,
                result: None,
                error: None,
            },
            cancel_asked: false,
            ended_ms: 0,
        }
    }

    pub(crate) fn start(&mut self, now: String) -> Result<()> {
        if !matches!(self.job.state, JobState::Queued | JobState::Interrupted) {
            return Err(JobsError::wrong_state(
                &self.job.id,
                self.job.state,
                "queued or interrupted",
            ));
        }
        self.job.state = JobState::Running;
        self.job.attempts += 1;
        self.job.error = None;
        self.job.updated_at = now;
        Ok(())
    }

    pub(crate) fn progress(&mut self, progress: Progress, now: String) -> Result<()> {
        self.must_run()?;
        self.job.progress = progress;
        self.job.updated_at = now;
        Ok(())
    }

    pub(crate) fn finish(&mut self, outcome: Outcome, now: String, now_ms: u64) -> Result<()> {
        // what was interrupted and can't be taken up again may be given up
        if !(self.job.state == JobState::Interrupted && matches!(outcome, Outcome::Failed(_))) {
            self.must_run()?;
        }
        let (state, result, error) = match outcome {
            Outcome::Done(result) => (JobState::Done, Some(result), None),
            Outcome::Failed(error) => (JobState::Failed, None, Some(error)),
            Outcome::Cancelled(error) => (JobState::Cancelled, None, Some(error)),
            // nobody wants it to be taken up again
            Outcome::Interrupted(error) if self.cancel_asked => (JobState::Cancelled, None, Some(error)),
            Outcome::Interrupted(error) => (JobState::Interrupted, None, Some(error)),
        };
        self.job.state = state;
        self.job.result = result;
        self.job.error = error;
        self.job.updated_at = now;
        self.ended_ms = if state.is_final() { now_ms } else { 0 };
        Ok(())
    }

    pub(crate) fn cancel(&mut self, now: String, now_ms: u64) {
        match self.job.state {
            JobState::Queued | JobState::Interrupted => self.end_cancelled("before it ran", now, now_ms),
            JobState::Running => self.cancel_asked = true,
            JobState::Done | JobState::Failed | JobState::Cancelled => {}
        }
    }

    /// What a crash makes of it.
    pub(crate) fn recover(&mut self, now: String, now_ms: u64) {
        if self.job.state != JobState::Running {
            return;
        }
        if self.cancel_asked {
            return self.end_cancelled("and its process ended", now, now_ms);
        }
        self.job.state = JobState::Interrupted;
        self.job.error = Some(ErrorBody::new(Code::Unavailable, "the process that ran this job ended"));
        self.job.updated_at = now;
    }

    fn end_cancelled(&mut self, when: &str, now: String, now_ms: u64) {
        self.job.state = JobState::Cancelled;
        self.job.error = Some(ErrorBody::new(Code::Conflict, format!("cancelled on request, {when}")));
        self.job.updated_at = now;
        self.ended_ms = now_ms;
    }

    fn must_run(&self) -> Result<()> {
        if self.job.state == JobState::Running {
            Ok(())
        } else {
            Err(JobsError::wrong_state(&self.job.id, self.job.state, "running"))
        }
    }
}
