//! A repository with a hundred thousand snapshots must not take memory by its size. Alone in its program: it looks at the
//! peak of the process. The store makes its objects when they are asked for, by the words of docs/FORMAT.md.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test; what it measured is worth reading"
)]

use std::collections::HashSet;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use store::{Key, Kind, Memory, Meta, Result, Store, StoreError, Tried};
use ulid::Ulid;
use windlass_repo::{BlobId, Cache, Repo, RepoParams, SnapshotId};
use wire::repo::Chunker;

/// Each snapshot left one index object.
const SNAPSHOTS: u64 = 100_000;
/// Records of an index object: what a snapshot added.
const RECORDS: usize = 64;
/// Resident bytes of the whole process, at most.
const PEAK_BYTES_MAX: u64 = 200 << 20;
const BEGAN_MS: u64 = 1_795_489_200_000;
/// Codes of docs/FORMAT.md.
const DATA: u8 = 1;
const ZSTD: u8 = 1;

#[derive(Debug)]
struct Synthetic {
    config: Bytes,
    /// Name and number of each index object, in order of the names.
    names: Vec<([u8; 32], u32)>,
    gets: AtomicU64,
}

fn blob_ids(number: u64) -> Vec<[u8; 32]> {
    let mut bytes = blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof();
    let mut ids: Vec<[u8; 32]> = (0..RECORDS)
        .map(|_| {
            let mut id = [0; 32];
            bytes.fill(&mut id);
            id
        })
        .collect();
    ids.sort_unstable();
    ids
}

/// An index segment of one pack; docs/FORMAT.md, "Index segments".
fn segment(number: u64) -> Vec<u8> {
    let ids = blob_ids(number);
    let mut head = b"WINDINDX".to_vec();
    head.extend(1u32.to_le_bytes());
    head.extend(52u32.to_le_bytes());
    head.extend((RECORDS as u64).to_le_bytes());
    head.extend(1u32.to_le_bytes());
    head.extend(64u32.to_le_bytes());
    let sums = [RECORDS as u64, RECORDS as u64 * 1000, RECORDS as u64 * 900, 0];
    sums.iter().for_each(|sum| head.extend(sum.to_le_bytes()));
    let mut rest = blake3::hash(&ids[0]).as_bytes().to_vec();
    rest.extend((16u64 << 20).to_le_bytes());
    let mut page = Vec::new();
    for (i, id) in ids.iter().enumerate() {
        page.extend(id);
        page.extend(0u32.to_le_bytes());
        page.extend((16 + 900 * i as u32).to_le_bytes());
        page.extend(900u32.to_le_bytes());
        page.extend(1000u32.to_le_bytes());
        page.extend([DATA, ZSTD, 0, 0]);
    }
    rest.extend(u64::from_be_bytes(ids[0][..8].try_into().unwrap()).to_le_bytes());
    rest.extend(&blake3::hash(&page).as_bytes()[..8]);
    let check = blake3::Hasher::new().update(&head).update(&rest).finalize();
    [head, check.as_bytes().to_vec(), rest, page].concat()
}

fn snapshot_id(number: u64) -> Ulid {
    Ulid::from_parts(BEGAN_MS + number, 1)
}

/// A snapshot object; docs/FORMAT.md, "Readable objects".
fn snapshot(number: u64) -> Vec<u8> {
    let moved = serde_json::to_string(&wire::snapshot::Moved::default()).unwrap();
    let body = format!(
        r#"{{"id":"{}","vm":"vm-{}","kind":"user","host":"host-1","created_at":"2026-11-24T03:00:00Z","disks":[
{{"name":"root","path":"/srv/vms/vm-{number}/root.raw","format":"raw",
"manifest":{{"size_bytes":1073741824,"root":"{}"}},"moved":{moved}}}],"took_s":1.5}}
"#,
        snapshot_id(number),
        number % 1000,
        hex::encode([number as u8; 32]),
    );
    let words = "windlass snapshot v1";
    let sum = blake3::Hasher::new()
        .update(words.as_bytes())
        .update(body.as_bytes())
        .finalize();
    format!("{words} blake3={}\n{body}", sum.to_hex()).into_bytes()
}

impl Synthetic {
    async fn new() -> Self {
        let memory = Memory::new();
        let params = RepoParams {
            chunker: Chunker::default(),
            created_at: "2026-11-24T03:00:00Z".into(),
            id: Ulid::from_parts(BEGAN_MS, 1),
            key: [7; 32],
            try_store: false,
        };
        Repo::init(memory.clone(), params).await.unwrap();
        let config = memory.get(&Key::new("config").unwrap(), 1 << 20).await.unwrap();
        let mut names: Vec<([u8; 32], u32)> = (0..SNAPSHOTS)
            .map(|n| (*blake3::hash(&segment(n)).as_bytes(), n as u32))
            .collect();
        names.sort_unstable();
        Self {
            config,
            names,
            gets: AtomicU64::new(0),
        }
    }
    fn body(&self, key: &str) -> Option<Bytes> {
        if key == "config" {
            return Some(self.config.clone());
        }
        if let Some(id) = key.strip_prefix("snapshots/") {
            let number = Ulid::from_string(id).ok()?.timestamp_ms() - BEGAN_MS;
            return Some(snapshot(number).into());
        }
        let mut name = [0; 32];
        hex::decode_to_slice(key.strip_prefix("index/")?, &mut name).ok()?;
        let at = self.names.binary_search_by_key(&name, |(n, _)| *n).ok()?;
        Some(segment(u64::from(self.names[at].1)).into())
    }
}

