//! The restart budget: how often a concern may die, and how long it waits before it is built again.

use std::collections::VecDeque;

/// A restart budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restart {
    /// Deaths within the window that are made good; one more and the concern is `failed`.
    pub deaths_max: usize,
    /// The window, in seconds.
    pub window_s: u64,
    /// The wait after the first death in the window, in milliseconds; it doubles with each further one.
    pub backoff_ms: u64,
    /// The longest wait, in milliseconds.
    pub backoff_ms_max: u64,
}

impl Default for Restart {
    fn default() -> Self {
        Self {
            deaths_max: 5,
            window_s: 60,
            backoff_ms: 50,
            backoff_ms_max: 5_000,
        }
    }
}

/// What follows a death.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Build a successor after this many milliseconds.
    Rebuild { after_ms: u64 },
    /// The budget is spent.
    Spent,
}

/// The deaths within the window.
#[derive(Debug)]
pub(crate) struct Budget {
    restart: Restart,
    deaths_ms: VecDeque<u64>,
}

impl Budget {
    pub(crate) fn new(restart: Restart) -> Self {
        Self {
            restart,
            deaths_ms: VecDeque::new(),
        }
    }

    /// Another budget; the deaths so far count in it.
    pub(crate) fn set(&mut self, restart: Restart) {
        self.restart = restart;
    }

    /// Enters a death at `now_ms` (monotonic).
    pub(crate) fn died(&mut self, now_ms: u64) -> Verdict {
        let window_ms = self.restart.window_s.saturating_mul(1_000);
        while self
            .deaths_ms
            .front()
            .is_some_and(|ms| now_ms.saturating_sub(*ms) > window_ms)
        {
            self.deaths_ms.pop_front();
        }
        self.deaths_ms.push_back(now_ms);
        if self.deaths_ms.len() > self.restart.deaths_max {
            return Verdict::Spent;
        }
        let doublings = u32::try_from(self.deaths_ms.len() - 1).unwrap_or(u32::MAX);
        let factor = 2u64.saturating_pow(doublings);
        Verdict::Rebuild {
            after_ms: self
                .restart
                .backoff_ms
                .saturating_mul(factor)
                .min(self.restart.backoff_ms_max),
        }
    }

    /// Deaths within the window.
    pub(crate) fn deaths(&self) -> u64 {
        self.deaths_ms.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_until_the_budget_is_spent_and_old_deaths_are_forgiven() {
        let restart = Restart {
            deaths_max: 4,
            window_s: 10,
            backoff_ms: 100,
            backoff_ms_max: 500,
        };
        let mut budget = Budget::new(restart);
        let waits: Vec<Verdict> = (0..5).map(|ms| budget.died(ms)).collect();
        let rebuild = |after_ms| Verdict::Rebuild { after_ms };
        assert_eq!(
            waits,
            [rebuild(100), rebuild(200), rebuild(400), rebuild(500), Verdict::Spent]
        );
        assert_eq!(
            budget.died(20_000),
            rebuild(100),
            "all earlier deaths are out of the window"
        );
    }
}
