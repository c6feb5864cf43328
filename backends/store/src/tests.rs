use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use super::*;

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

#[tokio::test]
async fn memory_conforms() {
    conformance::run(&*Memory::new()).await;
}

#[tokio::test]
async fn flaky_without_faults_conforms() {
    conformance::run(&*Flaky::new(Memory::new(), Faults::default())).await;
}

#[tokio::test]
async fn counting_conforms() {
    conformance::run(&*Counting::new(Memory::new())).await;
    conformance::run(&*Counting::with_local_paths(Memory::new())).await;
}

#[tokio::test(start_paused = true)]
async fn throttled_conforms() {
    conformance::run(&*Throttled::new(Memory::new(), Duration::from_millis(20), 10 << 20)).await;
}

#[tokio::test]
async fn prefixed_conforms_and_keeps_to_its_part() {
    let inner = Memory::new();
    inner.put(&key("a/bc"), Bytes::from_static(b"neighbour")).await.unwrap();
    let prefixed = Prefixed::new(inner.clone(), key("a/b"));
    assert_eq!(prefixed.url(), "memory:///a/b");
    conformance::run(&*prefixed).await;
    let left: Vec<_> = inner.list("").try_collect::<Vec<_>>().await.unwrap();
    assert!(
        left.iter()
            .all(|m| m.key == key("a/bc") || m.key.as_str().starts_with("a/b/"))
    );
    let mine: Vec<_> = prefixed.list("").try_collect::<Vec<_>>().await.unwrap();
    assert_eq!(mine.len() + 1, left.len());
}

#[tokio::test]
async fn decorators_stack_in_any_order() {
    let all = Prefixed::new(
        Counting::new(Flaky::new(Prefixed::new(Memory::new(), key("in")), Faults::default())),
        key("out"),
    );
    conformance::run(&*all).await;
}

#[test]
fn keys() {
    let longest = "k".repeat(255) + "/" + &"k".repeat(255);
    for good in ["a", "a/b", "A-_.9", "...", "..a", ".a", longest.as_str()] {
        assert_eq!(Key::new(good).unwrap().as_str(), good);
    }
    let too_long = "a/".repeat(256) + "b";
    let wide = "k".repeat(256);
    for bad in [
        "", "/", "a/", "/a", "a//b", ".", "..", "a/../b", "a/.", "a b", "a#1", "ä", "a\0", "a\\b", "%61", &too_long,
        &wide,
    ] {
        assert_eq!(Key::new(bad).unwrap_err().kind, Kind::Invalid, "{bad:?}");
    }
}

#[tokio::test]
async fn a_named_memory_is_one_store_in_a_process() {
    let here = Memory::named("tests-named").unwrap();
    here.put(&key("k"), Bytes::from_static(b"v")).await.unwrap();
    assert_eq!(
        Memory::named("tests-named").unwrap().get(&key("k"), 9).await.unwrap(),
        "v"
    );
    assert_eq!(
        Memory::named("tests-other")
            .unwrap()
            .head(&key("k"))
            .await
            .unwrap_err()
            .kind,
        Kind::NotFound
    );
    assert_eq!(here.url(), "memory://tests-named");
    assert_eq!(Memory::named("../x").unwrap_err().kind, Kind::Invalid);
    assert_eq!(Memory::named("").unwrap_err().kind, Kind::Invalid);
}

#[tokio::test]
async fn memory_takes_its_clock_and_can_be_damaged() {
    let store = Memory::with_clock(|| 1_600_000_000_123);
    store.put(&key("k"), Bytes::from_static(b"abc")).await.unwrap();
    assert!(store.corrupt(&key("k"), |b| b[1] ^= 1));
    assert!(!store.corrupt(&key("none"), |_| ()));
    assert_eq!(store.get(&key("k"), 9).await.unwrap(), "acc");
    assert_eq!(store.head(&key("k")).await.unwrap().last_modified_ms, 1_600_000_000_123);
    assert_eq!(store.stored_bytes(), 3);
}

#[tokio::test]
async fn counting_counts_requests_bytes_and_failures() {
    let store = Counting::new(Memory::new());
    store.put(&key("packs/1"), Bytes::from(vec![0; 100])).await.unwrap();
    store.put(&key("packs/2"), Bytes::from(vec![0; 50])).await.unwrap();
    let before = store.counts();
    store.put(&key("index/1"), Bytes::from(vec![0; 7])).await.unwrap();
    store.get(&key("packs/1"), 1000).await.unwrap();
    store.get(&key("packs/1"), 1).await.unwrap_err();
    store.get_range(&key("packs/2"), 10..30).await.unwrap();
    store.head(&key("none")).await.unwrap_err();
    assert_eq!(store.list("").count().await, 3);
    store
        .delete(&[key("packs/1"), key("packs/2"), key("none")])
        .await
        .unwrap();
    let counts = store.counts().since(&before);
    let count = |requests, errors, objects, bytes| OperationCount {
        requests,
        errors,
        objects,
        bytes,
    };
    assert_eq!(counts.put, count(1, 0, 1, 7));
    assert_eq!(counts.get, count(2, 1, 1, 100));
    assert_eq!(counts.get_range, count(1, 0, 1, 20));
    assert_eq!(counts.head, count(1, 1, 0, 0));
    assert_eq!(counts.list, count(1, 0, 3, 0));
    assert_eq!(counts.delete, count(1, 0, 3, 0));
    assert_eq!((counts.requests(), counts.read_bytes()), (7, 120));
    assert_eq!(
        counts.put_by_segment.into_iter().collect::<Vec<_>>(),
        [("index".to_owned(), count(1, 0, 1, 7))]
    );
    assert_eq!(store.counts().put_by_segment["packs"], count(2, 0, 2, 150));
}

