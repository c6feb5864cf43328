//! The metal broker in the real binary: every verb end to end on an inventory file, and chosen machines that become hosts of the real
//! rack scheduler, by message.

#![expect(clippy::unwrap_used, reason = "test code; its helpers are no #[test]")]

use std::time::Duration;

use serde_json::{Value, json};
use windlass_integration::process::{Ended, Running, Windlass};
use windlass_integration::scratch::Scratch;

const PATIENCE: Duration = Duration::from_secs(60);

fn serving(windlass: &Windlass) -> Running {
    let daemon = windlass.spawn(&["serve"]).expect("it starts");
    let said = daemon.wait_for_line(PATIENCE, |line| line.contains("serving"));
    said.expect("it serves");
    daemon
}

/// Providers of two tenants: a CSV of six machines in three racks, and one machine in TOML.
fn providers(scratch: &Scratch) -> String {
    let dir = scratch.join("providers");
    std::fs::create_dir_all(&dir).unwrap();
    let mut csv = String::from("id,cores,memory_gib,arch,rack,zone,gpus\n");
    for n in 0..6 {
        let gpus = if n == 5 { 4 } else { 0 };
        csv.push_str(&format!("m{n},32,128,x86_64,r{},z{},{gpus}\n", n % 3, n % 3));
    }
    std::fs::write(dir.join("hall.csv"), csv).unwrap();
    std::fs::write(
        dir.join("hall.toml"),
        "tenant = \"acme\"\nkind = \"file\"\npath = \"hall.csv\"\n",
    )
    .unwrap();
    std::fs::create_dir_all(dir.join("data")).unwrap();
    let other = "[[machines]]\nid = \"g1\"\ncores = 8\nmemory_gib = 8\narch = \"x86_64\"\nrack = \"r1\"\n";
    std::fs::write(dir.join("data/globex.toml"), other).unwrap();
    std::fs::write(
        dir.join("globex.toml"),
        "tenant = \"globex\"\nkind = \"file\"\npath = \"data/globex.toml\"\n",
    )
    .unwrap();
    // one that can't be understood leaves the others alone, and its line stays out of the log
    std::fs::write(
        dir.join("broken.toml"),
        "tenant = \"acme\"\nkind = \"redfish\"\npassword = \"calvin\"\n",
    )
    .unwrap();
    dir.display().to_string()
}

fn metal(windlass: &Windlass, words: &[&str]) -> Ended {
    let all: Vec<&str> = ["--json", "metal"].iter().chain(words).copied().collect();
    windlass.run(&all).unwrap()
}

