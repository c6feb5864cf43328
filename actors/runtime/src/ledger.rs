//! What is known of a concern outside its thread: its state, its counts, its mailbox's free slots.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde_json::Value;
use tokio::time::Instant;
use wire::house::{ConcernState, ConcernStatus};
use wire::{Code, ErrorBody, Subject};

use crate::measures::Measures;
use crate::{Limits, Slot, Slots};

#[derive(Debug)]
struct Books {
    state: ConcernState,
    why: String,
    answered: BTreeMap<&'static str, u64>,
    deaths: BTreeMap<String, u64>,
    measures: Measures,
}

/// A request that waits for its answer.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) subject: Subject,
    pub(crate) arrived: Instant,
    pub(crate) responder: bus::Responder,
}

/// Shared by inlet, keeper and house.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) concern: &'static str,
    limits: Mutex<Limits>,
    slots: Slots,
    books: Mutex<Books>,
}

impl Ledger {
    pub(crate) fn new(concern: &'static str, limits: Limits) -> Self {
        Self {
            concern,
            limits: Mutex::new(limits),
            slots: Slots::default(),
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
    pub(crate) fn slot(&self) -> Option<Slot> {
        self.slots.take(self.limits().mailbox_messages_max)
    }

    /// The limits as they are now; a reload changes them.
    pub(crate) fn limits(&self) -> Limits {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_limits(&self, limits: Limits) {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
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

    /// Counts and sends an answer, which was encoded unless it is an error.
    pub(crate) fn answer(&self, asked: Asked, result: Result<Bytes, ErrorBody>) {
        let outcome = result.as_ref().map_or_else(|e| e.code.as_str(), |_| "ok");
        tracing::debug!(outcome, "answered");
        let took = asked.arrived.elapsed();
        {
            let mut books = self.books();
            *books.answered.entry(outcome).or_default() += 1;
            books.measures.count(asked.subject.verb(), outcome, took);
        }
        asked.responder.answer(result.unwrap_or_else(bus::error_bytes));
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
        let limits = self.limits();
        let max = limits.mailbox_messages_max;
        ErrorBody::new(
            Code::Busy,
            format!(
                "{} has {max} messages waiting, the most; nothing was carried out",
                self.concern
            ),
        )
        .retry_after_ms(limits.retry_after_ms)
    }

    pub(crate) fn status(&self, observed: Value) -> ConcernStatus {
        let books = self.books();
        ConcernStatus {
            concern: self.concern.to_owned(),
            state: books.state,
            mailbox_messages: self.slots.taken() as u64,
            mailbox_messages_max: self.limits().mailbox_messages_max as u64,
            answered: books
                .answered
                .iter()
                .map(|(outcome, n)| ((*outcome).to_owned(), *n))
                .collect(),
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
