//! Three NATS servers and two hosts, each in a network namespace of its own: cables are pulled and put back.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::time::Duration;

use serde_json::Value;
use windlass_integration::fleet;
use windlass_integration::nats::{Cluster, Server};
use windlass_integration::netns::{Namespace, Network};
use windlass_integration::process::{Running, Windlass};
use windlass_integration::scratch::Scratch;

const PATIENCE: Duration = Duration::from_secs(90);

struct Host {
    windlass: Windlass,
    _running: Running,
}

impl Host {
    /// The first host of a fleet.
    fn start(scratch: &Scratch, place: &Namespace, id: &str, urls: &str) -> Self {
        Self::serving(Self::at(scratch, place, id, urls), id)
    }

    /// Another one, which `member` lets in.
    fn join(member: &Host, scratch: &Scratch, place: &Namespace, id: &str, urls: &str) -> Self {
        let windlass = Self::at(scratch, place, id, urls);
        fleet::join(&member.windlass, &windlass, id);
        Self::serving(windlass, id)
    }

    fn at(scratch: &Scratch, place: &Namespace, id: &str, urls: &str) -> Windlass {
        Windlass::new(&scratch.join(id))
            .unwrap()
            .inside(place)
            .env("WINDLASS_NATS", urls)
            .env("WINDLASS_HOST_ID", id)
            .env("WINDLASS_HOST__BEAT_MS", "500")
            .env("WINDLASS_NATS__PING_INTERVAL_S", "1")
            .env("WINDLASS_NATS__ACK_TIMEOUT_S", "1")
    }

    fn serving(windlass: Windlass, id: &str) -> Self {
        let running = windlass.spawn(&["serve"]).unwrap();
        let serves = running.wait_for_line(PATIENCE, |line| line.contains("serving"));
        serves.unwrap_or_else(|| panic!("{id} serves"));
        Self {
            windlass,
            _running: running,
        }
    }

    /// What this host's daemon says of host `id`; null while it can't say.
    fn sees(&self, id: &str) -> Value {
        let said = self.windlass.run(&["hosts", "ls", "--json"]).unwrap();
        let listed: Value = serde_json::from_str(said.stdout.trim()).unwrap_or_default();
        let hosts = listed["hosts"].as_array().cloned().unwrap_or_default();
        hosts.into_iter().find(|h| h["host"] == id).unwrap_or_default()
    }

    fn waits_until(&self, id: &str, state: &str) {
        let mut seen = Value::Null;
        for _ in 0..450 {
            seen = self.sees(id);
            if seen["state"] == state {
                return;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        panic!("{id} is not {state}: {seen}");
    }

    /// Asks host `id` over the servers.
    fn asks(&self, id: &str) -> bool {
        let asked = self.windlass.clone().env("WINDLASS_HOST_ID", id);
        asked.run(&["status", "--json"]).unwrap().status.success()
    }
}

/// How long a cable is out: `make torture` says 60.
fn cut_s() -> Duration {
    let said = std::env::var("WINDLASS_CUT_S").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(said.unwrap_or(5))
}

/// Minutes, for most of it is time-outs of servers and the pauses of reconnects.
#[test]
#[ignore = "takes minutes; make torture runs it"]
fn hosts_in_namespaces_outlive_pulled_cables() {
    let scratch = Scratch::new("netns").unwrap();
    let network = Network::start(5).unwrap();
    let [n1, n2, n3, at_a, at_b] = &network.hosts[..] else {
        panic!("{network:?}")
    };
    let cluster = Cluster::start_in([n1, n2, n3], &scratch.join("nats")).unwrap();
    let urls = cluster.urls();
    let a = Host::start(&scratch, at_a, "a", &urls);
    let b = Host::join(&a, &scratch, at_b, "b", &urls);
    a.waits_until("b", "up");
    assert!(a.asks("b"), "over the network");

    // a server goes: the leader of what hosts share; the hosts' beats go on at another
    let leader = cluster.leader_of("KV_windlass").expect("a leader");
    let place = [n1, n2, n3][leader];
    place.cut().unwrap();
    std::thread::sleep(cut_s());
    a.waits_until("b", "up");
    b.waits_until("a", "up");
    place.heal().unwrap();
    cluster.wait_whole().unwrap();

    // a host goes: it is lost to the other, and comes back by itself, the same process
    let before = a.sees("b");
    at_b.cut().unwrap();
    a.waits_until("b", "lost");
    std::thread::sleep(cut_s());
    at_b.heal().unwrap();
    a.waits_until("b", "up");
    b.waits_until("a", "up");
    assert_eq!(a.sees("b")["boot"], before["boot"]);
}

#[test]
fn a_lone_server_serves_hosts_in_namespaces() {
    let scratch = Scratch::new("netns").unwrap();
    let network = Network::start(2).unwrap();
    let server = Server::start_in(&network.hosts[0], &scratch.join("nats")).unwrap();
    let host = Host::start(&scratch, &network.hosts[1], "a", &server.url());
    host.waits_until("a", "up");
    assert!(server.url().contains("10.77.0.1"));
}
