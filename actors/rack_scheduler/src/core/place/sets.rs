//! Units that share a rack, packed together: what a rack holds of a set of them, remembered while one search runs.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::{Budget, Found, LOOK_STEPS, Solver};
use crate::core::amounts::{Amounts, Sums, add, sums_fit};
use crate::core::pack::{Item, Packing, Take, most_bound};

/// What one set may cost to pack whole: a search that can't end well must not eat what others need.
const WHOLE_STEPS_MAX: u64 = 40_000;

/// What a rack holds of a set of units.
pub(super) struct Held {
    pub(super) placed: u32,
    /// In the order of the set.
    pub(super) takes: Vec<Vec<Take>>,
}

/// Units by the racks in which they are.
#[derive(Default, Clone)]
pub(super) struct Homes {
    pub(super) of: BTreeMap<usize, u32>,
    pub(super) sets: BTreeMap<u32, Vec<usize>>,
}

impl Homes {
    pub(super) fn of_found(found: &Found) -> Self {
        let mut homes = Self::default();
        found.iter().for_each(|(unit, rack, _)| homes.go(*unit, *rack));
        homes
    }
    pub(super) fn set(&self, rack: u32) -> Vec<usize> {
        self.sets.get(&rack).cloned().unwrap_or_default()
    }
    /// The units of a rack with one more.
    pub(super) fn with(&self, rack: u32, unit: usize) -> Vec<usize> {
        let mut set = self.set(rack);
        set.push(unit);
        set.sort_unstable();
        set
    }
    pub(super) fn leave(&mut self, unit: usize) {
        if let Some(rack) = self.of.remove(&unit) {
            let set = self.sets.entry(rack).or_default();
            set.retain(|u| *u != unit);
            if set.is_empty() {
                self.sets.remove(&rack);
            }
        }
    }
    pub(super) fn go(&mut self, unit: usize, rack: u32) {
        self.leave(unit);
        self.of.insert(unit, rack);
        let set = self.sets.entry(rack).or_default();
        set.push(unit);
        set.sort_unstable();
    }
}

/// A rack and the units in it.
type Set = (u32, Vec<usize>);

/// What was reckoned already.
#[derive(Default)]
pub(super) struct Memory {
    held: HashMap<Set, Rc<Held>>,
    whole: HashMap<Set, Option<Rc<Held>>>,
    bounds: HashMap<Set, u32>,
    pub(super) choices: HashMap<usize, Rc<Vec<u32>>>,
}

