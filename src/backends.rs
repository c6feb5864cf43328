//! Configuration becomes ports: the one place that names implementations.

pub mod lattice;
pub mod members;
pub mod metal;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bus::Bus;
use config::{BusMode, Config};
use jobs::Jobs;
use repo::{Cache, FetchLimits, Repo, RepoError, RepoParams, SessionLimits};
use runtime::{Announcer, Clock};
use snapshot::port::Repos;
use state::State;
use store::{Store, StoreError};
use tokio::sync::Mutex;
use wire::ErrorBody;
use wire::repo::Chunker;

/// The ports of a house.
#[derive(Debug, Clone)]
pub struct Ports {
    /// The message bus.
    pub bus: Arc<dyn Bus>,
    /// Small values that the hosts of a fleet share; embedded, there is one host.
    pub state: Arc<dyn State>,
    /// Small values of this host alone, in its state directory: what is true of its disks and its kernel.
    pub own_state: Arc<dyn State>,
    /// Durable work.
    pub jobs: Arc<dyn Jobs>,
    /// Time and randomness.
    pub clock: Arc<dyn Clock>,
    /// Where this host's events go.
    pub announcer: Announcer,
    /// Opens repositories.
    pub repos: Arc<dyn Repos>,
    /// What goes to their stores.
    pub store_counters: store::Counters,
    /// Tells when the state directory is free again.
    pub release: state::Release,
    /// The connection to the other hosts, when there is one.
    pub lattice: Option<nats::Lattice>,
    /// Who belongs to the fleet, when there is one.
    pub membership: Option<trust::Membership>,
}

/// What hosts share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The message bus.
    pub bus: Arc<dyn Bus>,
    /// Small values.
    pub state: Arc<dyn State>,
    /// Durable work.
    pub jobs: Arc<dyn Jobs>,
    /// The connection, when there is one.
    pub lattice: Option<nats::Lattice>,
    /// Who belongs to the fleet, when there is one.
    pub membership: Option<trust::Membership>,
}

/// Opens what the configuration says. Holds the state directory's lock from here on.
///
/// # Errors
/// `conflict` when another process holds the state; what the file system says.
pub async fn open(config: &Config, clock: Arc<dyn Clock>) -> Result<Ports, ErrorBody> {
    let database = state::Database::open(&config.state_dir).await?;
    let own_state: Arc<dyn State> = Arc::new(state::Redb::new(database.clone(), runtime::state_clock(&clock)));
    let shared = match config.bus.mode {
        BusMode::Embedded => Shared {
            bus: Arc::new(bus::InProcess::new()),
            state: own_state.clone(),
            jobs: Arc::new(jobs::Redb::new(
                database.clone(),
                runtime::job_source(&clock),
                job_limits(config),
            )),
            lattice: None,
            // nothing leaves the process, so nothing is signed
            membership: None,
        },
        // a daemon waits for its servers, however long they take
        BusMode::Nats => lattice::open(config, &clock, &own_state, None).await?,
    };
    let store_counters = store::Counters::default();
    Ok(Ports {
        announcer: Announcer {
            host: config.host_id.clone(),
            bus: shared.bus.clone(),
            clock: clock.clone(),
        },
        bus: shared.bus,
        state: shared.state,
        lattice: shared.lattice,
        membership: shared.membership,
        own_state,
        release: database.release(),
        jobs: shared.jobs,
        repos: Arc::new(Repositories::new(config, clock.clone(), store_counters.clone())),
        store_counters,
        clock,
    })
}

/// What is kept of jobs by one host alone.
pub fn job_limits(config: &Config) -> jobs::Limits {
    jobs::Limits {
        jobs_open_max: config.runtime.jobs_open_max,
        jobs_kept_max: config.runtime.jobs_kept_max,
        idempotency_keep_ms: config.runtime.idempotency_keep_h.saturating_mul(3_600_000),
        lease_ms: config.runtime.job_lease_s.saturating_mul(1_000),
        // the bounds of the key are within this type
        deliveries_max: u32::try_from(config.runtime.job_deliveries_max).unwrap_or(u32::MAX),
    }
}

/// What is kept of jobs: by this host alone, or by all hosts together.
pub fn shared_job_limits(config: &Config) -> jobs::Limits {
    match config.bus.mode {
        BusMode::Embedded => job_limits(config),
        BusMode::Nats => lattice::job_limits(config),
    }
}

/// How sessions write.
pub fn session_limits(settings: &config::Repo) -> SessionLimits {
    SessionLimits {
        // the bounds of the keys are within these types
        pack_bytes: u32::try_from(settings.pack_bytes).unwrap_or(u32::MAX),
        zstd_level: i32::try_from(settings.compression_level).unwrap_or(1),
        uploads_in_flight_max: size(settings.uploads_in_flight_max),
        ..SessionLimits::default()
    }
}

