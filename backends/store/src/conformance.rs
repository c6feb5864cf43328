//! What every [`Store`] and every decorator has to pass.
//!
//! Each case takes a `&dyn Store` that may hold other things, works below a prefix of its own (so cases may run on one
//! store, but each only once at a time), and panics with what was wrong. [`run`] runs them all.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use crate::key::SEGMENT_BYTES_MAX;
use crate::{KEY_BYTES_MAX, Key, Kind, Meta, Store};

const ANY_SIZE: u64 = u64::MAX;

fn key(text: impl Into<String>) -> Key {
    Key::new(text).expect("the suite names valid keys")
}

async fn listed(store: &dyn Store, prefix: &str) -> BTreeMap<Key, Meta> {
    let all: Vec<Meta> = store.list(prefix).try_collect().await.expect("list");
    let told = all.len();
    let by_key: BTreeMap<_, _> = all.into_iter().map(|m| (m.key.clone(), m)).collect();
    assert_eq!(by_key.len(), told, "list({prefix:?}) told a key twice");
    by_key
}

/// Bytes that don't compress and don't repeat, the same for the same `seed`.
pub fn body(seed: u64, bytes: usize) -> Bytes {
    let mut x = seed.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out.extend_from_slice(&x.to_le_bytes());
    }
    out.truncate(bytes);
    out.into()
}

/// All cases, one after another.
pub async fn run(store: &dyn Store) {
    run_for_a_repository(store).await;
    replaced_whole(store).await;
}

/// What a repository needs: all cases but [`replaced_whole`]. A repository gives no key a second body: packs and index objects
/// are named by their content, snapshots and sessions by ids of their own, and what is written again (a PUT whose answer was
/// lost, a session renewed) has the same bytes, which [`whole_or_not_at_all`] tries.
pub async fn run_for_a_repository(store: &dyn Store) {
    put_then_get(store).await;
    overwrite(store).await;
    not_found(store).await;
    empty_object(store).await;
    ranges(store).await;
    too_large(store).await;
    head_tells(store).await;
    list_by_text(store).await;
    list_many(store).await;
    list_invalid(store).await;
    delete_is_idempotent(store).await;
    delete_batch(store).await;
    long_keys(store).await;
    odd_keys(store).await;
    concurrent_puts(store).await;
    whole_or_not_at_all(store).await;
    large_object(store).await;
    local_path_is_the_object(store).await;
    url_is_plain(store);
}

/// What was put is read, listed and measured, at once.
pub async fn put_then_get(store: &dyn Store) {
    for (i, bytes) in [1, 4095, 4096, 70_000].into_iter().enumerate() {
        let key = key(format!("c-put/{i}"));
        let body = body(i as u64, bytes);
        store.put(&key, body.clone()).await.expect("put");
        assert!(
            store.get(&key, ANY_SIZE).await.expect("get") == body,
            "another body than was put"
        );
        assert_eq!(store.head(&key).await.expect("head").size_bytes, bytes as u64);
        assert!(
            listed(store, "c-put/").await.contains_key(&key),
            "not listed right after put"
        );
    }
}

/// A second PUT replaces the object for every later call, range GET included.
pub async fn overwrite(store: &dyn Store) {
    let key = key("c-overwrite/k");
    for (i, bytes) in [5000, 9000, 100, 100].into_iter().enumerate() {
        let body = body(100 + i as u64, bytes);
        store.put(&key, body.clone()).await.expect("put");
        assert!(
            store.get_range(&key, 0..100).await.expect("get_range") == body[..100],
            "range of an older object"
        );
        assert!(store.get(&key, ANY_SIZE).await.expect("get") == body, "an older object");
        assert_eq!(store.head(&key).await.expect("head").size_bytes, bytes as u64);
        assert_eq!(listed(store, "c-overwrite/").await[&key].size_bytes, bytes as u64);
    }
}

