//! Some units may share a rack: bounded backtracking, unit by unit, with as few racks as it finds.
//!
//! The first answer is greedy. Then racks are closed ([`super::fewer`]), and the search goes on from other orders, until a bound
//! says that there is no better answer or the steps are spent.

use std::collections::HashMap;

use wire::rack_scheduler::RelationKind;

use super::wishes::place_of;
use super::{Budget, Found, LOOK_STEPS, Solver, mixed};
use crate::core::amounts::{Amounts, DIMS, Sums, add};
use crate::core::pack::Take;

/// Fresh racks that are tried for one unit before its predecessor is moved.
const WIDTH: usize = 12;
/// Orders that are tried.
const ROUNDS: u64 = 10;
/// Steps of one round, as a share of what is left.
const ROUND_SHARE: u64 = 4;
/// Steps that a unit costs when one in a long row finds its home at once.
const UNIT_STEPS: u64 = 20_000;
/// Steps of one round once there is an answer.
const ROUND_STEPS_MAX: u64 = 300_000;
/// Steps of closing racks once there is an answer.
const FEWER_STEPS_MAX: u64 = 6_000_000;
/// Steps of heeding more wishes once there is an answer.
const KINDER_STEPS_MAX: u64 = 6_000_000;

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
#[derive(Clone)]
pub(super) struct Best {
    pub(super) racks: usize,
    pub(super) bound: usize,
    pub(super) found: Option<Found>,
    /// Where the steps of one descent end: nearer once it has found something.
    ends_at: u64,
}

/// A wish that concerns a unit, given the homes so far.
struct WishSoFar {
    kind: RelationKind,
    /// Groups of the unit.
    mine: u32,
    at: HashMap<u32, u32>,
    all: u32,
}

impl Best {
    pub(super) fn new(bound: usize, found: Option<Found>) -> Self {
        let racks = found.as_ref().map_or(usize::MAX, |found| {
            let racks: std::collections::BTreeSet<u32> = found.iter().map(|(_, rack, _)| *rack).collect();
            racks.len()
        });
        Self {
            racks,
            bound,
            found,
            ends_at: 0,
        }
    }
}

/// How many of the largest make up what is wanted.
fn fewest(mut has: Vec<u64>, wanted: u64) -> usize {
    has.sort_unstable_by(|a, b| b.cmp(a));
    let mut sum = 0u64;
    let enough = has.iter().take_while(|more| {
        let short = sum < wanted;
        sum = sum.saturating_add(**more);
        short
    });
    enough.count()
}

