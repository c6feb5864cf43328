//! Port [`Bus`]: requests that one server answers, and events that every subscriber hears.
//!
//! ```text
//! request --bytes--> a server's bounded queue (Incoming) --Delivery--> Responder --bytes--> the asker
//! publish --bytes--> every subscriber's bounded ring (Events); a slow one loses its oldest and is told how many
//! ```
//!
//! * [`InProcess`] is the embedded implementation; it passes encoded bytes only, so that a type that can't be read
//!   back shows without a server. `windlass-nats` takes the same seat.
//! * [`rules`]: what every bus refuses, and the words of its errors.
//! * [`call`] and [`announce`] are the typed way to use a bus; what they send belongs to the [`trace`] of their task.
//! * `conformance` (feature `testing`) is what every implementation and decorator has to pass.
//!
//! What is absent: no retry (the asker knows what may be asked twice), no ordering between subjects, no delivery after
//! the asker's time is up, and nothing that blocks a publisher on a slow subscriber.

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;
use wire::subject::EventFilter;
use wire::{Address, ConcernName, Headers, HostId, Subject};

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod error;
mod events;
#[cfg(any(test, feature = "testing"))]
mod faulty;
mod in_process;
mod incoming;
pub mod rules;
pub mod trace;
mod typed;

#[cfg(test)]
mod tests;

pub use error::{BusError, Kind};
pub use events::{EventSender, Events, Received, event_ring};
#[cfg(any(test, feature = "testing"))]
pub use faulty::{Faults, Faulty};
pub use in_process::InProcess;
pub use incoming::{Delivery, Incoming, IncomingSender, NotQueued, Registration, Responder, incoming_queue};
pub use typed::{announce, answer_bytes, call, call_json, error_bytes, reply_bytes};

/// Room for the headers of a message, in bytes.
pub const HEADERS_BYTES_MAX: usize = 16 << 10;
/// Largest payload of a request, an answer or an event, in bytes: with its headers it just fits into the 1 MiB that a NATS
/// server carries unless it is told otherwise. Bulk bytes go to the repository or the store.
pub const PAYLOAD_BYTES_MAX: usize = (1 << 20) - HEADERS_BYTES_MAX;
/// How long a request without `Windlass-Timeout-Ms` waits for its answer, in milliseconds.
pub const REQUEST_TIMEOUT_MS_DEFAULT: u64 = 30_000;
/// The longest that a request may wait, in milliseconds; a longer wish is cut to this. Long work is a job.
pub const REQUEST_TIMEOUT_MS_MAX: u64 = 600_000;
/// What a caller of a full queue is told to wait, in milliseconds.
pub const BUSY_RETRY_AFTER_MS: u64 = 100;
/// Events that a subscriber's ring holds, unless it asks for another number.
pub const EVENTS_QUEUED_DEFAULT: usize = 256;

/// One verb that a service answers, and who may answer it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The verb.
    pub verb: &'static str,
    /// Any host of the queue group, or the addressed one.
    pub address: Address,
}

impl Endpoint {
    /// The endpoint of a request type.
    pub fn of<R: wire::Request>() -> Self {
        Self {
            verb: R::VERB,
            address: R::ADDRESS,
        }
    }
}

/// What one host serves of one concern.
#[derive(Debug, Clone)]
pub struct Service {
    /// The concern; also the queue group of its cluster-wide verbs.
    pub concern: ConcernName,
    /// The host that serves.
    pub host: HostId,
    /// Its verbs.
    pub endpoints: Vec<Endpoint>,
    /// Requests that may wait for [`Incoming::next`]; the next caller hears `busy`.
    pub queue_requests_max: usize,
}

impl Service {
    /// The subjects that this service listens on.
    ///
    /// # Errors
    /// When a verb can't be part of a subject.
    pub fn subjects(&self) -> Result<Vec<Subject>, BusError> {
        let concern = self.concern.as_str();
        self.endpoints
            .iter()
            .map(|endpoint| match endpoint.address {
                Address::Cluster => Subject::cluster(concern, endpoint.verb),
                Address::Host => Subject::host(&self.host, concern, endpoint.verb),
            })
            .collect::<Result<_, _>>()
            .map_err(|e| BusError::new(Kind::Invalid, format!("can't serve {concern}: {e}")))
    }
}

/// The port. All payloads are encoded; [`call`] and [`announce`] encode typed messages.
#[async_trait]
pub trait Bus: Debug + Send + Sync + 'static {
    /// Asks, and waits for the one answer: the bytes of a [`wire::Answer`], whose error the caller still has to look at.
    /// A cluster subject is answered by any one server of the concern, in turn; a host subject by that host.
    ///
    /// # Errors
    /// `Invalid` for a payload over [`PAYLOAD_BYTES_MAX`] or an event's subject, `Unavailable` when nobody serves the
    /// subject or the server left without answering, `Busy` when its queue is full, `Deadline` when
    /// `headers.timeout_ms` ([`REQUEST_TIMEOUT_MS_DEFAULT`] without) passed. After `Deadline` and after `Unavailable` of a
    /// server that left, the work may have been done.
    async fn request(&self, subject: &Subject, headers: Headers, payload: Bytes) -> Result<Bytes, BusError>;

    /// Tells every subscriber that wants `subject`; never waits for one.
    ///
    /// # Errors
    /// `Invalid` for a payload over [`PAYLOAD_BYTES_MAX`] or a subject that isn't an event's.
    async fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), BusError>;

    /// Starts to serve; ends when the [`Incoming`] is closed or dropped.
    ///
    /// # Errors
    /// `Invalid` for a verb that can't be part of a subject or a queue without room.
    async fn serve(&self, service: Service) -> Result<Incoming, BusError>;

    /// Hears the events that `filter` wants, from now on, through a ring of `events_queued_max`.
    ///
    /// # Errors
    /// `Invalid` for a ring without room; `Unavailable` when the bus can't be reached.
    async fn subscribe(&self, filter: EventFilter, events_queued_max: usize) -> Result<Events, BusError>;
}