/// Reading what isn't there is `NotFound`, also where it would be the "directory" of an object.
pub async fn not_found(store: &dyn Store) {
    store.put(&key("c-missing/dir/object"), body(1, 10)).await.expect("put");
    for k in [
        "c-missing/nothing",
        "c-missing/dir",
        "c-missing",
        "c-missing/dir/object2",
        "c-none/a/b/c",
    ] {
        let k = key(k);
        assert_eq!(
            store.get(&k, ANY_SIZE).await.expect_err("get").kind,
            Kind::NotFound,
            "get {k}"
        );
        assert_eq!(
            store.get_range(&k, 0..1).await.expect_err("get_range").kind,
            Kind::NotFound,
            "get_range {k}"
        );
        let error = store.head(&k).await.expect_err("head");
        assert_eq!(error.kind, Kind::NotFound, "head {k}");
        assert_eq!(error.object, k.as_str(), "the error names the caller's key");
        assert!(error.is_permanent());
    }
    assert!(listed(store, "c-none/").await.is_empty(), "list of what isn't there");
}

/// No bytes is an object too.
pub async fn empty_object(store: &dyn Store) {
    let key = key("c-empty/k");
    store.put(&key, Bytes::new()).await.expect("put");
    assert!(store.get(&key, 0).await.expect("get").is_empty());
    assert_eq!(store.head(&key).await.expect("head").size_bytes, 0);
    assert_eq!(listed(store, "c-empty/").await[&key].size_bytes, 0);
    assert!(store.get_range(&key, 0..0).await.expect("get_range 0..0").is_empty());
    assert_eq!(
        store.get_range(&key, 0..1).await.expect_err("0..1").kind,
        Kind::Truncated
    );
}

/// Exactly the range, or `Truncated`.
pub async fn ranges(store: &dyn Store) {
    let key = key("c-range/k");
    let body = body(7, 100_000);
    store.put(&key, body.clone()).await.expect("put");
    for (start, end) in [
        (0, 1),
        (0, 100_000),
        (1, 99_999),
        (4095, 8193),
        (99_999, 100_000),
        (65_536, 65_537),
    ] {
        let got = store.get_range(&key, start..end).await.expect("get_range");
        assert!(
            got == body[start as usize..end as usize],
            "{start}..{end} gave other bytes"
        );
    }
    for at in [0, 5, 100_000] {
        assert!(store.get_range(&key, at..at).await.expect("an empty range").is_empty());
    }
    for (start, end) in [
        (0, 100_001),
        (99_999, 100_001),
        (100_000, 100_001),
        (500_000, 500_001),
        (1, u64::MAX),
        (1 << 62, 1 << 63),
    ] {
        let error = store.get_range(&key, start..end).await.expect_err("past the end");
        assert_eq!(error.kind, Kind::Truncated, "{start}..{end}: {error}");
        assert!(!error.is_permanent());
    }
    #[expect(clippy::reversed_empty_ranges, reason = "the point of the case")]
    let error = store.get_range(&key, 9..3).await.expect_err("backwards");
    assert_eq!(error.kind, Kind::Invalid);
}

/// GET keeps to the caller's limit.
pub async fn too_large(store: &dyn Store) {
    let key = key("c-large/k");
    store.put(&key, body(8, 1000)).await.expect("put");
    assert_eq!(store.get(&key, 1000).await.expect("exactly the limit").len(), 1000);
    for max in [999, 1, 0] {
        let error = store.get(&key, max).await.expect_err("over the limit");
        assert_eq!(error.kind, Kind::TooLarge);
        assert!(error.is_permanent());
    }
}

