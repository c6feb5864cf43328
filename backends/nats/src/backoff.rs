//! How long to wait before the next try: exponential with full jitter, so that a fleet doesn't come back in step.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The ceiling of the first wait, in milliseconds.
const FIRST_MS: u64 = 1_000;
/// The ceiling of every later wait, in milliseconds.
const LAST_MS: u64 = 30_000;

/// Waits between tries to connect.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    servers: usize,
    // the very first round doesn't wait: nothing was lost yet, and a person may be looking
    begun: Arc<AtomicBool>,
}

impl Backoff {
    pub(crate) fn new(servers: usize) -> Self {
        Self {
            servers: servers.max(1),
            begun: Arc::default(),
        }
    }
    /// From now on every try waits.
    pub(crate) fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }
    /// The wait before attempt 1, 2, …; a round tries each server once.
    pub(crate) fn delay(&self, attempt: usize) -> Duration {
        let round = attempt.saturating_sub(1) / self.servers;
        if round == 0 && !self.begun.load(Ordering::Relaxed) {
            return Duration::ZERO;
        }
        jittered(round)
    }
}

/// A wait of round 0, 1, …: anything between nothing and the ceiling.
pub(crate) fn jittered(round: usize) -> Duration {
    Duration::from_millis(ceiling_ms(round).saturating_mul(random_per_mille()) / 1_000)
}

fn ceiling_ms(round: usize) -> u64 {
    let doublings = u32::try_from(round).unwrap_or(u32::MAX).min(16);
    (FIRST_MS << doublings).min(LAST_MS)
}

fn random_per_mille() -> u64 {
    // without randomness the wait is the ceiling
    getrandom::u32().map_or(1_000, |r| u64::from(r) % 1_001)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_half_a_minute_and_differ() {
        let backoff = Backoff::new(3);
        assert_eq!(backoff.delay(3), Duration::ZERO, "the first round");
        backoff.begin();
        assert_eq!([0, 1, 2, 5, 60].map(ceiling_ms), [1_000, 2_000, 4_000, 30_000, 30_000]);
        let waits: Vec<Duration> = (0..64).map(|_| backoff.delay(100)).collect();
        assert!(waits.iter().all(|w| *w <= Duration::from_millis(LAST_MS)));
        assert!(waits.iter().any(|w| *w != waits[0]));
    }
}