#[tokio::test(start_paused = true)]
async fn throttled_shares_one_line() {
    let store = Throttled::new(Memory::new(), Duration::from_millis(50), 1_000_000);
    let start = tokio::time::Instant::now();
    let (a, b) = (key("a"), key("b"));
    let (x, y) = futures::join!(
        store.put(&a, vec![0; 500_000].into()),
        store.put(&b, vec![0; 500_000].into())
    );
    x.unwrap();
    y.unwrap();
    assert!(
        (1050..1060).contains(&start.elapsed().as_millis()),
        "{:?}",
        start.elapsed()
    );
    let start = tokio::time::Instant::now();
    store.get_range(&a, 0..100_000).await.unwrap();
    assert!(
        (150..160).contains(&start.elapsed().as_millis()),
        "{:?}",
        start.elapsed()
    );
    let start = tokio::time::Instant::now();
    assert_eq!(store.list("").count().await, 2);
    assert!((50..60).contains(&start.elapsed().as_millis()));
}

async fn with(faults: Faults) -> (Arc<Memory>, Arc<Flaky>) {
    let inner = Memory::new();
    for i in 0..50 {
        inner
            .put(&key(&format!("packs/{i}")), conformance::body(i, 1000))
            .await
            .unwrap();
    }
    let flaky = Flaky::new(inner.clone(), faults);
    (inner, flaky)
}

#[tokio::test]
async fn flaky_errors_follow_the_seed() {
    let mut runs = Vec::new();
    for seed in [1, 1, 2] {
        let (_, store) = with(Faults {
            seed,
            errors_permille: 300,
            ..Faults::default()
        })
        .await;
        let mut kinds = Vec::new();
        for i in 0..50 {
            kinds.push(store.get(&key(&format!("packs/{i}")), 1000).await.err().map(|e| e.kind));
        }
        let failed = kinds.iter().flatten().count() as u64;
        assert!((5..30).contains(&failed) && failed == store.hits());
        runs.push(kinds);
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}

#[tokio::test]
async fn flaky_bodies() {
    let k = key("packs/7");
    let right = conformance::body(7, 1000);
    let (_, wrong) = with(Faults {
        wrong_body_permille: 1000,
        ..Faults::default()
    })
    .await;
    let got = wrong.get(&k, 1000).await.unwrap();
    assert_eq!(got.iter().zip(&right).filter(|(a, b)| a != b).count(), 1);
    assert_ne!(wrong.get_range(&k, 0..10).await.unwrap(), right[..10]);
    let (_, short) = with(Faults {
        short_body_permille: 1000,
        ..Faults::default()
    })
    .await;
    assert!(short.get(&k, 1000).await.unwrap().len() < 1000);
    assert_eq!(short.get_range(&k, 0..10).await.unwrap().len(), 10);
    let (_, cut) = with(Faults {
        truncated_permille: 1000,
        ..Faults::default()
    })
    .await;
    assert_eq!(cut.get(&k, 1000).await.unwrap_err().kind, Kind::Truncated);
    let (_, list) = with(Faults {
        list_cut_permille: 1000,
        ..Faults::default()
    })
    .await;
    assert!(list.list("packs/").collect::<Vec<_>>().await.last().unwrap().is_err());
}

#[tokio::test]
async fn flaky_puts() {
    let (inner, lost) = with(Faults {
        lost_permille: 1000,
        only: "packs/".into(),
        ..Faults::default()
    })
    .await;
    lost.put(&key("packs/new"), Bytes::from_static(b"x")).await.unwrap();
    lost.put(&key("index/new"), Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(inner.head(&key("packs/new")).await.unwrap_err().kind, Kind::NotFound);
    assert_eq!(inner.head(&key("index/new")).await.unwrap().size_bytes, 1);
    assert_eq!(lost.hits(), 1);

    lost.set(Faults {
        unacknowledged_permille: 1000,
        ..Faults::default()
    });
    assert_eq!(
        lost.put(&key("packs/new"), Bytes::from_static(b"x"))
            .await
            .unwrap_err()
            .kind,
        Kind::Timeout
    );
    assert_eq!(inner.head(&key("packs/new")).await.unwrap().size_bytes, 1);

    lost.set(Faults {
        full_after_bytes: Some(10),
        ..Faults::default()
    });
    lost.put(&key("f/1"), vec![0; 6].into()).await.unwrap();
    assert_eq!(
        lost.put(&key("f/2"), vec![0; 6].into()).await.unwrap_err().kind,
        Kind::Full
    );
    lost.put(&key("f/3"), vec![0; 4].into()).await.unwrap();

    lost.set(Faults {
        dead_after_requests: Some(1),
        ..Faults::default()
    });
    lost.head(&key("f/1")).await.unwrap();
    assert_eq!(lost.head(&key("f/1")).await.unwrap_err().kind, Kind::Unavailable);
}

#[test]
fn an_error_tells_operation_object_and_store() {
    let e = StoreError::new(Kind::Denied, "put", "packs/1", "Permission denied (os error 13)").at("file:///srv/repo");
    assert_eq!(
        e.to_string(),
        "put of packs/1 in file:///srv/repo: Permission denied (os error 13)"
    );
    assert!(e.is_permanent());
    assert!(!StoreError::new(Kind::Timeout, "get", "k", "").is_permanent());
}
