//! Racks' records are written in groups: what waits for one record while a write of it is under way goes into the next write
//! together. Each change keeps an outcome of its own.
//!
//! ```text
//! change -> the rack's queue -> whoever has the turn takes all that waits -> one compare-and-set -> every outcome
//! ```
//!
//! Nothing rests on the queue: every change is checked on the very record that the write replaces, and a leader that is dropped
//! in the middle leaves its followers to ask again, which finds what was written.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Mutex as Turn, oneshot};

use super::commit::{encoded, lost};
use super::view::key;
use super::{Counts, Scheduler};
use crate::core::invariants;
use crate::core::ledger::{Applied, RACK_VERSION, RackChange, RackRecord};
use crate::{Kind, RackError, Result};

/// How often one record is read again before its writer gives up.
pub(super) const RECORD_ATTEMPTS_MAX: usize = 64;
/// Changes in one write.
const CHANGES_TOGETHER_MAX: usize = 256;

/// One change that waits.
#[derive(Debug)]
struct Waiting {
    change: Arc<RackChange>,
    outcome: oneshot::Sender<Result<Applied>>,
}

/// What waits for one rack's record.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Vec<Waiting>>,
    /// Bookings that were decided since: they become firm with whatever is written next.
    decided: Mutex<Vec<(String, String)>>,
    turn: Turn<()>,
}

impl Queue {
    fn push(&self, change: Arc<RackChange>) -> oneshot::Receiver<Result<Applied>> {
        let (outcome, answer) = oneshot::channel();
        let waiting = Waiting { change, outcome };
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(waiting);
        answer
    }
    fn take(&self) -> Vec<Waiting> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let some = waiting.len().min(CHANGES_TOGETHER_MAX);
        waiting.drain(..some).collect()
    }
    /// Notes that a tentative booking was decided.
    pub(super) fn note_decided(&self, placement: &str, change: &str) {
        let mut decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        if decided.len() < CHANGES_TOGETHER_MAX {
            decided.push((placement.to_owned(), change.to_owned()));
        }
    }
    fn take_decided(&self) -> Vec<(String, String)> {
        std::mem::take(&mut self.decided.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Scheduler {
    /// Changes a rack's record, together with whatever else waits for it.
    ///
    /// # Errors
    /// As [`RackChange::apply`]; `Busy` when others changed it again and again; when the state can't be read or written: then the
    /// change may have been made.
    pub(super) async fn change_rack(&self, rack: &str, change: RackChange) -> Result<Applied> {
        let (queue, change) = (self.queue(rack), Arc::new(change));
        loop {
            let mut answer = queue.push(change.clone());
            loop {
                let turn = tokio::select! {
                    biased;
                    outcome = &mut answer => match outcome {
                        Ok(outcome) => return outcome,
                        // whoever had the turn was dropped: what it wrote is found by asking again
                        Err(_) => break,
                    },
                    turn = queue.turn.lock() => turn,
                };
                let together = queue.take();
                if !together.is_empty() {
                    self.write_together(rack, &queue, together).await;
                }
                drop(turn);
            }
        }
    }

    async fn write_together(&self, rack: &str, queue: &Queue, together: Vec<Waiting>) {
        let changes: Vec<Arc<RackChange>> = together.iter().map(|w| w.change.clone()).collect();
        let decided = queue.take_decided();
        match self.written(rack, &changes, &decided).await {
            Ok(outcomes) => {
                for (waiting, outcome) in together.into_iter().zip(outcomes) {
                    // nobody listens any more: the change stands as if its asker had died after it
                    let _gone = waiting.outcome.send(outcome);
                }
            }
            Err(error) => {
                for waiting in together {
                    let _gone = waiting.outcome.send(Err(error.clone()));
                }
            }
        }
    }

    /// Makes changes by compare-and-set, as often as it takes.
    async fn written(
        &self,
        rack: &str,
        changes: &[Arc<RackChange>],
        decided: &[(String, String)],
    ) -> Result<Vec<Result<Applied>>> {
        let at = key("racks", rack)?;
        let mut known = self.view().rack(rack).cloned();
        for attempt in 0..RECORD_ATTEMPTS_MAX {
            let (revision, mut record) = match known.take() {
                Some(known) => known,
                None => self.read_rack(rack).await?,
            };
            let before = cfg!(debug_assertions).then(|| record.clone());
            let tidied = self.settle_overdue(&mut record).await?;
            for (placement, change) in decided {
                record.settle(placement, change);
            }
            let outcomes: Vec<Result<Applied>> = changes.iter().map(|c| c.apply(rack, &mut record)).collect();
            // what an old record refuses, or has nothing of, may be otherwise in the present one
            let as_hoped = |outcome: &Result<Applied>| outcome.as_ref().is_ok_and(|a| a.changed);
            if attempt == 0 && !outcomes.iter().all(as_hoped) {
                known = Some(self.read_rack(rack).await?);
                continue;
            }
            if !outcomes.iter().any(as_hoped) && !tidied {
                return Ok(outcomes);
            }
            record.version = RACK_VERSION;
            debug_assert!(!changes.is_empty());
            debug_assert_eq!(invariants::broken(rack, before.as_ref(), &record), Vec::<String>::new());
            match self.state.update(&at, encoded(&record)?, revision).await {
                Ok(revision) => {
                    Counts::up(&self.counts.rack_writes);
                    self.view().apply(rack, revision, record);
                    return Ok(outcomes);
                }
                Err(error) if lost(&error) => Counts::up(&self.counts.conflicts),
                Err(error) => return Err(error.into()),
            }
        }
        Err(RackError::new(
            Kind::Busy,
            format!("rack {rack} was changed by others again and again; nothing was changed"),
        ))
    }

    /// Settles what is overdue in a rack's record: firm if its placement says so, else dropped, after a late decision was made
    /// impossible. True when the record changed.
    async fn settle_overdue(&self, record: &mut RackRecord) -> Result<bool> {
        let mut changed = false;
        for (placement, change) in record.overdue(self.clock.now_ms()) {
            changed |= match self.is_committed(&placement, &change).await? {
                true => record.settle(&placement, &change),
                false => record.drop_change(&placement, &change),
            };
            Counts::up(&self.counts.settled_for_others);
        }
        Ok(changed)
    }
}
