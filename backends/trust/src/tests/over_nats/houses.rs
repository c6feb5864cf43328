//! Whole houses of a fleet, as the composition root puts them together, on one real server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use bus::Bus;
use integration::nats::Server;
use integration::scratch::Scratch;
use jobs::Jobs;
use nats::{Identity as Serves, JetstreamJobs, JobsOptions, Lattice, NatsBus, NatsState, Settings};
use runtime::{
    Clock, Concern, HostsOptions, House, HouseOptions, Kinds, Limits, OnCrash, Recover, Routes, SystemClock,
    job_source, state_clock,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use state::State;
use wire::hosts::{HostCapacity, HostFacts};
use wire::job::{JobAccepted, JobId, JobState};
use wire::members::HostToken;
use wire::{Address, ErrorBody, Headers, HostId, Request, Sender};

use crate::core::token::Token;
use crate::grants::make_token;
use crate::{Belonging, Membership, Place, SignedBus, SignedJobs, SignedState};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A job that counts how often it is begun.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Grind {
    pub(crate) n: u64,
}

impl Request for Grind {
    type Reply = JobAccepted;
    const CONCERN: &'static str = "mill";
    const VERB: &'static str = "grind";
    const ADDRESS: Address = Address::Host;
    const ABOUT: &'static str = "Grinds";
    fn sample() -> Self {
        Self { n: 1 }
    }
    fn sample_reply() -> JobAccepted {
        JobAccepted {
            job: JobId("x".into()),
            duplicate: false,
        }
    }
}

struct Mill(Kinds);

impl Concern for Mill {
    const NAME: &'static str = "mill";
    fn routes() -> Routes<Self> {
        Routes::new().job::<Grind>()
    }
    fn observed(&self) -> Value {
        Value::Null
    }
    fn jobs(&self) -> Kinds {
        self.0.clone()
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

pub(crate) fn id(name: &str) -> HostId {
    HostId::new(name).unwrap()
}

/// A host of the fleet, as the composition root puts it together.
pub(crate) struct Host {
    pub(crate) id: HostId,
    pub(crate) house: House,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) jobs: Arc<JetstreamJobs>,
    pub(crate) state: Arc<dyn State>,
    pub(crate) membership: Membership,
    /// What the mill was given.
    pub(crate) ground: Arc<std::sync::Mutex<BTreeMap<u64, u64>>>,
}

#[derive(Debug)]
struct Members(Membership);

#[async_trait::async_trait]
impl runtime::Membership for Members {
    fn members(&self) -> wire::members::HostMembership {
        self.0.members()
    }
    fn refused(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
    async fn grant(&self, request: &HostToken) -> Result<wire::members::HostTokenGranted, ErrorBody> {
        Ok(self.0.grant(request, |ms| ms.to_string()).await?)
    }
    async fn revoke(&self, request: &wire::members::HostRevoke) -> Result<wire::members::HostRevoked, ErrorBody> {
        Ok(self.0.revoke(&request.member).await?)
    }
}

pub(crate) struct World {
    pub(crate) scratch: Scratch,
    pub(crate) server: Server,
}

impl World {
    pub(crate) fn new(name: &str) -> Self {
        let scratch = Scratch::new(name).unwrap();
        let server = Server::start(&scratch.join("n1")).unwrap();
        Self { scratch, server }
    }

    pub(crate) async fn lattice(&self) -> Lattice {
        let settings = Settings {
            servers: vec![self.server.url()],
            ..Settings::default()
        };
        Lattice::connect(settings, Some(PATIENCE)).await.unwrap()
    }

    pub(crate) async fn host(&self, name: &str, off_ms: i64) -> Result<Host, ErrorBody> {
        let clock: Arc<dyn Clock> = Arc::new(Skewed {
            right: SystemClock::new(),
            off_ms,
        });
        let lattice = self.lattice().await;
        let own = state::Database::in_memory().unwrap();
        let own: Arc<dyn State> = Arc::new(state::Redb::new(own, state_clock(&clock)));
        let shared = NatsState::open(&lattice, state_clock(&clock)).await.unwrap();
        let now = shared.fleet_now();
        let shared: Arc<dyn State> = Arc::new(shared);
        let place = Place::at(&self.scratch.join(name));
        let membership = Membership::open(place, &id(name), shared.clone(), own.clone(), now).await?;
        membership.follow();
        let fleet = membership.fleet().clone();
        let serves = Serves {
            version: "0.0.0".into(),
            started_at: "2026-11-25T00:00:00Z".into(),
        };
        let bus = NatsBus::open(&lattice, serves).await.unwrap();
        let boot = runtime::ulid(&*clock);
        let bus: Arc<dyn Bus> = Arc::new(SignedBus::serving(
            Arc::new(bus),
            fleet.clone(),
            shared.clone(),
            boot.clone(),
        ));
        let authority = Arc::new(SignedJobs::open(fleet.clone(), own.clone()).await.unwrap());
        let jobs = JetstreamJobs::open_signed(&lattice, job_source(&clock), JobsOptions::default(), Some(authority));
        let jobs = Arc::new(jobs.await.unwrap());
        let state: Arc<dyn State> = Arc::new(SignedState::new(shared, own, fleet, &id(name), &["hosts/orders/"]));
        let house = House::open(HouseOptions {
            host: id(name),
            version: "test".into(),
            mode: "lattice".into(),
            state_dir: "(none)".into(),
            bus: bus.clone(),
            jobs: jobs.clone(),
            state: state.clone(),
            boot,
            clock,
            recover: Recover::Resume,
            hosts: Some(HostsOptions {
                facts: facts(),
                beat_every_ms: 300,
                drain_timeout: Duration::from_secs(1),
                earlier_boot: None,
                membership: Some(Arc::new(Members(membership.clone()))),
            }),
        })
        .await
        .unwrap();
        let ground = Arc::<std::sync::Mutex<BTreeMap<u64, u64>>>::default();
        let counted = ground.clone();
        let kinds = Kinds::new().on(OnCrash::Resume, move |_context, request: Grind| {
            *counted.lock().unwrap().entry(request.n).or_default() += 1;
            async move { Ok(json!(request.n)) }
        });
        house
            .start(Limits::default(), move || Mill(kinds.clone()))
            .await
            .unwrap();
        Ok(Host {
            id: id(name),
            house,
            bus,
            jobs,
            state,
            membership,
            ground,
        })
    }

    /// What a person does with a token from `at`.
    pub(crate) async fn join(&self, at: &Host, name: &str) -> Belonging {
        let key = make_token().unwrap();
        let request = HostToken {
            member: Sender::Host(id(name)),
            token_key: key.public().to_string(),
            valid_s: 60,
            may_admit: false,
            replace: false,
            role: None,
        };
        let granted = bus::call(&*at.bus, &at.id, &request, Headers::default()).await.unwrap();
        let token = Token {
            member: granted.member,
            key,
            issuer: granted.issuer_key.parse().unwrap(),
        };
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let shared = NatsState::open(&self.lattice().await, state_clock(&clock))
            .await
            .unwrap();
        let place = Place::at(&self.scratch.join(name));
        crate::join(token, place, Arc::new(shared), PATIENCE).await.unwrap()
    }

    pub(crate) async fn thief(&self) -> jetstream::Context {
        jetstream::new(async_nats::connect(self.server.url()).await.unwrap())
    }
}

pub(crate) fn facts() -> HostFacts {
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

impl Host {
    pub(crate) async fn call<R: Request>(&self, at: &str, request: &R) -> Result<R::Reply, ErrorBody> {
        let headers = Headers {
            timeout_ms: Some(5_000),
            ..Headers::default()
        };
        bus::call(&*self.bus, &id(at), request, headers).await
    }
    pub(crate) fn ground(&self, n: u64) -> u64 {
        self.ground.lock().unwrap().get(&n).copied().unwrap_or_default()
    }
    pub(crate) async fn is(&self, job: &JobId, wanted: JobState) -> wire::job::Job {
        let mut seen = None;
        for _ in 0..1_500 {
            if let Ok(job) = self.jobs.show(job).await {
                if job.state == wanted {
                    return job;
                }
                seen = Some(job);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{job} is not {wanted:?}: {seen:?}");
    }
    pub(crate) async fn leave(self) {
        self.house.drain(Duration::from_secs(2)).await;
    }
}
