//! Power loss of a host whose repository is on a real S3 server: at a moment by chance the process is killed, and what it had
//! written to its disk, state and cache and not made durable is lost, torn or reordered. The server keeps what it acknowledged;
//! now and then it is cut off at the same moment, too, and starts again on what it has.
//!
//! `WINDLASS_SEED` replays, `WINDLASS_POWER_POINTS` sets how many moments (one for each 25).

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "test code; what was tried belongs to the report of a run"
)]

mod fixture;

use std::path::PathBuf;
use std::time::Duration;

use fixture::on_s3::{host, host_at, init, setting, timed};
use fixture::power::{keep_identity, move_tree};
use fixture::{Stage, create, create_args, list, restore_args, verify};
use windlass_integration::power::{CrashStates, Policy, Recording};
use windlass_integration::process::{Ended, Windlass};
use windlass_integration::s3_server::Garage;
use windlass_integration::{Random, disk};

const DISK_BYTES: u64 = 16 << 20;
const DATA_BYTES: u64 = 6 << 20;

/// A disk and a host's state in `mount`, whose writes can be recorded, and a server.
struct Scene {
    stage: Stage,
    garage: Garage,
    initial: PathBuf,
    mount: PathBuf,
    random: Random,
    seed: u64,
    moments: u64,
}

impl Scene {
    fn new(name: &str, salt: u64) -> Self {
        let seed = setting("WINDLASS_SEED", 1);
        let stage = Stage::new(name, seed, DISK_BYTES, DATA_BYTES);
        let (initial, mount) = (
            stage.scratch.dir("initial").unwrap(),
            stage.scratch.dir("mount").unwrap(),
        );
        Self {
            garage: Garage::start().unwrap(),
            initial,
            mount,
            random: Random::new(seed ^ salt),
            seed,
            moments: (setting("WINDLASS_POWER_POINTS", 150) / 25).max(4),
            stage,
        }
    }

    /// Runs a command on the recorded tree until it ends or the power is lost after `moment`; then the mount has what is left.
    fn lose_power(&mut self, host: &Windlass, arguments: &[String], moment: Duration, round: u64) -> (Ended, String) {
        let bytes = self.stage.scratch.fresh("bytes").unwrap();
        self.stage.scratch.fresh("mount").unwrap();
        let recording = Recording::mount(&self.initial, &self.mount, &bytes).unwrap();
        let ended = host.spawn(arguments).unwrap().kill_after(moment).unwrap();
        let server_too = round % 3 == 1;
        if server_too {
            self.garage.stop();
        }
        let log = recording.finish().unwrap();
        if server_too {
            self.garage.resume().unwrap();
        }
        let policy = match round % 4 {
            0 => Policy::Random(self.seed ^ round),
            1 => Policy::Nothing,
            2 => Policy::ReorderedLast,
            _ => Policy::Random(!self.seed ^ round),
        };
        self.stage.scratch.fresh("mount").unwrap();
        // nothing recorded yet: the tree as it was
        match log.ops.len().checked_sub(1) {
            Some(at) => CrashStates::new(&self.initial, &log)
                .materialise(at, policy, &self.mount)
                .unwrap(),
            None => copy_tree(&self.initial, &self.mount),
        }
        keep_identity(&self.mount);
        let told = format!(
            "seed {}, round {round}, power lost after {moment:?} ({} operations, {policy:?}, server too: {server_too})",
            self.seed,
            log.ops.len()
        );
        (ended, told)
    }
}

fn copy_tree(from: &std::path::Path, to: &std::path::Path) {
    let done = std::process::Command::new("cp")
        .arg("-a")
        .arg(from.join("."))
        .arg(to)
        .status();
    assert!(done.unwrap().success());
}