/// How restores read.
pub fn fetch_limits(settings: &config::Repo) -> FetchLimits {
    FetchLimits {
        in_flight_max: size(settings.fetch_requests_in_flight_max),
        memory_bytes_max: settings.fetch_memory_bytes_max,
        gap_bytes_max: settings.fetch_gap_bytes_max,
        ..FetchLimits::default()
    }
}

fn size(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// Distant repositories that are kept open.
const REPOS_OPEN_MAX: usize = 16;

/// Opens repositories. Distant ones are kept open per URL, for their index is in memory then; a repository looks for what
/// other hosts wrote meanwhile by itself. Local ones are opened afresh: that costs little, and a directory may go and come
/// back.
#[derive(Debug)]
struct Repositories {
    default_url: String,
    chunker: Chunker,
    s3: config::RepoS3,
    clock: Arc<dyn Clock>,
    counters: store::Counters,
    cache: Option<Arc<Cache>>,
    distant: Mutex<HashMap<String, Repo>>,
}

impl Repositories {
    fn new(config: &Config, clock: Arc<dyn Clock>, counters: store::Counters) -> Self {
        Self {
            default_url: config.repo.url.clone(),
            chunker: config.repo.chunker.to_wire(),
            s3: config.repo.s3.clone(),
            clock,
            counters,
            cache: Cache::open(&config.repo.cache_dir, config.repo.cache_bytes_max),
            distant: Mutex::default(),
        }
    }
    async fn make(&self, url: &str, chunker: Chunker) -> repo::Result<Repo> {
        let mut params = RepoParams::generate(chunker, runtime::rfc3339(self.clock.now_ms()))?;
        // servers differ in what they honour; what a local directory keeps is known
        params.try_store = !is_local(url);
        let store = match s3::is_s3(url) {
            true => self.store(url).await?,
            false => object::create(url)?,
        };
        Repo::init_with(self.counters.around(store), params, self.cache.clone()).await
    }
    async fn store(&self, url: &str) -> store::Result<Arc<dyn Store>> {
        if !s3::is_s3(url) {
            return object::open(url);
        }
        let mut settings = s3::Settings::default();
        for (key, value) in self.s3.pairs() {
            settings.set(key, &value).map_err(|why| {
                let named = format!("repo.s3.{key}");
                StoreError::new(store::Kind::Invalid, "open", named, why).hint("windlass config show --origin")
            })?;
        }
        s3::open(url, &settings).await
    }
    async fn open_kept(&self, url: &str) -> repo::Result<Repo> {
        if is_local(url) {
            return Repo::open(self.counters.around(object::open(url)?)).await;
        }
        let mut distant = self.distant.lock().await;
        if let Some(repo) = distant.get(url) {
            return Ok(repo.clone());
        }
        let repo = Repo::open_with(self.counters.around(self.store(url).await?), self.cache.clone()).await?;
        if distant.len() >= REPOS_OPEN_MAX {
            distant.clear();
        }
        distant.insert(url.to_owned(), repo.clone());
        Ok(repo)
    }
    /// The configured default, made when it is a local directory without a repository.
    async fn open_or_make_default(&self) -> repo::Result<Repo> {
        let url = &self.default_url;
        match self.open_kept(url).await {
            Err(e) if is_absent(&e) && is_local(url) => match self.make(url, self.chunker).await {
                // another process made it at the same moment
                Err(e) if e.kind == repo::Kind::Conflict => self.open_kept(url).await,
                made => made,
            },
            opened => opened,
        }
    }
}

fn is_local(url: &str) -> bool {
    url.starts_with("file:")
}

fn is_absent(error: &RepoError) -> bool {
    matches!(
        error.kind,
        repo::Kind::NotFound | repo::Kind::Store(store::Kind::NotFound)
    )
}

#[async_trait]
impl Repos for Repositories {
    async fn open(&self, url: Option<&str>) -> snapshot::Result<Repo> {
        let opened = match url {
            // one that was named is never made on the way: a slip of the pen would be a repository
            Some(url) => self.open_kept(url).await,
            None => self.open_or_make_default().await,
        };
        opened.map_err(|e| {
            let absent = is_absent(&e);
            let mut error = snapshot::SnapshotError::from(e);
            if absent {
                error.hint = Some(match url {
                    Some(url) => format!("windlass repo init --repo {url}"),
                    None => "windlass repo init".to_owned(),
                });
            }
            error
        })
    }
    async fn init(&self, url: Option<&str>, chunker: Option<Chunker>) -> snapshot::Result<Repo> {
        let url = url.unwrap_or(&self.default_url);
        Ok(self.make(url, chunker.unwrap_or(self.chunker)).await?)
    }
}
