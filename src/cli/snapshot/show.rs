//! What the snapshot concern replies, as text for people.

use wire::repo::{Chunker, RepoCounts, RepoInfo, StoreHonours};
use wire::snapshot::{
    ByteRange, DiffReport, DiskRestore, ExportReport, Forgotten, RestoreReport, SnapshotInfo, SnapshotKind,
    SnapshotListing, VerifyReport,
};

use crate::cli::table::{Table, one_line, pairs};
use crate::cli::units::{count, seconds, size, time};

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
