//! The rack scheduler in the real binary: every verb end to end, `kill -9` of the daemon in the middle of placements, and of one
//! of two schedulers on one NATS server, with a ledger of what was acknowledged. `WINDLASS_SEED` replays the moments,
//! `WINDLASS_RACK_KILLS` sets how many.

#![expect(clippy::print_stdout, reason = "how much was tried belongs to the report of a run")]
#![expect(clippy::unwrap_used, reason = "test code; its helpers are no #[test]")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use windlass_integration::Random;
use windlass_integration::fleet;
use windlass_integration::nats::Server;
use windlass_integration::process::{Ended, Running, Windlass};
use windlass_integration::scratch::Scratch;

const PATIENCE: Duration = Duration::from_secs(60);
const RACKS: u64 = 6;
const HOSTS: u64 = 4;
const HOST_VCPUS: u64 = 64;
/// Clients that place at once.
const CLIENTS: u64 = 3;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// An inventory as `rack load` reads it.
fn inventory(scratch: &Scratch) -> String {
    let hosts: Vec<Value> = (0..RACKS * HOSTS)
        .map(|n| {
            json!({"id": format!("r{}-h{}", n / HOSTS, n % HOSTS), "rack": format!("r{}", n / HOSTS),
                "capacity": {"vcpus": HOST_VCPUS, "memory_mib": 262_144}})
        })
        .collect();
    let path = scratch.join("inventory.json");
    std::fs::write(&path, json!({ "hosts": hosts }).to_string()).unwrap();
    path.display().to_string()
}

fn serving(windlass: &Windlass) -> Running {
    let daemon = windlass.spawn(&["serve"]).expect("it starts");
    let said = daemon.wait_for_line(PATIENCE, |line| line.contains("serving"));
    said.expect("it serves");
    daemon
}

fn rack(windlass: &Windlass, words: &[&str]) -> Ended {
    let all: Vec<&str> = ["--json", "rack"].iter().chain(words).copied().collect();
    windlass.run(&all).expect("it runs")
}

/// What the clients ask for: three small VMs in so many groups.
fn place_three(groups: &str) -> Vec<&str> {
    let ask = [
        "place",
        "--vms",
        "3",
        "--vcpus",
        "1",
        "--memory-mib",
        "256",
        "--groups",
        groups,
    ];
    ask.to_vec()
}

fn vms_of(placement: &Value) -> Vms {
    let mut vms = BTreeSet::new();
    for group in placement["groups"].as_array().unwrap() {
        for host in group["hosts"].as_array().unwrap() {
            for vm in host["vms"].as_array().unwrap() {
                vms.insert((
                    host["host"].as_str().unwrap().to_owned(),
                    vm.as_str().unwrap().to_owned(),
                ));
            }
        }
    }
    vms
}

/// vCPUs booked on each host, by the inventory; no host has more than it can sell.
fn booked(windlass: &Windlass) -> BTreeMap<String, u64> {
    let mut booked = BTreeMap::new();
    for number in 0..RACKS {
        let report = rack(windlass, &["inventory", "--rack", &format!("r{number}")])
            .success()
            .json();
        for host in report["racks"][0]["hosts"].as_array().unwrap() {
            let vcpus = host["booked"]["vcpus"].as_u64().unwrap();
            assert!(vcpus <= HOST_VCPUS, "oversold: {host}");
            booked.insert(host["id"].as_str().unwrap().to_owned(), vcpus);
        }
    }
    booked
}

