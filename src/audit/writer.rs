//! The ring of entries in the host's own state, and the task that writes it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use state::{Key, LIST_ENTRIES_MAX, Prefix, State};
use tokio::sync::mpsc;
use wire::audit::{AuditAction, AuditEntry};
use wire::{Code, ErrorBody};

use super::{Audit, Inner, Note, Word};

/// Where the entries are, a batch a key.
const ROOT: &str = "audit";
/// Entries that are kept; the oldest go first.
pub(super) const ENTRIES_MAX: usize = 10_000;
/// Entries of one batch, which are written by one durable write.
const BATCH_ENTRIES_MAX: usize = 128;
/// What comes within this time is one batch.
const GATHER: Duration = Duration::from_millis(300);

/// The entries that are kept.
#[derive(Debug)]
pub(super) struct Ring {
    state: Arc<dyn State>,
    // oldest first, with how many entries each has
    batches: VecDeque<(Key, usize)>,
}

impl Ring {
    pub(super) async fn open(state: Arc<dyn State>) -> Result<Self, ErrorBody> {
        let below = Prefix::below(&Key::new(ROOT)?);
        let mut batches = VecDeque::new();
        loop {
            let after = batches.back().map(|(key, _): &(Key, usize)| key);
            let page = state.list(&below, after, LIST_ENTRIES_MAX).await?;
            let is_last = page.len() < LIST_ENTRIES_MAX;
            batches.extend(page.into_iter().map(|entry| (entry.key, read(&entry.value).len())));
            if is_last {
                return Ok(Self { state, batches });
            }
        }
    }

    /// First written, then the oldest are forgotten: killed in between, there are a few more.
    async fn put(&mut self, entries: &[AuditEntry]) -> Result<(), ErrorBody> {
        let Some(first) = entries.first() else { return Ok(()) };
        let key = Key::new(format!("{ROOT}/{}", first.id))?;
        let value = serde_json::to_vec(entries)
            .map_err(|e| ErrorBody::new(Code::Internal, format!("the audit can't be encoded: {e}")))?;
        self.state.put(&key, Bytes::from(value)).await?;
        self.batches.push_back((key, entries.len()));
        let mut kept: usize = self.batches.iter().map(|(_, entries)| entries).sum();
        while kept > ENTRIES_MAX
            && let Some((key, entries)) = self.batches.pop_front()
        {
            kept -= entries;
            self.state.delete(&key, None).await?;
        }
        Ok(())
    }

    /// The newest entries first.
    pub(super) async fn newest(
        &self,
        entries_max: usize,
        wanted: impl Fn(&AuditEntry) -> bool,
    ) -> Result<Vec<AuditEntry>, ErrorBody> {
        let mut found = Vec::new();
        for (key, _) in self.batches.iter().rev() {
            if found.len() >= entries_max {
                break;
            }
            if let Some(batch) = self.state.get(key).await? {
                found.extend(read(&batch.value).into_iter().rev().filter(&wanted));
            }
        }
        found.truncate(entries_max);
        Ok(found)
    }
}

/// A batch that can't be read is as good as none: what else there is must still be told.
fn read(value: &[u8]) -> Vec<AuditEntry> {
    serde_json::from_slice(value)
        .inspect_err(|error| tracing::warn!(%error, "a part of the audit can't be read"))
        .unwrap_or_default()
}

/// Writes what is noted, until nobody notes any more.
pub(super) async fn write(audit: Weak<Inner>, mut words: mpsc::Receiver<Word>) {
    while let Some(word) = words.recv().await {
        let (mut notes, mut waiting) = (BTreeMap::new(), Vec::new());
        take(word, &mut notes, &mut waiting);
        let gathered = async {
            while notes.len() < BATCH_ENTRIES_MAX && waiting.is_empty() {
                match words.recv().await {
                    Some(word) => take(word, &mut notes, &mut waiting),
                    None => return,
                }
            }
        };
        let _enough_or_time_is_up = tokio::time::timeout(GATHER, gathered).await;
        let Some(audit) = audit.upgrade().map(Audit) else {
            return;
        };
        keep(&audit, notes).await;
        for told in waiting {
            let _nobody_waits = told.send(());
        }
    }
}

type Notes = BTreeMap<Note, (Option<Code>, u64)>;

fn take(word: Word, notes: &mut Notes, waiting: &mut Vec<tokio::sync::oneshot::Sender<()>>) {
    match word {
        Word::Flush(told) => waiting.push(told),
        Word::Note(note, refused, times) => {
            let (_, seen) = notes.entry(*note).or_insert((refused, 0));
            *seen = seen.saturating_add(times);
        }
    }
}

async fn keep(audit: &Audit, notes: Notes) {
    let entries: Vec<AuditEntry> = notes
        .into_iter()
        .map(|(note, (refused, times))| audit.entry(note, refused, times))
        .collect();
    if let Err(error) = audit.0.ring.lock().await.put(&entries).await {
        let lost = entries.iter().map(|entry| entry.times).sum();
        audit.0.missed.fetch_add(lost, Ordering::Relaxed);
        tracing::error!(%error, entries = entries.len(), "the audit can't be written");
    }
    for entry in entries {
        audit.0.announcer.announce(AuditAction(entry)).await;
    }
}
