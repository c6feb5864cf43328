//! What a connection needs to be told.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::{ConnectOptions, ServerAddr};
use secret::{Reference, Secret};
use wire::Sender;

use crate::backoff::Backoff;
use crate::error::{Kind, NatsError};

/// Messages of one subscription that may wait to be taken; async-nats drops what comes beyond. It reads in great strides, some
/// 50,000 messages before anybody else has a turn, so its own default of 65,536 is too little for a flood. Costs nothing until
/// they are there.
pub(crate) const MESSAGES_QUEUED_MAX: usize = 1 << 18;

/// How to reach the servers.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Their URLs: `nats://host:port` or `tls://host:port`.
    pub servers: Vec<String>,
    /// Our name as the servers list it.
    pub name: String,
    /// Who we are among those that meet there: our inbox is ours alone, and so are the events that we tell. Nobody in particular
    /// when absent.
    pub party: Option<Sender>,
    /// Who we are.
    pub credentials: Credentials,
    /// How the connection is protected.
    pub tls: Tls,
    /// Copies of what JetStream keeps: 1, 3 or 5; 0 is 3 where the servers are a cluster, else 1.
    pub replicas: u8,
    /// How long one try to connect may take, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Silence after which the server is asked whether it lives, in milliseconds; two unanswered are a lost connection.
    pub ping_interval_ms: u64,
    /// How long the servers may take to acknowledge what they are to keep, in milliseconds.
    pub ack_timeout_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            servers: vec!["nats://127.0.0.1:4222".into()],
            name: "windlass".into(),
            party: None,
            credentials: Credentials::None,
            tls: Tls::default(),
            replicas: 0,
            connect_timeout_ms: 5_000,
            ping_interval_ms: 5_000,
            ack_timeout_ms: 5_000,
        }
    }
}

/// Who we are: always a reference, for a secret stands in no configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    /// Nobody in particular.
    #[default]
    None,
    /// Two lines: user, password.
    UserFile(Reference),
    /// The seed of an nkey (`SU…`).
    NkeyFile(Reference),
    /// A `.creds` file with a JWT and its seed.
    CredsFile(Reference),
}

/// How the connection is protected; without files it is TLS for `tls://` and for servers that want it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// The authority that signed the servers' certificates (PEM); the system's when absent.
    pub ca_file: Option<PathBuf>,
    /// Our certificate (PEM).
    pub cert_file: Option<PathBuf>,
    /// Its key (PEM).
    pub key_file: Option<PathBuf>,
}

impl Settings {
    /// The addresses, checked.
    pub(crate) fn addresses(&self) -> Result<Vec<ServerAddr>, NatsError> {
        let invalid = |url: &str, why: String| NatsError::new(Kind::Invalid, format!("NATS server '{url}': {why}"));
        if self.servers.is_empty() {
            return Err(
                NatsError::new(Kind::Invalid, "no NATS server is named").hint("windlass --nats nats://HOST:4222")
            );
        }
        let address = |url: &String| {
            let parsed: ServerAddr = url.parse().map_err(|e: std::io::Error| invalid(url, e.to_string()))?;
            if parsed.has_user_pass() || parsed.username().is_some() {
                // the text is not repeated: it holds a secret
                let message = "a URL of a NATS server carries no user and no password here";
                return Err(NatsError::new(Kind::Invalid, message)
                    .hint("name a file: nats.user_file, nats.nkey_file or nats.creds_file"));
            }
            Ok(parsed)
        };
        self.servers.iter().map(address).collect()
    }

    /// What async-nats wants to know, but for the events.
    pub(crate) async fn options(&self, backoff: Backoff) -> Result<ConnectOptions, NatsError> {
        let mut options = ConnectOptions::new()
            .name(format!("windlass {}", self.name))
            .retry_on_initial_connect()
            .connection_timeout(Duration::from_millis(self.connect_timeout_ms))
            .ping_interval(Duration::from_millis(self.ping_interval_ms))
            .subscription_capacity(MESSAGES_QUEUED_MAX)
            .request_timeout(Some(Duration::from_millis(self.ack_timeout_ms)))
            .reconnect_delay_callback(move |attempts| backoff.delay(attempts));
        if let Some(party) = &self.party {
            options = options.custom_inbox_prefix(party.inbox());
        }
        options = match &self.credentials {
            Credentials::None => options,
            Credentials::UserFile(place) => {
                let text = secret(place).await?;
                let mut lines = text.expose().lines().map(str::trim);
                let (Some(user), Some(password)) = (lines.next(), lines.next()) else {
                    let message = format!("{place}: wanted are two lines, the user and the password");
                    return Err(NatsError::new(Kind::Invalid, message));
                };
                options.user_and_password(user.to_owned(), password.to_owned())
            }
            Credentials::NkeyFile(place) => options.nkey(secret(place).await?.expose().trim().to_owned()),
            Credentials::CredsFile(place) => {
                let text = secret(place).await?;
                options.credentials(text.expose()).map_err(|_the_text_may_be_quoted| {
                    NatsError::new(Kind::Invalid, format!("{place}: not a .creds file of NATS"))
                })?
            }
        };
        if let Some(ca) = &self.tls.ca_file {
            options = options.add_root_certificates(ca.clone()).require_tls(true);
        }
        match (&self.tls.cert_file, &self.tls.key_file) {
            (Some(cert), Some(key)) => Ok(options
                .add_client_certificate(cert.clone(), key.clone())
                .require_tls(true)),
            (None, None) => Ok(options),
            _ => Err(NatsError::new(
                Kind::Invalid,
                "nats.cert_file and nats.key_file go together; one is missing",
            )),
        }
    }
}

async fn secret(place: &Reference) -> Result<Secret, NatsError> {
    let place = place.clone();
    let read = tokio::task::spawn_blocking(move || place.read());
    // only a runtime that ends drops it
    let read = read
        .await
        .map_err(|e| NatsError::new(Kind::Unavailable, "the process ends").caused_by(e))?;
    read.map_err(|e| NatsError::new(Kind::Denied, e.to_string()).caused_by(e))
}
