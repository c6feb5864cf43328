//! Faults of servers and connections, with a ledger of what was acknowledged: nothing of it may be missing afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bus::{Bus, Endpoint, Received, Service, answer_bytes, call_json};
use bytes::Bytes;
use futures::StreamExt;
use integration::Random;
use integration::nats::{Cluster, Link};
use serde_json::json;
use state::{Key, Prefix, State};
use wire::subject::EventFilter;
use wire::{Address, Code, ConcernName, Headers, HostId, Subject};

use super::*;
use crate::NatsState;

/// How many kills, and how long a cut: `make torture` says more.
pub(super) fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}

fn seed() -> u64 {
    let seed = from_environment("WINDLASS_SEED", 4);
    eprintln!("WINDLASS_SEED={seed}");
    seed
}

fn made() -> Subject {
    Subject::event("mill", "made").unwrap()
}

fn here() -> Subject {
    Subject::host(&HostId::new("h1").unwrap(), "mill", "here").unwrap()
}

fn service(queue_requests_max: usize) -> Service {
    Service {
        concern: ConcernName::new("mill").unwrap(),
        host: HostId::new("h1").unwrap(),
        endpoints: vec![Endpoint {
            verb: "here",
            address: Address::Host,
        }],
        queue_requests_max,
    }
}

/// What is done to a server.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Kill,
    Freeze,
    LoseStore,
}

/// Writes keys and events as fast as they are acknowledged; the ledger has those that were.
struct Ledger {
    keys: BTreeMap<String, u64>,
    events: Vec<u64>,
    unknown: u64,
}

async fn write_until(stop: Arc<AtomicBool>, state: NatsState, bus: NatsBus) -> Ledger {
    let mut ledger = Ledger {
        keys: BTreeMap::new(),
        events: Vec::new(),
        unknown: 0,
    };
    for n in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let name = format!("ledger/{n}");
        match state
            .create(&Key::new(name.clone()).unwrap(), Bytes::from(n.to_string()))
            .await
        {
            Ok(revision) => drop(ledger.keys.insert(name, revision)),
            Err(e) => {
                assert_eq!(e.kind, state::Kind::Unavailable, "{e}");
                ledger.unknown += 1;
            }
        }
        match bus.publish(&made(), Bytes::from(n.to_string())).await {
            Ok(()) => ledger.events.push(n),
            Err(_unknown) => ledger.unknown += 1,
        }
    }
    ledger
}

/// A cluster under writes, its leader killed, frozen, or without its store; then every acknowledged write is looked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_keeps_what_it_acknowledged() {
    let scratch = Scratch::new("faults").unwrap();
    let mut cluster = Cluster::start(scratch.path()).unwrap();
    let bus = bus_at(&cluster.urls()).await;
    let state = NatsState::open(bus.lattice(), Arc::new(|| 1)).await.unwrap();
    let mut heard = bus.subscribe(EventFilter::All, 1 << 20).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write_until(stop.clone(), state.clone(), bus.clone()));
    let mut random = Random::new(seed());
    let rounds = from_environment("WINDLASS_KILLS", 3).min(60);
    for round in 0..rounds {
        let fault = [Fault::Kill, Fault::LoseStore, Fault::Freeze][usize::try_from(round % 3).unwrap()];
        tokio::time::sleep(Duration::from_millis(200 + random.below(600))).await;
        let victim = cluster
            .leader_of("KV_windlass")
            .unwrap_or_else(|| usize::try_from(random.below(3)).unwrap());
        eprintln!("{fault:?} of {}", cluster.servers[victim].name());
        let server = &mut cluster.servers[victim];
        match fault {
            Fault::Kill => server.kill().unwrap(),
            Fault::LoseStore => {
                server.kill().unwrap();
                server.lose_store().unwrap();
            }
            Fault::Freeze => server.freeze().unwrap(),
        }
        tokio::time::sleep(Duration::from_millis(500 + random.below(2_500))).await;
        match fault {
            Fault::Freeze => server.thaw().unwrap(),
            _ => server.restart().unwrap(),
        }
        cluster.wait_whole().unwrap();
        caught_up(&cluster, &["KV_windlass", "WINDLASS_EVENTS"]).await;
    }
    stop.store(true, Ordering::SeqCst);
    let ledger = writer.await.unwrap();
    eprintln!(
        "{} keys, {} events, {} unknown",
        ledger.keys.len(),
        ledger.events.len(),
        ledger.unknown
    );
    assert!(ledger.keys.len() > 10 && ledger.events.len() > 10, "the writer got on");
    for (name, revision) in &ledger.keys {
        let entry = state.get(&Key::new(name.clone()).unwrap()).await.unwrap();
        assert_eq!(entry.map(|e| e.revision), Some(*revision), "{name} was acknowledged");
    }
    // every acknowledged event is heard, in order; none twice
    let mut missing = ledger.events.iter().copied().peekable();
    let mut last = None;
    while let Some(wanted) = missing.peek().copied() {
        let next = tokio::time::timeout(Duration::from_secs(60), heard.next()).await;
        let Some(Received::Event { payload, .. }) = next.expect("in time") else {
            panic!("a gap before {wanted}")
        };
        let n: u64 = std::str::from_utf8(&payload).unwrap().parse().unwrap();
        assert!(last.is_none_or(|last| last < n), "{n} after {last:?}");
        last = Some(n);
        if n == wanted {
            missing.next();
        }
    }
}

