//! The house: starts concerns and job runners, answers for itself and for jobs, drains.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use actix::{Actor, Addr};
use actix_rt::Arbiter;
use bus::{Bus, Service};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use jobs::{Jobs, Worker};
use serde_json::{Value, json};
use state::State;
use tokio::sync::{mpsc, oneshot};
use wire::house::{ConcernFailed, ConcernStatus, Hardening, Status, StatusReply};
use wire::{Code, ConcernName, ErrorBody, HostId};

use crate::concern::{Call, Concern, Effect, Routes};
use crate::hosts::{Beating, HostBook, Hosts};
use crate::inlet::Inlet;
use crate::job_book::JobBook;
use crate::job_desk::Desk;
use crate::job_runner::Runner;
use crate::keeper::{Drain, Failed, Keeper, MAILBOX_MESSAGES_MAX, Observe, Renew, Stop};
use crate::ledger::Ledger;
use crate::shelf::Shelf;
use crate::system::ActorSystem;
use crate::{Admission, Announcer, Clock, HostsOptions, Kind, Limits, Recover, RuntimeError, rfc3339, rounds};

/// How long a concern may take to say how it is, in milliseconds.
const OBSERVE_TIMEOUT_MS: u64 = 1_000;
/// Failures that may wait to be published; one concern fails once.
const FAILURES_MAX: usize = 64;

/// What a house is built from.
#[derive(Debug, Clone)]
pub struct HouseOptions {
    /// This host.
    pub host: HostId,
    /// windlass's version.
    pub version: String,
    /// `embedded` or `lattice`.
    pub mode: String,
    /// Where the state is kept, for status.
    pub state_dir: String,
    /// The bus to serve on.
    pub bus: Arc<dyn Bus>,
    /// The job store.
    pub jobs: Arc<dyn Jobs>,
    /// Time and randomness.
    pub clock: Arc<dyn Clock>,
    /// What to do with jobs that an earlier process left.
    pub recover: Recover,
    /// This process: another word after each start.
    pub boot: String,
    /// Small values that all hosts share.
    pub state: Arc<dyn State>,
    /// What the host says of itself; a single command says nothing.
    pub hosts: Option<HostsOptions>,
}

/// One concern as the house holds it; the concern's own type ends at these closures.
struct Room {
    ledger: Arc<Ledger>,
    inlet: Inlet,
    observe: Box<dyn Fn() -> BoxFuture<'static, Option<Value>> + Send + Sync>,
    renew: Box<dyn Fn(Limits) -> BoxFuture<'static, ()> + Send + Sync>,
    drain: Box<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>,
    end: Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>,
    arbiter: Arbiter,
}

struct Inner {
    options: HouseOptions,
    started_at: String,
    system: ActorSystem,
    desk: Arc<Desk>,
    failures: mpsc::Sender<Failed>,
    rooms: Mutex<BTreeMap<&'static str, Arc<Room>>>,
    hosts: Option<(Arc<Hosts>, Beating)>,
    hardening: OnceLock<Hardening>,
    #[cfg(test)]
    runners: Mutex<BTreeMap<&'static str, Runner>>,
}

/// A running house; clones are the same house.
#[derive(Clone)]
pub struct House(Arc<Inner>);

impl fmt::Debug for House {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("House").field("options", &self.0.options).finish()
    }
}

impl House {
    /// Opens a house without concerns: recovers the jobs and serves `house.status` and `jobs.*`. To be called on a
    /// multi-thread tokio runtime; job bodies run there.
    ///
    /// # Errors
    /// When the job store, the bus or the system refuses.
    pub async fn open(options: HouseOptions) -> Result<Self, RuntimeError> {
        let (desk, hosts) = foundations(&options).await?;
        let announcer = desk.announcer.clone();
        let (failures, failed) = mpsc::channel(FAILURES_MAX);
        let house = Self(Arc::new(Inner {
            started_at: rfc3339(announcer.clock.now_ms()),
            system: ActorSystem::start().await?,
            desk: desk.clone(),
            failures,
            rooms: Mutex::new(BTreeMap::new()),
            hosts,
            hardening: OnceLock::new(),
            options,
            #[cfg(test)]
            runners: Mutex::default(),
        }));
        tokio::spawn(publish_failures(announcer, failed));
        let inner = Arc::downgrade(&house.0);
        house.start(Limits::default(), move || Itself(inner.clone())).await?;
        house.start(Limits::default(), move || JobBook(desk.clone())).await?;
        if let Some((hosts, _)) = &house.0.hosts {
            let hosts = hosts.clone();
            house.start(Limits::default(), move || HostBook(hosts.clone())).await?;
        }
        Ok(house)
    }

