//! What a chunk costs on its way into a repository: new ones beside zstd alone, known ones beside BLAKE3 alone.
//!
//! `cargo bench -p windlass-repo --bench put`. One GiB of 64 KiB chunks that compress to about half, all cores, into
//! memory. Timings fail nothing.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use windlass_repo::{BlobId, BlobKind, BlobSink, ManifestRef, Repo, RepoParams, Session, SessionLimits, SnapshotDraft};
use wire::snapshot::SnapshotKind;

const CHUNK_BYTES: usize = 64 << 10;
const CHUNKS: usize = 16 << 10;

type Failure = Box<dyn Error + Send + Sync>;

/// Random words of a small alphabet: about two to one under zstd.
fn chunk(number: usize, out: &mut Vec<u8>) {
    out.clear();
    let mut state = number as u64;
    while out.len() < CHUNK_BYTES {
        state = state
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        let word = (state >> 33) as u32;
        out.extend_from_slice(&(word & 0x0f0f_ff0f).to_le_bytes());
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures at the edge")]
fn now() -> Instant {
    Instant::now()
}

/// Runs `work` for every chunk on all cores; GB/s.
fn on_all_cores(chunks: &[Vec<u8>], threads: usize, work: impl Fn(usize, &[u8]) + Sync) -> f64 {
    let next = AtomicUsize::new(0);
    let start = now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(raw) = chunks.get(at) else { break };
                    work(at, raw);
                }
            });
        }
    });
    (chunks.len() * CHUNK_BYTES) as f64 / 1e9 / start.elapsed().as_secs_f64()
}

async fn session(repo: &Repo) -> Result<Arc<Session>, Failure> {
    Ok(repo.begin(SessionLimits::default()).await?)
}

async fn finish(session: Arc<Session>) -> Result<(), Failure> {
    let draft = SnapshotDraft {
        id: None,
        vm: "bench".into(),
        kind: SnapshotKind::User,
        host: "bench".into(),
        created_at: "2026-11-24T00:00:00Z".into(),
        held_until: None,
        disks: vec![],
        definition: None,
        took_s: ManifestRef {
            size_bytes: 0,
            root: None,
        }
        .size_bytes as f64,
    };
    session.finish(draft).await?;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a benchmark's report")]
fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let threads = std::thread::available_parallelism()?.get();
    let chunks: Vec<Vec<u8>> = (0..CHUNKS)
        .map(|n| {
            let mut raw = Vec::with_capacity(CHUNK_BYTES);
            chunk(n, &mut raw);
            raw
        })
        .collect();
    let params = RepoParams::generate(wire::repo::Chunker::default(), "2026-11-24T00:00:00Z")?;
    let repo = runtime.block_on(Repo::init(store::Memory::new(), params))?;
    let ids: Vec<BlobId> = chunks.iter().map(|raw| repo.id_of(raw)).collect();
    println!("{threads} threads, {CHUNKS} chunks of {CHUNK_BYTES} bytes; GB/s of raw bytes");
    let failed = AtomicUsize::new(0);
    let put = |session: &Session, at: usize, id: &BlobId| {
        if session.put(BlobKind::Data, id, &chunks[at]).is_err() {
            failed.fetch_add(1, Ordering::Relaxed);
        }
    };
    for round in 0..3 {
        let hash = on_all_cores(&chunks, threads, |_, raw| {
            std::hint::black_box(repo.id_of(raw));
        });
        let zstd = on_all_cores(&chunks, threads, |_, raw| {
            std::hint::black_box(zstd::bulk::compress(raw, 1).map_or(0, |c| c.len()));
        });
        if round == 0 {
            let new = runtime.block_on(session(&repo))?;
            on_all_cores(&chunks, threads, |at, _| put(&new, at, &ids[at]));
            runtime.block_on(finish(new))?;
        }
        {
            // a store that forgets packs at once: what is measured is the way to it
            let forget = store::Faults {
                lost_permille: 1000,
                only: "packs/".into(),
                ..store::Faults::default()
            };
            let store = store::Flaky::new(store::Memory::new(), forget);
            let params = RepoParams::generate(wire::repo::Chunker::default(), "2026-11-24T00:00:00Z")?;
            let repo = runtime.block_on(Repo::init(store, params))?;
            let ids: Vec<BlobId> = chunks.iter().map(|raw| repo.id_of(raw)).collect();
            let new = runtime.block_on(session(&repo))?;
            let rate = on_all_cores(&chunks, threads, |at, _| put(&new, at, &ids[at]));
            runtime.block_on(new.abandon());
            println!("  new chunks, put alone      {rate:6.2}   (zstd level 1 alone {zstd:.2})");
        }
        let known = runtime.block_on(session(&repo))?;
        let looked_up = on_all_cores(&chunks, threads, |at, _| put(&known, at, &ids[at]));
        let hashed = on_all_cores(&chunks, threads, |at, raw| put(&known, at, &known.id_of(raw)));
        runtime.block_on(finish(known))?;
        println!("  known chunks, put alone {looked_up:9.2}; with id_of {hashed:6.2}   (BLAKE3 alone {hash:.2})");
    }
    if failed.into_inner() > 0 {
        Err("some chunks were refused".into())
    } else {
        Ok(())
    }
}
