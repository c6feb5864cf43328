//! Preferred relations. Each is first taken for a hard one, all together, then one after the other as far as that costs no VM its
//! place. Where one can't be had whole, the search takes racks first that go against few pairs of groups ([`super::search`]), and
//! then units are moved and exchanged by simulated annealing (Kirkpatrick, Gelatt, Vecchi, 1983), with seeded chance.

use std::collections::HashMap;

use wire::rack_scheduler::RelationKind;

use super::fewer::Roomiest;
use super::sets::{Homes, Memory};
use super::{Budget, Found, LOOK_STEPS, Plan, Solver, bounded, mixed};
use crate::core::ask::Ask;
use crate::core::inventory::{Fits, Inventory};

/// Wishes that are tried one after the other.
const TRIED_MAX: usize = 8;
/// What one such trial may cost.
const TRIAL_STEPS_MAX: u64 = 3_000_000;
/// Turns of annealing: so many, and so many more for each unit.
const TURNS_MIN: u64 = 2_000;
const TURNS_A_UNIT: u64 = 500;
/// Pairs of groups more that go against wishes, which are taken in two of three cases while the search is hottest.
const HOTTEST: f32 = 1.5;

/// Where a relation looks for those that it wants together, or apart.
pub(super) fn place_of(kind: RelationKind, inventory: &Inventory, rack: u32) -> u32 {
    let here = &inventory.racks[rack as usize];
    match kind {
        RelationKind::Apart | RelationKind::Together => rack,
        RelationKind::NearRow => here.row,
        RelationKind::NearZone => here.zone,
    }
}

/// Pairs of groups with homes that a preferred relation between them is not heeded for.
pub fn broken(inventory: &Inventory, ask: &Ask, homes: &[Option<u32>]) -> u64 {
    let pairs = |n: u64| n * n.saturating_sub(1) / 2;
    let mut broken = 0;
    for wish in &ask.wishes {
        let mut at: HashMap<u32, u64> = HashMap::new();
        for home in wish.groups.iter().filter_map(|g| homes[*g as usize]) {
            *at.entry(place_of(wish.kind, inventory, home)).or_default() += 1;
        }
        let together: u64 = at.values().map(|n| pairs(*n)).sum();
        broken += match wish.kind {
            RelationKind::Apart => together,
            _ => pairs(at.values().sum()) - together,
        };
    }
    broken
}

/// As [`super::place_within`], for a request with wishes.
pub(super) fn place(inventory: &Inventory, fits: &mut Fits, ask: &Ask, steps_max: u64) -> Plan {
    let rank = |plan: &Plan| (plan.missing(), broken(inventory, ask, &plan.homes), plan.racks());
    let all: Vec<usize> = (0..ask.wishes.len()).collect();
    let trial = steps_max.min(TRIAL_STEPS_MAX);
    let mut plans: Vec<Plan> = Vec::new();
    if let Some(hard) = ask.with_hard(&all) {
        let plan = bounded(inventory, fits, &hard, trial);
        if plan.fits() {
            return plan;
        }
        plans.push(plan);
    }
    let soft = bounded(inventory, fits, ask, steps_max);
    let mut least = soft.missing();
    let hopeless = least > 0 && !ask.best_effort;
    plans.push(soft);
    let mut kept: Vec<usize> = Vec::new();
    for wish in all.iter().take(if hopeless { 0 } else { TRIED_MAX }) {
        let mut with = kept.clone();
        with.push(*wish);
        let Some(hard) = ask.with_hard(&with).filter(|_| with.len() < all.len()) else {
            continue;
        };
        let plan = bounded(inventory, fits, &hard, trial);
        if plan.missing() <= least {
            least = plan.missing();
            kept = with;
            plans.push(plan);
        }
    }
    plans.into_iter().min_by_key(rank).unwrap_or_default()
}