/// Until all replicas of our streams have what the leader has: two servers without their stores would be two faults at once.
pub(super) async fn caught_up(cluster: &Cluster, streams: &[&str]) {
    let current = |name: &str| {
        let jsz = cluster
            .leader_of(name)
            .and_then(|n| cluster.servers[n].monitor("/jsz?accounts=true&streams=true").ok());
        let streams = jsz
            .and_then(|jsz| jsz["account_details"][0]["stream_detail"].as_array().cloned())
            .unwrap_or_default();
        let replicas = streams
            .iter()
            .find(|s| s["name"] == name)
            .map(|s| s["cluster"]["replicas"].clone());
        replicas
            .and_then(|r| r.as_array().cloned())
            .is_some_and(|r| r.len() == 2 && r.iter().all(|one| one["current"] == true && one["offline"] != true))
    };
    for _ in 0..600 {
        if streams.iter().copied().all(current) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the replicas don't catch up");
}

/// The cable of a host is pulled and put back: others hear that it isn't there, it serves again, its subscribers miss nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_cut_off_comes_back_whole() {
    let scratch = Scratch::new("faults").unwrap();
    let server = Server::start(&scratch.join("n1")).unwrap();
    let link = Link::to(server.port()).unwrap();
    let host = bus_with(Settings {
        ping_interval_ms: 500,
        ..settings(&format!("nats://127.0.0.1:{}", link.port()))
    })
    .await;
    let asker = bus_at(&server.url()).await;
    let mut incoming = host.serve(service(64)).await.unwrap();
    tokio::spawn(async move {
        while let Some(delivery) = incoming.next().await {
            delivery.responder.answer(answer_bytes(Ok(json!(1))));
        }
    });
    let mut heard = host.subscribe(EventFilter::All, 1 << 16).await.unwrap();
    let patience = Headers {
        timeout_ms: Some(1_000),
        ..Headers::default()
    };
    let ask = || call_json(&asker, &HERE, &NOTHING, patience.clone());
    assert_eq!(ask().await, Ok(json!(1)));
    link.cut();
    let cut = Duration::from_secs(from_environment("WINDLASS_CUT_S", 4));
    let until = tokio::time::Instant::now() + cut;
    let mut published = 0_u64;
    while tokio::time::Instant::now() < until {
        let code = ask().await.expect_err("it can't answer").code;
        assert!(matches!(code, Code::Deadline | Code::Unavailable), "{code}");
        asker
            .publish(&made(), Bytes::from(published.to_string()))
            .await
            .unwrap();
        published += 1;
    }
    connecting::until(|| !host.lattice().is_connected()).await;
    let own = host.publish(&made(), Bytes::new()).await.expect_err("not acknowledged");
    assert_eq!(own.kind, bus::Kind::Unavailable);
    link.heal();
    for n in 0..published {
        let next = tokio::time::timeout(Duration::from_secs(90), heard.next())
            .await
            .expect("in time");
        let Some(Received::Event { payload, .. }) = next else {
            panic!("{next:?}")
        };
        assert_eq!(payload, n.to_string(), "in order, none lost, none twice");
    }
    assert_eq!(ask().await, Ok(json!(1)));
}

