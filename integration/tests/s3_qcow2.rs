//! A qcow2 image with a compressed base, its repository on a real S3 server: there, back after `kill -9`, undone, and read by a
//! machine that has the URL and the keys alone. QEMU's tools are the judge. `WINDLASS_SEED` replays, `WINDLASS_KILLS` sets how
//! many kills (one for each eight).

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "test code; what was tried belongs to the report of a run"
)]

mod fixture;

use std::time::Duration;

use fixture::images::{chain, create_as, flat, restore, spoil, undo};
use fixture::on_s3::{host, init, setting};
use fixture::{restore_args, show, text, verify};
use windlass_integration::s3_server::Garage;
use windlass_integration::{Random, disk, qemu};

#[test]
fn a_qcow2_disk_on_s3_survives_kills_and_goes_back() {
    let (seed, kills) = (setting("WINDLASS_SEED", 1), (setting("WINDLASS_KILLS", 48) / 8).max(1));
    let c = chain("s3-qcow2", "compression_type=zstd", "cluster_size=16k");
    let garage = Garage::start().unwrap();
    let here = host(&garage.account, &c.stage, "here", "images");
    init(&here);
    let (good, bad) = (c.stage.scratch.join("good.flat"), c.stage.scratch.join("bad.flat"));
    flat(&c.top, &good);
    let base = std::fs::read(&c.base).unwrap();
    let id = text(&create_as(&here, &c.top, &["--format", "qcow2"]).success().json(), "id");
    let (mut random, mut killed, mut resumed, mut leaks) = (Random::new(seed ^ 0x53), 0, 0, 0);
    for round in 0..kills {
        spoil(&c.top, seed + round);
        flat(&c.top, &bad);
        let told = format!("seed {seed}, round {round}");
        let running = here.spawn(&restore_args(&id, &c.top)).unwrap();
        let ended = running
            .kill_after(Duration::from_micros(random.below(400_000)))
            .unwrap();
        killed += u64::from(ended.was_killed());
        leaks += qemu::check(&c.top).unwrap_or_else(|e| panic!("{told}: {e}"));
        let again = restore(&here, &id, &c.top);
        resumed += u64::from(again["resumed"] == true);
        qemu::check(&c.top).unwrap_or_else(|e| panic!("{told}: {e}"));
        qemu::assert_same(("qcow2", &c.top), ("raw", &good));
        if ended.was_killed() {
            undo(&here);
            qemu::check(&c.top).unwrap_or_else(|e| panic!("{told}, undone: {e}"));
            qemu::assert_same(("qcow2", &c.top), ("raw", &bad));
        }
    }
    println!("seed {seed}: {killed} of {kills} killed, {resumed} resumed, {leaks} clusters leaked meanwhile");
    assert!(killed > 0, "no kill met the work");
    assert!(std::fs::read(&c.base).unwrap() == base, "the backing image was changed");
    restore(&here, &id, &c.top);

    let there = host(&garage.account, &c.stage, "there", "images");
    for (name, format) in [("out.raw", "raw"), ("out.qcow2", "qcow2")] {
        let out = c.stage.scratch.join(name);
        let output = show(&out);
        let export = [
            "snapshot", "export", "--json", &id, "--format", format, "--output", &output,
        ];
        there.run(&export).unwrap().success();
        match format {
            "raw" => disk::assert_same(&good, &out),
            _ => {
                assert_eq!(qemu::check(&out).unwrap(), 0);
                qemu::assert_same(("qcow2", &out), ("raw", &good));
            }
        }
    }
    verify(&there);
}
