//! What every state has to pass, embedded or in a cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;

use crate::{Change, KEY_BYTES_MAX, Key, Kind, LEASE_TTL_MS_MAX, NowMs, Prefix, State, VALUE_BYTES_MAX, Watch};

/// A time that the suite turns, in Unix milliseconds.
pub type Hand = Arc<AtomicU64>;

/// The hand as a state wants it.
pub fn now_ms(hand: &Hand) -> NowMs {
    let hand = hand.clone();
    Arc::new(move || hand.load(Ordering::SeqCst))
}

/// Time passes for states that go by the hand alone.
pub fn turn(hand: Hand, ms: u64) -> std::future::Ready<()> {
    hand.fetch_add(ms, Ordering::SeqCst);
    std::future::ready(())
}

/// Runs the whole suite; `make` gives an empty state with this time each time, `pass` lets time pass for its leases.
///
/// # Panics
/// When the state fails it.
pub async fn all<S: State + Clone, F: Future<Output = S>, P: Future<Output = ()>>(
    make: impl Fn(NowMs) -> F,
    pass: impl Fn(Hand, u64) -> P,
) {
    let hand: Hand = Arc::new(AtomicU64::new(1_000_000));
    let fresh = || make(now_ms(&hand));
    values_have_revisions(&fresh().await).await;
    compare_and_set(&fresh().await).await;
    one_of_many_creators_wins(&fresh().await).await;
    lists(&fresh().await).await;
    watches(&fresh().await).await;
    leases(&fresh().await, &hand, &pass).await;
    limits_hold(&fresh().await).await;
}

fn key(text: &str) -> Key {
    Key::new(text).expect("a key")
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

async fn values_have_revisions(state: &impl State) {
    let a = key("a/b");
    assert_eq!(state.get(&a).await.expect("get"), None);
    let first = state.put(&a, bytes("1")).await.expect("put");
    let second = state.put(&a, bytes("2")).await.expect("put");
    let other = state.put(&key("a/c"), Bytes::new()).await.expect("put");
    assert!(
        0 < first && first < second && second < other,
        "one sequence for all keys"
    );
    let entry = state.get(&a).await.expect("get").expect("there");
    assert_eq!(
        (entry.value, entry.revision, entry.expires_at_ms),
        (bytes("2"), second, None)
    );
    assert_eq!(
        state.get(&key("a/c")).await.expect("get").expect("there").value,
        Bytes::new()
    );
    let deleted = state.delete(&a, None).await.expect("delete");
    assert!(deleted > other);
    assert_eq!(state.get(&a).await.expect("get"), None);
    assert_eq!(state.delete(&a, None).await.expect_err("gone").kind, Kind::NotFound);
    assert!(
        state
            .create(&a, bytes("3"))
            .await
            .expect("a deleted key can be created")
            > deleted
    );
}

async fn compare_and_set(state: &impl State) {
    let a = key("a");
    assert_eq!(
        state.update(&a, bytes("0"), 1).await.expect_err("missing").kind,
        Kind::NotFound
    );
    let first = state.create(&a, bytes("1")).await.expect("create");
    assert_eq!(
        state.create(&a, bytes("x")).await.expect_err("exists").kind,
        Kind::Conflict
    );
    let second = state.update(&a, bytes("2"), first).await.expect("update");
    assert_eq!(
        state.update(&a, bytes("x"), first).await.expect_err("stale").kind,
        Kind::Conflict
    );
    assert_eq!(
        state.delete(&a, Some(first)).await.expect_err("stale").kind,
        Kind::Conflict
    );
    assert_eq!(
        state.get(&a).await.expect("get").expect("there").value,
        bytes("2"),
        "refusals change nothing"
    );
    state.delete(&a, Some(second)).await.expect("delete");
    assert_eq!(
        state.update(&a, bytes("x"), second).await.expect_err("gone").kind,
        Kind::NotFound
    );
}

async fn one_of_many_creators_wins<S: State + Clone>(state: &S) {
    let mut creators = tokio::task::JoinSet::new();
    for n in 0..16_u8 {
        let state = state.clone();
        creators.spawn(async move { state.create(&key("one"), Bytes::from(vec![n])).await });
    }
    let outcomes = creators.join_all().await;
    assert_eq!(outcomes.iter().filter(|o| o.is_ok()).count(), 1);
    assert!(
        outcomes
            .iter()
            .flat_map(|o| o.as_ref().err())
            .all(|e| e.kind == Kind::Conflict)
    );
    // counting by compare-and-set loses nothing
    state.put(&key("sum"), Bytes::from(vec![0])).await.expect("put");
    let mut adders = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let state = state.clone();
        adders.spawn(async move {
            for _ in 0..8 {
                loop {
                    let entry = state.get(&key("sum")).await.expect("get").expect("there");
                    let next = Bytes::from(vec![entry.value[0] + 1]);
                    match state.update(&key("sum"), next, entry.revision).await {
                        Ok(_) => break,
                        Err(e) => assert_eq!(e.kind, Kind::Conflict),
                    }
                }
            }
        });
    }
    adders.join_all().await;
    assert_eq!(state.get(&key("sum")).await.expect("get").expect("there").value[0], 32);
}

