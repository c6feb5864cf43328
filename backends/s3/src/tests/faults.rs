//! Each fault, one call: what heals is tried again, what doesn't is told with object, server and next step.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_s3::presigning::PresigningConfig;
use bytes::Bytes;
use futures::TryStreamExt;
use integration::fault_proxy::{Fate, HttpProxy, Seen, TcpFaults, TcpProxy};
use integration::s3_server::BUCKET;
use store::conformance::body;

use super::*;

const ANY: u64 = u64::MAX;

/// A Garage behind a proxy, and a store on it with short time-outs.
struct Stage {
    proxy: HttpProxy,
    store: Arc<dyn Store>,
    _garage: Garage,
    _dir: tempfile::TempDir,
}

async fn stage(change: impl FnOnce(&mut Settings)) -> Stage {
    let garage = Garage::start().unwrap();
    let proxy = HttpProxy::start(garage.account.address()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let account = garage.account.through(proxy.address());
    let short = |s: &mut Settings| {
        s.stall_timeout_s = 1;
        s.retry_for_s = 60;
        change(s);
    };
    let store = store_at(&account, "f", dir.path(), short).await;
    Stage {
        proxy,
        store,
        _garage: garage,
        _dir: dir,
    }
}

/// The next `times` requests that `which` accepts meet `fate`.
fn next(proxy: &HttpProxy, times: u64, fate: Fate, which: impl Fn(&Seen) -> bool + Send + Sync + 'static) {
    let left = AtomicU64::new(times);
    proxy.rule(move |seen| {
        let hit = which(seen)
            && left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
                .is_ok();
        if hit { fate.clone() } else { Fate::Pass }
    });
}

fn heals() -> Vec<Fate> {
    vec![
        Fate::Answer(500, "InternalError"),
        Fate::Answer(503, "SlowDown"),
        Fate::Answer(502, ""),
        Fate::DoneButAnswer(500, "InternalError"),
        Fate::DoneButClosed,
        Fate::CloseInBody,
        Fate::StallInBody,
        Fate::Stall,
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_heals_is_not_heard_of() {
    let stage = stage(|_| ()).await;
    let (store, whole) = (&stage.store, body(1, 300_000));
    store.put(&key("old"), whole.clone()).await.unwrap();
    for (i, fate) in heals().into_iter().enumerate() {
        let new = key(&format!("new/{i}"));
        let before = stage.proxy.seen().len();
        let hit = |times| next(&stage.proxy, times, fate.clone(), |_| true);
        hit(2);
        store
            .put(&new, whole.clone())
            .await
            .unwrap_or_else(|e| panic!("{fate:?}: {e}"));
        hit(1);
        assert!(store.get(&new, ANY).await.unwrap() == whole, "{fate:?}");
        hit(1);
        assert!(
            store.get_range(&new, 1000..200_000).await.unwrap() == whole[1000..200_000],
            "{fate:?}"
        );
        hit(1);
        assert_eq!(store.head(&new).await.unwrap().size_bytes, 300_000, "{fate:?}");
        hit(1);
        assert_eq!(
            store.list("new/").try_collect::<Vec<_>>().await.unwrap().len(),
            1,
            "{fate:?}"
        );
        hit(1);
        store.delete(&[new.clone(), key("new/none")]).await.unwrap();
        stage.proxy.behave();
        assert_eq!(store.head(&new).await.unwrap_err().kind, Kind::NotFound, "{fate:?}");
        // the proxy did meet them: six calls, and each fault one request more where it shows
        assert!(stage.proxy.seen().len() - before > 9, "{fate:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_body_is_noticed_by_the_servers_checksum() {
    let stage = stage(|_| ()).await;
    let whole = body(2, 100_000);
    stage.store.put(&key("k"), whole.clone()).await.unwrap();
    for fate in [Fate::TurnBit, Fate::Truncate] {
        next(&stage.proxy, 2, fate.clone(), |_| true);
        assert!(stage.store.get(&key("k"), ANY).await.unwrap() == whole, "{fate:?}");
    }
    // a range has no checksum: too short is told, another content is for the repository to notice
    next(&stage.proxy, 1, Fate::Truncate, |_| true);
    let e = stage.store.get_range(&key("k"), 0..50_000).await.unwrap_err();
    assert_eq!(e.kind, Kind::Truncated, "{e}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_heal_is_told() {
    let stage = stage(|s| s.retry_for_s = 1).await;
    let server = format!("http://{}", stage.proxy.address());
    for (fate, kind, said) in [
        (Fate::Answer(500, "InternalError"), Kind::Unavailable, "InternalError"),
        (Fate::Answer(503, "SlowDown"), Kind::SlowDown, "SlowDown"),
        (Fate::Answer(403, "AccessDenied"), Kind::Denied, "AccessDenied"),
        (
            Fate::Answer(403, "RequestTimeTooSkewed"),
            Kind::Denied,
            "RequestTimeTooSkewed",
        ),
        (Fate::Answer(507, "QuotaExceeded"), Kind::Full, "QuotaExceeded"),
        (
            Fate::Answer(301, "PermanentRedirect"),
            Kind::Invalid,
            "PermanentRedirect",
        ),
        (Fate::Stall, Kind::Timeout, "no byte went"),
        (Fate::DoneButClosed, Kind::Unavailable, "no answer"),
    ] {
        let fixed = fate.clone();
        stage.proxy.rule(move |_| fixed.clone());
        let e = stage
            .store
            .put(&key("some/object"), Bytes::from_static(b"x"))
            .await
            .unwrap_err();
        let text = e.to_string();
        assert_eq!(e.kind, kind, "{fate:?}: {text}");
        for word in ["some/object", "s3://windlass-tests/f", &server, said] {
            assert!(text.contains(word), "{fate:?}: no {word} in {text}");
        }
        assert!(e.hint.is_some(), "{fate:?}: {text}");
        assert_eq!(e.tried_enough, !e.is_permanent(), "{fate:?}: {text}");
    }
    stage.proxy.rule(|_| Fate::StallInBody);
    let e = stage.store.list("").try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(
        (e.kind, e.source.contains("no byte came")),
        (Kind::Timeout, true),
        "{e}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_404_after_success_is_told_as_not_found() {
    let stage = stage(|_| ()).await;
    stage.store.put(&key("k"), body(1, 10)).await.unwrap();
    stage.proxy.rule(|_| Fate::DoneButAnswer(404, "NoSuchKey"));
    let e = stage.store.get(&key("k"), ANY).await.unwrap_err();
    assert_eq!(e.kind, Kind::NotFound, "{e}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_nothing_or_is_gone_is_given_up() {
    let garage = Garage::start().unwrap();
    let proxy = TcpProxy::start(garage.account.address()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let account = garage.account.through(proxy.address());
    let store = store_at(&account, "t", dir.path(), |s| {
        s.stall_timeout_s = 1;
        s.retry_for_s = 2;
    })
    .await;
    // slow is not stalled: at 1 MiB/s these take longer than the time-out, most of it after the last byte left us
    proxy.set(TcpFaults {
        bytes_per_s: 1 << 20,
        ..TcpFaults::default()
    });
    store.put(&key("slow"), body(3, 3 << 20)).await.unwrap();
    assert!(store.get(&key("slow"), ANY).await.unwrap() == body(3, 3 << 20));
    proxy.set(TcpFaults::default());
    store.put(&key("k"), body(1, 10)).await.unwrap();
    proxy.set(TcpFaults {
        swallow: true,
        ..TcpFaults::default()
    });
    let e = store.put(&key("big"), body(1, 1 << 20)).await.unwrap_err();
    assert_eq!(e.kind, Kind::Timeout, "{e}");
    proxy.set(TcpFaults {
        cut_after_bytes: Some(100_000),
        ..TcpFaults::default()
    });
    let e = store.put(&key("big"), body(1, 1 << 20)).await.unwrap_err();
    assert!(matches!(e.kind, Kind::Unavailable | Kind::Timeout), "{e}");
    drop(proxy);
    assert_eq!(store.head(&key("k")).await.unwrap_err().kind, Kind::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_no_keys_no_bucket() {
    let (garage, rclone) = (Garage::start().unwrap(), Rclone::start().unwrap());
    let dir = tempfile::tempdir().unwrap();
    for account in [&garage.account, &rclone.account] {
        let wrong = Account {
            secret: account.secret.replace('1', "2"),
            ..account.clone()
        };
        let store = store_at(&wrong, "p", dir.path(), |_| ()).await;
        for e in [
            store.get(&key("k"), ANY).await.unwrap_err(),
            store.put(&key("k"), body(1, 1)).await.unwrap_err(),
        ] {
            assert_eq!(e.kind, Kind::Denied, "{e}");
            assert!(
                e.hint.as_deref().is_some_and(|h| h.contains("credentials_file")),
                "{e:?}"
            );
            assert!(!format!("{e} {e:?}").contains(&wrong.secret), "{e:?}");
        }
    }
    let file = dir.path().join("credentials");
    std::fs::write(&file, "[default]\n").unwrap();
    let settings = Settings {
        credentials_file: Some(file.clone()),
        ..Settings::default()
    };
    let e = open(&garage.account.url("p"), &settings)
        .await
        .unwrap()
        .head(&key("k"))
        .await
        .unwrap_err();
    assert_eq!(e.kind, Kind::Denied, "{e}");
    assert!(e.to_string().contains("no credentials"), "{e}");

    garage.account.credentials_file(&file).unwrap();
    let url = garage.account.url("p").replace(BUCKET, "no-such-bucket");
    let e = open(&url, &settings)
        .await
        .unwrap()
        .put(&key("k"), body(1, 1))
        .await
        .unwrap_err();
    assert!(matches!(e.kind, Kind::NotFound | Kind::Denied), "{e}");
    assert!(e.to_string().contains("NoSuchBucket") || e.kind == Kind::Denied, "{e}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_clock_is_named() {
    let (garage, rclone) = (Garage::start().unwrap(), Rclone::start().unwrap());
    let dir = tempfile::tempdir().unwrap();
    // Garage takes a day, and whatever comes from the future; rclone a quarter of an hour
    for (account, ahead_s) in [(&garage.account, -3 * 86_400), (&rclone.account, -7200)] {
        let store = store_at(account, "p", dir.path(), |s| s.time_shift = TimeShift(ahead_s)).await;
        let put = store.put(&key("k"), body(1, 1)).await;
        let e = put.expect_err(&format!("{} s at {}", ahead_s, account.region));
        let text = e.to_string();
        assert!(
            text.contains("this host's clock is") || text.contains("RequestTimeTooSkewed"),
            "{text}"
        );
        assert!(e.hint.as_deref().is_some_and(|h| h.contains("clock")), "{e:?}");
        assert!(e.is_permanent(), "{e:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_objects_go_in_parts_and_appear_whole_or_not_at_all() {
    let stage = stage(|s| s.part_bytes = 5 << 20).await;
    let whole = body(9, (12 << 20) + 345);
    let parts = |seen: &[Seen]| seen.iter().filter(|s| s.query.contains("partNumber")).count();
    stage.store.put(&key("large"), whole.clone()).await.unwrap();
    assert_eq!(parts(&stage.proxy.seen()), 3);
    assert!(stage.store.get(&key("large"), ANY).await.unwrap() == whole);

    // a part that fails is sent again, alone; and a completion whose answer was lost is looked for
    stage.proxy.forget();
    next(&stage.proxy, 1, Fate::Answer(500, "InternalError"), |s| {
        s.query.contains("partNumber=2")
    });
    stage.store.put(&key("again"), whole.clone()).await.unwrap();
    assert_eq!(parts(&stage.proxy.seen()), 4);
    next(&stage.proxy, 1, Fate::DoneButClosed, |s| {
        s.method == "POST" && s.query.contains("uploadId")
    });
    stage.store.put(&key("lost"), whole.clone()).await.unwrap();
    assert!(stage.store.get(&key("lost"), ANY).await.unwrap() == whole);

    // one that never goes through leaves no object and no upload
    stage.proxy.forget();
    stage.proxy.rule(|s| match s.query.contains("partNumber=3") {
        true => Fate::Answer(403, "AccessDenied"),
        false => Fate::Pass,
    });
    let e = stage.store.put(&key("never"), whole).await.unwrap_err();
    assert_eq!(e.kind, Kind::Denied, "{e}");
    assert_eq!(stage.store.head(&key("never")).await.unwrap_err().kind, Kind::NotFound);
    assert!(
        stage
            .proxy
            .seen()
            .iter()
            .any(|s| s.method == "DELETE" && s.query.contains("uploadId"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_delete_of_many_is_asked_one_by_one() {
    let stage = stage(|_| ()).await;
    for i in 0..3 {
        stage.store.put(&key(&format!("d/{i}")), body(i, 10)).await.unwrap();
    }
    stage.proxy.rule(|s| match s.method == "POST" {
        true => Fate::Answer(501, "NotImplemented"),
        false => Fate::Pass,
    });
    let all: Vec<_> = (0..3).map(|i| key(&format!("d/{i}"))).collect();
    stage.store.delete(&all).await.unwrap();
    assert!(stage.store.list("d/").try_collect::<Vec<_>>().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_set_is_asked_of_the_server() {
    let set = |s: &mut Settings| {
        s.sse = Some("aws:kms".into());
        s.sse_kms_key_id = Some("key-1".into());
        s.storage_class = Some("STANDARD_IA".into());
    };
    let stage = stage(set).await;
    stage.proxy.rule(|_| Fate::Answer(200, ""));
    stage.store.put(&key("k"), body(1, 10)).await.unwrap();
    let seen = stage.proxy.seen();
    let header = |name: &str| seen[0].headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    assert_eq!(header("x-amz-server-side-encryption"), Some("aws:kms"));
    assert_eq!(header("x-amz-server-side-encryption-aws-kms-key-id"), Some("key-1"));
    assert_eq!(header("x-amz-storage-class"), Some("STANDARD_IA"));
    assert!(header("x-amz-checksum-crc32c").is_some(), "{seen:?}");
    assert!(
        seen[0].path.starts_with(&format!("/{BUCKET}/f/")),
        "path style where an endpoint is named"
    );
}

#[tokio::test]
async fn a_virtual_host_carries_the_bucket() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("credentials");
    std::fs::write(&file, "[default]\naws_access_key_id = a\naws_secret_access_key = b\n").unwrap();
    for (style, uri) in [
        ("virtual", "https://some-bucket.s3.example.org/p/k?"),
        ("path", "https://s3.example.org/some-bucket/p/k?"),
        ("auto", "https://s3.example.org/some-bucket/p/k?"),
    ] {
        let file = file.display();
        let url = format!(
            "s3://some-bucket/p?endpoint=https://s3.example.org&region=x&style={style}&credentials_file={file}"
        );
        let address = address::parse(&url, &Settings::default()).unwrap();
        let bucket = bucket::Bucket::open(address).await.unwrap();
        let request = bucket
            .client
            .get_object()
            .bucket(&bucket.bucket)
            .key(bucket.full(&key("k")));
        let lifetime = PresigningConfig::expires_in(Duration::from_secs(60)).unwrap();
        let signed = request.presigned(lifetime).await.unwrap();
        assert!(signed.uri().starts_with(uri), "{style}: {}", signed.uri());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bandwidth_is_kept_to() {
    let garage = Garage::start().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = store_at(&garage.account, "b", dir.path(), |s| {
        s.upload_bytes_per_s_max = 4 << 20;
        s.download_bytes_per_s_max = 8 << 20;
        s.stall_timeout_s = 1;
    })
    .await;
    let whole = body(4, 4 << 20);
    let (a, b) = (key("a"), key("b"));
    let began = tokio::time::Instant::now();
    let (x, y) = futures::join!(store.put(&a, whole.clone()), store.put(&b, whole.clone()));
    x.unwrap();
    y.unwrap();
    // lower bounds alone: it may take longer, but not less
    assert!(began.elapsed() > Duration::from_millis(1700), "{:?}", began.elapsed());
    let began = tokio::time::Instant::now();
    assert!(store.get(&a, ANY).await.unwrap() == whole);
    assert!(began.elapsed() > Duration::from_millis(350), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_ones_own_is_trusted_when_it_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let tls = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (pem, secret) = (
        tls("server.pem", include_str!("tls/server.pem")),
        tls("server.key", include_str!("tls/server.key")),
    );
    let ca = tls("ca.pem", include_str!("tls/ca.pem"));
    let rclone = Rclone::start_tls(&pem, &secret).unwrap();
    let store = store_at(&rclone.account, "s", dir.path(), |s| s.ca_file = Some(ca)).await;
    store.put(&key("k"), body(1, 100_000)).await.unwrap();
    assert!(store.get(&key("k"), ANY).await.unwrap() == body(1, 100_000));
    let store = store_at(&rclone.account, "s", dir.path(), |s| s.retry_for_s = 0).await;
    let e = store.head(&key("k")).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unavailable, "{e}");
    assert!(e.to_string().to_lowercase().contains("certificate"), "{e}");
}
