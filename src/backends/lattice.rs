//! Many hosts: the configuration becomes a connection to NATS, and what the servers keep is watched over.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bus::Bus;
use bytes::Bytes;
use config::{BusMode, Config};
use nats::{Credentials, Identity, JetstreamJobs, JobsOptions, Lattice, NatsBus, NatsState, Settings, Tls};
use runtime::{Announcer, Clock};
use secret::Reference;
use state::{Key, State};
use trust::{
    Belonging, Book, Bounds, Fleet, Identity as Secret, Membership, Place, SignedBus, SignedJobs, SignedState, Token,
};
use wire::house::DataLost;
use wire::{Code, ErrorBody, PersonId, Sender};

use super::{Ports, Shared};

/// Keys whose values are orders: they count only when a member signed them.
const SIGNED: [&str; 1] = ["hosts/orders/"];
/// How long a joiner waits to be let in.
const JOIN_PATIENCE: Duration = Duration::from_secs(30);
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

fn settings(config: &Config, name: String, party: Option<Sender>) -> Settings {
    let nats = &config.nats;
    let file = |path: &String| (!path.is_empty()).then(|| PathBuf::from(path));
    let secret = |text: &String| Reference::parse(text);
    let credentials = match (
        secret(&nats.user_file),
        secret(&nats.nkey_file),
        secret(&nats.creds_file),
    ) {
        (Some(place), ..) => Credentials::UserFile(place),
        (_, Some(place), _) => Credentials::NkeyFile(place),
        (.., Some(place)) => Credentials::CredsFile(place),
        _ => Credentials::None,
    };
    Settings {
        servers: nats.server_list(),
        name,
        party,
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
pub async fn open(
    config: &Config,
    clock: &Arc<dyn Clock>,
    own_state: &Arc<dyn State>,
    patience: Option<Duration>,
) -> Result<Shared, ErrorBody> {
    let us = Sender::Host(config.host_id.clone());
    let lattice = Lattice::connect(settings(config, config.host_id.to_string(), Some(us)), patience).await?;
    let state = NatsState::open(&lattice, runtime::state_clock(clock)).await?;
    let bus = NatsBus::open(&lattice, identity(clock)).await?;
    let (now, host) = (state.fleet_now(), &config.host_id);
    let state: Arc<dyn State> = Arc::new(state);
    let place = Place::at(&config.state_dir);
    let membership = Membership::open(place, host, state.clone(), own_state.clone(), now).await?;
    membership.follow();
    let fleet = membership.fleet().clone();
    let authority = Arc::new(SignedJobs::open(fleet.clone(), own_state.clone()).await?);
    let options = JobsOptions {
        limits: job_limits(config),
        ..JobsOptions::default()
    };
    let jobs = JetstreamJobs::open_signed(&lattice, runtime::job_source(clock), options, Some(authority)).await?;
    for warning in lattice.durability() {
        tracing::warn!("{warning}");
    }
    Ok(Shared {
        bus: Arc::new(SignedBus::serving(
            Arc::new(bus),
            fleet.clone(),
            state.clone(),
            runtime::ulid(&**clock),
        )),
        state: Arc::new(SignedState::new(state, own_state.clone(), fleet, host, &SIGNED)),
        jobs: Arc::new(jobs),
        lattice: Some(lattice),
        membership: Some(membership),
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

/// Connects a verb: it asks, and serves nothing. It speaks as the member whose key is in the state directory; without one it can
/// read, and not command.
///
/// # Errors
/// As [`open`].
pub async fn ask(config: &Config, clock: &Arc<dyn Clock>) -> Result<Arc<dyn Bus>, ErrorBody> {
    // a host's credentials are good for its own verbs, whatever host they ask
    let person = PersonId::new(&config.nats.person).ok().map(Sender::Person);
    let us = person.unwrap_or_else(|| Sender::Host(config.host_id.clone()));
    let settings = settings(config, format!("{} (a verb)", config.host_id), Some(us));
    let lattice = Lattice::connect(settings, Some(VERB_PATIENCE)).await?;
    let bus = NatsBus::open(&lattice, identity(clock)).await?;
    let me = whose_place(config);
    let now = match &me {
        Some(_) => bus.fleet_now().await?,
        None => runtime::state_clock(clock),
    };
    let fleet = Fleet::new(me, Book::default(), Bounds::default(), now);
    Ok(Arc::new(SignedBus::asking(Arc::new(bus), fleet)))
}

/// The member whose key is in the state directory. A key that can't be used is said, and is none: many verbs need none.
fn whose_place(config: &Config) -> Option<(wire::Sender, Secret)> {
    let place = Place::at(&config.state_dir);
    match (place.belonging(), place.identity()) {
        (Ok(Some(belonging)), Ok(Some((identity, _)))) => Some((belonging.me, identity)),
        (Err(error), _) | (_, Err(error)) => {
            tracing::warn!(%error, "this place's key can't be used: commands will be refused");
            None
        }
        _ => None,
    }
}

/// Joins the fleet by a token, in this state directory.
///
/// # Errors
/// As [`trust::join()`], and [`open`].
pub async fn join(config: &Config, clock: &Arc<dyn Clock>, token: Token) -> Result<Belonging, ErrorBody> {
    let settings = settings(
        config,
        format!("{} (joins)", config.host_id),
        Some(token.member.clone()),
    );
    let lattice = Lattice::connect(settings, Some(VERB_PATIENCE)).await?;
    let state = NatsState::open(&lattice, runtime::state_clock(clock)).await?;
    let place = Place::at(&config.state_dir);
    Ok(trust::join(token, place, Arc::new(state), JOIN_PATIENCE).await?)
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
