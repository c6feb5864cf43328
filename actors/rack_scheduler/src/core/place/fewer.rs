//! Fewer racks than an answer has: a rack is closed, and its units are given homes in the others, one after the other. A unit that
//! fits nowhere brings a rack's units to a roomier rack that is not in use, or it ejects some, those first that were seldom hard
//! to place. What was ejected waits for a home in turn. So Nagata and Bräysy close routes of vehicles ("A powerful route
//! minimization heuristic", 2009); what a rack holds is packed anew each time ([`super::sets`]).
//!
//! Some attempts begin with no rack at all, for the first answer leans on tight racks. Ends at a bound, after some attempts that
//! didn't help, or when its steps are spent.

use std::collections::HashMap;
use std::rc::Rc;

use super::search::Best;
use super::sets::{Homes, Memory};
use super::{Budget, Found, LOOK_STEPS, Solver, mixed};
use crate::core::amounts::{DIMS, Sums, add, less, sums_fit};

/// Attempts in a row that didn't help.
const ATTEMPTS: u64 = 8;
/// Racks not in use that are looked at for a unit, the roomiest first.
const SPARE_MAX: usize = 64;
/// Racks in use that are looked at when a unit fits into none.
const CROWDED_MAX: usize = 48;
/// Units of one rack that may have to go, those first that were seldom hard to place.
const EJECT_MAX: usize = 10;
/// What it costs to begin an attempt and to take its answer down, for each unit.
const UNIT_STEPS: u64 = 100;
/// Ejections of one attempt for each unit, and in any case.
const EJECTIONS_A_UNIT: usize = 8;
const EJECTIONS_MIN: usize = 64;
/// Units that are moved by chance after each ejection, so that the search doesn't go round in a circle.
const SHAKEN: u64 = 2;

/// Who has to go for a unit, and from where.
struct Ejection {
    cost: u64,
    tie: u32,
    rack: u32,
    out: Vec<usize>,
    stay: Vec<usize>,
}

/// Racks for each unit, those first that have room for the largest share of everything.
pub(super) struct Roomiest {
    wanted: Sums,
    of: HashMap<usize, Rc<Vec<u32>>>,
}

/// One attempt.
struct Attempt<'m> {
    homes: Homes,
    /// Units without a home, the next one last.
    pool: Vec<usize>,
    /// Racks in use, at most.
    racks_max: usize,
    /// How often a unit was hard to place.
    hard: HashMap<usize, u64>,
    roomiest: &'m mut Roomiest,
    memory: &'m mut Memory,
}

