//! Puts a disk into another state by writing only what differs.
//!
//! ```text
//! common and target manifest -> diff -> plan (core::plan)
//!   -> copies, in batches: read all sources of a batch, check each by its id, then write
//!   -> fetches: coalesced ranges, many requests in flight, written as they come
//!   -> holes -> sync -> read back past the page cache, each chunk checked by its id -> Done
//! ```
//!
//! The journal ([`super::journal`]) is durable before the first write. Everything is checked by content: a source that
//! isn't what the plan says is fetched instead. So what kill -9 or power loss leaves (any mixture of old, new and torn
//! places) is brought to an end by the same plan, run *carefully*: a place that is right already is left alone. The same
//! holds for the opposite plan, which undoes. Steps before the journal's checkpoint are durable and are not tried again;
//! the reading back at the end covers them all the same.
//!
//! Memory: the plan (about 70 bytes for each differing chunk, 100 while planning; see [`crate::core::plan`]), one batch
//! (64 MiB), staged chunks (64 MiB), and what the repository holds of fetched ranges (96 MiB): with default options about
//! 230 MiB and 100 MB more for each 60 GiB that differ.
//!
//! What is absent: nothing here takes a snapshot, asks who uses the disk, or removes the journal: the caller does, in
//! that order, and records the result before it removes the journal.

use std::sync::Arc;

use repo::{BlobId, FetchLimits, ManifestRef, NodeSource, Repo};
use tokio::runtime::Handle;
use wire::snapshot::DiskRestore;

use crate::core::plan::Plan;
use crate::engine::journal::{Journal, Phase};
use crate::engine::progress::Progress;
use crate::port::DiskWrite;
use crate::{Kind, Result, SnapshotError};

mod copies;
mod fetches;
mod parallel;
mod prepare;
mod verify;

pub use prepare::{Estimate, Rates, plan_only};

pub(crate) use fetches::fetch_into;

/// How a restore goes about it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Threads that read, hash and write; at least 1.
    pub threads: usize,
    /// Bytes of copies that are read before they are written.
    pub batch_bytes_max: u64,
    /// Bytes of chunks held in memory because copies run in a circle; beyond it they are fetched.
    pub staging_bytes_max: u64,
    /// Bytes copied between two durable notes of how far it is.
    pub checkpoint_bytes: u64,
    /// Chunks whose fetching is planned at once.
    pub window_chunks_max: usize,
    /// How the repository fetches.
    pub fetch: FetchLimits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            batch_bytes_max: 64 << 20,
            staging_bytes_max: 64 << 20,
            checkpoint_bytes: 1 << 30,
            window_chunks_max: 1 << 16,
            fetch: FetchLimits {
                in_flight_max: 24,
                ..FetchLimits::default()
            },
        }
    }
}

/// A state of the disk, and where its manifest's nodes are.
#[derive(Clone)]
pub struct Side {
    /// Gives nodes.
    pub nodes: Arc<dyn NodeSource>,
    /// The state.
    pub manifest: ManifestRef,
}

/// What a restore works with. Blocks: use it on a blocking thread.
#[derive(Clone, Copy)]
pub struct Restore<'a> {
    /// The disk, under its lock.
    pub disk: &'a dyn DiskWrite,
    /// Where both snapshots are.
    pub repo: &'a Repo,
    /// Where the repository's requests run.
    pub handle: &'a Handle,
    /// How to go about it.
    pub options: &'a Options,
    /// Told how far it is; asked whether to stop.
    pub progress: &'a Progress,
    /// Seconds since any fixed moment, never going back.
    pub clock: &'a (dyn Fn() -> f64 + Sync),
}

/// A restore under way.
struct Run<'a> {
    with: Restore<'a>,
    plan: &'a Plan<BlobId>,
    /// The disk may hold any mixture: look before writing.
    careful: bool,
    report: DiskRestore,
}

