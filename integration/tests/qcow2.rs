//! qcow2 on the real binary, against QEMU's own tools: there and back, chains, bitmaps, formats, locks, faults, `kill -9`.
#![expect(clippy::print_stdout, reason = "how much was tried belongs to the report of a run")]
#![allow(clippy::unwrap_used, reason = "test code")]

mod fixture;

use std::path::Path;
use std::time::Duration;

use fixture::images::{args, chain, create_as, flat, restore, spoil, undo};
use fixture::{VM, fails, restore_args, show, small_stage, stop_in_the_middle, text};
use windlass_integration::process::Signal;
use windlass_integration::qemu::{self, PausedVm};
use windlass_integration::{Random, disk};
use wire::Code;

#[test]
fn a_chain_with_compressed_clusters_goes_there_and_back() {
    for (number, (base_options, top_options)) in [
        ("", ""),
        ("cluster_size=4k", "cluster_size=512,refcount_bits=1"),
        (
            "compression_type=zstd,cluster_size=256k",
            "cluster_size=2M,refcount_bits=64,lazy_refcounts=on",
        ),
        ("compat=0.10", "compat=0.10"),
    ]
    .into_iter()
    .enumerate()
    {
        let told = format!("base {base_options:?}, top {top_options:?}");
        println!("{told}");
        let c = chain("qcow2-chain", base_options, top_options);
        let (good, bad) = (c.stage.scratch.join("good.flat"), c.stage.scratch.join("bad.flat"));
        flat(&c.top, &good);
        let base_before = std::fs::read(&c.base).unwrap();
        // the header names a backing image, so it isn't believed by itself
        let said = fails(create_as(&c.windlass, &c.top, &[]), Code::Invalid);
        assert!(said.contains("backing image"), "{said}");
        let made = create_as(&c.windlass, &c.top, &["--format", "qcow2"]).success().json();
        let id = text(&made, "id");
        assert_eq!(made["disks"][0]["format"], "qcow2", "{told}");
        assert_eq!(made["disks"][0]["size_bytes"], fixture::SMALL_DISK_BYTES);
        let out = c.stage.scratch.join("out.raw");
        c.windlass
            .run(&[
                "snapshot",
                "export",
                "--json",
                "latest",
                "--vm",
                VM,
                "--output",
                &show(&out),
            ])
            .unwrap()
            .success();
        disk::assert_same(&good, &out);

        spoil(&c.top, number as u64);
        flat(&c.top, &bad);
        assert!(disk::first_difference(&good, &bad).unwrap().is_some());
        let mut plan_args = restore_args(&id, &c.top);
        plan_args.push("--plan".into());
        let plan = c.windlass.run(&plan_args).unwrap().success().json();
        qemu::assert_same(("qcow2", &c.top), ("raw", &bad));
        let report = restore(&c.windlass, &id, &c.top);
        assert_eq!(
            plan["disks"][0]["differing_bytes"], report["disks"][0]["differing_bytes"],
            "{told}"
        );
        assert_eq!(qemu::check(&c.top).unwrap(), 0, "{told}: leaks");
        qemu::assert_same(("qcow2", &c.top), ("raw", &good));
        undo(&c.windlass);
        assert_eq!(qemu::check(&c.top).unwrap(), 0, "{told}: leaks after undo");
        qemu::assert_same(("qcow2", &c.top), ("raw", &bad));
        // it was recorded as qcow2, so now nobody need say so
        let again = create_as(&c.windlass, &c.top, &[]).success().json();
        assert_eq!(again["disks"][0]["format"], "qcow2");
        assert_eq!(
            base_before,
            std::fs::read(&c.base).unwrap(),
            "{told}: the backing image was written"
        );
    }
}

#[test]
fn a_restore_exports_to_qcow2_too() {
    let stage = small_stage("qcow2-export");
    let (windlass, _) = stage.windlass("w");
    fixture::create(&windlass, &stage.good);
    let (a, b) = (stage.scratch.join("a.qcow2"), stage.scratch.join("b.qcow2"));
    let export = [
        "snapshot",
        "export",
        "--json",
        "latest",
        "--vm",
        VM,
        "--format",
        "qcow2",
        "--output",
        &show(&a),
    ];
    windlass.run(&export).unwrap().success();
    let restore = [
        "restore",
        "--json",
        "--vm",
        VM,
        "--to",
        "latest",
        "--format",
        "qcow2",
        "--output",
        &show(&b),
    ];
    windlass.run(&restore).unwrap().success();
    for image in [&a, &b] {
        assert_eq!(qemu::check(image).unwrap(), 0);
        qemu::assert_same(("qcow2", image), ("raw", &stage.good));
        let holes = disk::allocated_bytes(image).unwrap();
        assert!(holes < fixture::SMALL_DISK_BYTES * 2 / 3, "{holes} bytes are allocated");
    }
}

