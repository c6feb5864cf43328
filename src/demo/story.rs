//! What the demo tells, step by step.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Child;
use std::time::Duration;

use serde::de::DeserializeOwned;
use wire::job::JobListing;
use wire::snapshot::{ExportReport, Moved, RestoreReport, SnapshotInfo, VerifyReport};
use wire::{Code, ErrorBody};

use super::stage::{Stage, internal, now, say};
use super::table::{self, Row, bytes};
use super::{Args, compare, damage, disk};

const DISK: &str = "web1.raw";
const ORIGINAL: &str = "kept-original.raw";
const DAMAGED: &str = "kept-damaged.raw";
const WHOLE: &str = "whole.raw";

/// How long a restore may go on after its first write before it is killed; shorter with each try that came too late.
const KILL_AFTER_MS: [u64; 5] = [60, 25, 8, 2, 0];

/// Tells the whole story.
pub(crate) fn tell(stage: &Stage, args: &Args) -> Result<(), ErrorBody> {
    say("windlass demo. Each command below is what you would type yourself, after");
    say(&format!("$ cd {}", stage.dir().display()));
    say(&format!("$ {}", stage.exports()));
    let mut rows = Vec::new();

    heading("1. A real disk goes into the store");
    let files = disk::build(stage, DISK, args.size_gib)?;
    stage.show(&format!("cp --sparse=always {DISK} {ORIGINAL}"))?;
    stage.show("windlass repo init")?;
    let good = create(stage, &mut rows, "first snapshot")?;

    heading("2. Something goes wrong with it");
    damage::inflict(stage, DISK, &files)?;
    stage.show(&format!("cp --sparse=always {DISK} {DAMAGED}"))?;
    create(stage, &mut rows, "snapshot of the damage")?;

    heading("3. Back to the first snapshot, by the difference alone");
    let to = format!("--vm web1 --to {} --disk {DISK}", good.id);
    let (plan, took): (RestoreReport, _) = verb(stage, &format!("windlass restore {to} --plan"))?;
    rows.push(restore_row("restore --plan", &plan, took, None));
    unchanged(stage, "the plan")?;

    let command = format!("windlass restore {to} --yes");
    rows.push(kill_midway(stage, &command)?);
    say("\nThe same command again goes on from there:");
    let (report, took): (RestoreReport, _) = verb(stage, &command)?;
    if !report.resumed {
        return Err(ErrorBody::new(
            Code::Internal,
            "the restore began afresh where it had to go on with the interrupted one",
        ));
    }
    compare::same(stage, "the restore that was killed and run again", DISK, ORIGINAL)?;
    rows.push(restore_row(
        "restore, run again",
        &report,
        took,
        common(stage, &report)?,
    ));

    heading("4. And back again: a restore can be undone");
    let (report, took): (RestoreReport, _) = verb(stage, "windlass restore --vm web1 --undo --yes")?;
    compare::same(stage, "the undo", DISK, DAMAGED)?;
    rows.push(restore_row("restore --undo", &report, took, common(stage, &report)?));

    heading("5. The repository checked, and a full restore for comparison");
    let (_, took): (VerifyReport, _) = verb(stage, "windlass snapshot verify")?;
    rows.push(Row {
        step: "snapshot verify".into(),
        took,
        ..Row::default()
    });
    let line = format!(
        "windlass restore --vm web1 --to {} --disk web1 --output {WHOLE}",
        good.id
    );
    let (whole, took): (ExportReport, _) = verb(stage, &line)?;
    compare::same(stage, "the full restore", WHOLE, ORIGINAL)?;
    rows.push(Row {
        step: "full restore to a new file".into(),
        on_disk: Some(disk::allocated(&stage.path(WHOLE))?),
        fetched: Some(whole.fetched_bytes),
        written: Some(whole.written_bytes),
        took,
        ..Row::default()
    });

    heading("What each step moved");
    say(&table::render(&rows));
    say(
        "Read and stored of a restore are those of its common snapshot: the state that it replaced, kept as the way back.",
    );
    next_commands(args);
    Ok(())
}

fn heading(text: &str) {
    say(&format!("\n== {text} =="));
}

fn next_commands(args: &Args) {
    say("\nThree commands to try next:");
    if args.keep {
        say("  windlass snapshot ls                          # in this demo's repository, after the export above");
    } else {
        say("  windlass demo --keep                          # leaves its directory for a look");
    }
    say("  windlass snapshot create --vm VM --disk DISK  # a raw disk of yours, into your own repository");
    say("  windlass config show --origin                 # where that repository is, and why");
}

/// Runs a verb as a person would, then takes its result from the job that it left.
fn verb<R: DeserializeOwned>(stage: &Stage, line: &str) -> Result<(R, Duration), ErrorBody> {
    let took = stage.show(line)?.took;
    let listed = stage.quiet("windlass jobs ls --json")?.stdout;
    let listing: JobListing =
        serde_json::from_str(&listed).map_err(|e| internal("read 'windlass jobs ls --json'", e))?;
    let job = listing.jobs.into_iter().max_by(|a, b| a.id.cmp(&b.id));
    let result = job.and_then(|j| j.result).unwrap_or_default();
    let result = serde_json::from_value(result).map_err(|e| internal(&format!("read the result of '{line}'"), e))?;
    Ok((result, took))
}

