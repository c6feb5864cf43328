//! Answers of one turn of a concern's thread, which leave together.
//!
//! An answer wakes whoever carries it on. One by one they would wake a thread each, and leave the host in a packet each.

use std::time::Duration;

use bus::Responder;
use bytes::Bytes;
use tokio::time::Instant;

/// How long an answer waits for others at most, unless a decision takes longer.
const WAIT: Duration = Duration::from_micros(50);

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    answers: Vec<(Responder, Bytes)>,
    since: Option<Instant>,
}

impl Outbox {
    pub(crate) fn put(&mut self, answer: (Responder, Bytes), now: Instant) {
        self.since.get_or_insert(now);
        self.answers.push(answer);
    }

    /// Sends what has waited long enough.
    pub(crate) fn send_due(&mut self, now: Instant) {
        if self.since.is_some_and(|since| now - since >= WAIT) {
            self.send();
        }
    }

    pub(crate) fn send(&mut self) {
        self.since = None;
        for (responder, answer) in self.answers.drain(..) {
            responder.answer(answer);
        }
    }
}
