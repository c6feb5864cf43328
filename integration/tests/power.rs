//! Power loss at every recorded write of a short create and a short restore, on the real binary: a recording file system
//! keeps every write, rename and fsync; from it every tree is built that a power cut may leave (un-synced writes dropped,
//! kept, torn, reordered), and the same command is run again on it. `WINDLASS_POWER_POINTS` sets how many moments.

#![expect(clippy::print_stdout, reason = "how much was tried belongs to the report of a run")]

mod fixture;

use std::path::Path;

use fixture::power::{keep_identity, move_tree};
use fixture::{Stage, create, create_args, list, restore_args, verify};
use windlass_integration::power::{CrashStates, Log, Policy, Recording};
use windlass_integration::{disk, qemu};

const DISK_BYTES: u64 = 8 << 20;
const DATA_BYTES: u64 = 2 << 20;

fn policies(at: usize) -> [Policy; 4] {
    [
        Policy::Nothing,
        Policy::Everything,
        Policy::ReorderedLast,
        Policy::Random(at as u64),
    ]
}

fn points(log: &Log) -> Vec<usize> {
    let max = std::env::var("WINDLASS_POWER_POINTS")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(14);
    log.crash_points(max)
}

/// Runs `check` on the tree of every moment and policy, built at the very path that was recorded.
fn at_every_moment(stage: &Stage, initial: &Path, mount: &Path, log: &Log, mut check: impl FnMut(usize, Policy)) {
    let states = CrashStates::new(initial, log);
    let points = points(log);
    assert!(points.len() >= 10, "only {} moments were recorded", points.len());
    for &at in &points {
        for policy in policies(at) {
            let name = mount.file_name().expect("the mount is below the scratch directory");
            stage.scratch.fresh(name).expect("an empty directory");
            states.materialise(at, policy, mount).expect("the tree is built");
            keep_identity(mount);
            check(at, policy);
        }
    }
    println!(
        "{} recorded operations, {} moments, {} trees",
        log.ops.len(),
        points.len(),
        points.len() * 4
    );
}

#[test]
fn a_create_survives_power_loss_at_every_write() {
    let stage = Stage::new("power-create", 7, DISK_BYTES, DATA_BYTES);
    let (initial, mount, bytes) = (
        stage.scratch.dir("initial").unwrap(),
        stage.scratch.dir("mount").unwrap(),
        stage.scratch.dir("bytes").unwrap(),
    );
    stage.put(&stage.good, &initial.join("disk.raw"));
    let recording = Recording::mount(&initial, &mount, &bytes).unwrap();
    let (windlass, _) = fixture::windlass_at(&mount);
    let id = create(&windlass, &mount.join("disk.raw"));
    recording.mark("acknowledged");
    let log = recording.finish().unwrap();
    let acknowledged = log.mark("acknowledged").unwrap();
    at_every_moment(&stage, &initial, &mount, &log, |at, policy| {
        let told = format!("power lost after operation {at} of {}, {policy:?}", log.ops.len());
        let seen = list(&windlass);
        assert!(seen.iter().all(|s| s["id"] == id.as_str()), "{told}: {seen:?}");
        if at >= acknowledged {
            assert_eq!(seen.len(), 1, "{told}: the snapshot was acknowledged and is gone");
        }
        // what is listed is whole
        verify(&windlass);
        let again = windlass.run(&create_args(&mount.join("disk.raw"))).unwrap();
        assert!(again.code() == Some(0), "{told}: {again:?}");
        assert_eq!(list(&windlass).len(), seen.len() + 1, "{told}");
        if matches!(policy, Policy::Random(_)) {
            verify(&windlass);
        }
    });
}

