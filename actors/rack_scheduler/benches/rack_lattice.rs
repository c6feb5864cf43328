//! Committed single-rack requests a second through the lattice, on one NATS server that syncs every write (or on a cluster of
//! three), beside what the same server takes of bare compare-and-sets. First over the bus: three daemons of the binary, asked by
//! messages from outside, from the request to its answer. Then from `Scheduler::place` on: three schedulers in this process, each
//! with a connection of its own.
//!
//! Needs the binary, `cargo build --release --bin windlass`. `cargo bench -p windlass-rack_scheduler --bench rack_lattice`; `WINDLASS_RACK_LATTICE_SERVERS=3` takes a cluster,
//! `WINDLASS_RACK_LATTICE_REQUESTS` says how many requests, `WINDLASS_RACK_LATTICE_AT_ONCE` how many of each scheduler are under way.

#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bus::Bus;
use bytes::Bytes;
use futures::StreamExt;
use integration::fleet;
use integration::nats::{Cluster, Server};
use integration::process::{Running, Windlass};
use integration::scratch::Scratch;
use runtime::{Clock, SystemClock};
use state::{Key, State};
use wire::rack_scheduler::{
    HostArg, HostState, InventoryArg, Placement, RackAsk, RackLoad, RackPlace, Resources, VmSpec,
};
use wire::{Code, Headers, HostId};

use windlass_rack_scheduler::Result;
use windlass_rack_scheduler::engine::{Scheduler, Settings};
use windlass_rack_scheduler::port::Silent;

const SCHEDULERS: usize = 3;
const RACKS: u64 = 500;
const HOSTS: u64 = 20;
const PATIENCE: Option<Duration> = Some(Duration::from_secs(20));

fn number(name: &str, default: u64) -> u64 {
    let name = format!("WINDLASS_RACK_LATTICE_{name}");
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

async fn lattice(url: &str) -> nats::Lattice {
    let settings = nats::Settings {
        servers: url.split(',').map(str::to_owned).collect(),
        ..nats::Settings::default()
    };
    nats::Lattice::connect(settings, PATIENCE).await.expect("a connection")
}

async fn lattice_state(url: &str, clock: &Arc<dyn Clock>) -> Arc<dyn State> {
    let state = nats::NatsState::open(&lattice(url).await, runtime::state_clock(clock)).await;
    Arc::new(state.expect("a state"))
}

async fn scheduler(url: &str, n: usize) -> Scheduler {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    Scheduler::new(
        HostId::new(&format!("h{n}")).expect("a token"),
        lattice_state(url, &clock).await,
        Arc::new(bus::InProcess::new()),
        clock,
        Arc::new(Silent),
        Settings::default(),
    )
}

fn inventory() -> InventoryArg {
    let hosts = (0..RACKS * HOSTS).map(|n| HostArg {
        id: format!("r{}-h{}", n / HOSTS, n % HOSTS),
        rack: format!("r{}", n / HOSTS),
        capacity: Resources {
            vcpus: 64,
            memory_mib: 262_144,
            ..Resources::default()
        },
        labels: BTreeMap::new(),
        state: HostState::Up,
    });
    InventoryArg {
        hosts: hosts.collect(),
        ..InventoryArg::default()
    }
}

/// So many a second of what `one` does with the number it is given, `at_once` under way.
async fn rate<F: Future<Output = ()>>(count: u64, at_once: usize, one: impl Fn(u64) -> F) -> f64 {
    let begun = Instant::now();
    futures::stream::iter(0..count)
        .map(one)
        .buffer_unordered(at_once)
        .collect::<Vec<()>>()
        .await;
    count as f64 / begun.elapsed().as_secs_f64()
}

/// What the server takes: compare-and-sets of as many keys as are under way, and first writes of small keys.
async fn ceiling(url: &str) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let state = lattice_state(url, &clock).await;
    for at_once in [1usize, 3, 16, 64] {
        for kib in [1usize, 32] {
            let value = Bytes::from(vec![b'x'; kib << 10]);
            let each = (if at_once < 16 { 200 } else { 60 }) * at_once.min(16) / at_once.min(4);
            let begun = Instant::now();
            let chains = (0..at_once).map(|n| {
                let (state, value) = (state.clone(), value.clone());
                async move {
                    let at = Key::new(format!("bench/cas-{at_once}-{kib}-{n}")).expect("a key");
                    let mut revision = state.put(&at, value.clone()).await.expect("a write");
                    for _ in 0..each {
                        revision = match state.update(&at, value.clone(), revision).await {
                            Ok(revision) => revision,
                            // a cluster refuses now and then while it still has the message before in hand
                            Err(error) if error.kind == state::Kind::Conflict => {
                                state.get(&at).await.expect("a read").expect("a value").revision
                            }
                            Err(error) => panic!("{error}"),
                        };
                    }
                }
            });
            futures::future::join_all(chains).await;
            let done = (each + 1) * at_once;
            println!(
                "ceiling: {:.0} compare-and-sets/s of {kib} KiB, {at_once} under way",
                done as f64 / begun.elapsed().as_secs_f64()
            );
        }
    }
    let value = Bytes::from(vec![b'x'; 512]);
    let creates = rate(3_000, 64, |n| {
        let (state, value) = (state.clone(), value.clone());
        async move {
            let at = Key::new(format!("bench/create-{n}")).expect("a key");
            state.create(&at, value).await.expect("a first write");
        }
    });
    println!(
        "ceiling: {:.0} first writes/s of 512 bytes, 64 under way",
        creates.await
    );
}

