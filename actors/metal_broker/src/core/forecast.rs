//! What is expected to be asked for, from what was: transparent rates, two windows, a Poisson tail, and a gate. The forecast counts
//! only where it has shown on this tenant's own latest requests that fewer of them would have been refused ([`super::replay`]);
//! with little history, or without that proof, least excess decides alone, and the answer says so.

use std::collections::VecDeque;

use super::ask::Need;
use super::fleet::{Class, Fleet};
use super::policy::ONE;

/// Most kinds of node that are told apart; one more replaces the one that was asked for least lately.
pub const NEEDS_MAX: usize = 64;
/// Most requests that are remembered.
pub const EVENTS_MAX: usize = 2_000;
/// Most hardware classes that are looked at; a fleet of more has no classes worth the name.
pub const CLASSES_MAX: usize = 5_000;
/// Requests of a kind in the short window that make it speak for itself.
const SHORT_REQUESTS_MIN: u64 = 20;

/// How far and how surely it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Horizon {
    /// How far ahead, in seconds.
    pub horizon_s: u64,
    /// The long window, in seconds.
    pub long_s: u64,
    /// The short window, in seconds.
    pub short_s: u64,
    /// Requests below which nothing is said.
    pub requests_min: usize,
}

impl Default for Horizon {
    fn default() -> Self {
        Self {
            horizon_s: 86_400,
            long_s: 14 * 86_400,
            short_s: 86_400,
            requests_min: 30,
        }
    }
}

/// One role of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// When, Unix seconds.
    pub at_s: u64,
    /// What each node needed, by index.
    pub need: usize,
    /// So many nodes.
    pub count: u32,
    /// When it was given back; `None` while it stands.
    pub until_s: Option<u64>,
}

/// What was asked for, in the order of time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// Kinds of node.
    pub needs: Vec<Need>,
    /// Requests.
    pub events: VecDeque<Event>,
}

impl History {
    /// Notes a request. A kind that doesn't fit in any more takes the place of one that no remembered request has; where each has
    /// one, it goes unnoted.
    pub fn note(&mut self, need: &Need, at_s: u64, count: u32, until_s: Option<u64>) {
        let known = self.needs.iter().position(|n| n == need);
        let at = match known {
            Some(at) => at,
            None if self.needs.len() < NEEDS_MAX => {
                self.needs.push(need.clone());
                self.needs.len() - 1
            }
            None => {
                let used: u64 = self.events.iter().fold(0, |used, e| used | 1 << e.need);
                let Some(free) = (0..NEEDS_MAX).find(|n| used & (1 << n) == 0) else {
                    return;
                };
                self.needs[free] = need.clone();
                free
            }
        };
        let event = Event {
            at_s,
            need: at,
            count,
            until_s,
        };
        // several hosts' requests come a little out of turn
        let place = self.events.iter().rposition(|e| e.at_s <= at_s).map_or(0, |p| p + 1);
        self.events.insert(place, event);
        if self.events.len() > EVENTS_MAX {
            self.events.pop_front();
        }
    }
    /// How many nodes of each kind were asked for in the long and in the short window, and how long the long one really is.
    pub fn seen(&self, now_s: u64, horizon: &Horizon) -> (Vec<(u64, u64)>, u64) {
        let mut seen = vec![(0, 0); self.needs.len()];
        let mut first = now_s;
        for event in &self.events {
            let age = now_s.saturating_sub(event.at_s);
            if age <= horizon.long_s {
                first = first.min(event.at_s);
                seen[event.need].0 += u64::from(event.count);
                seen[event.need].1 += if age <= horizon.short_s {
                    u64::from(event.count)
                } else {
                    0
                };
            }
        }
        (seen, now_s.saturating_sub(first).max(1))
    }
    /// How many nodes of each kind are expected within the horizon.
    pub fn expected(&self, now_s: u64, horizon: &Horizon) -> Vec<f64> {
        let (seen, span_s) = self.seen(now_s, horizon);
        let rate = |(long, short): &(u64, u64)| {
            let short_s = horizon.short_s.min(span_s).max(1);
            match *short >= SHORT_REQUESTS_MIN {
                true => *short as f64 / short_s as f64,
                // a window that isn't full yet is taken for no shorter than the horizon: a busy first minute is no busy day
                false => *long as f64 / span_s.max(horizon.horizon_s) as f64,
            }
        };
        seen.iter().map(|s| rate(s) * horizon.horizon_s as f64).collect()
    }
}

/// Whether the forecast counts, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// It does.
    pub open: bool,
    /// For people.
    pub why: String,
}

impl Gate {
    /// Shut.
    pub fn shut(why: impl Into<String>) -> Self {
        Self {
            open: false,
            why: why.into(),
        }
    }
}

