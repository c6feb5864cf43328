//! The cache beside a store that counts: what it saves, and that nothing in it can do harm.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::StreamExt;
use store::{Counting, Memory, Store};

use super::*;
use crate::manifest::{Leaf, leaves};
use crate::testing::{Disk, noise, objects, params, small, spread, take};
use crate::{Repo, SessionLimits, SnapshotDoc};

const SIZE: u64 = 64 << 20;
const LIMIT: u64 = 1 << 30;

/// A repository with some snapshots on a store that can't be mapped.
async fn made(count: u64, limits: SessionLimits) -> (Arc<Memory>, Vec<SnapshotDoc>) {
    let memory = Memory::new();
    let repo = Repo::init(memory.clone(), params()).await.unwrap();
    let mut docs = Vec::new();
    for n in 0..count {
        let disk: Disk = spread(n * 5, 12);
        docs.push(take(&repo, limits.clone(), SIZE, &disk).await.unwrap());
    }
    docs.sort_by_key(|d| d.id);
    (memory, docs)
}

async fn all_leaves(repo: &Repo, docs: &[SnapshotDoc]) -> Vec<Leaf> {
    let mut found = Vec::new();
    for doc in docs {
        let mut walk = leaves(Arc::new(repo.clone()), doc.disks[0].manifest, 0..SIZE);
        while let Some(leaf) = walk.next().await {
            found.push(leaf.unwrap());
        }
    }
    found
}

/// Everything that goes through the cache, and a look at each chunk.
async fn use_all(store: Arc<dyn Store>, cache: Option<Arc<Cache>>, docs: &[SnapshotDoc]) -> Vec<Leaf> {
    let repo = Repo::open_with(store, cache).await.unwrap();
    assert_eq!(repo.snapshots().await.unwrap().docs, docs);
    assert_eq!(repo.latest("web1").await.unwrap(), docs[docs.len() - 1]);
    let found = all_leaves(&repo, docs).await;
    for chunk in found.iter().flat_map(|l| &l.chunks) {
        assert!(repo.contains(&chunk.id));
    }
    assert!(repo.damaged_indexes().is_empty());
    found
}

fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_fetched_once_is_not_fetched_again() {
    for (count, limits) in [(5, small()), (70, SessionLimits::default())] {
        let (memory, docs) = made(count, limits).await;
        let plain = use_all(memory.clone(), None, &docs).await;
        let dir = tempfile::tempdir().unwrap();
        let counting = Counting::new(memory.clone());
        let first = use_all(counting.clone(), Cache::open(dir.path(), LIMIT), &docs).await;
        assert_eq!(first, plain);
        let before = counting.counts();
        let second = use_all(counting.clone(), Cache::open(dir.path(), LIMIT), &docs).await;
        assert_eq!(second, plain);
        let asked = counting.counts().since(&before);
        assert_eq!(asked.get.requests, 1, "the repository's config alone: {asked:?}");
        assert_eq!(asked.get_range.requests, 0, "{asked:?}");
        // and what a second machine with nothing but the URL finds
        let elsewhere = tempfile::tempdir().unwrap();
        assert_eq!(
            use_all(memory.clone(), Cache::open(elsewhere.path(), LIMIT), &docs).await,
            plain
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_this_process_wrote_is_there_already() {
    let dir = tempfile::tempdir().unwrap();
    let counting = Counting::new(Memory::new());
    let cache = Cache::open(dir.path(), LIMIT);
    let repo = Repo::init_with(counting.clone(), params(), cache.clone())
        .await
        .unwrap();
    let doc = take(&repo, SessionLimits::default(), SIZE, &spread(0, 20))
        .await
        .unwrap();
    let before = counting.counts();
    let again = Repo::open_with(counting.clone(), cache).await.unwrap();
    assert!(!all_leaves(&again, std::slice::from_ref(&doc)).await.is_empty());
    let asked = counting.counts().since(&before);
    assert_eq!((asked.get.requests, asked.get_range.requests), (1, 0), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_segments_become_few_and_keep_up_with_the_repository() {
    let (memory, mut docs) = made(70, SessionLimits::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path(), LIMIT);
    for cache in [cache.clone(), None] {
        let repo = Repo::open_with(memory.clone(), cache).await.unwrap();
        assert_eq!(repo.index().segments().len(), 1, "70 objects are joined");
        assert_eq!(repo.index().segments()[0].names().len(), 70);
    }
    // another host goes on writing; this one follows
    let follower = Repo::open_with(memory.clone(), cache.clone()).await.unwrap();
    let writer = Repo::open(memory.clone()).await.unwrap();
    for n in 0..70 {
        docs.push(
            take(&writer, SessionLimits::default(), SIZE, &spread(5000 + n, 3))
                .await
                .unwrap(),
        );
        if n % 10 == 0 {
            assert_eq!(follower.snapshots().await.unwrap().docs.len(), docs.len());
            assert!(follower.index().segments().len() <= 65);
        }
    }
    docs.sort_by_key(|d| d.id);
    let plain = use_all(memory.clone(), None, &docs).await;
    assert_eq!(use_all(memory.clone(), cache.clone(), &docs).await, plain);
    // the index is made anew: what was joined stands for objects that are gone
    writer.rebuild_index().await.unwrap();
    assert_eq!(follower.snapshots().await.unwrap().docs.len(), docs.len());
    assert_eq!(all_leaves(&follower, &docs).await, plain);
    assert_eq!(use_all(memory, cache, &docs).await, plain);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_byte_in_the_cache_changes_nothing() {
    for (count, limits) in [(4, small()), (70, SessionLimits::default())] {
        let (memory, docs) = made(count, limits).await;
        let dir = tempfile::tempdir().unwrap();
        let plain = use_all(memory.clone(), Cache::open(dir.path(), LIMIT), &docs).await;
        let good = files(dir.path());
        assert!(good.len() >= 3, "{:?}", good.keys());
        for (n, (path, bytes)) in good.iter().enumerate() {
            for round in 0..6u64 {
                let mut bad = bytes.clone();
                let random = noise(round * 1000 + n as u64, 8);
                let at = crate::pack::le_u64(&random) as usize % bad.len();
                match round {
                    0 => bad.clear(),
                    1 => bad.truncate(at),
                    2 => bad.push(7),
                    _ => bad[at] ^= 1 << (round % 8),
                }
                std::fs::write(path, &bad).unwrap();
                let found = use_all(memory.clone(), Cache::open(dir.path(), LIMIT), &docs).await;
                assert_eq!(found, plain, "{} in round {round}", path.display());
            }
        }
        // what was bad was fetched again: the cache is whole
        let counting = Counting::new(memory.clone());
        use_all(counting.clone(), Cache::open(dir.path(), LIMIT), &docs).await;
        assert_eq!(counting.counts().get.requests, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_under_an_open_segment_is_found_and_healed() {
    use std::os::unix::fs::FileExt;
    let (memory, docs) = made(70, SessionLimits::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let repo = Repo::open_with(memory.clone(), Cache::open(dir.path(), LIMIT))
        .await
        .unwrap();
    // no page was looked at yet; the disk rots
    let joined = files(dir.path())
        .into_keys()
        .find(|p| p.to_string_lossy().contains("/joined/"))
        .unwrap();
    let length = std::fs::metadata(&joined).unwrap().len();
    let file = File::options().write(true).open(&joined).unwrap();
    for at in (length / 3..length - 4000).step_by(512) {
        file.write_all_at(&[0xff; 16], at).unwrap();
    }
    let plain = use_all(memory.clone(), None, &docs).await;
    assert_eq!(all_leaves(&repo, &docs).await, plain);
    assert!(repo.damaged_indexes().is_empty());
    for chunk in plain.iter().flat_map(|l| &l.chunks) {
        assert!(repo.contains(&chunk.id));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_object_of_the_store_is_never_kept_and_a_check_sees_it_past_the_cache() {
    let (memory, docs) = made(70, SessionLimits::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path(), LIMIT);
    let repo = Repo::open_with(memory.clone(), cache.clone()).await.unwrap();
    let plain = use_all(memory.clone(), cache.clone(), &docs).await;
    let stored = objects(&*memory).await;
    let (name, bytes) = stored.iter().find(|(k, _)| k.starts_with("index/")).unwrap();
    let mut bad = bytes.clone();
    let last = bad.len() - 1;
    bad[last] ^= 1;
    memory.put(&store::Key::new(name).unwrap(), bad.into()).await.unwrap();
    // a whole copy is here: reading goes on, and the check tells
    assert_eq!(all_leaves(&repo, &docs).await, plain);
    let report = repo.verify(&docs, true, &|_, _| {}).await.unwrap();
    assert!(
        report.findings.iter().any(|f| f.object == *name),
        "{:?}",
        report.findings
    );
    // where there is none, nothing bad is taken in
    let empty = tempfile::tempdir().unwrap();
    let elsewhere = Repo::open_with(memory.clone(), Cache::open(empty.path(), LIMIT))
        .await
        .unwrap();
    elsewhere
        .index()
        .segments()
        .iter()
        .for_each(|s| s.for_each(|_, _, _| {}));
    assert!(elsewhere.damaged_indexes().iter().any(|e| e.object == *name));
    let hash = name.trim_start_matches("index/");
    assert!(!files(empty.path()).keys().any(|p| p.to_string_lossy().contains(hash)));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_place_to_write_it_goes_on() {
    let (memory, docs) = made(5, small()).await;
    let plain = use_all(memory.clone(), None, &docs).await;
    let dir = tempfile::tempdir().unwrap();
    // root may write anywhere, so a file stands where a directory is needed
    std::fs::create_dir(dir.path().join("v1")).unwrap();
    std::fs::write(dir.path().join("v1/tmp"), "in the way").unwrap();
    let cache = Cache::open(dir.path(), LIMIT);
    assert!(cache.is_some());
    for _ in 0..2 {
        assert_eq!(use_all(memory.clone(), cache.clone(), &docs).await, plain);
    }
    // no directory, none at all, and none that others can write to
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(Cache::open(&file, LIMIT).is_none());
    assert!(Cache::open(dir.path(), 0).is_none());
    let open_to_all = tempfile::tempdir().unwrap();
    std::fs::set_permissions(open_to_all.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(Cache::open(open_to_all.path(), LIMIT).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_keeps_within_its_bytes_and_the_oldest_go_first() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path(), 1 << 20).unwrap();
    let part = cache.of(&"A".repeat(26)).unwrap();
    let other = cache.of(&"B".repeat(26)).unwrap();
    let entry = |n: u64| noise(n, 30 << 10);
    let long_ago = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
    for n in 0..200u64 {
        let part = if n % 2 == 0 { &part } else { &other };
        let name = format!("{n:064}");
        assert!(part.put(Kind::Packs, &name, &[&entry(n)]));
        // entries of one moment have no order
        let path = part.path(Kind::Packs, &name);
        let at = long_ago + std::time::Duration::from_secs(n);
        File::open(&path).unwrap().set_modified(at).unwrap();
        if n % 10 == 0 {
            // the first is in use all the time
            assert!(
                part.open(Kind::Packs, &format!("{:064}", 0)).is_some(),
                "lost after {n}"
            );
        }
        let bytes: u64 = files(dir.path()).values().map(|b| b.len() as u64).sum();
        assert!(bytes <= (1 << 20) + (1 << 20) / 16, "{bytes} bytes after {n}");
    }
    let left: Vec<u64> = (0..200)
        .filter(|n| part.peek(Kind::Packs, &format!("{n:064}")).is_some())
        .collect();
    assert!(
        left.contains(&0) && left.contains(&198) && !left.contains(&2),
        "{left:?}"
    );
    // what is larger than half of the cache isn't kept
    assert!(!part.put(Kind::Packs, "large", &[&noise(1, 600 << 10)]));
}

#[test]
fn what_a_killed_writer_left_aside_is_swept_and_a_living_one_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path(), 1 << 20).unwrap();
    let aside = dir.path().join("v1/tmp");
    std::fs::create_dir_all(&aside).unwrap();
    std::fs::write(aside.join("dead"), "half").unwrap();
    let living = File::create(aside.join("living")).unwrap();
    living.lock().unwrap();
    let part = cache.of(&"A".repeat(26)).unwrap();
    assert!(part.put(Kind::Packs, "one", &[b"bytes"]));
    assert!(!aside.join("dead").exists() && aside.join("living").exists());
    assert_eq!(cache.of("../../elsewhere").map(|c| c.dir), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_come_in_pages() {
    let (memory, docs) = made(12, SessionLimits::default()).await;
    let dir = tempfile::tempdir().unwrap();
    for cache in [None, Cache::open(dir.path(), LIMIT), Cache::open(dir.path(), LIMIT)] {
        let repo = Repo::open_with(memory.clone(), cache).await.unwrap();
        let (mut got, mut after) = (Vec::new(), None);
        loop {
            let page = repo.snapshots_after(after, 5, Some("web1")).await.unwrap();
            assert!(page.docs.len() <= 5);
            got.extend(page.docs);
            if !page.more {
                break;
            }
            after = got.last().map(|d: &SnapshotDoc| d.id);
        }
        assert_eq!(got, docs);
        assert!(repo.snapshots_after(None, 5, Some("db")).await.unwrap().docs.is_empty());
    }
}