/// Three daemons, and a connection to ask over.
struct Daemons {
    bus: Arc<dyn Bus>,
    running: Vec<(HostId, Running)>,
}

impl Daemons {
    async fn start(url: &str, scratch: &Scratch) -> Self {
        let mut running = Vec::new();
        let place = |id: &str| {
            let windlass = Windlass::new(&scratch.join(id)).expect("the binary: cargo build --release --bin windlass");
            windlass.env("WINDLASS_NATS", url).env("WINDLASS_HOST_ID", id)
        };
        let first = place("d0");
        for n in 0..SCHEDULERS {
            let id = format!("d{n}");
            let windlass = place(&id);
            if n > 0 {
                fleet::join(&first, &windlass, &id);
            }
            let daemon = windlass.spawn(&["serve"]).expect("it starts");
            let said = daemon.wait_for_line(Duration::from_secs(60), |line| line.contains("serving"));
            said.expect("it serves");
            running.push((HostId::new(&id).expect("a token"), daemon));
        }
        let identity = nats::Identity {
            version: "bench".into(),
            started_at: "2026-01-01T00:00:00Z".into(),
        };
        let bus = nats::NatsBus::open(&lattice(url).await, identity).await.expect("a bus");
        // placements change something, so they are signed by somebody who may
        fleet::join_person(&first, &place("asker"), "asker");
        let asker = trust::Place::at(&scratch.join("asker"));
        let belonging = asker.belonging().expect("it is read").expect("it joined");
        let (key, _) = asker.identity().expect("it is read").expect("a key");
        let now = bus.fleet_now().await.expect("the servers' time");
        let me = Some((belonging.me, key));
        let fleet = trust::Fleet::new(me, trust::Book::default(), trust::Bounds::default(), now);
        Self {
            bus: Arc::new(trust::SignedBus::asking(Arc::new(bus), fleet)),
            running,
        }
    }
    async fn counted(&self) -> [u64; 4] {
        let mut sums = [0; 4];
        for (host, _) in &self.running {
            let status = bus::call(&*self.bus, host, &wire::house::Status {}, Headers::default()).await;
            let status = status.expect("a status");
            let concern = status.concerns.iter().find(|c| c.concern == "rack_scheduler");
            let observed = &concern.expect("the concern").observed;
            for (sum, name) in sums.iter_mut().zip([
                "rack_writes_total",
                "conflicts_total",
                "replanned_total",
                "committed_total",
            ]) {
                *sum += observed[name].as_u64().unwrap_or(0);
            }
        }
        sums
    }
    fn end(self) {
        for (_, daemon) in &self.running {
            daemon.terminate().expect("a signal");
        }
        for (host, daemon) in self.running {
            let ended = daemon.wait(Duration::from_secs(60)).expect("it ends");
            assert!(ended.status.success(), "{host}: {ended:?}");
        }
    }
}

fn request(seed: u64) -> RackAsk {
    RackAsk {
        vms: vec![VmSpec {
            count: 2,
            vcpus: 4,
            memory_mib: 8192,
            ..VmSpec::default()
        }],
        seed,
        ..RackAsk::default()
    }
}