impl Solver<'_> {
    pub(super) fn fewest_racks(&mut self, order: &[usize]) -> Option<Found> {
        let mut best = Best::new(self.fewest_bound(order), None);
        let mut whole = false;
        for round in 0..ROUNDS {
            let share = match &best.found {
                // the first way down has to come to its end, whatever it costs
                None if round == 0 => (self.budget.0 / ROUND_SHARE)
                    .max(UNIT_STEPS * order.len() as u64)
                    .min(self.budget.0 / 2),
                None => self.budget.0 / ROUND_SHARE,
                Some(_) => ROUND_STEPS_MAX.min(self.budget.0),
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
            best.ends_at = 0;
            whole = self.descend(&order, &mut Partial::default(), &mut best, round % 2 == 1);
            let spent = share - self.budget.0;
            self.budget = Budget(kept + share - spent);
            if round == 0 {
                let share = match &best.found {
                    None => self.budget.0 / ROUND_SHARE,
                    Some(_) => FEWER_STEPS_MAX,
                };
                self.fewer(&order, &mut best, share);
            }
            if whole {
                // every choice of racks was looked at
                break;
            }
        }
        self.cut |= best.found.is_none() && !whole;
        best.found
    }

    /// One answer that heeds wishes where it can.
    pub(super) fn search(&mut self, order: &[usize]) -> Option<Found> {
        let mut best = Best::new(usize::MAX, None);
        let share = self.budget.0 / ROUND_SHARE;
        let kept = self.budget.0 - share;
        self.budget = Budget(share);
        self.descend(order, &mut Partial::default(), &mut best, false);
        self.budget = Budget(kept + self.budget.0);
        let found = self.kinder(best.found?, KINDER_STEPS_MAX);
        let mut fewer = Best::new(self.fewest_bound(order), Some(found.clone()));
        self.fewer(order, &mut fewer, FEWER_STEPS_MAX);
        let fewer = fewer.found.filter(|fewer| self.broken(fewer) <= self.broken(&found));
        Some(fewer.unwrap_or(found))
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
        let racks = 0..self.inventory.racks.len() as u32;
        let by_room = |d: usize| {
            fewest(
                racks.clone().map(|r| self.inventory.rack_room(r)[d]).collect(),
                wanted[d],
            )
        };
        let by_class = |c: usize| {
            let wanted: u64 = order
                .iter()
                .flat_map(|u| &self.units[*u].items)
                .filter(|i| i.1 as usize == c)
                .map(|i| u64::from(i.2))
                .sum();
            fewest(self.fitting[c].iter().map(|n| u64::from(*n)).collect(), wanted)
        };
        let by_amount = (0..DIMS).map(by_room).max().unwrap_or(0);
        let by_class = (0..self.fitting.len()).map(by_class).max().unwrap_or(0);
        by_amount.max(by_class).max(clique.len()).max(1)
    }

    /// True when all that is below was looked at.
    fn descend(&mut self, order: &[usize], partial: &mut Partial, best: &mut Best, roomy: bool) -> bool {
        let Some((unit, others)) = order.split_first() else {
            if partial.used.len() < best.racks {
                if best.found.is_none() {
                    best.ends_at = self.budget.0.saturating_sub(ROUND_STEPS_MAX);
                }
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
            if self.budget.0 <= best.ends_at {
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
        let wishes = self.wishes_of(unit, partial);
        let ours = |rack: &u32| partial.used.get(rack);
        let clash = |used: &Used| used.units.iter().any(|other| self.apart[unit][*other]);
        let list: Vec<(u64, u32)> = self.candidates[signature].list.clone();
        self.budget.spend(LOOK_STEPS + 4 * list.len() as u64);
        let mut racks: Vec<(u32, bool, u64, u32)> = list
            .into_iter()
            .filter(|(_, rack)| self.may(unit, *rack) && ours(rack).is_none_or(|used| !clash(used)))
            .map(|(score, rack)| {
                let score = if roomy { u64::MAX - score } else { score };
                (self.against_wishes(&wishes, rack), ours(&rack).is_none(), score, rack)
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

    /// For each wish that concerns a unit: how many groups it has at each place so far, and in all.
    fn wishes_of(&mut self, unit: usize, partial: &Partial) -> Vec<WishSoFar> {
        let mut wishes = Vec::new();
        for (wish, concerns) in self.ask.wishes.iter().zip(&self.concerned) {
            let count = |unit: usize| {
                self.units[unit]
                    .groups
                    .iter()
                    .filter(|g| concerns[**g as usize])
                    .count() as u32
            };
            let mine = count(unit);
            if mine == 0 {
                continue;
            }
            let (mut at, mut all) = (HashMap::new(), 0);
            for (other, (home, _)) in &partial.homes {
                let others = count(*other);
                *at.entry(place_of(wish.kind, self.inventory, *home)).or_default() += others;
                all += others;
            }
            wishes.push(WishSoFar {
                kind: wish.kind,
                mine,
                at,
                all,
            });
        }
        self.budget.spend((wishes.len() * partial.homes.len()) as u64 * 4);
        wishes
    }

    /// How many pairs would give way in this rack.
    fn against_wishes(&self, wishes: &[WishSoFar], rack: u32) -> u32 {
        let of = |wish: &WishSoFar| {
            let here = wish
                .at
                .get(&place_of(wish.kind, self.inventory, rack))
                .copied()
                .unwrap_or(0);
            let against = if wish.kind == RelationKind::Apart {
                here
            } else {
                wish.all - here
            };
            against * wish.mine
        };
        wishes.iter().map(of).sum()
    }

    /// Pairs of groups that a preferred relation is not heeded between.
    fn broken(&self, found: &Found) -> u64 {
        let mut homes = vec![None; self.ask.groups.len()];
        for (unit, rack, _) in found {
            self.units[*unit]
                .groups
                .iter()
                .for_each(|g| homes[*g as usize] = Some(*rack));
        }
        super::wishes::broken(self.inventory, self.ask, &homes)
    }
}
