//! The bus over NATS: requests on subjects and queue groups, events in a stream.

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_trait::async_trait;
use bus::rules::{check_asked, check_payload, check_published, check_ring, check_service, late, nobody, patience_ms};
use bus::{
    BUSY_RETRY_AFTER_MS, Bus, BusError, Events, Incoming, Kind, REQUEST_TIMEOUT_MS_DEFAULT, Service, event_ring,
};
use bytes::Bytes;
use state::NowMs;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use wire::subject::EventFilter;
use wire::{Headers, Subject};

use crate::announce::Announcer;
use crate::error::NatsError;
use crate::lattice::Lattice;
use crate::replies::{ASKED_AT_ONCE_MAX, NoAnswer};
use crate::state::server_clock::ServerClock;
use crate::streams::Jetstream;
use crate::{events, serving};

/// Who serves, as the services protocol tells it.
#[derive(Debug, Clone)]
pub struct Identity {
    /// windlass's version.
    pub version: String,
    /// When the process started, RFC 3339.
    pub started_at: String,
}

/// The bus of a fleet.
#[derive(Debug, Clone)]
pub struct NatsBus(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    lattice: Lattice,
    identity: Identity,
    /// From the first service on; who only asks announces nothing.
    announcer: OnceCell<Announcer>,
}

impl NatsBus {
    /// A bus over this connection; makes the stream of events when it isn't there.
    ///
    /// # Errors
    /// `Unavailable` when the servers don't answer or can't make the stream.
    pub async fn open(lattice: &Lattice, identity: Identity) -> Result<Self, NatsError> {
        lattice.stream(events::stream_config()).await?;
        Ok(Self(Arc::new(Inner {
            lattice: lattice.clone(),
            identity,
            announcer: OnceCell::new(),
        })))
    }
    /// The servers' time, in Unix milliseconds, measured once: for one who asks, and doesn't stay.
    ///
    /// # Errors
    /// `Unavailable` when the servers don't tell it.
    pub async fn fleet_now(&self) -> Result<NowMs, NatsError> {
        let clock = ServerClock::open(&Jetstream(self.0.lattice.clone()), events::STREAM).await?;
        Ok(Arc::new(move || clock.server_ms()))
    }
    /// The connection.
    pub fn lattice(&self) -> &Lattice {
        &self.0.lattice
    }
}

#[async_trait]
impl Bus for NatsBus {
    async fn request(&self, subject: &Subject, headers: Headers, payload: Bytes) -> Result<Bytes, BusError> {
        check_payload(subject, &payload)?;
        check_asked(subject)?;
        let timeout_ms = patience_ms(&headers);
        let deadline = Instant::now() + Duration::from_millis(timeout_ms);
        let replies = self.0.lattice.replies();
        let (_room, left_ms) = match replies.room_now() {
            Some(room) => (room, timeout_ms),
            None => {
                let room = replies.room(deadline).await.ok_or_else(|| crowded(subject))?;
                let left = deadline.saturating_duration_since(Instant::now());
                (room, u64::try_from(left.as_millis()).unwrap_or(timeout_ms).max(1))
            }
        };
        let sent = sent_headers(subject, headers, left_ms)?;
        match replies.ask(subject.as_str(), sent, payload, deadline).await {
            Ok(message) => Ok(message.payload),
            Err(why) => Err(unanswered(subject, timeout_ms, why)),
        }
    }

    async fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), BusError> {
        check_payload(subject, &payload)?;
        check_published(subject)?;
        events::publish(&self.0.lattice, subject, payload).await
    }

    async fn serve(&self, service: Service) -> Result<Incoming, BusError> {
        check_service(&service)?;
        let start = || Announcer::start(&self.0.lattice, self.0.identity.clone());
        let announcer = self.0.announcer.get_or_try_init(start).await.map_err(|e| {
            BusError::new(Kind::Unavailable, format!("{} can't be served: {e}", service.concern)).caused_by(e)
        })?;
        serving::serve(&self.0.lattice, announcer, service).await
    }

    async fn subscribe(&self, filter: EventFilter, events_queued_max: usize) -> Result<Events, BusError> {
        check_ring(&filter, events_queued_max)?;
        let (sender, events) = event_ring(events_queued_max);
        events::feed(&self.0.lattice, filter, sender).await?;
        Ok(events)
    }
}

/// The headers as they are sent. What is left of the asker's patience is said unless it is what everybody takes for granted:
/// most requests have no headers, and cost the server and both clients less.
fn sent_headers(subject: &Subject, headers: Headers, left_ms: u64) -> Result<HeaderMap, BusError> {
    let headers = Headers {
        timeout_ms: (left_ms != REQUEST_TIMEOUT_MS_DEFAULT).then_some(left_ms),
        ..headers
    };
    let mut sent = HeaderMap::new();
    for (name, value) in headers.pairs() {
        sent.insert(name, header_value(subject, name, value)?);
    }
    Ok(sent)
}

/// A value as it may stand in a header: within the limit, on one line.
fn header_value(subject: &Subject, name: &str, value: String) -> Result<String, BusError> {
    if value.len() <= Headers::VALUE_BYTES_MAX && !value.contains(['\r', '\n']) {
        return Ok(value);
    }
    Err(BusError::new(
        Kind::Invalid,
        format!(
            "{subject}: header {name} has {} bytes or line ends; at most {} bytes on one line are taken; nothing was sent",
            value.len(),
            Headers::VALUE_BYTES_MAX
        ),
    ))
}

fn unanswered(subject: &Subject, timeout_ms: u64, why: NoAnswer) -> BusError {
    match &why {
        NoAnswer::Nobody => nobody(subject),
        NoAnswer::Late => late(subject, timeout_ms),
        NoAnswer::TooLarge(_) | NoAnswer::Refused(_) => {
            BusError::new(Kind::Invalid, format!("{subject}: {why}")).caused_by(why)
        }
        NoAnswer::NotConnected => not_connected(subject),
        NoAnswer::Forbidden => BusError::new(
            Kind::Denied,
            format!("{subject}: the NATS servers don't let us ask this; nothing was carried out"),
        )
        .hint("windlass nats-permissions shows what a host and a person may; ask as a person: nats.person")
        .caused_by(why),
    }
}

fn crowded(subject: &Subject) -> BusError {
    BusError::new(
        Kind::Busy,
        format!(
            "{subject}: {ASKED_AT_ONCE_MAX} requests of this process wait for their answers, the most; nothing was sent"
        ),
    )
    .retry_after_ms(BUSY_RETRY_AFTER_MS)
}

pub(crate) fn not_connected(subject: &Subject) -> BusError {
    BusError::new(Kind::Unavailable, format!("{subject}: {}", NoAnswer::NotConnected))
        .hint("it is made again by itself; the log tells when")
}
