//! Wire replies as text for people.

use wire::house::{ConcernState, StatusReply};
use wire::job::{Job, JobListing, JobState, Progress};
use wire::repo::{Chunker, RepoCounts, RepoInfo, StoreHonours};
use wire::snapshot::{
    ByteRange, DiffReport, DiskRestore, ExportReport, Forgotten, RestoreReport, SnapshotInfo, SnapshotKind,
    SnapshotListing, VerifyReport,
};
use wire::trace::TraceContext;

use super::table::{Table, one_line, pairs};
use super::units::{amount, count, rate, seconds, size, time};

/// Ranges of a plan or a diff that are shown; `--json` has up to 1,000.
const RANGES_SHOWN_MAX: usize = 20;

fn kind(kind: SnapshotKind) -> &'static str {
    match kind {
        SnapshotKind::User => "user",
        SnapshotKind::Common => "common",
    }
}

/// `windlass snapshot ls`
pub fn snapshots(listing: &SnapshotListing) -> String {
    if listing.snapshots.is_empty() {
        return "no snapshots\n".into();
    }
    let mut table = Table::new()
        .text("ID")
        .text("TAKEN")
        .text("VM")
        .text("KIND")
        .number("DISKS")
        .number("SIZE")
        .number("STORED");
    for s in &listing.snapshots {
        let disk_bytes = s.disks.iter().map(|d| d.size_bytes).sum();
        let stored: u64 = s.disks.iter().map(|d| d.moved.stored_bytes).sum();
        table.row([
            s.id.clone(),
            time(&s.created_at),
            s.vm.clone(),
            kind(s.kind).into(),
            s.disks.len().to_string(),
            size(disk_bytes),
            size(stored),
        ]);
    }
    table.render()
}

/// `windlass snapshot show`, and the end of `snapshot create`.
pub fn snapshot(s: &SnapshotInfo) -> String {
    let mut head = vec![
        ("snapshot", s.id.clone()),
        ("vm", s.vm.clone()),
        ("kind", kind(s.kind).to_owned()),
        (
            "taken",
            format!("{} on {}, in {}", time(&s.created_at), s.host, seconds(s.took_s.0)),
        ),
    ];
    if let Some(until) = &s.held_until {
        head.push(("held until", time(until)));
    }
    if let Some(bytes) = s.definition_bytes {
        head.push(("definition", size(bytes)));
    }
    let mut table = Table::new()
        .text("DISK")
        .number("SIZE")
        .number("ALLOCATED")
        .number("READ")
        .number("CHUNKS")
        .number("NEW")
        .number("STORED")
        .text("PATH");
    for d in &s.disks {
        table.row([
            d.name.clone(),
            size(d.size_bytes),
            size(d.moved.allocated_bytes),
            size(d.moved.read_bytes),
            count(d.moved.chunks),
            count(d.moved.new_chunks),
            size(d.moved.stored_bytes),
            d.path.clone(),
        ]);
    }
    format!("{}\n{}", pairs(head), table.render())
}

fn ranges(title: &str, shown: &[ByteRange], all: u64) -> String {
    if shown.is_empty() {
        return String::new();
    }
    let mut table = Table::new().number("OFFSET").number("LENGTH");
    for range in shown.iter().take(RANGES_SHOWN_MAX) {
        table.row([count(range.offset_bytes), count(range.length_bytes)]);
    }
    let left = all.saturating_sub(shown.len().min(RANGES_SHOWN_MAX) as u64);
    let more = if left > 0 {
        format!("... and {} more ranges\n", count(left))
    } else {
        String::new()
    };
    format!("\n{title}\n{}{more}", table.render())
}

/// `windlass snapshot diff`
pub fn diff(report: &DiffReport) -> String {
    let mut text = pairs([("a", report.a.clone()), ("b", report.b.clone())]);
    let mut table = Table::new()
        .text("DISK")
        .number("RANGES")
        .number("DIFFERING")
        .number("NODES READ");
    for d in &report.disks {
        table.row([
            d.name.clone(),
            count(d.ranges),
            size(d.differing_bytes),
            count(d.nodes_read),
        ]);
    }
    if !table.is_empty() {
        text = format!("{text}\n{}", table.render());
    }
    for (names, which) in [(&report.only_a, "a"), (&report.only_b, "b")] {
        for name in names {
            text.push_str(&format!("only in {which}: {}\n", one_line(name)));
        }
    }
    for d in &report.disks {
        text.push_str(&ranges(
            &format!("ranges of {} that differ, in bytes:", one_line(&d.name)),
            &d.first_ranges,
            d.ranges,
        ));
    }
    text
}

fn restore_table(disks: &[DiskRestore]) -> String {
    let mut table = Table::new()
        .text("DISK")
        .number("SIZE")
        .number("RANGES")
        .number("DIFFERS")
        .number("COPIED")
        .number("FETCHED")
        .number("REQUESTS")
        .number("HOLES")
        .number("WRITTEN")
        .text("PATH");
    for d in disks {
        table.row([
            d.name.clone(),
            size(d.size_bytes),
            count(d.ranges),
            size(d.differing_bytes),
            size(d.copied_bytes),
            size(d.fetched_bytes),
            count(d.fetch_requests),
            size(d.hole_bytes),
            size(d.written_bytes),
            d.path.clone(),
        ]);
    }
    table.render()
}

