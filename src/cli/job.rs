//! Verbs that start a job: submit, follow to the end, show progress.

use std::time::Duration;

use bus::{Events, Received};
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use wire::event::CloudEvent;
use wire::job::{Job, JobAccepted, JobCancel, JobChanged, JobId, JobShow, JobState};
use wire::subject::EventFilter;
use wire::{Code, ConcernName, ErrorBody, Request, Topic};

use super::output::Output;
use super::progress::Display;
use crate::client::Client;
use crate::signals::StopSignals;

/// How often a job is asked for, in case its events were lost.
const POLL_EVERY: Duration = Duration::from_secs(2);
/// Failing polls in a row after which the daemon counts as gone.
const POLLS_FAILED_MAX: u32 = 3;

/// How a followed job ended for its follower.
#[derive(Debug)]
pub enum Followed<T> {
    /// Done, with its reply.
    Done(T),
    /// The follower left by Ctrl-C. With a daemon the job goes on (`None`); else it was stopped, and the error says how.
    Left(Option<ErrorBody>),
}

/// Submits `request` and follows its job to the end.
///
/// # Errors
/// What the concern answers; the job's own error when it fails; `conflict` when it was cancelled.
pub async fn run<R, T>(
    client: &Client,
    output: Output,
    request: &R,
    request_id: Option<String>,
) -> Result<Followed<T>, ErrorBody>
where
    R: Request<Reply = JobAccepted>,
    T: DeserializeOwned,
{
    // first listen, then ask: no change can fall between
    let events = client.events(job_changes()?).await?;
    let accepted = client.call_once(request, request_id).await?;
    if accepted.duplicate {
        output.remark(&format!("this request id is known: following job {}", accepted.job));
    }
    follow(client, output, events, &accepted.job).await
}

/// Follows a job that exists.
///
/// # Errors
/// `not_found`; the job's own error when it fails; `conflict` when it was cancelled.
pub async fn watch<T: DeserializeOwned>(client: &Client, output: Output, id: &JobId) -> Result<Followed<T>, ErrorBody> {
    let events = client.events(job_changes()?).await?;
    follow(client, output, events, id).await
}

fn job_changes() -> Result<EventFilter, ErrorBody> {
    let concern = ConcernName::new(JobChanged::CONCERN).map_err(|e| ErrorBody::new(Code::Internal, e.to_string()))?;
    Ok(EventFilter::Exactly(concern, JobChanged::WHAT.to_owned()))
}

async fn follow<T: DeserializeOwned>(
    client: &Client,
    output: Output,
    mut events: Events,
    id: &JobId,
) -> Result<Followed<T>, ErrorBody> {
    let mut signals = StopSignals::new()?;
    let mut display = Display::new(output);
    let mut polls_failed = 0;
    let mut asked_to_stop = false;
    let begun = Instant::now();
    let mut next_poll = begun;
    let mut hear = true;
    loop {
        let job = tokio::select! {
            biased;
            _ = signals.next() => {
                if client.is_daemon() {
                    drop(display);
                    output.remark(&format!(
                        "left job {id}, which goes on in the daemon\n  follow: windlass jobs watch {id}\n  stop: windlass jobs cancel {id}"
                    ));
                    return Ok(Followed::Left(None));
                }
                if asked_to_stop {
                    let why = ErrorBody::new(Code::Conflict, format!("job {id} was left unfinished"))
                        .hint(format!("windlass jobs show {id}"));
                    return Ok(Followed::Left(Some(why)));
                }
                asked_to_stop = true;
                output.remark(&format!("stopping job {id} at its next safe point; once more to leave it as it is"));
                Some(client.call(&JobCancel { job: id.clone() }).await?)
            }
            received = events.next(), if hear => {
                hear = received.is_some();
                received.and_then(|r| changed_job(r, id))
            }
            () = tokio::time::sleep_until(next_poll) => {
                next_poll = Instant::now() + POLL_EVERY;
                match client.call(&JobShow { job: id.clone() }).await {
                    Ok(job) => {
                        polls_failed = 0;
                        Some(job)
                    }
                    Err(e) if e.code.is_permanent() || polls_failed >= POLLS_FAILED_MAX => return Err(lost(e, client, id)),
                    Err(_) => {
                        polls_failed += 1;
                        None
                    }
                }
            }
        };
        let Some(job) = job else { continue };
        display.update(&job);
        if job.state.is_final() {
            drop(display);
            // an event leaves a large result out
            let whole = client.call(&JobShow { job: id.clone() }).await.unwrap_or(job);
            return match ended(whole) {
                Ok(reply) => Ok(Followed::Done(reply)),
                Err(why) if asked_to_stop => Ok(Followed::Left(Some(why))),
                Err(why) => Err(why),
            };
        }
        // an interrupted job that was asked for again is taken up within a moment
        if job.state == JobState::Interrupted && !client.is_daemon() && begun.elapsed() >= POLL_EVERY {
            return Err(nobody_resumes(&job));
        }
    }
}

fn lost(error: ErrorBody, client: &Client, id: &JobId) -> ErrorBody {
    if !client.is_daemon() || error.code == Code::NotFound {
        return error;
    }
    ErrorBody {
        message: format!(
            "the daemon left while job {id} was followed: {}; what becomes of it shows when the daemon is back",
            error.message
        ),
        hint: Some(format!("windlass serve, then windlass jobs watch {id}")),
        ..error
    }
}

/// An interrupted job waits for a daemon, or for the same verb to be run again.
fn nobody_resumes(job: &Job) -> ErrorBody {
    ErrorBody::new(
        Code::Conflict,
        format!(
            "job {} was interrupted, and no daemon runs that would take it up",
            job.id
        ),
    )
    .hint("run the same command again, or start `windlass serve`")
}

fn changed_job(received: Received, id: &JobId) -> Option<Job> {
    // lost events are made good by the next poll
    let Received::Event { payload, .. } = received else {
        return None;
    };
    let event: CloudEvent<JobChanged> = serde_json::from_slice(&payload).ok()?;
    Some(event.data.0).filter(|job| job.id == *id)
}

fn ended<T: DeserializeOwned>(job: Job) -> Result<T, ErrorBody> {
    let id = job.id;
    match job.state {
        JobState::Done => serde_json::from_value(job.result.unwrap_or_default()).map_err(|e| {
            ErrorBody::new(
                Code::Internal,
                format!("job {id} is done, but its result can't be read: {e}"),
            )
            .hint(format!("windlass jobs show {id} --json"))
        }),
        JobState::Cancelled => Err(job
            .error
            .unwrap_or_else(|| ErrorBody::new(Code::Conflict, format!("job {id} was cancelled")))),
        _ => Err(job.error.unwrap_or_else(|| {
            ErrorBody::new(Code::Internal, format!("job {id} failed without saying why"))
                .hint(format!("windlass jobs show {id}"))
        })),
    }
}