/// From the request message to the answer; whichever daemon takes it.
async fn over_the_bus(daemons: &Daemons, count: u64, at_once: usize, with_ids: bool) -> Run {
    let host = HostId::new("asker").expect("a token");
    let begun = Instant::now();
    let requests = (0..count).map(|n| {
        let (bus, host) = (daemons.bus.clone(), host.clone());
        async move {
            let asked = Instant::now();
            let headers = Headers {
                timeout_ms: Some(60_000),
                request_id: with_ids.then(|| format!("bus-{at_once}-{n}")),
                ..Headers::default()
            };
            let ask = RackPlace { ask: request(n) };
            let answer = bus::call(&*bus, &host, &ask, headers).await;
            (answer, asked.elapsed().as_secs_f64() * 1e3)
        }
    });
    let answers = futures::stream::iter(requests)
        .buffer_unordered(at_once)
        .collect::<Vec<_>>()
        .await;
    let seconds = begun.elapsed().as_secs_f64();
    let mut run = Run {
        placed: BTreeMap::new(),
        refused: 0,
        seconds,
        took_ms: vec![],
    };
    for (answer, took_ms) in answers {
        run.took_ms.push(took_ms);
        match answer {
            Ok(placement) => drop(run.placed.insert(placement.id.clone(), placement)),
            Err(error) if matches!(error.code, Code::Busy) => run.refused += 1,
            Err(error) => panic!("refused for good: {error:?}"),
        }
    }
    run.took_ms.sort_by(f64::total_cmp);
    run
}

/// What a run came to.
struct Run {
    placed: BTreeMap<String, Placement>,
    refused: usize,
    seconds: f64,
    /// From each request's message to its answer, sorted; empty where no message was sent.
    took_ms: Vec<f64>,
}

async fn run(schedulers: &[Scheduler], each: u64, at_once: usize, with_ids: bool) -> Run {
    let begun = Instant::now();
    let runs = schedulers.iter().cloned().enumerate().map(|(n, scheduler)| {
        tokio::spawn(async move {
            let requests = (0..each).map(|r| {
                let scheduler = scheduler.clone();
                // a task for each request, as each message has one in the daemon
                let placing = tokio::spawn(async move {
                    let request = request(r * SCHEDULERS as u64 + n as u64);
                    let id = with_ids.then(|| format!("request-{at_once}-{n}-{r}"));
                    scheduler.place(&request, id.as_deref()).await
                });
                async move { placing.await.expect("a task that ends") }
            });
            futures::stream::iter(requests)
                .buffer_unordered(at_once)
                .collect::<Vec<Result<Placement>>>()
                .await
        })
    });
    let (mut placed, mut refused) = (BTreeMap::new(), 0);
    for outcomes in futures::future::join_all(runs).await {
        for outcome in outcomes.expect("a task that ends") {
            match outcome {
                Ok(p) => drop(placed.insert(p.id.clone(), p)),
                Err(error) if !error.is_permanent() => refused += 1,
                Err(error) => panic!("refused for good: {error}"),
            }
        }
    }
    Run {
        placed,
        refused,
        seconds: begun.elapsed().as_secs_f64(),
        took_ms: vec![],
    }
}

fn report(what: &str, run: &Run, counts: [u64; 4], before: [u64; 4]) {
    let [writes, lost, replanned, _] = std::array::from_fn(|n| counts[n] - before[n]);
    let done = run.placed.len() as f64;
    println!(
        "{what}: {} committed in {:.2} s: {:.0} requests/s; {:.1} requests a write of a rack's record; {lost} compare-and-sets lost ({:.2} % of writes), {replanned} planned anew ({:.3} a request), {} answered busy",
        run.placed.len(),
        run.seconds,
        done / run.seconds,
        done / writes.max(1) as f64,
        lost as f64 * 100.0 / (writes + lost).max(1) as f64,
        replanned as f64 / done.max(1.0),
        run.refused,
    );
    if let Some(most) = run.took_ms.last() {
        let at = |percent: usize| run.took_ms[run.took_ms.len() * percent / 100];
        println!(
            "  from message to answer: p50 {:.1} ms, p99 {:.1} ms, most {most:.1} ms",
            at(50),
            at(99)
        );
    }
}

