//! Hosts of a fleet on one machine: the real binary, real servers.

use std::path::Path;
use std::time::Duration;

use windlass_integration::fleet;
use windlass_integration::nats::Server;
use windlass_integration::process::{Running, Windlass};
use windlass_integration::scratch::Scratch;

const PATIENCE: Duration = Duration::from_secs(60);

/// A host with a state directory of its own.
fn host(scratch: &Scratch, id: &str, urls: &str) -> Windlass {
    Windlass::new(&scratch.join(id))
        .expect("the binary")
        .env("WINDLASS_NATS", urls)
        .env("WINDLASS_HOST_ID", id)
}

fn serving(windlass: &Windlass) -> Running {
    let daemon = windlass.spawn(&["serve"]).expect("it starts");
    let said = daemon.wait_for_line(PATIENCE, |line| line.contains("serving"));
    said.expect("it serves");
    daemon
}

/// Two hosts that serve: the first founds the fleet, the second joins it.
fn both_serving(one: &Windlass, two: &Windlass) -> (Running, Running) {
    let first = serving(one);
    fleet::join(one, two, "h2");
    (first, serving(two))
}

/// A verb that asks `id` over the servers, from a place without any state.
fn ask(scratch: &Scratch, id: &str, urls: &str, words: &[&str]) -> windlass_integration::process::Ended {
    ask_from("nowhere", scratch, id, urls, words)
}

/// The same from a certain place.
fn ask_from(
    place: &str,
    scratch: &Scratch,
    id: &str,
    urls: &str,
    words: &[&str],
) -> windlass_integration::process::Ended {
    let nowhere = Windlass::new(&scratch.join(place)).expect("the binary");
    let mut all = vec!["--nats", urls, "--host-id", id, "--json"];
    all.extend(words);
    nowhere.run(&all).expect("it runs")
}

fn disk(path: &Path) {
    std::fs::write(path, vec![7; 1 << 20]).expect("a disk");
}

#[test]
fn two_hosts_are_asked_from_a_third_place() {
    let scratch = Scratch::new("fleet").unwrap();
    let server = Server::start(&scratch.join("n1")).unwrap();
    let url = server.url();
    let (one, two) = (host(&scratch, "h1", &url), host(&scratch, "h2", &url));
    let (first, second) = both_serving(&one, &two);
    for id in ["h1", "h2"] {
        let status = ask(&scratch, id, &url, &["status"]).success().json();
        assert_eq!((&status["host"], &status["mode"]), (&id.into(), &"lattice".into()));
    }
    ask(&scratch, "h3", &url, &["status"]).failure(8);
    // a snapshot on the other host, followed to its end from here
    disk(&scratch.join("web1.raw"));
    let made = scratch.join("web1.raw").display().to_string();
    let repo = format!("file://{}", scratch.join("repo").display());
    let create = ["--repo", &repo, "snapshot", "create", "--vm", "web1", "--disk", &made];
    let init = ["--repo", &repo, "repo", "init"];
    let refused = ask(&scratch, "h2", &url, &init).failure(5).json();
    let hint = refused["error"]["hint"].as_str().expect("a hint");
    assert!(
        hint.contains("windlass hosts join TOKEN"),
        "who may not is told what to do: {hint}"
    );
    // a person, who has joined as one
    let ada = Windlass::new(&scratch.join("ada")).unwrap().env("WINDLASS_NATS", &url);
    fleet::join_person(&one, &ada, "ada");
    ask_from("ada", &scratch, "h2", &url, &init).success();
    let snapshot = ask_from("ada", &scratch, "h2", &url, &create).success().json();
    let listed = ask(&scratch, "h1", &url, &["--repo", &repo, "snapshot", "ls"])
        .success()
        .json();
    assert_eq!(listed["snapshots"][0]["id"], snapshot["id"]);
    assert!(!scratch.join("nowhere").exists(), "who asks keeps no state");
    for (daemon, name) in [(first, "first"), (second, "second")] {
        daemon.terminate().unwrap();
        let ended = daemon.wait(PATIENCE).unwrap();
        assert!(ended.status.success(), "{name}: {}", ended.stderr);
    }
}