impl Solver<'_> {
    /// An answer that fewer pairs of groups give way in, if one is found; `share` bounds what that may cost.
    pub(super) fn kinder(&mut self, found: Found, share: u64) -> Found {
        let share = share.min(self.budget.0);
        let kept = self.budget.0 - share;
        self.budget = Budget(share);
        let mut memory = Memory::default();
        let units: Vec<usize> = found.iter().map(|(unit, ..)| *unit).collect();
        let mut roomiest = self.roomiest(&units);
        let mut homes = Homes::of_found(&found);
        let mut racks_of = vec![None; self.ask.groups.len()];
        found
            .iter()
            .for_each(|(unit, rack, _)| self.set_home(&mut racks_of, *unit, *rack));
        let (mut now, mut turn) = (broken(self.inventory, self.ask, &racks_of) as i64, 0);
        let (mut least, mut best) = (now, None);
        let turns_max = TURNS_MIN + TURNS_A_UNIT * units.len() as u64;
        while least > 0 && self.budget.0 > 0 && turn < turns_max && !units.is_empty() {
            turn += 1;
            let left = (self.budget.0 as f32 / share as f32).min(1.0 - turn as f32 / turns_max as f32);
            let heat = HOTTEST * left;
            let Some(moves) = self.chance_moves(&units, &homes, &mut roomiest, turn) else {
                continue;
            };
            let moved: Vec<usize> = moves.iter().map(|(unit, _)| *unit).collect();
            let before = self.against(&moved, &racks_of);
            let back: Vec<(usize, u32)> = moved.iter().map(|u| (*u, homes.of[u])).collect();
            moves
                .iter()
                .for_each(|(u, rack)| self.set_home(&mut racks_of, *u, *rack));
            let worse = self.against(&moved, &racks_of) as i64 - before as i64;
            let chance = (mixed(self.ask.seed ^ turn, u32::MAX) as f32 + 1.0) / 4_294_967_296.0;
            let tried = worse <= 0 || chance < (-(worse as f32) / heat.max(f32::MIN_POSITIVE)).exp();
            if tried && self.moved(&mut homes, &moves, &mut memory) {
                now += worse;
                if now < least {
                    (least, best) = (now, Some(homes.clone()));
                }
            } else {
                back.iter()
                    .for_each(|(u, rack)| self.set_home(&mut racks_of, *u, *rack));
            }
        }
        let kinder = best.and_then(|homes| self.found_whole(&homes, &mut memory));
        self.budget = Budget(kept + self.budget.0);
        kinder.unwrap_or(found)
    }

    /// A unit to another rack, or two units in each other's place.
    fn chance_moves(
        &mut self,
        units: &[usize],
        homes: &Homes,
        roomiest: &mut Roomiest,
        turn: u64,
    ) -> Option<Vec<(usize, u32)>> {
        self.budget.spend(LOOK_STEPS);
        let roll = |n: u32| mixed(self.ask.seed ^ (turn << 8), n) as usize;
        let unit = units[roll(0) % units.len()];
        let here = homes.of[&unit];
        match roll(1) % 4 {
            0 | 1 => {
                let other = units[roll(2) % units.len()];
                let there = homes.of[&other];
                (there != here).then(|| vec![(unit, there), (other, here)])
            }
            2 => {
                let there = *homes.sets.keys().nth(roll(2) % homes.sets.len())?;
                (there != here).then(|| vec![(unit, there)])
            }
            _ => {
                let spare = self.spare(unit, roomiest);
                let there = *spare.get(roll(3) % spare.len().max(1))?;
                (there != here).then(|| vec![(unit, there)])
            }
        }
    }

    /// Makes moves, when every rack then holds its units whole.
    fn moved(&mut self, homes: &mut Homes, moves: &[(usize, u32)], memory: &mut Memory) -> bool {
        let back: Vec<(usize, u32)> = moves.iter().map(|(unit, _)| (*unit, homes.of[unit])).collect();
        moves.iter().for_each(|(unit, rack)| homes.go(*unit, *rack));
        let mut fine = moves.iter().all(|(unit, rack)| {
            let clash = homes.sets[rack].iter().any(|other| self.apart[*unit][*other]);
            !clash && self.allowed(*unit, *rack)
        });
        fine = fine
            && moves
                .iter()
                .all(|(_, rack)| self.whole(*rack, &homes.sets[rack], memory).is_some());
        if !fine {
            back.iter().for_each(|(unit, rack)| homes.go(*unit, *rack));
        }
        fine
    }

    fn set_home(&self, homes: &mut [Option<u32>], unit: usize, rack: u32) {
        self.units[unit]
            .groups
            .iter()
            .for_each(|g| homes[*g as usize] = Some(rack));
    }

    /// Pairs that give way which a group of these units is one of.
    fn against(&mut self, units: &[usize], homes: &[Option<u32>]) -> u64 {
        let moved: Vec<u32> = units.iter().flat_map(|u| &self.units[*u].groups).copied().collect();
        let (mut against, mut looked) = (0, 0);
        for (wish, concerns) in self.ask.wishes.iter().zip(&self.concerned) {
            let apart = wish.kind == RelationKind::Apart;
            for (n, a) in moved.iter().enumerate().filter(|(_, a)| concerns[**a as usize]) {
                let Some(here) = homes[*a as usize] else { continue };
                let here = place_of(wish.kind, self.inventory, here);
                for b in wish.groups.iter().filter(|b| !moved[..=n].contains(b)) {
                    let there = homes[*b as usize].map(|rack| place_of(wish.kind, self.inventory, rack));
                    against += u64::from(there.is_some_and(|there| (there == here) == apart));
                }
                looked += wish.groups.len() as u64;
            }
        }
        self.budget.spend(looked);
        against
    }
}
