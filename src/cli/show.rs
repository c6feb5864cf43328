//! Wire replies as text for people.

use wire::house::{ConcernState, StatusReply};
use wire::job::{Job, JobListing, JobState, Progress};
use wire::trace::TraceContext;

use super::table::{Table, one_line, pairs};
use super::units::{amount, count, rate, seconds, time};

/// `reading 1.0 GiB of 2.0 GiB, 850.0 MiB/s, 1.2 s left`
pub fn progress(p: &Progress) -> String {
    if p.phase.is_empty() && p.done == 0 {
        return String::new();
    }
    let mut text = format!("{} {}", one_line(&p.phase), amount(p.done, &p.unit));
    if p.total > 0 {
        text.push_str(&format!(" of {}", amount(p.total, &p.unit)));
    }
    if p.rate_per_s > 0.0 {
        text.push_str(&format!(", {}", rate(p.rate_per_s, &p.unit)));
    }
    if let Some(eta) = p.eta_s {
        text.push_str(&format!(", {} left", seconds(eta)));
    }
    text
}

/// `windlass jobs ls`
pub fn jobs(listing: &JobListing) -> String {
    if listing.jobs.is_empty() {
        return "no jobs\n".into();
    }
    let mut table = Table::new()
        .text("ID")
        .text("SUBMITTED")
        .text("KIND")
        .text("HOST")
        .text("STATE")
        .text("PROGRESS");
    for job in &listing.jobs {
        let tail = match &job.error {
            Some(error) if job.state != JobState::Running => format!("{}: {}", error.code, first_line(&error.message)),
            _ if job.state == JobState::Done => String::new(),
            _ => progress(&job.progress),
        };
        table.row([
            job.id.0.clone(),
            time(&job.submitted_at),
            format!("{}.{}", job.concern, job.kind),
            job.host
                .as_ref()
                .or(job.target.as_ref())
                .map_or("-".into(), ToString::to_string),
            job.state.as_str().into(),
            tail,
        ]);
    }
    table.render()
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// `windlass jobs show`
pub fn job(job: &Job) -> String {
    let mut rows = vec![
        ("job", job.id.0.clone()),
        ("kind", format!("{}.{}", job.concern, job.kind)),
        ("state", job.state.as_str().to_owned()),
        ("host", job.host.as_ref().map_or("-".into(), ToString::to_string)),
        (
            "may run on",
            job.target
                .as_ref()
                .map_or("any host that serves it".into(), ToString::to_string),
        ),
        ("progress", progress(&job.progress)),
        (
            "attempts",
            format!("{}, {} of them count towards the limit", job.attempts, job.deliveries),
        ),
        ("submitted", time(&job.submitted_at)),
        ("changed", time(&job.updated_at)),
    ];
    if let Some(id) = &job.request_id {
        rows.push(("request id", id.clone()));
    }
    if let Some(trace) = job.traceparent.as_deref().and_then(TraceContext::parse) {
        rows.push(("trace id", trace.trace_id()));
    }
    rows.push(("request", job.request.to_string()));
    if let Some(result) = &job.result {
        rows.push(("result", result.to_string()));
    }
    if let Some(error) = &job.error {
        rows.push(("error", format!("{}: {}", error.code, error.message)));
        rows.extend(error.hint.iter().map(|hint| ("try", hint.clone())));
    }
    pairs(rows)
}

/// `windlass status`
pub fn status(s: &StatusReply) -> String {
    let mut head = vec![
        ("host", s.host.to_string()),
        ("version", s.version.clone()),
        ("process", format!("{}, since {}", s.pid, time(&s.started_at))),
        ("mode", s.mode.clone()),
        ("state", s.state_dir.clone()),
        ("open jobs", count(s.jobs_open)),
    ];
    match &s.hardening {
        None => head.push(("hardening", "off".into())),
        Some(h) => head.extend([
            ("no_new_privs", if h.no_new_privs { "on".into() } else { "off".into() }),
            ("seccomp", one_line(&h.seccomp)),
            ("Landlock", one_line(&h.landlock)),
            ("capabilities", one_line(&h.capabilities.join(", "))),
        ]),
    }
    let head = pairs(head);
    let mut table = Table::new()
        .text("CONCERN")
        .text("STATE")
        .number("WAITING")
        .number("OK")
        .number("ERRORS")
        .number("DEATHS");
    for c in &s.concerns {
        let ok = c.answered.get("ok").copied().unwrap_or(0);
        let errors: u64 = c
            .answered
            .iter()
            .filter(|(outcome, _)| *outcome != "ok")
            .map(|(_, n)| n)
            .sum();
        table.row([
            c.concern.clone(),
            concern_state(c.state).into(),
            format!("{}/{}", c.mailbox_messages, c.mailbox_messages_max),
            count(ok),
            count(errors),
            count(c.deaths.values().sum()),
        ]);
    }
    format!("{head}\n{}", table.render())
}

fn concern_state(state: ConcernState) -> &'static str {
    match state {
        ConcernState::Off => "off",
        ConcernState::Up => "up",
        ConcernState::Restarting => "restarting",
        ConcernState::Draining => "draining",
        ConcernState::Failed => "failed",
        ConcernState::Stopped => "stopped",
    }
}
