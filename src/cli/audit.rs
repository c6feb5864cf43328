//! `windlass audit`

use std::process::ExitCode;

use bus::Received;
use wire::audit::{AuditAction, AuditEntry, AuditList, AuditListing};
use wire::event::CloudEvent;
use wire::subject::EventFilter;
use wire::{Code, ConcernName, ErrorBody, Topic};

use super::Context;
use super::args::AuditArgs;
use super::table::{Table, one_line};
use super::units::time;
use crate::client::no_daemon;
use crate::signals::StopSignals;

/// Prints what the host noticed, and goes on where that is asked for.
///
/// # Errors
/// `unavailable` when no daemon runs; `denied` to whoever may not see it.
pub async fn run(context: &Context, args: &AuditArgs) -> Result<ExitCode, ErrorBody> {
    let client = context.daemon().await.map_err(|e| match e.code {
        Code::Unavailable => no_daemon(&context.loaded.config),
        _ => e,
    })?;
    // first listened, then asked: what happens in between is told
    let followed = match args.follow {
        true => Some(client.events(actions()?).await?),
        false => None,
    };
    let ask = AuditList {
        count_max: args.count,
        denied: args.denied,
    };
    let mut listing = client.call(&ask).await?;
    listing.entries.reverse();
    let Some(mut heard) = followed else {
        return context.answer(&listing, shown);
    };
    for entry in &listing.entries {
        line(context, entry)?;
    }
    let mut signals = StopSignals::new()?;
    loop {
        let received = tokio::select! {
            _ = signals.next() => return Ok(ExitCode::SUCCESS),
            received = heard.next() => received,
        };
        match received {
            Some(Received::Event { payload, .. }) => {
                if let Ok(event) = serde_json::from_slice::<CloudEvent<AuditAction>>(&payload)
                    && (!args.denied || event.data.0.refused == Some(Code::Denied))
                    && !listing.entries.iter().any(|known| known.id == event.data.0.id)
                {
                    line(context, &event.data.0)?;
                }
            }
            Some(Received::Lost(n)) => context
                .output
                .remark(&format!("{n} events were lost: this reader is too slow")),
            None => return Err(ErrorBody::new(Code::Unavailable, "the daemon left")),
        }
    }
}

fn actions() -> Result<EventFilter, ErrorBody> {
    let concern = ConcernName::new(AuditAction::CONCERN).map_err(|e| ErrorBody::new(Code::Internal, e.to_string()))?;
    Ok(EventFilter::Exactly(concern, AuditAction::WHAT.to_owned()))
}

fn line(context: &Context, entry: &AuditEntry) -> Result<(), ErrorBody> {
    if context.output.json {
        return context.output.json_line(entry);
    }
    context.output.text(&format!("{}\n", cells(entry).join("  ")))
}

fn cells(entry: &AuditEntry) -> [String; 8] {
    let role = entry.role.map_or("-", wire::Role::as_str);
    let ended = match (&entry.refused, &entry.why) {
        (None, _) => "done".to_owned(),
        (Some(code), Some(why)) => format!("{code}: {}", one_line(why)),
        (Some(code), None) => code.to_string(),
    };
    [
        time(&entry.at),
        entry.host.to_string(),
        one_line(&entry.who),
        role.to_owned(),
        one_line(&entry.from),
        one_line(format!("{} {}", entry.what, entry.about).trim_end()),
        entry.times.to_string(),
        ended,
    ]
}

fn shown(listing: &AuditListing) -> String {
    let mut table = Table::new()
        .text("WHEN")
        .text("NOTED BY")
        .text("WHO")
        .text("ROLE")
        .text("FROM")
        .text("WHAT")
        .number("TIMES")
        .text("ENDED");
    for entry in &listing.entries {
        table.row(cells(entry));
    }
    let missed = match listing.missed_total {
        0 => String::new(),
        missed => format!("; {missed} came faster than they could be written"),
    };
    format!(
        "{}{} denied since the daemon began{missed}\n",
        table.render(),
        listing.denied_total
    )
}
