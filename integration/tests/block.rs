//! Block devices on the real binary: loop devices, which are real ones but for their medium.

#![expect(clippy::unwrap_used, reason = "test code")]

mod fixture;

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use fixture::{VM, fails, restore_args, show, small_stage, stop_in_the_middle, text};
use windlass_integration::process::{Signal, Windlass};
use windlass_integration::qemu::{LoopDevice, run};
use windlass_integration::{Random, disk};
use wire::Code;

fn create(windlass: &Windlass, device: &Path) -> serde_json::Value {
    windlass.run(&fixture::create_args(device)).unwrap().success().json()
}

/// Writes a file's bytes over a device.
fn write_over(device: &Path, from: &Path) {
    let target = std::fs::File::options().write(true).open(device).unwrap();
    target.write_all_at(&std::fs::read(from).unwrap(), 0).unwrap();
    target.sync_all().unwrap();
}

/// Asserts that a device holds a file's bytes, as the medium has them.
fn assert_holds(device: &Path, expected: &Path) {
    run("blockdev", "util-linux", &["--flushbufs", &show(device)]).unwrap();
    assert!(
        std::fs::read(device).unwrap() == std::fs::read(expected).unwrap(),
        "the device holds something else"
    );
}

#[test]
fn a_device_goes_there_and_back_and_gives_its_blocks_back() {
    let stage = small_stage("block");
    let (windlass, _) = stage.windlass("w");
    let file = stage.scratch.join("medium");
    stage.put(&stage.good, &file);
    let device = LoopDevice::attach(&file).unwrap();
    let made = create(&windlass, device.path());
    let id = text(&made, "id");
    assert_eq!(made["disks"][0]["format"], "block");
    assert_eq!(made["disks"][0]["size_bytes"], fixture::SMALL_DISK_BYTES);
    // a file's snapshot and a device's are the same state
    let (other, _) = stage.windlass("other");
    let of_file = other.run(&fixture::create_args(&stage.good)).unwrap().success().json();
    assert_eq!(
        of_file["disks"][0]["moved"]["chunks"],
        made["disks"][0]["moved"]["chunks"]
    );

    write_over(device.path(), &stage.bad);
    let full = stage.scratch.join("full");
    std::fs::write(&full, disk::random_bytes(&mut Random::new(5), 4 << 20)).unwrap();
    let holes = fixture::SMALL_DISK_BYTES - (6 << 20);
    let target = std::fs::File::options().write(true).open(device.path()).unwrap();
    target.write_all_at(&std::fs::read(&full).unwrap(), holes).unwrap();
    target.sync_all().unwrap();
    drop(target);
    let bad = stage.scratch.join("bad.now");
    std::fs::write(&bad, std::fs::read(device.path()).unwrap()).unwrap();
    let allocated = disk::allocated_bytes(&file).unwrap();
    let report = windlass
        .run(&restore_args(&id, device.path()))
        .unwrap()
        .success()
        .json();
    assert_holds(device.path(), &stage.good);
    assert!(
        report["disks"][0]["hole_bytes"].as_u64().unwrap() >= 4 << 20,
        "{report}"
    );
    let less = disk::allocated_bytes(&file).unwrap();
    assert!(
        less + (3 << 20) <= allocated,
        "{allocated} bytes allocated before, {less} after"
    );
    let undo = ["restore", "--json", "--yes", "--vm", VM, "--undo"];
    windlass.run(&undo).unwrap().success();
    assert_holds(device.path(), &bad);
}

