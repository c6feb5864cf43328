//! Some units may share a rack: bounded backtracking, unit by unit, with as few racks as it finds.
//!
//! The first answer is greedy. Then the search goes on, from other orders too, for one with fewer racks, until a bound says that
//! there is none or the steps are spent.

use std::collections::HashMap;

use wire::rack_scheduler::RelationKind;

use super::{Budget, Found, IMPROVE_STEPS_MAX, Solver, mixed};
use crate::core::amounts::{Amounts, DIMS, Sums, add};
use crate::core::pack::Take;

/// Fresh racks that are tried for one unit before its predecessor is moved.
const WIDTH: usize = 12;
/// Orders that are tried.
const ROUNDS: u64 = 10;
/// Steps of one round, as a share of what is left.
const ROUND_SHARE: u64 = 4;

/// A rack that the answer uses.
#[derive(Clone)]
struct Used {
    rooms: Vec<Amounts>,
    units: Vec<usize>,
}

#[derive(Default)]
struct Partial {
    used: HashMap<u32, Used>,
    homes: HashMap<usize, (u32, Vec<Take>)>,
}

/// The best answer so far, and what would be good enough.
struct Best {
    racks: usize,
    bound: usize,
    found: Option<Found>,
}

impl Solver<'_> {
    pub(super) fn fewest_racks(&mut self, order: &[usize]) -> Option<Found> {
        let mut best = Best {
            racks: usize::MAX,
            bound: self.fewest_bound(order),
            found: None,
        };
        let all = self.budget.0;
        for round in 0..ROUNDS {
            let share = match &best.found {
                None => self.budget.0 / ROUND_SHARE,
                Some(_) => (IMPROVE_STEPS_MAX / ROUNDS).min(self.budget.0),
            };
            if best.racks <= best.bound || share == 0 {
                break;
            }
            let mut order = order.to_vec();
            if round >= 2 {
                order.sort_by_key(|u| (u32::MAX - self.units[*u].vms, mixed(round, *u as u32)));
            }
            if round >= 5 {
                order.sort_by_key(|u| mixed(round, *u as u32));
            }
            let kept = self.budget.0 - share;
            self.budget = Budget(share);
            let whole = self.descend(&order, &mut Partial::default(), &mut best, round % 2 == 1);
            let spent = share - self.budget.0;
            self.budget = Budget(kept + share - spent);
            if whole {
                // everything was looked at: there is no other answer
                break;
            }
        }
        debug_assert!(self.budget.0 <= all);
        best.found
    }

    /// One answer that heeds wishes where it can.
    pub(super) fn search(&mut self, order: &[usize]) -> Option<Found> {
        let mut best = Best {
            racks: usize::MAX,
            bound: usize::MAX,
            found: None,
        };
        let share = self.budget.0 / ROUND_SHARE;
        let kept = self.budget.0 - share;
        self.budget = Budget(share);
        self.descend(order, &mut Partial::default(), &mut best, false);
        self.budget = Budget(kept + self.budget.0);
        best.found
    }

    /// No answer uses fewer racks: by how many are apart from one another, and by what the roomiest racks hold in sum.
    fn fewest_bound(&self, order: &[usize]) -> usize {
        let mut clique: Vec<usize> = Vec::new();
        for u in order {
            if clique.iter().all(|v| self.apart[*u][*v]) {
                clique.push(*u);
            }
        }
        let mut wanted = Sums::default();
        order.iter().for_each(|u| add(&mut wanted, &self.units[*u].demand));
        let by_room = |d: usize| {
            let mut rooms: Vec<u64> = (0..self.inventory.racks.len() as u32)
                .map(|r| self.inventory.rack_room(r)[d])
                .collect();
            rooms.sort_unstable_by(|a, b| b.cmp(a));
            let mut sum = 0u64;
            let enough = rooms.iter().take_while(|room| {
                let short = sum < wanted[d];
                sum = sum.saturating_add(**room);
                short
            });
            enough.count()
        };
        (0..DIMS).map(by_room).max().unwrap_or(0).max(clique.len()).max(1)
    }

    /// True when all that is below was looked at.
    fn descend(&mut self, order: &[usize], partial: &mut Partial, best: &mut Best, roomy: bool) -> bool {
        let Some((unit, others)) = order.split_first() else {
            if partial.used.len() < best.racks {
                best.racks = partial.used.len();
                let found = partial
                    .homes
                    .iter()
                    .map(|(u, (rack, takes))| (*u, *rack, takes.clone()));
                let mut found: Found = found.collect();
                found.sort_by_key(|(u, ..)| *u);
                best.found = Some(found);
            }
            return true;
        };
        if partial.used.len() >= best.racks {
            return true;
        }
        let (racks, mut whole) = self.choices(*unit, partial, roomy);
        for rack in racks {
            let fresh = !partial.used.contains_key(&rack);
            if fresh && partial.used.len() + 1 >= best.racks {
                continue;
            }
            if self.budget.0 == 0 {
                return false;
            }
            let before = partial.used.get(&rack).cloned();
            let mut used = before.clone().unwrap_or_else(|| Used {
                rooms: self.rooms(rack),
                units: vec![],
            });
            let Some(takes) = self.pack(*unit, rack, &mut used.rooms, true) else {
                continue;
            };
            used.units.push(*unit);
            partial.used.insert(rack, used);
            partial.homes.insert(*unit, (rack, takes));
            whole &= self.descend(others, partial, best, roomy);
            partial.homes.remove(unit);
            match before {
                Some(before) => partial.used.insert(rack, before),
                None => partial.used.remove(&rack),
            };
            if best.found.is_some() && best.racks <= best.bound {
                return true;
            }
        }
        whole
    }

    /// Racks to try for a unit, the best first, and whether these are all.
    fn choices(&mut self, unit: usize, partial: &Partial, roomy: bool) -> (Vec<u32>, bool) {
        let signature = self.units[unit].signature;
        let ours = |rack: &u32| partial.used.get(rack);
        let clash = |used: &Used| used.units.iter().any(|other| self.apart[unit][*other]);
        let list: Vec<(u64, u32)> = self.candidates[signature].list.clone();
        let mut racks: Vec<(u32, bool, u64, u32)> = list
            .into_iter()
            .filter(|(_, rack)| self.may(unit, *rack) && ours(rack).is_none_or(|used| !clash(used)))
            .map(|(score, rack)| {
                let score = if roomy { u64::MAX - score } else { score };
                (
                    self.against_wishes(unit, rack, partial),
                    ours(&rack).is_none(),
                    score,
                    rack,
                )
            })
            .collect();
        racks.sort_unstable();
        let fresh_max = if self.inventory.racks.len() <= 64 { 64 } else { WIDTH };
        let (mut fresh, mut whole) = (0, true);
        racks.retain(|(_, is_fresh, ..)| {
            fresh += usize::from(*is_fresh);
            let keep = !is_fresh || fresh <= fresh_max;
            whole &= keep;
            keep
        });
        (racks.into_iter().map(|(.., rack)| rack).collect(), whole)
    }

    /// How many wishes this rack would go against, given the homes so far.
    fn against_wishes(&self, unit: usize, rack: u32, partial: &Partial) -> u32 {
        let (ask, groups, here) = (self.ask, &self.units[unit].groups, &self.inventory.racks[rack as usize]);
        let mut against = 0;
        for wish in ask
            .wishes
            .iter()
            .filter(|w| w.groups.iter().any(|g| groups.contains(g)))
        {
            for (other, (home, _)) in &partial.homes {
                if !self.units[*other].groups.iter().any(|g| wish.groups.contains(g)) {
                    continue;
                }
                let there = &self.inventory.racks[*home as usize];
                let fine = match wish.kind {
                    RelationKind::Apart => *home != rack,
                    RelationKind::Together => *home == rack,
                    RelationKind::NearRow => there.row == here.row,
                    RelationKind::NearZone => there.zone == here.zone,
                };
                against += u32::from(!fine);
            }
        }
        against
    }
}
