//! Moves decisions into the state: keeps each tenant's view ([`desk`], [`following`]), reads providers ([`stock`]), takes machines and
//! gives them back ([`claim`], [`confirm`], [`release`]), finishes what others left unfinished ([`sweep`]), and answers ([`look`]).
//!
//! Several of these work on one state at once, in one process or in many. None waits for another; each write is a compare-and-set,
//! and who loses looks again and plans again.

pub mod claim;
pub mod confirm;
pub mod desk;
mod following;
pub mod look;
mod records;
pub mod release;
pub mod stock;
pub mod sweep;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bus::Bus;
use runtime::{Announcer, Clock};
use state::State;
use wire::HostId;

use crate::core::forecast::Horizon;
use crate::port::{Provider, Providers, RackHosts};
use desk::Desk;

/// How this concern behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long a claim that was not decided stands, in milliseconds.
    pub tentative_ms: u64,
    /// How long machines are leased until they are confirmed, in milliseconds.
    pub lease_ms: u64,
    /// How often a request is planned anew when others were faster, or a machine isn't what it was.
    pub attempts_max: u64,
    /// The pause between two readings of a provider, in milliseconds.
    pub refresh_every_ms: u64,
    /// How long a provider may take for one machine, in milliseconds.
    pub provider_timeout_ms: u64,
    /// How long a provider may take to tell all that it has, in milliseconds.
    pub stock_timeout_ms: u64,
    /// The pause between two rounds, in milliseconds.
    pub sweep_every_ms: u64,
    /// Clusters of a tenant that are remembered once they were given back.
    pub clusters_kept_max: usize,
    /// How far the forecast looks.
    pub horizon: Horizon,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tentative_ms: 60_000,
            lease_ms: 1_800_000,
            attempts_max: 16,
            refresh_every_ms: 300_000,
            provider_timeout_ms: 30_000,
            stock_timeout_ms: 600_000,
            sweep_every_ms: 30_000,
            clusters_kept_max: 4_000,
            horizon: Horizon::default(),
        }
    }
}

/// What was done since boot.
#[derive(Debug, Default)]
pub struct Counts {
    /// Selections that were made.
    pub selected: AtomicU64,
    /// Clusters that were claimed.
    pub claimed: AtomicU64,
    /// Claims that didn't fit.
    pub refused: AtomicU64,
    /// Compare-and-sets that lost to another broker.
    pub conflicts: AtomicU64,
    /// Machines that weren't what they had been when they were claimed.
    pub not_as_promised: AtomicU64,
    /// Machines that were quarantined and replaced.
    pub replaced: AtomicU64,
    /// Readings of providers that failed.
    pub unread: AtomicU64,
}

impl Counts {
    /// One more.
    pub fn up(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// One broker: what every verb works with. Clones are the same broker.
#[derive(Debug, Clone)]
pub struct Broker {
    /// This host, for records and events.
    pub host: HostId,
    /// Records.
    pub state: Arc<dyn State>,
    /// Where events go.
    pub announcer: Announcer,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where machines come from.
    pub providers: Arc<Providers>,
    /// Who hears of machines that are up.
    pub racks: Arc<dyn RackHosts>,
    /// How it behaves.
    pub settings: Settings,
    /// What was done.
    pub counts: Arc<Counts>,
    desk: Arc<Mutex<Desk>>,
    loading: Arc<tokio::sync::Mutex<()>>,
    /// Whose turn it is to wait for the watch.
    following: Arc<tokio::sync::Mutex<()>>,
}

impl Broker {
    /// A broker that knows nothing yet.
    pub fn new(
        host: HostId,
        state: Arc<dyn State>,
        bus: Arc<dyn Bus>,
        clock: Arc<dyn Clock>,
        providers: Providers,
        racks: Arc<dyn RackHosts>,
        settings: Settings,
    ) -> Self {
        Self {
            announcer: Announcer {
                host: host.clone(),
                bus,
                clock: clock.clone(),
            },
            host,
            state,
            clock,
            providers: Arc::new(providers),
            racks,
            settings,
            counts: Arc::default(),
            desk: Arc::default(),
            loading: Arc::default(),
            following: Arc::default(),
        }
    }
    /// The view; held for decisions only, never while waiting.
    pub fn desk(&self) -> MutexGuard<'_, Desk> {
        // a panic in a decision leaves a view that is at worst out of date, which every write checks
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// A tenant's provider.
    pub(crate) fn provider(&self, tenant: &str, name: &str) -> Option<Arc<dyn Provider>> {
        let found = |p: &&Arc<dyn Provider>| p.tenant() == tenant && p.name() == name;
        self.providers.iter().find(found).cloned()
    }
    /// A fresh name for a cluster.
    fn fresh_id(&self) -> String {
        runtime::ulid(&*self.clock)
    }
    /// The name that follows from an idempotency key: the same key of the same tenant, the same name.
    fn id_from(tenant: &str, key: &str) -> String {
        let hash = blake3::hash(format!("{tenant}\n{key}").as_bytes()).to_hex();
        format!("C{}", hash[..25].to_uppercase())
    }
}