    fn rooms(&self) -> MutexGuard<'_, BTreeMap<&'static str, Arc<Room>>> {
        self.0.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn ledger_of(&self, concern: &str) -> Arc<Ledger> {
        self.rooms()[concern].ledger.clone()
    }

    #[cfg(test)]
    pub(crate) fn runner_of(&self, concern: &str) -> Runner {
        self.0.runners.lock().unwrap()[concern].clone()
    }

    /// Starts a concern on a thread of its own, serves its verbs, runs its jobs (what an earlier process left is taken up as
    /// [`HouseOptions::recover`] says) and its rounds. `factory` builds it, and again after each death; what has to survive a
    /// death lives outside, in what the factory clones in. No part of the house may be in there: the house holds the factory.
    ///
    /// # Errors
    /// `Invalid` when a row of its routes belongs elsewhere or the concern runs already; what the bus or the system says.
    pub async fn start<A: Concern>(
        &self,
        limits: Limits,
        factory: impl Fn() -> A + Send + 'static,
    ) -> Result<(), RuntimeError> {
        let invalid = |why: String| RuntimeError::new(Kind::Invalid, format!("{} can't be started: {why}", A::NAME));
        let endpoints = A::routes().endpoints().map_err(invalid)?;
        let concern = ConcernName::new(A::NAME).map_err(|e| invalid(e.to_string()))?;
        if limits.mailbox_messages_max == 0 || limits.in_flight_max == 0 {
            return Err(invalid(
                "mailbox_messages_max and in_flight_max must be 1 or more".into(),
            ));
        }
        if self.rooms().contains_key(A::NAME) {
            return Err(invalid("it runs already".into()));
        }
        let service = Service {
            concern,
            host: self.0.options.host.clone(),
            endpoints,
            queue_requests_max: limits.mailbox_messages_max,
        };
        let ledger = Arc::new(Ledger::new(A::NAME, limits));
        let arbiter = self.0.system.arbiter().await?;
        let runner = Runner::new(self.0.desk.clone(), A::NAME);
        let shelf = Arc::new(Shelf::new());
        let keeper = self.keeper(&arbiter, shelf.clone(), ledger.clone(), runner.clone(), factory);
        #[cfg(test)]
        self.0.runners.lock().unwrap().insert(A::NAME, runner);
        let incoming = self.0.options.bus.serve(service).await?;
        let clock = self.0.options.clock.clone();
        let inlet = Inlet::open(incoming, keeper.clone(), shelf, ledger.clone(), clock).await;
        let room = Room::new(ledger, inlet, keeper, arbiter);
        self.rooms().insert(A::NAME, Arc::new(room));
        Ok(())
    }

    fn keeper<A: Concern>(
        &self,
        arbiter: &Arbiter,
        shelf: Arc<Shelf>,
        ledger: Arc<Ledger>,
        runner: Runner,
        factory: impl Fn() -> A + Send + 'static,
    ) -> Addr<Keeper<A>> {
        let (clock, failures) = (self.0.options.clock.clone(), self.0.failures.clone());
        let rounds = rounds::begin(ledger.clone());
        Keeper::start_in_arbiter(&arbiter.handle(), move |ctx| {
            ctx.set_mailbox_capacity(MAILBOX_MESSAGES_MAX);
            Keeper::new(Box::new(factory), shelf, ledger, runner, rounds, clock, failures)
        })
    }

    /// Returns when another process has this host's id: this one has to end.
    pub async fn evicted(&self) {
        match &self.0.hosts {
            Some((hosts, _)) => hosts.evicted.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// What jobs this house takes from now on; what it has in hand goes on.
    pub fn admit(&self, admission: Admission) {
        self.0.desk.set_admission(admission);
    }

    /// How the house and each concern is.
    ///
    /// # Errors
    /// When the job store can't be read.
    pub async fn status(&self) -> Result<StatusReply, ErrorBody> {
        let rooms: Vec<Arc<Room>> = self.rooms().values().cloned().collect();
        let options = &self.0.options;
        Ok(StatusReply {
            host: options.host.clone(),
            version: options.version.clone(),
            pid: std::process::id(),
            started_at: self.0.started_at.clone(),
            mode: options.mode.clone(),
            state_dir: options.state_dir.clone(),
            concerns: join_all(rooms.iter().map(|room| room.status())).await,
            jobs_open: options.jobs.open_count().await?,
            hardening: self.0.hardening.get().cloned(),
        })
    }

    /// Says in the status what this process gave up.
    pub fn say_hardening(&self, hardening: Hardening) {
        let _said_before = self.0.hardening.set(hardening);
    }

    /// Other limits from now on. Every concern is built anew by its factory as soon as nothing of it is under way; its queue
    /// stays.
    pub async fn renew(&self, limits: Limits, drain_timeout: Duration) {
        if let Some((hosts, _)) = &self.0.hosts {
            hosts.set_drain_timeout(drain_timeout);
        }
        let rooms: Vec<Arc<Room>> = self.rooms().values().cloned().collect();
        for room in rooms.iter().filter(|room| !room.is_the_house()) {
            (room.renew)(limits).await;
        }
    }

    /// What each concern was asked since boot.
    pub fn measures(&self) -> Vec<(&'static str, crate::Measures)> {
        let measures = |room: &Arc<Room>| (room.ledger.concern, room.ledger.measures());
        self.rooms().values().map(measures).collect()
    }

    /// Ends in good order: takes nothing new, finishes what is in hand within `timeout`, answers the rest `unavailable`,
    /// leaves jobs that still run to the next start. Returns how many concerns and jobs were not finished in time.
    pub async fn drain(&self, timeout: Duration) -> usize {
        let rooms: Vec<Arc<Room>> = self.rooms().values().cloned().collect();
        // whoever drains can still be asked how it goes
        let others = rooms.iter().filter(|room| !room.is_the_house());
        let closed = join_all(others.map(|room| room.inlet.close()));
        // what the bus was bringing already is answered, too
        let closed = tokio::time::timeout(timeout, closed);
        let (jobs_left, finished, _in_time) = futures::join!(
            self.0.desk.drain(timeout),
            join_all(rooms.iter().map(|room| room.drained(timeout))),
            closed
        );
        if let Some((_, beating)) = &self.0.hosts {
            beating.stop().await;
        }
        for room in &rooms {
            let _nobody_waits = room.inlet.close();
            (room.end)().await;
            room.arbiter.stop();
        }
        jobs_left + finished.iter().filter(|in_time| !**in_time).count()
    }
}

/// What stands before the first concern does: this host's id is its own, it beats, and what an earlier process of it left is
/// found.
pub(crate) async fn foundations(
    options: &HouseOptions,
) -> Result<(Arc<Desk>, Option<(Arc<Hosts>, Beating)>), RuntimeError> {
    let HouseOptions {
        jobs,
        bus,
        clock,
        host,
        recover,
        boot,
        state,
        hosts,
        ..
    } = options.clone();
    let worker = Worker {
        host: host.clone(),
        boot,
    };
    let announcer = Announcer { host, bus, clock };
    // two processes with one id would take each other's jobs: first the id, then the jobs
    let desk = Desk::new(jobs, announcer, worker, recover);
    let hosts = match hosts {
        None => None,
        Some(options) => {
            let hosts = Hosts::new(state, desk.clone(), options);
            Some((hosts.clone(), Beating::start(hosts).await?))
        }
    };
    desk.open().await?;
    Ok((desk, hosts))
}

impl Room {
    fn new<A: Concern>(ledger: Arc<Ledger>, inlet: Inlet, keeper: Addr<Keeper<A>>, arbiter: Arbiter) -> Self {
        let (observed, renewed, drained, ended) = (keeper.clone(), keeper.clone(), keeper.clone(), keeper);
        Self {
            ledger,
            inlet,
            observe: Box::new(move || {
                let answer = observed.send(Observe);
                async move { answer.await.ok().flatten() }.boxed()
            }),
            renew: Box::new(move |limits| {
                let asked = renewed.send(Renew(limits));
                asked.map(|_its_thread_may_be_gone| ()).boxed()
            }),
            drain: Box::new(move || {
                let (tell, told) = oneshot::channel();
                let asked = drained.send(Drain(tell));
                async move { asked.await.is_ok() && told.await.is_ok() }.boxed()
            }),
            end: Box::new(move || {
                let asked = ended.send(Stop);
                asked.map(|_its_thread_may_be_gone| ()).boxed()
            }),
            arbiter,
        }
    }

    /// One of the house's own, which have no limits of their own to change.
    fn is_the_house(&self) -> bool {
        [Itself::NAME, JobBook::NAME, HostBook::NAME].contains(&self.ledger.concern)
    }

    async fn status(&self) -> ConcernStatus {
        let patience = Duration::from_millis(OBSERVE_TIMEOUT_MS);
        let observed = match tokio::time::timeout(patience, (self.observe)()).await {
            Ok(Some(observed)) => observed,
            Ok(None) => Value::Null,
            Err(_) => json!({"unknown": format!("no word from it within {OBSERVE_TIMEOUT_MS} ms")}),
        };
        self.ledger.status(observed)
    }

    /// True when all was answered in time.
    async fn drained(&self, timeout: Duration) -> bool {
        tokio::time::timeout(timeout, (self.drain)()).await.unwrap_or(false)
    }
}

async fn publish_failures(announcer: Announcer, mut failed: mpsc::Receiver<Failed>) {
    while let Some(Failed { concern, deaths, cause }) = failed.recv().await {
        let host = announcer.host.clone();
        let concern = concern.to_owned();
        let failed = ConcernFailed {
            host,
            concern,
            deaths,
            cause,
        };
        announcer.announce(failed).await;
    }
}

/// The concern `house`: the daemon itself.
struct Itself(Weak<Inner>);

impl Concern for Itself {
    const NAME: &'static str = "house";
    fn routes() -> Routes<Self> {
        Routes::new().on(Self::status)
    }
    fn observed(&self) -> Value {
        Value::Null
    }
}

impl Itself {
    fn status(&mut self, _: Status, _: &Call) -> Effect<Self, StatusReply> {
        let inner = self.0.clone();
        Effect::run(async move {
            let gone = || ErrorBody::new(Code::Unavailable, "the daemon is ending");
            House(inner.upgrade().ok_or_else(gone)?).status().await
        })
    }
}
