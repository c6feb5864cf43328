//! `kill -9` of a create and of a restore on a real S3 server, and two hosts that write while a third reads: as
//! `tests/kill.rs` has it for local files. `WINDLASS_SEED` replays, `WINDLASS_KILLS` sets how many (one for each eight).

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "test code; what was tried belongs to the report of a run"
)]

mod fixture;

use std::time::Duration;

use fixture::on_s3::{host as windlass, init, setting, timed};
use fixture::{Stage, create, create_args, list, restore_args, text, verify};
use windlass_integration::s3_server::{Account, Garage, Rclone};
use windlass_integration::{Random, disk};

#[test]
fn a_create_that_is_killed_leaves_nothing_half_visible() {
    let (seed, kills) = (setting("WINDLASS_SEED", 1), setting("WINDLASS_KILLS", 48) / 8);
    let stage = Stage::new("s3-kill-create", seed, 64 << 20, 20 << 20);
    let garage = Garage::start().unwrap();
    let first = windlass(&garage.account, &stage, "first", "first");
    init(&first);
    let whole = timed(|| drop(create(&first, &stage.good)));
    let mut random = Random::new(seed);
    let mut killed = 0;
    for round in 0..kills {
        let prefix = format!("round-{round}");
        let host = windlass(&garage.account, &stage, &prefix, &prefix);
        init(&host);
        let moment = Duration::from_micros(random.below(whole.as_micros() as u64));
        let ended = host
            .spawn(&create_args(&stage.good))
            .unwrap()
            .kill_after(moment)
            .unwrap();
        killed += u64::from(ended.was_killed());
        // seen from another machine: what the killed one left in its state doesn't count
        let reader = windlass(&garage.account, &stage, &format!("{prefix}-reader"), &prefix);
        let seen = list(&reader);
        assert!(seen.len() <= 1, "seed {seed}, round {round}: {seen:?}");
        if !ended.was_killed() {
            assert_eq!(seen.len(), 1, "seed {seed}, round {round}: acknowledged and not listed");
        }
        create(&host, &stage.good);
        assert_eq!(list(&reader).len(), seen.len() + 1);
        verify(&reader);
    }
    println!("seed {seed}: {killed} of {kills} creates were killed within {whole:?}");
    assert!(killed > 0, "no create was killed: the moments don't meet the work");
}

#[test]
fn a_restore_that_is_killed_goes_on_with_the_same_command() {
    let (seed, kills) = (setting("WINDLASS_SEED", 1), setting("WINDLASS_KILLS", 48) / 8);
    let stage = Stage::new("s3-kill-restore", seed, 64 << 20, 20 << 20);
    let garage = Garage::start().unwrap();
    let host = windlass(&garage.account, &stage, "w", "r");
    init(&host);
    let disk = stage.scratch.join("disk.raw");
    stage.put(&stage.good, &disk);
    let good = create(&host, &disk);
    let reset = || std::fs::write(&disk, std::fs::read(&stage.bad).unwrap()).unwrap();
    reset();
    let whole = timed(|| drop(host.run(&restore_args(&good, &disk)).unwrap().success()));
    disk::assert_same(&stage.good, &disk);
    let mut random = Random::new(seed ^ 0x53);
    let (mut killed, mut resumed) = (0, 0);
    for _ in 0..kills {
        reset();
        let moment = Duration::from_micros(random.below(whole.as_micros() as u64));
        let ended = host
            .spawn(&restore_args(&good, &disk))
            .unwrap()
            .kill_after(moment)
            .unwrap();
        killed += u64::from(ended.was_killed());
        let again = host.run(&restore_args(&good, &disk)).unwrap().success().json();
        resumed += u64::from(again["resumed"] == true);
        disk::assert_same(&stage.good, &disk);
    }
    println!("seed {seed}: {killed} of {kills} restores were killed within {whole:?}, {resumed} resumed");
    assert!(killed > 0, "no restore was killed");
    verify(&host);
}

#[test]
fn two_hosts_write_and_a_third_reads() {
    two_write_and_a_third_reads(&Garage::start().unwrap().account);
}

/// A server that checks no checksums, and renames objects into place.
#[test]
fn two_hosts_write_and_a_third_reads_on_rclone() {
    two_write_and_a_third_reads(&Rclone::start().unwrap().account);
}

fn two_write_and_a_third_reads(account: &Account) {
    let rounds = setting("WINDLASS_KILLS", 48) / 12;
    let stage = Stage::new("s3-hosts", 5, 32 << 20, 8 << 20);
    init(&windlass(account, &stage, "init", "r"));
    let writers: Vec<_> = (0..2)
        .map(|n| {
            let host =
                windlass(account, &stage, &format!("host-{n}"), "r").env("WINDLASS_HOST_ID", format!("host-{n}"));
            let disk = stage.scratch.join(format!("disk-{n}.raw"));
            let original = if n == 0 { &stage.good } else { &stage.bad }.clone();
            let scratch = stage.scratch.path().to_owned();
            std::thread::spawn(move || {
                let mut made = Vec::new();
                for round in 0..rounds {
                    // each time more of it is holes: now and then it begins anew
                    if round % 4 == 0 {
                        let _ = std::fs::remove_file(&disk);
                        disk::copy_sparse(&original, &disk).unwrap();
                    }
                    fixture::damage(&disk, n * 100_000 + round);
                    let id = create(&host, &disk);
                    let copy = scratch.join(format!("copy-{id}"));
                    disk::copy_sparse(&disk, &copy).unwrap();
                    made.push((id, copy));
                }
                made
            })
        })
        .collect();
    let reader = windlass(account, &stage, "reader", "r");
    let mut looks = 0;
    while looks < 2 || writers.iter().any(|w| !w.is_finished()) {
        // whatever is listed is whole
        verify(&reader);
        looks += 1;
    }
    let made: Vec<_> = writers.into_iter().flat_map(|w| w.join().unwrap()).collect();
    let seen: Vec<_> = list(&reader).iter().map(|s| text(s, "id")).collect();
    assert_eq!(seen.len(), made.len());
    for (id, copy) in made {
        assert!(seen.contains(&id), "{id} was acknowledged and is not listed");
        let out = stage.scratch.join("out.raw");
        let output = fixture::show(&out);
        reader
            .run(&["snapshot", "export", "--json", &id, "--output", &output])
            .unwrap()
            .success();
        disk::assert_same(&copy, &out);
        std::fs::remove_file(out).unwrap();
    }
    println!("{looks} looks by the reader meanwhile");
}
