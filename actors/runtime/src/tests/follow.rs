//! Follows a job to its end, over any bus; the command line has its own, with signals and a display.

use std::time::Duration;

use bus::{Bus, EVENTS_QUEUED_DEFAULT, Received};
use wire::event::CloudEvent;
use wire::job::{Job, JobChanged, JobId, JobShow, JobState};
use wire::subject::EventFilter;
use wire::{Code, ConcernName, ErrorBody, Headers, HostId, Topic};

/// Without an event for this long the job is asked for, in milliseconds: events may be lost.
const ASK_AFTER_MS: u64 = 1_000;

/// Calls `changed` with the job now and at each change, until it is final or `interrupted`; returns it as it was then.
///
/// # Errors
/// `not_found`, or what the bus says when the host can't be asked.
pub(super) async fn follow(
    bus: &dyn Bus,
    host: &HostId,
    id: &JobId,
    mut changed: impl FnMut(&Job),
) -> Result<Job, ErrorBody> {
    let concern = ConcernName::new(JobChanged::CONCERN).map_err(|e| ErrorBody::new(Code::Internal, e.to_string()))?;
    let filter = EventFilter::Exactly(concern, JobChanged::WHAT.to_owned());
    let mut events = bus.subscribe(filter, EVENTS_QUEUED_DEFAULT).await?;
    let show = JobShow { job: id.clone() };
    let ended = |job: &Job| job.state.is_final() || job.state == JobState::Interrupted;
    let mut job = bus::call(bus, host, &show, Headers::default()).await?;
    // the job may have been asked for because it was interrupted: give its runner the time to take it up
    if job.state == JobState::Interrupted {
        tokio::time::sleep(Duration::from_millis(ASK_AFTER_MS)).await;
        job = bus::call(bus, host, &show, Headers::default()).await?;
    }
    loop {
        changed(&job);
        if ended(&job) {
            // an event leaves large results out
            return bus::call(bus, host, &show, Headers::default()).await;
        }
        job = loop {
            match tokio::time::timeout(Duration::from_millis(ASK_AFTER_MS), events.next()).await {
                Ok(Some(Received::Event { payload, .. })) => match of_event(&payload, id) {
                    Some(job) => break job,
                    None => continue,
                },
                Ok(Some(Received::Lost(_))) | Err(_) => break bus::call(bus, host, &show, Headers::default()).await?,
                Ok(None) => {
                    return Err(ErrorBody::new(
                        Code::Unavailable,
                        format!("the bus ended; job {id} goes on"),
                    ));
                }
            }
        };
    }
}

fn of_event(payload: &[u8], id: &JobId) -> Option<Job> {
    let event: CloudEvent<JobChanged> = serde_json::from_slice(payload).ok()?;
    (event.data.0.id == *id).then_some(event.data.0)
}