fn create(stage: &Stage, rows: &mut Vec<Row>, step: &str) -> Result<SnapshotInfo, ErrorBody> {
    let (info, took): (SnapshotInfo, _) = verb(stage, &format!("windlass snapshot create --vm web1 --disk {DISK}"))?;
    let moved = moved(&info);
    rows.push(Row {
        step: step.into(),
        on_disk: Some(moved.allocated_bytes),
        read: Some(moved.read_bytes),
        stored: Some(moved.stored_bytes),
        took,
        ..Row::default()
    });
    Ok(info)
}

fn moved(info: &SnapshotInfo) -> Moved {
    info.disks.iter().fold(Moved::default(), |sum, d| sum.plus(d.moved))
}

/// What taking a restore's common snapshot moved.
fn common(stage: &Stage, report: &RestoreReport) -> Result<Option<Moved>, ErrorBody> {
    let Some(id) = &report.common else {
        return Ok(None);
    };
    let shown = stage.quiet(&format!("windlass snapshot show {id} --json"))?.stdout;
    let info: SnapshotInfo =
        serde_json::from_str(&shown).map_err(|e| internal("read 'windlass snapshot show --json'", e))?;
    Ok(Some(moved(&info)))
}

fn restore_row(step: &str, report: &RestoreReport, took: Duration, common: Option<Moved>) -> Row {
    let sum = |field: fn(&wire::snapshot::DiskRestore) -> u64| Some(report.disks.iter().map(field).sum());
    Row {
        step: step.into(),
        on_disk: common.map(|m| m.allocated_bytes),
        read: common.map(|m| m.read_bytes),
        stored: common.map(|m| m.stored_bytes),
        copied: sum(|d| d.copied_bytes),
        fetched: sum(|d| d.fetched_bytes),
        written: sum(|d| d.written_bytes),
        took,
    }
}

fn unchanged(stage: &Stage, what: &str) -> Result<(), ErrorBody> {
    match compare::first_difference(stage, &stage.path(DISK), &stage.path(DAMAGED))? {
        None => Ok(()),
        Some(at) => Err(ErrorBody::new(
            Code::Corrupt,
            format!("{what} changed the disk at byte {at}; it must change nothing"),
        )),
    }
}

/// Starts the restore and kills it with SIGKILL once it has begun to write. Where the machine is quicker than the kill,
/// the damage is put back and the kill comes sooner.
fn kill_midway(stage: &Stage, command: &str) -> Result<Row, ErrorBody> {
    for (attempt, after_ms) in KILL_AFTER_MS.into_iter().enumerate() {
        let before = write_mark(stage)?;
        let started = now();
        let mut child = stage.start(command)?;
        let pid = child.id();
        let killed = kill_after_first_write(stage, &mut child, &before, Duration::from_millis(after_ms))?;
        let took = started.elapsed();
        let found = compare::halfway(stage, &stage.path(DISK), &stage.path(DAMAGED), &stage.path(ORIGINAL))?;
        if killed && found.back_bytes < found.differing_bytes {
            say(&format!("\n$ kill -9 {pid}"));
            say(&format!(
                "  killed while it wrote: of {} that differ, {} are back, {} are torn",
                bytes(found.differing_bytes),
                bytes(found.back_bytes),
                bytes(found.torn_bytes)
            ));
            return Ok(Row {
                step: "restore, killed by -9".into(),
                written: Some(found.back_bytes + found.torn_bytes),
                took,
                ..Row::default()
            });
        }
        say(&format!(
            "  the restore was done before kill -9 could reach it (try {} of {}); the damage is put back, and the kill comes sooner",
            attempt + 1,
            KILL_AFTER_MS.len()
        ));
        if killed {
            // all bytes were back, but the command did not end: let it, so that the next try begins afresh
            stage.show(command)?;
        }
        stage.show(&format!("cp --sparse=always {DAMAGED} {DISK}"))?;
    }
    Err(ErrorBody::new(
        Code::Internal,
        "no kill came in time: on this machine the restore is too quick for the demo's disk; nothing was shown of an interrupted one",
    )
    .hint("windlass demo --size-gib 8"))
}

/// What changes on the disk's file with the first write.
fn write_mark(stage: &Stage) -> Result<(i64, i64, u64), ErrorBody> {
    let meta = std::fs::metadata(stage.path(DISK)).map_err(|e| internal("look at the disk", e))?;
    Ok((meta.mtime(), meta.mtime_nsec(), meta.blocks()))
}

/// True when SIGKILL ended the process; false when it had ended by itself, which must then have been in good order.
fn kill_after_first_write(
    stage: &Stage,
    child: &mut Child,
    before: &(i64, i64, u64),
    after: Duration,
) -> Result<bool, ErrorBody> {
    let mut first_write = None;
    loop {
        if stage.interrupted() {
            stage.wait(child)?;
        }
        stage.check()?;
        if let Some(status) = child.try_wait().map_err(|e| internal("wait for the restore", e))? {
            if status.success() {
                return Ok(false);
            }
            return Err(ErrorBody::new(
                Code::Internal,
                format!("the restore failed before anyone killed it: {status}"),
            ));
        }
        if first_write.is_none() && write_mark(stage)? != *before {
            first_write = Some(now());
        }
        if first_write.is_some_and(|at| at.elapsed() >= after) {
            child.kill().map_err(|e| internal("kill the restore", e))?;
            let status = stage.wait(child)?;
            return Ok(status.signal() == Some(9));
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}
