//! A subscriber's bounded ring: the newest events stay, the oldest go, and the subscriber is told how many went.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use wire::Subject;

/// What a subscriber gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// An encoded CloudEvent.
    Event {
        /// What it was published on.
        subject: Subject,
        /// Its bytes.
        payload: Bytes,
    },
    /// This many events before the next one were lost, for the ring was full.
    Lost(u64),
}

#[derive(Debug, Default)]
struct Ring {
    queue: VecDeque<(Subject, Bytes)>,
    lost_untold: u64,
    lost_total: u64,
    sender_gone: bool,
    receiver_gone: bool,
}

#[derive(Debug)]
struct Shared {
    ring: Mutex<Ring>,
    events_max: usize,
    more: Notify,
}

impl Shared {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        // nothing in here panics while it holds the lock; a poisoned ring is still whole
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bus's end of a ring.
#[derive(Debug)]
pub struct EventSender(Arc<Shared>);

/// The subscriber's end of a ring. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Events(Arc<Shared>);

/// A ring for `events_max` events.
pub fn event_ring(events_max: usize) -> (EventSender, Events) {
    let shared = Arc::new(Shared {
        ring: Mutex::new(Ring::default()),
        events_max: events_max.max(1),
        more: Notify::new(),
    });
    (EventSender(shared.clone()), Events(shared))
}

impl EventSender {
    /// Adds an event and never waits; false when the subscriber has gone.
    pub fn push(&self, subject: Subject, payload: Bytes) -> bool {
        let mut ring = self.0.ring();
        if ring.receiver_gone {
            return false;
        }
        if ring.queue.len() >= self.0.events_max {
            ring.queue.pop_front();
            ring.lost_untold += 1;
            ring.lost_total += 1;
        }
        ring.queue.push_back((subject, payload));
        drop(ring);
        self.0.more.notify_one();
        true
    }
    /// Tells the subscriber that `count` events never came.
    pub fn lose(&self, count: u64) {
        let mut ring = self.0.ring();
        ring.lost_untold += count;
        ring.lost_total += count;
        drop(ring);
        self.0.more.notify_one();
    }
    /// False when the subscriber has gone.
    pub fn is_wanted(&self) -> bool {
        !self.0.ring().receiver_gone
    }
    /// Events that this subscriber has lost so far.
    pub fn lost_total(&self) -> u64 {
        self.0.ring().lost_total
    }
}

impl Drop for EventSender {
    fn drop(&mut self) {
        self.0.ring().sender_gone = true;
        self.0.more.notify_one();
    }
}

impl Events {
    /// The next event, or how many were lost before it; `None` when the bus has gone.
    pub async fn next(&mut self) -> Option<Received> {
        loop {
            {
                let mut ring = self.0.ring();
                if ring.lost_untold > 0 {
                    return Some(Received::Lost(std::mem::take(&mut ring.lost_untold)));
                }
                if let Some((subject, payload)) = ring.queue.pop_front() {
                    return Some(Received::Event { subject, payload });
                }
                if ring.sender_gone {
                    return None;
                }
            }
            self.0.more.notified().await;
        }
    }
    /// Events lost so far.
    pub fn lost_total(&self) -> u64 {
        self.0.ring().lost_total
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let mut ring = self.0.ring();
        ring.receiver_gone = true;
        ring.queue.clear();
    }
}