#[test]
fn a_create_survives_power_loss() {
    let mut scene = Scene::new("s3-power-create", 0xC0);
    scene.stage.put(&scene.stage.good, &scene.initial.join("disk.raw"));
    let disk = scene.mount.join("disk.raw");
    let state = scene.mount.join("state");
    // how long one takes on the recorded tree
    let first = host_at(&scene.garage.account, &state, "first");
    init(&host(&scene.garage.account, &scene.stage, "other", "first"));
    let whole = timed(|| {
        let (ended, told) = scene.lose_power(&first, &create_args(&disk), Duration::from_secs(60), 3);
        assert!(!ended.was_killed(), "{told}: {ended:?}");
    });
    let (mut killed, mut acknowledged) = (0, 0);
    for round in 0..scene.moments {
        let prefix = format!("round-{round}");
        let reader = host(&scene.garage.account, &scene.stage, &prefix, &prefix);
        init(&reader);
        let host = host_at(&scene.garage.account, &state, &prefix);
        let moment = Duration::from_micros(scene.random.below(whole.as_micros() as u64));
        let (ended, told) = scene.lose_power(&host, &create_args(&disk), moment, round);
        killed += u64::from(ended.was_killed());
        let seen = list(&reader);
        assert!(seen.len() <= 1, "{told}: {seen:?}");
        if !ended.was_killed() {
            ended.success();
            acknowledged += 1;
            assert_eq!(seen.len(), 1, "{told}: acknowledged and not listed");
        }
        // what is listed is whole
        verify(&reader);
        let again = host.run(&create_args(&disk)).unwrap();
        assert!(again.code() == Some(0), "{told}: {again:?}");
        assert_eq!(list(&reader).len(), seen.len() + 1, "{told}");
        verify(&reader);
    }
    println!(
        "seed {}: {killed} creates lost power within {whole:?}, {acknowledged} just after",
        scene.seed
    );
    assert!(killed > 0, "no moment met the work");
}

#[test]
fn a_restore_survives_power_loss() {
    let mut scene = Scene::new("s3-power-restore", 0x9E);
    let disk = scene.mount.join("disk.raw");
    // the snapshot is taken at the path that the recording will have
    let host = host_at(&scene.garage.account, &scene.mount.join("state"), "r");
    init(&host);
    scene.stage.put(&scene.stage.good, &disk);
    let good = create(&host, &disk);
    std::fs::write(&disk, std::fs::read(&scene.stage.bad).unwrap()).unwrap();
    move_tree(&scene.mount, &scene.initial);
    let arguments = restore_args(&good, &disk);
    let whole = timed(|| {
        let (ended, told) = scene.lose_power(&host, &arguments, Duration::from_secs(60), 3);
        assert!(!ended.was_killed(), "{told}: {ended:?}");
    });
    let (mut killed, mut resumed, mut undone) = (0, 0, 0);
    for round in 0..scene.moments {
        // nothing is written to the disk before the state that it has is stored: the later moments are those that matter
        let part = whole.as_micros() as u64 / 3;
        let moment = Duration::from_micros(part + scene.random.below(2 * part));
        let (ended, told) = scene.lose_power(&host, &arguments, moment, round);
        killed += u64::from(ended.was_killed());
        let differs = || disk::first_difference(&scene.stage.good, &disk).unwrap();
        if !ended.was_killed() {
            assert_eq!(differs(), None, "{told}: acknowledged and not there");
        }
        let again = host.run(&arguments).unwrap();
        assert!(again.code() == Some(0), "{told}: {again:?}");
        resumed += u64::from(again.json()["resumed"] == true);
        assert_eq!(differs(), None, "{told}: the same command did not finish it");
        if ended.was_killed() && round % 2 == 0 {
            let undo = host
                .run(&["restore", "--json", "--yes", "--vm", fixture::VM, "--undo"])
                .unwrap();
            assert!(undo.code() == Some(0), "{told}: {undo:?}");
            let left = disk::first_difference(&scene.stage.bad, &disk).unwrap();
            assert_eq!(left, None, "{told}: undo did not lead back");
            undone += 1;
        }
    }
    verify(&host);
    println!(
        "seed {}: {killed} restores lost power within {whole:?}, {resumed} resumed, {undone} undone",
        scene.seed
    );
    assert!(killed > 0, "no moment met the work");
}