#[test]
fn bitmaps_are_inconsistent_after_a_restore_and_not_after_a_look() {
    let c = chain("qcow2-bitmaps", "", "");
    qemu::img(&["bitmap", "--add", &show(&c.top), "backup0"]).unwrap();
    qemu::img(&["bitmap", "--add", "--disable", &show(&c.top), "backup1"]).unwrap();
    let id = text(
        &create_as(&c.windlass, &c.top, &["--format", "qcow2"]).success().json(),
        "id",
    );
    let flags = || -> Vec<String> {
        let info = qemu::img(&["info", "--output=json", &show(&c.top)]).unwrap();
        let info: serde_json::Value = serde_json::from_str(&info).unwrap();
        let bitmaps = info["format-specific"]["data"]["bitmaps"].as_array().unwrap().clone();
        bitmaps.iter().map(|b| b["flags"].to_string()).collect()
    };
    assert!(flags().iter().all(|f| !f.contains("in-use")), "{:?}", flags());
    // nothing differs, so nothing is written
    restore(&c.windlass, &id, &c.top);
    assert!(flags().iter().all(|f| !f.contains("in-use")), "{:?}", flags());
    // the guest writes past QEMU's bitmaps here; what matters is what we do to them
    spoil(&c.top, 5);
    restore(&c.windlass, &id, &c.top);
    assert_eq!(flags().len(), 2);
    assert!(flags().iter().all(|f| f.contains("in-use")), "{:?}", flags());
    assert_eq!(qemu::check(&c.top).unwrap(), 0);
}

#[test]
fn what_is_not_supported_or_damaged_is_refused_and_named() {
    let c = chain("qcow2-refused", "", "");
    let s = &c.stage.scratch;
    let refused = |image: &Path, code: Code| fails(create_as(&c.windlass, image, &["--format", "qcow2"]), code);
    let copy = |name: &str| {
        let to = s.join(name);
        std::fs::copy(&c.top, &to).unwrap();
        to
    };
    let snapshots = copy("snapshots.qcow2");
    qemu::img(&["snapshot", "-c", "before-upgrade", &show(&snapshots)]).unwrap();
    assert!(refused(&snapshots, Code::Invalid).contains("before-upgrade"));

    let looped = copy("looped.qcow2");
    qemu::img(&["rebase", "-u", "-F", "qcow2", "-b", &show(&looped), &show(&looped)]).unwrap();
    assert!(refused(&looped, Code::Corrupt).contains("loop"));

    let orphan = copy("orphan.qcow2");
    let away = show(&s.join("away.qcow2"));
    qemu::img(&["rebase", "-u", "-F", "qcow2", "-b", &away, &show(&orphan)]).unwrap();
    assert!(refused(&orphan, Code::NotFound).contains("away.qcow2"));

    let foreign = copy("foreign.qcow2");
    qemu::img(&[
        "rebase",
        "-u",
        "-F",
        "raw",
        "-b",
        "nbd://127.0.0.1:1/x",
        &show(&foreign),
    ])
    .unwrap();
    assert!(refused(&foreign, Code::Invalid).contains("nbd://"));

    let truncated = copy("truncated.qcow2");
    let len = std::fs::metadata(&truncated).unwrap().len();
    for part in [len / 2, len / 8, 100_000, 300, 20] {
        std::fs::File::options()
            .write(true)
            .open(&truncated)
            .unwrap()
            .set_len(part)
            .unwrap();
        let said = fails(
            create_as(&c.windlass, &truncated, &["--format", "qcow2"]),
            Code::Corrupt,
        );
        assert!(said.contains("truncated.qcow2"), "{said}");
    }
    let absurd = copy("absurd.qcow2");
    disk::overwrite(&absurd, 24, &u64::MAX.to_be_bytes()).unwrap();
    assert!(refused(&absurd, Code::Corrupt).contains("L1 table"));

    fails(
        create_as(&c.windlass, &c.stage.good, &["--format", "qcow2"]),
        Code::Invalid,
    );
    fails(
        create_as(&c.windlass, &c.stage.good, &["--format", "vmdk"]),
        Code::Invalid,
    );
    assert!(fixture::list(&c.windlass).is_empty());
}

