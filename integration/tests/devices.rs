//! A block device with partitions on the real binary: whatever stands on it, on a partition of it, or on the device that it is a
//! partition of, is named, and nothing is written. (Device mapper and MD, which not every kernel has, are tried with a made-up
//! `/sys` in `actors/snapshot/src/engine/guard/tests/devices.rs`.)

#![allow(clippy::unwrap_used, reason = "test code")]

mod fixture;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use fixture::{Stage, fails, restore_args, show, text};
use windlass_integration::process::Windlass;
use windlass_integration::qemu::{LoopDevice, run};
use windlass_integration::{Random, disk};
use wire::Code;

/// Where the device differs from its snapshot: between the partition table and the first partition.
const CHANGED_AT: u64 = 100 << 10;

/// Undoes what stands on the device, also on panic.
struct Undo<F: Fn()>(F);

impl<F: Fn()> Drop for Undo<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn tool(program: &str, package: &str, arguments: &[&str]) {
    run(program, package, arguments).unwrap();
}

/// A device with two partitions: an ext4 and swap. The kernel is told of them, so that it needs to know no partition table.
fn partitioned(stage: &Stage) -> LoopDevice {
    let file = stage.scratch.join("medium");
    disk::sparse(&file, 100 << 20).unwrap();
    let device = LoopDevice::attach(&file).unwrap();
    let shown = show(device.path());
    // in sectors of 512 bytes
    for (number, start, length) in [("1", "2048", "98304"), ("2", "100352", "32768")] {
        tool("addpart", "util-linux", &[&shown, number, start, length]);
    }
    let (first, second) = (part(&device, 1), part(&device, 2));
    tool("mke2fs", "e2fsprogs", &["-q", "-F", "-t", "ext4", &first]);
    tool("mkswap", "util-linux", &[&second]);
    device
}

fn part(device: &LoopDevice, number: u32) -> String {
    let path = format!("{}p{number}", show(device.path()));
    assert!(
        Path::new(&path).exists(),
        "no {path}: the kernel reads no partitions of loop devices"
    );
    path
}

fn write_at(device: &Path, bytes: &[u8], offset: u64) {
    let target = File::options().write(true).open(device).unwrap();
    target.write_all_at(bytes, offset).unwrap();
    target.sync_all().unwrap();
}

struct Scene {
    stage: Stage,
    device: LoopDevice,
    whole: (Windlass, String),
    /// The first partition as a disk of its own.
    first: (Windlass, String, PathBuf),
}

impl Scene {
    fn new() -> Self {
        let stage = fixture::small_stage("devices");
        let device = partitioned(&stage);
        let (whole, _) = stage.windlass("whole");
        let (first, _) = stage.windlass("first");
        let partition = PathBuf::from(part(&device, 1));
        let id = fixture::create(&whole, device.path());
        let of_first = fixture::create(&first, &partition);
        let scene = Self {
            stage,
            whole: (whole, id),
            first: (first, of_first, partition),
            device,
        };
        write_at(scene.device.path(), &scene.changed(), CHANGED_AT);
        scene
    }

    fn changed(&self) -> Vec<u8> {
        disk::random_bytes(&mut Random::new(8), 8192)
    }

    /// The whole device is refused, and so is its first partition when `first` has words for it.
    #[track_caller]
    fn refused(&self, whole: &str, first: Option<&str>) {
        let (windlass, id) = &self.whole;
        let ended = windlass.run(&restore_args(id, self.device.path())).unwrap();
        let said = fails(ended, Code::Conflict);
        assert!(said.contains(whole) && said.contains("nothing was changed"), "{said}");
        let mut now = vec![0; 8192];
        File::open(self.device.path())
            .unwrap()
            .read_exact_at(&mut now, CHANGED_AT)
            .unwrap();
        assert!(now == self.changed(), "something was written");
        if let Some(words) = first {
            let (windlass, id, partition) = &self.first;
            let said = fails(windlass.run(&restore_args(id, partition)).unwrap(), Code::Conflict);
            assert!(said.contains(words) && said.contains("nothing was changed"), "{said}");
        }
    }
}

#[test]
fn whatever_stands_on_a_device_or_its_partitions_keeps_a_restore_away() {
    let scene = Scene::new();
    let (first, second) = (part(&scene.device, 1), part(&scene.device, 2));
    let name = |path: &str| path.trim_start_matches("/dev/").to_owned();
    let (its_first, its_second) = (
        format!("its partition {}", name(&first)),
        format!("its partition {}", name(&second)),
    );
    let point = show(&scene.stage.scratch.dir("mnt").unwrap());
    {
        tool("mount", "mount", &["-o", "ro", &first, &point]);
        let _undo = Undo(|| tool("umount", "mount", &[&point]));
        let at = format!("is mounted at {point}");
        scene.refused(&format!("{its_first} {at}"), Some(&format!("it {at}")));
    }
    {
        tool("swapon", "mount", &[&second]);
        let _undo = Undo(|| tool("swapoff", "mount", &[&second]));
        scene.refused(&format!("the host swaps to {its_second}"), None);
    }
    {
        let on = LoopDevice::attach(Path::new(&first)).unwrap();
        let backs = format!("backs {}", show(on.path()));
        scene.refused(&format!("{its_first} {backs}"), Some(&format!("it {backs}")));
    }
    {
        let on = LoopDevice::attach(scene.device.path()).unwrap();
        let backs = format!("backs {}", show(on.path()));
        let of = format!(
            "the device {} that it is a partition of {backs}",
            name(&show(scene.device.path()))
        );
        scene.refused(&format!("it {backs}"), Some(&of));
    }
    {
        let _held = File::options().write(true).open(&first).unwrap();
        let by = format!("process {}", std::process::id());
        scene.refused(&format!("has {its_first} open for writing"), Some(&by));
    }
    {
        let _held = File::options().write(true).open(scene.device.path()).unwrap();
        let by = format!("process {}", std::process::id());
        scene.refused(&by, Some(&by));
    }
    // nobody any more
    let (windlass, id) = &scene.whole;
    windlass.run(&restore_args(id, scene.device.path())).unwrap().success();
    let (windlass, id, partition) = &scene.first;
    let again = windlass.run(&restore_args(id, partition)).unwrap().success().json();
    assert_eq!(text(&again, "vm"), fixture::VM);
}

/// A btrfs of two devices is mounted under the name of one of them alone.
#[test]
fn a_member_of_a_mounted_btrfs_is_refused() {
    let stage = fixture::small_stage("devices-btrfs");
    let (windlass, _) = stage.windlass("w");
    let made = ["one", "two"].map(|name| {
        let file = stage.scratch.join(name);
        disk::sparse(&file, 128 << 20).unwrap();
        LoopDevice::attach(&file).unwrap()
    });
    let [one, two] = [show(made[0].path()), show(made[1].path())];
    let single = ["-q", "-f", "-d", "single", "-m", "single", &one, &two];
    tool("mkfs.btrfs", "btrfs-progs", &single);
    let id = fixture::create(&windlass, made[1].path());
    let point = show(&stage.scratch.dir("mnt").unwrap());
    tool("mount", "mount", &["-o", &format!("device={two}"), &one, &point]);
    let refused = {
        let _undo = Undo(|| tool("umount", "mount", &[&point]));
        windlass.run(&restore_args(&id, made[1].path())).unwrap()
    };
    let said = fails(refused, Code::Conflict);
    assert!(said.contains("is part of the mounted btrfs"), "{said}");
    windlass.run(&restore_args(&id, made[1].path())).unwrap().success();
}
