//! Who belongs to a fleet, with the real binary and a real nats-server: tokens, joins that are killed, exclusion.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use windlass_integration::nats::Server;
use windlass_integration::process::{Running, Windlass};
use windlass_integration::scratch::Scratch;
use windlass_integration::{Random, fleet};

const PATIENCE: Duration = Duration::from_secs(60);

struct Fleet {
    scratch: Scratch,
    server: Server,
}

impl Fleet {
    fn start() -> Self {
        let scratch = Scratch::new("membership").unwrap();
        let server = Server::start(&scratch.join("nats")).unwrap();
        Self { scratch, server }
    }

    fn windlass(&self, host: &str) -> Windlass {
        Windlass::new(&self.scratch.join(host))
            .unwrap()
            .env("WINDLASS_NATS", self.server.url())
            .env("WINDLASS_HOST_ID", host)
            .env("WINDLASS_HOST__BEAT_MS", "400")
    }

    fn daemon(&self, host: &str) -> Running {
        let daemon = self.windlass(host).spawn(&["serve"]).unwrap();
        let line = daemon.wait_for_line(PATIENCE, |line| line.contains("serving"));
        assert!(line.is_some(), "the daemon of {host} serves");
        daemon
    }

    fn members(&self, at: &str) -> Value {
        let said = self.windlass(at).run(&["hosts", "members", "--json"]).unwrap();
        said.success().json()["members"].clone()
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn members_come_by_a_token_and_go_by_a_word() {
    let fleet = Fleet::start();
    let (one, two) = (fleet.windlass("h1"), fleet.windlass("h2"));
    let first = fleet.daemon("h1");
    let refused = two.run(&["serve"]).unwrap().failure(5);
    assert!(
        refused.stderr.contains("windlass hosts token h2"),
        "who is no member is told what to do: {}",
        refused.stderr
    );
    fleet::join(&one, &two, "h2");
    let (key, secret) = (
        fleet.scratch.join("h2/identity.key"),
        fleet.scratch.join("h1/identity.key"),
    );
    assert_eq!((mode(&key), mode(&secret)), (0o600, 0o600));
    let second = fleet.daemon("h2");
    let members = fleet.members("h2");
    let names: Vec<&str> = members
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["member"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["host:h1", "host:h2"], "{members}");
    assert_eq!(
        (&members[0]["may_admit"], &members[1]["by"]),
        (&true.into(), &"host:h1".into())
    );

    // a token isn't for another id, nor for a place that runs, nor is just any text one
    let token = fleet::token(&one, &["h3"]);
    fleet.windlass("h4").run(&["hosts", "join", &token]).unwrap().failure(4);
    two.run(&["hosts", "join", &fleet::token(&one, &["h2", "--replace"])])
        .unwrap()
        .failure(4);
    fleet
        .windlass("h3")
        .run(&["hosts", "join", "windlass-token.host.h3"])
        .unwrap()
        .failure(2);
    // and h2 may not let anybody in
    let denied = two.run(&["hosts", "token", "h5"]).unwrap().failure(5);
    assert!(denied.stderr.contains("host:h1"), "{}", denied.stderr);
    two.run(&["hosts", "revoke", "h1"]).unwrap().failure(5);

    // h2 commands until it is put out; then its daemon ends, and says why
    two.run(&["hosts", "drain", "h1"]).unwrap().success();
    two.run(&["hosts", "uncordon", "h1"]).unwrap().success();
    one.run(&["hosts", "revoke", "h2"]).unwrap().success();
    let ended = second.wait(PATIENCE).unwrap().failure(5);
    assert!(ended.stderr.contains("put out of its fleet"), "{}", ended.stderr);
    two.run(&["hosts", "drain", "h1"]).unwrap().failure(5);
    two.run(&["serve"]).unwrap().failure(5);
    let status = one.run(&["status", "--json"]).unwrap().success().json();
    let concerns = status["concerns"].as_array().unwrap();
    let hosts = &concerns.iter().find(|c| c["concern"] == "hosts").unwrap()["observed"];
    assert_eq!(hosts["members"], 1, "{hosts}");
    assert!(
        hosts["refused_revoked_total"].as_u64() > Some(0),
        "and it is counted: {hosts}"
    );
    // it is let in again, with another key
    let before = std::fs::read(&key).unwrap();
    fleet::join(&one, &two, "h2");
    assert_ne!(std::fs::read(&key).unwrap(), before);
    let second = fleet.daemon("h2");
    two.run(&["hosts", "drain", "h1"]).unwrap().success();
    // no secret in any log
    for daemon in [first, second] {
        daemon.terminate().unwrap();
        let log = daemon.wait(PATIENCE).unwrap().success().stderr;
        for secret in [&secret, &key] {
            let text = std::fs::read_to_string(secret).unwrap();
            let digits = text.trim().rsplit(' ').next().unwrap();
            assert_eq!(digits.len(), 64);
            assert!(!log.contains(digits), "a key stands in a log");
        }
    }
}

/// `kill -9` at moments all over a join; then the same command again.
#[test]
fn a_join_that_is_killed_ends_by_the_same_command() {
    let seed = std::env::var("WINDLASS_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(1);
    let fleet = Fleet::start();
    let one = fleet.windlass("h1");
    let _first = fleet.daemon("h1");
    let mut random = Random::new(seed);
    let mut killed = 0;
    for n in 0..6 {
        let name = format!("j{n}");
        let joiner = fleet.windlass(&name);
        let token = fleet::token(&one, &[&name]);
        let running = joiner.spawn(&["hosts", "join", &token]).unwrap();
        let ended = running.kill_after(Duration::from_millis(random.below(220))).unwrap();
        killed += u32::from(ended.was_killed());
        joiner.run(&["hosts", "join", &token]).unwrap().success();
        // the same command once more is no fault
        joiner.run(&["hosts", "join", &token]).unwrap().success();
        let serves = fleet.daemon(&name);
        serves.terminate().unwrap();
        serves.wait(PATIENCE).unwrap().success();
    }
    eprintln!("seed {seed}: {killed} of 6 joins were killed on their way");
    let members = fleet.members("h1");
    let known = members.as_array().unwrap();
    assert_eq!(known.len(), 7, "{members}");
    assert!(known.iter().all(|m| m["epoch"] == 1), "one statement each: {members}");
}
