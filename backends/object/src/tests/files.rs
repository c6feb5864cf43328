//! Local directories: foreign files, left-overs, replaced and removed files, full places, power loss.

use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use store::conformance;

use super::*;

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