async fn lists(state: &impl State) {
    for k in ["b", "a/2", "a/10", "a/1", "ab/1", "a", "a/1/x", "a-b"] {
        state.put(&key(k), bytes("v")).await.expect("put");
    }
    state.delete(&key("a/2"), None).await.expect("delete");
    let names = |entries: Vec<crate::Entry>| entries.into_iter().map(|e| e.key.to_string()).collect::<Vec<_>>();
    let below_a = Prefix::below(&key("a"));
    let listed = state.list(&below_a, None, 100).await.expect("list");
    assert_eq!(
        names(listed),
        ["a/1", "a/1/x", "a/10"],
        "by name, below only, without the deleted"
    );
    let page = state.list(&below_a, Some(&key("a/1")), 1).await.expect("list");
    assert_eq!(names(page), ["a/1/x"]);
    assert!(
        state
            .list(&below_a, Some(&key("a/10")), 9)
            .await
            .expect("list")
            .is_empty()
    );
    assert_eq!(state.list(&Prefix::all(), None, 100).await.expect("list").len(), 7);
    assert!(
        state
            .list(&Prefix::below(&key("zz")), None, 100)
            .await
            .expect("list")
            .is_empty()
    );
}

async fn next(watch: &mut Watch) -> Change {
    let change = tokio::time::timeout(Duration::from_secs(5), watch.next()).await;
    change.expect("a change in time").expect("no end").expect("no error")
}

async fn watches(state: &impl State) {
    state.put(&key("w/a"), bytes("1")).await.expect("put");
    let second = state.put(&key("w/b"), bytes("2")).await.expect("put");
    let prefix = Prefix::below(&key("w"));
    let mut from_start = state.watch(&prefix, 0).await.expect("watch");
    let mut from_second = state.watch(&prefix, second).await.expect("watch");
    let Change::Put(a) = next(&mut from_start).await else {
        panic!("a put")
    };
    let Change::Put(b) = next(&mut from_start).await else {
        panic!("a put")
    };
    assert_eq!((a.key, b.key, b.revision), (key("w/a"), key("w/b"), second));
    let quiet = tokio::time::timeout(Duration::from_millis(50), from_start.next()).await;
    assert!(quiet.is_err(), "nothing is told twice");
    state.put(&key("elsewhere"), bytes("x")).await.expect("put");
    let third = state.put(&key("w/a"), bytes("3")).await.expect("put");
    for watch in [&mut from_start, &mut from_second] {
        let Change::Put(a) = next(watch).await else {
            panic!("a put")
        };
        assert_eq!((a.key, a.value, a.revision), (key("w/a"), bytes("3"), third));
    }
    let gone = state.delete(&key("w/b"), None).await.expect("delete");
    let expected = Change::Deleted {
        key: key("w/b"),
        revision: gone,
    };
    assert_eq!(next(&mut from_start).await, expected);
    let mut resumed = state.watch(&prefix, third).await.expect("watch");
    assert_eq!(next(&mut resumed).await, expected, "a watch resumes from a revision");
    for n in 0..600 {
        state.put(&key(&format!("w/n{n}")), bytes("n")).await.expect("put");
    }
    let mut last = gone;
    for _ in 0..600 {
        let change = next(&mut resumed).await;
        assert!(change.revision() > last, "in the order of revisions");
        last = change.revision();
    }
}

/// How long the suite's leases are: for states that go by real time, too, and a busy machine.
const LEASE_MS: u64 = 3_000;

async fn leases<P: Future<Output = ()>>(state: &impl State, hand: &Hand, pass: &impl Fn(Hand, u64) -> P) {
    let k = key("lease/web1");
    let lease = state.lease(&k, "h1", LEASE_MS).await.expect("lease");
    assert_eq!(lease.expires_at_ms, Some(hand.load(Ordering::SeqCst) + LEASE_MS));
    let foreign = state.lease(&k, "h2", LEASE_MS).await.expect_err("held");
    assert_eq!(foreign.kind, Kind::Conflict);
    assert!(foreign.to_string().contains("'h1'"), "{foreign}");
    assert_eq!(
        state.release(&k, "h2").await.expect_err("not theirs").kind,
        Kind::Conflict
    );
    pass(hand.clone(), LEASE_MS * 6 / 10).await;
    state.lease(&k, "h1", LEASE_MS).await.expect("renew");
    pass(hand.clone(), LEASE_MS * 6 / 10).await;
    assert!(state.get(&k).await.expect("get").is_some(), "renewed in time");
    pass(hand.clone(), LEASE_MS * 4 / 10).await;
    assert_eq!(state.get(&k).await.expect("get"), None, "ended by time");
    assert!(
        state
            .list(&Prefix::below(&key("lease")), None, 9)
            .await
            .expect("list")
            .is_empty()
    );
    assert_eq!(state.release(&k, "h1").await.expect_err("ended").kind, Kind::Conflict);
    state.lease(&k, "h2", LEASE_MS).await.expect("free again");
    state.release(&k, "h2").await.expect("release");
    state.lease(&k, "h3", LEASE_MS).await.expect("free at once");
    let plain = key("plain");
    state.put(&plain, bytes("h1")).await.expect("put");
    assert_eq!(
        state.lease(&plain, "h1", LEASE_MS).await.expect_err("no lease").kind,
        Kind::Conflict
    );
    for ttl_ms in [0, LEASE_TTL_MS_MAX + 1] {
        assert_eq!(
            state.lease(&k, "h3", ttl_ms).await.expect_err("a time").kind,
            Kind::Invalid
        );
    }
}

async fn limits_hold(state: &impl State) {
    let long = "k".repeat(KEY_BYTES_MAX);
    state
        .put(&key(&long), Bytes::from(vec![7; VALUE_BYTES_MAX]))
        .await
        .expect("just fits");
    assert_eq!(
        state.get(&key(&long)).await.expect("get").expect("there").value.len(),
        VALUE_BYTES_MAX
    );
    let too_large = state.put(&key("k"), Bytes::from(vec![7; VALUE_BYTES_MAX + 1])).await;
    assert_eq!(too_large.expect_err("too large").kind, Kind::Invalid);
    assert_eq!(state.get(&key("k")).await.expect("get"), None);
}
