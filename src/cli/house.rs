//! Verbs about the house itself: `status`, `send`, `watch`, `schema`.

use std::io::Read;
use std::process::ExitCode;

use bus::Received;
use serde_json::{Value, json};
use wire::catalog::{Endpoint, endpoints, events};
use wire::job::{JobAccepted, JobId};
use wire::subject::EventFilter;
use wire::{Address, Code, ConcernName, ErrorBody, Headers, HostId, Subject};

use super::args::SendArgs;
use super::job::Followed;
use super::{Context, job, show};
use crate::client::Client;
use crate::signals::StopSignals;

/// Largest request that is read from standard input, in bytes: what the bus carries.
const STDIN_BYTES_MAX: u64 = bus::PAYLOAD_BYTES_MAX as u64;

/// `windlass status`
///
/// # Errors
/// `unavailable` when no daemon runs.
pub async fn status(context: &Context) -> Result<ExitCode, ErrorBody> {
    let client = context.daemon().await?;
    let reply = client.call(&wire::house::Status {}).await?;
    context.answer(&reply, show::status)
}

/// `windlass schema`
///
/// # Errors
/// When standard output can't be written.
pub fn schema(context: &Context) -> Result<ExitCode, ErrorBody> {
    context
        .output
        .document(&wire::catalog::asyncapi(env!("CARGO_PKG_VERSION")))?;
    Ok(ExitCode::SUCCESS)
}

/// `windlass send`
///
/// # Errors
/// As the server answers; `invalid` for a subject or JSON that can't be read.
pub async fn send(context: &Context, args: &SendArgs) -> Result<ExitCode, ErrorBody> {
    let request = read_json(&args.what.request)?;
    let client = context.connect().await?;
    let result = send_with(context, &client, args, &request).await;
    client.close().await;
    result
}

async fn send_with(
    context: &Context,
    client: &Client,
    args: &SendArgs,
    request: &Value,
) -> Result<ExitCode, ErrorBody> {
    let subject = subject(&args.subject, client.host())?;
    let defaults = client.headers();
    let headers = Headers {
        timeout_ms: args.what.timeout_ms.or(defaults.timeout_ms),
        request_id: args.what.request_id.clone(),
        ..Headers::default()
    };
    let reply = client.call_json(&subject, request, headers).await?;
    context.output.document(&reply)?;
    // a job that this process would take down with it is waited for
    if !client.is_daemon()
        && let Ok(accepted) = serde_json::from_value::<JobAccepted>(reply)
    {
        return wait_for(context, client, &accepted.job).await;
    }
    Ok(ExitCode::SUCCESS)
}

async fn wait_for(context: &Context, client: &Client, id: &JobId) -> Result<ExitCode, ErrorBody> {
    context
        .output
        .remark(&format!("no daemon runs: this process waits for job {id}"));
    match job::watch::<Value>(client, context.output, id).await? {
        Followed::Done(_) => Ok(ExitCode::SUCCESS),
        Followed::Left(why) => Ok(context.left(why.as_ref())),
    }
}

