//! Reading a disk: rates of the first ingest and of an unchanged re-scan beside what this machine can do.
//!
//! `cargo bench -p windlass-snapshot --bench ingest`; `WINDLASS_BENCH_IMAGE=disk.raw` takes that disk instead of a made
//! one, `WINDLASS_BENCH_ROUNDS` (5) and `WINDLASS_BENCH_THREADS` (all cores) are numbers. The disk is read once before, so
//! that all is in the page cache. The sink deduplicates and compresses (zstd 1) and then drops the bytes: the reader is
//! measured, not the store.
#![expect(clippy::print_stdout, reason = "the report of a benchmark")]

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use repo::manifest::LEAF_SPAN_BYTES;
use repo::{BlobId, BlobKind, BlobSink, ManifestRef, NodeSource, Put, RepoError};
use windlass_snapshot::core::cut::{Cutter, LeafBytes};
use windlass_snapshot::engine::ingest::{Ingested, Options, ingest};
use windlass_snapshot::engine::progress::Progress;
use windlass_snapshot::engine::raw::RawDisk;
use windlass_snapshot::port::DiskRead;
use wire::repo::Chunker;

const CHUNK_BYTES: usize = 64 << 10;
const KEY: [u8; 32] = [7; 32];

/// Deduplicates, compresses, counts, drops.
struct Discard {
    shards: Vec<Mutex<HashSet<BlobId>>>,
    nodes: Mutex<HashMap<BlobId, Bytes>>,
    stored_bytes: AtomicU64,
}

impl Discard {
    fn new() -> Self {
        Self {
            shards: (0..64).map(|_| Mutex::default()).collect(),
            nodes: Mutex::default(),
            stored_bytes: AtomicU64::new(0),
        }
    }
    fn shard(&self, id: &BlobId) -> std::sync::MutexGuard<'_, HashSet<BlobId>> {
        self.shards[usize::from(id.as_bytes()[0]) % 64]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlobSink for Discard {
    fn id_of(&self, raw: &[u8]) -> BlobId {
        BlobId::keyed(&KEY, raw)
    }
    fn known(&self, id: &BlobId) -> bool {
        self.shard(id).contains(id)
    }
    fn put(&self, kind: BlobKind, id: &BlobId, raw: &[u8]) -> repo::Result<Put> {
        if !self.shard(id).insert(*id) {
            return Ok(Put::Known);
        }
        if kind == BlobKind::Node {
            let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
            nodes.insert(*id, Bytes::copy_from_slice(raw));
        }
        let stored_bytes = compress(raw);
        self.stored_bytes.fetch_add(stored_bytes as u64, Ordering::Relaxed);
        Ok(Put::New {
            stored_bytes: stored_bytes as u32,
        })
    }
}

#[async_trait]
impl NodeSource for Discard {
    async fn nodes(&self, ids: &[BlobId]) -> repo::Result<Vec<Bytes>> {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let node = |id: &BlobId| {
            nodes
                .get(id)
                .cloned()
                .ok_or_else(|| RepoError::corrupt("nodes", "no such node"))
        };
        ids.iter().map(node).collect()
    }
}

thread_local! {
    static ZSTD: std::cell::RefCell<(zstd::bulk::Compressor<'static>, Vec<u8>)> =
        std::cell::RefCell::new((zstd::bulk::Compressor::new(1).expect("level 1 exists"), Vec::new()));
}

fn compress(raw: &[u8]) -> usize {
    ZSTD.with_borrow_mut(|(zstd, out)| {
        out.clear();
        out.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        zstd.compress_to_buffer(raw, out).expect("the buffer is long enough")
    })
}

/// How long something took.
#[derive(Clone, Copy)]
struct Took {
    wall_s: f64,
    /// Of all threads of this process. Says more than the wall where others work on the same cores.
    cpu_s: f64,
}

fn cpu_s() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn timed<T>(work: impl FnOnce() -> T) -> (Took, T) {
    let (began, cpu) = (Instant::now(), cpu_s());
    let result = work();
    (
        Took {
            wall_s: began.elapsed().as_secs_f64(),
            cpu_s: cpu_s() - cpu,
        },
        result,
    )
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Prints a row and gives its medians.
fn row(name: &str, bytes: f64, took: &[Took]) -> Took {
    let walls: Vec<f64> = took.iter().map(|t| t.wall_s).collect();
    let (low, high) = walls
        .iter()
        .fold((f64::MAX, 0.0_f64), |(low, high), w| (low.min(*w), high.max(*w)));
    let wall_s = median(walls);
    let cpu_s = median(took.iter().map(|t| t.cpu_s).collect());
    println!(
        "{name:<26} {:>8.1} ms (spread {:>3.0} %) {:>6.2} GB/s   CPU {:>8.1} ms",
        wall_s * 1e3,
        (high - low) / wall_s * 100.0,
        bytes / wall_s / 1e9,
        cpu_s * 1e3
    );
    Took { wall_s, cpu_s }
}

fn env_number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// A 2 GiB sparse file of this machine's programs and documents, as a filesystem would lay them: at multiples of 4 KiB,
/// with holes between groups. About 384 MiB of data.
fn make_image(dir: &Path) -> PathBuf {
    let path = dir.join("bench.raw");
    let file = File::create(&path).expect("create the image");
    file.set_len(2 << 30).expect("size the image");
    let mut queue: Vec<PathBuf> = ["/usr/bin", "/usr/lib", "/usr/share"]
        .iter()
        .map(PathBuf::from)
        .collect();
    let (mut at, mut data, mut count) = (1_u64 << 20, 0_u64, 0_u64);
    let mut index = 0;
    while index < queue.len() && data < 384 << 20 {
        let here = queue[index].clone();
        index += 1;
        let Ok(entries) = std::fs::read_dir(&here) else {
            continue;
        };
        let mut entries: Vec<_> = entries.flatten().collect();
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                queue.push(entry.path());
            } else if kind.is_file() && data < 384 << 20 {
                let mut bytes = Vec::new();
                let opened = File::open(entry.path());
                if opened.is_ok_and(|f| f.take(32 << 20).read_to_end(&mut bytes).is_ok()) && !bytes.is_empty() {
                    file.write_all_at(&bytes, at).expect("write the image");
                    data += bytes.len() as u64;
                    count += 1;
                    at = (at + bytes.len() as u64).next_multiple_of(4096);
                    if count.is_multiple_of(64) {
                        at += 4 << 20;
                    }
                    if at > (2 << 30) - (33 << 20) {
                        return path;
                    }
                }
            }
        }
    }
    path
}

/// Drops the image from the page cache.
fn evict(image: &Path) {
    let file = File::open(image).expect("open the image");
    file.sync_all().expect("sync the image");
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("drop the image from the cache");
}

/// All runs of data, split at leaves: what a reader that does nothing but read and hash would do.
fn data_runs(disk: &RawDisk) -> Vec<std::ops::Range<u64>> {
    let mut runs = Vec::new();
    let mut at = 0;
    while let Some(run) = disk.next_data(at).expect("find data") {
        let mut start = run.start;
        while start < run.end {
            let end = (start / LEAF_SPAN_BYTES * LEAF_SPAN_BYTES + LEAF_SPAN_BYTES).min(run.end);
            runs.push(start..end);
            start = end;
        }
        at = run.end;
    }
    runs
}

/// Reads and hashes all data with `threads`, in pieces of `piece` bytes; bytes done.
fn read_and_hash(disk: &RawDisk, runs: &[std::ops::Range<u64>], threads: usize, piece: usize, hash: bool) -> u64 {
    let next = AtomicU64::new(0);
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut buffer = vec![0; piece];
                while let Some(run) = runs.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let mut at = run.start;
                    while at < run.end {
                        let len = ((run.end - at) as usize).min(piece);
                        disk.read_at(&mut buffer[..len], at).expect("read");
                        if hash {
                            for chunk in buffer[..len].chunks(CHUNK_BYTES) {
                                std::hint::black_box(BlobId::keyed(&KEY, chunk));
                            }
                        }
                        at += len as u64;
                    }
                    done.fetch_add(run.end - run.start, Ordering::Relaxed);
                }
            });
        }
    });
    done.into_inner()
}

