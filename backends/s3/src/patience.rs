//! Trying again: how long to wait, and when to stop.
//!
//! Waits have full jitter (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog 2015): any time from nothing to
//! a bound that doubles. A budget that successes fill and retries spend keeps a server that is down, or half down, from
//! hearing every call several times over.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use store::Kind;
use tokio::time::Instant;

/// Bound of the first wait.
const FIRST_MS: u64 = 100;
/// Bound of the first wait when the server asks for fewer requests.
const FIRST_SLOW_DOWN_MS: u64 = 1000;
/// Bound of every wait, and of what a server may ask for.
const WAIT_MS_MAX: u64 = 10_000;
/// Retries that may be spent before successes have to earn more. 32 calls at once that meet a cut of a minute spend about
/// 13 each.
const BUDGET_MAX: u64 = 1000;
/// Successes that earn one retry.
const SUCCESSES_PER_RETRY: u64 = 5;
/// Patience with a server that has never answered.
const FIRST_CONTACT: Duration = Duration::from_secs(10);

/// Why a call is not tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Trying again can't help.
    Permanent,
    /// `retry_for_s` is over.
    Time,
    /// The budget is spent.
    Budget,
}

/// What one store knows of its server.
#[derive(Debug)]
pub(crate) struct Patience {
    retry_for: Duration,
    /// Successes that are not spent yet.
    credit: AtomicU64,
    answered: AtomicBool,
    /// Nobody asks before: the server said so.
    quiet_until: Mutex<Option<Instant>>,
    random: Mutex<u64>,
}

impl Patience {
    pub(crate) fn new(retry_for: Duration, seed: u64) -> Self {
        Self {
            retry_for,
            credit: AtomicU64::new(BUDGET_MAX * SUCCESSES_PER_RETRY),
            answered: AtomicBool::new(false),
            quiet_until: Mutex::new(None),
            random: Mutex::new(seed),
        }
    }

