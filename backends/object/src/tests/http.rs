//! Object stores over HTTP: error answers, cut bodies, silence, foreign objects.

use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use store::conformance;

use super::*;
use crate::fake_gcs::{FakeGcs, Instead};

fn hasty() -> Timeouts {
    let short = Duration::from_millis(300);
    Timeouts {
        body: short,
        range: short,
        metadata: short,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http_answers_have_kinds() {
    let server = FakeGcs::start().await;
    let store = server.store(Timeouts {
        metadata: Duration::from_secs(5),
        ..Timeouts::default()
    });
    let k = key("packs/1");
    store.put(&k, conformance::body(1, 100_000)).await.unwrap();
    for (status, kind) in [
        (401, Kind::Denied),
        (403, Kind::Denied),
        (404, Kind::NotFound),
        (400, Kind::Invalid),
        (429, Kind::SlowDown),
        (503, Kind::SlowDown),
        (500, Kind::Unavailable),
        (507, Kind::Full),
    ] {
        // The SDK repeats some of them: enough for all its tries.
        let tries = if status == 429 || status >= 500 { 3 } else { 1 };
        server.instead(&Instead::Status(status), tries);
        let e = store.get(&k, 1 << 20).await.unwrap_err();
        assert_eq!(e.kind, kind, "{status}: {e}");
        server.instead(&Instead::Status(status), tries);
        assert_eq!(
            store.put(&k, conformance::body(1, 100_000)).await.unwrap_err().kind,
            kind,
            "PUT {status}"
        );
        server.instead(&Instead::Status(status), tries);
        assert_eq!(
            store.list("").try_collect::<Vec<_>>().await.unwrap_err().kind,
            kind,
            "LIST {status}"
        );
    }
    assert!(
        store.get(&k, 1 << 20).await.unwrap() == conformance::body(1, 100_000),
        "and all the faults were used up"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_body_is_never_taken_for_whole() {
    let server = FakeGcs::start().await;
    let store = server.store(Timeouts::default());
    let k = key("packs/1");
    store.put(&k, conformance::body(1, 100_000)).await.unwrap();
    server.instead(&Instead::Cut, 1);
    match store.get_range(&k, 10..90_000).await {
        Ok(body) => assert!(
            body == conformance::body(1, 100_000)[10..90_000],
            "the SDK went on where it was cut"
        ),
        Err(e) => assert!(!e.is_permanent(), "{e}"),
    }
    server.instead(&Instead::Cut, 20);
    let e = store.get(&k, 1 << 20).await.unwrap_err();
    assert!(
        matches!(e.kind, Kind::Truncated | Kind::Unavailable),
        "{:?}: {e}",
        e.kind
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_ends_in_a_timeout_for_each_call() {
    let server = FakeGcs::start().await;
    let store = server.store(hasty());
    let k = key("packs/1");
    store.put(&k, Bytes::from_static(b"x")).await.unwrap();
    for call in 0..6 {
        server.instead(&Instead::Silence, 4);
        let failed = match call {
            0 => store.put(&k, Bytes::from_static(b"x")).await.err(),
            1 => store.get(&k, 9).await.err(),
            2 => store.get_range(&k, 0..1).await.err(),
            3 => store.head(&k).await.err(),
            4 => store.list("").try_collect::<Vec<_>>().await.err(),
            _ => store.delete(std::slice::from_ref(&k)).await.err(),
        };
        assert_eq!(failed.unwrap().kind, Kind::Timeout, "call {call}");
        server.serve_again();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_unavailable() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let builder = object_store::gcp::GoogleCloudStorageBuilder::new()
        .with_base_url(&format!("http://127.0.0.1:{port}"))
        .with_bearer_token("test");
    let client = cloud::client_options(Timeouts::default()).with_allow_http(true);
    let store = cloud::google_from(builder, "bucket", Timeouts::default(), client).unwrap();
    let e = store.get(&key("k"), 1).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unavailable, "{e}");
    assert!(e.to_string().contains("gs://bucket"), "{e}");
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_objects_in_a_bucket_are_passed_over() {
    let server = FakeGcs::start().await;
    for name in ["packs/a~b", "packs/a b", "packs/1"] {
        server.put_foreign(name);
    }
    let store = server.store(Timeouts::default());
    let all: Vec<_> = store.list("packs/").try_collect::<Vec<_>>().await.unwrap();
    assert_eq!(all.into_iter().map(|m| m.key).collect::<Vec<_>>(), [key("packs/1")]);
    server.take_requests();
    store.head(&key("packs/1")).await.unwrap();
    assert!(
        server.take_requests()[0].starts_with("HEAD /bucket/packs%2F1"),
        "no body is fetched for HEAD"
    );
}
