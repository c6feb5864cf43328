//! Moves decisions into the state: keeps a view of the inventory ([`view`], [`following`]), books, decides and settles ([`commit`]), writes
//! racks' records in groups ([`writing`]), finds placements ([`residents`]), and does what each verb says ([`place`], [`change`], [`beats`], [`evacuate`], [`stock`], [`look`], [`tell`]).
//!
//! Several of these work on one state at once, in one process or in many. None waits for another; each write is a
//! compare-and-set, and who loses reads again and plans again.

pub mod beats;
pub mod change;
pub mod commit;
pub mod evacuate;
mod following;
mod held;
pub mod look;
pub mod place;
mod residents;
pub mod stock;
pub mod tell;
pub mod view;
mod writing;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bus::Bus;
use runtime::{Announcer, Clock};
use state::State;
use wire::HostId;

use crate::core::ledger::RESIDENTS_BYTES_MAX;
use crate::port::Hosts;
use view::View;
use writing::Queue;

/// How this concern behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long a tentative booking stands, in milliseconds.
    pub tentative_ms: u64,
    /// How often a request is planned anew when others were faster.
    pub attempts_max: u64,
    /// Virtual CPUs sold for each 100 that a host's heartbeat tells of.
    pub vcpus_sold_percent: u32,
    /// Memory sold for each 100 that a host's heartbeat tells of.
    pub memory_sold_percent: u32,
    /// Hosts hear of their VMs, and may refuse.
    pub tells_hosts: bool,
    /// Hosts that beat join the inventory by themselves.
    pub takes_beats: bool,
    /// The pause between two rounds of [`Scheduler::go_round`], in milliseconds.
    pub sweep_every_ms: u64,
    /// How long released and void placements are remembered, in milliseconds.
    pub keep_ms: u64,
    /// What one rack's record keeps of placements, in bytes; a sweep leaves a quarter of it.
    pub residents_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tentative_ms: 10_000,
            attempts_max: 16,
            vcpus_sold_percent: 100,
            memory_sold_percent: 100,
            tells_hosts: false,
            takes_beats: false,
            sweep_every_ms: 60_000,
            keep_ms: 24 * 3_600_000,
            residents_bytes_max: RESIDENTS_BYTES_MAX,
        }
    }
}

/// What was done since boot.
#[derive(Debug, Default)]
pub struct Counts {
    /// Changes that were committed.
    pub committed: AtomicU64,
    /// Compare-and-sets of racks' records that were made; each may hold many changes.
    pub rack_writes: AtomicU64,
    /// Compare-and-sets that lost to another scheduler.
    pub conflicts: AtomicU64,
    /// Requests that were planned anew because of that.
    pub replanned: AtomicU64,
    /// Overdue bookings of others that were settled or dropped.
    pub settled_for_others: AtomicU64,
}

impl Counts {
    /// One more.
    pub fn up(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// One scheduler: what every verb works with. Clones are the same scheduler.
#[derive(Debug, Clone)]
pub struct Scheduler {
    /// This host, for records and events.
    pub host: HostId,
    /// Records.
    pub state: Arc<dyn State>,
    /// Where events go.
    pub announcer: Announcer,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Hosts of VMs.
    pub hosts: Arc<dyn Hosts>,
    /// How it behaves.
    pub settings: Settings,
    /// What was done.
    pub counts: Arc<Counts>,
    view: Arc<Mutex<View>>,
    queues: Arc<Mutex<HashMap<String, Arc<Queue>>>>,
    /// Whose turn it is to wait for the watch.
    following: Arc<tokio::sync::Mutex<()>>,
}

impl Scheduler {
    /// A scheduler that knows nothing of the inventory yet.
    pub fn new(
        host: HostId,
        state: Arc<dyn State>,
        bus: Arc<dyn Bus>,
        clock: Arc<dyn Clock>,
        hosts: Arc<dyn Hosts>,
        settings: Settings,
    ) -> Self {
        let view = Arc::new(Mutex::new(View::of(host.as_str())));
        Self {
            announcer: Announcer {
                host: host.clone(),
                bus,
                clock: clock.clone(),
            },
            host,
            state,
            clock,
            hosts,
            settings,
            counts: Arc::default(),
            view,
            queues: Arc::default(),
            following: Arc::default(),
        }
    }

    /// The view; held for decisions only, never while waiting.
    pub fn view(&self) -> MutexGuard<'_, View> {
        // a panic in a decision leaves a view that is at worst out of date, which every write checks
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads heartbeats where they count, and goes on with what others left unfinished. What fails is tried again in the next
    /// round.
    pub async fn go_round(&self) {
        if self.settings.takes_beats
            && let Err(error) = self.take_beats().await
        {
            tracing::warn!(%error, "heartbeats; they are read again");
        }
        if let Err(error) = self.sweep().await {
            tracing::warn!(%error, "the rack scheduler's sweep; it is tried again");
        }
    }

    /// What waits for one rack's record in this process.
    fn queue(&self, rack: &str) -> Arc<Queue> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        match queues.get(rack) {
            Some(queue) => queue.clone(),
            None => queues.entry(rack.to_owned()).or_default().clone(),
        }
    }

    /// A fresh name for a change.
    fn fresh_id(&self) -> String {
        runtime::ulid(&*self.clock)
    }

    /// The name that follows from an idempotency key: the same key, the same name.
    fn id_from(key: &str) -> String {
        let hash = blake3::hash(key.as_bytes()).to_hex();
        format!("R{}", hash[..25].to_uppercase())
    }

    /// The name followed from an idempotency key; a ULID never begins so.
    fn follows_from_request(id: &str) -> bool {
        id.starts_with('R')
    }
}