#[test]
fn a_restore_survives_power_loss_at_every_write() {
    let stage = Stage::new("power-restore", 8, DISK_BYTES, DATA_BYTES);
    let (initial, mount, bytes) = (
        stage.scratch.dir("initial").unwrap(),
        stage.scratch.dir("mount").unwrap(),
        stage.scratch.dir("bytes").unwrap(),
    );
    // the snapshot is taken at the path that the recording will have
    let disk = mount.join("disk.raw");
    stage.put(&stage.good, &disk);
    let (windlass, _) = fixture::windlass_at(&mount);
    let good = create(&windlass, &disk);
    std::fs::write(&disk, std::fs::read(&stage.bad).unwrap()).unwrap();
    move_tree(&mount, &initial);
    let recording = Recording::mount(&initial, &mount, &bytes).unwrap();
    windlass.run(&restore_args(&good, &disk)).unwrap().success();
    recording.mark("acknowledged");
    let log = recording.finish().unwrap();
    let acknowledged = log.mark("acknowledged").unwrap();
    let mut round = 0;
    at_every_moment(&stage, &initial, &mount, &log, |at, policy| {
        let told = format!("power lost after operation {at} of {}, {policy:?}", log.ops.len());
        if at >= acknowledged {
            assert_eq!(
                disk::first_difference(&stage.good, &disk).unwrap(),
                None,
                "{told}: acknowledged and not there"
            );
        }
        let again = windlass.run(&restore_args(&good, &disk)).unwrap();
        assert!(again.code() == Some(0), "{told}: {again:?}");
        assert_eq!(
            disk::first_difference(&stage.good, &disk).unwrap(),
            None,
            "{told}: the same command did not finish it"
        );
        round += 1;
        if at < acknowledged && round % 3 == 0 {
            let undo = windlass
                .run(&["restore", "--json", "--yes", "--vm", fixture::VM, "--undo"])
                .unwrap();
            assert!(undo.code() == Some(0), "{told}: {undo:?}");
            assert_eq!(
                disk::first_difference(&stage.bad, &disk).unwrap(),
                None,
                "{told}: undo did not lead back"
            );
        }
    });
}

/// Into a qcow2 image over a compressed base. What QEMU says of the image is asked before the same command goes on.
#[test]
fn a_restore_into_qcow2_survives_power_loss_at_every_write() {
    let stage = Stage::new("power-qcow2", 9, DISK_BYTES, DATA_BYTES);
    let (initial, mount, bytes) = (
        stage.scratch.dir("initial").unwrap(),
        stage.scratch.dir("mount").unwrap(),
        stage.scratch.dir("bytes").unwrap(),
    );
    let (base, disk) = (mount.join("base.qcow2"), mount.join("disk.qcow2"));
    let (good, shown) = (fixture::show(&stage.good), fixture::show(&disk));
    qemu::img(&[
        "convert",
        "-c",
        "-f",
        "raw",
        "-O",
        "qcow2",
        &good,
        &fixture::show(&base),
    ])
    .unwrap();
    let over = [
        "create",
        "-q",
        "-f",
        "qcow2",
        "-F",
        "qcow2",
        "-b",
        "base.qcow2",
        "-o",
        "cluster_size=4k",
        &shown,
    ];
    qemu::img(&over).unwrap();
    let (windlass, _) = fixture::windlass_at(&mount);
    let mut first = create_args(&disk);
    first.extend(["--format".into(), "qcow2".into()]);
    let made = windlass.run(&first).unwrap().success().json();
    let id = fixture::text(&made, "id");
    let spoil = [
        "write -P 5 300k 700k",
        "write -P 6 3M 90k",
        "write -z 4M 300k",
        "write -P 7 6000k 10k",
    ];
    qemu::io_commands(&disk, "qcow2", &spoil).unwrap();
    let bad = stage.scratch.join("bad.flat");
    qemu::img(&["convert", "-f", "qcow2", "-O", "raw", &shown, &fixture::show(&bad)]).unwrap();
    move_tree(&mount, &initial);
    let recording = Recording::mount(&initial, &mount, &bytes).unwrap();
    windlass.run(&restore_args(&id, &disk)).unwrap().success();
    recording.mark("acknowledged");
    let log = recording.finish().unwrap();
    let acknowledged = log.mark("acknowledged").unwrap();
    let (mut round, mut leaks) = (0, 0);
    at_every_moment(&stage, &initial, &mount, &log, |at, policy| {
        let told = format!("power lost after operation {at} of {}, {policy:?}", log.ops.len());
        leaks += qemu::check(&disk).unwrap_or_else(|e| panic!("{told}: {e}"));
        if at >= acknowledged {
            qemu::assert_same(("qcow2", &disk), ("raw", &stage.good));
        }
        let again = windlass.run(&restore_args(&id, &disk)).unwrap();
        assert!(again.code() == Some(0), "{told}: {again:?}");
        qemu::check(&disk).unwrap_or_else(|e| panic!("{told}: {e}"));
        qemu::assert_same(("qcow2", &disk), ("raw", &stage.good));
        round += 1;
        if at < acknowledged && round % 5 == 0 {
            let undo = ["restore", "--json", "--yes", "--vm", fixture::VM, "--undo"];
            let undo = windlass.run(&undo).unwrap();
            assert!(undo.code() == Some(0), "{told}: {undo:?}");
            qemu::assert_same(("qcow2", &disk), ("raw", &bad));
        }
    });
    println!("{leaks} clusters leaked in all these trees, and no error");
}
