//! Requests over NATS while the actor that answers them panics at random, with a ledger of what each was answered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;

use bus::Bus;
use futures::StreamExt;
use integration::Random;
use runtime::{
    Call, Clock, Concern, Effect, House, HouseOptions, Limits, Recover, Restart, Routes, SystemClock, job_source,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use wire::{Address, Code, Headers, HostId, Request};

use super::faults::from_environment;
use super::*;

/// Where a request's actor dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
enum Fate {
    Lives,
    DiesBefore,
    DiesAfter,
    DiesInEffect,
    DiesInDecision,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
struct Strike {
    n: u64,
    fate: Fate,
}

impl Request for Strike {
    type Reply = u64;
    const CONCERN: &'static str = "mill";
    const VERB: &'static str = "strike";
    const ADDRESS: Address = Address::Host;
    const ABOUT: &'static str = "Strikes";
    fn sample() -> Self {
        Self {
            n: 1,
            fate: Fate::Lives,
        }
    }
    fn sample_reply() -> u64 {
        1
    }
}

/// How often each was carried out; outlives the actor.
type Struck = Arc<Mutex<BTreeMap<u64, u32>>>;

struct Mill(Struck);

impl Concern for Mill {
    const NAME: &'static str = "mill";
    fn routes() -> Routes<Self> {
        Routes::new().on(Self::strike)
    }
    fn observed(&self) -> Value {
        Value::Null
    }
}

impl Mill {
    fn strike(&mut self, Strike { n, fate }: Strike, _: &Call) -> Effect<Self, u64> {
        assert!(fate != Fate::DiesBefore, "the mill cracks before {n}");
        *self.0.lock().unwrap().entry(n).or_default() += 1;
        assert!(fate != Fate::DiesAfter, "the mill cracks after {n}");
        let effect = async move {
            tokio::task::yield_now().await;
            assert!(fate != Fate::DiesInEffect, "the stone falls at {n}");
        };
        match fate {
            Fate::DiesInDecision => Effect::then(effect, move |_, ()| panic!("the miller falls at {n}")),
            _ => Effect::run(async move {
                effect.await;
                Ok(n)
            }),
        }
    }
}

async fn house(bus: Arc<dyn Bus>, struck: Struck) -> House {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let database = state::Database::in_memory().unwrap();
    let limits = Limits {
        mailbox_messages_max: 64,
        restart: Restart {
            deaths_max: usize::MAX,
            window_s: 60,
            backoff_ms: 1,
            backoff_ms_max: 2,
        },
        ..Limits::default()
    };
    let house = House::open(HouseOptions {
        host: HostId::new("h1").unwrap(),
        version: "test".into(),
        mode: "lattice".into(),
        state_dir: "(none)".into(),
        bus,
        jobs: Arc::new(::jobs::Redb::new(
            database.clone(),
            job_source(&clock),
            ::jobs::Limits::default(),
        )),
        state: Arc::new(state::Redb::new(database, runtime::state_clock(&clock))),
        boot: runtime::ulid(&*clock),
        clock,
        recover: Recover::Resume,
        hosts: None,
    })
    .await
    .unwrap();
    house.start(limits, move || Mill(struck.clone())).await.unwrap();
    house
}

fn fate(random: &mut Random) -> Fate {
    match random.below(100) {
        0 => Fate::DiesBefore,
        1 => Fate::DiesAfter,
        2 => Fate::DiesInEffect,
        3 => Fate::DiesInDecision,
        _ => Fate::Lives,
    }
}

/// 10,000 requests, 64 at once: each is answered, `ok` means done once, `internal` means done at most once, and who hears `busy`
/// was not served and asks again.
#[tokio::test(flavor = "multi_thread")]
async fn requests_are_answered_while_actors_panic_at_random() {
    let seed = from_environment("WINDLASS_SEED", 3);
    let count = from_environment("WINDLASS_REQUESTS", 10_000);
    eprintln!("WINDLASS_SEED={seed} WINDLASS_REQUESTS={count}");
    let scratch = Scratch::new("panics").unwrap();
    let server = Server::start(&scratch.join("n1")).unwrap();
    let struck = Struck::default();
    let house = house(Arc::new(bus_at(&server.url()).await), struck.clone()).await;
    let asker = bus_at(&server.url()).await;
    let host = HostId::new("h1").unwrap();
    let mut random = Random::new(seed);
    let requests: Vec<Strike> = (0..count)
        .map(|n| Strike {
            n,
            fate: fate(&mut random),
        })
        .collect();
    let ask = async |request: Strike| loop {
        let patience = Headers {
            timeout_ms: Some(60_000),
            ..Headers::default()
        };
        match bus::call(&asker, &host, &request, patience).await {
            Err(e) if e.code == Code::Busy => {
                tokio::time::sleep(Duration::from_millis(e.retry_after_ms.expect("how long to wait") / 20)).await;
            }
            answer => return (request, answer),
        }
    };
    let answers: Vec<_> = futures::stream::iter(requests)
        .map(ask)
        .buffer_unordered(64)
        .collect()
        .await;
    assert_eq!(answers.len() as u64, count);
    let struck = struck.lock().unwrap().clone();
    let mut died = 0;
    for (Strike { n, fate }, answer) in answers {
        let times = struck.get(&n).copied().unwrap_or(0);
        match (answer, fate) {
            (Ok(answered), Fate::Lives) => assert_eq!((answered, times), (n, 1)),
            (Ok(_), _) => panic!("{n} was {fate:?} and answered ok"),
            (Err(e), Fate::Lives) => panic!("{n}: {e}"),
            (Err(e), _) => {
                assert_eq!(e.code, Code::Internal, "{n}: {e}");
                assert!(times <= 1, "{n} was carried out {times} times");
                assert_eq!(times == 0, fate == Fate::DiesBefore, "{n} {fate:?}: {e}");
                died += 1;
            }
        }
    }
    let status = house.status().await.unwrap();
    let mill = status.concerns.iter().find(|c| c.concern == "mill").unwrap();
    eprintln!("{died} answered internal, deaths {:?}", mill.deaths);
    assert!(mill.deaths["panic"] > count / 50, "{:?}", mill.deaths);
    assert_eq!(mill.mailbox_messages, 0);
    assert_eq!(house.drain(Duration::from_secs(10)).await, 0);
}