/// HEAD and LIST agree; age is in milliseconds since 1970 and doesn't run backwards.
pub async fn head_tells(store: &dyn Store) {
    let (first, second) = (key("c-head/1"), key("c-head/2"));
    store.put(&first, body(1, 3)).await.expect("put");
    store.put(&second, body(1, 4)).await.expect("put");
    let (a, b) = (
        store.head(&first).await.expect("head"),
        store.head(&second).await.expect("head"),
    );
    assert_eq!((a.size_bytes, b.size_bytes), (3, 4));
    assert_eq!(a.key, first);
    // Stores tell whole seconds or less; 2020 tells milliseconds from seconds.
    assert!(
        a.last_modified_ms > 1_577_836_800_000,
        "age {} is no Unix milliseconds",
        a.last_modified_ms
    );
    assert!(b.last_modified_ms >= a.last_modified_ms);
    let list = listed(store, "c-head/").await;
    assert_eq!(list[&first].size_bytes, 3);
    assert!((list[&first].last_modified_ms - a.last_modified_ms).abs() < 1000);
}

/// The prefix is text: it may end inside a segment, or be a whole key.
pub async fn list_by_text(store: &dyn Store) {
    let keys = [
        "c-list/a",
        "c-list/ab",
        "c-list/abc/d",
        "c-list/abc/e/f/g",
        "c-list/b/a",
        "c-listing/a",
    ];
    for k in keys {
        store.put(&key(k), body(1, k.len())).await.expect("put");
    }
    let everything = keys.into_iter().collect::<Vec<_>>();
    for prefix in [
        "c-list",
        "c-list/",
        "c-list/a",
        "c-list/ab",
        "c-list/abc",
        "c-list/abc/",
        "c-list/abc/e/f/g",
    ] {
        let expected: Vec<_> = everything
            .iter()
            .filter(|k| k.starts_with(prefix))
            .map(|k| key(*k))
            .collect();
        let got: Vec<_> = listed(store, prefix).await.into_keys().collect();
        assert_eq!(got, expected, "list({prefix:?})");
    }
    assert!(listed(store, "c-list/a/").await.is_empty(), "an object is no directory");
    assert!(listed(store, "c-list/abcd").await.is_empty());
    assert!(
        listed(store, "c-list/..").await.is_empty(),
        "begins like `..x`, which is a segment"
    );
    let whole = listed(store, "").await;
    assert!(
        everything.iter().all(|k| whole.contains_key(&key(*k))),
        "list(\"\") tells all"
    );
}

/// More than one page (servers tell 1,000 at a time), nested.
pub async fn list_many(store: &dyn Store) {
    let keys: Vec<Key> = (0..2300).map(|i| key(format!("c-many/{}/{:04}", i % 7, i))).collect();
    let puts = keys.iter().map(|k| store.put(k, Bytes::from(k.to_string())));
    futures::stream::iter(puts)
        .buffer_unordered(64)
        .try_collect::<Vec<_>>()
        .await
        .expect("puts");
    let all = listed(store, "c-many/").await;
    assert_eq!(all.len(), keys.len());
    assert!(keys.iter().all(|k| all.contains_key(k)));
    assert_eq!(
        listed(store, "c-many/3/").await.len(),
        keys.iter().filter(|k| k.as_str().contains("/3/")).count()
    );
    store.delete(&keys).await.expect("delete of 2,300");
    assert!(listed(store, "c-many/").await.is_empty());
}

/// A prefix that no key begins with is refused, before it reaches a file system.
pub async fn list_invalid(store: &dyn Store) {
    for prefix in ["/", "../", "a/../b", "a//b", "./", "a b", "ä", "a/\0", "a#1"] {
        let got: Vec<_> = store.list(prefix).collect().await;
        assert!(
            matches!(got.as_slice(), [Err(e)] if e.kind == Kind::Invalid),
            "list({prefix:?}) gave {got:?}, not one error"
        );
    }
}