/// Bytes per CPU second of cutting, of hashing and of compressing, on one thread and on this disk's data (at most 256 MiB).
fn parts(disk: &RawDisk, runs: &[std::ops::Range<u64>]) -> (f64, f64, f64) {
    let (mut cut_s, mut hash_s, mut zstd_s, mut bytes) = (0.0, 0.0, 0.0, 0_u64);
    let cutter = Cutter::new(&Chunker::default()).expect("the default is in range");
    let mut buffer = vec![0; LEAF_SPAN_BYTES as usize];
    for run in runs {
        if bytes > 256 << 20 {
            break;
        }
        let len = (run.end - run.start) as usize;
        let data = &mut buffer[..len];
        disk.read_at(data, run.start).expect("read");
        let mut chunks = Vec::new();
        let all = 0..len;
        let whole = LeafBytes {
            bytes: data,
            runs: std::slice::from_ref(&all),
        };
        cut_s += timed(|| cutter.cut(whole, &[], |_| (), &mut chunks)).0.cpu_s;
        let pieces: Vec<&[u8]> = chunks
            .iter()
            .map(|c| &data[c.offset as usize..(c.offset + c.len) as usize])
            .collect();
        let hash = || {
            pieces
                .iter()
                .map(|p| BlobId::keyed(&KEY, p))
                .for_each(|id| _ = std::hint::black_box(id))
        };
        hash_s += timed(hash).0.cpu_s;
        zstd_s += timed(|| pieces.iter().map(|p| compress(p)).sum::<usize>()).0.cpu_s;
        bytes += pieces.iter().map(|p| p.len() as u64).sum::<u64>();
    }
    let bytes = bytes as f64;
    (bytes / cut_s, bytes / hash_s, bytes / zstd_s)
}

