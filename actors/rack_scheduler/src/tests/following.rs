//! How a view follows the state: looks that have to know of every acknowledged write read no rack for it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use runtime::ManualClock;
use state::{Entry, Key, Kind as StateKind, Prefix, Result as StateResult, State, StateError, Watch};
use wire::rack_scheduler::{RackList, RackLoad};

use super::asks::{ask, fleet};
use super::standing::{embedded, scheduler_on};
use crate::Kind;
use crate::engine::Scheduler;
use crate::port::Silent;

/// A state that counts what is asked of racks, and whose watches can be made to end.
#[derive(Debug)]
struct Counted {
    state: Arc<dyn State>,
    listed: AtomicU64,
    read: AtomicU64,
    watches_end: AtomicBool,
}

fn of_racks(text: &str) -> u64 {
    u64::from(text.starts_with("rack_scheduler/racks"))
}

#[async_trait]
impl State for Counted {
    async fn get(&self, key: &Key) -> StateResult<Option<Entry>> {
        self.read.fetch_add(of_racks(key.as_str()), Ordering::SeqCst);
        self.state.get(key).await
    }
    async fn put(&self, key: &Key, value: Bytes) -> StateResult<u64> {
        self.state.put(key, value).await
    }
    async fn create(&self, key: &Key, value: Bytes) -> StateResult<u64> {
        self.state.create(key, value).await
    }
    async fn update(&self, key: &Key, value: Bytes, revision: u64) -> StateResult<u64> {
        self.state.update(key, value, revision).await
    }
    async fn delete(&self, key: &Key, revision: Option<u64>) -> StateResult<u64> {
        self.state.delete(key, revision).await
    }
    async fn list(&self, prefix: &Prefix, after: Option<&Key>, entries_max: usize) -> StateResult<Vec<Entry>> {
        self.listed.fetch_add(of_racks(prefix.as_str()), Ordering::SeqCst);
        self.state.list(prefix, after, entries_max).await
    }
    async fn watch(&self, prefix: &Prefix, after_revision: u64) -> StateResult<Watch> {
        let watch = self.state.watch(prefix, after_revision).await?;
        let ended = StateError::new(StateKind::Compacted, "deletions are no longer known");
        match self.watches_end.load(Ordering::SeqCst) {
            true => Ok(futures::stream::iter([Err(ended)]).boxed()),
            false => Ok(watch),
        }
    }
    async fn lease(&self, key: &Key, holder: &str, ttl_ms: u64) -> StateResult<Entry> {
        self.state.lease(key, holder, ttl_ms).await
    }
    async fn release(&self, key: &Key, holder: &str) -> StateResult<()> {
        self.state.release(key, holder).await
    }
}

impl Counted {
    /// Lists and reads since the last look.
    fn asked(&self) -> (u64, u64) {
        (
            self.listed.swap(0, Ordering::SeqCst),
            self.read.swap(0, Ordering::SeqCst),
        )
    }
}

/// Two schedulers on one inventory: what the second asks of the state is counted.
async fn two() -> (Scheduler, Scheduler, Arc<Counted>) {
    let (state, clock): (Arc<dyn State>, Arc<ManualClock>) = embedded();
    let one = scheduler_on(state.clone(), clock.clone(), Arc::new(Silent));
    let load = RackLoad {
        inventory: fleet(12, 2),
        replace: false,
    };
    one.load(&load).await.unwrap();
    let counted = Arc::new(Counted {
        state,
        listed: AtomicU64::new(0),
        read: AtomicU64::new(0),
        watches_end: AtomicBool::new(false),
    });
    let other = scheduler_on(counted.clone(), clock, Arc::new(Silent));
    (one, other, counted)
}

async fn ids(scheduler: &Scheduler) -> BTreeSet<String> {
    let listing = scheduler.list(&RackList::default()).await.unwrap();
    listing.placements.into_iter().map(|p| p.id).collect()
}

#[tokio::test]
async fn a_list_knows_of_every_acknowledged_placement_and_reads_no_rack() {
    let (one, other, counted) = two().await;
    other.refresh().await.unwrap();
    assert_eq!(other.view().racks().len(), 12);
    assert_eq!(
        counted.asked(),
        (0, 0),
        "the first look follows the state from its beginning"
    );
    let mut placed = BTreeSet::new();
    for _ in 0..30 {
        placed.insert(one.place(&ask(1, 1), None).await.unwrap().id);
        assert_eq!(ids(&other).await, placed, "at once");
    }
    assert_eq!(other.show("nope").await.unwrap_err().kind, Kind::NotFound);
    assert_eq!(counted.asked(), (0, 0));
    // one that is there costs the read of its rack
    let first = placed.first().unwrap();
    assert_eq!(other.show(first).await.unwrap().id, *first);
    assert_eq!(counted.asked(), (0, 1));
    // a mark is no rack, and many looks at once come to an end
    let looks = (0..20).map(|_| ids(&other));
    for found in futures::future::join_all(looks).await {
        assert_eq!(found, placed);
    }
    assert_eq!(other.view().racks().len(), 12);
    assert_eq!(counted.asked(), (0, 0));
}

#[tokio::test]
async fn whoever_is_dropped_while_it_waits_leaves_the_watch_to_others() {
    let (one, other, counted) = two().await;
    other.refresh().await.unwrap();
    let mut placed = BTreeSet::new();
    for _ in 0..20 {
        placed.insert(one.place(&ask(1, 1), None).await.unwrap().id);
        let look = ids(&other);
        // dropped after a few polls, wherever it is then
        let _gone = tokio::time::timeout(std::time::Duration::from_micros(200), look).await;
    }
    assert_eq!(ids(&other).await, placed);
    assert_eq!(counted.asked().0, 0, "nothing was listed");
}

#[tokio::test]
async fn where_watches_end_racks_are_listed() {
    let (one, other, counted) = two().await;
    counted.watches_end.store(true, Ordering::SeqCst);
    let placed = BTreeSet::from([one.place(&ask(1, 1), None).await.unwrap().id]);
    assert_eq!(ids(&other).await, placed);
    assert!(counted.asked().0 > 0);
    // and followed again once they don't
    counted.watches_end.store(false, Ordering::SeqCst);
    assert_eq!(ids(&other).await, placed);
    counted.asked();
    assert_eq!(ids(&other).await, placed);
    assert_eq!(counted.asked(), (0, 0));
}