#[test]
fn a_host_waits_for_its_servers_and_names_what_they_lost() {
    let scratch = Scratch::new("fleet").unwrap();
    let mut server = Server::start(&scratch.join("n1")).unwrap();
    let url = server.url();
    server.stop().unwrap();
    let one = host(&scratch, "h1", &url);
    let waiting = one.spawn(&["serve"]).unwrap();
    let early = ask(&scratch, "h1", &url, &["status"]).failure(8);
    assert!(
        early.json()["error"]["message"].as_str().unwrap().contains(&url),
        "{early:?}"
    );
    server.restart().unwrap();
    waiting
        .wait_for_line(PATIENCE, |line| line.contains("serving"))
        .expect("it serves");
    server.kill().unwrap();
    server.lose_store().unwrap();
    server.restart().unwrap();
    let told = waiting.wait_for_line(PATIENCE, |line| line.contains("DATA LOSS"));
    assert!(told.expect("never silence").contains("made anew"));
    ask(&scratch, "h1", &url, &["status"]).success();
    waiting.terminate().unwrap();
    assert!(waiting.wait(PATIENCE).unwrap().status.success());
    // and a stop while the servers are away doesn't hang
    server.stop().unwrap();
    let waiting = one.spawn(&["serve"]).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    waiting.terminate().unwrap();
    assert!(waiting.wait(PATIENCE).unwrap().status.success());
}

/// nats-py finds the services of two hosts, reads their schemas, calls one, is refused, and sees both counted.
#[test]
fn a_foreign_client_finds_and_calls_the_services() {
    let scratch = Scratch::new("fleet").unwrap();
    let server = Server::start(&scratch.join("n1")).unwrap();
    let (one, two) = (host(&scratch, "h1", &server.url()), host(&scratch, "h2", &server.url()));
    let (_first, _second) = both_serving(&one, &two);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services.py");
    let out = std::process::Command::new(windlass_integration::nats::python().unwrap())
        .arg(script)
        .args([&server.url(), "h2"])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let seen: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let names: Vec<&str> = seen["names"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|n| n.as_str())
        .collect();
    for name in ["windlass-house", "windlass-jobs", "windlass-snapshot"] {
        assert!(names.contains(&name), "{seen}");
    }
    assert_eq!(seen["ids"], 2 * names.len(), "each service once on each host: {seen}");
    assert_eq!(seen["hosts"], serde_json::json!(["h1", "h2"]));
    assert_eq!(
        (&seen["subject"], &seen["queue_group"]),
        (&"windlass.v1.host.h2.house.status".into(), &"".into())
    );
    assert_eq!(seen["schema"]["properties"]["host"]["type"], "string");
    assert_eq!(seen["answer"]["ok"]["host"], "h2");
    assert_eq!(seen["refused"]["error"]["code"], "invalid");
    assert_eq!(seen["refused_headers"]["Nats-Service-Error-Code"], "400");
    assert_eq!(
        (&seen["stats"], &seen["requests"], &seen["errors"]),
        (&1.into(), &2.into(), &1.into())
    );
    assert!(seen["last_error"].as_str().unwrap().starts_with("400:"), "{seen}");
}

/// The commands of README's "Many hosts", as they stand there, on ports of their own.
#[test]
fn the_readme_takes_a_person_to_three_hosts() {
    let scratch = Scratch::new("readme").unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let section = readme.split("## Many hosts").nth(1).expect("the section");
    let script = section
        .split("```sh\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .expect("its commands");
    let port = windlass_integration::process::free_port().unwrap().to_string();
    let server = windlass_integration::nats::program().unwrap().display().to_string();
    let script = script
        .replace("4222", &port)
        .replace("~/.cache/windlass/nats/bin/nats-server", &server);
    let binary = windlass_integration::process::binary().unwrap();
    let path = format!(
        "{}:{}",
        binary.parent().unwrap().display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let out = std::process::Command::new("bash")
        .args(["-e", "-c", &script])
        .current_dir(scratch.path())
        .env("PATH", path)
        .env_remove("WINDLASS_STATE_DIR")
        .output()
        .unwrap();
    let said = format!(
        "{}\n{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    assert!(out.status.success(), "{said}");
    assert!(said.contains("h2") && said.contains("lattice"), "{said}");
    for host in ["h1", "h2", "h3"] {
        let log = std::fs::read_to_string(scratch.join(format!("fleet/{host}.log"))).unwrap();
        assert!(log.contains("serving") && log.contains("ended"), "{host}: {log}");
    }
}
