//! `kill -9` of processes that share a cache: what is left can't change what anybody reads. `WINDLASS_SEED` replays,
//! `WINDLASS_KILLS` sets how many.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test; what it did is worth reading"
)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use store::{Counting, Key, Memory, Store};
use windlass_repo::manifest::{Builder, LEAF_SPAN_BYTES, Leaf, leaves};
use windlass_repo::{
    BlobKind, BlobSink, Cache, ChunkRef, DiskEntry, Repo, RepoParams, SessionLimits, SnapshotDoc, SnapshotDraft,
};
use wire::repo::Chunker;
use wire::snapshot::{Moved, SnapshotKind};

const SNAPSHOTS: u64 = 80;
const LEAVES: u64 = 20;
const CHILDREN: usize = 3;
/// Small, so that entries are evicted all the time.
const CACHE_BYTES_MAX: u64 = 400 << 10;
/// Says to a child where the store and the cache are.
const CHILD: &str = "WINDLASS_TEST_CACHE_CHILD";

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// SplitMix64.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A repository as files, which the tests read as a distant store.
async fn make(dir: &Path) {
    let memory = Memory::new();
    let params = RepoParams::generate(Chunker::default(), "2026-11-24T03:00:00Z").unwrap();
    let repo = Repo::init(memory.clone(), params).await.unwrap();
    for number in 0..SNAPSHOTS {
        let session = repo.begin(SessionLimits::default()).await.unwrap();
        let writer = session.clone();
        let manifest = tokio::task::spawn_blocking(move || {
            let mut builder = Builder::new(&*writer, LEAVES * LEAF_SPAN_BYTES);
            for leaf in 0..LEAVES {
                let raw = format!("snapshot {} leaf {leaf}", number * (leaf % 3)).into_bytes();
                let id = writer.id_of(&raw);
                writer.put(BlobKind::Data, &id, &raw).unwrap();
                let (offset, len) = (leaf * LEAF_SPAN_BYTES, raw.len() as u32);
                builder.leaf(leaf, &[ChunkRef { offset, len, id }]).unwrap();
            }
            builder.finish().unwrap()
        });
        let draft = SnapshotDraft {
            id: None,
            vm: "web1".into(),
            kind: SnapshotKind::User,
            host: "h1".into(),
            created_at: "2026-11-24T03:00:00Z".into(),
            held_until: None,
            disks: vec![DiskEntry {
                name: "root".into(),
                path: "/srv/web1.raw".into(),
                format: "raw".into(),
                manifest: manifest.await.unwrap(),
                moved: Moved::default(),
            }],
            definition: None,
            took_s: 0.5,
        };
        session.finish(draft).await.unwrap();
    }
    let mut listing = memory.list("");
    while let Some(meta) = listing.next().await {
        let key = meta.unwrap().key;
        let path = dir.join(key.as_str());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, memory.get(&key, 1 << 30).await.unwrap()).unwrap();
    }
}

/// The store as one that can't be mapped.
fn distant(dir: &Path) -> Arc<dyn Store> {
    let store = object::open(&format!("file://{}", dir.display())).unwrap();
    assert!(store.local_path(&Key::new("config").unwrap()).is_some());
    Counting::new(store)
}

async fn read_all(dir: &Path, cache: Option<Arc<Cache>>) -> (Vec<SnapshotDoc>, Vec<Leaf>) {
    let repo = Repo::open_with(distant(dir), cache).await.unwrap();
    let docs = repo.snapshots().await.unwrap();
    assert!(docs.damaged.is_empty(), "{:?}", docs.damaged);
    let mut found = Vec::new();
    for doc in &docs.docs {
        let manifest = doc.disks[0].manifest;
        let mut walk = leaves(Arc::new(repo.clone()), manifest, 0..manifest.size_bytes);
        while let Some(leaf) = walk.next().await {
            let leaf = leaf.unwrap();
            assert!(leaf.chunks.iter().all(|c| repo.contains(&c.id)));
            found.push(leaf);
        }
    }
    assert!(repo.damaged_indexes().is_empty());
    (docs.docs, found)
}

/// Uses the cache until it is killed.
async fn child(store: &Path, cache: &Path) {
    loop {
        read_all(store, Cache::open(cache, CACHE_BYTES_MAX)).await;
    }
}

struct Children(Vec<Child>);

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ended_already = child.kill();
            let _ended_already = child.wait();
        }
    }
}

fn spawn(store: &Path, cache: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed_processes_leave_a_cache_that_does_no_harm"])
        .env(CHILD, format!("{}\n{}", store.display(), cache.display()))
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(entries(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_processes_leave_a_cache_that_does_no_harm() {
    if let Ok(places) = std::env::var(CHILD) {
        let (store, cache) = places.split_once('\n').unwrap();
        return child(Path::new(store), Path::new(cache)).await;
    }
    let (seed, kills) = (setting("WINDLASS_SEED", 1), setting("WINDLASS_KILLS", 40));
    println!("WINDLASS_SEED={seed} WINDLASS_KILLS={kills}");
    let mut state = seed;
    let dir = tempfile::tempdir().unwrap();
    let (store, cache) = (dir.path().join("store"), dir.path().join("cache"));
    make(&store).await;
    let truth = read_all(&store, None).await;
    let mut children = Children((0..CHILDREN).map(|_| spawn(&store, &cache)).collect());
    let mut damaged = 0;
    for kill in 0..kills {
        tokio::time::sleep(Duration::from_millis(random(&mut state) % 120)).await;
        let at = random(&mut state) as usize % CHILDREN;
        let mut one = std::mem::replace(&mut children.0[at], spawn(&store, &cache));
        one.kill().unwrap();
        let end = one.wait().unwrap();
        assert!(
            end.code().is_none(),
            "a child failed by itself: {end}, before kill {kill}"
        );
        // and now and then a byte of an entry is another, or its end is lost
        let found = entries(&cache);
        if !found.is_empty() && random(&mut state).is_multiple_of(2) {
            let path = &found[random(&mut state) as usize % found.len()];
            if let Ok(mut bytes) = std::fs::read(path).map(|b| b.to_vec())
                && !bytes.is_empty()
            {
                let byte = random(&mut state) as usize % bytes.len();
                bytes[byte] ^= 0x20;
                bytes.truncate(if random(&mut state).is_multiple_of(3) {
                    byte
                } else {
                    bytes.len()
                });
                // as a new file: nobody shortens one that is mapped
                std::fs::write(dir.path().join("bad"), bytes).unwrap();
                std::fs::rename(dir.path().join("bad"), path).unwrap();
                damaged += 1;
            }
        }
        let read = read_all(&store, Cache::open(&cache, CACHE_BYTES_MAX)).await;
        assert!(read == truth, "after kill {kill} of seed {seed}");
    }
    drop(children);
    println!(
        "{kills} kills, {damaged} damaged entries, {} files left",
        entries(&cache).len()
    );
    let read = read_all(&store, Cache::open(&cache, CACHE_BYTES_MAX)).await;
    assert!(read == truth);
}
