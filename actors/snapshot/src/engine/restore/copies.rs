//! The copying part: batches of steps. All sources of a batch are read and checked, then its places are written. Since
//! no step reads what an earlier one wrote, reading a whole batch first keeps the plan's order.

use std::collections::HashMap;
use std::mem::take;

use bytes::Bytes;
use repo::BlobId;

use super::{Run, parallel};
use crate::Result;
use crate::core::plan::Step;
use crate::engine::journal::{Journal, Phase};

/// What is known of one step of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// Nothing yet.
    Nothing,
    /// The place holds the chunk already.
    Right,
    /// The buffer holds the chunk.
    Good,
    /// The source isn't what it should be.
    Bad,
}

/// One step of a batch and its room.
struct Move<'b> {
    step: Step,
    id: u32,
    buffer: &'b mut [u8],
    found: Found,
}

impl Run<'_> {
    /// Does all steps from `done` on.
    pub(super) fn copy(&mut self, journal: &mut Journal, digest: &str, done: u64) -> Result<()> {
        let started = (self.with.clock)();
        let steps = &self.plan.steps;
        let mut at = usize::try_from(done).unwrap_or(usize::MAX).min(steps.len());
        let lens: u64 = steps[at..].iter().map(|step| self.step_len(*step)).sum();
        self.with.progress.begin("copy", lens);
        let mut arena = Vec::new();
        let mut staged: HashMap<u32, Bytes> = HashMap::new();
        let mut unsaved = 0;
        while at < steps.len() {
            self.with.progress.check()?;
            let (count, bytes) = self.batch_len(&steps[at..]);
            self.batch(&steps[at..at + count], &mut arena, &mut staged)?;
            at += count;
            unsaved += bytes;
            self.with.progress.add(bytes);
            if unsaved >= self.with.options.checkpoint_bytes && at < steps.len() {
                self.with.disk.sync()?;
                journal.note(Phase::Copy, at as u64, digest)?;
                unsaved = 0;
            }
        }
        self.spent("copy", started);
        Ok(())
    }

    fn chunk_of(&self, step: Step) -> u32 {
        match step {
            Step::Copy { place } | Step::WriteStaged { place, .. } => self.plan.place(place).id,
            Step::Stage { id } => id,
        }
    }

    /// Bytes of room that a step takes.
    fn step_len(&self, step: Step) -> u64 {
        u64::from(self.lens_of_chunk(self.chunk_of(step)))
    }

    fn lens_of_chunk(&self, id: u32) -> u32 {
        self.plan.lens[id as usize]
    }

    /// How many steps the next batch has, at least one, and their bytes.
    fn batch_len(&self, steps: &[Step]) -> (usize, u64) {
        let mut bytes = 0;
        for (count, step) in steps.iter().enumerate() {
            let len = self.step_len(*step);
            if count > 0 && bytes + len > self.with.options.batch_bytes_max {
                return (count, bytes);
            }
            bytes += len;
        }
        (steps.len(), bytes)
    }

    fn batch(&mut self, steps: &[Step], arena: &mut Vec<u8>, staged: &mut HashMap<u32, Bytes>) -> Result<()> {
        let total: u64 = steps.iter().map(|step| self.step_len(*step)).sum();
        if (arena.len() as u64) < total {
            arena.resize(total as usize, 0);
        }
        let mut rest: &mut [u8] = arena;
        let mut moves = Vec::with_capacity(steps.len());
        for step in steps {
            let (buffer, after) = take(&mut rest).split_at_mut(self.step_len(*step) as usize);
            rest = after;
            moves.push(Move {
                step: *step,
                id: self.chunk_of(*step),
                buffer,
                found: Found::Nothing,
            });
        }
        parallel::for_each(&mut moves, self.with.options.threads, |_: &mut (), one| self.look(one))?;
        for one in &moves {
            if let (Step::Stage { id }, Found::Good) = (one.step, one.found) {
                staged.insert(id, Bytes::copy_from_slice(one.buffer));
                self.report.staged_bytes += one.buffer.len() as u64;
            }
        }
        let fetched = self.fetch_lost(&moves, staged)?;
        parallel::for_each(&mut moves, self.with.options.threads, |_: &mut (), one| {
            self.put(one, staged, &fetched)
        })?;
        for one in &moves {
            let len = one.buffer.len() as u64;
            let place = match one.step {
                Step::Stage { .. } => continue,
                Step::Copy { place } => place,
                Step::WriteStaged { place, last } => {
                    if last {
                        staged.remove(&one.id);
                    }
                    place
                }
            };
            if one.found == Found::Right {
                continue;
            }
            self.report.written_bytes += len;
            // A fetched chunk counts as fetched, wherever it goes.
            if !fetched.contains_key(&self.plan.id(self.plan.place(place).id)) {
                self.report.copied_bytes += len;
            }
        }
        Ok(())
    }

    /// Looks whether the place is right already, else reads and checks the source.
    fn look(&self, one: &mut Move<'_>) -> Result<()> {
        let (disk, id) = (self.with.disk, self.plan.id(one.id));
        let holds = |buffer: &mut [u8], offset: u64| -> Result<bool> {
            disk.read_at(buffer, offset)?;
            Ok(self.with.repo.id_of(buffer) == id)
        };
        if let (true, Step::Copy { place } | Step::WriteStaged { place, .. }) = (self.careful, one.step)
            && holds(one.buffer, self.plan.place(place).offset)?
        {
            one.found = Found::Right;
            return Ok(());
        }
        if !matches!(one.step, Step::WriteStaged { .. }) {
            let from = self.plan.sources[one.id as usize];
            one.found = if holds(one.buffer, from)? {
                Found::Good
            } else {
                Found::Bad
            };
        }
        Ok(())
    }

    /// Fetches what should have been on the disk or in memory, and isn't.
    fn fetch_lost(&mut self, moves: &[Move<'_>], staged: &HashMap<u32, Bytes>) -> Result<HashMap<BlobId, Bytes>> {
        let is_lost = |one: &&Move<'_>| match one.step {
            Step::Copy { .. } => one.found == Found::Bad,
            Step::WriteStaged { .. } => one.found != Found::Right && !staged.contains_key(&one.id),
            Step::Stage { .. } => false, // fetched when it is to be written
        };
        let mut ids: Vec<BlobId> = moves.iter().filter(is_lost).map(|one| self.plan.id(one.id)).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        if !self.careful {
            tracing::warn!(chunks = ids.len(), disk = %self.with.disk.path().display(), "sources on the disk are not what its snapshot says; fetched instead");
        }
        let fetched = std::sync::Mutex::new(HashMap::new());
        self.fetch_ids(&ids, |id, data| {
            fetched
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .insert(id, Bytes::copy_from_slice(data));
            Ok(())
        })?;
        Ok(fetched.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn put(&self, one: &Move<'_>, staged: &HashMap<u32, Bytes>, fetched: &HashMap<BlobId, Bytes>) -> Result<()> {
        let (Step::Copy { place } | Step::WriteStaged { place, .. }) = one.step else {
            return Ok(());
        };
        let data: &[u8] = match one.found {
            Found::Right => return Ok(()),
            Found::Good => one.buffer,
            Found::Nothing | Found::Bad => match staged.get(&one.id).or_else(|| fetched.get(&self.plan.id(one.id))) {
                Some(data) => data,
                None => {
                    let why = format!("chunk {} was neither read nor fetched", self.plan.id(one.id));
                    return Err(crate::SnapshotError::new(crate::Kind::Internal, why));
                }
            },
        };
        self.with.disk.write_at(data, self.plan.place(place).offset)
    }
}
