#![expect(clippy::single_range_in_vec_init, reason = "disks may have a single run of data")]

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use proptest::prelude::*;
use repo::RepoError;

use super::*;
use crate::engine::raw::RawDisk;
use crate::port::Fingerprint;

const SMALL: Chunker = Chunker::Fastcdc {
    min_bytes: 256,
    avg_bytes: 1024,
    max_bytes: 4096,
};
const FIXED: Chunker = Chunker::Fixed { chunk_bytes: 16_384 };
const MIB: u64 = 1 << 20;

/// Keeps all blobs in memory.
#[derive(Debug, Default)]
struct Memory {
    blobs: Mutex<HashMap<BlobId, (BlobKind, Bytes)>>,
    puts: AtomicUsize,
    fails_after: Option<usize>,
}

impl BlobSink for Memory {
    fn id_of(&self, raw: &[u8]) -> BlobId {
        BlobId::keyed(&[7; 32], raw)
    }
    fn known(&self, id: &BlobId) -> bool {
        lock(&self.blobs).contains_key(id)
    }
    fn put(&self, kind: BlobKind, id: &BlobId, raw: &[u8]) -> repo::Result<Put> {
        assert_eq!(*id, self.id_of(raw));
        if self
            .fails_after
            .is_some_and(|n| self.puts.fetch_add(1, Ordering::Relaxed) >= n)
        {
            return Err(RepoError::new(
                repo::Kind::Store(store::Kind::Full),
                "packs/aa",
                "no space left",
            ));
        }
        let mut blobs = lock(&self.blobs);
        if blobs.insert(*id, (kind, Bytes::copy_from_slice(raw))).is_some() {
            return Ok(Put::Known);
        }
        Ok(Put::New {
            stored_bytes: raw.len() as u32,
        })
    }
}

#[async_trait]
impl NodeSource for Memory {
    async fn nodes(&self, ids: &[BlobId]) -> repo::Result<Vec<Bytes>> {
        let blobs = lock(&self.blobs);
        ids.iter()
            .map(|id| match blobs.get(id) {
                Some((BlobKind::Node, bytes)) => Ok(bytes.clone()),
                _ => Err(RepoError::corrupt("packs/aa", format!("no node {id}"))),
            })
            .collect()
    }
}

/// A disk in memory whose holes are where the test wants them.
#[derive(Debug, Clone)]
struct MemoryDisk {
    bytes: Vec<u8>,
    /// Runs of data; what lies between must be zeros. They may begin and end anywhere.
    runs: Vec<Range<u64>>,
}

impl MemoryDisk {
    fn dense(bytes: Vec<u8>) -> Self {
        Self {
            runs: vec![0..bytes.len() as u64],
            bytes,
        }
    }
    /// With a hole at each run of `len` zeros or more.
    fn sparse(bytes: Vec<u8>, len: usize) -> Self {
        let mut runs: Vec<Range<u64>> = Vec::new();
        for (at, _) in bytes.iter().enumerate().filter(|(_, b)| **b != 0) {
            match runs.last_mut() {
                Some(last) if (at as u64) < last.end + len as u64 => last.end = at as u64 + 1,
                _ => runs.push(at as u64..at as u64 + 1),
            }
        }
        Self { bytes, runs }
    }
}

impl DiskRead for MemoryDisk {
    fn path(&self) -> &Path {
        Path::new("memory")
    }
    fn format(&self) -> &'static str {
        "raw"
    }
    fn size_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }
    fn allocated_bytes(&self) -> Result<u64> {
        Ok(self.runs.iter().map(|r| r.end - r.start).sum())
    }
    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        Ok(self
            .runs
            .iter()
            .find(|run| run.end > offset)
            .map(|run| run.start.max(offset)..run.end))
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        buffer.copy_from_slice(&self.bytes[offset as usize..offset as usize + buffer.len()]);
        Ok(())
    }
    fn fingerprint(&self) -> Result<Fingerprint> {
        Ok(Fingerprint {
            size_bytes: self.size_bytes(),
            modified_ns: 0,
            changed_ns: 0,
            identity: (0, 0),
        })
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap()
}

fn threads(threads: usize) -> Options {
    Options {
        threads,
        window_leaves: 3,
    }
}

