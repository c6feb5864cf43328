//! `windlass hosts ...`

use std::process::ExitCode;

use wire::ErrorBody;
use wire::hosts::{HostCordon, HostDrain, HostInfo, HostList, HostListing, HostOrder, HostShow, HostUncordon};

use super::Context;
use super::args::HostsVerb;
use super::table::{Table, one_line, pairs};
use super::units::{count, seconds, size};

/// Runs one verb.
///
/// # Errors
/// `unavailable` when no daemon runs; as the house answers.
pub async fn run(context: &Context, verb: &HostsVerb) -> Result<ExitCode, ErrorBody> {
    match verb {
        HostsVerb::Members => return super::members::list(context).await,
        HostsVerb::Token(args) => return super::members::token(context, args).await,
        HostsVerb::Join { token } => return super::members::join(context, token).await,
        HostsVerb::Revoke(named) => return super::members::revoke(context, named).await,
        _ => {}
    }
    let client = context.daemon().await?;
    let info = match verb {
        HostsVerb::Ls => {
            let reply = client.call(&HostList {}).await?;
            return context.answer(&reply, listing);
        }
        HostsVerb::Show { host } => client.call(&HostShow { host: host.clone() }).await?,
        HostsVerb::Drain { host } => client.call(&HostDrain { host: host.clone() }).await?,
        HostsVerb::Cordon { host } => client.call(&HostCordon { host: host.clone() }).await?,
        HostsVerb::Uncordon { host } => client.call(&HostUncordon { host: host.clone() }).await?,
        HostsVerb::Members | HostsVerb::Token(_) | HostsVerb::Join { .. } | HostsVerb::Revoke(_) => {
            unreachable!("these ran before")
        }
    };
    context.answer(&info, host)
}

fn order(order: HostOrder) -> &'static str {
    match order {
        HostOrder::Serve => "serve",
        HostOrder::Cordon => "cordon: only work that names it",
        HostOrder::Drain => "drain: no jobs",
    }
}

/// `windlass hosts ls`
fn listing(listing: &HostListing) -> String {
    let mut table = Table::new()
        .text("HOST")
        .text("STATE")
        .text("RACK")
        .text("ROW")
        .text("ZONE")
        .number("VCPUS")
        .number("MEMORY")
        .number("DISK")
        .number("JOBS")
        .number("HEARD")
        .text("VERSION");
    let or_dash = |text: &Option<String>| text.as_deref().map_or_else(|| "-".into(), one_line);
    for h in &listing.hosts {
        table.row([
            h.host.to_string(),
            h.state.as_str().into(),
            or_dash(&h.facts.rack),
            or_dash(&h.facts.row),
            or_dash(&h.facts.zone),
            count(u64::from(h.facts.capacity.vcpus)),
            size(h.facts.capacity.memory_bytes),
            size(h.facts.capacity.disk_bytes),
            count(h.jobs_running),
            heard(h),
            one_line(&h.facts.version),
        ]);
    }
    table.render()
}

fn heard(h: &HostInfo) -> String {
    format!("{} ago", seconds(h.silent_ms as f64 / 1_000.0))
}

/// `windlass hosts show`, and the answer of the orders.
fn host(h: &HostInfo) -> String {
    let facts = &h.facts;
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    let labels: Vec<String> = facts
        .labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs([
        ("host", h.host.to_string()),
        ("state", h.state.as_str().to_owned()),
        ("order", order(h.order).to_owned()),
        ("rack", or_dash(&facts.rack)),
        ("row", or_dash(&facts.row)),
        ("zone", or_dash(&facts.zone)),
        ("labels", labels.join(", ")),
        ("vcpus", count(u64::from(facts.capacity.vcpus))),
        ("memory", size(facts.capacity.memory_bytes)),
        ("disk", size(facts.capacity.disk_bytes)),
        ("GPUs", count(u64::from(facts.capacity.gpus))),
        ("NICs", count(u64::from(facts.capacity.nics))),
        ("concerns", facts.concerns.join(", ")),
        ("jobs", count(h.jobs_running)),
        ("heard", format!("{}; a beat every {} ms", heard(h), h.beat_every_ms)),
        ("version", facts.version.clone()),
        ("boot", h.boot.clone()),
    ])
}
