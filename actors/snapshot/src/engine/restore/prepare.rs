//! From two manifests to a plan, and what a plan would move.

use futures::StreamExt;
use repo::manifest::{self, LEAF_SPAN_BYTES};
use repo::{BlobId, ChunkRef, Repo};
use tokio::runtime::Handle;
use wire::snapshot::{ByteRange, DiskRestore};

use super::{Options, Side};
use crate::core::plan::{Chunk, Key, Needs, Plan, PlanError, Step, differences};
use crate::engine::progress::Progress;
use crate::{Kind, Result, SnapshotError};

/// Ranges that a report lists.
const RANGES_LISTED_MAX: usize = 1000;

impl Key for BlobId {
    fn prefix(&self) -> u64 {
        let (first, _) = self.as_bytes().split_first_chunk().expect("an id has 32 bytes");
        u64::from_be_bytes(*first)
    }
}

fn chunk(at: &ChunkRef) -> Chunk<BlobId> {
    Chunk {
        offset: at.offset,
        len: at.len,
        id: at.id,
    }
}

/// A plan, and what differs.
pub(super) struct Prepared {
    pub(super) plan: Plan<BlobId>,
    size_bytes: u64,
    ranges: u64,
    first_ranges: Vec<ByteRange>,
    differing_bytes: u64,
}

impl Prepared {
    /// What differs; nothing of what is moved.
    pub(super) fn report(&self) -> DiskRestore {
        DiskRestore {
            size_bytes: self.size_bytes,
            ranges: self.ranges,
            first_ranges: self.first_ranges.clone(),
            differing_bytes: self.differing_bytes,
            ..DiskRestore::default()
        }
    }
}

fn damaged(error: PlanError) -> SnapshotError {
    let kind = if error == PlanError::TooMany {
        Kind::Invalid
    } else {
        Kind::Corrupt
    };
    SnapshotError::new(
        kind,
        format!("no plan from one state of the disk to the other: {error}"),
    )
    .hint("write the snapshot as a new file: --output NEW; windlass snapshot verify looks for damage")
}

/// Compares and plans. Reads nodes that differ, then, when a chunk is needed, all leaves of `from`.
pub(super) fn prepare(
    handle: &Handle,
    from: &Side,
    to: &Side,
    options: &Options,
    progress: &Progress,
) -> Result<Prepared> {
    let size_bytes = to.manifest.size_bytes;
    if from.manifest.size_bytes != size_bytes {
        let why = format!(
            "the disk has {} bytes, the snapshot's disk {size_bytes}",
            from.manifest.size_bytes
        );
        return Err(SnapshotError::new(Kind::Invalid, why));
    }
    let needs = handle.block_on(needs(from, to, progress))?;
    let mut prepared = Prepared {
        plan: Needs::default().seal().plan(0),
        size_bytes,
        ranges: 0,
        first_ranges: Vec::new(),
        differing_bytes: 0,
    };
    for range in needs.ranges() {
        let length_bytes = range.end - range.start;
        prepared.ranges += 1;
        prepared.differing_bytes += length_bytes;
        if prepared.first_ranges.len() < RANGES_LISTED_MAX {
            prepared.first_ranges.push(ByteRange {
                offset_bytes: range.start,
                length_bytes,
            });
        }
    }
    let any_place = !needs.has_no_places();
    let mut wanted = needs.seal();
    if any_place {
        handle.block_on(async {
            let mut leaves = manifest::leaves(from.nodes.clone(), from.manifest, 0..size_bytes);
            while let Some(leaf) = leaves.next().await {
                progress.check()?;
                for at in &leaf?.chunks {
                    wanted.offer(chunk(at)).map_err(damaged)?;
                }
            }
            Ok::<(), SnapshotError>(())
        })?;
    }
    prepared.plan = wanted.plan(options.staging_bytes_max);
    Ok(prepared)
}

