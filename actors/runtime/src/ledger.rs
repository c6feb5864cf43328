//! What is known of a concern outside its thread: its state, its counts, its mailbox's free slots.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use wire::house::{ConcernState, ConcernStatus};
use wire::{Code, ErrorBody};

use crate::Limits;
use crate::measures::Measures;

#[derive(Debug)]
struct Books {
    state: ConcernState,
    why: String,
    answered: BTreeMap<String, u64>,
    deaths: BTreeMap<String, u64>,
    measures: Measures,
}

/// A request that waits for its answer.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) verb: String,
    pub(crate) began: Instant,
    pub(crate) responder: bus::Responder,
}

/// Shared by inlet, keeper and house.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) concern: &'static str,
    pub(crate) limits: Limits,
    slots: Arc<Semaphore>,
    books: Mutex<Books>,
}

impl Ledger {
    pub(crate) fn new(concern: &'static str, limits: Limits) -> Self {
        Self {
            concern,
            limits,
            slots: Arc::new(Semaphore::new(limits.mailbox_messages_max)),
            books: Mutex::new(Books {
                state: ConcernState::Up,
                why: String::new(),
                answered: BTreeMap::new(),
                deaths: BTreeMap::new(),
                measures: Measures::default(),
            }),
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // nothing panics under this lock
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place in the mailbox, until the message is taken up; `None` when it is full.
    pub(crate) fn slot(&self) -> Option<OwnedSemaphorePermit> {
        self.slots.clone().try_acquire_owned().ok()
    }

    pub(crate) fn state(&self) -> ConcernState {
        self.books().state
    }

    pub(crate) fn set_state(&self, state: ConcernState, why: &str) {
        let mut books = self.books();
        books.state = state;
        why.clone_into(&mut books.why);
    }

    pub(crate) fn count_death(&self, cause: &str) {
        *self.books().deaths.entry(cause.to_owned()).or_default() += 1;
    }

    /// Counts and sends an answer.
    pub(crate) fn answer(&self, asked: Asked, result: Result<Value, ErrorBody>) {
        let outcome = result.as_ref().map_or_else(|e| e.code.as_str(), |_| "ok");
        {
            let mut books = self.books();
            *books.answered.entry(outcome.to_owned()).or_default() += 1;
            books.measures.count(&asked.verb, outcome, asked.began.elapsed());
        }
        asked.responder.answer(bus::answer_bytes(result));
    }

    /// What was asked, and how long answers took.
    pub(crate) fn measures(&self) -> Measures {
        self.books().measures.clone()
    }

    /// What an asker hears while the concern doesn't serve.
    pub(crate) fn unavailable(&self) -> ErrorBody {
        let books = self.books();
        let state = match books.state {
            ConcernState::Failed => "has failed",
            ConcernState::Draining => "is finishing and takes nothing new",
            _ => "has stopped",
        };
        ErrorBody::new(
            Code::Unavailable,
            format!("{} {state}{}; nothing was carried out", self.concern, books.why),
        )
        .hint("windlass status")
    }

    pub(crate) fn busy(&self) -> ErrorBody {
        let max = self.limits.mailbox_messages_max;
        ErrorBody::new(
            Code::Busy,
            format!(
                "{} has {max} messages waiting, the most; nothing was carried out",
                self.concern
            ),
        )
        .retry_after_ms(self.limits.retry_after_ms)
    }

    pub(crate) fn status(&self, observed: Value) -> ConcernStatus {
        let books = self.books();
        let max = self.limits.mailbox_messages_max;
        ConcernStatus {
            concern: self.concern.to_owned(),
            state: books.state,
            mailbox_messages: max.saturating_sub(self.slots.available_permits()) as u64,
            mailbox_messages_max: max as u64,
            answered: books.answered.clone(),
            deaths: books.deaths.clone(),
            observed,
        }
    }
}

pub(crate) fn deadline_passed(concern: &str, verb: &str) -> ErrorBody {
    ErrorBody::new(
        Code::Deadline,
        format!("{concern}.{verb} was not begun: its time was up before its turn came"),
    )
}
