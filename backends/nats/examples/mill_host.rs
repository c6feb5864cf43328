//! A host of the fault tests: a whole house over NATS, whose one concern grinds. A process of its own, so that it can be
//! killed. Not for people.
//!
//! `mill_host URLS HOST LEASE_MS SKEW_MS`: its clock is SKEW_MS off (may be negative).

use std::sync::Arc;
use std::time::Duration;

use runtime::{
    Call, Clock, Concern, Effect, HostsOptions, House, HouseOptions, Kinds, Limits, OnCrash, Recover, Routes,
    SystemClock, job_source, state_clock,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use windlass_nats::{Identity, JetstreamJobs, JobsOptions, Lattice, NatsBus, NatsState, Settings};
use wire::hosts::{HostCapacity, HostFacts};
use wire::job::{JobAccepted, JobId};
use wire::{Address, HostId, Request};

/// Grinds for so many steps of 20 ms.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
struct Grind {
    steps: u64,
}

impl Request for Grind {
    type Reply = JobAccepted;
    const CONCERN: &'static str = "mill";
    const VERB: &'static str = "grind";
    const ADDRESS: Address = Address::Cluster;
    const ABOUT: &'static str = "Grinds";
    fn sample() -> Self {
        Self { steps: 1 }
    }
    fn sample_reply() -> JobAccepted {
        JobAccepted {
            job: JobId("x".into()),
            duplicate: false,
        }
    }
}

/// Answers after so many milliseconds.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
struct Doze {
    ms: u64,
}

impl Request for Doze {
    type Reply = u64;
    const CONCERN: &'static str = "mill";
    const VERB: &'static str = "doze";
    const ADDRESS: Address = Address::Cluster;
    const ABOUT: &'static str = "Answers late";
    fn sample() -> Self {
        Self { ms: 1 }
    }
    fn sample_reply() -> u64 {
        1
    }
}

struct Mill(Kinds);

impl Concern for Mill {
    const NAME: &'static str = "mill";
    fn routes() -> Routes<Self> {
        Routes::new().job::<Grind>().on(Self::doze)
    }
    fn observed(&self) -> Value {
        Value::Null
    }
    fn jobs(&self) -> Kinds {
        self.0.clone()
    }
}

impl Mill {
    fn doze(&mut self, request: Doze, _: &Call) -> Effect<Self, u64> {
        Effect::run(async move {
            tokio::time::sleep(Duration::from_millis(request.ms)).await;
            Ok(request.ms)
        })
    }
}

/// The host's clock, wrong by some time.
#[derive(Debug)]
struct Skewed {
    right: SystemClock,
    off_ms: i64,
}

impl Clock for Skewed {
    fn now_ms(&self) -> u64 {
        self.right.now_ms().saturating_add_signed(self.off_ms)
    }
    fn monotonic_ms(&self) -> u64 {
        self.right.monotonic_ms()
    }
    fn random(&self) -> u128 {
        self.right.random()
    }
}

fn facts() -> HostFacts {
    HostFacts {
        rack: None,
        row: None,
        zone: None,
        labels: [].into(),
        capacity: HostCapacity::default(),
        concerns: vec!["mill".into()],
        version: "test".into(),
    }
}

/// Longer than any request, shorter than some jobs.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(800);

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn open(urls: &str, host: &str, lease_ms: u64, off_ms: i64) -> Result<House, Failure> {
    let host = HostId::new(host)?;
    let clock: Arc<dyn Clock> = Arc::new(Skewed {
        right: SystemClock::new(),
        off_ms,
    });
    let settings = Settings {
        servers: urls.split(',').map(str::to_owned).collect(),
        name: host.to_string(),
        ..Settings::default()
    };
    let lattice = Lattice::connect(settings, Some(Duration::from_secs(20))).await?;
    let identity = Identity {
        version: "0.0.0".into(),
        started_at: "2026-11-24T03:00:00Z".into(),
    };
    let options = JobsOptions {
        limits: jobs::Limits {
            lease_ms,
            deliveries_max: 50,
            ..JobsOptions::default().limits
        },
        duplicate_window_ms: 100,
    };
    Ok(House::open(HouseOptions {
        host,
        version: "test".into(),
        mode: "lattice".into(),
        state_dir: "(none)".into(),
        bus: Arc::new(NatsBus::open(&lattice, identity).await?),
        jobs: Arc::new(JetstreamJobs::open(&lattice, job_source(&clock), options).await?),
        state: Arc::new(NatsState::open(&lattice, state_clock(&clock)).await?),
        boot: runtime::ulid(&*clock),
        clock,
        recover: Recover::Resume,
        hosts: Some(HostsOptions {
            facts: facts(),
            beat_every_ms: 500,
            drain_timeout: Duration::from_secs(1),
            earlier_boot: None,
            membership: None,
        }),
    })
    .await?)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [urls, host, lease_ms, off_ms] = words.as_slice() else {
        return Err("usage: mill_host URLS HOST LEASE_MS SKEW_MS".into());
    };
    let house = open(urls, host, lease_ms.parse()?, off_ms.parse()?).await?;
    let me = host.clone();
    let kinds = Kinds::new()
        .parallel_max(2)
        .on(OnCrash::Resume, move |context, request: Grind| {
            let me = me.clone();
            async move {
                for step in 0..request.steps {
                    context.check()?;
                    context.progress("grinding", step, request.steps, "steps");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Ok(json!({"host": me, "attempt": context.job().attempts}))
            }
        });
    house.start(Limits::default(), move || Mill(kinds.clone())).await?;
    eprintln!("serving");
    // it ends by being killed, or in good order
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    terminate.recv().await;
    let left = house.drain(DRAIN_TIMEOUT).await;
    eprintln!("drained, {left} left");
    Ok(())
}
