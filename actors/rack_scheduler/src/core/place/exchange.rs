//! As much as fits where racks may be shared: a local search over homes. A unit that isn't whole moves to another rack, or takes
//! the place of one there that finds another; what a rack then holds is packed anew, all of its units together ([`super::sets`]). From several
//! orders; ends at a bound, or when its steps are spent.

use std::rc::Rc;

use super::sets::{Homes, Memory};
use super::{Budget, Found, LOOK_STEPS, Solver, mixed};

/// Orders from which the search begins.
const ROUNDS: u64 = 8;
/// Racks that a unit looks at, the ones that may hold most of it first.
const RACKS_MAX: usize = 64;

/// A change of homes: units and their new racks.
type Step = Vec<(usize, u32)>;

impl Solver<'_> {
    pub(super) fn exchanged(&mut self, order: &[usize], racks: &[u32], share: u64) -> Found {
        let kept = self.budget.0.saturating_sub(share);
        self.budget = Budget(self.budget.0 - kept);
        let mut memory = Memory::default();
        let wanted: u32 = order.iter().map(|u| self.units[*u].vms).sum();
        let (mut best, mut most) = (Homes::default(), 0);
        for round in 0..ROUNDS {
            let mut order = order.to_vec();
            match round {
                0 => {}
                1 => order.reverse(),
                _ => order.sort_by_key(|u| mixed(round, *u as u32)),
            }
            let mut homes = Homes::default();
            for unit in &order {
                self.settle(*unit, racks, &mut homes, &mut memory);
            }
            while self.improve(&order, racks, &mut homes, &mut memory) {}
            let placed = self.placed(&homes, &mut memory);
            if placed > most {
                (best, most) = (homes, placed);
            }
            if most == wanted || self.budget.0 == 0 {
                break;
            }
        }
        let mut found: Found = Vec::new();
        for (rack, set) in &best.sets {
            let held = self.held(*rack, set, &mut memory);
            let some = set.iter().zip(&held.takes).filter(|(_, takes)| !takes.is_empty());
            found.extend(some.map(|(unit, takes)| (*unit, *rack, takes.clone())));
        }
        found.sort_by_key(|(unit, ..)| *unit);
        self.budget = Budget(kept + self.budget.0);
        found
    }

    /// The rack where most of a unit fits beside what is there; of equal ones the tightest.
    fn settle(&mut self, unit: usize, racks: &[u32], homes: &mut Homes, memory: &mut Memory) {
        let (mut best, mut most) = (None, 0);
        for rack in self.racks_for(unit, racks, memory).iter() {
            let mut set = homes.set(*rack);
            if set.iter().any(|other| self.apart[unit][*other]) {
                continue;
            }
            let before = self.held(*rack, &set, memory).placed;
            set.push(unit);
            set.sort_unstable();
            if self.bound(*rack, &set, memory) <= before + most {
                continue;
            }
            let gain = self.held(*rack, &set, memory).placed.saturating_sub(before);
            if gain > most {
                (best, most) = (Some(*rack), gain);
            }
            if most == self.units[unit].vms {
                break;
            }
        }
        if let Some(rack) = best {
            homes.go(unit, rack);
        }
    }

    /// Makes the best step for the unit that lacks most; false when no step helps.
    fn improve(&mut self, order: &[usize], racks: &[u32], homes: &mut Homes, memory: &mut Memory) -> bool {
        let mut lacking: Vec<(u32, usize)> = Vec::new();
        for unit in order {
            let here = homes.of.get(unit).copied();
            let has = here.map_or(0, |rack| {
                let set = homes.set(rack);
                let held = self.held(rack, &set, memory);
                let at = set.iter().position(|u| u == unit).unwrap_or(0);
                held.takes[at].iter().map(|t| t.count).sum()
            });
            if has < self.units[*unit].vms {
                lacking.push((self.units[*unit].vms - has, *unit));
            }
        }
        lacking.sort_by_key(|(lacks, unit)| (u32::MAX - lacks, *unit));
        for (_, unit) in lacking {
            let mut best: Option<(u32, Step)> = None;
            for step in self.steps(unit, racks, homes, memory) {
                let least = best.as_ref().map_or(0, |b| b.0);
                if let Some(gain) = self.gain(&step, homes, least, memory) {
                    best = Some((gain, step));
                }
                if self.budget.0 == 0 {
                    break;
                }
            }
            if let Some((_, step)) = best {
                step.into_iter().for_each(|(unit, rack)| homes.go(unit, rack));
                return self.budget.0 > 0;
            }
        }
        false
    }

    /// Steps that bring a unit to another rack: alone, or in the place of one that is there.
    fn steps(&mut self, unit: usize, racks: &[u32], homes: &Homes, memory: &mut Memory) -> Vec<Step> {
        let (mut single, mut double) = (Vec::new(), Vec::new());
        let at = homes.of.get(&unit).copied();
        for rack in self.racks_for(unit, racks, memory).iter().filter(|r| at != Some(**r)) {
            let set = homes.set(*rack);
            let clashes: Vec<usize> = set.iter().copied().filter(|o| self.apart[unit][*o]).collect();
            let leaving = match clashes.len() {
                0 => {
                    single.push(vec![(unit, *rack)]);
                    set
                }
                1 => clashes,
                _ => continue,
            };
            for other in leaving {
                for to in self.racks_for(other, racks, memory).iter().filter(|to| *to != rack) {
                    let stays = |o: &usize| *o != unit && *o != other;
                    let clash = homes.set(*to).into_iter().filter(stays).any(|o| self.apart[other][o]);
                    if !clash {
                        double.push(vec![(unit, *rack), (other, *to)]);
                    }
                }
            }
        }
        // those at home may make room for one another, too
        for other in at.map(|rack| homes.set(rack)).unwrap_or_default() {
            for to in self
                .racks_for(other, racks, memory)
                .iter()
                .filter(|to| at != Some(**to))
            {
                if other != unit && !homes.set(*to).iter().any(|o| self.apart[other][*o]) {
                    single.push(vec![(other, *to)]);
                }
            }
        }
        single.extend(double);
        single
    }

    /// How much more is placed after a step, when that is more than `least`.
    fn gain(&mut self, step: &Step, homes: &Homes, least: u32, memory: &mut Memory) -> Option<u32> {
        self.budget.spend(LOOK_STEPS);
        let mut racks: Vec<u32> = step.iter().map(|(_, to)| *to).collect();
        racks.extend(step.iter().filter_map(|(unit, _)| homes.of.get(unit)));
        racks.sort_unstable();
        racks.dedup();
        let after = |rack: u32| {
            let gone = |u: &usize| step.iter().any(|(unit, to)| unit == u && *to != rack);
            let mut set: Vec<usize> = homes.set(rack).into_iter().filter(|u| !gone(u)).collect();
            let come = step
                .iter()
                .filter(|(unit, to)| *to == rack && homes.of.get(unit) != Some(&rack));
            set.extend(come.map(|(unit, _)| *unit));
            set.sort_unstable();
            set
        };
        let before: u32 = racks.iter().map(|r| self.held(*r, &homes.set(*r), memory).placed).sum();
        let sets: Vec<Vec<usize>> = racks.iter().map(|r| after(*r)).collect();
        let bound: u32 = racks
            .iter()
            .zip(&sets)
            .map(|(r, set)| self.bound(*r, set, memory))
            .sum();
        if bound <= before + least {
            return None;
        }
        let mut now = 0;
        for (rack, set) in racks.iter().zip(&sets) {
            now += self.held(*rack, set, memory).placed;
        }
        (now > before + least).then(|| now - before)
    }

    fn placed(&mut self, homes: &Homes, memory: &mut Memory) -> u32 {
        let sets = homes.sets.iter();
        sets.map(|(rack, set)| self.held(*rack, set, memory).placed).sum()
    }

    /// Racks for a unit: those that may hold most of it first, of those the tightest.
    fn racks_for(&mut self, unit: usize, racks: &[u32], memory: &mut Memory) -> Rc<Vec<u32>> {
        if let Some(known) = memory.choices.get(&unit) {
            return known.clone();
        }
        let mut able: Vec<(u32, u64, u32)> = Vec::new();
        let allowed: Vec<u32> = racks.iter().copied().filter(|r| self.allowed(unit, *r)).collect();
        for rack in &allowed {
            let bound = self.bound(*rack, &[unit], memory);
            if bound > 0 {
                able.push((u32::MAX - bound, self.score(&self.units[unit].demand, *rack), *rack));
            }
        }
        able.sort_unstable();
        able.truncate(RACKS_MAX);
        let choices = Rc::new(able.into_iter().map(|(.., rack)| rack).collect::<Vec<u32>>());
        memory.choices.insert(unit, choices.clone());
        choices
    }
}
