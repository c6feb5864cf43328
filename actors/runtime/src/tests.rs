//! The runtime as a whole: a house on the in-process bus with concerns that misbehave.

mod follow;
mod hosts;
mod jobs;
mod keeping;
mod rounds;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use ::jobs::Jobs;
use bus::{Bus, InProcess};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use wire::house::{ConcernState, ConcernStatus};
use wire::{Address, ErrorBody, Headers, HostId, Request};

use crate::{
    Call, Clock, Concern, Effect, House, HouseOptions, Limits, Recover, Restart, Routes, SystemClock, job_source,
};

/// How a bell is to be rung.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum How {
    #[default]
    Well,
    /// The handler waits until the test lets go, then rings well.
    Hold,
    /// The handler waits until the test lets go, then panics.
    HoldAndPanic,
    PanicInHandler,
    PanicInEffect,
    /// The effect waits until the test lets go, with the keeper's thread free, then panics.
    HoldAndPanicInEffect,
    PanicInDecision,
    PanicInDropOfEffect,
    /// The effect takes 300 ms.
    Slowly,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Ring {
    n: u64,
    #[serde(default)]
    how: How,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
struct Rung {
    n: u64,
    /// Which of the bells built so far rang.
    built: u64,
}

impl Request for Ring {
    type Reply = Rung;
    const CONCERN: &'static str = "bell";
    const VERB: &'static str = "ring";
    const ADDRESS: Address = Address::Host;
    const ABOUT: &'static str = "Rings";
    fn sample() -> Self {
        Self { n: 1, how: How::Well }
    }
    fn sample_reply() -> Rung {
        Rung { n: 1, built: 1 }
    }
}

/// What outlives a bell.
#[derive(Default)]
struct Tower {
    built: AtomicU64,
    rung: Mutex<Vec<u64>>,
    hold: Mutex<Option<mpsc::Receiver<()>>>,
    /// Lets an effect that holds go on.
    effect_go: Arc<tokio::sync::Notify>,
    /// Builds that panic, counted down.
    bad_builds: AtomicU64,
    observe_panics: AtomicU64,
}

impl Tower {
    /// A handler that holds goes on when something comes through (or the sender is dropped).
    fn holds(&self) -> mpsc::Sender<()> {
        let (go, hold) = mpsc::channel();
        *self.hold.lock().unwrap() = Some(hold);
        go
    }
    fn rung(&self) -> Vec<u64> {
        self.rung.lock().unwrap().clone()
    }
    fn wait_for_go(&self) {
        let hold = self.hold.lock().unwrap().take().expect("the test holds");
        let _go = hold.recv_timeout(Duration::from_secs(10));
    }
}

struct Bell {
    tower: Arc<Tower>,
    built: u64,
}

impl Bell {
    fn new(tower: Arc<Tower>) -> Self {
        let bad = tower
            .bad_builds
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        assert!(bad.is_err(), "this bell cracks while it is cast");
        let built = tower.built.fetch_add(1, Ordering::SeqCst) + 1;
        Self { tower, built }
    }
    fn ring(&mut self, Ring { n, how }: Ring, _: &Call) -> Effect<Self, Rung> {
        match how {
            How::Hold => self.tower.wait_for_go(),
            How::HoldAndPanic => {
                self.tower.wait_for_go();
                panic!("the bell cracks");
            }
            How::PanicInHandler => panic!("the bell cracks"),
            _ => {}
        }
        self.tower.rung.lock().unwrap().push(n);
        let rung = Rung { n, built: self.built };
        match how {
            How::PanicInEffect => Effect::run(async {
                tokio::task::yield_now().await;
                panic!("the clapper falls off")
            }),
            How::HoldAndPanicInEffect => {
                let go = self.tower.effect_go.clone();
                Effect::run(async move {
                    go.notified().await;
                    panic!("the clapper falls off")
                })
            }
            How::PanicInDecision => Effect::then(tokio::task::yield_now(), |_: &mut Self, ()| {
                panic!("the ringer changes his mind")
            }),
            How::PanicInDropOfEffect => {
                let heavy = Heavy;
                Effect::run(async move {
                    let _held = &heavy;
                    tokio::task::yield_now().await;
                    Ok(rung)
                })
            }
            How::Slowly => Effect::then(tokio::time::sleep(Duration::from_millis(300)), move |_, ()| Ok(rung)),
            _ => Effect::answer(Ok(rung)),
        }
    }
}

struct Heavy;

impl Drop for Heavy {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("dropped on a foot");
        }
    }
}

