//! Hosts that share a state, queues and a bus: seen, lost, told, drained; one process an id.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::jobs::{Jobs, JobsError, Limits as JobLimits, NewJob, Outcome, Queues, Submitted, Taken, Target, Ticket, Worker};
use async_trait::async_trait;
use bus::{Bus, InProcess, Received};
use futures::future::BoxFuture;
use serde_json::json;
use state::{Database, State};
use wire::event::CloudEvent;
use wire::hosts::{
    HostCapacity, HostCordon, HostDrain, HostFacts, HostInfo, HostList, HostLost, HostOrder, HostShow, HostState,
    HostUncordon,
};
use wire::job::{Job, JobId, JobState, Progress};
use wire::subject::EventFilter;
use wire::{Code, ErrorBody, Headers, HostId, Request};

use super::eventually;
use super::jobs::{Crush, Work, add_mill};
use crate::job_runner::Runner;
use crate::{
    Clock, HostsOptions, House, HouseOptions, OnCrash, Recover, RuntimeError, SystemClock, job_source, state_clock,
};

const BEAT_MS: u64 = 100;
const LEASE_MS: u64 = 900;

/// What all hosts of a test share.
struct Fleet {
    bus: Arc<dyn Bus>,
    state: Arc<dyn State>,
    jobs: Arc<dyn Jobs>,
    clock: Arc<dyn Clock>,
}

fn id(name: &str) -> HostId {
    HostId::new(name).unwrap()
}

fn facts(rack: &str) -> HostFacts {
    HostFacts {
        rack: Some(rack.into()),
        row: None,
        zone: None,
        labels: BTreeMap::new(),
        capacity: HostCapacity::default(),
        concerns: vec!["mill".into()],
        version: "0".into(),
    }
}

impl Fleet {
    fn new() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let db = Database::in_memory().unwrap();
        let limits = JobLimits {
            lease_ms: LEASE_MS,
            ..JobLimits::default()
        };
        Self {
            bus: Arc::new(InProcess::new()),
            state: Arc::new(state::Redb::new(db.clone(), state_clock(&clock))),
            jobs: Arc::new(::jobs::Redb::new(db, job_source(&clock), limits)),
            clock,
        }
    }

    async fn open(&self, name: &str, jobs: Arc<dyn Jobs>, earlier_boot: Option<String>) -> Result<House, RuntimeError> {
        House::open(HouseOptions {
            host: id(name),
            version: "0".into(),
            mode: "test".into(),
            state_dir: "(memory)".into(),
            bus: self.bus.clone(),
            jobs,
            clock: self.clock.clone(),
            recover: Recover::Resume,
            boot: crate::ulid(&*self.clock),
            state: self.state.clone(),
            hosts: Some(HostsOptions {
                facts: facts(name),
                beat_every_ms: BEAT_MS,
                drain_timeout: Duration::from_millis(300),
                earlier_boot,
                membership: None,
            }),
        })
        .await
    }

    async fn host(&self, name: &str) -> House {
        self.open(name, self.jobs.clone(), None).await.unwrap()
    }

    /// A host that grinds, one job at a time.
    async fn mill(&self, name: &str) -> (House, Runner) {
        let house = self.host(name).await;
        let (_, runner) = add_mill(&house, OnCrash::Resume, 1).await;
        (house, runner)
    }

    async fn ask<R: Request>(&self, request: &R) -> Result<R::Reply, ErrorBody> {
        bus::call(&*self.bus, &id("nobody"), request, Headers::default()).await
    }

    async fn info(&self, name: &str) -> Option<HostInfo> {
        self.ask(&HostShow { host: id(name) }).await.ok()
    }

    async fn host_is(&self, name: &str, state: HostState) {
        eventually(|| async { self.info(name).await.is_some_and(|i| i.state == state) }).await;
    }

    async fn job(&self, id: &JobId) -> Job {
        self.jobs.show(id).await.unwrap()
    }

    async fn job_is(&self, job: &JobId, state: JobState, host: &str) {
        eventually(|| async {
            let job = self.job(job).await;
            job.state == state && job.host == Some(id(host))
        })
        .await;
    }
}