#[test]
fn a_device_in_use_is_refused_and_says_by_whom() {
    let stage = small_stage("block-in-use");
    let (windlass, _) = stage.windlass("w");
    let file = stage.scratch.join("medium");
    stage.put(&stage.good, &file);
    let device = LoopDevice::attach(&file).unwrap();
    let id = text(&create(&windlass, device.path()), "id");
    let point = stage.scratch.dir("mnt").unwrap();
    run("mount", "mount", &["-o", "ro", &show(device.path()), &show(&point)]).unwrap();
    let refused =
        std::panic::catch_unwind(|| fails(windlass.run(&restore_args(&id, device.path())).unwrap(), Code::Conflict));
    run("umount", "mount", &[&show(&point)]).unwrap();
    let said = refused.unwrap();
    assert!(said.contains(&format!("mounted at {}", show(&point))), "{said}");

    let held = std::fs::File::options().write(true).open(device.path()).unwrap();
    let said = fails(windlass.run(&restore_args(&id, device.path())).unwrap(), Code::Conflict);
    assert!(said.contains(&format!("process {}", std::process::id())), "{said}");
    drop(held);
    windlass.run(&restore_args(&id, device.path())).unwrap().success();
}

#[test]
fn a_disk_made_and_changed_elsewhere_comes_back() {
    let stage = small_stage("block-elsewhere");
    let (windlass, _) = stage.windlass("w");
    let file = stage.scratch.join("elsewhere.raw");
    stage.put(&stage.good, &file);
    let point = stage.scratch.dir("mnt").unwrap();
    let change = |work: &dyn Fn()| {
        let device = LoopDevice::attach(&file).unwrap();
        run("mount", "mount", &[&show(device.path()), &show(&point)]).unwrap();
        work();
        run("umount", "mount", &[&show(&point)]).unwrap();
    };
    change(&|| std::fs::write(point.join("made-elsewhere"), vec![5; 300_000]).unwrap());
    let first = stage.scratch.join("first.raw");
    stage.put(&file, &first);
    let id = fixture::create(&windlass, &file);
    change(&|| {
        std::fs::remove_file(point.join("made-elsewhere")).unwrap();
        std::fs::rename(point.join("d0"), point.join("moved")).unwrap();
        std::fs::write(point.join("new"), vec![6; 2_000_000]).unwrap();
    });
    assert!(disk::first_difference(&first, &file).unwrap().is_some());
    fixture::try_restore(&windlass, &id, &file).success();
    disk::assert_same(&first, &file);
    disk::check_ext4(&file).unwrap();
}

#[test]
fn a_device_that_vanishes_is_told_and_the_same_command_goes_on_when_it_is_back() {
    let stage = small_stage("block-vanishes");
    let (windlass, _) = stage.windlass("w");
    let file = stage.scratch.join("medium");
    stage.put(&stage.good, &file);
    let device = LoopDevice::attach(&file).unwrap();
    let path = device.path().to_owned();
    let id = text(&create(&windlass, &path), "id");
    write_over(&path, &stage.bad);

    // in the middle of writing, the medium is taken away
    let running = windlass.spawn(&restore_args(&id, &path)).unwrap();
    let still_there = stop_in_the_middle(&running, &stage.scratch.join("w/state"));
    let as_it_was = std::fs::read(&file).unwrap();
    let medium = std::fs::File::options().write(true).open(&file).unwrap();
    medium.set_len(0).unwrap();
    device.follow_size().unwrap();
    running.signal(Signal::CONT).unwrap();
    let ended = running.wait(Duration::from_secs(60)).unwrap();
    assert!(still_there, "the restore was over before its device could go");
    let said = fails(ended, Code::Unavailable);
    assert!(said.contains(&show(&path)) && said.contains("unfinished"), "{said}");

    let said = fails(windlass.run(&restore_args(&id, &path)).unwrap(), Code::Unavailable);
    assert!(said.contains("no medium"), "{said}");
    drop(device);
    fails(windlass.run(&restore_args(&id, &path)).unwrap(), Code::Unavailable);

    medium.write_all_at(&as_it_was, 0).unwrap();
    let _device = LoopDevice::attach_at(&path, &file).unwrap();
    let again = windlass.run(&restore_args(&id, &path)).unwrap().success().json();
    assert_eq!(again["resumed"], true);
    assert_holds(&path, &stage.good);
}
