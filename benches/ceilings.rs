//! What this machine could do at best with a disk's data: the crates that windlass stands on, called directly, without
//! windlass. `make bench` computes its ceilings from this.
//!
//! `WINDLASS_BENCH_IMAGE=disk.raw cargo bench -p windlass --bench ceilings` prints one JSON object of bytes a second: one
//! thread each but for `read_hash_all`, the best of several rounds, the disk in the page cache.
#![expect(clippy::print_stdout, reason = "the report of a benchmark")]

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use fastcdc::v2020::FastCDC;
use rustix::fs::{SeekFrom, seek};

const ROUNDS: usize = 5;
/// A leaf of a manifest: what is read and cut at a time.
const LEAF_BYTES: u64 = 4 << 20;
const BLOCK_BYTES: usize = 4096;
const CHUNK_BYTES: (usize, usize, usize) = (16 << 10, 64 << 10, 256 << 10);
const KEY: [u8; 32] = [7; 32];
/// Data on which cutting, hashing and compressing are measured.
const SAMPLE_BYTES_MAX: usize = 512 << 20;

/// Runs of data, none longer than a leaf.
fn data_runs(file: &File) -> Vec<Range<u64>> {
    let (mut runs, mut at) = (Vec::new(), 0);
    while let Ok(start) = seek(file, SeekFrom::Data(at)) {
        at = seek(file, SeekFrom::Hole(start)).expect("a run of data ends");
        let mut from = start;
        while from < at {
            let to = (from / LEAF_BYTES * LEAF_BYTES + LEAF_BYTES).min(at);
            runs.push(from..to);
            from = to;
        }
    }
    runs
}

/// Bytes a second in the best of the rounds.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn best(bytes: u64, mut work: impl FnMut()) -> f64 {
    let round = |_| {
        let began = Instant::now();
        work();
        began.elapsed().as_secs_f64()
    };
    bytes as f64 / (0..ROUNDS).map(round).fold(f64::INFINITY, f64::min)
}

/// Reads all runs with `threads`, in pieces, and hashes them when asked to.
fn read(file: &File, runs: &[Range<u64>], threads: usize, piece: usize, hash: bool) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut buffer = vec![0; piece];
                while let Some(run) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    for at in (run.start..run.end).step_by(piece) {
                        let part = &mut buffer[..piece.min((run.end - at) as usize)];
                        file.read_exact_at(part, at).expect("read the disk");
                        for chunk in part.chunks(CHUNK_BYTES.1).filter(|_| hash) {
                            std::hint::black_box(blake3::keyed_hash(&KEY, chunk));
                        }
                    }
                }
            });
        }
    });
}

/// The data without its zeros, leaf by leaf.
fn sample(file: &File, runs: &[Range<u64>]) -> Vec<Vec<u8>> {
    let (mut leaves, mut total) = (Vec::new(), 0);
    let mut buffer = vec![0; LEAF_BYTES as usize];
    for run in runs {
        let part = &mut buffer[..(run.end - run.start) as usize];
        file.read_exact_at(part, run.start).expect("read the disk");
        let leaf: Vec<u8> = part
            .chunks(BLOCK_BYTES)
            .filter(|b| b.iter().any(|&x| x != 0))
            .flatten()
            .copied()
            .collect();
        total += leaf.len();
        leaves.push(leaf);
        if total > SAMPLE_BYTES_MAX {
            break;
        }
    }
    leaves
}

fn main() {
    // `cargo test` runs benches too, without an image: nothing to do then
    let Some(image) = std::env::var_os("WINDLASS_BENCH_IMAGE") else {
        println!("WINDLASS_BENCH_IMAGE names no disk; nothing was measured");
        return;
    };
    let file = File::open(&image).expect("open the image");
    let runs = data_runs(&file);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let data: u64 = runs.iter().map(|r| r.end - r.start).sum();
    read(&file, &runs, cores, 1 << 20, false);

    let leaves = sample(&file, &runs);
    let bytes: u64 = leaves.iter().map(|l| l.len() as u64).sum();
    let (min, avg, max) = CHUNK_BYTES;
    let chunks: Vec<&[u8]> = leaves
        .iter()
        .flat_map(|leaf| FastCDC::new(leaf, min, avg, max).map(|c| &leaf[c.offset..c.offset + c.length]))
        .collect();
    let cut = best(bytes, || {
        leaves
            .iter()
            .for_each(|l| _ = std::hint::black_box(FastCDC::new(l, min, avg, max).count()))
    });
    let hash = best(bytes, || {
        chunks
            .iter()
            .for_each(|c| _ = std::hint::black_box(blake3::keyed_hash(&KEY, c)))
    });
    let mut packer = zstd::bulk::Compressor::new(1).expect("level 1 exists");
    let mut out = vec![0; zstd::zstd_safe::compress_bound(max)];
    let squeeze = best(bytes, || {
        chunks.iter().for_each(|c| {
            _ = packer
                .compress_to_buffer(c, &mut out)
                .expect("the buffer is long enough")
        });
    });
    let packed: Vec<(Vec<u8>, usize)> = chunks
        .iter()
        .map(|c| (packer.compress(c).expect("it was compressed before"), c.len()))
        .collect();
    let mut opener = zstd::bulk::Decompressor::new().expect("no dictionary");
    let mut raw = vec![0; max];
    let open = best(bytes, || {
        packed.iter().for_each(|(stored, len)| {
            _ = opener
                .decompress_to_buffer(stored, &mut raw[..*len])
                .expect("it is what was compressed")
        });
    });
    let read_hash = |piece| best(data, || read(&file, &runs, cores, piece, true));
    let rates = serde_json::json!({
        "read_bytes_per_s": best(data, || read(&file, &runs, 1, 256 << 10, false)),
        "fastcdc_bytes_per_s": cut,
        "blake3_bytes_per_s": hash,
        "zstd_bytes_per_s": squeeze,
        "unzstd_bytes_per_s": open,
        // pieces that stay in the inner cache, or whole leaves: the better of the two
        "read_hash_all_bytes_per_s": read_hash(256 << 10).max(read_hash(LEAF_BYTES as usize)),
    });
    println!("{rates}");
}
