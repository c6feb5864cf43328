//! How long it takes to compare two 1 TiB manifests that differ in 1,000 places, and how much of them is read.
//!
//! `cargo bench -p windlass-repo --bench diff`. The repository is made in a temporary directory; the comparison runs in
//! a process of its own, so that its peak memory is its own. Timings fail nothing; reading 1 % of the nodes or more does.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use windlass_repo::manifest::{self, Builder, LEAF_SPAN_BYTES};
use windlass_repo::{BlobId, ChunkRef, DiskEntry, ManifestRef, Repo, RepoParams, SessionLimits, SnapshotDraft};
use wire::snapshot::{Moved, SnapshotKind};

const DISK_BYTES: u64 = 1 << 40;
const LEAVES: u64 = DISK_BYTES / LEAF_SPAN_BYTES;
/// All nodes of one manifest: leaves and three levels above.
const NODES: u64 = LEAVES + (LEAVES >> 6) + (LEAVES >> 12) + (LEAVES >> 18);
const CHUNKS: u64 = 64;
const PLACES: u64 = 1_000;
const RUNS: usize = 7;

type Failure = Box<dyn Error + Send + Sync>;

/// SplitMix64 (Steele, Lea, Flood 2014).
fn random(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn id(seed: u64) -> BlobId {
    let mut bytes = [0u8; 32];
    for (i, part) in bytes.chunks_exact_mut(8).enumerate() {
        part.copy_from_slice(&random(seed ^ (i as u64) << 60).to_le_bytes());
    }
    BlobId::from_bytes(bytes)
}

/// A leaf cut as by content: 64 chunks of uneven lengths. `changed` gives one of them another content.
fn leaf(index: u64, changed: bool, chunks: &mut Vec<ChunkRef>) {
    chunks.clear();
    let base = index * LEAF_SPAN_BYTES;
    let step = LEAF_SPAN_BYTES / CHUNKS;
    let cut = |i: u64| match i {
        0 => base,
        CHUNKS => base + LEAF_SPAN_BYTES,
        i => base + i * step + random(index * CHUNKS + i) % (step / 2),
    };
    for i in 0..CHUNKS {
        let (offset, end) = (cut(i), cut(i + 1));
        let seed = index * CHUNKS + i + if changed && i == 31 { 1 << 50 } else { 0 };
        chunks.push(ChunkRef {
            offset,
            len: (end - offset) as u32,
            id: id(seed),
        });
    }
}

fn places() -> BTreeSet<u64> {
    let mut places = BTreeSet::new();
    let mut seed = 1 << 40;
    while (places.len() as u64) < PLACES {
        places.insert(random(seed) % LEAVES);
        seed += 1;
    }
    places
}

async fn build(repo: &Repo, changed: BTreeSet<u64>) -> Result<ManifestRef, Failure> {
    let session = repo.begin(SessionLimits::default()).await?;
    let sink = session.clone();
    let manifest = tokio::task::spawn_blocking(move || {
        let mut builder = Builder::new(&*sink, DISK_BYTES);
        let mut chunks = Vec::new();
        for index in 0..LEAVES {
            leaf(index, changed.contains(&index), &mut chunks);
            builder.leaf(index, &chunks)?;
        }
        builder.finish()
    })
    .await??;
    let disk = DiskEntry {
        name: "root".into(),
        path: "/synthetic".into(),
        format: "raw".into(),
        manifest,
        moved: Moved::default(),
    };
    let draft = SnapshotDraft {
        id: None,
        vm: "bench".into(),
        kind: SnapshotKind::User,
        host: "bench".into(),
        created_at: "2026-11-24T00:00:00Z".into(),
        held_until: None,
        disks: vec![disk],
        definition: None,
        took_s: 0.0,
    };
    session.finish(draft).await?;
    Ok(manifest)
}

fn peak_rss_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix("VmHWM:"))
        .unwrap_or_default();
    line.trim().trim_end_matches("kB").trim().parse::<f64>().unwrap_or(0.0) / 1024.0
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures at the edge")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::print_stdout, reason = "a benchmark's report")]
async fn compare(url: &str) -> Result<(), Failure> {
    let start = now();
    let repo = Repo::open(object::open(url)?).await?;
    let docs = repo.snapshots().await?.docs;
    let opened = start.elapsed();
    let [a, b] = docs.as_slice() else {
        return Err("two snapshots were expected".into());
    };
    let (a, b) = (a.disks[0].manifest, b.disks[0].manifest);
    let source: Arc<Repo> = Arc::new(repo);
    let mut times = Vec::new();
    let (mut pairs, mut read) = (0, 0);
    for _ in 0..RUNS {
        let start = now();
        let mut diff = manifest::diff(source.clone(), a, source.clone(), b);
        pairs = 0;
        while let Some(pair) = diff.next().await {
            pair?;
            pairs += 1;
        }
        times.push(start.elapsed().as_secs_f64() * 1e3);
        read = diff.nodes_read();
    }
    let first = times[0];
    times.sort_by(f64::total_cmp);
    let share = 100.0 * read as f64 / (2 * NODES) as f64;
    println!("diff of two 1 TiB manifests, {pairs} leaves differ, file:// repository, page cache warm");
    println!("  open repository    {:8.1} ms", opened.as_secs_f64() * 1e3);
    println!("  first diff         {first:8.1} ms");
    println!(
        "  median of {RUNS}        {:8.1} ms   (lowest {:.1}, highest {:.1})",
        times[RUNS / 2],
        times[0],
        times[RUNS - 1]
    );
    println!("  nodes read         {read:8}      of {} ({share:.2} %)", 2 * NODES);
    println!("  peak RSS           {:8.1} MiB", peak_rss_mib());
    if pairs != PLACES || share >= 1.0 {
        return Err(format!("{pairs} leaves differ, {share:.2} % of the nodes were read").into());
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a benchmark's report")]
fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut arguments = std::env::args().skip_while(|a| a != "--compare");
    if let Some(url) = arguments.nth(1) {
        return runtime.block_on(compare(&url));
    }
    let dir = tempfile::tempdir()?;
    let url = format!("file://{}/repo", dir.path().display());
    runtime.block_on(async {
        let params = RepoParams::generate(wire::repo::Chunker::default(), "2026-11-24T00:00:00Z")?;
        let repo = Repo::init(object::create(&url)?, params).await?;
        for changed in [BTreeSet::new(), places()] {
            let start = now();
            build(&repo, changed).await?;
            println!(
                "manifest of {LEAVES} leaves made in {:.1} s",
                start.elapsed().as_secs_f64()
            );
        }
        Ok::<(), Failure>(())
    })?;
    println!("  peak RSS of making {:8.1} MiB", peak_rss_mib());
    let status = std::process::Command::new(std::env::current_exe()?)
        .args(["--compare", &url])
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err("the comparison failed".into())
    }
}
