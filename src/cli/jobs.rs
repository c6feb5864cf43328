//! `windlass jobs ...`

use std::process::ExitCode;

use wire::ErrorBody;
use wire::job::{JobCancel, JobId, JobList, JobRetry, JobShow, JobState};

use super::args::JobsVerb;
use super::job::{self, Followed};
use super::{Context, show};
use crate::client::Client;

/// Runs one verb.
///
/// # Errors
/// As the house answers; the job's own error when a watched one fails.
pub async fn run(context: &Context, verb: &JobsVerb) -> Result<ExitCode, ErrorBody> {
    let client = context.connect().await?;
    let result = dispatch(context, &client, verb).await;
    client.close().await;
    result
}

async fn dispatch(context: &Context, client: &Client, verb: &JobsVerb) -> Result<ExitCode, ErrorBody> {
    match verb {
        JobsVerb::Ls { count, state } => list(context, client, *count, state.map(JobState::from)).await,
        JobsVerb::Dead { count } => list(context, client, *count, Some(JobState::Dead)).await,
        JobsVerb::Retry { id } => {
            let reply = client.call(&JobRetry { job: JobId(id.clone()) }).await?;
            if !client.is_daemon() {
                context
                    .output
                    .remark("no daemon runs: the job waits for `windlass serve`");
            }
            context.answer(&reply, show::job)
        }
        JobsVerb::Show { id } => {
            let reply = client.call(&JobShow { job: JobId(id.clone()) }).await?;
            context.answer(&reply, show::job)
        }
        JobsVerb::Cancel { id } => {
            let reply = client.call(&JobCancel { job: JobId(id.clone()) }).await?;
            context.answer(&reply, show::job)
        }
        JobsVerb::Watch { id } => {
            let id = JobId(id.clone());
            match job::watch::<serde_json::Value>(client, context.output, &id).await? {
                Followed::Done(_) => {
                    let reply = client.call(&JobShow { job: id }).await?;
                    context.answer(&reply, show::job)
                }
                Followed::Left(why) => Ok(context.left(why.as_ref())),
            }
        }
    }
}

async fn list(
    context: &Context,
    client: &Client,
    count_max: u32,
    state: Option<JobState>,
) -> Result<ExitCode, ErrorBody> {
    let reply = client.call(&JobList { count_max, state }).await?;
    context.answer(&reply, show::jobs)
}