async fn submit(runner: &Runner, work: Work, target: Target) -> JobId {
    let request = serde_json::to_value(Crush { work }).unwrap();
    runner
        .submit("crush", request, Headers::default(), target)
        .await
        .unwrap()
        .job
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_host_is_lost_told_once_and_welcome_when_it_is_back() {
    let fleet = Fleet::new();
    let filter = EventFilter::Exactly(wire::ConcernName::new("hosts").unwrap(), "lost".into());
    let mut lost = fleet.bus.subscribe(filter, 64).await.unwrap();
    let (_a, _b, c) = (fleet.host("a").await, fleet.host("b").await, fleet.host("c").await);
    for name in ["a", "b", "c"] {
        fleet.host_is(name, HostState::Up).await;
    }
    let listed = fleet.ask(&HostList {}).await.unwrap().hosts;
    let racks: Vec<_> = listed.iter().map(|h| h.facts.rack.clone().unwrap()).collect();
    assert_eq!(racks, ["a", "b", "c"]);
    let boot = fleet.info("c").await.unwrap().boot;
    drop(c);
    fleet.host_is("c", HostState::Lost).await;
    // the watchers of two hosts saw it; one said so
    tokio::time::sleep(Duration::from_millis(4 * BEAT_MS)).await;
    let mut told = Vec::new();
    while let Ok(Some(Received::Event { payload, .. })) =
        tokio::time::timeout(Duration::from_millis(50), lost.next()).await
    {
        told.push(serde_json::from_slice::<CloudEvent<HostLost>>(&payload).unwrap().data);
    }
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((&told[0].host, &told[0].boot), (&id("c"), &boot));
    assert!(told[0].silent_ms >= 3 * BEAT_MS);
    let _back = fleet.open("c", fleet.jobs.clone(), Some(boot)).await.unwrap();
    fleet.host_is("c", HostState::Up).await;
    fleet.host_is("a", HostState::Up).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_has_one_process_at_a_time() {
    let fleet = Fleet::new();
    let first = fleet.host("a").await;
    let second = fleet.open("a", fleet.jobs.clone(), None).await.unwrap_err();
    assert!(second.is_permanent());
    let body = ErrorBody::from(second);
    assert_eq!(body.code, Code::Conflict);
    assert!(body.message.contains("'a'") && body.hint.is_some(), "{body:?}");
    // one that ends in good order frees its id at once, and is not lost
    first.drain(Duration::from_secs(1)).await;
    let watcher = fleet.host("w").await;
    fleet.host_is("a", HostState::Stopped).await;
    let second = fleet.host("a").await;
    // one that just dies frees it when its lease is over
    drop(second);
    let third = fleet.host("a").await;
    fleet.host_is("a", HostState::Up).await;
    // and one whose id was taken while it could not speak has to end
    let key = state::Key::new("hosts/leases/a").unwrap();
    let boot = fleet.info("a").await.unwrap().boot;
    fleet.state.release(&key, &boot).await.unwrap();
    fleet.state.lease(&key, "usurper", 60_000).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), third.evicted())
        .await
        .unwrap();
    drop(watcher);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_host_hands_its_jobs_back_and_takes_none() {
    let fleet = Fleet::new();
    let (_a, on_a) = fleet.mill("a").await;
    let endless = submit(&on_a, Work::Endless, Target::Any).await;
    fleet.job_is(&endless, JobState::Running, "a").await;
    let (_b, _on_b) = fleet.mill("b").await;
    fleet.host_is("b", HostState::Up).await;
    let told = fleet.ask(&HostDrain { host: id("a") }).await.unwrap();
    assert_eq!(told.order, HostOrder::Drain);
    fleet.job_is(&endless, JobState::Running, "b").await;
    let job = fleet.job(&endless).await;
    assert_eq!(
        (job.attempts, job.deliveries),
        (2, 1),
        "what is handed back counts no delivery"
    );
    fleet.host_is("a", HostState::Drained).await;
    let own = submit(&on_a, Work::Well, Target::Host(id("a"))).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(fleet.job(&own).await.state, JobState::Queued);
    fleet.ask(&HostUncordon { host: id("a") }).await.unwrap();
    fleet.job_is(&own, JobState::Done, "a").await;
    fleet.host_is("a", HostState::Up).await;
    fleet.jobs.cancel(&endless).await.unwrap();
    fleet.job_is(&endless, JobState::Cancelled, "b").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cordoned_host_takes_what_names_it_also_after_a_restart() {
    let fleet = Fleet::new();
    let (a, on_a) = fleet.mill("a").await;
    fleet.ask(&HostCordon { host: id("a") }).await.unwrap();
    fleet.host_is("a", HostState::Cordoned).await;
    let own = submit(&on_a, Work::Well, Target::Host(id("a"))).await;
    fleet.job_is(&own, JobState::Done, "a").await;
    a.drain(Duration::from_secs(1)).await;
    drop((a, on_a));
    let (_a, on_a) = fleet.mill("a").await;
    fleet.host_is("a", HostState::Cordoned).await;
    let shared = submit(&on_a, Work::Well, Target::Any).await;
    let own = submit(&on_a, Work::Well, Target::Host(id("a"))).await;
    fleet.job_is(&own, JobState::Done, "a").await;
    assert_eq!(fleet.job(&shared).await.state, JobState::Queued);
    let unknown = fleet.ask(&HostCordon { host: id("z") }).await.unwrap_err();
    assert_eq!(unknown.code, Code::NotFound);
    fleet.ask(&HostUncordon { host: id("a") }).await.unwrap();
    fleet.job_is(&shared, JobState::Done, "a").await;
}

/// The queues as a host sees them whose word doesn't get through while it is `cut`.
#[derive(Debug)]
struct Cut {
    jobs: Arc<dyn Jobs>,
    cut: AtomicBool,
}

impl Cut {
    fn check(&self) -> ::jobs::Result<()> {
        match self.cut.load(Ordering::SeqCst) {
            true => Err(JobsError::new(::jobs::Kind::Storage, "cut off")),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Jobs for Cut {
    async fn submit(&self, new: NewJob) -> ::jobs::Result<Submitted> {
        self.jobs.submit(new).await
    }
    async fn take(
        &self,
        worker: &Worker,
        concern: &str,
        queues: Queues,
        until: BoxFuture<'static, ()>,
    ) -> ::jobs::Result<Option<Taken>> {
        self.check()?;
        self.jobs.take(worker, concern, queues, until).await
    }
    async fn take_this(&self, worker: &Worker, id: &JobId) -> ::jobs::Result<Taken> {
        self.jobs.take_this(worker, id).await
    }
    fn keep_every(&self) -> Duration {
        self.jobs.keep_every()
    }
    async fn keep(&self, ticket: &Ticket) -> ::jobs::Result<Job> {
        self.check()?;
        self.jobs.keep(ticket).await
    }
    async fn progress(&self, ticket: &Ticket, progress: Progress) -> ::jobs::Result<Job> {
        self.check()?;
        self.jobs.progress(ticket, progress).await
    }
    async fn finish(&self, ticket: &Ticket, outcome: Outcome) -> ::jobs::Result<Job> {
        self.check()?;
        self.jobs.finish(ticket, outcome).await
    }
    async fn cancel(&self, id: &JobId) -> ::jobs::Result<Job> {
        self.jobs.cancel(id).await
    }
    async fn retry(&self, id: &JobId) -> ::jobs::Result<Job> {
        self.jobs.retry(id).await
    }
    async fn show(&self, id: &JobId) -> ::jobs::Result<Job> {
        self.jobs.show(id).await
    }
    async fn list(&self, jobs_max: usize, state: Option<JobState>) -> ::jobs::Result<Vec<Job>> {
        self.jobs.list(jobs_max, state).await
    }
    async fn open_count(&self) -> ::jobs::Result<u64> {
        self.jobs.open_count().await
    }
    async fn recover(&self, worker: &Worker) -> ::jobs::Result<()> {
        self.jobs.recover(worker).await
    }
    fn set_limits(&self, limits: ::jobs::Limits) {
        self.jobs.set_limits(limits);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_cut_off_stops_its_job_and_its_word_counts_no_more() {
    let fleet = Fleet::new();
    let cut = Arc::new(Cut {
        jobs: fleet.jobs.clone(),
        cut: AtomicBool::new(false),
    });
    let a = fleet.open("a", cut.clone(), None).await.unwrap();
    let (gauge, on_a) = add_mill(&a, OnCrash::Resume, 1).await;
    let job = submit(&on_a, Work::Endless, Target::Any).await;
    fleet.job_is(&job, JobState::Running, "a").await;
    cut.cut.store(true, Ordering::SeqCst);
    let (_b, _on_b) = fleet.mill("b").await;
    fleet.job_is(&job, JobState::Running, "b").await;
    // the one that was cut off ends its body by its own clock
    eventually(|| async { gauge.now.load(Ordering::SeqCst) == 0 }).await;
    cut.cut.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let still = fleet.job(&job).await;
    assert_eq!(
        (still.state, still.host, still.attempts),
        (JobState::Running, Some(id("b")), 2)
    );
    assert_eq!(still.error, None::<ErrorBody>, "what the first one said was refused");
    fleet.jobs.cancel(&job).await.unwrap();
    fleet.job_is(&job, JobState::Cancelled, "b").await;
    let again = fleet.jobs.retry(&job).await.unwrap();
    assert_eq!(
        (again.state, again.request),
        (JobState::Queued, json!({"work": "endless"}))
    );
    // it may run already, and a runtime ends with its blocking work
    fleet.jobs.cancel(&job).await.unwrap();
    eventually(|| async { fleet.job(&job).await.state == JobState::Cancelled }).await;
}