/// DELETE twice is no error, and then it is gone for every call.
pub async fn delete_is_idempotent(store: &dyn Store) {
    let k = key("c-delete/k");
    store.put(&k, body(1, 5000)).await.expect("put");
    store.get_range(&k, 0..1).await.expect("get_range");
    for _ in 0..2 {
        store.delete(std::slice::from_ref(&k)).await.expect("delete");
        assert_eq!(store.get(&k, ANY_SIZE).await.expect_err("get").kind, Kind::NotFound);
        assert_eq!(
            store.get_range(&k, 0..1).await.expect_err("get_range").kind,
            Kind::NotFound
        );
        assert_eq!(store.head(&k).await.expect_err("head").kind, Kind::NotFound);
        assert!(listed(store, "c-delete/").await.is_empty());
    }
    store
        .delete(&[key("c-delete-never/a/b")])
        .await
        .expect("delete of what never was");
    store.delete(&[]).await.expect("delete of nothing");
    store.put(&k, body(2, 10)).await.expect("put again");
    assert!(store.get(&k, ANY_SIZE).await.expect("get") == body(2, 10));
}

/// One call removes those named, with missing ones among them, and no others.
pub async fn delete_batch(store: &dyn Store) {
    let keys: Vec<Key> = (0..40).map(|i| key(format!("c-batch/{}/{i}", i % 3))).collect();
    for k in &keys {
        store.put(k, body(1, 10)).await.expect("put");
    }
    let gone: Vec<Key> = keys
        .iter()
        .step_by(2)
        .cloned()
        .chain([key("c-batch/none"), key("c-batch/0/none")])
        .collect();
    store.delete(&gone).await.expect("delete");
    let left: Vec<_> = listed(store, "c-batch/").await.into_keys().collect();
    let mut expected: Vec<_> = keys.iter().skip(1).step_by(2).cloned().collect();
    expected.sort();
    assert_eq!(left, expected);
}

/// The longest keys work.
pub async fn long_keys(store: &dyn Store) {
    let segment = "s".repeat(SEGMENT_BYTES_MAX);
    let deep = format!("c-long/{}e", "d/".repeat((KEY_BYTES_MAX - 8) / 2));
    let wide = format!("{segment}/{}", "t".repeat(SEGMENT_BYTES_MAX));
    assert!(wide.len() <= KEY_BYTES_MAX && deep.len() <= KEY_BYTES_MAX);
    for text in [deep, wide] {
        let key = key(text);
        store.put(&key, body(3, 30)).await.expect("put under a long key");
        assert!(store.get(&key, ANY_SIZE).await.expect("get") == body(3, 30));
        assert_eq!(listed(store, key.as_str()).await.len(), 1);
        store.delete(&[key]).await.expect("delete");
    }
}

/// Keys that a file system or a server might take for something else.
pub async fn odd_keys(store: &dyn Store) {
    let names = [
        "...",
        "..a",
        "a..",
        ".hidden",
        "-flag",
        "_",
        "CON",
        "A",
        "a",
        "a.tmp",
        "a.gz",
        "0",
        "%2e".trim_start_matches('%'),
    ];
    for (i, name) in names.iter().enumerate() {
        store
            .put(&key(format!("c-odd/{name}")), body(i as u64, 20 + i))
            .await
            .expect("put");
    }
    for (i, name) in names.iter().enumerate() {
        let got = store.get(&key(format!("c-odd/{name}")), ANY_SIZE).await.expect("get");
        assert!(
            got == body(i as u64, 20 + i),
            "{name} holds another body (a case-folding store?)"
        );
    }
    assert_eq!(listed(store, "c-odd/").await.len(), names.len());
}

/// Many at once, into "directories" that don't exist yet.
pub async fn concurrent_puts(store: &dyn Store) {
    let keys: Vec<Key> = (0..64)
        .map(|i| key(format!("c-many-puts/{}/{}/{i}", i % 2, i % 5)))
        .collect();
    let puts = keys
        .iter()
        .enumerate()
        .map(|(i, k)| store.put(k, body(i as u64, 20_000)));
    futures::future::try_join_all(puts).await.expect("concurrent puts");
    for (i, k) in keys.iter().enumerate() {
        assert!(store.get(k, ANY_SIZE).await.expect("get") == body(i as u64, 20_000));
    }
    assert_eq!(listed(store, "c-many-puts/").await.len(), 64);
}