/// What is expected, held against a fleet.
#[derive(Debug, Clone)]
pub struct Outlook {
    /// Whether it counts.
    pub gate: Gate,
    /// Kinds of node.
    pub needs: Vec<Need>,
    /// Nodes expected of each kind, or of a kind that would do with nothing less.
    pub lambda: Vec<f64>,
    /// Which kinds each class does for: a bit a kind.
    pub fits: Vec<u64>,
}

impl Outlook {
    /// Nothing is expected.
    pub fn none(why: impl Into<String>) -> Self {
        Self {
            gate: Gate::shut(why),
            needs: Vec::new(),
            lambda: Vec::new(),
            fits: Vec::new(),
        }
    }
    /// What is expected of a fleet.
    pub fn of(gate: Gate, history: &History, expected: &[f64], classes: &[Class]) -> Self {
        let needs = history.needs.clone();
        let lambda = needs
            .iter()
            .map(|need| {
                let competes = |(n, _): &(&Need, &f64)| need.is_within(n);
                needs.iter().zip(expected).filter(competes).map(|(_, e)| e).sum()
            })
            .collect();
        let does = |class: &Class| {
            let bit = |(at, need): (usize, &Need)| match class.hardware.lacks(need) {
                None => 1_u64 << at,
                Some(_) => 0,
            };
            needs.iter().enumerate().map(bit).fold(0, |all, bit| all | bit)
        };
        let fits = classes.iter().map(does).collect();
        Self {
            gate,
            needs,
            lambda,
            fits,
        }
    }
    /// Free machines that would do for each kind.
    pub fn free(&self, free: impl Iterator<Item = u32>) -> Vec<u64> {
        let mut sums = vec![0_u64; self.needs.len()];
        for (fits, free) in self.fits.iter().zip(free) {
            let mut left = *fits;
            while left != 0 && free > 0 {
                sums[left.trailing_zeros() as usize] += u64::from(free);
                left &= left - 1;
            }
        }
        sums
    }
    /// The chance of each kind, in millionths, that more nodes are wanted than machines are free once `taken` are gone.
    pub fn short(&self, free: &[u64], taken: u64) -> Vec<i64> {
        let chance = |(lambda, free): (&f64, &u64)| {
            let left = free.saturating_sub(taken);
            (tail(*lambda, left) * ONE as f64).round() as i64
        };
        self.lambda.iter().zip(free).map(chance).collect()
    }
    /// The kinds that want more than a need does: what it leaves over could serve them.
    pub fn beyond(&self, need: &Need) -> u64 {
        let bit = |(at, other): (usize, &Need)| match other.is_within(need) {
            true => 0,
            false => 1_u64 << at,
        };
        self.needs.iter().enumerate().map(bit).fold(0, |all, bit| all | bit)
    }
    /// The chance, in millionths, that what a class leaves over is missed.
    pub fn missed(&self, class: usize, beyond: u64, short: &[i64]) -> i64 {
        let mut left = self.fits.get(class).copied().unwrap_or(0) & beyond;
        let mut most = 0;
        while left != 0 {
            most = most.max(short[left.trailing_zeros() as usize]);
            left &= left - 1;
        }
        most
    }
}

/// The chance that more than `free` come where `lambda` are expected (Poisson; for many the normal curve).
pub fn tail(lambda: f64, free: u64) -> f64 {
    if lambda <= 0.0 || !lambda.is_finite() {
        return 0.0;
    }
    let free_f = free as f64;
    if lambda > 200.0 {
        let z = (free_f + 0.5 - lambda) / lambda.sqrt();
        return 1.0 - normal(z);
    }
    if free_f > lambda * 8.0 + 40.0 {
        return 0.0;
    }
    let (mut term, mut sum) = ((-lambda).exp(), (-lambda).exp());
    for n in 1..=free {
        term *= lambda / n as f64;
        sum += term;
    }
    (1.0 - sum).clamp(0.0, 1.0)
}

/// The normal distribution function, by the logistic curve: within 0.0002.
fn normal(z: f64) -> f64 {
    1.0 / (1.0 + (-(1.5976 * z + 0.070_565_992 * z.powi(3))).exp())
}

/// What is expected of a fleet, by what was seen and what a replay of it showed.
pub fn outlook(history: &History, fleet: &Fleet, gate: Gate, now_s: u64, horizon: &Horizon) -> Outlook {
    if fleet.classes.len() > CLASSES_MAX {
        return Outlook::none(format!(
            "{} hardware classes, more than {CLASSES_MAX}: least excess alone",
            fleet.classes.len()
        ));
    }
    Outlook::of(gate, history, &history.expected(now_s, horizon), &fleet.classes)
}