fn run(disk: &dyn DiskRead, sink: &dyn BlobSink, chunker: Chunker, options: &Options) -> Result<Ingested> {
    ingest(
        disk,
        sink,
        chunker,
        None,
        runtime().handle(),
        options,
        &Progress::default(),
    )
}

fn run_on(disk: &dyn DiskRead, sink: &Arc<Memory>, chunker: Chunker, base: ManifestRef) -> Result<Ingested> {
    let nodes: Arc<dyn NodeSource> = sink.clone();
    let progress = Progress::default();
    ingest(
        disk,
        &**sink,
        chunker,
        Some((nodes, base)),
        runtime().handle(),
        &threads(2),
        &progress,
    )
}

/// What the manifest and the chunks in `sink` say that the disk holds.
fn read_out(sink: &Arc<Memory>, manifest: ManifestRef) -> Vec<u8> {
    let mut disk = vec![0; manifest.size_bytes as usize];
    let nodes: Arc<dyn NodeSource> = sink.clone();
    runtime().block_on(async {
        let mut leaves = repo::manifest::leaves(nodes, manifest, 0..manifest.size_bytes);
        while let Some(leaf) = leaves.next().await {
            for chunk in leaf.unwrap().chunks {
                let (kind, bytes) = lock(&sink.blobs)[&chunk.id].clone();
                assert_eq!((kind, bytes.len()), (BlobKind::Data, chunk.len as usize));
                disk[chunk.offset as usize..][..bytes.len()].copy_from_slice(&bytes);
            }
        }
    });
    disk
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

/// A disk of up to two leaves and a bit, of few runs of noise in zeros.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let len = prop_oneof![Just(2 * LEAF_SPAN_BYTES as usize), 1_usize..9_000_000, 1_usize..20_000];
    let piece = (
        0.0_f64..1.0,
        prop_oneof![1_usize..100, 1_usize..50_000, 1_usize..400_000],
        any::<u64>(),
    );
    (len, prop::collection::vec(piece, 0..8)).prop_map(|(len, pieces)| {
        let mut bytes = vec![0; len];
        for (at, piece_len, seed) in pieces {
            let at = (at * len as f64) as usize;
            let end = (at + piece_len).min(len);
            bytes[at..end].copy_from_slice(&noise(seed, end - at));
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn a_manifest_says_what_the_disk_holds_however_it_was_read(
        before in content(), edits in prop::collection::vec((0.0_f64..1.0, 1_usize..40_000, any::<bool>()), 0..5),
    ) {
        let mut after = before.clone();
        for (at, len, zeros) in edits {
            let at = (at * after.len() as f64) as usize;
            let end = (at + len).min(after.len());
            after[at..end].copy_from_slice(&if zeros { vec![0; end - at] } else { noise(len as u64, end - at) });
        }
        for chunker in [SMALL, FIXED] {
            let sink = Arc::new(Memory::default());
            let old = run(&MemoryDisk::dense(before.clone()), &*sink, chunker, &threads(2)).unwrap();
            prop_assert!(read_out(&sink, old.manifest) == before);
            let dense = run(&MemoryDisk::dense(after.clone()), &*sink, chunker, &threads(2)).unwrap();
            prop_assert!(read_out(&sink, dense.manifest) == after);
            for hole in [1, 700, 4096, 20_000] {
                let disk = MemoryDisk::sparse(after.clone(), hole);
                let one = run(&disk, &*sink, chunker, &threads(1)).unwrap();
                prop_assert_eq!(one.manifest, dense.manifest);
                let on_old = run_on(&disk, &sink, chunker, old.manifest).unwrap();
                prop_assert_eq!(on_old.manifest, dense.manifest);
            }
        }
    }
}

fn disk_file(dir: &Path, size_bytes: u64, data: &[(u64, Vec<u8>)]) -> PathBuf {
    let path = dir.join("disk.raw");
    let file = File::create(&path).unwrap();
    file.set_len(size_bytes).unwrap();
    for (offset, bytes) in data {
        file.write_all_at(bytes, *offset).unwrap();
    }
    path
}

#[test]
fn threads_and_windows_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data: Vec<_> = (0..12)
        .map(|i| (i * 5 * MIB + 3 * 4096, noise(i, 2_500_000 + 777 * i as usize)))
        .collect();
    let path = disk_file(dir.path(), 90 * MIB + 123, &data);
    let disk = RawDisk::open_read(&path).unwrap();
    let one = run(
        &disk,
        &Memory::default(),
        SMALL,
        &Options {
            threads: 1,
            window_leaves: 0,
        },
    )
    .unwrap();
    assert!(one.manifest.root.is_some());
    for options in [
        threads(2),
        threads(7),
        Options {
            threads: 4,
            window_leaves: 100,
        },
        Options::default(),
    ] {
        assert_eq!(
            run(&disk, &Memory::default(), SMALL, &options).unwrap(),
            one,
            "{options:?}"
        );
    }
}

#[test]
fn what_was_moved_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let same = noise(1, 1 << 20);
    let data = [
        (0, same.clone()),
        (8 * MIB, same),
        (16 * MIB, noise(2, 1 << 20)),
        (20 * MIB, vec![0; 1 << 20]),
    ];
    let path = disk_file(dir.path(), 1 << 30, &data);
    let disk = RawDisk::open_read(&path).unwrap();
    let sink = Arc::new(Memory::default());
    let progress = Progress::default();
    let first = ingest(
        &disk,
        &*sink,
        Chunker::default(),
        None,
        runtime().handle(),
        &threads(2),
        &progress,
    )
    .unwrap();
    let moved = first.moved;
    assert_eq!(moved.hashed_bytes, 3 * MIB);
    assert_eq!(moved.recut_bytes, 3 * MIB);
    assert_eq!(moved.new_raw_bytes, 2 * MIB, "the second copy is the first");
    assert_eq!(moved.stored_bytes, 2 * MIB);
    assert!(moved.new_chunks < moved.chunks);
    assert_eq!(moved.zero_bytes, moved.read_bytes - 3 * MIB);
    assert!((3 * MIB..5 * MIB).contains(&moved.read_bytes), "{moved:?}");
    assert_eq!(moved.allocated_bytes, disk.allocated_bytes().unwrap());
    assert_eq!(progress.now().1, moved.read_bytes);

    let again = run_on(&disk, &sink, Chunker::default(), first.manifest).unwrap();
    assert_eq!(again.manifest, first.manifest);
    assert_eq!(
        (
            again.moved.recut_bytes,
            again.moved.new_chunks,
            again.moved.new_raw_bytes
        ),
        (0, 0, 0)
    );
    assert_eq!(again.moved.hashed_bytes, 3 * MIB);
}

#[test]
fn only_holes_make_no_root_and_read_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = disk_file(dir.path(), 1 << 40, &[]);
    let sink = Memory::default();
    let done = run(&RawDisk::open_read(&path).unwrap(), &sink, SMALL, &threads(2)).unwrap();
    assert_eq!(
        done.manifest,
        ManifestRef {
            size_bytes: 1 << 40,
            root: None
        }
    );
    assert_eq!(done.moved, Moved::default());
    assert!(lock(&sink.blobs).is_empty());
}

