//! `/metrics`: what a host has done, in the text format of Prometheus (version 0.0.4), after its conventions: base units,
//! counters end in `_total`, one family one type.

use std::fmt::Write as _;

use runtime::{BUCKETS_S, Histogram, Measures};
use store::Counts;
use wire::house::{ConcernState, StatusReply};
use wire::job::{Job, JobState};

/// What Prometheus wants to be told.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const JOB_STATES: [JobState; 7] = [
    JobState::Queued,
    JobState::Running,
    JobState::Interrupted,
    JobState::Done,
    JobState::Failed,
    JobState::Cancelled,
    JobState::Dead,
];

/// Everything that is told, gathered at one moment.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) status: StatusReply,
    pub(super) measures: Vec<(&'static str, Measures)>,
    pub(super) jobs: Vec<Job>,
    pub(super) store: Counts,
    pub(super) requests_in_flight: u64,
    pub(super) followers: u64,
    pub(super) blob_bytes: u64,
}

/// Families one after the other.
#[derive(Debug, Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0.push_str(name);
        for (i, (label, value)) in labels.iter().enumerate() {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{escaped}\"", if i == 0 { '{' } else { ',' });
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }
    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }
    fn histogram(&mut self, name: &str, labels: &[(&str, &str)], histogram: &Histogram) {
        let mut so_far = 0;
        let bounds = BUCKETS_S.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(histogram.counts) {
            so_far += count;
            let with_bound: Vec<(&str, &str)> = labels.iter().copied().chain([("le", bound.as_str())]).collect();
            self.sample(&format!("{name}_bucket"), &with_bound, so_far);
        }
        self.sample(&format!("{name}_sum"), labels, histogram.sum_s);
        self.sample(&format!("{name}_count"), labels, so_far);
    }
}

/// The page.
pub(super) fn page(figures: &Figures) -> String {
    let mut page = Page::default();
    page.family("windlass_build_info", "gauge", "Which windlass this is; always 1.");
    let status = &figures.status;
    let labels = [
        ("version", status.version.as_str()),
        ("host", status.host.as_str()),
        ("mode", status.mode.as_str()),
    ];
    page.sample("windlass_build_info", &labels, 1);
    house(&mut page, figures);
    for concern in &status.concerns {
        let measures = figures.measures.iter().find(|(name, _)| *name == concern.concern);
        of_concern(&mut page, concern, measures.map(|(_, measures)| measures));
    }
    store(&mut page, &figures.store);
    process(&mut page);
    page.0
}

fn house(page: &mut Page, figures: &Figures) {
    let name = "windlass_house_jobs";
    page.family(
        name,
        "gauge",
        "Jobs that this host knows, by state; finished ones are kept for a while.",
    );
    for state in JOB_STATES {
        let count = figures.jobs.iter().filter(|job| job.state == state).count();
        page.sample(name, &[("state", state.as_str())], count);
    }
    page.one(
        "windlass_house_jobs_open",
        "gauge",
        "Jobs that wait or run.",
        figures.status.jobs_open,
    );
    page.one(
        "windlass_gateway_requests_in_flight",
        "gauge",
        "Requests under way through the gateway.",
        figures.requests_in_flight,
    );
    page.one(
        "windlass_gateway_followers",
        "gauge",
        "Followers of events.",
        figures.followers,
    );
    page.one(
        "windlass_gateway_blob_sent_bytes_total",
        "counter",
        "Bytes of blobs given to callers.",
        figures.blob_bytes,
    );
}