/// A guest writes a qcow2 header into its raw disk that names a file of the host.
#[test]
fn a_header_that_a_guest_wrote_reads_no_file_of_the_host() {
    let stage = small_stage("qcow2-trap");
    let (windlass, _) = stage.windlass("w");
    let secret = stage.scratch.join("secret");
    std::fs::write(&secret, vec![b's'; 1 << 20]).unwrap();
    let (disk, image) = (stage.scratch.join("disk.raw"), stage.scratch.join("image"));
    qemu::img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-F",
        "raw",
        "-b",
        &show(&secret),
        &show(&image),
    ])
    .unwrap();
    stage.put(&stage.good, &disk);
    let id = fixture::create(&windlass, &disk);
    disk::overwrite(&disk, 0, &std::fs::read(&image).unwrap()).unwrap();
    let said = fails(create_as(&windlass, &disk, &[]), Code::Invalid);
    assert!(said.contains("raw when it was recorded"), "{said}");
    // the same for a disk that nobody recorded, and for a restore
    let other = stage.scratch.join("other.raw");
    stage.put(&disk, &other);
    fails(create_as(&windlass, &other, &[]), Code::Invalid);
    fails(windlass.run(&restore_args(&id, &disk)).unwrap(), Code::Invalid);
    // said to be raw, it is its own bytes and nothing else
    let made = create_as(&windlass, &disk, &["--format", "raw"]).success().json();
    assert_eq!(made["disks"][0]["size_bytes"], fixture::SMALL_DISK_BYTES);
    let mut as_raw = restore_args(&id, &disk);
    as_raw.extend(args(&["--format", "raw"]));
    windlass.run(&as_raw).unwrap().success();
    disk::assert_same(&stage.good, &disk);
}

#[test]
fn a_disk_that_a_vm_holds_is_refused_and_a_vm_keeps_off_ours() {
    let c = chain("qcow2-locks", "", "");
    let raw = c.stage.scratch.join("disk.raw");
    c.stage.put(&c.stage.good, &raw);
    for (format, image) in [("qcow2", &c.top), ("raw", &raw)] {
        let (windlass, _) = c.stage.windlass(format);
        let as_it_is: &[&str] = &["--format", format];
        let id = text(&create_as(&windlass, image, as_it_is).success().json(), "id");
        let vm = PausedVm::start(image, format).unwrap();
        let named = format!("process {} (qemu-system-x86", vm.id());
        let said = fails(create_as(&windlass, image, as_it_is), Code::Conflict);
        assert!(said.contains(&named), "{said}");
        let said = fails(windlass.run(&restore_args(&id, image)).unwrap(), Code::Conflict);
        assert!(said.contains(&named), "{said}");
        // it is paused, so that nothing changes
        let live = create_as(&windlass, image, &["--format", format, "--crash-consistent"])
            .success()
            .json();
        assert_eq!(live["disks"][0]["format"], format);
        drop(vm);
        create_as(&windlass, image, as_it_is).success();

        // the other way round: stopped in the middle of writing
        match format {
            "qcow2" => spoil(image, 11),
            _ => fixture::damage(image, 11),
        }
        let running = windlass.spawn(&restore_args(&id, image)).unwrap();
        let still_there = stop_in_the_middle(&running, &c.stage.scratch.join(format!("{format}/state")));
        let error = PausedVm::start(image, format).map(drop).err().map(|e| e.to_string());
        running.signal(Signal::CONT).unwrap();
        running.wait(Duration::from_secs(60)).unwrap().success();
        assert!(still_there, "the restore was over before it could be stopped");
        let error = error.expect("QEMU started on a disk that is being written");
        assert!(error.contains("lock"), "{error}");
        drop(PausedVm::start(image, format).unwrap());
    }
}

#[test]
fn a_restore_into_qcow2_that_is_killed_goes_on_with_the_same_command() {
    let setting = |name: &str, default: u64| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let (seed, kills) = (setting("WINDLASS_SEED", 1), setting("WINDLASS_KILLS", 24).div_ceil(2));
    let c = chain("qcow2-kill", "", "cluster_size=16k");
    let good = c.stage.scratch.join("good.flat");
    flat(&c.top, &good);
    let id = text(
        &create_as(&c.windlass, &c.top, &["--format", "qcow2"]).success().json(),
        "id",
    );
    let (mut random, mut killed, mut resumed, mut leaks) = (Random::new(seed), 0, 0, 0);
    for round in 0..kills {
        spoil(&c.top, seed + round);
        let running = c.windlass.spawn(&restore_args(&id, &c.top)).unwrap();
        let ended = running
            .kill_after(Duration::from_micros(random.below(250_000)))
            .unwrap();
        killed += u64::from(ended.was_killed());
        leaks += qemu::check(&c.top).unwrap_or_else(|e| panic!("seed {seed}, round {round}: {e}"));
        let again = restore(&c.windlass, &id, &c.top);
        resumed += u64::from(again["resumed"] == true);
        qemu::check(&c.top).unwrap();
        qemu::assert_same(("qcow2", &c.top), ("raw", &good));
    }
    println!("seed {seed}: {killed} of {kills} killed, {resumed} resumed, {leaks} clusters leaked meanwhile");
    assert!(killed > 0, "no kill met the work");
}
