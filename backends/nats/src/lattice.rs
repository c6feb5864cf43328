//! The connection that bus, state and jobs share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::Client;
use async_nats::connection::State as ConnectionState;
use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::{self, stream};
use async_nats::rustls::crypto::aws_lc_rs;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::error::{Kind, NatsError};
use crate::health::Health;
use crate::refusals::{Refusal, Refused};
use crate::replies::Replies;
use crate::settings::Settings;

/// How often it is looked whether the connection stands, while somebody waits for it.
const POLL: Duration = Duration::from_millis(5);
/// How often another server is looked for at most.
const LOOK_ELSEWHERE_EVERY: Duration = Duration::from_secs(5);
/// What async-nats says of a server that refuses us.
const REFUSED: [&str; 2] = ["authorization violation", "failed signing nonce"];

/// A connection to the servers of a fleet; clones are the same connection. It is made again when it is lost.
#[derive(Clone, Debug)]
pub struct Lattice(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Settings,
    client: Client,
    jetstream: jetstream::Context,
    replies: Replies,
    // the streams of this process, to make them again when the servers lost them
    streams: Mutex<BTreeMap<String, stream::Config>>,
    health: Arc<Health>,
    // when another server was looked for last
    looked_at: Mutex<Option<Instant>>,
}

impl Lattice {
    /// Connects; tries again with backoff until `patience` is over, for ever without one.
    ///
    /// # Errors
    /// `Invalid` and `Denied` for settings and credentials, `Unavailable` when no server answers in time, `Unfit` for one
    /// without JetStream.
    pub async fn connect(settings: Settings, patience: Option<Duration>) -> Result<Self, NatsError> {
        // one TLS stack in the process; somebody else may have said so before
        let _said_before = aws_lc_rs::default_provider().install_default();
        let addresses = settings.addresses()?;
        let backoff = Backoff::new(addresses.len());
        let health = Arc::new(Health::default());
        let heard = health.clone();
        let options = settings.options(backoff.clone()).await?.event_callback(move |event| {
            let heard = heard.clone();
            async move { heard.heard(&event) }
        });
        let client = options.connect(addresses).await.map_err(|e| {
            NatsError::new(Kind::Unavailable, format!("{}: {e}", settings.servers.join(", "))).caused_by(e)
        })?;
        let jetstream = ContextBuilder::new()
            .timeout(Duration::from_millis(settings.ack_timeout_ms))
            .ack_timeout(Duration::from_millis(settings.ack_timeout_ms))
            .build(client.clone());
        let lattice = Self(Arc::new(Inner {
            settings,
            replies: Replies::open(client.clone(), health.waiting().clone()).await?,
            streams: Mutex::default(),
            client,
            jetstream,
            health,
            looked_at: Mutex::default(),
        }));
        lattice.wait_connected(patience).await?;
        backoff.begin();
        lattice.check_server()?;
        Ok(lattice)
    }

    async fn wait_connected(&self, patience: Option<Duration>) -> Result<(), NatsError> {
        let stands = async {
            while !self.is_connected() {
                tokio::time::sleep(POLL).await;
            }
        };
        match patience {
            None => stands.await,
            Some(patience) => tokio::time::timeout(patience, stands)
                .await
                .map_err(|_elapsed| self.not_connected())?,
        }
        Ok(())
    }

    /// Leaves a server that takes what we say and has nobody to keep it, for another one of those that were named.
    pub(crate) fn look_elsewhere(&self) {
        if self.0.settings.servers.len() < 2 {
            return;
        }
        let now = Instant::now();
        // nothing panics under this lock
        let mut looked_at = self.0.looked_at.lock().unwrap_or_else(PoisonError::into_inner);
        if looked_at.is_some_and(|at| now - at < LOOK_ELSEWHERE_EVERY) {
            return;
        }
        *looked_at = Some(now);
        drop(looked_at);
        let server = self.0.client.server_info().server_name;
        tracing::warn!(
            server,
            "writes at this NATS server are not acknowledged; looking for another one"
        );
        let client = self.0.client.clone();
        tokio::spawn(async move {
            // a client that has ended has nothing to look for
            let _ended = client.force_reconnect().await;
        });
    }

    /// The name of the server that we are connected to.
    pub fn server(&self) -> String {
        self.0.client.server_info().server_name
    }

    fn not_connected(&self) -> NatsError {
        let servers = self.0.settings.servers.join(", ");
        let why = self.0.health.last_trouble().unwrap_or_else(|| "no answer".into());
        if REFUSED.iter().any(|refused| why.contains(refused)) {
            let message = format!("NATS at {servers} refuses {}: {why}", self.0.settings.name);
            return NatsError::new(Kind::Denied, message)
                .hint("look at nats.user_file, nats.nkey_file or nats.creds_file");
        }
        let hint = match self.0.settings.tls.ca_file.is_some() || servers.contains("tls://") {
            // async-nats tells no more of a handshake that failed
            true => {
                "does nats.ca_file have the authority that signed the server's certificate? the server's log tells more"
            }
            false => "start one as docs/lattice.md says, or name another: --nats nats://HOST:4222",
        };
        NatsError::new(Kind::Unavailable, format!("no NATS server answers at {servers}: {why}")).hint(hint)
    }

