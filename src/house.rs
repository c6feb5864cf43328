//! The house: ports, runtime and the concerns of THE TABLE, put together for the daemon and for a single command alike.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bus::Bus;
use config::Config;
use futures::FutureExt;
use futures::future::BoxFuture;
use runtime::{Clock, Concern, HostsOptions, HouseOptions, Recover, Restart, SystemClock};
use wire::ErrorBody;
use wire::house::{Hardening, StatusReply};

use crate::audit::{Audit, AuditBook};
use crate::backends::{self, Ports};
use crate::{concerns, host_facts};

/// Why the house is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `windlass serve`: takes up what an earlier process left.
    Daemon,
    /// One verb: does that alone.
    OneShot,
}

/// The configuration of the day: a reload changes it. Factories read it each time that they build.
#[derive(Debug, Clone)]
pub struct Today(Arc<RwLock<Arc<Config>>>);

impl Today {
    fn new(config: Config) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(config))))
    }
    /// As it is now.
    pub fn config(&self) -> Arc<Config> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
    fn set(&self, config: Config) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }
}

/// What the spawn function of a row gets.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Starts concerns and job runners.
    pub house: runtime::House,
    /// The ports.
    pub ports: Ports,
    /// The configuration.
    pub today: Today,
}

impl Parts {
    /// The limits of a concern's mailbox and of its deaths.
    pub fn limits(&self) -> runtime::Limits {
        let settings = &self.today.config().runtime;
        let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        runtime::Limits {
            mailbox_messages_max: size(settings.mailbox_messages_max),
            restart: Restart {
                deaths_max: size(settings.restart_deaths_max),
                window_s: settings.restart_window_s,
                ..Restart::default()
            },
            ..runtime::Limits::default()
        }
    }
}

impl Parts {
    /// Starts a concern that `make` builds from the ports and the configuration of the day: now, after each death, after each
    /// reload.
    ///
    /// # Errors
    /// As [`runtime::House::start`].
    pub fn start<A: Concern>(
        self,
        make: impl Fn(&Ports, &Config) -> A + Send + 'static,
    ) -> BoxFuture<'static, Result<(), ErrorBody>> {
        let limits = self.limits();
        // the house itself stays outside of the factory, which it holds
        let Self { house, ports, today } = self;
        let factory = move || make(&ports, &today.config());
        async move { Ok(house.start(limits, factory).await?) }.boxed()
    }
}

/// A running house.
#[derive(Debug, Clone)]
pub struct House {
    parts: Parts,
    audit: Audit,
}