    /// Waits while the server wants quiet.
    pub(crate) async fn turn(&self) {
        loop {
            let until = *self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner);
            match until.filter(|until| *until > Instant::now()) {
                Some(until) => tokio::time::sleep_until(until).await,
                None => return,
            }
        }
    }

    /// The server answered something, be it an error.
    pub(crate) fn answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    /// A call went well: a part of a retry is earned.
    pub(crate) fn went_well(&self) {
        self.answered();
        let full = BUDGET_MAX * SUCCESSES_PER_RETRY;
        let earn = |credit: u64| (credit < full).then_some(credit + 1);
        // an error says that it is full
        let _ = self.credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, earn);
    }

    /// How long to wait before attempt `attempt + 1` of a call that began `elapsed` ago and failed with `kind`.
    pub(crate) fn wait(
        &self,
        kind: Kind,
        attempt: u32,
        elapsed: Duration,
        retry_after: Option<Duration>,
    ) -> Result<Duration, Stop> {
        if !matches!(
            kind,
            Kind::SlowDown | Kind::Truncated | Kind::Timeout | Kind::Unavailable
        ) {
            return Err(Stop::Permanent);
        }
        let first_ms = if kind == Kind::SlowDown {
            FIRST_SLOW_DOWN_MS
        } else {
            FIRST_MS
        };
        let bound_ms = first_ms.saturating_mul(1 << attempt.min(20)).min(WAIT_MS_MAX);
        let mut wait = Duration::from_millis(self.random() % (bound_ms + 1));
        if let Some(asked) = retry_after {
            wait = wait.max(asked.min(Duration::from_millis(WAIT_MS_MAX)));
        }
        let patience = if self.answered.load(Ordering::Relaxed) {
            self.retry_for
        } else {
            self.retry_for.min(FIRST_CONTACT)
        };
        if elapsed + wait > patience {
            return Err(Stop::Time);
        }
        let spend = |credit: u64| credit.checked_sub(SUCCESSES_PER_RETRY);
        self.credit
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend)
            .map_err(|_| Stop::Budget)?;
        if kind == Kind::SlowDown {
            let until = Instant::now() + wait;
            let mut quiet = self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner);
            *quiet = Some(quiet.map_or(until, |at| at.max(until)));
        }
        Ok(wait)
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn random(&self) -> u64 {
        let mut state = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn patience(seed: u64) -> Patience {
        let patience = Patience::new(2 * MINUTE, seed);
        patience.answered();
        patience
    }

    #[test]
    fn waits_are_spread_over_a_bound_that_doubles() {
        let p = patience(1);
        for attempt in 0..12 {
            let bound = (FIRST_MS << attempt).min(WAIT_MS_MAX);
            let waits: Vec<_> = (0..50)
                .map(|_| {
                    p.wait(Kind::Unavailable, attempt, Duration::ZERO, None)
                        .expect("a wait")
                        .as_millis() as u64
                })
                .collect();
            assert!(waits.iter().all(|w| *w <= bound), "{attempt}: {waits:?}");
            assert!(waits.iter().any(|w| *w < bound / 3) && waits.iter().any(|w| *w > bound / 2));
        }
    }

    #[test]
    fn equal_seeds_wait_alike() {
        let waits = |seed| {
            let p = patience(seed);
            (0..20)
                .map(|a| p.wait(Kind::Timeout, a, Duration::ZERO, None))
                .collect::<Vec<_>>()
        };
        assert_eq!(waits(5), waits(5));
        assert_ne!(waits(5), waits(6));
    }

    #[test]
    fn what_cannot_help_is_not_tried() {
        for kind in [
            Kind::Invalid,
            Kind::NotFound,
            Kind::Denied,
            Kind::Full,
            Kind::TooLarge,
            Kind::Other,
        ] {
            assert_eq!(patience(1).wait(kind, 0, Duration::ZERO, None), Err(Stop::Permanent));
        }
    }

    #[test]
    fn time_ends_it_and_sooner_when_nobody_ever_answered() {
        let p = Patience::new(2 * MINUTE, 1);
        assert!(p.wait(Kind::Timeout, 0, Duration::from_secs(9), None).is_ok());
        assert_eq!(p.wait(Kind::Timeout, 0, Duration::from_secs(11), None), Err(Stop::Time));
        p.answered();
        assert!(p.wait(Kind::Timeout, 0, MINUTE, None).is_ok());
        assert_eq!(p.wait(Kind::Timeout, 0, 2 * MINUTE + MINUTE, None), Err(Stop::Time));
    }

    #[test]
    fn the_budget_is_spent_and_earned() {
        let p = patience(3);
        let mut spent = 0;
        while p.wait(Kind::Unavailable, 0, Duration::ZERO, None).is_ok() {
            spent += 1;
        }
        assert_eq!(spent, BUDGET_MAX);
        assert_eq!(p.wait(Kind::Unavailable, 0, Duration::ZERO, None), Err(Stop::Budget));
        for _ in 0..SUCCESSES_PER_RETRY {
            p.went_well();
        }
        assert!(p.wait(Kind::Unavailable, 0, Duration::ZERO, None).is_ok());
        assert_eq!(p.wait(Kind::Unavailable, 0, Duration::ZERO, None), Err(Stop::Budget));
    }

    #[tokio::test(start_paused = true)]
    async fn slow_down_quiets_everybody_for_as_long_as_was_asked() {
        let p = patience(4);
        let began = Instant::now();
        p.turn().await;
        assert!(began.elapsed().is_zero());
        let asked = Some(Duration::from_secs(7));
        assert!(p.wait(Kind::SlowDown, 0, Duration::ZERO, asked).expect("a wait") >= Duration::from_secs(7));
        p.turn().await;
        assert!(began.elapsed() >= Duration::from_secs(7));
        let forever = Some(Duration::from_secs(100_000));
        assert!(p.wait(Kind::SlowDown, 0, Duration::ZERO, forever).expect("a wait") <= Duration::from_secs(10));
    }
}
