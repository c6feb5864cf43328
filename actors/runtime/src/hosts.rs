//! The hosts: this one's heartbeat in State, what it knows of the others, and what people tell them to do.
//!
//! ```text
//! beat loop --put--> hosts/beats/<host> --watch--> Book of every host --overdue--> hosts/lost/<host> (compare-and-set)
//!     `--lease--> hosts/leases/<host>   (one process a host id)                         `--the winner--> event hosts.lost
//! windlass hosts cordon|drain --put--> hosts/orders/<host> --watch--> that host's admission of jobs
//! ```
//!
//! It rests on the ports State and Bus alone: the same on one host and on many. A beat carries a count and no time; every
//! observer measures the silence by its own clock. A loss is an opinion that somebody wrote down first: before that the
//! observer reads the beat anew, so that one who was cut off himself declares nobody lost. Nothing is taken from a lost
//! host because of it: its jobs are delivered to others because *they* fell silent.

mod beat;
pub(crate) mod core;
mod desk;
mod watch;

pub(crate) use beat::Beating;
pub(crate) use desk::HostBook;

use std::fmt::Debug;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use state::{Key, Prefix, State};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use wire::hosts::HostFacts;
use wire::members::{HostMembership, HostRevoke, HostRevoked, HostToken, HostTokenGranted};
use wire::{ErrorBody, HostId};

use crate::Clock;
use crate::job_desk::Desk;

/// Who belongs to the fleet, and who decides that. A host that stands alone has none.
#[async_trait]
pub trait Membership: Debug + Send + Sync + 'static {
    /// Who belongs to it, as this host knows it.
    fn members(&self) -> HostMembership;

    /// What this host refused for want of authority since its start, by reason.
    fn refused(&self) -> Vec<(&'static str, u64)>;

    /// Grants a token.
    ///
    /// # Errors
    /// `denied` when this host may not; `invalid`; `conflict` when the member is there already.
    async fn grant(&self, request: &HostToken) -> Result<HostTokenGranted, ErrorBody>;

    /// Puts a member out.
    ///
    /// # Errors
    /// `denied` when this host may not; `not_found`; `conflict` when it is out already.
    async fn revoke(&self, request: &HostRevoke) -> Result<HostRevoked, ErrorBody>;
}

/// What a host says of itself, and how often.
#[derive(Debug, Clone)]
pub struct HostsOptions {
    /// Where it stands and what it can do.
    pub facts: HostFacts,
    /// How far apart its beats are, in milliseconds.
    pub beat_every_ms: u64,
    /// How long a drained host waits for its jobs before it hands them back.
    pub drain_timeout: Duration,
    /// The boot id of the process that had the state directory before, whose lease may be ended at once: whoever holds the
    /// directory's lock knows that it is gone.
    pub earlier_boot: Option<String>,
    /// Who belongs to its fleet.
    pub membership: Option<Arc<dyn Membership>>,
}

/// Shared by the beat, the watch and the concern.
#[derive(Debug)]
pub(crate) struct Hosts {
    pub(crate) state: Arc<dyn State>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) desk: Arc<Desk>,
    pub(crate) options: HostsOptions,
    /// [`HostsOptions::drain_timeout`] as it is now; a reload changes it.
    drain_timeout: Mutex<Duration>,
    /// What is known of all hosts.
    book: Mutex<core::Book>,
    /// Beats of this process so far.
    pub(crate) beats: AtomicU64,
    /// Something changed that the next beat should say now.
    pub(crate) beat_now: Notify,
    /// The order for this host changed.
    pub(crate) ordered: Notify,
    /// Another process has this host's id now.
    pub(crate) evicted: CancellationToken,
    /// No more beats.
    pub(crate) ending: CancellationToken,
}

pub(crate) const BEATS: &str = "hosts/beats";
pub(crate) const ORDERS: &str = "hosts/orders";
pub(crate) const LOST: &str = "hosts/lost";
pub(crate) const LEASES: &str = "hosts/leases";

/// Keys of the shared state that a host alone writes.
///
/// # Errors
/// None for a host id; the type is the keys'.
pub fn own_keys(host: &HostId) -> state::Result<Vec<Key>> {
    [BEATS, LEASES].iter().map(|below| key(below, host)).collect()
}

/// Below these every host writes: what people tell hosts, and who is lost.
///
/// # Errors
/// None; the type is the keys'.
pub fn shared_keys() -> state::Result<Vec<Prefix>> {
    [ORDERS, LOST]
        .iter()
        .map(|below| Ok(Prefix::below(&Key::new(*below)?)))
        .collect()
}

/// The key of a host below one of these.
pub(crate) fn key(below: &str, host: &HostId) -> state::Result<Key> {
    Key::new(format!("{below}/{host}"))
}

impl Hosts {
    pub(crate) fn new(state: Arc<dyn State>, desk: Arc<Desk>, options: HostsOptions) -> Arc<Self> {
        Arc::new(Self {
            state,
            clock: desk.clock.clone(),
            desk,
            drain_timeout: Mutex::new(options.drain_timeout),
            options,
            book: Mutex::default(),
            beats: AtomicU64::new(0),
            beat_now: Notify::new(),
            ordered: Notify::new(),
            evicted: CancellationToken::new(),
            ending: CancellationToken::new(),
        })
    }

    pub(crate) fn host(&self) -> &HostId {
        &self.desk.worker.host
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, core::Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn drain_timeout(&self) -> Duration {
        *self.drain_timeout.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_drain_timeout(&self, timeout: Duration) {
        *self.drain_timeout.lock().unwrap_or_else(PoisonError::into_inner) = timeout;
    }

    pub(crate) fn jobs_running(&self) -> u64 {
        self.desk.running.len() as u64
    }

    /// Publishes how a host is.
    pub(crate) async fn announce_host(&self, host: &HostId) {
        let info = self.book().info(host, self.clock.monotonic_ms());
        if let Some(info) = info {
            self.desk.announcer.announce(wire::hosts::HostChanged(info)).await;
        }
    }
}

pub(crate) fn unreadable(e: impl std::fmt::Display) -> ErrorBody {
    ErrorBody::new(wire::Code::Corrupt, format!("an entry of the hosts can't be read: {e}"))
}