fn counted(schedulers: &[Scheduler]) -> [u64; 4] {
    let sum = |of: &dyn Fn(&Scheduler) -> u64| schedulers.iter().map(of).sum::<u64>();
    [
        sum(&|s| s.counts.rack_writes.load(Ordering::Relaxed)),
        sum(&|s| s.counts.conflicts.load(Ordering::Relaxed)),
        sum(&|s| s.counts.replanned.load(Ordering::Relaxed)),
        sum(&|s| s.counts.committed.load(Ordering::Relaxed)),
    ]
}

/// What was answered is what is booked, as a scheduler reads it that saw none of it.
async fn check(url: &str, placed: &BTreeMap<String, Placement>) {
    let reader = scheduler(url, 9).await;
    reader.refresh().await.expect("a state");
    let mut booked: BTreeSet<(String, String, u32)> = BTreeSet::new();
    for (_, record) in reader.view().racks().values() {
        assert_eq!(record.oversold(), Vec::<&str>::new());
        for booking in &record.bookings {
            for taken in &booking.taken {
                let vms = taken.vms.iter();
                booked.extend(vms.map(|vm| (booking.placement.clone(), taken.host.clone(), *vm)));
            }
        }
    }
    let mut answered = BTreeSet::new();
    for (id, placement) in placed {
        for host in placement.groups.iter().flat_map(|g| &g.hosts) {
            for vm in &host.vms {
                let number = vm.rsplit('-').next().and_then(|n| n.parse().ok());
                answered.insert((id.clone(), host.host.clone(), number.expect("a VM's number")));
            }
        }
    }
    assert!(booked == answered, "what was answered is what is booked");
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let scratch = Scratch::new("rack_lattice_bench").expect("a directory");
    let (mut servers, mut cluster) = (None, None);
    let three = number("SERVERS", 1) == 3;
    let url = if three {
        let three = cluster.insert(Cluster::start(scratch.path()).expect("three servers"));
        three.servers.iter().map(Server::url).collect::<Vec<_>>().join(",")
    } else {
        servers.insert(Server::start(scratch.path()).expect("a server")).url()
    };
    println!(
        "{SCHEDULERS} schedulers, {}; {RACKS} racks of {HOSTS} hosts; a request is 2 VMs in one group",
        match three {
            true => "three servers, three replicas",
            false => "one server, sync_interval: always",
        }
    );
    ceiling(&url).await;
    let mut schedulers = Vec::new();
    for n in 0..SCHEDULERS {
        schedulers.push(scheduler(&url, n).await);
    }
    let load = RackLoad {
        inventory: inventory(),
        replace: false,
    };
    schedulers[0].load(&load).await.expect("a fine inventory");
    for scheduler in &schedulers {
        scheduler.refresh().await.expect("a state");
    }
    let count = number("REQUESTS", 12_000);
    let mut placed = BTreeMap::new();
    let under_way = [number("AT_ONCE", 64) as usize, 16];
    let daemons = Daemons::start(&url, &scratch).await;
    // the daemons read the inventory, and warm up
    placed.extend(over_the_bus(&daemons, 300, 16, false).await.placed);
    for at_once in under_way {
        for with_ids in [false, true] {
            let before = daemons.counted().await;
            let some = if with_ids { count / 4 } else { count };
            let run = over_the_bus(&daemons, some, SCHEDULERS * at_once, with_ids).await;
            let ids = if with_ids { ", with request ids" } else { "" };
            let what = format!("over the bus, {} under way{ids}", SCHEDULERS * at_once);
            report(&what, &run, daemons.counted().await, before);
            placed.extend(run.placed);
        }
    }
    daemons.end();
    for scheduler in &schedulers {
        scheduler.refresh().await.expect("a state");
    }
    let each = count / SCHEDULERS as u64;
    for at_once in under_way {
        for with_ids in [false, true] {
            let before = counted(&schedulers);
            let some = if with_ids { each / 4 } else { each };
            let run = run(&schedulers, some, at_once, with_ids).await;
            let what = match with_ids {
                false => format!("from Scheduler::place on, {at_once} of each under way"),
                true => format!("from Scheduler::place on, {at_once} of each under way, with request ids"),
            };
            report(&what, &run, counted(&schedulers), before);
            placed.extend(run.placed);
        }
    }
    check(&url, &placed).await;
    println!("what was answered is what is booked: {} placements", placed.len());
}
