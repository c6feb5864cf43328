//! `windlass metal ...`: build a message, send it, print the answer.

use std::path::Path;
use std::process::ExitCode;

use wire::ErrorBody;
use wire::metal_broker::{
    ClusterAsk, MetalClaim, MetalConfirm, MetalExplain, MetalForecast, MetalInventory, MetalList, MetalPolicyCheck,
    MetalPolicySet, MetalPolicyTest, MetalQuarantine, MetalRelease, MetalSelect, MetalShow, POLICY_BYTES_MAX,
};

use self::args::{MetalVerb, PolicyVerb};
use super::Context;
use super::rack::{FILE_BYTES_MAX, read, text_of};
use crate::client::Client;

pub mod args;
mod show;

/// Runs one verb.
///
/// # Errors
/// As the concern answers; `invalid` for a file that can't be understood.
pub async fn run(context: &Context, verb: &MetalVerb) -> Result<ExitCode, ErrorBody> {
    let client = context.connect().await?;
    let result = match verb {
        MetalVerb::Policy { verb } => policy(context, &client, verb).await,
        MetalVerb::Select { .. }
        | MetalVerb::Explain { .. }
        | MetalVerb::Inventory { .. }
        | MetalVerb::Forecast { .. }
        | MetalVerb::Ls { .. }
        | MetalVerb::Show { .. } => look(context, &client, verb).await,
        _ => change(context, &client, verb).await,
    };
    client.close().await;
    result
}

fn asked(context: &Context, file: &Path) -> Result<ClusterAsk, ErrorBody> {
    read(context, file, FILE_BYTES_MAX)
}

/// What changes nothing.
async fn look(context: &Context, client: &Client, verb: &MetalVerb) -> Result<ExitCode, ErrorBody> {
    match verb {
        MetalVerb::Select { tenant, file, policy } => {
            let request = MetalSelect {
                tenant: tenant.clone(),
                ask: asked(context, file)?,
                policy: policy.clone(),
            };
            context.answer(&client.call(&request).await?, show::selection)
        }
        MetalVerb::Explain {
            tenant,
            file,
            machine,
            policy,
        } => {
            let request = MetalExplain {
                tenant: tenant.clone(),
                ask: asked(context, file)?,
                machine: machine.clone(),
                policy: policy.clone(),
            };
            context.answer(&client.call(&request).await?, show::explanation)
        }
        MetalVerb::Inventory { tenant, refresh } => {
            let mut request = MetalInventory {
                tenant: tenant.clone(),
                after: None,
                refresh: *refresh,
            };
            let mut report = client.call(&request).await?;
            request.refresh = false;
            while let Some(after) = report.more_after.take() {
                request.after = Some(after);
                let more = client.call(&request).await?;
                report.machines.extend(more.machines);
                report.more_after = more.more_after;
            }
            context.answer(&report, show::inventory)
        }
        MetalVerb::Forecast { tenant } => {
            let request = MetalForecast { tenant: tenant.clone() };
            context.answer(&client.call(&request).await?, show::forecast)
        }
        MetalVerb::Ls { tenant } => {
            let mut request = MetalList {
                tenant: tenant.clone(),
                after: None,
            };
            let mut listing = client.call(&request).await?;
            while let Some(after) = listing.more_after.take() {
                request.after = Some(after);
                let more = client.call(&request).await?;
                listing.clusters.extend(more.clusters);
                listing.more_after = more.more_after;
            }
            context.answer(&listing, show::clusters)
        }
        MetalVerb::Show { tenant, id } => {
            let request = MetalShow {
                tenant: tenant.clone(),
                id: id.clone(),
            };
            context.answer(&client.call(&request).await?, show::cluster)
        }
        _ => unreachable!("dispatched by `run`"),
    }
}

/// What changes something.
async fn change(context: &Context, client: &Client, verb: &MetalVerb) -> Result<ExitCode, ErrorBody> {
    match verb {
        MetalVerb::Claim {
            tenant,
            file,
            policy,
            request_id,
        } => {
            let request = MetalClaim {
                tenant: tenant.clone(),
                ask: asked(context, file)?,
                policy: policy.clone(),
            };
            let reply = client.call_once(&request, request_id.clone()).await?;
            context.answer(&reply, show::cluster)
        }
        MetalVerb::Confirm {
            tenant,
            id,
            machine,
            down,
            rack,
            zone,
        } => {
            let request = MetalConfirm {
                tenant: tenant.clone(),
                id: id.clone(),
                machine: machine.clone(),
                up: !down,
                rack: rack.clone(),
                zone: zone.clone(),
            };
            context.answer(&client.call(&request).await?, show::cluster)
        }
        MetalVerb::Release { tenant, id } => {
            let request = MetalRelease {
                tenant: tenant.clone(),
                id: id.clone(),
            };
            context.answer(&client.call(&request).await?, show::cluster)
        }
        MetalVerb::Quarantine {
            tenant,
            machine,
            lift,
            why,
        } => {
            let request = MetalQuarantine {
                tenant: tenant.clone(),
                machine: machine.clone(),
                lift: *lift,
                why: why.clone().unwrap_or_default(),
            };
            context.answer(&client.call(&request).await?, show::quarantined)
        }
        _ => unreachable!("dispatched by `run`"),
    }
}

async fn policy(context: &Context, client: &Client, verb: &PolicyVerb) -> Result<ExitCode, ErrorBody> {
    let text = |file: &Path| text_of(context, file, POLICY_BYTES_MAX as u64).map(|(_, text)| text);
    match verb {
        PolicyVerb::Check { file } => {
            let request = MetalPolicyCheck { text: text(file)? };
            context.answer(&client.call(&request).await?, show::policy)
        }
        PolicyVerb::Test { tenant, file, request } => {
            let request = MetalPolicyTest {
                tenant: tenant.clone(),
                text: text(file)?,
                ask: asked(context, request)?,
            };
            context.answer(&client.call(&request).await?, show::selection)
        }
        PolicyVerb::Set { tenant, file } => {
            let request = MetalPolicySet {
                tenant: tenant.clone(),
                text: text(file)?,
            };
            context.answer(&client.call(&request).await?, show::policy)
        }
    }
}
