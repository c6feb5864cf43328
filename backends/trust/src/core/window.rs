//! What was heard already. A message is heard once: within its time its nonce is remembered, and outside of its time it is stale.
//!
//! Memory is bounded: each sender has so many nonces, all senders together so many. What has to be forgotten before its time
//! raises its sender's floor, and whatever that sender signed at or before the floor is stale from then on: who floods has less
//! time on the way, nobody else has, and nothing is ever heard twice.

use std::collections::{BTreeSet, HashMap};

use planted::Fault;
use wire::Sender;

use super::refusal::Refusal;
use super::stamp::Nonce;

/// Bounds of a [`Window`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// How far from the fleet's clock a message may be signed, in milliseconds, to either side. Clocks are corrected by the
    /// servers', so this is time on the way, not skew.
    pub transit_ms_max: u64,
    /// Nonces of one sender.
    pub per_sender_max: usize,
    /// Nonces of all senders.
    pub total_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            transit_ms_max: 120_000,
            per_sender_max: 16_384,
            total_max: 1 << 20,
        }
    }
}

#[derive(Debug, Default)]
struct Heard {
    /// What was signed at or before this is stale.
    floor_ms: u64,
    nonces: BTreeSet<(u64, Nonce)>,
}

/// What was heard within its time.
#[derive(Debug)]
pub struct Window {
    bounds: Bounds,
    /// What was signed before this was signed for another process.
    begun_ms: u64,
    senders: HashMap<Sender, Heard>,
    total: usize,
}

impl Window {
    /// A window that begins at `now_ms`: what was signed before may have been heard by an earlier process.
    pub fn new(bounds: Bounds, now_ms: u64) -> Self {
        Self {
            bounds,
            begun_ms: now_ms,
            senders: HashMap::new(),
            total: 0,
        }
    }

    /// Whether the time alone is right: cheap, and asked before a signature is checked.
    ///
    /// # Errors
    /// `Stale`.
    pub fn in_time(&self, time_ms: u64, now_ms: u64) -> Result<(), Refusal> {
        match time_ms >= self.begun_ms && time_ms.abs_diff(now_ms) <= self.bounds.transit_ms_max {
            true => Ok(()),
            false => Err(Refusal::Stale),
        }
    }

    /// Hears a message whose signature is good.
    ///
    /// # Errors
    /// `Stale`, `Replayed`.
    pub fn hear(&mut self, sender: &Sender, time_ms: u64, nonce: Nonce, now_ms: u64) -> Result<(), Refusal> {
        self.in_time(time_ms, now_ms)?;
        let heard = self.senders.entry(sender.clone()).or_default();
        let before = heard.nonces.len();
        let outcome = heard.hear(time_ms, nonce, now_ms, &self.bounds, self.total);
        let after = heard.nonces.len();
        self.total = self.total + after - before;
        outcome
    }

    /// Nonces that are remembered.
    pub fn len(&self) -> usize {
        self.total
    }
    /// True when nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }
}

impl Heard {
    fn hear(&mut self, time_ms: u64, nonce: Nonce, now_ms: u64, bounds: &Bounds, total: usize) -> Result<(), Refusal> {
        // what is out of time by now needs no remembering: its time alone refuses it
        let over = now_ms.saturating_sub(bounds.transit_ms_max);
        while let Some(oldest) = self.nonces.first().copied().filter(|(signed, _)| *signed < over) {
            self.nonces.remove(&oldest);
        }
        if time_ms <= self.floor_ms {
            return Err(Refusal::Stale);
        }
        if !self.nonces.insert((time_ms, nonce)) && !planted::is(Fault::NonceForgotten) {
            return Err(Refusal::Replayed);
        }
        let crowded = self.nonces.len() > bounds.per_sender_max || (total >= bounds.total_max && self.nonces.len() > 1);
        if crowded && let Some((signed, _)) = self.nonces.pop_first() {
            self.raise(signed);
        }
        Ok(())
    }

    fn raise(&mut self, floor_ms: u64) {
        self.floor_ms = self.floor_ms.max(floor_ms);
        while let Some(oldest) = self
            .nonces
            .first()
            .copied()
            .filter(|(signed, _)| *signed <= self.floor_ms)
        {
            self.nonces.remove(&oldest);
        }
    }
}