fn file(scratch: &Scratch, name: &str, text: &str) -> String {
    let path = scratch.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn machines(cluster: &Value) -> Vec<String> {
    let members = cluster["members"].as_array().unwrap();
    members
        .iter()
        .map(|m| m["machine"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn every_verb_of_the_daemon_and_machines_become_hosts_of_the_rack_scheduler() {
    let scratch = Scratch::new("metal-verbs").unwrap();
    let windlass = Windlass::new(&scratch.join("state"))
        .unwrap()
        .env("WINDLASS_METAL_BROKER__PROVIDERS_DIR", providers(&scratch))
        .env("WINDLASS_TENANT", "acme");
    let daemon = serving(&windlass);
    let inventory = metal(&windlass, &["inventory", "--refresh"]).success().json();
    assert_eq!(
        (&inventory["machines_total"], &inventory["classes"]),
        (&json!(6), &json!(2))
    );
    let ask = file(
        &scratch,
        "ask.toml",
        "name = \"shop\"\nrack_hosts = true\n[[roles]]\nrole = \"control\"\ncount = 2\ncores = 8\nmemory_gib = 32\nper_domain_max = 1\n",
    );
    let selected = metal(&windlass, &["select", &ask]).success().json();
    assert_eq!(
        (&selected["fits"], selected["chosen"].as_array().unwrap().len()),
        (&json!(true), 2)
    );
    assert_ne!(selected["chosen"][0]["rack"], selected["chosen"][1]["rack"]);
    let explained = metal(&windlass, &["explain", &ask, "--machine", "m5"]).success().json();
    assert!(
        explained["others"][0]["costs_more_millionths"].as_i64().unwrap() > 0,
        "{explained}"
    );
    let policy = file(
        &scratch,
        "policy.toml",
        "name = \"own\"\n[[rules]]\nname = \"no GPU idles\"\nallow = \"machine.gpus == 0 || cluster.gpus > 0\"\n",
    );
    let checked = metal(&windlass, &["policy", "check", &policy]).success().json();
    assert_eq!(checked["rules"][0]["per_class"], json!(true));
    metal(&windlass, &["policy", "test", &policy, &ask]).success();
    metal(&windlass, &["policy", "set", &policy]).success();
    assert_eq!(metal(&windlass, &["select", &ask]).success().json()["policy"], "own");
    let endless = file(
        &scratch,
        "endless.toml",
        "name = \"e\"\n[[rules]]\nname = \"e\"\nallow = \"machine.features.all(a, machine.features.all(b, machine.features.all(c, a != b || b != c)))\"\n",
    );
    assert!(
        metal(&windlass, &["policy", "set", &endless])
            .failure(2)
            .stdout
            .contains("steps")
    );

    let claimed = metal(&windlass, &["claim", &ask, "--request-id", "once"])
        .success()
        .json();
    let again = metal(&windlass, &["claim", &ask, "--request-id", "once"])
        .success()
        .json();
    assert_eq!(
        (&again["duplicate"], machines(&again)),
        (&json!(true), machines(&claimed))
    );
    let id = claimed["id"].as_str().unwrap().to_owned();
    let taken = machines(&claimed);
    // one comes up, one doesn't and is replaced, and so is what came up elsewhere
    metal(&windlass, &["confirm", &id, &taken[0]]).success();
    let replaced = metal(&windlass, &["confirm", &id, &taken[1], "--down"])
        .success()
        .json();
    assert_eq!(replaced["replaced"], json!([taken[1]]));
    let second = machines(&replaced).into_iter().find(|m| *m != taken[0]).unwrap();
    let confirmed = metal(&windlass, &["confirm", &id, &second]).success().json();
    assert_eq!(confirmed["state"], "confirmed");
    // the real rack scheduler has them as hosts, and places VMs there
    let placed = windlass
        .run(&[
            "--json",
            "rack",
            "place",
            "--vms",
            "4",
            "--vcpus",
            "4",
            "--memory-mib",
            "1024",
            "--groups",
            "2",
        ])
        .unwrap()
        .success()
        .json();
    let mut hosts: Vec<&str> = placed["groups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|g| g["hosts"].as_array().unwrap())
        .map(|h| h["host"].as_str().unwrap())
        .collect();
    hosts.sort_unstable();
    let mut wanted = machines(&confirmed);
    wanted.sort_unstable();
    assert_eq!(hosts, wanted);

    // another tenant sees nothing of it
    let other = windlass.clone().env("WINDLASS_TENANT", "globex");
    metal(&other, &["show", &id]).failure(3);
    metal(&other, &["release", &id]).failure(3);
    assert_eq!(metal(&other, &["ls"]).success().json()["clusters"], json!([]));
    assert_eq!(
        metal(&other, &["inventory", "--refresh"]).success().json()["machines_total"],
        1
    );

    metal(&windlass, &["quarantine", "m5", "--why", "its fan rattles"]).success();
    metal(&windlass, &["quarantine", "m5", "--lift"]).success();
    metal(&windlass, &["quarantine", "no-such"]).failure(3);
    let forecast = metal(&windlass, &["forecast"]).success().json();
    assert_eq!(forecast["gate"]["used"], json!(false), "one request is no history");
    assert_eq!(metal(&windlass, &["show", &id]).success().json()["state"], "confirmed");
    // killed and started again, all of it stands
    daemon.kill().unwrap();
    let daemon = serving(&windlass);
    assert_eq!(
        machines(&metal(&windlass, &["show", &id]).success().json()),
        machines(&confirmed)
    );
    let released = metal(&windlass, &["release", &id]).success().json();
    assert_eq!(released["state"], "released");
    let racks = windlass.run(&["--json", "rack", "place", "--vms", "1"]).unwrap();
    racks.failure(4);
    let huge = file(
        &scratch,
        "huge.toml",
        "[[roles]]\nrole = \"a\"\ncount = 100\ncores = 1\n",
    );
    assert!(
        metal(&windlass, &["claim", &huge])
            .failure(4)
            .stdout
            .contains("have no machine")
    );
    let wrong = file(&scratch, "wrong.toml", "[[roles]]\nrole = \"a\"\ncount = 1\ncors = 1\n");
    assert!(metal(&windlass, &["select", &wrong]).failure(2).stdout.contains("cors"));
    daemon.terminate().unwrap();
    let ended = daemon.wait(PATIENCE).unwrap();
    assert!(!ended.stderr.contains("calvin") && !ended.stdout.contains("calvin"));
    assert!(
        ended.stderr.contains("broken.toml") || ended.stdout.contains("broken.toml"),
        "{}",
        ended.stderr
    );
}
