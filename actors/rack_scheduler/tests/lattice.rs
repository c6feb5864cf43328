//! Three schedulers, each with a connection of its own, on one NATS server: nothing is oversold, nothing is lost. Prints how many
//! requests a second were committed, and how many compare-and-sets lost.
//!
//! `WINDLASS_RACK_LATTICE_REQUESTS` makes it longer; `WINDLASS_RACK_LATTICE_SERVERS=3` takes a cluster of three.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::StreamExt;
use integration::nats::{Cluster, Server};
use integration::scratch::Scratch;
use runtime::{Clock, SystemClock};
use wire::HostId;
use wire::rack_scheduler::{HostArg, HostState, InventoryArg, RackAsk, RackLoad, Resources, VmSpec};

use windlass_rack_scheduler::engine::{Scheduler, Settings};
use windlass_rack_scheduler::port::Silent;

const SCHEDULERS: usize = 3;
/// Requests of one scheduler that are under way at once.
const AT_ONCE: usize = 16;
const RACKS: u64 = 60;
const PATIENCE: Option<Duration> = Some(Duration::from_secs(20));

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

async fn scheduler(url: &str) -> Scheduler {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let settings = nats::Settings {
        servers: url.split(',').map(str::to_owned).collect(),
        ..nats::Settings::default()
    };
    let lattice = nats::Lattice::connect(settings, PATIENCE).await.expect("a connection");
    let state = nats::NatsState::open(&lattice, runtime::state_clock(&clock))
        .await
        .expect("a state");
    Scheduler::new(
        HostId::new("h1").expect("a token"),
        Arc::new(state),
        Arc::new(bus::InProcess::new()),
        clock,
        Arc::new(Silent),
        Settings::default(),
    )
}