/// `windlass watch`
///
/// # Errors
/// `unavailable` when no daemon runs or when it leaves.
pub async fn watch(context: &Context, filter: Option<&str>, count: Option<u64>) -> Result<ExitCode, ErrorBody> {
    let filter = event_filter(filter)?;
    let client = context.daemon().await?;
    let mut signals = StopSignals::new()?;
    let mut heard = client.events(filter).await?;
    let mut left = count.unwrap_or(u64::MAX);
    while left > 0 {
        let received = tokio::select! {
            _ = signals.next() => return Ok(ExitCode::SUCCESS),
            received = heard.next() => received,
        };
        match received {
            Some(Received::Event { payload, .. }) => {
                let event: Value = serde_json::from_slice(&payload)
                    .map_err(|e| ErrorBody::new(Code::Corrupt, format!("an event can't be read: {e}")))?;
                print_event(context, &event)?;
                left -= 1;
            }
            Some(Received::Lost(n)) => context
                .output
                .remark(&format!("{n} events were lost: this reader is too slow")),
            None => {
                return Err(
                    ErrorBody::new(Code::Unavailable, "the daemon left").hint("windlass serve, then windlass watch")
                );
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print_event(context: &Context, event: &Value) -> Result<(), ErrorBody> {
    if context.output.json {
        return context.output.json_line(event);
    }
    let text = |name: &str| event[name].as_str().unwrap_or("?").to_owned();
    context.output.text(&format!(
        "{} {} {}\n",
        super::units::time(&text("time")),
        text("type"),
        event["data"]
    ))
}

/// A full subject as it is; `concern.verb` means this host, or any where the verb is cluster-wide.
fn subject(text: &str, host: &HostId) -> Result<Subject, ErrorBody> {
    if let Ok(subject) = Subject::parse(text) {
        return Ok(subject);
    }
    let all = endpoints();
    let name = |e: &Endpoint| format!("{}.{}", e.concern, e.verb);
    let invalid = |e: &dyn std::fmt::Display| ErrorBody::new(Code::Invalid, e.to_string());
    if let Some(endpoint) = all.iter().find(|e| name(e) == text) {
        return match endpoint.address {
            Address::Cluster => Subject::cluster(endpoint.concern, endpoint.verb),
            Address::Host => Subject::host(host, endpoint.concern, endpoint.verb),
        }
        .map_err(|e| invalid(&e));
    }
    let names: Vec<String> = all.iter().map(name).collect();
    let near = names
        .iter()
        .max_by(|a, b| strsim::jaro_winkler(text, a).total_cmp(&strsim::jaro_winkler(text, b)));
    let error = ErrorBody::new(
        Code::Invalid,
        format!(
            "'{}' is no subject and no CONCERN.VERB; there are {}",
            super::table::one_line(text),
            names.join(", ")
        ),
    );
    Err(match near {
        Some(near) => error.hint(format!("windlass send {near}")),
        None => error,
    })
}

/// Nothing, a concern, `concern.what`, or a pattern of subjects.
fn event_filter(text: Option<&str>) -> Result<EventFilter, ErrorBody> {
    let Some(text) = text else { return Ok(EventFilter::All) };
    if let Ok(filter) = EventFilter::parse(text) {
        return Ok(filter);
    }
    let known: Vec<String> = events().iter().map(|e| format!("{}.{}", e.concern, e.what)).collect();
    let invalid = |_| {
        ErrorBody::new(
            Code::Invalid,
            format!("'{}' names no event", super::table::one_line(text)),
        )
        .hint(format!("windlass watch CONCERN, or one of {}", known.join(", ")))
    };
    match text.split_once('.') {
        None => ConcernName::new(text).map(EventFilter::Concern).map_err(invalid),
        Some((concern, what)) => {
            // both tokens are looked at
            let subject = Subject::event(concern, what).map_err(invalid)?;
            let concern = ConcernName::new(subject.concern()).map_err(invalid)?;
            Ok(EventFilter::Exactly(concern, what.to_owned()))
        }
    }
}

fn read_json(text: &str) -> Result<Value, ErrorBody> {
    let read;
    let text = if text == "-" {
        let mut buffer = String::new();
        std::io::stdin()
            .lock()
            .take(STDIN_BYTES_MAX + 1)
            .read_to_string(&mut buffer)
            .map_err(|e| ErrorBody::new(Code::Invalid, format!("standard input can't be read: {e}")))?;
        if buffer.len() as u64 > STDIN_BYTES_MAX {
            return Err(ErrorBody::new(
                Code::Invalid,
                format!("the request has more than {STDIN_BYTES_MAX} bytes"),
            ));
        }
        read = buffer;
        read.as_str()
    } else {
        text
    };
    serde_json::from_str(text).map_err(|e| {
        ErrorBody::new(Code::Invalid, format!("the request is not JSON: {e}; nothing was sent"))
            .hint(format!("windlass send house.status '{}'", json!({})))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_may_be_short() {
        let host = HostId::new("h1").unwrap();
        let case = |text: &str| subject(text, &host).map(|s| s.to_string());
        assert_eq!(case("snapshot.ls"), Ok("windlass.v1.host.h1.snapshot.ls".into()));
        assert_eq!(
            case("windlass.v1.host.h2.snapshot.ls"),
            Ok("windlass.v1.host.h2.snapshot.ls".into())
        );
        let error = case("snapshot.lst").unwrap_err();
        assert_eq!(error.code, Code::Invalid);
        assert_eq!(error.hint.as_deref(), Some("windlass send snapshot.ls"));
    }

    #[test]
    fn filters_may_be_short() {
        let case = |text| event_filter(text).map(|f| f.pattern());
        assert_eq!(case(None), Ok("windlass.v1.event.>".into()));
        assert_eq!(case(Some("snapshot")), Ok("windlass.v1.event.snapshot.*".into()));
        assert_eq!(
            case(Some("snapshot.created")),
            Ok("windlass.v1.event.snapshot.created".into())
        );
        assert_eq!(
            case(Some("windlass.v1.event.jobs.*")),
            Ok("windlass.v1.event.jobs.*".into())
        );
        assert!(case(Some("a.b.c")).is_err() && case(Some("")).is_err() && case(Some("é")).is_err());
    }

    #[test]
    fn requests_are_json() {
        assert_eq!(read_json("{\"a\": 1}"), Ok(json!({"a": 1})));
        assert_eq!(read_json("{").unwrap_err().code, Code::Invalid);
    }
}
