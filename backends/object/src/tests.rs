use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use store::conformance;

use super::fake_gcs::{FakeGcs, Instead};
use super::*;

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn file_url(path: &Path) -> String {
    format!("file://{}", path.display())
}

fn local() -> (tempfile::TempDir, Arc<dyn Store>) {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&file_url(directory.path())).unwrap();
    (directory, store)
}

#[tokio::test(flavor = "multi_thread")]
async fn local_files_conform() {
    let (_directory, store) = local();
    conformance::run(&*store).await;
    assert!(store.local_path(&key("a/b")).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn prefixed_local_files_conform() {
    let (_directory, store) = local();
    conformance::run(&*Prefixed::new(store, key("part/of"))).await;
}

#[tokio::test]
async fn memory_conforms() {
    let store = open("memory://object-tests").unwrap();
    conformance::run(&*store).await;
    assert!(
        open("memory://object-tests")
            .unwrap()
            .head(&key("c-head/1"))
            .await
            .is_ok()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn google_cloud_storage_conforms() {
    let server = FakeGcs::start().await;
    conformance::run(&*server.store(Timeouts::default())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_in_google_cloud_storage_conforms() {
    let server = FakeGcs::start().await;
    conformance::run(&*Prefixed::new(server.store(Timeouts::default()), key("deep/in"))).await;
}

#[test]
fn urls() {
    let directory = tempfile::tempdir().unwrap();
    let url = file_url(&directory.path().canonicalize().unwrap());
    for asked in [
        url.clone(),
        format!("{url}/"),
        url.replacen("file://", "file://localhost", 1),
    ] {
        assert_eq!(open(&asked).unwrap().url(), url, "{asked}");
    }
    let spaced = directory.path().join("with space#and%");
    std::fs::create_dir(&spaced).unwrap();
    assert_eq!(
        open(&format!("{url}/with%20space%23and%25")).unwrap().url(),
        format!("{url}/with%20space%23and%25")
    );

    assert_eq!(open(&format!("{url}/none")).unwrap_err().kind, Kind::NotFound);
    std::fs::write(directory.path().join("file"), b"").unwrap();
    assert_eq!(open(&format!("{url}/file")).unwrap_err().kind, Kind::Invalid);
    assert_eq!(open(&format!("{url}/file/x")).unwrap_err().kind, Kind::Invalid);
    for (bad, said) in [
        ("ftp://host/x", "unknown scheme ftp"),
        ("s3://bucket/x", "later release"),
        ("/srv/repo", "file:///srv/repo"),
        ("repo", "file:///dir"),
        ("file:repo", "file:///absolute"),
        ("file://repo/x", "file:///absolute"),
        ("file:///srv/a?b", "%3F"),
        ("file:///srv/a#b", "%23"),
        ("memory://", "memory://name"),
        ("memory://a/b", "memory://name"),
        ("gs://", "no bucket"),
        ("gs:///x", "no bucket"),
        ("gs://bucket/a b", "prefix"),
        ("gs://bucket/a//b", "prefix"),
        ("", "known are"),
    ] {
        let e = open(bad).unwrap_err();
        assert_eq!(e.kind, Kind::Invalid, "{bad}");
        assert!(e.to_string().contains(said), "{bad}: {e}");
    }
    for secret in [
        "gs://user:hunter2@bucket/p",
        "az://hunter2@c/p",
        "az://c/p?sig=hunter2",
        "s3://k:hunter2@b/p",
    ] {
        let e = open(secret).unwrap_err();
        assert_eq!(e.kind, Kind::Invalid);
        assert!(!format!("{e} {e:?}").contains("hunter2"), "{e:?}");
    }
}

#[test]
fn create_makes_directories_for_their_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/b/c");
    for _ in 0..2 {
        create(&file_url(&path)).unwrap();
    }
    for made in [&path, path.parent().unwrap()] {
        assert_eq!(std::fs::metadata(made).unwrap().permissions().mode() & 0o777, 0o700);
    }
    assert_eq!(create("gs:///x").unwrap_err().kind, Kind::Invalid);
}

#[tokio::test]
async fn what_is_no_object_is_not_listed_and_not_touched() {
    let (directory, store) = local();
    store.put(&key("packs/1"), Bytes::from_static(b"x")).await.unwrap();
    for foreign in ["packs/#77-3", "packs/1#1", "lost+found", "packs/a b", "packs/\u{e9}"] {
        std::fs::write(directory.path().join(foreign), b"foreign").unwrap();
    }
    std::fs::create_dir(directory.path().join("packs/dir")).unwrap();
    std::os::unix::fs::symlink("nowhere", directory.path().join("packs/dangling")).unwrap();
    std::os::unix::fs::symlink("..", directory.path().join("packs/dir/loop")).unwrap();
    let all: Vec<_> = store.list("").try_collect::<Vec<_>>().await.unwrap();
    assert_eq!(
        all.into_iter().map(|m| m.key).collect::<Vec<_>>(),
        [key("packs/1")],
        "nor is a loop followed"
    );
    store.delete(&[key("packs/dir"), key("packs")]).await.unwrap();
    assert!(directory.path().join("packs/dir").is_dir());
}

#[tokio::test]
async fn left_overs_of_killed_puts_are_removed_when_they_are_old() {
    let (directory, store) = local();
    let packs = directory.path().join("packs");
    std::fs::create_dir(&packs).unwrap();
    let (old, new) = (packs.join("#1-0"), packs.join("#1-1"));
    for path in [&old, &new] {
        std::fs::write(path, b"half a pa").unwrap();
    }
    let written = std::fs::metadata(&old).unwrap().modified().unwrap();
    let file = std::fs::File::options().write(true).open(&old).unwrap();
    file.set_modified(written - Duration::from_secs(2 * 3600)).unwrap();
    // One that carries our own process id and the first number is passed by.
    let mine = packs.join(format!("#{}-0", std::process::id()));
    std::fs::write(&mine, b"of an earlier process with this id").unwrap();
    store.put(&key("packs/1"), Bytes::from_static(b"whole")).await.unwrap();
    assert!(!old.exists() && new.exists() && mine.exists());
    assert_eq!(store.get(&key("packs/1"), 9).await.unwrap(), "whole");
    assert_eq!(store.list("").try_collect::<Vec<_>>().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_range_is_of_the_object_that_is_there_now() {
    let (directory, store) = local();
    let k = key("packs/1");
    store.put(&k, Bytes::from_static(b"first")).await.unwrap();
    assert_eq!(store.get_range(&k, 0..5).await.unwrap(), "first");
    // Another process replaces it, then removes it.
    std::fs::write(directory.path().join("other"), b"other").unwrap();
    std::fs::rename(directory.path().join("other"), directory.path().join("packs/1")).unwrap();
    assert_eq!(store.get_range(&k, 0..5).await.unwrap(), "other");
    std::fs::remove_file(directory.path().join("packs/1")).unwrap();
    assert_eq!(store.get_range(&k, 0..5).await.unwrap_err().kind, Kind::NotFound);
    std::fs::write(directory.path().join("packs/1"), b"cut").unwrap();
    assert_eq!(store.get_range(&k, 0..5).await.unwrap_err().kind, Kind::Truncated);
}

#[tokio::test]
async fn many_files_stay_within_the_cache() {
    let (_directory, store) = local();
    for round in 0..2 {
        for i in 0..200 {
            let k = key(&format!("packs/{i}"));
            if round == 0 {
                store.put(&k, conformance::body(i, 100)).await.unwrap();
            }
            assert_eq!(
                store.get_range(&k, 10..20).await.unwrap(),
                conformance::body(i, 100)[10..20]
            );
        }
    }
}

#[tokio::test]
async fn a_directory_that_goes_away_is_an_error_and_comes_back() {
    let (directory, store) = local();
    store.put(&key("packs/a/1"), Bytes::from_static(b"x")).await.unwrap();
    std::fs::remove_dir_all(directory.path().join("packs")).unwrap();
    assert_eq!(
        store
            .put(&key("packs/a/2"), Bytes::from_static(b"x"))
            .await
            .unwrap_err()
            .kind,
        Kind::NotFound
    );
    store.put(&key("packs/a/2"), Bytes::from_static(b"x")).await.unwrap();
    std::fs::remove_dir_all(directory.path()).unwrap();
    let e = store
        .put(&key("packs/a/3"), Bytes::from_static(b"x"))
        .await
        .unwrap_err();
    assert_eq!(e.kind, Kind::NotFound);
    assert!(!directory.path().exists(), "a PUT does not make the root");
    assert_eq!(
        store.list("").try_collect::<Vec<_>>().await.unwrap_err().kind,
        Kind::NotFound
    );
    assert_eq!(
        store.list("packs/").try_collect::<Vec<_>>().await.unwrap_err().kind,
        Kind::NotFound
    );
}

#[tokio::test]
async fn an_object_in_the_place_of_a_directory() {
    let (_directory, store) = local();
    store.put(&key("a"), Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(
        store.put(&key("a/b"), Bytes::new()).await.unwrap_err().kind,
        Kind::Invalid
    );
    assert_eq!(store.get(&key("a/b"), 9).await.unwrap_err().kind, Kind::NotFound);
    store.delete(&[key("a/b")]).await.unwrap();
    store.put(&key("d/e"), Bytes::from_static(b"x")).await.unwrap();
    let e = store.put(&key("d"), Bytes::new()).await.unwrap_err();
    assert_eq!(e.kind, Kind::Invalid, "{e}");
    assert_eq!(store.list("").try_collect::<Vec<_>>().await.unwrap().len(), 2);
}

#[test]
fn system_errors_have_kinds() {
    for (errno, kind) in [
        (libc_errno::ENOSPC, Kind::Full),
        (libc_errno::EDQUOT, Kind::Full),
        (libc_errno::EACCES, Kind::Denied),
        (libc_errno::EPERM, Kind::Denied),
        (libc_errno::EROFS, Kind::Denied),
        (libc_errno::ENOENT, Kind::NotFound),
        (libc_errno::ENAMETOOLONG, Kind::Invalid),
        (libc_errno::EIO, Kind::Unavailable),
        (libc_errno::EMFILE, Kind::Unavailable),
        (libc_errno::ESTALE, Kind::Unavailable),
        (libc_errno::ETIMEDOUT, Kind::Timeout),
    ] {
        let e = std::io::Error::from_raw_os_error(errno);
        assert_eq!(error::kind_of_io(&e), kind, "{e}");
    }
    let wrapped = object_store::Error::Generic {
        store: "x",
        source: Box::new(std::io::Error::other(std::io::Error::from_raw_os_error(
            libc_errno::EIO,
        ))),
    };
    assert_eq!(error::kind_of_object_store(&wrapped), Kind::Unavailable);
}

mod libc_errno {
    use rustix::io::Errno;
    pub(super) const ENOSPC: i32 = Errno::NOSPC.raw_os_error();
    pub(super) const EDQUOT: i32 = Errno::DQUOT.raw_os_error();
    pub(super) const EACCES: i32 = Errno::ACCESS.raw_os_error();
    pub(super) const EPERM: i32 = Errno::PERM.raw_os_error();
    pub(super) const EROFS: i32 = Errno::ROFS.raw_os_error();
    pub(super) const ENOENT: i32 = Errno::NOENT.raw_os_error();
    pub(super) const ENAMETOOLONG: i32 = Errno::NAMETOOLONG.raw_os_error();
    pub(super) const EIO: i32 = Errno::IO.raw_os_error();
    pub(super) const EMFILE: i32 = Errno::MFILE.raw_os_error();
    pub(super) const ESTALE: i32 = Errno::STALE.raw_os_error();
    pub(super) const ETIMEDOUT: i32 = Errno::TIMEDOUT.raw_os_error();
}

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

/// Full and read-only places, by mounts, so that root meets them too.
#[tokio::test]
async fn full_and_read_only_places() {
    let scratch = integration::scratch::Scratch::new("object").unwrap();
    let small = integration::limits::Mounted::small(&scratch.join("small"), 1 << 20).unwrap();
    let store = open(&file_url(small.path())).unwrap();
    store.put(&key("packs/1"), conformance::body(1, 500_000)).await.unwrap();
    let e = store
        .put(&key("packs/2"), conformance::body(2, 900_000))
        .await
        .unwrap_err();
    assert_eq!(e.kind, Kind::Full, "{e}");
    assert!(e.is_permanent() && e.to_string().contains("packs/2"));
    let names: Vec<_> = std::fs::read_dir(small.path().join("packs"))
        .unwrap()
        .map(|d| d.unwrap().file_name())
        .collect();
    assert_eq!(names, ["1"], "the half object was removed, and takes no space");
    store.put(&key("packs/3"), conformance::body(3, 400_000)).await.unwrap();
    assert!(store.get(&key("packs/1"), 1 << 20).await.unwrap() == conformance::body(1, 500_000));

    let fixed = scratch.dir("fixed").unwrap();
    let store = open(&file_url(&fixed)).unwrap();
    store.put(&key("packs/1"), Bytes::from_static(b"x")).await.unwrap();
    let read_only = integration::limits::Mounted::read_only(&fixed).unwrap();
    let store = open(&file_url(&fixed)).unwrap();
    for k in ["packs/1", "packs/2", "new/1"] {
        assert_eq!(
            store.put(&key(k), Bytes::from_static(b"y")).await.unwrap_err().kind,
            Kind::Denied,
            "put {k}"
        );
    }
    assert_eq!(store.delete(&[key("packs/1")]).await.unwrap_err().kind, Kind::Denied);
    assert_eq!(create(&file_url(&fixed.join("a/b"))).unwrap_err().kind, Kind::Denied);
    assert_eq!(store.get(&key("packs/1"), 9).await.unwrap(), "x");
    drop(store);
    drop(read_only);
}

/// Every PUT that was acknowledged survives a power loss at every recorded operation after it; every DELETE too; and no
/// object is ever seen in part.
#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_changes_survive_power_loss() {
    use integration::power::{CrashStates, Policy, Recording};
    let scratch = integration::scratch::Scratch::new("object-power").unwrap();
    let (initial, mount) = (scratch.dir("initial").unwrap(), scratch.dir("mount").unwrap());
    let recording = Recording::mount(&initial, &mount, &scratch.dir("bytes").unwrap()).unwrap();
    let store = create(&format!("{}/new/repo", file_url(&mount))).unwrap();
    let mut acknowledged = Vec::new();
    let names = ["config", "packs/a/1", "packs/a/2", "packs/b/1", "deep/er/still/x"];
    for (i, name) in names.iter().enumerate() {
        store
            .put(&key(name), conformance::body(i as u64, 9000 + i))
            .await
            .unwrap();
        acknowledged.push((recording.ops(), *name, Some(conformance::body(i as u64, 9000 + i))));
    }
    let both = ["race/one/1", "race/one/2", "race/one/3"].map(key);
    futures::future::try_join_all(both.iter().map(|k| store.put(k, conformance::body(7, 5000))))
        .await
        .unwrap();
    acknowledged.extend(
        ["race/one/1", "race/one/2", "race/one/3"].map(|n| (recording.ops(), n, Some(conformance::body(7, 5000)))),
    );
    let before_delete = recording.ops();
    store.delete(&[key("packs/a/1"), key("packs/b/1")]).await.unwrap();
    let deleted = [(recording.ops(), "packs/a/1"), (recording.ops(), "packs/b/1")];
    drop(store);
    let log = recording.finish().unwrap();
    let states = CrashStates::new(&initial, &log);
    for at in 0..log.ops.len() {
        let policies = [
            Policy::Nothing,
            Policy::Everything,
            Policy::ReorderedLast,
            Policy::Random(1),
            Policy::Random(at as u64),
        ];
        for policy in policies {
            let after = scratch.fresh("after").unwrap();
            states.materialise(at, policy, &after).unwrap();
            let read = |name: &str| std::fs::read(after.join("new/repo").join(name)).ok();
            for (done, name, body) in &acknowledged {
                let found = read(name);
                let may_be_deleted = at >= before_delete && deleted.iter().any(|(_, d)| d == name);
                if let Some(found) = &found {
                    assert!(
                        Some(found.as_slice()) == body.as_deref(),
                        "{name} in part, after {at} {policy:?}"
                    );
                }
                assert!(
                    found.is_some() || at + 1 < *done || may_be_deleted,
                    "{name} lost after {at} {policy:?}: {:?}",
                    log.ops
                );
            }
            for (done, name) in &deleted {
                assert!(
                    at + 1 < *done || read(name).is_none(),
                    "{name} came back after {at} {policy:?}"
                );
            }
        }
    }
}
