//! The concern `jobs`: tells of jobs, cancels them and queues them again. A job that only one host may do is changed by that
//! host alone, which is asked when somebody else was.

use std::sync::Arc;

use serde_json::{Value, json};
use wire::job::{Job, JobCancel, JobCancelOwn, JobList, JobListing, JobRetry, JobRetryOwn, JobShow};
use wire::{Code, ErrorBody, Headers, HostId, Request};

use crate::concern::{Call, Concern, Effect, Routes};
use crate::job_desk::{Desk, shown};

/// Jobs of `jobs.ls` when the asker names no number, and the most.
const LIST_JOBS_DEFAULT: usize = 100;
/// A list of jobs ends before its answer grows over this, in bytes.
const LIST_BYTES_MAX: usize = 768 << 10;

/// The concern.
pub(crate) struct JobBook(pub(crate) Arc<Desk>);

impl Concern for JobBook {
    const NAME: &'static str = "jobs";
    fn routes() -> Routes<Self> {
        Routes::new()
            .on(Self::list)
            .on(Self::show)
            .on(Self::cancel)
            .on(Self::retry)
            .on(Self::cancel_own)
            .on(Self::retry_own)
    }
    fn observed(&self) -> Value {
        json!({"jobs_running": self.0.running.len()})
    }
}

impl JobBook {
    fn list(&mut self, request: JobList, _: &Call) -> Effect<Self, JobListing> {
        let desk = self.0.clone();
        let count = match request.count_max {
            0 => LIST_JOBS_DEFAULT,
            count => usize::try_from(count).unwrap_or(usize::MAX),
        };
        Effect::run(async move {
            let mut bytes = 0;
            let fits = |job: &Job| {
                bytes += serde_json::to_vec(job).map_or(0, |json| json.len());
                bytes <= LIST_BYTES_MAX
            };
            let listed = desk.jobs.list(count, request.state).await?;
            Ok(JobListing {
                jobs: listed.into_iter().map(shown).take_while(fits).collect(),
            })
        })
    }
    fn show(&mut self, request: JobShow, _: &Call) -> Effect<Self, Job> {
        let desk = self.0.clone();
        Effect::run(async move { Ok(desk.jobs.show(&request.job).await?) })
    }
    fn cancel(&mut self, request: JobCancel, call: &Call) -> Effect<Self, Job> {
        let (desk, headers) = (self.0.clone(), call.headers.clone());
        Effect::run(async move {
            let own = JobCancelOwn { job: request.job };
            match desk.of_another_host(&own.job).await? {
                Some(host) => asked_of(&desk, &host, &own, headers).await,
                None => Ok(desk.cancel(&own.job).await?),
            }
        })
    }
    fn retry(&mut self, request: JobRetry, call: &Call) -> Effect<Self, Job> {
        let (desk, headers) = (self.0.clone(), call.headers.clone());
        Effect::run(async move {
            let own = JobRetryOwn { job: request.job };
            match desk.of_another_host(&own.job).await? {
                Some(host) => asked_of(&desk, &host, &own, headers).await,
                None => desk.retry(&own.job).await,
            }
        })
    }
    fn cancel_own(&mut self, request: JobCancelOwn, _: &Call) -> Effect<Self, Job> {
        let desk = self.0.clone();
        Effect::run(async move { Ok(desk.cancel(&request.job).await?) })
    }
    fn retry_own(&mut self, request: JobRetryOwn, _: &Call) -> Effect<Self, Job> {
        let desk = self.0.clone();
        Effect::run(async move { desk.retry(&request.job).await })
    }
}

/// A host's jobs are changed by that host alone.
async fn asked_of<R: Request<Reply = Job>>(
    desk: &Desk,
    host: &HostId,
    request: &R,
    headers: Headers,
) -> Result<Job, ErrorBody> {
    // it is this host that asks
    let headers = Headers {
        timeout_ms: headers.timeout_ms,
        traceparent: headers.traceparent,
        ..Headers::default()
    };
    bus::call(&*desk.announcer.bus, host, request, headers)
        .await
        .map_err(|mut error| {
            if error.code == Code::Unavailable {
                error.message = format!("the job is for {host}, which doesn't answer; it was left unchanged");
                error.hint = Some(format!("windlass hosts show {host}"));
            }
            error
        })
}