/// Cheap to clone, so that a listing can outlive a call.
#[derive(Debug, Clone)]
struct Shared(Arc<Synthetic>);

fn none(operation: &'static str, key: &Key) -> StoreError {
    StoreError::new(Kind::NotFound, operation, key.as_str(), "no such object")
}

#[async_trait]
impl Store for Shared {
    fn url(&self) -> String {
        "synthetic://".into()
    }
    async fn put(&self, key: &Key, _: Bytes) -> Result<()> {
        Err(StoreError::new(Kind::Denied, "put", key.as_str(), "read only"))
    }
    async fn get(&self, key: &Key, _: u64) -> Result<Bytes> {
        self.0.gets.fetch_add(1, Ordering::Relaxed);
        self.0.body(key.as_str()).ok_or_else(|| none("get", key))
    }
    async fn get_range(&self, key: &Key, _: Range<u64>) -> Result<Bytes> {
        Err(none("get_range", key))
    }
    async fn head(&self, key: &Key) -> Result<Meta> {
        Err(none("head", key))
    }
    fn list(&self, prefix: &str) -> BoxStream<'static, Result<Meta>> {
        let (shared, index) = (self.0.clone(), prefix.starts_with("index/"));
        let size_bytes = segment(0).len() as u64;
        let meta = move |n: u64| {
            let key = match index {
                true => format!("index/{}", hex::encode(shared.names[n as usize].0)),
                false => format!("snapshots/{}", snapshot_id(n)),
            };
            Ok(Meta {
                key: Key::new(&key).unwrap(),
                size_bytes,
                last_modified_ms: 0,
            })
        };
        stream::iter((0..SNAPSHOTS).map(meta)).boxed()
    }
    async fn delete(&self, _: &[Key]) -> Result<()> {
        Ok(())
    }
    async fn try_out(&self, _: &Key) -> Result<Tried> {
        Ok(Tried::default())
    }
    fn local_path(&self, _: &Key) -> Option<PathBuf> {
        None
    }
}

fn status_bytes(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix(line)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Peak resident bytes of this process since the last call.
fn peak_bytes() -> u64 {
    let peak = status_bytes("VmHWM:");
    // proc_pid_clear_refs(5): 5 sets the peak back to what is resident now
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    peak
}

fn tell(what: &str, store: &Shared) {
    let (peak, gets) = (peak_bytes(), store.0.gets.swap(0, Ordering::Relaxed));
    println!("{what}: peak of {} MiB, {gets} GETs", peak >> 20);
    assert!(peak < PEAK_BYTES_MAX, "{what}: peak of {peak} bytes");
}

/// Look-ups bring mapped pages in, as far as there is room: the kernel takes those back whenever it likes. What it can't
/// take back is bounded all the same.
fn tell_looked_up(what: &str) {
    let (own, mapped) = (status_bytes("RssAnon:"), status_bytes("RssFile:"));
    println!("{what}: {} MiB of its own, {} MiB mapped", own >> 20, mapped >> 20);
    assert!(own < PEAK_BYTES_MAX / 2, "{what}: {own} bytes");
}

fn look_up(repo: &Repo) {
    for number in (0..SNAPSHOTS).step_by(97) {
        for id in blob_ids(number) {
            assert!(repo.contains(&BlobId::from_bytes(id)), "of {number}");
        }
    }
    assert!(!repo.contains(&BlobId::from_bytes([1; 32])));
    assert!(repo.damaged_indexes().is_empty());
}

async fn page_through(repo: &Repo) {
    let (mut seen, mut after, mut vms) = (0, None, HashSet::new());
    loop {
        let page = repo.snapshots_after(after, 1000, None).await.unwrap();
        seen += page.docs.len() as u64;
        vms.extend(page.docs.iter().map(|d| d.vm.clone()));
        after = page.docs.last().map(|d| d.id);
        assert!(page.damaged.is_empty());
        if !page.more {
            break;
        }
    }
    assert_eq!((seen, vms.len()), (SNAPSHOTS, 1000));
    assert_eq!(after, Some(SnapshotId::new(snapshot_id(SNAPSHOTS - 1))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_snapshots_open_in_bounded_memory() {
    // Not in /tmp: a tmpfs counts as memory.
    let dir = tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
    let store = Shared(Arc::new(Synthetic::new().await));
    let open = |cache: bool| {
        let cache = cache.then(|| Cache::open(dir.path(), 4 << 30).unwrap());
        Repo::open_with(Arc::new(store.clone()), cache)
    };
    println!("{} MiB of index", (SNAPSHOTS * segment(0).len() as u64) >> 20);
    peak_bytes();

    let repo = open(true).await.unwrap();
    tell("first open, all fetched", &store);
    look_up(&repo);
    tell_looked_up("66,000 look-ups all over it");
    drop(repo);
    peak_bytes();

    let repo = open(true).await.unwrap();
    assert_eq!(store.0.gets.load(Ordering::Relaxed), 1, "the config alone");
    tell("second open", &store);
    page_through(&repo).await;
    tell("all snapshots in pages, all fetched", &store);
    page_through(&repo).await;
    assert_eq!(store.0.gets.load(Ordering::Relaxed), 0);
    tell("all snapshots in pages once more", &store);
    let last = format!("vm-{}", (SNAPSHOTS - 1) % 1000);
    assert_eq!(repo.latest(&last).await.unwrap().id.ulid(), snapshot_id(SNAPSHOTS - 1));
    drop(repo);

    let repo = open(false).await.unwrap();
    tell("open without a cache", &store);
    look_up(&repo);
    tell_looked_up("the same without a cache");
}
