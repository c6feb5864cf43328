//! The rules of a job's life, without I/O: every store follows them.

use planted::Fault;
use serde::{Deserialize, Serialize};
use ulid::Ulid;
use wire::job::{Job, JobId, JobState, Progress};
use wire::{Code, ErrorBody};

use crate::{JobsError, NewJob, Outcome, Result, Target, Ticket, Worker};

/// A job as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What everyone may see.
    pub job: Job,
    /// When it ended, Unix milliseconds.
    #[serde(default)]
    pub ended_ms: u64,
    /// Which process of the job's host has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// An attempt began and didn't end.
    #[serde(default)]
    pub begun: bool,
    /// How often a person asked for it again.
    #[serde(default)]
    pub retries: u32,
    /// Who stands behind it: what [`crate::Authority`] wrote and checks; nothing in a store of one host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// Where records of the first version kept [`Job::cancel_asked`].
    #[serde(default, rename = "cancel_asked", skip_serializing)]
    cancel_asked_v1: bool,
}

/// When something happens: Unix milliseconds, and the same for people.
#[derive(Debug, Clone)]
pub struct Now {
    /// Unix milliseconds.
    pub ms: u64,
    /// RFC 3339.
    pub text: String,
}

/// The next id: by time, and greater than `last` even when the clock stood still or went back.
pub fn next_id(last: Option<&str>, now_ms: u64, random: u128) -> JobId {
    let fresh = Ulid::from_parts(now_ms, random);
    let after_last = last
        .and_then(|text| Ulid::from_string(text).ok())
        .filter(|last| *last >= fresh)
        .and_then(|last| last.increment().ok());
    JobId(after_last.unwrap_or(fresh).to_string())
}

impl Record {
    /// A job that was just accepted.
    pub fn accepted(id: JobId, new: NewJob, now: &Now) -> Self {
        Self {
            job: Job {
                id,
                concern: new.concern,
                kind: new.kind,
                request_id: new.request_id,
                traceparent: new.traceparent,
                target: match new.target {
                    Target::Host(host) => Some(host),
                    Target::Any => None,
                },
                host: None,
                state: JobState::Queued,
                cancel_asked: false,
                progress: Progress::default(),
                attempts: 0,
                deliveries: 0,
                submitted_at: now.text.clone(),
                updated_at: now.text.clone(),
                request: new.request,
                result: None,
                error: None,
            },
            ended_ms: 0,
            boot: None,
            begun: false,
            retries: 0,
            authority: None,
            cancel_asked_v1: false,
        }
    }

    /// Reads a stored record.
    ///
    /// # Errors
    /// What serde says.
    pub fn decode(bytes: &[u8]) -> std::result::Result<Self, serde_json::Error> {
        let mut record: Self = serde_json::from_slice(bytes)?;
        record.job.cancel_asked |= std::mem::take(&mut record.cancel_asked_v1);
        Ok(record)
    }

    /// True when this very process has it.
    pub fn is_held_by(&self, worker: &Worker) -> bool {
        self.job.state == JobState::Running
            && self.job.host.as_ref() == Some(&worker.host)
            && self.boot.as_ref() == Some(&worker.boot)
    }

    /// True when an earlier process of this worker's host had it: a host has one process at a time, so that one is gone.
    pub fn was_left_by(&self, worker: &Worker) -> bool {
        // records of the first version name nobody: one store belonged to one host then
        let ours = self.job.host.as_ref().is_none_or(|host| *host == worker.host);
        self.job.state == JobState::Running && ours && self.boot.as_ref() != Some(&worker.boot)
    }

    /// A worker gets it.
    ///
    /// # Errors
    /// `Conflict` unless it is `queued` or `interrupted`.
    pub fn take(&mut self, worker: &Worker, now: &Now) -> Result<Ticket> {
        if !matches!(self.job.state, JobState::Queued | JobState::Interrupted) {
            return Err(JobsError::wrong_state(
                &self.job.id,
                self.job.state,
                "queued or interrupted",
            ));
        }
        let resumed = std::mem::replace(&mut self.begun, true);
        self.job.state = JobState::Running;
        self.job.attempts += 1;
        self.job.deliveries += 1;
        self.job.host = Some(worker.host.clone());
        self.boot = Some(worker.boot.clone());
        self.job.error = None;
        self.job.updated_at.clone_from(&now.text);
        Ok(Ticket {
            job: self.job.id.clone(),
            attempt: self.job.attempts,
            worker: worker.clone(),
            resumed,
        })
    }

    /// The ticket's attempt is still the one that counts.
    ///
    /// # Errors
    /// `Conflict` when it ended or another worker has it.
    pub fn holds(&self, ticket: &Ticket) -> Result<()> {
        if planted::is(Fault::TicketUnchecked) {
            return Ok(());
        }
        if self.job.state != JobState::Running {
            return Err(JobsError::wrong_state(&self.job.id, self.job.state, "running"));
        }
        if self.job.attempts == ticket.attempt && self.is_held_by(&ticket.worker) {
            return Ok(());
        }
        let holder = self.job.host.as_ref().map_or("another worker", |h| h.as_str());
        Err(JobsError::new(
            crate::Kind::Conflict,
            format!(
                "job {} is in its attempt {} on {holder} now; attempt {} counts no more and changed nothing",
                self.job.id, self.job.attempts, ticket.attempt
            ),
        ))
    }