/// Does something to the file when the `at`th read comes.
struct Meddled<F> {
    disk: RawDisk,
    reads: AtomicU64,
    at: u64,
    meddle: F,
}

impl<F> std::fmt::Debug for Meddled<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meddled").finish_non_exhaustive()
    }
}

impl<F: Fn() + Send + Sync> DiskRead for Meddled<F> {
    fn path(&self) -> &Path {
        self.disk.path()
    }
    fn format(&self) -> &'static str {
        "raw"
    }
    fn size_bytes(&self) -> u64 {
        self.disk.size_bytes()
    }
    fn allocated_bytes(&self) -> Result<u64> {
        self.disk.allocated_bytes()
    }
    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        self.disk.next_data(offset)
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        if self.reads.fetch_add(1, Ordering::Relaxed) == self.at {
            (self.meddle)();
        }
        self.disk.read_at(buffer, offset)
    }
    fn fingerprint(&self) -> Result<Fingerprint> {
        self.disk.fingerprint()
    }
}

fn meddled(path: &Path, at: u64, meddle: impl Fn() + Send + Sync) -> Result<Ingested> {
    let disk = Meddled {
        disk: RawDisk::open_read(path).unwrap(),
        reads: AtomicU64::new(0),
        at,
        meddle,
    };
    std::thread::sleep(std::time::Duration::from_millis(30)); // past the tick of older kernels' timestamps
    run(&disk, &Memory::default(), SMALL, &threads(2))
}