static NOTHING: serde_json::Value = serde_json::Value::Null;
static HERE: std::sync::LazyLock<Subject> = std::sync::LazyLock::new(here);

/// A server with a queue of 1,000 that can't keep up; counts what it served.
async fn slow_server(bus: &NatsBus) -> Arc<AtomicU64> {
    let mut incoming = bus.serve(service(1_000)).await.unwrap();
    let served = Arc::new(AtomicU64::new(0));
    let counted = served.clone();
    tokio::spawn(async move {
        while let Some(delivery) = incoming.next().await {
            if counted.fetch_add(1, Ordering::SeqCst).is_multiple_of(64) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            delivery.responder.answer(answer_bytes(Ok(json!(1))));
        }
    });
    served
}

/// 100,000 at a queue of 1,000: each is served or hears `busy`, and memory stays bounded.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_answered_message_by_message() {
    let scratch = Scratch::new("faults").unwrap();
    let server = Server::start(&scratch.join("n1")).unwrap();
    let (serving, asker) = (bus_at(&server.url()).await, bus_at(&server.url()).await);
    let served = slow_server(&serving).await;
    let count = from_environment("WINDLASS_FLOOD", 100_000);
    let patience = Headers {
        timeout_ms: Some(120_000),
        ..Headers::default()
    };
    let before_kib = resident_kib();
    let asks = (0..count).map(|_| call_json(&asker, &HERE, &NOTHING, patience.clone()));
    let heard = futures::future::join_all(asks).await;
    let grown_kib = resident_kib().saturating_sub(before_kib);
    let mut outcomes: BTreeMap<String, u64> = BTreeMap::new();
    for answer in &heard {
        let outcome = match answer {
            Ok(_) => "ok".to_owned(),
            Err(e) if e.code == Code::Busy && e.retry_after_ms.is_some() => "busy".to_owned(),
            Err(e) => e.to_string(),
        };
        *outcomes.entry(outcome).or_default() += 1;
    }
    let served = served.load(Ordering::SeqCst);
    let ends = [&serving, &asker].map(|bus| (bus.lattice().slow_messages(), bus.lattice().connects()));
    let told = format!(
        "{outcomes:?}, {served} served, {grown_kib} KiB more, (dropped, connects) of server and asker {ends:?}"
    );
    eprintln!("{told}");
    let [ok, busy] = ["ok", "busy"].map(|outcome| outcomes.get(outcome).copied().unwrap_or_default());
    assert_eq!((ok + busy, ok), (count, served), "neither served nor busy: {told}");
    assert!(busy > 0, "it was a flood: {told}");
    assert_eq!(ends, [(0, 1), (0, 1)], "{told}");
    // the askers' own futures and answers are most of it
    assert!(grown_kib < 1 << 20, "{grown_kib} KiB");
    assert_eq!(
        call_json(&asker, &HERE, &NOTHING, patience).await,
        Ok(json!(1)),
        "and it goes on"
    );
}

