//! `--crash-consistent` while a VM holds the disk and something writes to it all the time: on XFS and btrfs the snapshot is one
//! moment of the disk, by a clone that leaves nothing behind; where the file system makes no clones, the change is noticed and
//! nothing is recorded.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "test code; what was tried belongs to the report of a run"
)]

mod fixture;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use fixture::images::create_as;
use fixture::{Stage, fails, list, show, text, verify};
use windlass_integration::disk;
use windlass_integration::limits::Mounted;
use windlass_integration::process::Windlass;
use windlass_integration::qemu::{PausedVm, run};
use wire::Code;

/// Two places of the disk, far apart: a number is written to the first, then to the second, over and over. At any one moment the
/// first is as large as the second, or one ahead.
const PLACES: [u64; 2] = [1 << 20, 30 << 20];

struct Writer {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    fn start(disk: &Path) -> Self {
        let file = File::options().write(true).open(disk).unwrap();
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, done) = (stop.clone(), rounds.clone());
        let thread = std::thread::spawn(move || {
            for number in 1u64.. {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                for place in PLACES {
                    file.write_all_at(&number.to_le_bytes(), place).unwrap();
                }
                done.store(number, Ordering::SeqCst);
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        Self {
            stop,
            rounds,
            thread: Some(thread),
        }
    }

    fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::SeqCst)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.thread.take().unwrap().join();
    }
}

/// A disk on a file system of its own.
fn placed(stage: &Stage, kind: &str, package: &str, options: &[&str]) -> (Mounted, PathBuf) {
    let image = stage.scratch.join(kind);
    disk::sparse(&image, 400 << 20).unwrap();
    let shown = show(&image);
    run(&format!("mkfs.{kind}"), package, &[options, &[&shown]].concat()).unwrap();
    let mounted = Mounted::image(&image, &stage.scratch.join(format!("{kind}-mnt"))).unwrap();
    let disk = mounted.path().join("disk.raw");
    disk::copy_sparse(&stage.good, &disk).unwrap();
    File::open(&disk).unwrap().sync_all().unwrap();
    (mounted, disk)
}

fn numbers(image: &Path) -> [u64; 2] {
    let file = File::open(image).unwrap();
    PLACES.map(|place| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, place).unwrap();
        u64::from_le_bytes(bytes)
    })
}

fn export(windlass: &Windlass, stage: &Stage, id: &str) -> PathBuf {
    let out = stage.scratch.join(format!("{id}.raw"));
    let output = show(&out);
    let arguments = ["snapshot", "export", "--json", id, "--output", &output];
    windlass.run(&arguments).unwrap().success();
    out
}

#[test]
fn where_the_file_system_makes_clones_a_snapshot_is_one_moment() {
    for (kind, package, options) in [
        ("xfs", "xfsprogs", ["-q", "-f"]),
        ("btrfs", "btrfs-progs", ["-q", "-f"]),
    ] {
        let stage = fixture::small_stage(&format!("crash-consistent-{kind}"));
        let (windlass, _) = stage.windlass("w");
        let (mounted, disk) = placed(&stage, kind, package, &options);
        let vm = PausedVm::start(&disk, "raw").unwrap();
        let writer = Writer::start(&disk);
        let mut last = 0;
        for _ in 0..4 {
            let before = writer.rounds();
            let made = create_as(&windlass, &disk, &["--format", "raw", "--crash-consistent"]);
            let id = text(&made.success().json(), "id");
            let after = writer.rounds();
            let [first, second] = numbers(&export(&windlass, &stage, &id));
            println!("{kind}: {first} and {second}, of {before} to {after} writes meanwhile");
            assert!(
                first == second || first == second + 1,
                "{kind}: {first} and {second}: no one moment"
            );
            assert!(
                (before.max(1)..=after + 1).contains(&first),
                "{kind}: {first} of {before}..{after}"
            );
            assert!(first > last && after > before, "{kind}: nothing was written meanwhile");
            last = first;
        }
        // without the flag it is refused for the VM's sake
        fails(create_as(&windlass, &disk, &["--format", "raw"]), Code::Conflict);
        drop((writer, vm));
        let left = std::fs::read_dir(mounted.path()).unwrap().flatten();
        let left: Vec<_> = left
            .map(|entry| entry.file_name())
            .filter(|name| name != "lost+found")
            .collect();
        assert_eq!(left, ["disk.raw"], "{kind}: a clone has stayed");
        verify(&windlass);
    }
}

#[test]
fn where_it_makes_none_a_change_is_noticed() {
    let stage = fixture::small_stage("crash-consistent-ext4");
    let (windlass, _) = stage.windlass("w");
    let (_mounted, disk) = placed(&stage, "ext4", "e2fsprogs", &["-q", "-F"]);
    let vm = PausedVm::start(&disk, "raw").unwrap();
    {
        let _writer = Writer::start(&disk);
        let said = fails(
            create_as(&windlass, &disk, &["--format", "raw", "--crash-consistent"]),
            Code::Conflict,
        );
        assert!(said.contains("changed while it was read"), "{said}");
    }
    assert!(list(&windlass).is_empty());
    // it stands still: taken, although the VM holds it
    let made = create_as(&windlass, &disk, &["--format", "raw", "--crash-consistent"]);
    let id = text(&made.success().json(), "id");
    drop(vm);
    disk::assert_same(&disk, &export(&windlass, &stage, &id));
}