#[test]
fn a_disk_that_changes_while_it_is_read_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = disk_file(dir.path(), 40 * MIB, &[(0, noise(1, 24 << 20))]);
    let write = || File::options().write(true).open(&path).unwrap();
    let check = |result: Result<Ingested>| {
        let error = result.unwrap_err();
        assert_eq!(error.kind, Kind::Conflict);
        assert!(error.message.contains("changed while it was read"), "{}", error.message);
        assert!(error.message.contains(path.to_str().unwrap()) && error.hint.is_some());
    };
    meddled(&path, 2, || ()).unwrap();
    // Where it was read already, where it was not yet, where it was a hole, and at the last read.
    check(meddled(&path, 3, || write().write_all_at(b"x", 5).unwrap()));
    check(meddled(&path, 0, || write().write_all_at(b"x", 20 << 20).unwrap()));
    check(meddled(&path, 5, || write().write_all_at(b"x", 39 << 20).unwrap()));
    // The same bytes again are a change too: who writes while it is read may write more.
    check(meddled(&path, 1, || write().write_all_at(b"x", 5).unwrap()));
    check(meddled(&path, 1, || write().set_len(50 * MIB).unwrap()));
    check(meddled(&path, 1, || write().set_len(10 * MIB).unwrap()));
}

#[test]
fn the_first_error_ends_all_threads() {
    let dir = tempfile::tempdir().unwrap();
    let path = disk_file(dir.path(), 64 * MIB, &[(0, noise(1, 64 << 20))]);
    let disk = RawDisk::open_read(&path).unwrap();
    for fails_after in [0, 1, 5000, 20_000] {
        let sink = Memory {
            fails_after: Some(fails_after),
            ..Memory::default()
        };
        let error = run(&disk, &sink, SMALL, &threads(3)).unwrap_err();
        assert_eq!(error.kind, Kind::Full, "{error}");
    }
    // A base whose nodes are gone.
    let lost = ManifestRef {
        size_bytes: 64 * MIB,
        root: Some(BlobId::from_bytes([9; 32])),
    };
    let error = run_on(&disk, &Arc::new(Memory::default()), SMALL, lost).unwrap_err();
    assert_eq!(error.kind, Kind::Corrupt, "{error}");
    // Cancelled before and within.
    let progress = Progress::default();
    let meddled = Meddled {
        disk,
        reads: AtomicU64::new(0),
        at: 3,
        meddle: || progress.cancel(),
    };
    let sink = Memory::default();
    let error = ingest(&meddled, &sink, SMALL, None, runtime().handle(), &threads(2), &progress).unwrap_err();
    assert_eq!(error.kind, Kind::Cancelled);
    assert!(progress.now().1 < 32 * MIB, "{:?}", progress.now());
    // A thread that panics.
    let meddled = Meddled {
        disk: meddled.disk,
        reads: AtomicU64::new(0),
        at: 3,
        meddle: || panic!("test"),
    };
    let error = run(&meddled, &sink, SMALL, &threads(2)).unwrap_err();
    assert_eq!(error.kind, Kind::Internal);
    let none = Chunker::Fixed { chunk_bytes: 1 };
    assert_eq!(run(&meddled, &sink, none, &threads(2)).unwrap_err().kind, Kind::Invalid);
}

#[test]
fn a_base_of_another_size_serves_as_far_as_it_goes() {
    let bytes = noise(4, 10 << 20);
    let sink = Arc::new(Memory::default());
    let all = run(&MemoryDisk::dense(bytes.clone()), &*sink, SMALL, &threads(2)).unwrap();
    for len in [1, 3 << 20, 4 << 20, (8 << 20) + 333] {
        let short = MemoryDisk::dense(bytes[..len].to_vec());
        let fresh = run(&short, &*sink, SMALL, &threads(2)).unwrap();
        let shrunk = run_on(&short, &sink, SMALL, all.manifest).unwrap();
        assert_eq!(shrunk.manifest, fresh.manifest);
        assert!(shrunk.moved.recut_bytes <= 8192, "{:?}", shrunk.moved);
        let grown = run_on(&MemoryDisk::dense(bytes.clone()), &sink, SMALL, fresh.manifest).unwrap();
        assert_eq!(grown.manifest, all.manifest);
    }
}