#[test]
fn every_verb_of_the_embedded_daemon() {
    let scratch = Scratch::new("rack-verbs").unwrap();
    let windlass = Windlass::new(&scratch.join("state")).unwrap();
    let daemon = serving(&windlass);
    let loaded = rack(&windlass, &["load", &inventory(&scratch)]).success().json();
    assert_eq!(
        (&loaded["racks"], &loaded["hosts"]),
        (&json!(RACKS), &json!(RACKS * HOSTS))
    );
    let ask = ["--vms", "12", "--groups", "3", "--vcpus", "4", "--memory-mib", "8192"];
    let words = |verb: &'static str| [&[verb], &ask[..]].concat();
    let plan = rack(&windlass, &words("plan")).success().json();
    assert_eq!((&plan["fits"], &plan["racks"]), (&json!(true), &json!(3)));
    assert!(booked(&windlass).values().all(|v| *v == 0), "a plan books nothing");
    let once = [&words("place")[..], &["--request-id", "once"]].concat();
    let placed = rack(&windlass, &once).success().json();
    assert_eq!(vms_of(&placed).len(), 12);
    let again = rack(&windlass, &once).success().json();
    assert_eq!((&again["duplicate"], vms_of(&again)), (&json!(true), vms_of(&placed)));
    assert_eq!(booked(&windlass).values().sum::<u64>(), 48);
    let id = placed["id"].as_str().unwrap().to_owned();
    // a placement of one rack, which its rack's record keeps
    let small = rack(
        &windlass,
        &["place", "--vms", "2", "--vcpus", "1", "--memory-mib", "512"],
    )
    .success();
    let small = small.json()["id"].as_str().unwrap().to_owned();
    let listed = rack(&windlass, &["ls"]).success().json();
    assert_eq!(listed["placements"].as_array().unwrap().len(), 2);
    assert_eq!(
        rack(&windlass, &["show", &small]).success().json()["id"],
        small.as_str()
    );
    let grown = rack(
        &windlass,
        &["grow", &small, "--vms", "3", "--vcpus", "1", "--memory-mib", "512"],
    );
    assert_eq!(vms_of(&grown.success().json()).len(), 5);
    let shrunk = rack(&windlass, &["shrink", &id, "--count", "3"]).success().json();
    assert_eq!(vms_of(&shrunk).len(), 9);
    assert_eq!(booked(&windlass).values().sum::<u64>(), 36 + 5);
    let explained = rack(&windlass, &["explain", "--id", &id]).success().json();
    assert_eq!(explained["groups"].as_array().unwrap().len(), 3);
    let room = rack(&windlass, &["whatif", "--vcpus", "4", "--memory-mib", "8192"])
        .success()
        .json();
    assert!(room["vms"].as_u64().unwrap() > 0);
    // a host is drained: what it had moves, and nothing else
    let (host, _) = vms_of(&shrunk).into_iter().next().unwrap();
    let report = rack(&windlass, &["evacuate", "--host", &host]).success().json();
    assert_eq!(report["stuck"], json!([]));
    assert_eq!(booked(&windlass)[&host], 0);
    assert_eq!(rack(&windlass, &["mark", &host, "up"]).success().json()["state"], "up");
    for format in ["hadoop", "kafka", "kubernetes"] {
        let words = ["rack", "topology", &id, "--format", format];
        let text = windlass.run(&words).unwrap().success().stdout;
        assert!(text.lines().count() >= 9 && text.contains("g0-0"), "{format}: {text}");
    }
    let map = windlass
        .run(&["rack", "map", "--placement", &id])
        .unwrap()
        .success()
        .stdout;
    assert!(map.contains("r0"), "{map}");
    let svg = windlass.run(&["rack", "map", "--svg"]).unwrap().success().stdout;
    assert!(svg.trim_start().starts_with("<svg"), "{svg}");
    let quota = rack(&windlass, &["quota", "ads", "--vcpus", "8"]).success().json();
    assert_eq!(quota["quota"]["vcpus"], 8);
    for id in [&id, &small] {
        rack(&windlass, &["release", id]).success();
    }
    assert!(booked(&windlass).values().all(|v| *v == 0));
    bad_input(&windlass, &scratch);
    daemon.terminate().unwrap();
    assert!(daemon.wait(PATIENCE).unwrap().status.success());
}

/// What can't be is told by its code, and the daemon goes on.
fn bad_input(windlass: &Windlass, scratch: &Scratch) {
    rack(windlass, &["place", "--vms", "10000000", "--groups", "10"]).failure(2);
    rack(windlass, &["place", "--vms", "0"]).failure(2);
    rack(windlass, &["place", "--vms", "1000", "--vcpus", "64", "--groups", "7"]).failure(4);
    rack(windlass, &["show", "nope"]).failure(3);
    rack(windlass, &["evacuate", "--rack", "nowhere"]).failure(3);
    let file = scratch.join("loop.json");
    let places = json!([{"id": "a", "level": "row", "within": "b"}, {"id": "b", "level": "row", "within": "a"}]);
    std::fs::write(&file, json!({ "places": places, "hosts": [] }).to_string()).unwrap();
    rack(windlass, &["load", &file.display().to_string()]).failure(2);
    rack(windlass, &["ls"]).success();
}