impl House {
    /// Opens the state and starts every concern that this role needs.
    ///
    /// # Errors
    /// `conflict` when another process holds the state; what a concern says that can't start.
    pub async fn start(config: &Config, role: Role) -> Result<Self, ErrorBody> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let ports = backends::open(config, clock).await?;
        let house = Self::with(config, role, ports).await?;
        if let Some(watch) = backends::lattice::Guard::of(&house.parts.ports) {
            watch.start().await?;
        }
        if let Some(membership) = &house.parts.ports.membership {
            backends::members::tell(membership, house.parts.ports.announcer.clone(), house.audit.clone());
        }
        Ok(house)
    }
    /// As [`House::start`], on ports that are open already.
    ///
    /// # Errors
    /// What a concern says that can't start.
    pub async fn with(config: &Config, role: Role, ports: Ports) -> Result<Self, ErrorBody> {
        let boot = runtime::ulid(&*ports.clock);
        let hosts = match role {
            Role::OneShot => None,
            Role::Daemon => Some(HostsOptions {
                facts: host_facts::facts(config),
                beat_every_ms: config.host.beat_ms,
                drain_timeout: Duration::from_secs(config.runtime.drain_timeout_s),
                earlier_boot: host_facts::exchange_boot(&config.state_dir, &boot)?,
                membership: backends::members::of(ports.membership.as_ref()),
            }),
        };
        let house = runtime::House::open(HouseOptions {
            host: config.host_id.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            mode: backends::lattice::mode_shown(config.bus.mode).into(),
            state_dir: config.state_dir.display().to_string(),
            bus: ports.bus.clone(),
            jobs: ports.jobs.clone(),
            clock: ports.clock.clone(),
            recover: match role {
                Role::Daemon => Recover::Resume,
                Role::OneShot => Recover::MarkInterrupted,
            },
            boot,
            state: ports.state.clone(),
            hosts,
        })
        .await?;
        let audit = Audit::open(ports.own_state.clone(), ports.announcer.clone()).await?;
        if let Some(lattice) = &ports.lattice {
            audit.follow_refusals(lattice);
            if !config.nats.server_log.is_empty() {
                lattice.follow_server_log(Path::new(&config.nats.server_log));
            }
        }
        let parts = Parts {
            house,
            ports,
            today: Today::new(config.clone()),
        };
        let book = audit.clone();
        parts
            .house
            .start(parts.limits(), move || AuditBook(book.clone()))
            .await?;
        for row in concerns::TABLE
            .iter()
            .filter(|row| role == Role::Daemon || row.one_shot)
        {
            (row.spawn)(parts.clone()).await?;
            tracing::debug!(concern = row.name, "started");
        }
        Ok(Self { parts, audit })
    }
    /// Says in the status what this process gave up.
    pub fn say_hardening(&self, hardening: Hardening) {
        self.parts.house.say_hardening(hardening);
    }
    /// Who did what.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }
    /// The configuration of the day.
    pub fn config(&self) -> Arc<Config> {
        self.parts.today.config()
    }
    /// Lives by another configuration from now on: what needs a restart must be the same in it. Concerns are built anew as soon
    /// as nothing of theirs is under way; jobs that run go on as they began.
    pub async fn reload(&self, config: Config) {
        let drain_timeout = Duration::from_secs(config.runtime.drain_timeout_s);
        self.parts.ports.jobs.set_limits(backends::shared_job_limits(&config));
        self.parts.today.set(config);
        self.parts.house.renew(self.parts.limits(), drain_timeout).await;
    }
    /// Time and randomness.
    pub fn clock(&self) -> Arc<dyn Clock> {
        self.parts.ports.clock.clone()
    }
    /// The bus that the concerns serve on.
    pub fn bus(&self) -> Arc<dyn Bus> {
        self.parts.ports.bus.clone()
    }
    /// Returns when another daemon has this host's id.
    pub async fn evicted(&self) {
        self.parts.house.evicted().await;
    }
    /// Returns when this host was put out of its fleet.
    pub async fn put_out(&self) {
        match &self.parts.ports.membership {
            Some(membership) => membership.fleet().put_out().await,
            None => std::future::pending().await,
        }
    }
    /// This host's public key, in a fleet.
    pub fn member_key(&self) -> Option<String> {
        let membership = self.parts.ports.membership.as_ref()?;
        Some(membership.fleet().key()?.to_string())
    }
    /// How the house and each concern is.
    ///
    /// # Errors
    /// When the job store can't be read.
    pub async fn status(&self) -> Result<StatusReply, ErrorBody> {
        self.parts.house.status().await
    }
    /// What each concern was asked since boot.
    pub fn measures(&self) -> Vec<(&'static str, runtime::Measures)> {
        self.parts.house.measures()
    }
    /// The jobs of this host, newest first.
    ///
    /// # Errors
    /// When the job store can't be read.
    pub async fn jobs(&self, jobs_max: usize) -> Result<Vec<wire::job::Job>, ErrorBody> {
        Ok(self.parts.ports.jobs.list(jobs_max, None).await?)
    }
    /// What went to the stores of all repositories.
    pub fn store_counts(&self) -> store::Counts {
        self.parts.ports.store_counters.counts()
    }
    /// The repository at `url`, or the configured default.
    ///
    /// # Errors
    /// As [`snapshot::port::Repos::open`].
    pub async fn repo(&self, url: Option<&str>) -> Result<repo::Repo, ErrorBody> {
        Ok(self.parts.ports.repos.open(url).await?)
    }
    /// Ends in good order within `runtime.drain_timeout_s`; returns how many concerns and jobs were not finished in time.
    pub async fn drain(&self) -> usize {
        let timeout = Duration::from_secs(self.config().runtime.drain_timeout_s);
        let left = self.parts.house.drain(timeout).await;
        self.audit.flush().await;
        left
    }
    /// Ends a single command's house; the state directory is free when this returns.
    pub async fn stop(self) {
        self.drain().await;
        let (release, patience_s) = (self.parts.ports.release.clone(), self.config().runtime.drain_timeout_s);
        drop(self);
        // the threads of the concerns let go a moment after they were told to
        if !release.wait(Duration::from_secs(patience_s)).await {
            tracing::warn!(
                waited_s = patience_s,
                "the state directory is still in use as the command ends"
            );
        }
    }
}