impl Solver<'_> {
    /// No packing of the set into the rack holds more VMs.
    pub(super) fn bound(&mut self, rack: u32, set: &[usize], memory: &mut Memory) -> u32 {
        let at = (rack, set.to_vec());
        self.budget.spend(LOOK_STEPS);
        if let Some(known) = memory.held.get(&at) {
            return known.placed;
        }
        if let Some(known) = memory.bounds.get(&at) {
            return *known;
        }
        let (items, _) = self.items_of(set);
        let bound = most_bound(&self.rooms(rack), &items);
        self.budget
            .spend(items.len() as u64 + 2 * self.inventory.racks[rack as usize].hosts.len() as u64);
        memory.bounds.insert(at, bound);
        bound
    }

    /// Everything that the units of a set want; without a bound per host VMs of one kind are one item, whosever they are. And
    /// the groups, by slot.
    fn items_of(&self, set: &[usize]) -> (Vec<Item<'_>>, Vec<u32>) {
        let (mut items, mut groups): (Vec<Item<'_>>, Vec<u32>) = (Vec::new(), Vec::new());
        for unit in set {
            let first = groups.len() as u32;
            for mut item in self.items(*unit) {
                item.group += first;
                let same = items.iter_mut().find(|i| i.class == item.class);
                match same.filter(|_| self.per_host == u32::MAX) {
                    Some(same) => same.count += item.count,
                    None => items.push(item),
                }
            }
            groups.extend(&self.units[*unit].groups);
        }
        (items, groups)
    }

    /// As much of a set as is found to fit into a rack.
    pub(super) fn held(&mut self, rack: u32, set: &[usize], memory: &mut Memory) -> Rc<Held> {
        let at = (rack, set.to_vec());
        self.budget.spend(LOOK_STEPS);
        if let Some(known) = memory.held.get(&at) {
            return known.clone();
        }
        let takes = self.packed_set(rack, set, self.budget.0, |packing, rooms, items, budget| {
            Some(packing.most(rooms, items, budget))
        });
        let held = Rc::new(self.dealt(set, &takes.unwrap_or_default()));
        memory.held.insert(at, held.clone());
        held
    }

    /// All of a set in a rack; `None` when no way is found.
    pub(super) fn whole(&mut self, rack: u32, set: &[usize], memory: &mut Memory) -> Option<Rc<Held>> {
        let at = (rack, set.to_vec());
        self.budget.spend(LOOK_STEPS);
        if let Some(known) = memory.whole.get(&at) {
            return known.clone();
        }
        let mut wanted = Sums::default();
        set.iter().for_each(|u| add(&mut wanted, &self.units[*u].demand));
        let takes = match sums_fit(&wanted, self.inventory.rack_room(rack)) {
            true => self.packed_set(rack, set, WHOLE_STEPS_MAX, |packing, rooms, items, budget| {
                packing.all(rooms, items, budget)
            }),
            false => None,
        };
        let held = takes.map(|takes| Rc::new(self.dealt(set, &takes)));
        // where the steps ended in the middle, nothing is known
        if held.is_some() || self.budget.0 > 0 {
            memory.whole.insert(at, held.clone());
        }
        held
    }

    /// Packs a set into an otherwise untouched rack; `steps_max` bounds what that may cost.
    fn packed_set(
        &mut self,
        rack: u32,
        set: &[usize],
        steps_max: u64,
        pack: impl Fn(&Packing<'_>, &mut [Amounts], &[Item<'_>], &mut Budget) -> Option<Vec<Take>>,
    ) -> Option<Vec<Take>> {
        let mut rooms = self.rooms(rack);
        self.budget.spend(4 * LOOK_STEPS + 2 * rooms.len() as u64);
        let share = self.budget.0.min(steps_max);
        let mut budget = Budget(share);
        let (items, groups) = self.items_of(set);
        let ask = self.ask;
        let present = |slot: u32, host: usize| -> u32 {
            let group = &ask.groups[groups[slot as usize] as usize];
            group.present.iter().filter(|(h, _)| *h == host).map(|(_, n)| *n).sum()
        };
        let packing = Packing {
            inventory: self.inventory,
            first_host: self.inventory.racks[rack as usize].hosts.start,
            per_host: self.per_host,
            present: &present,
        };
        let takes = match items.is_empty() {
            true => Some(vec![]),
            false => pack(&packing, &mut rooms, &items, &mut budget),
        };
        self.budget.spend(share - budget.0);
        takes
    }

    /// Deals what a rack holds to the units that wanted it, under their own slots.
    fn dealt(&self, set: &[usize], takes: &[Take]) -> Held {
        let mut left = takes.to_vec();
        let mut first = 0;
        let mut dealt = Vec::with_capacity(set.len());
        for unit in set {
            let mut of_unit = Vec::new();
            for (slot, class, count) in &self.units[*unit].items {
                let mut wanted = *count;
                let fits = |t: &&mut Take| t.class == *class && (self.per_host == u32::MAX || t.group == first + slot);
                for take in left.iter_mut().filter(fits) {
                    let some = take.count.min(wanted);
                    take.count -= some;
                    wanted -= some;
                    if some > 0 {
                        of_unit.push(Take {
                            group: *slot,
                            count: some,
                            ..*take
                        });
                    }
                }
            }
            first += self.units[*unit].groups.len() as u32;
            dealt.push(of_unit);
        }
        Held {
            placed: takes.iter().map(|t| t.count).sum(),
            takes: dealt,
        }
    }
}