/// Hosts and the names of VMs on them.
type Vms = BTreeSet<(String, String)>;

/// What callers heard: by request id, or by the placement's id where they gave none.
#[derive(Debug, Default)]
struct Ledger {
    placed: BTreeMap<String, (Option<String>, Vms)>,
    /// Request ids that were sent, whatever came of it.
    sent: BTreeSet<String>,
    released: BTreeSet<String>,
}

/// Places, and now and then releases, until told to stop; every other request has an id.
fn client(windlass: Windlass, n: u64, round: u64, stop: Arc<AtomicBool>, ledger: Arc<Mutex<Ledger>>) {
    let mut turn = 0;
    while !stop.load(Ordering::SeqCst) {
        turn += 1;
        let request_id = (turn % 2 == 0).then(|| format!("q-{round}-{n}-{turn}"));
        let groups = (1 + turn % 3).to_string();
        let mut words = place_three(&groups);
        if let Some(id) = &request_id {
            words.extend(["--request-id", id]);
            ledger.lock().unwrap().sent.insert(id.clone());
        }
        let ended = rack(&windlass, &words);
        if !ended.status.success() {
            continue;
        }
        let placed = ended.json();
        let id = placed["id"].as_str().unwrap().to_owned();
        ledger
            .lock()
            .unwrap()
            .placed
            .insert(id.clone(), (request_id, vms_of(&placed)));
        if turn % 5 == 0 {
            ledger.lock().unwrap().released.insert(id.clone());
            rack(&windlass, &["release", &id]);
        }
    }
}

/// Everything that was acknowledged is there as it was told, and nothing is oversold. Returns how many placements stand, and how
/// many vCPUs are booked for more than that.
fn check(windlass: &Windlass, ledger: &Ledger) -> (usize, u64) {
    let mut standing = BTreeMap::new();
    for listed in rack(windlass, &["ls"]).success().json()["placements"]
        .as_array()
        .unwrap()
    {
        let id = listed["id"].as_str().unwrap().to_owned();
        let shown = rack(windlass, &["show", &id]).success().json();
        standing.insert(id, vms_of(&shown));
    }
    for (id, (_, vms)) in ledger.placed.iter().filter(|(id, _)| !ledger.released.contains(*id)) {
        assert_eq!(standing.get(id), Some(vms), "acknowledged, and not there: {id}");
    }
    let mut wanted: BTreeMap<String, u64> = BTreeMap::new();
    for (host, _) in standing.values().flatten() {
        *wanted.entry(host.clone()).or_default() += 1;
    }
    let mut more = 0;
    for (host, vcpus) in booked(windlass) {
        let stands = wanted.get(&host).copied().unwrap_or(0);
        assert!(vcpus >= stands, "{host}: {vcpus} booked, {stands} stand");
        more += vcpus - stands;
    }
    (standing.len(), more)
}

