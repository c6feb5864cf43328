//! A tiny repository as version 1 wrote it, checked in below `golden/`: today's code must read it, and write the same
//! bytes. `UPDATE_GOLDEN=1` writes it anew; that is right only when the format has a new version, or a new zstd
//! compresses otherwise (what the old one wrote must then still be read).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use store::{Key, Memory, Store};
use ulid::Ulid;

use crate::testing::{content, draft, objects, params, put_disk};
use crate::{BlobKind, BlobRef, BlobSink, Repo, SessionLimits, SnapshotId};

const SIZE: u64 = 300 << 20;
const DEFINITION: &[u8] = b"<domain type='kvm'><name>web1</name></domain>\n";
/// Offset and number of each chunk, of both snapshots' disks.
const DISKS: [&[(u64, u64)]; 2] = [
    &[(0, 1), (9000, 0), (70 << 20, 2)],
    &[(0, 1), (9000, 4), (70 << 20, 2), (299 << 20, 0)],
];

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

async fn write() -> BTreeMap<String, Vec<u8>> {
    let memory = Memory::new();
    let repo = Repo::init(memory.clone(), params()).await.unwrap();
    let mut all = BTreeMap::new();
    for (number, disk) in DISKS.iter().enumerate() {
        let ulid = |random| Ulid::from_parts(1_795_489_200_000 + number as u64, random);
        let session = repo
            .begin(SessionLimits {
                id: Some(ulid(2)),
                ..SessionLimits::default()
            })
            .await
            .unwrap();
        all.extend(objects(&*memory).await);
        let putter = session.clone();
        let mut draft = tokio::task::spawn_blocking(move || {
            let manifest = put_disk(&*putter, SIZE, &disk.to_vec()).unwrap();
            let id = putter.id_of(DEFINITION);
            putter.put(BlobKind::Definition, &id, DEFINITION).unwrap();
            let mut draft = draft("web1", manifest);
            draft.definition = Some(BlobRef {
                id,
                len: DEFINITION.len() as u32,
            });
            draft
        })
        .await
        .unwrap();
        draft.id = Some(SnapshotId::new(ulid(3)));
        draft.held_until = (number == 1).then(|| "2026-12-01T03:00:00Z".to_owned());
        session.finish(draft).await.unwrap();
    }
    all.extend(objects(&*memory).await);
    all
}

fn read_files(dir: &Path, prefix: &str, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let key = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            read_files(&entry.path(), &format!("{key}/"), found);
        } else {
            found.insert(key, std::fs::read(entry.path()).unwrap());
        }
    }
}

#[tokio::test]
async fn the_same_content_makes_the_same_bytes() {
    let written = write().await;
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        if golden().exists() {
            std::fs::remove_dir_all(golden()).unwrap();
        }
        for (key, bytes) in &written {
            let path = golden().join(key);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }
    let mut stored = BTreeMap::new();
    read_files(&golden(), "", &mut stored);
    assert_eq!(written.keys().collect::<Vec<_>>(), stored.keys().collect::<Vec<_>>());
    for (key, bytes) in &written {
        assert!(&stored[key] == bytes, "{key} has other bytes than the golden one");
    }
}

#[tokio::test]
async fn the_golden_repository_is_read() {
    let mut stored = BTreeMap::new();
    read_files(&golden(), "", &mut stored);
    assert!(
        stored.values().map(Vec::len).sum::<usize>() < 64 << 10,
        "a tiny repository"
    );
    let memory = Memory::new();
    for (key, bytes) in stored {
        memory.put(&Key::new(key).unwrap(), bytes.into()).await.unwrap();
    }
    let repo = Repo::open(memory).await.unwrap();
    let snapshots = repo.snapshots().await.unwrap();
    assert!(snapshots.damaged.is_empty());
    assert_eq!(snapshots.docs.len(), DISKS.len());
    let report = repo.verify(&snapshots.docs, false, &|_, _| {}).await.unwrap();
    assert_eq!((report.findings_total, report.chunks), (0, 5));
    for (doc, disk) in snapshots.docs.iter().zip(DISKS) {
        use futures::StreamExt;
        let nodes = std::sync::Arc::new(repo.clone());
        let mut leaves = crate::manifest::leaves(nodes, doc.disks[0].manifest, 0..SIZE);
        let mut expected = disk.iter();
        while let Some(leaf) = leaves.next().await {
            for chunk in leaf.unwrap().chunks {
                let (offset, number) = expected.next().unwrap();
                assert_eq!(chunk.offset, *offset);
                assert!(repo.read(&chunk.id).await.unwrap() == content(*number));
            }
        }
        assert!(expected.next().is_none());
        assert!(repo.read(&doc.definition.unwrap().id).await.unwrap() == DEFINITION);
    }
}