/// The same from a client that isn't ours, and sends all before it looks for an answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_from_outside_is_answered_message_by_message() {
    let scratch = Scratch::new("faults").unwrap();
    let server = Server::start(&scratch.join("n1")).unwrap();
    let serving = bus_at(&server.url()).await;
    let served = slow_server(&serving).await;
    let count = usize::try_from(from_environment("WINDLASS_FLOOD", 100_000)).unwrap();
    let options = async_nats::ConnectOptions::new().subscription_capacity(2 * count);
    let outside = options.connect(server.url()).await.unwrap();
    let inbox = outside.new_inbox();
    let mut answers = outside.subscribe(format!("{inbox}.*")).await.unwrap();
    for n in 0..count {
        let sent = outside.publish_with_reply(here().to_string(), format!("{inbox}.{n}"), Bytes::from_static(b"null"));
        sent.await.unwrap();
    }
    let mut heard = vec![0_u8; count];
    let (mut ok, mut busy) = (0_usize, 0_usize);
    while ok + busy < count {
        let answer = tokio::time::timeout(Duration::from_secs(60), answers.next()).await;
        let dropped = serving.lattice().slow_messages();
        let told = || format!("{ok} ok, {busy} busy of {count}, {served:?} served, {dropped} dropped");
        let answer = answer
            .unwrap_or_else(|_| panic!("no further answer: {}", told()))
            .unwrap();
        let n: usize = answer.subject.rsplit('.').next().unwrap().parse().unwrap();
        heard[n] += 1;
        match answer.payload.as_ref() {
            b"{\"ok\":1}" => ok += 1,
            other if other.starts_with(b"{\"error\":{\"code\":\"busy\"") => busy += 1,
            other => panic!("{}: {}", String::from_utf8_lossy(other), told()),
        }
    }
    eprintln!("{ok} ok, {busy} busy");
    assert!(heard.iter().all(|times| *times == 1), "each is answered once");
    assert_eq!(u64::try_from(ok).unwrap(), served.load(Ordering::SeqCst));
    assert!(busy > 0, "it was a flood");
    assert_eq!(serving.lattice().slow_messages(), 0);
}

fn resident_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A decision over several keys stands on the servers as on redb.
#[tokio::test(flavor = "multi_thread")]
async fn several_keys_are_decided_on_at_once() {
    use state::decision::{Decisions, Wish};
    let scratch = Scratch::new("faults").unwrap();
    let server = Server::start(&scratch.join("n1")).unwrap();
    let bus = bus_at(&server.url()).await;
    let state: Arc<dyn State> = Arc::new(NatsState::open(bus.lattice(), Arc::new(|| 1)).await.unwrap());
    let hosts: Vec<Key> = (0..4).map(|n| Key::new(format!("room/h{n}")).unwrap()).collect();
    let place = |id: String, decisions: Decisions, hosts: Vec<Key>| async move {
        let mut wishes = Vec::new();
        for key in hosts {
            let revision = decisions.read(&key).await.unwrap().revision;
            wishes.push(Wish {
                key,
                revision,
                value: Some(Bytes::from(id.clone())),
            });
        }
        decisions.change(&id, &wishes, 60_000).await
    };
    let rivals = (0..8).map(|n| {
        let decisions = Decisions::new(state.clone(), Arc::new(|| 1));
        place(format!("d{n}"), decisions, hosts.clone())
    });
    let outcomes = futures::future::join_all(rivals).await;
    for e in outcomes.iter().filter_map(|o| o.as_ref().err()) {
        assert_eq!(e.kind, state::Kind::Conflict, "{e}");
    }
    let decisions = Decisions::new(state.clone(), Arc::new(|| 60_001));
    decisions.sweep().await.unwrap();
    let mut values = Vec::new();
    for key in &hosts {
        values.push(decisions.read(key).await.unwrap().value);
    }
    assert!(
        values.iter().all(|v| *v == values[0]),
        "all of one, or none: {values:?}"
    );
    assert_eq!(values[0].is_some(), outcomes.iter().any(Result::is_ok));
    assert!(
        state
            .list(&Prefix::below(&Key::new("decision").unwrap()), None, 9)
            .await
            .unwrap()
            .is_empty()
    );
}