fn run(
    disk: &RawDisk,
    sink: &Arc<Discard>,
    base: Option<ManifestRef>,
    threads: usize,
    tokio: &tokio::runtime::Runtime,
) -> (Took, Ingested) {
    let nodes: Arc<dyn NodeSource> = sink.clone();
    let options = Options {
        threads,
        ..Options::default()
    };
    let progress = Progress::default();
    let (seconds, done) = timed(|| {
        let base = base.map(|m| (nodes, m));
        ingest(
            disk,
            &**sink,
            Chunker::default(),
            base,
            tokio.handle(),
            &options,
            &progress,
        )
    });
    (seconds, done.expect("ingest"))
}

fn main() {
    let rounds = env_number("WINDLASS_BENCH_ROUNDS", 5);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = env_number("WINDLASS_BENCH_THREADS", cores);
    let dir = tempfile::tempdir_in(
        std::env::current_exe()
            .expect("own path")
            .parent()
            .expect("a directory"),
    )
    .expect("temporary directory");
    let image = std::env::var_os("WINDLASS_BENCH_IMAGE").map_or_else(|| make_image(dir.path()), PathBuf::from);
    let disk = RawDisk::open_read(&image).expect("open the image");
    let runs = data_runs(&disk);
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .expect("tokio");
    let data = read_and_hash(&disk, &runs, threads, 1 << 20, false);
    println!(
        "disk: {} MiB, data {} MiB in {} runs; {threads} threads on {cores} cores; page cache warm; median of {rounds}",
        disk.size_bytes() >> 20,
        data >> 20,
        runs.len()
    );

    let (cut, hash, zstd) = parts(&disk, &runs);
    let gb = |rate: f64| rate / 1e9;
    println!(
        "one thread, GB/s: zeros and cut {:.2}, hash {:.2}, zstd 1 {:.2}",
        gb(cut),
        gb(hash),
        gb(zstd)
    );

    let (mut read_s, mut small_s, mut large_s) = (vec![], vec![], vec![]);
    let (mut first_s, mut fresh_s, mut rescan_s) = (vec![], vec![], vec![]);
    let mut moved = None;
    for _ in 0..rounds {
        read_s.push(timed(|| read_and_hash(&disk, &runs, threads, 256 << 10, false)).0);
        // Two ways to read: pieces that stay in the inner cache, and whole leaves, as the engine does.
        small_s.push(timed(|| read_and_hash(&disk, &runs, threads, 256 << 10, true)).0);
        large_s.push(timed(|| read_and_hash(&disk, &runs, threads, 4 << 20, true)).0);
        let sink = Arc::new(Discard::new());
        let (seconds, first) = run(&disk, &sink, None, threads, &tokio);
        first_s.push(seconds);
        let (seconds, fresh) = run(&disk, &sink, None, threads, &tokio);
        fresh_s.push(seconds);
        let (seconds, again) = run(&disk, &sink, Some(first.manifest), threads, &tokio);
        rescan_s.push(seconds);
        assert_eq!((first.manifest, first.manifest), (fresh.manifest, again.manifest));
        assert_eq!((again.moved.new_chunks, again.moved.recut_bytes), (0, 0));
        moved = Some(first.moved);
    }
    // Once each: what the medium gives to the same threads, and what of it a re-scan reaches.
    let sink = Arc::new(Discard::new());
    let (_, first) = run(&disk, &sink, None, threads, &tokio);
    evict(&image);
    let cold_read = timed(|| read_and_hash(&disk, &runs, threads, 1 << 20, false)).0;
    evict(&image);
    let cold_rescan = run(&disk, &sink, Some(first.manifest), threads, &tokio).0;

    let moved = moved.expect("at least one round");
    let data = data as f64;
    row("read alone", data, &read_s);
    let small = row("read and hash by 256 KiB", data, &small_s);
    let large = row("read and hash by 4 MiB", data, &large_s);
    let ceiling = if small.wall_s < large.wall_s { small } else { large };
    let rescan = row("re-scan, unchanged", data, &rescan_s);
    row("re-scan, no old cut points", data, &fresh_s);
    let first = row("first ingest", data, &first_s);
    row("read alone, cold cache", data, &[cold_read]);
    row("re-scan, cold cache", data, &[cold_rescan]);
    println!(
        "re-scan reaches {:.0} % of the ceiling, the better of the two (goal 80); by CPU time {:.0} %",
        ceiling.wall_s / rescan.wall_s * 100.0,
        ceiling.cpu_s / rescan.cpu_s * 100.0
    );
    let busy = moved.hashed_bytes as f64 * (1.0 / cut + 1.0 / hash) + moved.new_raw_bytes as f64 / zstd;
    let t = busy / threads.min(cores) as f64;
    println!(
        "first ingest: T = {:.1} ms (cut and hash {} MiB, compress {} MiB), reached T / {:.2} (goal 0.70); by CPU time T / {:.2}",
        t * 1e3,
        moved.hashed_bytes >> 20,
        moved.new_raw_bytes >> 20,
        t / first.wall_s,
        busy / first.cpu_s
    );
    println!(
        "{} chunks, {} new, {} MiB stored",
        moved.chunks,
        moved.new_chunks,
        moved.stored_bytes >> 20
    );
}
