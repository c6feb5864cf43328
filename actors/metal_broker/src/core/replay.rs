//! The forecast's gate: the tenant's latest requests, replayed twice on the tenant's own hardware, once by least excess alone and
//! once with the forecast as it would have been at each moment. The forecast counts only where fewer would have been refused.
//!
//! Machines of a class are alike here, racks and policies are left out: what is compared is hardware for hardware.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::ask::Need;
use super::fleet::{Class, Fleet};
use super::forecast::{CLASSES_MAX, Gate, History, Horizon, Outlook};
use super::machine::{Amounts, DIMENSIONS};
use super::policy::{ONE, Weights};

/// Requests between two looks ahead.
const LOOK_EVERY: usize = 16;
/// Requests at the end that are replayed.
const REPLAYED_MAX: usize = 1_000;

/// What a replay came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Nodes that got no machine.
    pub refused: u64,
    /// Nodes that got one.
    pub served: u64,
}

/// What a machine of a class leaves over for a need, weighed, in millionths.
pub fn excess(has: &Amounts, need: &Amounts, scale: &Amounts, weights: &Weights) -> i64 {
    let mut sum = 0;
    for d in 0..DIMENSIONS {
        let over = has[d].saturating_sub(need[d]);
        if over > 0 {
            // both are at most ten millions, and a weight at most a milliard: a product of 10^16
            sum += (over as i64) * weights.excess[d] / (scale[d].max(1) as i64);
        }
    }
    sum
}

/// Opens or shuts the gate.
pub fn gate(history: &History, fleet: &Fleet, weights: &Weights, now_s: u64, horizon: &Horizon) -> Gate {
    let recent = history.events.len();
    if recent < horizon.requests_min {
        return Gate::shut(format!(
            "{recent} of {} requests seen: least excess alone",
            horizon.requests_min
        ));
    }
    if fleet.classes.len() > CLASSES_MAX || weights.forecast == 0 {
        return Gate::shut(
            "the policy's weight of it is 0, or the fleet has too many hardware classes: least excess alone",
        );
    }
    let without = replay(history, fleet, weights, now_s, horizon, false);
    let with = replay(history, fleet, weights, now_s, horizon, true);
    let told = format!(
        "replayed the last {} requests: {} nodes refused with the forecast, {} without",
        recent.min(REPLAYED_MAX),
        with.refused,
        without.refused
    );
    match with.refused < without.refused {
        true => Gate { open: true, why: told },
        false => Gate::shut(format!("{told}: least excess alone")),
    }
}

/// Replays the latest requests. What still stands is held to the end.
pub fn replay(
    history: &History,
    fleet: &Fleet,
    weights: &Weights,
    now_s: u64,
    horizon: &Horizon,
    ahead: bool,
) -> Tally {
    let first = history.events.len().saturating_sub(REPLAYED_MAX);
    let mut stall = Stall {
        fleet,
        weights,
        free: fleet.classes.iter().map(|c| c.members.len() as u32).collect(),
        outlook: Outlook::none(""),
    };
    let mut back: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let mut tally = Tally::default();
    let mut past = History {
        needs: history.needs.clone(),
        ..History::default()
    };
    for (n, event) in history.events.iter().enumerate() {
        if n >= first {
            while let Some(Reverse((at_s, class))) = back.peek().copied().filter(|r| r.0.0 <= event.at_s) {
                debug_assert!(at_s <= event.at_s);
                back.pop();
                stall.free[class] += 1;
            }
            if ahead && (n - first).is_multiple_of(LOOK_EVERY) && past.events.len() >= horizon.requests_min {
                stall.look(&past, event.at_s, horizon);
            }
            let need = &history.needs[event.need];
            for _ in 0..event.count {
                match stall.best(need) {
                    None => tally.refused += 1,
                    Some(class) => {
                        tally.served += 1;
                        stall.free[class] -= 1;
                        back.push(Reverse((event.until_s.unwrap_or(now_s).max(event.at_s + 1), class)));
                    }
                }
            }
        }
        past.events.push_back(*event);
    }
    tally
}

struct Stall<'a> {
    fleet: &'a Fleet,
    weights: &'a Weights,
    free: Vec<u32>,
    outlook: Outlook,
}

impl Stall<'_> {
    fn look(&mut self, past: &History, now_s: u64, horizon: &Horizon) {
        let expected = past.expected(now_s, horizon);
        let gate = Gate {
            open: true,
            why: String::new(),
        };
        self.outlook = Outlook::of(gate, past, &expected, &self.fleet.classes);
    }
    fn best(&self, need: &Need) -> Option<usize> {
        let ahead = self.outlook.gate.open;
        let (beyond, short) = match ahead {
            true => {
                let free = self.outlook.free(self.free.iter().copied());
                (self.outlook.beyond(need), self.outlook.short(&free, 1))
            }
            false => (0, Vec::new()),
        };
        let cost = |(at, class): (usize, &Class)| {
            if self.free[at] == 0 || class.hardware.lacks(need).is_some() {
                return None;
            }
            let missed = match ahead {
                true => self.outlook.missed(at, beyond, &short) * self.weights.forecast / ONE,
                false => 0,
            };
            let over = excess(&class.hardware.amounts, &need.amounts, &self.fleet.scale, self.weights);
            Some((over + missed, at))
        };
        let costs = self.fleet.classes.iter().enumerate().filter_map(cost);
        costs.min().map(|(_, at)| at)
    }
}
