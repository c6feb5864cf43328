//! `kill -9` at 50 random moments of a create and of a restore: nothing acknowledged is lost, nothing is half-visible, and
//! the same command finishes. `WINDLASS_SEED` replays, `WINDLASS_KILLS` sets how many.

#![expect(clippy::print_stdout, reason = "how much was tried belongs to the report of a run")]

mod fixture;

use std::time::Duration;

use fixture::{Stage, create, create_args, list, restore_args, verify};
use windlass_integration::{Random, disk};

const DISK_BYTES: u64 = 64 << 20;
const DATA_BYTES: u64 = 20 << 20;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// Runs the command once, whole, to know how long it takes; the moments are spread over that.
#[expect(clippy::disallowed_methods, reason = "a test chooses its moments by the wall clock")]
fn timed(work: impl FnOnce()) -> Duration {
    let began = std::time::Instant::now();
    work();
    began.elapsed()
}

/// How long the command is taken to last from now on: the machine's load changes, and a command that ended before its moment was
/// quicker than thought. Seven in ten are killed where this comes to rest.
fn followed(whole: Duration, was_killed: bool) -> Duration {
    match was_killed {
        true => whole * 51 / 50,
        false => whole * 19 / 20,
    }
}

#[test]
fn a_create_that_is_killed_leaves_nothing_half_visible() {
    let (seed, kills) = (setting("WINDLASS_SEED", 1), setting("WINDLASS_KILLS", 50));
    let stage = Stage::new("kill-create", seed, DISK_BYTES, DATA_BYTES);
    let (first, _) = stage.windlass("first");
    let mut whole = timed(|| drop(create(&first, &stage.good)));
    let mut random = Random::new(seed);
    let (mut killed, mut listed_after_kill) = (0, 0);
    for round in 0..kills {
        let dir = stage.scratch.fresh("round").unwrap();
        let (windlass, _) = fixture::windlass_at(&dir);
        let moment = Duration::from_micros(random.below(whole.as_micros() as u64 * 11 / 10));
        let ended = windlass
            .spawn(&create_args(&stage.good))
            .unwrap()
            .kill_after(moment)
            .unwrap();
        killed += u64::from(ended.was_killed());
        whole = followed(whole, ended.was_killed());
        let seen = list(&windlass);
        assert!(seen.len() <= 1, "seed {seed}, round {round}: {seen:?}");
        if !ended.was_killed() {
            assert_eq!(seen.len(), 1, "seed {seed}, round {round}: acknowledged and not listed");
        }
        listed_after_kill += u64::from(ended.was_killed() && !seen.is_empty());
        create(&windlass, &stage.good);
        assert_eq!(list(&windlass).len(), seen.len() + 1);
        verify(&windlass);
        if round % 10 == 0 {
            let out = stage.scratch.join(format!("out-{round}"));
            windlass
                .run(&[
                    "snapshot",
                    "export",
                    "--json",
                    "latest",
                    "--vm",
                    fixture::VM,
                    "--output",
                    &fixture::show(&out),
                ])
                .unwrap()
                .success();
            disk::assert_same(&stage.good, &out);
            std::fs::remove_file(out).unwrap();
        }
    }
    println!(
        "seed {seed}: {killed} of {kills} were killed within {whole:?}, {listed_after_kill} of them after publishing"
    );
    assert!(
        killed * 2 > kills,
        "only {killed} of {kills} were killed: the moments don't meet the work"
    );
}

#[test]
fn a_restore_that_is_killed_goes_on_with_the_same_command() {
    let (seed, kills) = (setting("WINDLASS_SEED", 1), setting("WINDLASS_KILLS", 50));
    let stage = Stage::new("kill-restore", seed, DISK_BYTES, DATA_BYTES);
    let (windlass, _) = stage.windlass("windlass");
    let disk = stage.scratch.join("disk.raw");
    stage.put(&stage.good, &disk);
    let good = create(&windlass, &disk);
    // in place, so that the inode stays
    let reset = |to: &std::path::Path| std::fs::write(&disk, std::fs::read(to).unwrap()).unwrap();
    reset(&stage.bad);
    let mut whole = timed(|| drop(windlass.run(&restore_args(&good, &disk)).unwrap().success()));
    disk::assert_same(&stage.good, &disk);
    let mut random = Random::new(seed ^ 0x5E);
    let (mut killed, mut resumed, mut undone) = (0, 0, 0);
    for _ in 0..kills {
        reset(&stage.bad);
        let moment = Duration::from_micros(random.below(whole.as_micros() as u64 * 11 / 10));
        let ended = windlass
            .spawn(&restore_args(&good, &disk))
            .unwrap()
            .kill_after(moment)
            .unwrap();
        killed += u64::from(ended.was_killed());
        whole = followed(whole, ended.was_killed());
        let unfinished = std::fs::read_dir(stage.scratch.join("windlass/state/restores"))
            .map(|dir| {
                dir.filter(|e| {
                    e.as_ref()
                        .is_ok_and(|e| e.path().extension().is_some_and(|x| x == "json"))
                })
                .count()
            })
            .unwrap_or(0);
        if unfinished > 0 && random.one_in(3) {
            // the other way out: back to what was before
            windlass
                .run(&["restore", "--json", "--yes", "--vm", fixture::VM, "--undo"])
                .unwrap()
                .success();
            disk::assert_same(&stage.bad, &disk);
            undone += 1;
        }
        let again = windlass.run(&restore_args(&good, &disk)).unwrap().success().json();
        resumed += u64::from(again["resumed"] == true);
        disk::assert_same(&stage.good, &disk);
    }
    println!(
        "seed {seed}: {killed} of {kills} were killed within {whole:?}; {resumed} resumed, {undone} undone unfinished"
    );
    assert!(killed * 2 > kills, "only {killed} of {kills} were killed");
    assert!(
        resumed + undone > 0,
        "no kill met the writing: raise WINDLASS_KILLS or the disk's size"
    );
    verify(&windlass);
}
