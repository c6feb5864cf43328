//! Many hosts: the configuration becomes a connection to NATS, and what the servers keep is watched over.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bus::Bus;
use bytes::Bytes;
use config::{BusMode, Config};
use nats::{Credentials, Identity, JetstreamJobs, JobsOptions, Lattice, NatsBus, NatsState, Settings, Tls};
use runtime::{Announcer, Clock};
use state::{Key, State};
use wire::house::DataLost;
use wire::{Code, ErrorBody};

use super::{Ports, Shared};

/// How long a verb waits for a server.
const VERB_PATIENCE: Duration = Duration::from_secs(10);
/// Where this host keeps what the servers' streams were when it saw them last.
const SEEN: &str = "lattice/streams";

/// The word of `windlass status`.
pub fn mode_shown(mode: BusMode) -> &'static str {
    match mode {
        BusMode::Embedded => "embedded",
        BusMode::Nats => "lattice",
    }
}

fn settings(config: &Config, name: String) -> Settings {
    let nats = &config.nats;
    let file = |path: &String| (!path.is_empty()).then(|| PathBuf::from(path));
    let credentials = match (file(&nats.user_file), file(&nats.nkey_file), file(&nats.creds_file)) {
        (Some(path), ..) => Credentials::UserFile(path),
        (_, Some(path), _) => Credentials::NkeyFile(path),
        (.., Some(path)) => Credentials::CredsFile(path),
        _ => Credentials::None,
    };
    Settings {
        servers: nats.server_list(),
        name,
        credentials,
        tls: Tls {
            ca_file: file(&nats.ca_file),
            cert_file: file(&nats.cert_file),
            key_file: file(&nats.key_file),
        },
        // the bounds of the key are within this type
        replicas: u8::try_from(nats.replicas).unwrap_or_default(),
        ping_interval_ms: nats.ping_interval_s * 1_000,
        ack_timeout_ms: nats.ack_timeout_s * 1_000,
        ..Settings::default()
    }
}

fn identity(clock: &Arc<dyn Clock>) -> Identity {
    Identity {
        version: env!("CARGO_PKG_VERSION").into(),
        started_at: runtime::rfc3339(clock.now_ms()),
    }
}

/// Connects a host, and opens what it shares with the others.
///
/// # Errors
/// `unavailable` when no server answers within `patience`, `denied` when they refuse us.
pub async fn open(config: &Config, clock: &Arc<dyn Clock>, patience: Option<Duration>) -> Result<Shared, ErrorBody> {
    let lattice = Lattice::connect(settings(config, config.host_id.to_string()), patience).await?;
    let state = NatsState::open(&lattice, runtime::state_clock(clock)).await?;
    let bus = NatsBus::open(&lattice, identity(clock)).await?;
    let options = JobsOptions {
        limits: job_limits(config),
        ..JobsOptions::default()
    };
    let jobs = JetstreamJobs::open(&lattice, runtime::job_source(clock), options).await?;
    for warning in lattice.durability() {
        tracing::warn!("{warning}");
    }
    Ok(Shared {
        bus: Arc::new(bus),
        state: Arc::new(state),
        jobs: Arc::new(jobs),
        lattice: Some(lattice),
    })
}

/// What is kept of jobs by all hosts together.
pub fn job_limits(config: &Config) -> jobs::Limits {
    jobs::Limits {
        jobs_open_max: config.nats.jobs_open_max,
        jobs_kept_max: config.nats.jobs_kept_max,
        ..super::job_limits(config)
    }
}

/// Connects a verb: it asks, and serves nothing.
///
/// # Errors
/// As [`open`].
pub async fn ask(config: &Config, clock: &Arc<dyn Clock>) -> Result<Arc<dyn Bus>, ErrorBody> {
    let settings = settings(config, format!("{} (a verb)", config.host_id));
    let lattice = Lattice::connect(settings, Some(VERB_PATIENCE)).await?;
    Ok(Arc::new(NatsBus::open(&lattice, identity(clock)).await?))
}

/// Compares what the servers keep with what this host saw last, at the start and after every reconnect.
#[derive(Debug, Clone)]
pub struct Guard {
    lattice: Lattice,
    own_state: Arc<dyn State>,
    announcer: Announcer,
}

impl Guard {
    /// The guard of a host in a lattice.
    pub fn of(ports: &Ports) -> Option<Self> {
        Some(Self {
            lattice: ports.lattice.clone()?,
            own_state: ports.own_state.clone(),
            announcer: ports.announcer.clone(),
        })
    }

    /// Looks now, and again whenever the connection was made anew, as long as the process lives.
    ///
    /// # Errors
    /// When the state directory can't be read.
    pub async fn start(self) -> Result<(), ErrorBody> {
        let mut connections = self.lattice.connections();
        connections.mark_unchanged();
        self.look().await?;
        tokio::spawn(async move {
            while connections.changed().await.is_ok() {
                while let Err(error) = self.look().await {
                    tracing::debug!(%error, "what the NATS servers keep can't be looked at now");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        });
        Ok(())
    }

    async fn look(&self) -> Result<(), ErrorBody> {
        let key = Key::new(SEEN)?;
        let before = match self.own_state.get(&key).await? {
            Some(entry) => serde_json::from_slice(&entry.value).unwrap_or_default(),
            None => nats::Seen::default(),
        };
        let (now, losses) = self.lattice.compare(&before).await?;
        // first told, then forgotten: a crash in between tells it again
        for loss in losses {
            self.tell(&loss).await;
        }
        let value = serde_json::to_vec(&now)
            .map_err(|e| ErrorBody::new(Code::Internal, format!("what the servers keep can't be recorded: {e}")))?;
        self.own_state.put(&key, Bytes::from(value)).await?;
        Ok(())
    }

    async fn tell(&self, loss: &nats::Loss) {
        tracing::error!(stream = %loss.stream, "DATA LOSS: {}", loss.what);
        let data = DataLost {
            host: self.announcer.host.clone(),
            store: loss.stream.clone(),
            what: loss.what.clone(),
        };
        self.announcer.announce(data).await;
    }
}
