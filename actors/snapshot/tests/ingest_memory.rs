//! Reading a huge disk must not take memory by its size. Alone in its program: it looks at the peak of the process.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test; what it measured is worth reading"
)]

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use repo::{BlobId, BlobKind, BlobSink, NodeSource, Put, RepoError};
use windlass_snapshot::engine::ingest::{Options, ingest};
use windlass_snapshot::engine::progress::Progress;
use windlass_snapshot::engine::raw::RawDisk;
use wire::repo::Chunker;

const DISK_BYTES: u64 = 1 << 40;
/// In all of the disk's leaves but one in 13 there's nothing: 20,164 leaves with data.
const STEP_BYTES: u64 = 13 * (4 << 20) - 8192;
/// Data in one piece.
const DENSE_BYTES: u64 = 128 << 20;
/// What reading may take beyond what the process has anyway.
const PEAK_BYTES_MAX: u64 = 64 << 20;

/// Keeps the manifest's nodes in a file, so that they don't count.
struct Nodes {
    file: File,
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    end: u64,
    /// Offset and length.
    of: HashMap<BlobId, (u64, usize)>,
}

impl BlobSink for Nodes {
    fn id_of(&self, raw: &[u8]) -> BlobId {
        BlobId::keyed(&[7; 32], raw)
    }
    fn known(&self, _: &BlobId) -> bool {
        false
    }
    fn put(&self, kind: BlobKind, id: &BlobId, raw: &[u8]) -> repo::Result<Put> {
        if kind == BlobKind::Node {
            let mut places = self.places.lock().unwrap();
            let at = places.end;
            self.file.write_all_at(raw, at).unwrap();
            places.end += raw.len() as u64;
            places.of.insert(*id, (at, raw.len()));
        }
        Ok(Put::New {
            stored_bytes: raw.len() as u32,
        })
    }
}

#[async_trait]
impl NodeSource for Nodes {
    async fn nodes(&self, ids: &[BlobId]) -> repo::Result<Vec<Bytes>> {
        let places = self.places.lock().unwrap();
        let read = |id: &BlobId| {
            let (at, len) = *places
                .of
                .get(id)
                .ok_or_else(|| RepoError::corrupt("nodes", "no such node"))?;
            let mut bytes = vec![0; len];
            self.file.read_exact_at(&mut bytes, at).unwrap();
            Ok(bytes.into())
        };
        ids.iter().map(read).collect()
    }
}

/// Peak resident bytes of this process so far.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn make_disk(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("disk.raw");
    let file = File::create(&path).unwrap();
    file.set_len(DISK_BYTES).unwrap();
    // In small pieces: what this took would hide as much of what is measured.
    let mut bytes = vec![0; 4096];
    let mut noise = blake3::Hasher::new().finalize_xof();
    // A dense part, in which leaves are finished out of order, and data scattered over all of the disk.
    let dense = (3 << 30..(3 << 30) + DENSE_BYTES).step_by(bytes.len());
    for at in dense.chain((0..DISK_BYTES - 4096).step_by(STEP_BYTES as usize)) {
        noise.fill(&mut bytes);
        file.write_all_at(&bytes, at).unwrap();
    }
    path
}

#[test]
fn a_tebibyte_of_scattered_data_is_read_in_bounded_memory() {
    // Not in /tmp: a tmpfs counts as memory.
    let dir = tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
    let path = make_disk(dir.path());
    let disk = RawDisk::open_read(&path).unwrap();
    let sink = Arc::new(Nodes {
        file: tempfile::tempfile_in(dir.path()).unwrap(),
        places: Mutex::default(),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    let read = |base| {
        let (options, progress) = (
            Options {
                threads: 4,
                ..Options::default()
            },
            Progress::default(),
        );
        ingest(
            &disk,
            &*sink,
            Chunker::default(),
            base,
            runtime.handle(),
            &options,
            &progress,
        )
        .unwrap()
    };
    let before = peak_bytes();
    let first = read(None);
    let nodes: Arc<dyn NodeSource> = sink.clone();
    let again = read(Some((nodes, first.manifest)));
    let grown = peak_bytes() - before;

    assert_eq!(again.manifest, first.manifest);
    assert!(first.moved.chunks > 20_000, "{:?}", first.moved);
    // Of a leaf with 4 KiB of data, no more than its neighbourhood is read.
    assert!(
        first.moved.read_bytes < DENSE_BYTES + 20_500 * 20_480,
        "{:?}",
        first.moved
    );
    println!("peak grew by {} KiB", grown >> 10);
    assert!(grown < PEAK_BYTES_MAX, "peak grew by {grown} bytes");
}
