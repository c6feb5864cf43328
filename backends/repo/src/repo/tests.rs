//! A repository as a whole; `damage` and `fetching` have what is theirs.

mod damage;
mod fetching;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::StreamExt;
use store::{Counting, Faults, Flaky, Key, Memory, Store};

use crate::doc::{self, DocKind};
use crate::manifest::{self, NodeSource};
use crate::testing::*;
use crate::{
    BlobId, BlobKind, BlobRef, BlobSink, DrySink, FetchLimits, Kind, Put, Repo, RepoError, Session, SessionLimits,
    SnapshotDoc,
};

const SIZE: u64 = 64 << 20;

/// Checks that a snapshot gives back what was put.
async fn assert_disk(repo: &Repo, doc: &SnapshotDoc, disk: &Disk) {
    let manifest = doc.disks[0].manifest;
    let leaves: Vec<_> = manifest::leaves(Arc::new(repo.clone()), manifest, 0..u64::MAX)
        .collect()
        .await;
    let chunks: Vec<_> = leaves.into_iter().flat_map(|leaf| leaf.unwrap().chunks).collect();
    assert_eq!(
        chunks.iter().map(|c| c.offset).collect::<Vec<_>>(),
        disk.iter().map(|d| d.0).collect::<Vec<_>>()
    );
    let ids: Vec<BlobId> = chunks.iter().map(|c| c.id).collect();
    let limits = FetchLimits::default();
    let plan = repo.plan_fetch(&ids, &limits).unwrap();
    let fetched: Vec<(BlobId, Bytes)> = repo.fetch(plan, &limits).map(Result::unwrap).collect().await;
    let count = fetched.len();
    let fetched: BTreeMap<BlobId, Bytes> = fetched.into_iter().collect();
    assert_eq!(fetched.len(), count, "each id once");
    for (chunk, (_, number)) in chunks.iter().zip(disk) {
        assert!(fetched[&chunk.id] == content(*number), "chunk {number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_put_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let local = object::create(&format!("file://{}/repo", dir.path().display())).unwrap();
    for store in [Memory::new() as Arc<dyn Store>, local] {
        let repo = Repo::init(store.clone(), params()).await.unwrap();
        let (first, second) = (spread(0, 80), spread(40, 80));
        let one = take(&repo, small(), SIZE, &first).await.unwrap();
        let two = take(&repo, small(), SIZE, &second).await.unwrap();
        // the process that wrote, and one that comes later
        for repo in [repo, Repo::open(store.clone()).await.unwrap()] {
            assert_disk(&repo, &one, &first).await;
            assert_disk(&repo, &two, &second).await;
            assert_eq!(repo.snapshots().await.unwrap().docs, [one.clone(), two.clone()]);
            let report = repo
                .verify(&[one.clone(), two.clone()], false, &|_, _| {})
                .await
                .unwrap();
            assert_eq!(report.findings_total, 0, "{:?}", report.findings);
            assert_eq!(report.chunks, numbers(&[&first, &second]));
            let counts = repo.counts().await.unwrap();
            assert_eq!((counts.snapshots, counts.chunks), (2, report.chunks));
            assert!(counts.indexes >= 4 && counts.packs > 10, "{counts:?}");
        }
        let left: Vec<_> = objects(&*store)
            .await
            .into_keys()
            .filter(|k| k.starts_with("sessions/"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

fn numbers(disks: &[&Disk]) -> u64 {
    disks
        .iter()
        .flat_map(|d| d.iter().map(|c| c.1))
        .collect::<std::collections::BTreeSet<_>>()
        .len() as u64
}

#[tokio::test]
async fn a_second_snapshot_of_the_same_disk_writes_no_data() {
    let memory = Memory::new();
    let counting = Counting::new(memory);
    let repo = Repo::init(counting.clone(), params()).await.unwrap();
    let disk = spread(0, 60);
    take(&repo, SessionLimits::default(), SIZE, &disk).await.unwrap();
    let before = counting.counts();
    take(
        &Repo::open(counting.clone()).await.unwrap(),
        SessionLimits::default(),
        SIZE,
        &disk,
    )
    .await
    .unwrap();
    let puts = counting.counts().since(&before).put_by_segment;
    assert!(!puts.contains_key("packs") && !puts.contains_key("index"), "{puts:?}");
    assert_eq!(puts["snapshots"].requests, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn threads_that_put_the_same_blobs_store_each_once() {
    let (memory, repo) = memory_repo().await;
    let session = repo.begin(small()).await.unwrap();
    let new = AtomicUsize::new(0);
    let work = session.clone();
    let new = tokio::task::spawn_blocking(move || {
        std::thread::scope(|scope| {
            for thread in 0..8u64 {
                let (work, new) = (&work, &new);
                scope.spawn(move || {
                    for i in 0..300u64 {
                        let raw = content((i * (2 * thread + 1)) % 300);
                        let id = work.id_of(&raw);
                        if matches!(work.put(BlobKind::Data, &id, &raw).unwrap(), Put::New { .. }) {
                            new.fetch_add(1, Ordering::SeqCst);
                        }
                        assert!(work.known(&id));
                    }
                });
            }
        });
        new.into_inner()
    })
    .await
    .unwrap();
    let manifest = put_aside(&session, SIZE, &Disk::new()).await.unwrap();
    session.finish(draft("web1", manifest)).await.unwrap();
    // an id may be stored twice when its segment is being written just then; never less than once
    let stored: u64 = repo.index().segments().iter().map(|s| s.sums().data_blobs).sum();
    assert_eq!(stored, new as u64);
    assert!((300..=310).contains(&new), "{new}");
    for number in 0..300 {
        assert!(repo.read(&repo.id_of(&content(number))).await.unwrap() == content(number));
    }
    drop(memory);
}

#[tokio::test]
async fn an_upload_that_fails_fails_the_session() {
    let memory = Memory::new();
    let flaky = Flaky::new(memory.clone(), Faults::default());
    let repo = Repo::init(flaky.clone(), params()).await.unwrap();
    let before = objects(&*memory).await;
    let session = repo.begin(small()).await.unwrap();
    flaky.set(Faults {
        full_after_bytes: Some(300_000),
        ..Faults::default()
    });
    let put = put_aside(&session, SIZE, &spread(0, 80)).await;
    let error = put.expect_err("the store is full");
    assert_eq!(error.kind, Kind::Store(store::Kind::Full));
    assert_eq!(wire::ErrorBody::from(&error).code, wire::Code::Unavailable);
    let root = crate::ManifestRef {
        size_bytes: SIZE,
        root: None,
    };
    let error = session.finish(draft("web1", root)).await.expect_err("it has failed");
    assert_eq!(error.kind, Kind::Store(store::Kind::Full));
    let left: Vec<_> = objects(&*memory)
        .await
        .into_keys()
        .filter(|k| !before.contains_key(k) && !k.starts_with("packs/"))
        .collect();
    assert!(left.iter().all(|k| k.starts_with("index/")), "{left:?}");
}

/// Kills the store after every number of requests: the snapshot is there and whole, or not there.
#[tokio::test]
async fn a_session_cut_off_after_any_request_leaves_what_can_be_verified() {
    let disk = spread(0, 30);
    let mut finished = false;
    for requests in 0..200 {
        let memory = Memory::new();
        let flaky = Flaky::new(memory.clone(), Faults::default());
        let repo = Repo::init(flaky.clone(), params()).await.unwrap();
        let old = take(&repo, small(), SIZE, &spread(20, 10)).await.unwrap();
        flaky.set(Faults {
            dead_after_requests: Some(requests),
            ..Faults::default()
        });
        let result = take(&repo, small(), SIZE, &disk).await;
        let after = Repo::open(memory.clone()).await.unwrap();
        let snapshots = after.snapshots().await.unwrap();
        assert!(snapshots.damaged.is_empty());
        assert_eq!(snapshots.docs[0], old);
        match &result {
            Ok(doc) => assert_eq!(&snapshots.docs[1..], std::slice::from_ref(doc)),
            Err(e) => assert!(snapshots.docs.len() <= 2 && !e.is_permanent(), "{e}"),
        }
        let report = after.verify(&snapshots.docs, false, &|_, _| {}).await.unwrap();
        assert_eq!(
            report.findings_total, 0,
            "after {requests} requests: {:?}",
            report.findings
        );
        // and whatever was left behind, the next session succeeds
        let again = take(&after, small(), SIZE, &disk).await.unwrap();
        assert_disk(&after, &again, &disk).await;
        if flaky.hits() == 0 {
            finished = true;
            break;
        }
    }
    assert!(finished, "the session took more requests than were tried");
}

#[tokio::test]
async fn passing_faults_of_the_store_are_overcome() {
    let memory = Memory::new();
    let flaky = Flaky::new(memory.clone(), Faults::default());
    let repo = Repo::init(flaky.clone(), params()).await.unwrap();
    flaky.set(Faults {
        errors_permille: 60,
        unacknowledged_permille: 60,
        truncated_permille: 60,
        list_cut_permille: 60,
        seed: 7,
        ..Faults::default()
    });
    let disk = spread(0, 60);
    let doc = take(&repo, small(), SIZE, &disk).await.unwrap();
    assert_disk(&repo, &doc, &disk).await;
    assert!(flaky.hits() > 0);
}

#[tokio::test]
async fn a_put_that_the_store_lost_is_noticed() {
    for part in ["packs/", "index/"] {
        let memory = Memory::new();
        let flaky = Flaky::new(memory.clone(), Faults::default());
        let repo = Repo::init(flaky.clone(), params()).await.unwrap();
        flaky.set(Faults {
            lost_permille: 1000,
            only: part.into(),
            ..Faults::default()
        });
        let error = take(&repo, SessionLimits::default(), SIZE, &spread(0, 10))
            .await
            .expect_err("bytes are missing");
        assert_eq!(error.kind, Kind::Corrupt, "{error}");
        assert!(error.object.starts_with(part), "{error}");
        assert!(
            Repo::open(memory)
                .await
                .unwrap()
                .snapshots()
                .await
                .unwrap()
                .docs
                .is_empty()
        );
    }
}

#[tokio::test]
async fn a_pack_that_vanished_keeps_the_snapshot_from_being_made() {
    let (memory, repo) = memory_repo().await;
    let disk = spread(0, 10);
    take(&repo, small(), SIZE, &disk).await.unwrap();
    let pack = objects(&*memory)
        .await
        .into_keys()
        .find(|k| k.starts_with("packs/"))
        .unwrap();
    memory.delete(&[Key::new(pack.as_str()).unwrap()]).await.unwrap();
    let error = take(&repo, small(), SIZE, &disk).await.expect_err("a pack is gone");
    assert_eq!((error.kind, error.object.as_str()), (Kind::Corrupt, pack.as_str()));
    assert_eq!(repo.snapshots().await.unwrap().docs.len(), 1);
    // the index made anew no longer promises it, so the data is stored again
    repo.rebuild_index().await.unwrap();
    let again = take(&repo, small(), SIZE, &disk).await.unwrap();
    assert_disk(&repo, &again, &disk).await;
}

#[tokio::test]
async fn a_newer_repository_is_refused_by_its_version() {
    let (memory, repo) = memory_repo().await;
    let key = Key::new("config").unwrap();
    drop(repo);
    memory.corrupt(&key, |b| *b = doc::with_version(DocKind::Repository, 7, b));
    let error = Repo::open(memory).await.expect_err("newer");
    assert_eq!(error.kind, Kind::TooNew { version: 7 });
    assert!(error.to_string().contains("version 7"), "{error}");
}

#[tokio::test]
async fn init_and_open_say_what_is_there() {
    let memory = Memory::new();
    assert_eq!(
        Repo::open(memory.clone()).await.expect_err("empty").kind,
        Kind::NotFound
    );
    Repo::init(memory.clone(), params()).await.unwrap();
    assert_eq!(
        Repo::init(memory, params()).await.expect_err("one is there").kind,
        Kind::Conflict
    );
    let mut wrong = params();
    wrong.chunker = wire::repo::Chunker::Fixed { chunk_bytes: 5000 };
    assert_eq!(
        Repo::init(Memory::new(), wrong).await.expect_err("unaligned").kind,
        Kind::Invalid
    );
}

#[tokio::test]
async fn snapshots_are_found_and_forgotten() {
    let (memory, repo) = memory_repo().await;
    let session = repo.begin(SessionLimits::default()).await.unwrap();
    let mut held = draft(
        "web1",
        crate::ManifestRef {
            size_bytes: SIZE,
            root: None,
        },
    );
    held.held_until = Some("2026-12-01T00:00:00Z".into());
    let held = session.finish(held).await.unwrap();
    let newer = take(&repo, SessionLimits::default(), SIZE, &spread(0, 3))
        .await
        .unwrap();
    let id = held.id.to_string();
    assert_eq!(repo.snapshot(&id.to_lowercase()).await.unwrap(), held);
    assert_eq!(
        repo.snapshot(&id[..7]).await.expect_err("too short").kind,
        Kind::Invalid
    );
    assert_eq!(repo.snapshot("../config").await.expect_err("no id").kind, Kind::Invalid);
    assert_eq!(
        repo.snapshot("7ZZZZZZZZZ").await.expect_err("none").kind,
        Kind::NotFound
    );
    assert_eq!(
        repo.latest("web1").await.unwrap().id.max(held.id),
        newer.id.max(held.id)
    );
    assert_eq!(repo.latest("db").await.expect_err("no such VM").kind, Kind::NotFound);
    let error = repo
        .forget(&held.id, false, "2026-11-30T00:00:00Z")
        .await
        .expect_err("held");
    assert_eq!(error.kind, Kind::Conflict);
    assert_eq!(
        repo.forget(&held.id, false, "2026-12-01T00:00:01Z").await.unwrap().id,
        held.id
    );
    assert_eq!(
        repo.forget(&held.id, true, "2026-12-01T00:00:01Z")
            .await
            .expect_err("gone")
            .kind,
        Kind::NotFound
    );
    // a damaged one does not hide the others, nor is an older one taken for the newest
    memory.corrupt(&Key::new(SnapshotDoc::key_of(&newer.id)).unwrap(), |b| b[150] ^= 1);
    let listed = repo.snapshots().await.unwrap();
    assert_eq!((listed.docs.len(), listed.damaged.len()), (0, 1));
    assert_eq!(repo.latest("web1").await.expect_err("damaged").kind, Kind::Corrupt);
}

#[tokio::test]
async fn a_draft_that_refers_to_what_was_never_put_is_refused() {
    let (_memory, repo) = memory_repo().await;
    let session: Arc<Session> = repo.begin(SessionLimits::default()).await.unwrap();
    let root = Some(repo.id_of(b"never put"));
    let error = session
        .clone()
        .finish(draft("web1", crate::ManifestRef { size_bytes: SIZE, root }))
        .await;
    assert_eq!(error.expect_err("dangling").kind, Kind::Invalid);
    let raw = b"late".as_slice();
    assert_eq!(
        session
            .put(BlobKind::Data, &session.id_of(raw), raw)
            .expect_err("ended")
            .kind,
        Kind::Invalid
    );
    assert!(repo.snapshots().await.unwrap().docs.is_empty());
}

#[tokio::test]
async fn a_definition_comes_back() {
    let (_memory, repo) = memory_repo().await;
    let session = repo.begin(SessionLimits::default()).await.unwrap();
    let xml = b"<domain/>".repeat(100_000);
    let id = session.id_of(&xml);
    let (putter, body) = (session.clone(), xml.clone());
    tokio::task::spawn_blocking(move || putter.put(BlobKind::Definition, &id, &body))
        .await
        .unwrap()
        .unwrap();
    let mut draft = draft(
        "web1",
        crate::ManifestRef {
            size_bytes: SIZE,
            root: None,
        },
    );
    draft.definition = Some(BlobRef {
        id,
        len: xml.len() as u32,
    });
    let doc = session.finish(draft).await.unwrap();
    assert!(repo.read(&doc.definition.unwrap().id).await.unwrap() == xml);
    assert_eq!(doc.info().definition_bytes, Some(xml.len() as u64));
    let report = repo.verify(&[doc], false, &|_, _| {}).await.unwrap();
    assert_eq!(report.findings_total, 0);
}

#[tokio::test]
async fn a_dry_sink_stores_nothing_and_gives_its_nodes() {
    let (memory, repo) = memory_repo().await;
    let doc = take(&repo, SessionLimits::default(), SIZE, &spread(0, 40))
        .await
        .unwrap();
    let before = objects(&*memory).await.len();
    let sink = Arc::new(DrySink::new(&repo));
    let mut other = spread(0, 40);
    other[30].1 = 9;
    let planned = put_disk(&*sink, SIZE, &other).unwrap();
    let stored: Arc<dyn NodeSource> = Arc::new(repo.clone());
    let mut diff = manifest::diff(stored, doc.disks[0].manifest, sink, planned);
    let pair = diff.next().await.unwrap().unwrap();
    assert_eq!(pair.index, other[30].0 / manifest::LEAF_SPAN_BYTES);
    assert!(diff.next().await.is_none());
    assert_eq!(objects(&*memory).await.len(), before);
}