fn inventory() -> InventoryArg {
    let hosts = (0..RACKS * 10).map(|n| HostArg {
        id: format!("r{}-h{}", n / 10, n % 10),
        rack: format!("r{}", n / 10),
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

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
#[expect(clippy::disallowed_methods, reason = "a test that prints a rate measures real time")]
async fn three_schedulers_on_one_server_oversell_nothing() {
    let scratch = Scratch::new("rack_lattice").unwrap();
    let (mut servers, mut cluster) = (None, None);
    let url = if number("WINDLASS_RACK_LATTICE_SERVERS", 1) == 3 {
        let three = cluster.insert(Cluster::start(scratch.path()).unwrap());
        three.servers.iter().map(Server::url).collect::<Vec<_>>().join(",")
    } else {
        servers.insert(Server::start(scratch.path()).unwrap()).url()
    };
    let mut schedulers = Vec::new();
    for _ in 0..SCHEDULERS {
        schedulers.push(scheduler(&url).await);
    }
    let load = RackLoad {
        inventory: inventory(),
        replace: false,
    };
    schedulers[0].load(&load).await.unwrap();
    let each = number("WINDLASS_RACK_LATTICE_REQUESTS", 300);
    let begun = Instant::now();
    let runs = schedulers.iter().cloned().enumerate().map(|(n, scheduler)| {
        tokio::spawn(async move {
            let requests = (0..each).map(|r| {
                let scheduler = scheduler.clone();
                async move {
                    let request = RackAsk {
                        vms: vec![VmSpec {
                            count: 2,
                            vcpus: 4,
                            memory_mib: 8192,
                            ..VmSpec::default()
                        }],
                        seed: r * SCHEDULERS as u64 + n as u64,
                        ..RackAsk::default()
                    };
                    scheduler.place(&request, None).await
                }
            });
            futures::stream::iter(requests)
                .buffer_unordered(AT_ONCE)
                .collect::<Vec<_>>()
                .await
        })
    });
    let mut placed = BTreeMap::new();
    let mut refused = Vec::new();
    for run in futures::future::join_all(runs).await {
        for outcome in run.unwrap() {
            match outcome {
                Ok(p) => {
                    let hosts: Vec<_> = p.groups.iter().flat_map(|g| &g.hosts).cloned().collect();
                    placed.insert(p.id, hosts);
                }
                Err(e) => refused.push(e),
            }
        }
    }
    let took = begun.elapsed().as_secs_f64();
    let sum = |of: &dyn Fn(&Scheduler) -> u64| schedulers.iter().map(of).sum::<u64>();
    let (lost, replanned) = (
        sum(&|s| s.counts.conflicts.load(Ordering::Relaxed)),
        sum(&|s| s.counts.replanned.load(Ordering::Relaxed)),
    );
    eprintln!(
        "{} committed in {took:.2} s: {:.0} requests/s; {lost} compare-and-sets lost ({:.2} a request), {replanned} planned anew, {} refused",
        placed.len(),
        placed.len() as f64 / took,
        lost as f64 / placed.len().max(1) as f64,
        refused.len()
    );
    assert!(refused.iter().all(|e| !e.is_permanent()), "{refused:?}");
    assert!(
        placed.len() as u64 >= each * SCHEDULERS as u64 / 2,
        "{} refused",
        refused.len()
    );
    // a scheduler that saw none of it reads what is booked
    let reader = scheduler(&url).await;
    reader.refresh().await.unwrap();
    let racks: Vec<String> = reader.view().racks().keys().cloned().collect();
    let mut booked: BTreeSet<(String, String, u32)> = BTreeSet::new();
    for rack in racks {
        let record = reader.read_rack(&rack).await.unwrap().1;
        assert_eq!(record.oversold(), Vec::<&str>::new());
        for booking in &record.bookings {
            for taken in &booking.taken {
                booked.extend(
                    taken
                        .vms
                        .iter()
                        .map(|vm| (booking.placement.clone(), taken.host.clone(), *vm)),
                );
            }
        }
    }
    let answered: BTreeSet<(String, String, u32)> = placed
        .iter()
        .flat_map(|(id, hosts)| hosts.iter().map(move |h| (id, h)))
        .flat_map(|(id, h)| {
            let number = |vm: &String| vm.rsplit('-').next().unwrap().parse().unwrap();
            h.vms.iter().map(move |vm| (id.clone(), h.host.clone(), number(vm)))
        })
        .collect();
    assert_eq!(booked, answered, "what was answered is what is booked");
    let some: Vec<&String> = placed.keys().take(20).collect();
    for id in &some {
        assert_eq!(reader.release(id).await.unwrap().vms, 2);
    }
}

/// A cluster refuses a compare-and-set while it has the message before of the same key in hand, though that was acknowledged and
/// the revision is right (error 10164 of nats-server). It is told as a conflict; nothing was written, and trying again is right.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn what_a_cluster_refuses_was_not_written_and_can_be_tried_again() {
    use state::{Key, State};
    const KEYS: usize = 8;
    const WRITES: u64 = 150;
    let scratch = Scratch::new("rack_lattice_cluster").unwrap();
    let cluster = Cluster::start(scratch.path()).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let settings = nats::Settings {
        servers: cluster.servers.iter().map(Server::url).collect(),
        ..nats::Settings::default()
    };
    let lattice = nats::Lattice::connect(settings, PATIENCE).await.unwrap();
    assert_eq!(lattice.replicas(), 3);
    let state = nats::NatsState::open(&lattice, runtime::state_clock(&clock))
        .await
        .unwrap();
    let chains = (0..KEYS).map(|n| {
        let state = state.clone();
        async move {
            let (key, value) = (Key::new(format!("cas/{n}")).unwrap(), |n: u64| {
                bytes::Bytes::from(n.to_string())
            });
            let (mut revision, mut written, mut refused) = (state.create(&key, value(0)).await.unwrap(), 0, 0u64);
            while written < WRITES {
                match state.update(&key, value(written + 1), revision).await {
                    Ok(new) => (revision, written) = (new, written + 1),
                    Err(error) if error.kind == state::Kind::Conflict => {
                        let found = state.get(&key).await.unwrap().unwrap();
                        assert_eq!(
                            (found.revision, found.value),
                            (revision, value(written)),
                            "nothing was written"
                        );
                        refused += 1;
                        assert!(refused < 10_000, "refused again and again");
                    }
                    // no answer in time: it was written, or not
                    Err(error) => {
                        assert_eq!(error.kind, state::Kind::Unavailable, "{error}");
                        let found = state.get(&key).await.unwrap().unwrap();
                        written += u64::from(found.value == value(written + 1));
                        assert_eq!(found.value, value(written));
                        revision = found.revision;
                    }
                }
            }
            let found = state.get(&key).await.unwrap().unwrap();
            assert_eq!((found.revision, found.value), (revision, value(WRITES)));
            refused
        }
    });
    let refused: u64 = futures::future::join_all(chains).await.into_iter().sum();
    eprintln!(
        "{} compare-and-sets by the only writer of each key; {refused} refused and tried again",
        KEYS as u64 * WRITES
    );
}