async fn needs(from: &Side, to: &Side, progress: &Progress) -> Result<Needs<BlobId>> {
    let mut needs = Needs::default();
    let mut pairs = manifest::diff(from.nodes.clone(), from.manifest, to.nodes.clone(), to.manifest);
    while let Some(pair) = pairs.next().await {
        progress.check()?;
        let pair = pair?;
        let a: Vec<_> = pair.a.iter().map(chunk).collect();
        let b: Vec<_> = pair.b.iter().map(chunk).collect();
        let start = pair.index.saturating_mul(LEAF_SPAN_BYTES);
        let span = start..start.saturating_add(LEAF_SPAN_BYTES).min(to.manifest.size_bytes);
        differences(&a, &b, span, &mut needs).map_err(damaged)?;
    }
    Ok(needs)
}

/// A hash of a plan's copying part: what a checkpoint counts in.
pub(super) fn digest(plan: &Plan<BlobId>) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut bytes = Vec::with_capacity(64 << 10);
    for step in &plan.steps {
        let (kind, id, to) = match *step {
            Step::Copy { place } => (0u8, plan.place(place).id, plan.place(place).offset),
            Step::Stage { id } => (1, id, 0),
            Step::WriteStaged { place, .. } => (2, plan.place(place).id, plan.place(place).offset),
        };
        bytes.push(kind);
        bytes.extend_from_slice(&plan.sources[id as usize].to_le_bytes());
        bytes.extend_from_slice(&to.to_le_bytes());
        bytes.extend_from_slice(plan.id(id).as_bytes());
        if bytes.len() > 60 << 10 {
            hasher.update(&bytes);
            bytes.clear();
        }
    }
    hasher.update(&bytes);
    hasher.finalize().to_hex()[..16].to_owned()
}

/// Rates that an estimate is made with, in bytes a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Reading, hashing and writing within the disk.
    pub copy: f64,
    /// Fetching, of bytes as stored.
    pub fetch: f64,
    /// Writing what was fetched, of raw bytes.
    pub write: f64,
    /// Reading back and hashing.
    pub verify: f64,
}

impl Default for Rates {
    /// Assumed, not measured: a SATA SSD and a store at 1 Gbit/s.
    fn default() -> Self {
        Self {
            copy: 250e6,
            fetch: 110e6,
            write: 400e6,
            verify: 500e6,
        }
    }
}

/// What a restore would do.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// What it would move; name and path are left to the caller.
    pub disk: DiskRestore,
    /// Seconds that it would take at the rates given.
    pub took_s: f64,
}

/// Plans a restore without touching the disk. `from` is its present state (its nodes may be in memory alone:
/// [`repo::DrySink`]), `to` the wanted one. Blocks.
///
/// # Errors
/// As [`super::Restore::run`]'s before it writes; `Corrupt` when a chunk of `to` is not in the repository.
pub fn plan_only(
    repo: &Repo,
    handle: &Handle,
    from: &Side,
    to: &Side,
    options: &Options,
    rates: Rates,
    progress: &Progress,
) -> Result<Estimate> {
    let prepared = prepare(handle, from, to, options, progress)?;
    let totals = prepared.plan.totals();
    let mut disk = DiskRestore {
        copied_bytes: totals.copied_bytes,
        staged_bytes: totals.staged_bytes,
        fetched_raw_bytes: totals.fetched_raw_bytes,
        hole_bytes: totals.hole_bytes,
        written_bytes: totals.copied_bytes + totals.fetched_places_bytes,
        verified_bytes: totals.copied_bytes + totals.fetched_places_bytes + totals.hole_bytes,
        ..prepared.report()
    };
    for window in prepared.plan.fetches.chunks(options.window_chunks_max.max(1)) {
        progress.check()?;
        let ids: Vec<BlobId> = window.iter().map(|fetch| prepared.plan.id(fetch.id)).collect();
        let fetch = repo.plan_fetch(&ids, &options.fetch)?;
        disk.fetched_bytes += fetch.fetched_bytes();
        disk.fetch_requests += fetch.requests();
    }
    let copy = totals.copied_bytes as f64 / rates.copy;
    let fetch = (disk.fetched_bytes as f64 / rates.fetch).max(totals.fetched_places_bytes as f64 / rates.write);
    let verify = (totals.copied_bytes + totals.fetched_places_bytes) as f64 / rates.verify;
    for (phase, seconds) in [("copy", copy), ("fetch", fetch), ("verify", verify)] {
        disk.phases_s.insert(phase.to_owned(), seconds);
    }
    Ok(Estimate {
        disk,
        took_s: copy + fetch + verify,
    })
}
