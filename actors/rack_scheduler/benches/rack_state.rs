//! A large inventory through the state: 100,000 racks are loaded in parts as the command line sends them, read by a scheduler that
//! begins, placed in, and looked at; on the embedded state, and on one NATS server that syncs every write.
//!
//! `cargo bench -p windlass-rack_scheduler --bench rack_state`; `WINDLASS_RACK_STATE_RACKS` says how many racks.

#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use integration::nats::Server;
use integration::scratch::Scratch;
use runtime::{Clock, SystemClock};
use state::State;
use wire::HostId;
use wire::rack_scheduler::{
    HostArg, HostState, InventoryArg, RackAsk, RackInventory, RackList, RackLoad, Resources, VmSpec,
};

use windlass_rack_scheduler::engine::{Scheduler, Settings};
use windlass_rack_scheduler::port::Silent;

const HOSTS: u64 = 2;
/// Racks of one part: 2,000 hosts, as the command line sends them.
const PART_RACKS: u64 = 1_000;
const PLACEMENTS: u64 = 300;
const LOOKS: usize = 20;

fn scheduler(state: &Arc<dyn State>, clock: &Arc<dyn Clock>, name: &str) -> Scheduler {
    Scheduler::new(
        HostId::new(name).expect("a token"),
        state.clone(),
        Arc::new(bus::InProcess::new()),
        clock.clone(),
        Arc::new(Silent),
        Settings::default(),
    )
}

fn part(first: u64, racks: u64) -> RackLoad {
    let hosts = (first * HOSTS..(first + racks) * HOSTS).map(|n| HostArg {
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
    let inventory = InventoryArg {
        hosts: hosts.collect(),
        ..InventoryArg::default()
    };
    RackLoad {
        inventory,
        replace: false,
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

fn figures(mut took_ms: Vec<f64>) -> String {
    took_ms.sort_by(f64::total_cmp);
    let at = |percent: usize| took_ms[(took_ms.len() * percent / 100).min(took_ms.len() - 1)];
    format!("p50 {:.2} ms, p99 {:.2} ms, most {:.2} ms", at(50), at(99), at(100))
}

/// Milliseconds of each of so many calls, one after the other.
async fn each<F: Future<Output = ()>>(count: usize, one: impl Fn(usize) -> F) -> Vec<f64> {
    let mut took_ms = Vec::with_capacity(count);
    for n in 0..count {
        let begun = Instant::now();
        one(n).await;
        took_ms.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    took_ms
}

fn now_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap_or_default();
    let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

async fn run(what: &str, state: Arc<dyn State>, clock: Arc<dyn Clock>, racks: u64) {
    let loader = scheduler(&state, &clock, "h1");
    let begun = Instant::now();
    for first in (0..racks).step_by(PART_RACKS as usize) {
        let loaded = loader.load(&part(first, PART_RACKS.min(racks - first))).await;
        loaded.expect("a fine inventory");
    }
    println!(
        "{what}: {racks} racks of {HOSTS} hosts loaded in {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    drop(loader);
    let before = now_mib();
    let fresh = scheduler(&state, &clock, "h2");
    let begun = Instant::now();
    fresh.refresh().await.expect("a state");
    assert_eq!(fresh.view().racks().len() as u64, racks);
    println!(
        "{what}: a scheduler that begins has read them after {:.2} s, in {} MiB",
        begun.elapsed().as_secs_f64(),
        now_mib().saturating_sub(before)
    );
    let begun = Instant::now();
    fresh.place(&request(1), None).await.expect("it fits");
    println!(
        "{what}: its first placement, which makes the table: {:.0} ms",
        begun.elapsed().as_secs_f64() * 1e3
    );
    let placing = each(PLACEMENTS as usize, |n| {
        let fresh = fresh.clone();
        async move {
            fresh.place(&request(n as u64 + 2), None).await.expect("it fits");
        }
    });
    println!("{what}: place, one after the other: {}", figures(placing.await));
    let begun = Instant::now();
    let placed = futures::stream::iter(0..PLACEMENTS).map(|n| {
        let fresh = fresh.clone();
        async move { fresh.place(&request(n + 10_000), None).await.expect("it fits").id }
    });
    let placed: Vec<String> = placed.buffer_unordered(64).collect().await;
    println!(
        "{what}: place, 64 under way: {:.0}/s",
        PLACEMENTS as f64 / begun.elapsed().as_secs_f64()
    );
    let other = scheduler(&state, &clock, "h3");
    other.refresh().await.expect("a state");
    let all = 1 + 2 * PLACEMENTS as usize;
    let listing = each(LOOKS, |_| {
        let other = other.clone();
        async move {
            let found = other.list(&RackList::default()).await.expect("a list");
            assert_eq!(found.placements.len(), all);
        }
    });
    println!(
        "{what}: ls of {all} placements by another scheduler: {}",
        figures(listing.await)
    );
    let unknown = each(LOOKS, |_| async {
        other.show("nope").await.expect_err("there is none");
    });
    println!("{what}: show of an id that isn't there: {}", figures(unknown.await));
    let known = each(LOOKS, |n| {
        let (other, id) = (other.clone(), placed[n].clone());
        async move {
            other.show(&id).await.expect("it stands");
        }
    });
    println!("{what}: show of one that is: {}", figures(known.await));
    let inventory = each(LOOKS, |_| async {
        let report = other.inventory(&RackInventory::default()).await.expect("an inventory");
        assert_eq!(report.racks_total, racks);
    });
    println!("{what}: a page of the inventory: {}", figures(inventory.await));
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let racks = std::env::var("WINDLASS_RACK_STATE_RACKS")
        .ok()
        .and_then(|n| n.parse().ok());
    let racks: u64 = racks.unwrap_or(100_000);
    let scratch = Scratch::new("rack_state_bench").expect("a directory");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let directory = scratch.join("embedded");
    std::fs::create_dir_all(&directory).expect("a directory");
    let database = state::Database::open(&directory).await.expect("a database");
    let embedded = state::Redb::new(database, runtime::state_clock(&clock));
    run("embedded", Arc::new(embedded), clock.clone(), racks).await;
    let server = Server::start(&scratch.join("n1")).expect("a server");
    let settings = nats::Settings {
        servers: vec![server.url()],
        ..nats::Settings::default()
    };
    let lattice = nats::Lattice::connect(settings, Some(Duration::from_secs(20)))
        .await
        .expect("a connection");
    let shared = nats::NatsState::open(&lattice, runtime::state_clock(&clock))
        .await
        .expect("a state");
    run("one NATS server", Arc::new(shared), clock, racks).await;
}
