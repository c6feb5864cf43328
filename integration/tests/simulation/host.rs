//! A process of a host: the ports over its line, and a house without threads on them. What it decides is the code that ships.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bus::{Bus, BusError, Events, Incoming, Kind, Service, event_ring};
use bytes::Bytes;
use jobs::{Jobs, Limits};
use nats::{JetstreamJobs, JobsOptions, NatsState};
use rack_scheduler::engine::Scheduler;
use runtime::{Bare, Clock, HostsOptions, HouseOptions, JobContext, Kinds, OnCrash, Recover};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use state::State;
use trust::{Membership, SignedJobs};
use wire::hosts::{HostCapacity, HostFacts};
use wire::job::{JobAccepted, JobId};
use wire::subject::EventFilter;
use wire::{Address, ErrorBody, Headers, HostId, Request, Subject};

use super::commands;
use super::line::Line;
use super::racks;
use super::world::{Process, World, host_name, pause};

/// How far apart the beats of a host are, in milliseconds.
pub const BEAT_MS: u64 = 1_600;
/// How long a job's worker may be silent, in milliseconds.
pub const LEASE_MS: u64 = 3_000;
/// Jobs of one host that run at once.
const PARALLEL: usize = 2;
/// A job's body looks that often whether it should end, in milliseconds.
const LOOK_EVERY_MS: u64 = 200;
/// The concern whose jobs these are.
pub const CONCERN: &str = "mill";

/// Work of so many milliseconds.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Grind {
    pub work_ms: u64,
}

impl Request for Grind {
    type Reply = JobAccepted;
    const CONCERN: &'static str = CONCERN;
    const VERB: &'static str = "grind";
    const ADDRESS: Address = Address::Cluster;
    const ABOUT: &'static str = "Works";
    fn sample() -> Self {
        Self { work_ms: 1 }
    }
    fn sample_reply() -> JobAccepted {
        JobAccepted {
            job: JobId("x".into()),
            duplicate: false,
        }
    }
}

/// The clock of a host, for one of its processes.
#[derive(Debug)]
struct HostClock {
    world: Arc<World>,
    host: usize,
    process: Process,
    drawn: AtomicU64,
}

impl Clock for HostClock {
    fn now_ms(&self) -> u64 {
        self.world.wall_ms(self.host)
    }
    fn monotonic_ms(&self) -> u64 {
        // each process counts from another moment
        self.world.elapsed_ms() + 1_000 * self.process as u64
    }
    fn random(&self) -> u128 {
        let drawn = self.drawn.fetch_add(1, Ordering::SeqCst);
        let mut dice = windlass_integration::Random::new((self.process as u64) << 32 | drawn);
        u128::from(dice.next_u64()) << 64 | u128::from(dice.next_u64())
    }
}

/// Events among the hosts: they may be lost, come late, and come twice.
#[derive(Debug)]
pub struct HostBus {
    world: Arc<World>,
    process: Process,
}

#[async_trait]
impl Bus for HostBus {
    async fn request(&self, subject: &Subject, _: Headers, _: Bytes) -> Result<Bytes, BusError> {
        Err(BusError::new(Kind::Unavailable, format!("nobody serves {subject}")))
    }

    async fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), BusError> {
        self.world.living(self.process).await;
        self.world.tell(self.process, subject, &payload);
        Ok(())
    }

    async fn serve(&self, _: Service) -> Result<Incoming, BusError> {
        Err(BusError::new(Kind::Invalid, "a house without threads serves nothing"))
    }

    async fn subscribe(&self, filter: EventFilter, events_queued_max: usize) -> Result<Events, BusError> {
        let (sender, events) = event_ring(events_queued_max);
        self.world.listen(self.process, filter, sender);
        Ok(events)
    }
}

/// What a process stands on.
#[derive(Debug, Clone)]
pub struct Ports {
    pub host: HostId,
    pub state: Arc<dyn State>,
    pub bus: Arc<dyn Bus>,
    pub jobs: Arc<dyn Jobs>,
    pub clock: Arc<dyn Clock>,
    pub membership: Membership,
}

/// A process that serves.
#[derive(Debug, Clone)]
pub struct Serving {
    pub process: Process,
    pub house: Arc<Bare>,
    pub jobs: Arc<dyn Jobs>,
    pub racks: Scheduler,
    pub membership: Membership,
}