/// `windlass restore --plan`
pub fn plan(report: &RestoreReport) -> String {
    let head = pairs([
        ("plan", "nothing was changed".to_owned()),
        ("vm", report.vm.clone()),
        ("to", report.to.clone()),
        ("estimate", seconds(report.took_s)),
    ]);
    let mut text = format!("{head}\n{}", restore_table(&report.disks));
    for d in &report.disks {
        text.push_str(&ranges(
            &format!("ranges of {} that would be written, in bytes:", one_line(&d.name)),
            &d.first_ranges,
            d.ranges,
        ));
    }
    text
}

/// The end of `windlass restore` and `restore --undo`.
pub fn restored(report: &RestoreReport) -> String {
    let mut head = vec![("restored", report.vm.clone()), ("to", report.to.clone())];
    if let Some(common) = &report.common {
        head.push((
            "way back",
            format!("{common} (windlass restore --vm {} --undo)", report.vm),
        ));
    }
    if report.resumed {
        head.push(("resumed", "went on with an unfinished restore".into()));
    }
    head.push(("took", seconds(report.took_s)));
    let verified: u64 = report.disks.iter().map(|d| d.verified_bytes).sum();
    head.push(("checked", format!("{} read back from the disk", size(verified))));
    format!("{}\n{}", pairs(head), restore_table(&report.disks))
}

/// The end of `windlass snapshot export` and `restore --output`.
pub fn exported(report: &ExportReport) -> String {
    pairs([
        ("wrote", report.output.clone()),
        ("snapshot", report.id.clone()),
        ("disk", report.disk.clone()),
        ("size", size(report.size_bytes)),
        ("written", format!("{}, the rest are holes", size(report.written_bytes))),
        ("fetched", size(report.fetched_bytes)),
        ("took", seconds(report.took_s)),
    ])
}

/// The end of `windlass snapshot verify`.
pub fn verified(report: &VerifyReport) -> String {
    pairs([
        ("verified", "no damage found".to_owned()),
        ("snapshots", count(report.snapshots)),
        ("manifest nodes", count(report.nodes)),
        ("chunks", count(report.chunks)),
        ("read", size(report.read_bytes)),
        ("took", seconds(report.took_s)),
    ])
}

/// The end of `windlass repo rebuild-index`.
pub fn rebuilt(report: &wire::repo::RebuiltIndex) -> String {
    pairs([
        ("repository", report.url.clone()),
        ("index", format!("made anew, {} blobs", count(report.blobs))),
    ])
}

/// `windlass snapshot forget`
pub fn forgotten(f: &Forgotten) -> String {
    pairs([("forgot", f.id.clone()), ("vm", f.vm.clone())])
}

fn chunker(chunker: Chunker) -> String {
    match chunker {
        Chunker::Fastcdc {
            min_bytes,
            avg_bytes,
            max_bytes,
        } => {
            let s = |b: u32| size(u64::from(b));
            format!("fastcdc, {} to {}, mean {}", s(min_bytes), s(max_bytes), s(avg_bytes))
        }
        Chunker::Fixed { chunk_bytes } => format!("fixed, {}", size(u64::from(chunk_bytes))),
    }
}

/// `windlass repo init` and `repo show`
pub fn repo(info: &RepoInfo) -> String {
    let mut rows = vec![
        ("repository", info.url.clone()),
        ("id", info.id.clone()),
        ("format", format!("version {}", info.version)),
        ("made", time(&info.created_at)),
        ("chunks", chunker(info.chunker)),
    ];
    if let Some(store) = &info.store {
        let (honoured, not) = honours(store);
        rows.push(("store honours", honoured));
        rows.push(("store does not", not));
    }
    pairs(rows)
}

/// What a store was seen to honour, and what not.
fn honours(store: &StoreHonours) -> (String, String) {
    let seen = [
        ("ranges", Some(store.ranges)),
        ("read after write", Some(store.read_after_write)),
        ("list after write", Some(store.list_after_write)),
        ("Last-Modified", Some(store.last_modified)),
        ("ordered lists", Some(store.list_ordered)),
        ("conditional PUT", store.conditional_put),
        ("checking of checksums", store.checksums_checked),
        ("telling of checksums", store.checksums_told),
    ];
    let named = |which: bool| {
        let names: Vec<_> = seen.iter().filter(|s| s.1 == Some(which)).map(|s| s.0).collect();
        if names.is_empty() {
            "-".to_owned()
        } else {
            names.join(", ")
        }
    };
    (named(true), named(false))
}

/// `windlass repo stats`
pub fn counts(c: &RepoCounts) -> String {
    let ratio = match c.chunk_stored_bytes {
        0 => String::new(),
        stored => format!(" ({:.2} times smaller)", c.chunk_raw_bytes as f64 / stored as f64),
    };
    pairs([
        ("repository", c.url.clone()),
        ("snapshots", count(c.snapshots)),
        ("disks", format!("{} in all snapshots together", size(c.disk_bytes))),
        ("chunks", format!("{}, {}", count(c.chunks), size(c.chunk_raw_bytes))),
        ("stored", format!("{}{ratio}", size(c.chunk_stored_bytes))),
        ("packs", format!("{}, {}", count(c.packs), size(c.pack_bytes))),
        ("indexes", format!("{}, {}", count(c.indexes), size(c.index_bytes))),
        ("manifest nodes", count(c.nodes)),
    ])
}

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
    let head = pairs([
        ("host", s.host.to_string()),
        ("version", s.version.clone()),
        ("process", format!("{}, since {}", s.pid, time(&s.started_at))),
        ("mode", s.mode.clone()),
        ("state", s.state_dir.clone()),
        ("open jobs", count(s.jobs_open)),
    ]);
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