fn of_concern(page: &mut Page, concern: &wire::house::ConcernStatus, measures: Option<&Measures>) {
    const STATES: [(ConcernState, &str); 6] = [
        (ConcernState::Off, "off"),
        (ConcernState::Up, "up"),
        (ConcernState::Restarting, "restarting"),
        (ConcernState::Draining, "draining"),
        (ConcernState::Failed, "failed"),
        (ConcernState::Stopped, "stopped"),
    ];
    // one spelling: the concern's name is its part of the metric's
    let name = |what: &str| match concern.concern.as_str() {
        // the daemon's own concern shares the name with what is told of the house
        "house" => format!("windlass_house_concern_{what}"),
        other => format!("windlass_{other}_{what}"),
    };
    let state = name("state");
    page.family(
        &state,
        "gauge",
        "How the concern is: 1 for its state, 0 for the others.",
    );
    for (one, word) in STATES {
        page.sample(&state, &[("state", word)], u8::from(concern.state == one));
    }
    page.one(
        &name("mailbox_messages"),
        "gauge",
        "Messages that wait.",
        concern.mailbox_messages,
    );
    page.one(
        &name("mailbox_messages_max"),
        "gauge",
        "Messages that may wait.",
        concern.mailbox_messages_max,
    );
    let deaths = name("deaths_total");
    page.family(
        &deaths,
        "counter",
        "Deaths by cause; each was followed by a successor or by failure.",
    );
    page.sample(
        &deaths,
        &[("cause", "panic")],
        concern.deaths.get("panic").copied().unwrap_or(0),
    );
    for (cause, count) in concern.deaths.iter().filter(|(cause, _)| *cause != "panic") {
        page.sample(&deaths, &[("cause", cause)], count);
    }
    for (what, value) in concern.observed.as_object().into_iter().flatten() {
        if let Some(number) = value.as_f64() {
            let kind = if what.ends_with("_total") { "counter" } else { "gauge" };
            page.one(
                &name(what),
                kind,
                "What the concern says of itself; `windlass status` has it too.",
                number,
            );
        }
    }
    let Some(measures) = measures else { return };
    let requests = name("requests_total");
    page.family(
        &requests,
        "counter",
        "Requests answered, by verb and by code (ok, or the error's).",
    );
    for (verb, outcomes) in &measures.answered {
        for (code, count) in outcomes {
            page.sample(&requests, &[("verb", verb), ("code", code)], count);
        }
    }
    let took = name("request_duration_seconds");
    page.family(
        &took,
        "histogram",
        "From a request's arrival in the concern to its answer.",
    );
    for (verb, histogram) in &measures.took {
        page.histogram(&took, &[("verb", verb)], histogram);
    }
}

fn store(page: &mut Page, counts: &Counts) {
    let all = [
        ("put", counts.put),
        ("get", counts.get),
        ("get_range", counts.get_range),
        ("head", counts.head),
        ("list", counts.list),
        ("delete", counts.delete),
    ];
    let name = "windlass_store_requests_total";
    page.family(
        name,
        "counter",
        "Calls to the stores of all repositories; a listing counts once.",
    );
    for (operation, count) in all {
        page.sample(name, &[("operation", operation)], count.requests);
    }
    let name = "windlass_store_errors_total";
    page.family(name, "counter", "Of them those that failed; most are tried again.");
    for (operation, count) in all {
        page.sample(name, &[("operation", operation)], count.errors);
    }
    page.one(
        "windlass_store_sent_bytes_total",
        "counter",
        "Bytes of objects given to the stores.",
        counts.put.bytes,
    );
    page.one(
        "windlass_store_received_bytes_total",
        "counter",
        "Bytes of objects read from the stores; what is mapped from a local directory is not counted.",
        counts.read_bytes(),
    );
}

/// What every process tells, under the names that Prometheus's own libraries use. What /proc doesn't tell is left out.
fn process(page: &mut Page) {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    let stat = read("stat");
    // proc_pid_stat(5); the name in brackets may hold anything
    let fields: Vec<u64> = stat
        .rsplit(") ")
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0))
        .collect();
    let ticks = rustix::param::clock_ticks_per_second().max(1) as f64;
    if let (Some(user), Some(system), Some(begun)) = (fields.get(11), fields.get(12), fields.get(19)) {
        let name = "process_cpu_seconds_total";
        page.one(
            name,
            "counter",
            "CPU time of user and system.",
            (user + system) as f64 / ticks,
        );
        let booted = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let booted = booted
            .lines()
            .find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok());
        if let Some(booted) = booted {
            let name = "process_start_time_seconds";
            page.one(
                name,
                "gauge",
                "When it started, Unix time.",
                booted + *begun as f64 / ticks,
            );
        }
    }
    if let (Some(virtual_bytes), Some(pages)) = (fields.get(20), fields.get(21)) {
        page.one("process_virtual_memory_bytes", "gauge", "Address space.", virtual_bytes);
        let resident = pages * rustix::param::page_size() as u64;
        page.one("process_resident_memory_bytes", "gauge", "Memory.", resident);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        page.one("process_open_fds", "gauge", "Open file descriptors.", open.count());
    }
    let limits = read("limits");
    let most = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
    if let Some(most) = most.and_then(|most| most.parse::<u64>().ok()) {
        page.one("process_max_fds", "gauge", "File descriptors that may be open.", most);
    }
    let status = read("status");
    let threads = status
        .lines()
        .find_map(|line| line.strip_prefix("Threads:")?.trim().parse::<u64>().ok());
    if let Some(threads) = threads {
        page.one("process_threads", "gauge", "Threads.", threads);
    }
}