    /// How far it is.
    ///
    /// # Errors
    /// As [`Record::holds`].
    pub fn progress(&mut self, ticket: &Ticket, progress: Progress, now: &Now) -> Result<()> {
        self.holds(ticket)?;
        self.job.progress = progress;
        self.job.updated_at.clone_from(&now.text);
        Ok(())
    }

    /// The ticket's attempt ended.
    ///
    /// # Errors
    /// As [`Record::holds`].
    pub fn finish(&mut self, ticket: &Ticket, outcome: Outcome, now: &Now) -> Result<()> {
        self.holds(ticket)?;
        if let (true, Outcome::Interrupted(_) | Outcome::HandedBack) = (self.job.cancel_asked, &outcome) {
            // nobody wants it to be taken up again
            self.end_cancelled("and its worker left it", now);
            return Ok(());
        }
        match outcome {
            Outcome::Done(result) => self.end(JobState::Done, Some(result), None, now),
            Outcome::Failed(error) => self.end(JobState::Failed, None, Some(error), now),
            Outcome::Cancelled(error) => self.end(JobState::Cancelled, None, Some(error), now),
            Outcome::Interrupted(error) => {
                // what ends in good order is no fault of the job
                self.job.deliveries = self.job.deliveries.saturating_sub(1);
                self.leave(JobState::Interrupted, Some(error), now);
            }
            Outcome::HandedBack => {
                self.job.deliveries = self.job.deliveries.saturating_sub(1);
                self.begun = ticket.resumed;
                let state = match ticket.resumed {
                    true => JobState::Interrupted,
                    false => JobState::Queued,
                };
                self.leave(state, None, now);
            }
        }
        Ok(())
    }

    /// Its worker died or fell silent, as `why` says: it waits for another one, or is set aside when that happened
    /// `deliveries_max` times.
    pub fn lapse(&mut self, why: &str, deliveries_max: u32, now: &Now) {
        if self.job.state != JobState::Running {
            return;
        }
        if self.job.cancel_asked {
            return self.end_cancelled("and its worker is gone", now);
        }
        let why = ErrorBody::new(Code::Unavailable, why);
        if self.job.deliveries < deliveries_max.max(1) {
            return self.leave(JobState::Interrupted, Some(why), now);
        }
        let message = format!(
            "delivered {} times, the most, and not ended once; the last time: {}",
            self.job.deliveries, why.message
        );
        let error = ErrorBody::new(Code::Unavailable, message).hint(format!("windlass jobs retry {}", self.job.id));
        self.end(JobState::Dead, None, Some(error), now);
    }

    /// Nobody stands behind it as it is: it is set aside, unless it has ended.
    pub fn refuse(&mut self, why: ErrorBody, now: &Now) {
        if !self.job.state.is_final() {
            self.end(JobState::Dead, None, Some(why), now);
        }
    }

    /// Its taker never learned that it has it, for every answer was lost: it waits as before. Nothing began.
    pub fn unlearn(&mut self, now: &Now) {
        if self.job.state != JobState::Running {
            return;
        }
        if self.job.cancel_asked {
            return self.end_cancelled("before its taker began", now);
        }
        self.job.deliveries = self.job.deliveries.saturating_sub(1);
        self.begun = self.job.attempts > 1;
        let state = match self.begun {
            true => JobState::Interrupted,
            false => JobState::Queued,
        };
        self.leave(state, None, now);
    }

    /// An interrupted one that nobody will take up again.
    pub fn give_up(&mut self, why: ErrorBody, now: &Now) {
        self.end(JobState::Failed, None, Some(why), now);
    }

    /// Someone asks for its end.
    pub fn cancel(&mut self, now: &Now) {
        match self.job.state {
            JobState::Queued | JobState::Interrupted => self.end_cancelled("before it ran", now),
            JobState::Running => {
                self.job.cancel_asked = true;
                self.job.updated_at.clone_from(&now.text);
            }
            JobState::Done | JobState::Failed | JobState::Cancelled | JobState::Dead => {}
        }
    }

    /// Someone asks for it again.
    ///
    /// # Errors
    /// `Conflict` unless it is `dead`, `failed` or `cancelled`.
    pub fn retry(&mut self, now: &Now) -> Result<()> {
        if !matches!(self.job.state, JobState::Dead | JobState::Failed | JobState::Cancelled) {
            return Err(JobsError::wrong_state(
                &self.job.id,
                self.job.state,
                "dead, failed or cancelled",
            ));
        }
        self.retries += 1;
        self.begun = false;
        self.ended_ms = 0;
        self.job.deliveries = 0;
        self.job.cancel_asked = false;
        self.job.progress = Progress::default();
        self.job.result = None;
        self.leave(JobState::Queued, None, now);
        Ok(())
    }

    fn end_cancelled(&mut self, when: &str, now: &Now) {
        let why = ErrorBody::new(Code::Conflict, format!("cancelled on request, {when}"));
        self.end(JobState::Cancelled, None, Some(why), now);
    }

    fn end(&mut self, state: JobState, result: Option<serde_json::Value>, error: Option<ErrorBody>, now: &Now) {
        self.begun = false;
        self.ended_ms = now.ms;
        self.job.result = result;
        self.leave(state, error, now);
    }

    fn leave(&mut self, state: JobState, error: Option<ErrorBody>, now: &Now) {
        self.boot = None;
        self.job.state = state;
        self.job.error = error;
        self.job.updated_at.clone_from(&now.text);
    }
}