impl<'a> Restore<'a> {
    /// Does what `journal` says, or goes on with it: the disk then equals the state that it goes to, durably and checked.
    /// The journal is left in [`Phase::Done`]; the caller records the report, then removes it. On an error or a kill
    /// the journal stays, and the same call goes on. A journal that was not made just now, by [`super::journal::Journals::create`],
    /// makes the run careful.
    ///
    /// The disk's present state is the journal's common snapshot, or what an unfinished restore left of it. The report
    /// counts what this call did.
    ///
    /// # Errors
    /// `Invalid` before anything is written when sizes differ; `Cancelled`; `Full`; `Corrupt` when the repository or
    /// what was read back is damaged; the disk's and store's. All of them leave the restore unfinished, and say how to
    /// go on.
    pub fn run(&self, journal: &mut Journal) -> Result<DiskRestore> {
        self.run_inner(journal).map_err(|error| unfinished(error, journal))
    }

    fn run_inner(&self, journal: &mut Journal) -> Result<DiskRestore> {
        let record = journal.record().clone();
        let careful = !journal.take_fresh();
        let (to, from) = record.to_and_from();
        let nodes: Arc<dyn NodeSource> = Arc::new(self.repo.clone());
        let side = |manifest| Side {
            nodes: nodes.clone(),
            manifest,
        };
        if to.manifest.size_bytes != self.disk.size_bytes() {
            return Err(SnapshotError::new(
                Kind::Invalid,
                format!(
                    "disk {} has {} bytes, the snapshot's {}",
                    self.disk.path().display(),
                    self.disk.size_bytes(),
                    to.manifest.size_bytes
                ),
            ));
        }
        let started = (self.clock)();
        self.progress.begin("plan", 0);
        let prepared = prepare::prepare(
            self.handle,
            &side(from.manifest),
            &side(to.manifest),
            self.options,
            self.progress,
        )?;
        let report = DiskRestore {
            name: record.intent.disk.clone(),
            path: self.disk.path().display().to_string(),
            ..prepared.report()
        };
        let mut run = Run {
            with: *self,
            plan: &prepared.plan,
            careful,
            report,
        };
        run.spent("plan", started);
        run.all(journal)?;
        Ok(run.report)
    }
}

impl Run<'_> {
    fn all(&mut self, journal: &mut Journal) -> Result<()> {
        let digest = prepare::digest(self.plan);
        if self.plan.is_empty() {
            return journal.note(Phase::Done, 0, &digest);
        }
        let known = journal.record().plan == digest;
        let copied = known && journal.record().phase != Phase::Copy;
        if !copied && !self.plan.steps.is_empty() {
            let done = if known { journal.record().checkpoint } else { 0 };
            self.copy(journal, &digest, done)?;
            self.sync()?;
        }
        journal.note(Phase::Fetch, self.plan.steps.len() as u64, &digest)?;
        self.fetch_all()?;
        self.punch_all()?;
        self.sync()?;
        journal.note(Phase::Verify, self.plan.steps.len() as u64, &digest)?;
        self.verify()?;
        journal.note(Phase::Done, self.plan.steps.len() as u64, &digest)
    }

    fn punch_all(&mut self) -> Result<()> {
        let started = (self.with.clock)();
        for range in &self.plan.punches {
            self.with.progress.check()?;
            self.with.disk.punch(range.clone())?;
            self.report.hole_bytes += range.end - range.start;
        }
        self.spent("fetch", started);
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        let started = (self.with.clock)();
        self.with.progress.begin("sync", 0);
        self.with.disk.sync()?;
        self.spent("sync", started);
        Ok(())
    }

    /// Adds the seconds since `started` to a phase.
    fn spent(&mut self, phase: &str, started: f64) {
        let seconds = (self.with.clock)() - started;
        *self.report.phases_s.entry(phase.to_owned()).or_default() += seconds;
    }
}

/// Says that the restore is unfinished, and how to go on.
fn unfinished(error: SnapshotError, journal: &Journal) -> SnapshotError {
    let intent = &journal.record().intent;
    let message = format!(
        "{}; the restore of disk {} of {} is unfinished: the disk may be a mixture of two states, and its journal is kept",
        error.message, intent.disk, intent.vm
    );
    let way_on = journal.record().way_on();
    let hint = error
        .hint
        .map_or(way_on.clone(), |hint| format!("{hint}; then {way_on}"));
    SnapshotError {
        kind: error.kind,
        message,
        hint: Some(hint),
    }
}

#[cfg(test)]
pub(crate) mod tests;
