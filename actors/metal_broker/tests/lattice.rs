//! Brokers, each with a connection of its own, on one NATS server: of two for one machine one wins, a thousand times over; nothing is
//! handed out twice. Prints how many claims a second were made.
//!
//! `WINDLASS_METAL_ROUNDS` and `WINDLASS_METAL_CLAIMS` make it shorter or longer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use integration::nats::Server;
use integration::scratch::Scratch;
use runtime::{Clock, SystemClock};
use wire::HostId;
use wire::metal_broker::{ClusterAsk, MetalClaim, MetalRelease, RoleAsk};

use windlass_metal_broker::engine::{Broker, Settings};
use windlass_metal_broker::fake::Fake;
use windlass_metal_broker::port::{Provider, Silent};
use windlass_metal_broker::scenario::{self, Random};

const PATIENCE: Option<Duration> = Some(Duration::from_secs(20));
/// Claims of one broker that are under way at once.
const AT_ONCE: usize = 64;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

async fn broker(url: &str, host: &str, provider: Arc<Fake>) -> Broker {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let settings = nats::Settings {
        servers: vec![url.to_owned()],
        ..nats::Settings::default()
    };
    let lattice = nats::Lattice::connect(settings, PATIENCE).await.expect("a connection");
    let state = nats::NatsState::open(&lattice, runtime::state_clock(&clock))
        .await
        .expect("a state");
    let broker = Broker::new(
        HostId::new(host).expect("a token"),
        Arc::new(state),
        Arc::new(bus::InProcess::new()),
        clock,
        vec![provider as Arc<dyn Provider>],
        Arc::new(Silent),
        Settings::default(),
    );
    broker.refresh().await.expect("a state that can be read");
    broker
}

fn claim() -> MetalClaim {
    MetalClaim {
        tenant: "acme".into(),
        ask: ClusterAsk {
            roles: vec![RoleAsk {
                role: "node".into(),
                count: 1,
                cores: 1,
                memory_gib: 1,
                ..RoleAsk::default()
            }],
            ..ClusterAsk::default()
        },
        policy: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn of_two_brokers_on_a_server_one_wins_each_round() {
    let scratch = Scratch::new("metal_race").unwrap();
    let server = Server::start(scratch.path()).unwrap();
    let fake = Arc::new(Fake::new("acme", "hall", scenario::machines(&mut Random(3), 1, 1)));
    let one = broker(&server.url(), "h1", fake.clone()).await;
    one.read_providers(None).await;
    let two = broker(&server.url(), "h2", fake.clone()).await;
    for round in 0..number("WINDLASS_METAL_ROUNDS", 1_000) {
        let (request, other) = (claim(), claim());
        let (a, b) = tokio::join!(one.claim(&request, None), two.claim(&other, None));
        let won: Vec<_> = [&a, &b].into_iter().flatten().collect();
        assert_eq!(won.len(), 1, "round {round}: {a:?} {b:?}");
        assert_eq!(fake.inside().taken.values().next(), Some(&won[0].id), "round {round}");
        let release = MetalRelease {
            tenant: "acme".into(),
            id: won[0].id.clone(),
        };
        one.release(&release).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
#[expect(clippy::disallowed_methods, reason = "a test that prints a rate measures real time")]
async fn three_brokers_on_a_server_hand_out_nothing_twice() {
    let scratch = Scratch::new("metal_rate").unwrap();
    let server = Server::start(scratch.path()).unwrap();
    let claims = number("WINDLASS_METAL_CLAIMS", 900);
    let machines = scenario::machines(&mut Random(4), claims as usize + 50, 40);
    let fake = Arc::new(Fake::new("acme", "hall", machines));
    let mut brokers = Vec::new();
    for host in ["h1", "h2", "h3"] {
        let broker = broker(&server.url(), host, fake.clone()).await;
        if host == "h1" {
            broker.read_providers(None).await;
        }
        brokers.push(broker);
    }
    let begun = Instant::now();
    let runs = brokers.iter().cloned().map(|broker| {
        tokio::spawn(async move {
            let all = (0..claims / 3).map(|_| {
                let broker = broker.clone();
                async move { broker.claim(&claim(), None).await }
            });
            futures::stream::iter(all)
                .buffer_unordered(AT_ONCE)
                .collect::<Vec<_>>()
                .await
        })
    });
    let (mut taken, mut made, mut refused) = (BTreeSet::new(), 0_u64, Vec::new());
    for run in futures::future::join_all(runs).await {
        for outcome in run.unwrap() {
            match outcome {
                Ok(cluster) => {
                    made += 1;
                    for member in cluster.members {
                        assert!(taken.insert(member.machine.clone()), "{} twice", member.machine);
                    }
                }
                Err(error) => refused.push(error),
            }
        }
    }
    let took = begun.elapsed().as_secs_f64();
    eprintln!(
        "{made} claims in {took:.2} s: {:.0} claims/s; {} not made",
        made as f64 / took,
        refused.len()
    );
    assert!(
        refused.iter().all(|e| e.kind == windlass_metal_broker::Kind::Busy),
        "{refused:?}"
    );
    assert_eq!(
        fake.inside().taken.len() as u64,
        made,
        "the provider knows each, and no other"
    );
}