impl Solver<'_> {
    /// Looks for an answer with fewer racks than `best`, or for any when it has none; `share` bounds what that may cost.
    pub(super) fn fewer(&mut self, order: &[usize], best: &mut Best, share: u64) {
        let share = share.min(self.budget.0);
        let kept = self.budget.0 - share;
        self.budget = Budget(share);
        let mut memory = Memory::default();
        let mut roomiest = self.roomiest(order);
        let mut failed = 0;
        while failed < ATTEMPTS && best.racks > best.bound && self.budget.0 > 0 {
            self.budget.spend(UNIT_STEPS * order.len() as u64);
            let (homes, pool) = self.begin(order, best, failed);
            let later = self.budget.0 - self.budget.0 / (ATTEMPTS - failed);
            self.budget = Budget(self.budget.0 - later);
            let mut attempt = Attempt {
                homes,
                pool,
                racks_max: best.racks.saturating_sub(1),
                hard: HashMap::new(),
                roomiest: &mut roomiest,
                memory: &mut memory,
            };
            let done = self.rehome(&mut attempt, failed);
            let homes = attempt.homes;
            self.budget = Budget(self.budget.0 + later);
            match done.then(|| self.found_whole(&homes, &mut memory)).flatten() {
                Some(found) => {
                    (best.racks, best.found) = (homes.sets.len(), Some(found));
                    failed = 0;
                }
                None => failed += 1,
            }
        }
        self.budget = Budget(kept + self.budget.0);
    }

    /// Where an attempt begins: the best answer without one of its lightest racks, or nothing at all.
    fn begin(&self, order: &[usize], best: &Best, attempt: u64) -> (Homes, Vec<usize>) {
        if let Some(found) = best.found.as_ref().filter(|_| attempt.is_multiple_of(2)) {
            let mut homes = Homes::of_found(found);
            let weight = |set: &Vec<usize>| set.iter().map(|u| self.weight(*u)).sum::<f32>();
            let mut racks: Vec<(f32, u32)> = homes.sets.iter().map(|(rack, set)| (weight(set), *rack)).collect();
            racks.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            if let Some((_, rack)) = racks.get(attempt as usize / 2) {
                let mut pool = homes.set(*rack);
                pool.iter().for_each(|u| homes.leave(*u));
                pool.sort_by(|a, b| self.weight(*a).total_cmp(&self.weight(*b)).then(b.cmp(a)));
                return (homes, pool);
            }
        }
        // the order has the heaviest first, and so has the pool from its end
        let mut pool: Vec<usize> = order.iter().rev().copied().collect();
        if attempt > 2 {
            pool.sort_by_key(|u| mixed(attempt, *u as u32));
        }
        (Homes::default(), pool)
    }

    /// Gives everything that waits a home; false when that isn't found.
    fn rehome(&mut self, attempt: &mut Attempt<'_>, seed: u64) -> bool {
        let mut ejections = EJECTIONS_MIN + EJECTIONS_A_UNIT * (attempt.pool.len() + attempt.homes.of.len());
        while let Some(unit) = attempt.pool.pop() {
            if self.insert(unit, attempt) || self.insert_roomier(unit, attempt) {
                continue;
            }
            if ejections == 0 || self.budget.0 == 0 {
                return false;
            }
            ejections -= 1;
            *attempt.hard.entry(unit).or_default() += 1;
            let Some(Ejection { rack, out, .. }) = self.ejection(unit, attempt, mixed(seed, ejections as u32)) else {
                return false;
            };
            out.iter().for_each(|u| attempt.homes.leave(*u));
            attempt.homes.go(unit, rack);
            attempt.pool.extend(out);
            for n in 0..SHAKEN {
                self.shake(attempt, mixed(seed ^ (n << 32), ejections as u32));
            }
        }
        attempt.homes.sets.len() <= attempt.racks_max
    }

    fn clashes(&self, unit: usize, set: &[usize]) -> bool {
        set.iter().any(|other| self.apart[unit][*other])
    }

    /// Into the rack in use that it leaves least of; else into a fresh one, if there may be one more.
    fn insert(&mut self, unit: usize, attempt: &mut Attempt<'_>) -> bool {
        let racks: Vec<u32> = attempt.homes.sets.keys().copied().collect();
        let mut best: Option<(f32, u32)> = None;
        for rack in racks {
            if !self.allowed(unit, rack) || self.clashes(unit, &attempt.homes.sets[&rack]) {
                continue;
            }
            let set = attempt.homes.with(rack, unit);
            let left = self.left(rack, &set);
            self.budget.spend(LOOK_STEPS);
            if self.budget.0 == 0 {
                return false;
            }
            if best.is_none_or(|(least, _)| left < least) && self.whole(rack, &set, attempt.memory).is_some() {
                best = Some((left, rack));
            }
        }
        let open = attempt.homes.sets.len();
        let rack = best.map(|(_, rack)| rack).or_else(|| {
            let spare = (open < attempt.racks_max).then(|| self.spare(unit, attempt.roomiest))?;
            let mut unused = spare.iter().filter(|r| !attempt.homes.sets.contains_key(r));
            unused
                .find(|rack| self.whole(**rack, &[unit], attempt.memory).is_some())
                .copied()
        });
        if let Some(rack) = rack {
            attempt.homes.go(unit, rack);
        }
        rack.is_some()
    }

    /// With all units of a rack into another one that nothing is in.
    fn insert_roomier(&mut self, unit: usize, attempt: &mut Attempt<'_>) -> bool {
        let spare = self.spare(unit, attempt.roomiest);
        let unused = spare.iter().filter(|r| !attempt.homes.sets.contains_key(r));
        let unused: Vec<u32> = unused.copied().collect();
        self.budget.spend(4 * spare.len() as u64);
        if unused.is_empty() {
            return false;
        }
        for rack in self.crowded(unit, attempt) {
            if self.clashes(unit, &attempt.homes.sets[&rack]) {
                continue;
            }
            let set = attempt.homes.with(rack, unit);
            for other in &unused {
                if set.iter().all(|u| self.allowed(*u, *other)) && self.whole(*other, &set, attempt.memory).is_some() {
                    set.iter().for_each(|u| attempt.homes.go(*u, *other));
                    return true;
                }
                if self.budget.0 == 0 {
                    return false;
                }
            }
        }
        false
    }

    /// Racks in use; where there are many, some, each time others.
    fn crowded(&mut self, unit: usize, attempt: &Attempt<'_>) -> Vec<u32> {
        let mut racks: Vec<u32> = attempt.homes.sets.keys().copied().collect();
        if racks.len() > CROWDED_MAX {
            let turn = attempt.hard.get(&unit).copied().unwrap_or(0);
            racks.sort_by_key(|rack| mixed(turn, *rack));
            racks.truncate(CROWDED_MAX);
            self.budget.spend(8 * attempt.homes.sets.len() as u64);
        }
        racks
    }

    /// The cheapest way to make room for a unit.
    fn ejection(&mut self, unit: usize, attempt: &mut Attempt<'_>, seed: u32) -> Option<Ejection> {
        let mut ways: Vec<Ejection> = Vec::new();
        for rack in self.crowded(unit, attempt) {
            if self.allowed(unit, rack) {
                self.ejections(unit, rack, &attempt.homes.sets[&rack], attempt, seed, &mut ways);
            }
        }
        ways.sort_by_key(|way| (way.cost, way.tie));
        self.budget.spend(LOOK_STEPS * ways.len() as u64);
        for way in ways {
            if self.whole(way.rack, &way.stay, attempt.memory).is_some() {
                return Some(way);
            }
            if self.budget.0 == 0 {
                break;
            }
        }
        None
    }

    /// Sets of units of a rack that could go for a unit: those that it clashes with, and one or two more.
    fn ejections(
        &self,
        unit: usize,
        rack: u32,
        set: &[usize],
        attempt: &Attempt<'_>,
        seed: u32,
        ways: &mut Vec<Ejection>,
    ) {
        let hard = |u: &usize| attempt.hard.get(u).copied().unwrap_or(0) + 1;
        let clashing: Vec<usize> = set.iter().copied().filter(|u| self.apart[unit][*u]).collect();
        let mut others: Vec<usize> = set.iter().copied().filter(|u| !self.apart[unit][*u]).collect();
        others.sort_by_key(|u| (hard(u), mixed(u64::from(seed), *u as u32)));
        others.truncate(EJECT_MAX);
        let mut more: Vec<Vec<usize>> = vec![vec![]];
        for (n, a) in others.iter().enumerate() {
            more.push(vec![*a]);
            more.extend(others[..n].iter().map(|b| vec![*a, *b]));
        }
        for more in more {
            let out: Vec<usize> = clashing.iter().chain(&more).copied().collect();
            let mut stay: Vec<usize> = set.iter().copied().filter(|u| !out.contains(u)).collect();
            stay.push(unit);
            stay.sort_unstable();
            if !out.is_empty() && sums_fit(&self.demand_of(&stay), self.inventory.rack_room(rack)) {
                ways.push(Ejection {
                    cost: out.iter().map(hard).sum(),
                    tie: mixed(u64::from(seed) ^ u64::from(rack) << 32, out[0] as u32),
                    rack,
                    out,
                    stay,
                });
            }
        }
    }

    /// Moves one unit by chance.
    fn shake(&mut self, attempt: &mut Attempt<'_>, seed: u32) {
        let (units, racks) = (attempt.homes.of.len(), attempt.homes.sets.len());
        let unit = attempt.homes.of.keys().nth(seed as usize % units.max(1)).copied();
        let rack = attempt
            .homes
            .sets
            .keys()
            .nth((seed >> 16) as usize % racks.max(1))
            .copied();
        let (Some(unit), Some(rack)) = (unit, rack) else { return };
        if attempt.homes.of[&unit] == rack
            || !self.allowed(unit, rack)
            || self.clashes(unit, &attempt.homes.sets[&rack])
        {
            return;
        }
        let set = attempt.homes.with(rack, unit);
        if self.whole(rack, &set, attempt.memory).is_some() {
            attempt.homes.go(unit, rack);
        }
    }

    pub(super) fn roomiest(&self, units: &[usize]) -> Roomiest {
        Roomiest {
            wanted: self.demand_of(units),
            of: HashMap::new(),
        }
    }

    /// Racks that a unit alone could be in, the roomiest first.
    pub(super) fn spare(&mut self, unit: usize, roomiest: &mut Roomiest) -> Rc<Vec<u32>> {
        if let Some(known) = roomiest.of.get(&unit) {
            return known.clone();
        }
        let wanted = roomiest.wanted;
        let share = |rack: u32| {
            let room = self.inventory.rack_room(rack);
            let some = (0..DIMS).filter(|d| wanted[*d] > 0);
            some.map(|d| room[d] as f32 / wanted[d] as f32).fold(f32::MAX, f32::min)
        };
        let list = &self.candidates[self.units[unit].signature].list;
        let may = list.iter().map(|(_, rack)| *rack).filter(|r| self.may(unit, *r));
        let mut able: Vec<(f32, u32, u32)> = may.map(|r| (share(r), mixed(self.ask.seed, r), r)).collect();
        let steps = 4 * list.len() as u64;
        let by_share = |a: &(f32, u32, u32), b: &(f32, u32, u32)| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2)));
        if able.len() > SPARE_MAX {
            able.select_nth_unstable_by(SPARE_MAX, by_share);
            able.truncate(SPARE_MAX);
        }
        able.sort_by(by_share);
        self.budget.spend(steps);
        let spare = Rc::new(able.into_iter().map(|(.., rack)| rack).collect::<Vec<u32>>());
        roomiest.of.insert(unit, spare.clone());
        spare
    }

    fn demand_of(&self, set: &[usize]) -> Sums {
        let mut sums = Sums::default();
        set.iter().for_each(|u| add(&mut sums, &self.units[*u].demand));
        sums
    }

    /// What a set would leave of a rack.
    fn left(&self, rack: u32, set: &[usize]) -> f32 {
        let left = less(self.inventory.rack_room(rack), &self.demand_of(set));
        (0..DIMS).map(|d| self.inventory.scale[d] * left[d] as f32).sum()
    }

    /// The answer that those homes are.
    pub(super) fn found_whole(&mut self, homes: &Homes, memory: &mut Memory) -> Option<Found> {
        let mut found: Found = Vec::with_capacity(homes.of.len());
        for (rack, set) in &homes.sets {
            let held = self.whole(*rack, set, memory)?;
            found.extend(
                set.iter()
                    .zip(&held.takes)
                    .map(|(unit, takes)| (*unit, *rack, takes.clone())),
            );
        }
        found.sort_by_key(|(unit, ..)| *unit);
        Some(found)
    }
}
