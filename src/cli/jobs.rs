//! `windlass jobs ...`

use std::process::ExitCode;

use wire::ErrorBody;
use wire::job::{JobCancel, JobId, JobList, JobShow};

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
        JobsVerb::Ls { count } => {
            let reply = client.call(&JobList { count_max: *count }).await?;
            context.answer(&reply, show::jobs)
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