    fn check_server(&self) -> Result<(), NatsError> {
        let info = self.0.client.server_info();
        if info.jetstream {
            return Ok(());
        }
        let message = format!(
            "the NATS server {} has no JetStream, which windlass needs",
            info.server_name
        );
        Err(NatsError::new(Kind::Unfit, message).hint("configure it as docs/lattice.md says"))
    }

    /// True while the connection stands.
    pub fn is_connected(&self) -> bool {
        self.0.client.connection_state() == ConnectionState::Connected && self.0.client.try_server_info().is_some()
    }
    /// Messages that were dropped since the start for they came faster than they were taken.
    pub fn slow_messages(&self) -> u64 {
        self.0.health.slow_messages()
    }
    /// How often a connection was made.
    pub fn connects(&self) -> u64 {
        self.0.health.connects()
    }
    /// What was refused since the last look: to us by the servers, and to others by us.
    pub fn take_refusals(&self) -> Vec<Refusal> {
        self.0.health.refusals().take()
    }
    /// Counts something that was refused.
    pub(crate) fn refused(&self, who: Option<&str>, what: Refused, subject: &str) {
        self.0.health.refusals().count(who, what, subject);
    }
    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }
    /// The client, for this crate's adapters.
    pub(crate) fn client(&self) -> &Client {
        &self.0.client
    }
    /// JetStream, for this crate's adapters.
    pub(crate) fn jetstream(&self) -> &jetstream::Context {
        &self.0.jetstream
    }
    /// Where answers come back, for this crate's adapters.
    pub(crate) fn replies(&self) -> &Replies {
        &self.0.replies
    }
    /// Tells of each connection that is made.
    pub fn connections(&self) -> watch::Receiver<u64> {
        self.0.health.connections()
    }
    /// How many copies a stream of ours has.
    pub fn replicas(&self) -> usize {
        match (self.0.settings.replicas, self.0.client.server_info().cluster) {
            (0, Some(_)) => 3,
            (0, None) => 1,
            (wanted, _) => wanted.into(),
        }
    }

    /// The stream of that name; made when it isn't there, with as many copies as [`Lattice::replicas`] says.
    ///
    /// # Errors
    /// `Unavailable` when the servers don't answer or can't make it.
    pub(crate) async fn stream(&self, config: stream::Config) -> Result<stream::Stream, NatsError> {
        let config = stream::Config {
            num_replicas: self.replicas(),
            ..config
        };
        let name = config.name.clone();
        self.streams().insert(name.clone(), config.clone());
        let can_roll_up = config.allow_rollup;
        let stream = self.0.jetstream.get_or_create_stream(config).await.map_err(|e| {
            NatsError::new(
                Kind::Unavailable,
                format!("the stream {name} can't be had from JetStream: {e}"),
            )
            .hint("nats stream ls; docs/lattice.md tells how the servers should be configured")
            .caused_by(e)
        })?;
        if stream.cached_info().config.allow_rollup && !can_roll_up {
            tracing::warn!(
                stream = name,
                "any host can purge this stream by one message that rolls it up; an earlier build made it so: nats stream \
                 edit {name} --no-allow-rollup"
            );
        }
        Ok(stream)
    }

    fn streams(&self) -> MutexGuard<'_, BTreeMap<String, stream::Config>> {
        // nothing panics under this lock
        self.0.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the streams of this process again where they are missing; returns their names.
    pub(crate) async fn restore_streams(&self) -> Result<Vec<String>, NatsError> {
        let configs: Vec<stream::Config> = self.streams().values().cloned().collect();
        let mut names = Vec::new();
        for config in configs {
            names.push(config.name.clone());
            self.stream(config).await?;
        }
        Ok(names)
    }

    /// What can be seen from here that speaks against the durability of what the servers keep; empty when nothing does.
    pub fn durability(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let info = self.0.client.server_info();
        let replicas = self.replicas();
        if info.cluster.is_some() && replicas < 3 {
            warnings.push(format!(
                "nats.replicas is {replicas} in a cluster: what one server loses is gone; 3 outlives one server"
            ));
        }
        if info.cluster.is_none() {
            warnings.push(format!(
                "the NATS server {} is alone: what it acknowledges is durable only with sync_interval: always in its \
                 configuration, which can't be seen from here",
                info.server_name
            ));
        }
        if info.max_payload < 1 << 20 {
            warnings.push(format!(
                "the NATS server {} carries messages up to {} bytes; windlass sends up to 1048576: raise max_payload",
                info.server_name, info.max_payload
            ));
        }
        warnings
    }
}