/// Readers beside a writer see an object whole or not at all: while it is written first, and while the same bytes are written
/// again. From the first answer on they never see nothing. A listing tells its whole size.
pub async fn whole_or_not_at_all(store: &dyn Store) {
    for round in 0..4u64 {
        let key = key(format!("c-whole/{round}/k"));
        let whole = body(800 + round, 3 << 20);
        let (stored, done) = (AtomicBool::new(false), AtomicBool::new(false));
        let writer = async {
            for _ in 0..3 {
                store.put(&key, whole.clone()).await.expect("put");
                stored.store(true, Ordering::SeqCst);
            }
            done.store(true, Ordering::SeqCst);
        };
        let reader = async {
            while !done.load(Ordering::SeqCst) {
                let must_be_there = stored.load(Ordering::SeqCst);
                match store.get(&key, ANY_SIZE).await {
                    Ok(got) => assert!(got == whole, "{} of {} bytes, or others", got.len(), whole.len()),
                    Err(error) => assert!(error.kind == Kind::NotFound && !must_be_there, "{error}"),
                }
                tokio::task::yield_now().await;
            }
        };
        let lister = async {
            while !done.load(Ordering::SeqCst) {
                let must_be_there = stored.load(Ordering::SeqCst);
                let seen = listed(store, &format!("c-whole/{round}/")).await;
                assert!(seen.len() == 1 || !must_be_there, "{seen:?}");
                assert!(seen.values().all(|m| m.size_bytes == whole.len() as u64), "{seen:?}");
                tokio::task::yield_now().await;
            }
        };
        futures::join!(writer, reader, lister);
    }
}

/// Readers beside writers who give one key many bodies see one or the other, never a mixture, and never nothing.
pub async fn replaced_whole(store: &dyn Store) {
    let key = key("c-replaced/k");
    let bodies: Vec<Bytes> = (0..8).map(|i| body(900 + i, 200_000 + i as usize * 1000)).collect();
    store.put(&key, bodies[0].clone()).await.expect("put");
    let done = AtomicBool::new(false);
    let writers = async {
        for _ in 0..3 {
            let puts = bodies.iter().map(|b| store.put(&key, b.clone()));
            futures::future::try_join_all(puts).await.expect("puts of one key");
        }
        done.store(true, Ordering::SeqCst);
    };
    let reader = async {
        while !done.load(Ordering::SeqCst) {
            let got = store.get(&key, ANY_SIZE).await.expect("the key always exists");
            assert!(bodies.contains(&got), "a body that nobody put");
            tokio::task::yield_now().await;
        }
    };
    futures::join!(writers, reader);
    assert!(bodies.contains(&store.get(&key, ANY_SIZE).await.expect("get")));
    assert_eq!(listed(store, "c-replaced/").await.len(), 1);
}

/// 20 MiB, and ranges of it.
pub async fn large_object(store: &dyn Store) {
    let key = key("c-20-mib/k");
    let large = body(20, 20 << 20);
    store.put(&key, large.clone()).await.expect("put");
    assert!(store.get(&key, ANY_SIZE).await.expect("get") == large);
    let middle = store
        .get_range(&key, 9 << 20..(9 << 20) + 300_001)
        .await
        .expect("get_range");
    assert!(middle == large[9 << 20..(9 << 20) + 300_001]);
    store.delete(&[key]).await.expect("delete");
}

/// If the store names a local file, that file has the object's bytes.
pub async fn local_path_is_the_object(store: &dyn Store) {
    let key = key("c-path/k");
    store.put(&key, body(5, 12_345)).await.expect("put");
    if let Some(path) = store.local_path(&key) {
        assert!(std::fs::read(&path).expect("the file exists") == body(5, 12_345));
    }
}

/// A URL has a scheme and no credentials.
pub fn url_is_plain(store: &dyn Store) {
    let url = store.url();
    assert!(url.contains("://"), "{url}");
    assert!(!url.contains('@') && !url.contains('?'), "{url} may hold a secret");
}