/// What a process is started with.
#[derive(Debug, Clone)]
pub struct Start {
    pub world: Arc<World>,
    pub process: Process,
    pub host: usize,
    pub boot: String,
    pub earlier_boot: Option<String>,
    /// What its state directory keeps.
    pub own: Arc<dyn State>,
    pub deliveries_max: u32,
    pub jobs_kept_max: u64,
}

fn facts(host: usize) -> HostFacts {
    HostFacts {
        rack: Some(format!("r{}", host / 2)),
        row: None,
        zone: None,
        labels: std::collections::BTreeMap::new(),
        capacity: HostCapacity::default(),
        concerns: vec![CONCERN.into()],
        version: "0".into(),
    }
}

/// Jobs of this process: they work for a while, in steps, and show how far they are.
fn kinds(world: &Arc<World>, process: Process) -> Kinds {
    let world = world.clone();
    let body = move |context: JobContext, request: Grind| {
        let world = world.clone();
        async move {
            let mut done_ms = 0;
            while done_ms < request.work_ms {
                world.living(process).await;
                context.check()?;
                context.progress("grinding", done_ms, request.work_ms, "ms");
                pause(LOOK_EVERY_MS).await;
                done_ms += LOOK_EVERY_MS;
            }
            world.living(process).await;
            Ok::<Value, ErrorBody>(json!({"attempt": context.job().attempts}))
        }
    };
    Kinds::new()
        .parallel_max(PARALLEL)
        .on::<Grind, _, _>(OnCrash::Resume, body)
}

impl Start {
    /// The ports, in the order in which the binary opens them.
    async fn ports(&self) -> Result<Ports, String> {
        let Self {
            world, process, host, ..
        } = self;
        let line = Arc::new(Line::of(world, *process));
        let clock: Arc<dyn Clock> = Arc::new(HostClock {
            world: world.clone(),
            host: *host,
            process: *process,
            drawn: AtomicU64::new(0),
        });
        let state = NatsState::over(line.clone(), runtime::state_clock(&clock)).await;
        let state = Arc::new(state.map_err(|e| e.to_string())?);
        let membership = commands::membership(*host, state.clone(), self.own.clone(), state.fleet_now()).await?;
        let authority = SignedJobs::open(membership.fleet().clone(), self.own.clone()).await;
        let authority = Arc::new(authority.map_err(|e| e.to_string())?);
        let options = JobsOptions {
            limits: Limits {
                lease_ms: LEASE_MS,
                deliveries_max: self.deliveries_max,
                jobs_kept_max: self.jobs_kept_max,
                ..JobsOptions::default().limits
            },
            ..JobsOptions::default()
        };
        Ok(Ports {
            host: HostId::new(&host_name(*host)).map_err(|e| e.to_string())?,
            state,
            bus: Arc::new(HostBus {
                world: world.clone(),
                process: *process,
            }),
            jobs: Arc::new(JetstreamJobs::over(
                line,
                runtime::job_source(&clock),
                options,
                Some(authority),
                None,
            )),
            clock,
            membership,
        })
    }

    /// Starts the process as the binary does: its ports, then the house.
    ///
    /// # Errors
    /// What keeps it from serving.
    pub async fn serve(self) -> Result<Serving, String> {
        let Self {
            world, process, host, ..
        } = &self;
        let ports = self.ports().await?;
        let options = HouseOptions {
            host: ports.host.clone(),
            version: "0".into(),
            mode: "simulated".into(),
            state_dir: "(none)".into(),
            bus: ports.bus.clone(),
            jobs: ports.jobs.clone(),
            clock: ports.clock.clone(),
            recover: Recover::Resume,
            boot: self.boot.clone(),
            state: ports.state.clone(),
            hosts: Some(HostsOptions {
                facts: facts(*host),
                beat_every_ms: BEAT_MS,
                drain_timeout: Duration::from_millis(500),
                earlier_boot: self.earlier_boot.clone(),
                membership: None,
            }),
        };
        let house = Bare::open(options, CONCERN, kinds(world, *process)).await;
        Ok(Serving {
            process: *process,
            house: Arc::new(house.map_err(|e| e.to_string())?),
            racks: racks::scheduler(&ports),
            membership: ports.membership,
            jobs: ports.jobs,
        })
    }
}