/// As [`check`], until what the dead left undecided was swept: then booked is exactly what stands.
fn settled(windlass: &Windlass, ledger: &Ledger) -> usize {
    for _ in 0..30 {
        if let (standing, 0) = check(windlass, ledger) {
            return standing;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    panic!("more is booked than stands: {:?}", check(windlass, ledger));
}

#[test]
fn a_daemon_that_is_killed_in_the_middle_of_placements_loses_nothing_that_it_acknowledged() {
    let (seed, kills) = (setting("WINDLASS_SEED", 1), setting("WINDLASS_RACK_KILLS", 4));
    let scratch = Scratch::new("rack-kill").unwrap();
    let windlass = Windlass::new(&scratch.join("state"))
        .unwrap()
        .env("WINDLASS_RACK_SCHEDULER__TENTATIVE_S", "1")
        .env("WINDLASS_RACK_SCHEDULER__SWEEP_EVERY_S", "1");
    let mut random = Random::new(seed);
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let mut daemon = serving(&windlass);
    rack(&windlass, &["load", &inventory(&scratch)]).success();
    for round in 0..kills {
        let stop = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|n| {
                let (windlass, stop, ledger) = (windlass.clone(), stop.clone(), ledger.clone());
                std::thread::spawn(move || client(windlass, n, round, stop, ledger))
            })
            .collect();
        let ended = daemon
            .kill_after(Duration::from_millis(1_000 + random.below(1_500)))
            .unwrap();
        assert!(ended.was_killed(), "{ended:?}");
        stop.store(true, Ordering::SeqCst);
        clients.into_iter().for_each(|c| c.join().unwrap());
        daemon = serving(&windlass);
        let ledger = ledger.lock().unwrap();
        check(&windlass, &ledger);
        // a request id that was acknowledged answers the same, and books nothing more
        let known = ledger
            .placed
            .values()
            .rev()
            .find_map(|(request, vms)| Some((request.clone()?, vms)));
        if let Some((request, vms)) = known {
            let groups = (1 + request.rsplit('-').next().unwrap().parse::<u64>().unwrap() % 3).to_string();
            let words = [place_three(&groups), vec!["--request-id", &request]].concat();
            let again = rack(&windlass, &words).success().json();
            assert_eq!(
                (&again["duplicate"], &vms_of(&again)),
                (&json!(true), vms),
                "seed {seed}: {request}"
            );
        }
    }
    let ledger = ledger.lock().unwrap();
    let standing = settled(&windlass, &ledger);
    assert!(
        ledger.placed.len() as u64 >= kills,
        "seed {seed}: {} acknowledged",
        ledger.placed.len()
    );
    println!(
        "seed {seed}: {kills} kills, {} acknowledged, {} released, {} request ids sent, {standing} stand",
        ledger.placed.len(),
        ledger.released.len(),
        ledger.sent.len()
    );
    daemon.terminate().unwrap();
    assert!(daemon.wait(PATIENCE).unwrap().status.success());
}

#[test]
fn one_of_two_schedulers_on_a_server_is_killed_and_the_other_goes_on() {
    let seed = setting("WINDLASS_SEED", 1);
    let scratch = Scratch::new("rack-lattice").unwrap();
    let server = Server::start(&scratch.join("n1")).unwrap();
    let host = |id: &str| {
        Windlass::new(&scratch.join(id))
            .unwrap()
            .env("WINDLASS_NATS", server.url())
            .env("WINDLASS_HOST_ID", id)
            .env("WINDLASS_RACK_SCHEDULER__TENTATIVE_S", "1")
            .env("WINDLASS_RACK_SCHEDULER__SWEEP_EVERY_S", "1")
    };
    let (one, two) = (host("h1"), host("h2"));
    let first = serving(&one);
    fleet::join(&one, &two, "h2");
    let second = serving(&two);
    // asks over the server whichever of them answers
    let anyone = Windlass::new(&scratch.join("ada"))
        .unwrap()
        .env("WINDLASS_NATS", server.url());
    fleet::join_person(&one, &anyone, "ada");
    rack(&anyone, &["load", &inventory(&scratch)]).success();
    let (stop, ledger) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(Mutex::new(Ledger::default())),
    );
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let (windlass, stop, ledger) = (anyone.clone(), stop.clone(), ledger.clone());
            std::thread::spawn(move || client(windlass, n, 0, stop, ledger))
        })
        .collect();
    let mut random = Random::new(seed);
    let ended = first
        .kill_after(Duration::from_millis(2_000 + random.below(1_000)))
        .unwrap();
    assert!(ended.was_killed(), "{ended:?}");
    let before = ledger.lock().unwrap().placed.len();
    std::thread::sleep(Duration::from_millis(2_500));
    stop.store(true, Ordering::SeqCst);
    clients.into_iter().for_each(|c| c.join().unwrap());
    let ledger = ledger.lock().unwrap();
    let after = ledger.placed.len();
    assert!(
        before > 0 && after > before,
        "seed {seed}: {before} acknowledged before, {after} in all"
    );
    let standing = settled(&anyone, &ledger);
    println!("seed {seed}: {before} acknowledged before the kill, {after} in all, {standing} stand");
    second.terminate().unwrap();
    assert!(second.wait(PATIENCE).unwrap().status.success());
}
