//! Jobs and hosts of a fleet with the real binary and a real nats-server: a job that is asked for on one host runs on
//! another; hosts are seen, told and lost; one id is one daemon.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use windlass_integration::fleet;
use windlass_integration::nats::Server;
use windlass_integration::process::{Running, Windlass};
use windlass_integration::scratch::Scratch;
use windlass_integration::{Random, disk};

/// What a thing that has to come may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Fleet {
    scratch: Scratch,
    server: Server,
}

impl Fleet {
    fn start(name: &str) -> Self {
        let scratch = Scratch::new(name).unwrap();
        let server = Server::start(&scratch.join("nats")).unwrap();
        Self { scratch, server }
    }

    /// A windlass of `host` with its state in a directory called `state`.
    fn windlass(&self, host: &str, state: &str) -> Windlass {
        Windlass::new(&self.scratch.dir(state).unwrap())
            .unwrap()
            .env("WINDLASS_NATS", self.server.url())
            .env("WINDLASS_HOST_ID", host)
            .env("WINDLASS_HOST__BEAT_MS", "400")
            .env("WINDLASS_HOST__RACK", format!("rack-{host}"))
            .env("WINDLASS_REPO", self.scratch.join("repo").display().to_string())
    }

    /// The first two hosts: `a` founds the fleet, `b` joins it.
    fn both(&self) -> (Running, Running) {
        let a = self.daemon("a");
        fleet::join(&self.windlass("a", "a"), &self.windlass("b", "b"), "b");
        (a, self.daemon("b"))
    }

    fn daemon(&self, host: &str) -> Running {
        let daemon = self.windlass(host, host).spawn(&["serve"]).unwrap();
        let line = daemon.wait_for_line(PATIENCE, |line| line.contains("serving"));
        assert!(line.is_some(), "the daemon of {host} serves");
        daemon
    }

    /// What `host`'s windlass prints.
    fn json(&self, host: &str, words: &str) -> Value {
        let arguments: Vec<&str> = words.split(' ').chain(["--json"]).collect();
        self.windlass(host, host).run(&arguments).unwrap().success().json()
    }

    fn host_is(&self, asked: &str, host: &str, state: &str) {
        let mut seen = Value::Null;
        for _ in 0..600 {
            let listed = self.json(asked, "hosts ls");
            let hosts = listed["hosts"].as_array().unwrap();
            seen = hosts.iter().find(|h| h["host"] == host).cloned().unwrap_or_default();
            if seen["state"] == state {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("{host} is not {state}, as {asked} sees it: {seen}");
    }

    /// A disk that takes a while to read.
    fn disk(&self) -> PathBuf {
        let path = self.scratch.join("web1.raw");
        let block = disk::random_bytes(&mut Random::new(5), 16 << 20);
        let mut file = std::fs::File::create(&path).unwrap();
        for n in 0..16_u8 {
            // other bytes each time, so that little of it is known
            let changed: Vec<u8> = block.iter().map(|b| b.wrapping_add(n)).collect();
            file.write_all(&changed).unwrap();
        }
        path
    }
}

fn create(disk: &Path) -> Vec<String> {
    let words = [
        "snapshot",
        "create",
        "--vm",
        "web1",
        "--json",
        "--progress",
        "json",
        "--disk",
    ];
    let mut words: Vec<String> = words.map(str::to_owned).into();
    words.push(format!("root={}", disk.display()));
    words
}

#[test]
fn a_snapshot_asked_for_on_one_host_runs_on_another_with_its_progress_shown() {
    let fleet = Fleet::start("lattice-snapshot");
    let (_a, _b) = fleet.both();
    fleet.windlass("a", "a").run(&["repo", "init"]).unwrap().success();
    for host in ["a", "b"] {
        fleet.host_is("a", host, "up");
    }
    let listed = fleet.json("a", "hosts show b");
    assert_eq!(listed["facts"]["rack"], "rack-b");
    assert!(listed["facts"]["capacity"]["vcpus"].as_u64().unwrap() > 0);

    // on host a, for host b: the verb's id is the host that it asks
    let disk = fleet.disk();
    let asked = fleet.windlass("b", "a").run(&create(&disk)).unwrap().success();
    let info = asked.json();
    assert_eq!(info["host"], "b");
    let seen: Vec<Value> = asked
        .stderr
        .lines()
        .filter_map(|l| serde_json::from_str(l).ok())
        .collect();
    let on_its_way = seen
        .iter()
        .filter(|job| job["state"] == "running" && job["progress"]["done"].as_u64() > Some(0));
    assert!(on_its_way.count() > 0, "progress was shown: {seen:?}");
    assert!(seen.iter().all(|job| job["host"] == "b" || job["state"] == "queued"));

    // any host tells of the job
    let id = seen[0]["id"].as_str().unwrap();
    for host in ["a", "b"] {
        let job = fleet.json(host, &format!("jobs show {id}"));
        assert_eq!(
            (&job["state"], &job["host"], &job["target"]),
            (&"done".into(), &"b".into(), &"b".into())
        );
        assert_eq!(fleet.json(host, "jobs ls")["jobs"].as_array().unwrap().len(), 1);
    }
    // and its snapshot is everybody's
    assert_eq!(
        fleet.json("a", "snapshot ls --vm web1")["snapshots"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn hosts_are_told_drained_lost_and_have_one_daemon_each() {
    let fleet = Fleet::start("lattice-hosts");
    let (a, b) = fleet.both();
    fleet.host_is("a", "b", "up");

    // a second daemon with b's id: a stranger on a state directory of its own, and a copy of b's
    let stranger = fleet.windlass("b", "b2").run(&["serve"]).unwrap().failure(5);
    assert!(
        stranger.stderr.contains("is no member of this fleet"),
        "{}",
        stranger.stderr
    );
    let copied = fleet.scratch.dir("b3").unwrap();
    for file in ["identity.key", "fleet.json"] {
        std::fs::copy(fleet.scratch.join("b").join(file), copied.join(file)).unwrap();
    }
    let second = fleet.windlass("b", "b3").run(&["serve"]).unwrap().failure(4);
    assert!(
        second.stderr.contains("another windlass has the host id 'b'"),
        "{}",
        second.stderr
    );

    let told = fleet.json("a", "hosts drain b");
    assert_eq!(told["order"], "drain");
    fleet.host_is("a", "b", "drained");
    let send = ["send", "snapshot.verify", "{}", "--json"];
    let job = fleet.windlass("b", "a").run(&send).unwrap().success().json();
    let id = job["job"].as_str().unwrap().to_owned();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(fleet.json("a", &format!("jobs show {id}"))["state"], "queued");
    assert_eq!(fleet.json("a", &format!("jobs cancel {id}"))["state"], "cancelled");
    assert_eq!(fleet.json("a", &format!("jobs retry {id}"))["state"], "queued");
    assert_eq!(fleet.json("a", "jobs dead")["jobs"].as_array().unwrap().len(), 0);
    fleet.json("a", "hosts uncordon b");
    fleet.host_is("a", "b", "up");
    let mut state = Value::Null;
    for _ in 0..600 {
        state = fleet.json("a", &format!("jobs show {id}"))["state"].clone();
        if state == "done" {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(state, "done");

    b.kill().unwrap();
    fleet.host_is("a", "b", "lost");
    let _b = fleet.daemon("b");
    fleet.host_is("a", "b", "up");
    a.kill().unwrap();
    fleet.host_is("b", "a", "lost");
}