impl Concern for Bell {
    const NAME: &'static str = "bell";
    fn routes() -> Routes<Self> {
        Routes::new().on(Self::ring)
    }
    fn observed(&self) -> Value {
        let due = self
            .tower
            .observe_panics
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        assert!(due.is_err(), "nobody may look at this bell");
        json!({"built": self.built})
    }
}

/// The neighbour: says how often it was asked, and notices nothing.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
struct Ask {}

impl Request for Ask {
    type Reply = u64;
    const CONCERN: &'static str = "neighbour";
    const VERB: &'static str = "ask";
    const ADDRESS: Address = Address::Cluster;
    const ABOUT: &'static str = "Asks";
    fn sample() -> Self {
        Self {}
    }
    fn sample_reply() -> u64 {
        1
    }
}

struct Neighbour(u64);

impl Concern for Neighbour {
    const NAME: &'static str = "neighbour";
    fn routes() -> Routes<Self> {
        Routes::new().on(Self::ask)
    }
    fn observed(&self) -> Value {
        json!(self.0)
    }
}

impl Neighbour {
    fn ask(&mut self, _: Ask, _: &Call) -> Effect<Self, u64> {
        self.0 += 1;
        Effect::answer(Ok(self.0))
    }
}

fn host() -> HostId {
    HostId::new("h1").unwrap()
}

fn limits() -> Limits {
    Limits {
        restart: Restart {
            deaths_max: 3,
            window_s: 60,
            backoff_ms: 5,
            backoff_ms_max: 20,
        },
        ..Limits::default()
    }
}

/// A house on an in-process bus.
struct Site {
    bus: Arc<dyn Bus>,
    house: House,
}

impl Site {
    async fn new() -> Self {
        Self::with(state::Database::in_memory().unwrap(), Recover::Resume).await
    }
    async fn with(db: state::Database, recover: Recover) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let jobs = ::jobs::Redb::new(db, job_source(&clock), ::jobs::Limits::default());
        Self::of(Arc::new(jobs), clock, recover).await
    }
    async fn of(jobs: Arc<dyn Jobs>, clock: Arc<dyn Clock>, recover: Recover) -> Self {
        let bus: Arc<dyn Bus> = Arc::new(InProcess::new());
        let options = HouseOptions {
            host: host(),
            version: "0".into(),
            mode: "embedded".into(),
            state_dir: "(memory)".into(),
            bus: bus.clone(),
            jobs,
            boot: crate::ulid(&*clock),
            clock,
            recover,
            state: Arc::new(state::Redb::new(state::Database::in_memory().unwrap(), Arc::new(|| 0))),
            hosts: None,
        };
        let house = House::open(options).await.unwrap();
        Self { bus, house }
    }
    /// A house with a bell and a neighbour.
    async fn with_bell(limits: Limits) -> (Self, Arc<Tower>) {
        let (site, tower) = (Self::new().await, Arc::new(Tower::default()));
        site.add_bell(limits, &tower).await;
        site.house.start(Limits::default(), || Neighbour(0)).await.unwrap();
        (site, tower)
    }
    async fn add_bell(&self, limits: Limits, tower: &Arc<Tower>) {
        let tower = tower.clone();
        self.house
            .start(limits, move || Bell::new(tower.clone()))
            .await
            .unwrap();
    }
    async fn ring(&self, n: u64, how: How) -> Result<Rung, ErrorBody> {
        bus::call(&*self.bus, &host(), &Ring { n, how }, Headers::default()).await
    }
    async fn ask_neighbour(&self) -> u64 {
        bus::call(&*self.bus, &host(), &Ask {}, Headers::default())
            .await
            .unwrap()
    }
    async fn bell(&self) -> ConcernStatus {
        let status = self.house.status().await.unwrap();
        status.concerns.into_iter().find(|c| c.concern == "bell").unwrap()
    }
    async fn bell_is(&self, state: ConcernState) {
        eventually(|| async { self.bell().await.state == state }).await;
    }
    /// Messages that wait in the bell's mailbox, known without asking its thread.
    fn waiting(&self) -> u64 {
        self.house.ledger_of("bell").status(Value::Null).mailbox_messages
    }
}

/// Waits for what has to come; five seconds at most.
async fn eventually<F: Future<Output = bool>>(mut holds: impl FnMut() -> F) {
    for _ in 0..1_000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("what was waited for did not come");
}
