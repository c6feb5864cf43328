//! Which rack is whose home, and which host gets which VM.
//!
//! ```text
//! groups -> units (groups that belong together) -> racks that could take each (index of what is free, then fits by host)
//!        -> near: rows and zones that could take them all, one after the other
//!        -> all units apart: matching, which is exact     [matching]
//!           else: bounded backtracking, fewest racks      [search], [fewer]
//!        -> as much as fits, when asked for               [most], [exchange]
//! ```
//!
//! Among racks that will do, the one with the least left over is taken, and a lopsided rest counts against it: whole empty
//! racks stay for those who need one. Equal ones are told apart by the request's seed, so the same request on the same
//! inventory gets the same answer. Where several schedulers book, racks that this one booked in last go before those that nobody
//! did, and those before the others'.

mod assignment;
mod exchange;
mod fewer;
mod matching;
mod most;
mod search;
mod sets;
mod wishes;

pub use wishes::broken;

use std::collections::HashMap;

use super::amounts::{Amounts, DIMS, Sums, add, sums_fit};
use super::ask::Ask;
use super::inventory::{Fits, Inventory, carrying};
use super::pack::{Budget, Item, Packing, Take};

/// What one request may cost: about a fifth of a second.
const STEPS_MAX: u64 = 40_000_000;
/// What it costs to look at a rack, beside its hosts and what is tried there.
const LOOK_STEPS: u64 = 40;
/// Choices of rows and zones that are looked at.
const NEAR_CHOICES_MAX: usize = 256;

/// An answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Each group's home.
    pub homes: Vec<Option<u32>>,
    /// VMs on hosts.
    pub takes: Vec<Take>,
    /// VMs of each group that have no place.
    pub unplaced: Vec<u32>,
    /// Racks that could take each group's unit alone.
    pub able: Vec<u32>,
    /// The search ended at its limit: there may be a way that it didn't find.
    pub exhausted: bool,
}

impl Plan {
    /// Everything has a place.
    pub fn fits(&self) -> bool {
        self.unplaced.iter().all(|n| *n == 0)
    }
    /// VMs that have no place.
    pub fn missing(&self) -> u64 {
        self.unplaced.iter().map(|n| u64::from(*n)).sum()
    }
    /// Racks used.
    pub fn racks(&self) -> usize {
        let mut racks: Vec<u32> = self.homes.iter().flatten().copied().collect();
        racks.sort_unstable();
        racks.dedup();
        racks.len()
    }
}

/// Finds a place for everything, or, when that was asked for, for as much as it can.
pub fn place(inventory: &Inventory, fits: &mut Fits, ask: &Ask) -> Plan {
    place_within(inventory, fits, ask, STEPS_MAX)
}

/// As [`place`], with another bound for the search: about one step for each host that is tried for a VM.
pub fn place_within(inventory: &Inventory, fits: &mut Fits, ask: &Ask, steps_max: u64) -> Plan {
    match ask.wishes.is_empty() {
        true => bounded(inventory, fits, ask, steps_max),
        false => wishes::place(inventory, fits, ask, steps_max),
    }
}

/// With the bound per host, and without it where that is preferred and gives more VMs a place.
fn bounded(inventory: &Inventory, fits: &mut Fits, ask: &Ask, steps_max: u64) -> Plan {
    let plan = Solver::new(inventory, fits, ask, true, steps_max).solve();
    if !plan.fits() && ask.per_host_preferred {
        let without = Solver::new(inventory, fits, ask, false, steps_max).solve();
        if without.missing() < plan.missing() {
            return without;
        }
    }
    plan
}

/// Slot of the group in its unit, class, count.
type Wanted = Vec<(u32, u32, u32)>;

/// Groups that share a rack.
struct Unit {
    groups: Vec<u32>,
    items: Wanted,
    demand: Sums,
    vms: u32,
    /// Units with the same number want the same.
    signature: usize,
    row: Option<u32>,
    zone: Option<u32>,
}

/// Racks that could take a unit, the best first.
#[derive(Default, Clone)]
struct Candidates {
    list: Vec<(u64, u32)>,
    sorted: usize,
}

impl Candidates {
    fn new(mut list: Vec<(u64, u32)>, soon: usize) -> Self {
        let sorted = soon.min(list.len());
        if sorted < list.len() && sorted > 0 {
            list.select_nth_unstable(sorted - 1);
        }
        list[..sorted].sort_unstable();
        Self { list, sorted }
    }
    fn get(&mut self, n: usize) -> Option<u32> {
        if n >= self.sorted && self.sorted < self.list.len() {
            self.list[self.sorted..].sort_unstable();
            self.sorted = self.list.len();
        }
        self.list.get(n).map(|(_, rack)| *rack)
    }
}

struct Solver<'a> {
    inventory: &'a Inventory,
    ask: &'a Ask,
    per_host: u32,
    carries: Vec<Option<Vec<bool>>>,
    units: Vec<Unit>,
    apart: Vec<Vec<bool>>,
    /// By wish: the groups that it concerns.
    concerned: Vec<Vec<bool>>,
    candidates: Vec<Candidates>,
    /// How many VMs of each class alone fit into each rack, whosever they are.
    fitting: Vec<Vec<u32>>,
    packed: HashMap<(usize, u32), Option<Vec<Take>>>,
    budget: Budget,
    steps_max: u64,
    /// A search ended at its share of the steps.
    cut: bool,
}

impl<'a> Solver<'a> {
    fn new(inventory: &'a Inventory, fits: &mut Fits, ask: &'a Ask, bounded: bool, steps_max: u64) -> Self {
        let mut solver = Self {
            inventory,
            ask,
            per_host: if bounded { ask.per_host } else { u32::MAX },
            carries: ask.classes.iter().map(|c| carrying(inventory, &c.labels)).collect(),
            units: vec![],
            apart: vec![],
            concerned: vec![],
            candidates: vec![],
            fitting: vec![],
            packed: HashMap::new(),
            budget: Budget(steps_max),
            steps_max,
            cut: false,
        };
        solver.make_units();
        solver.find_candidates(fits, bounded);
        solver
    }

    fn make_units(&mut self) {
        let ask = self.ask;
        let mut by_root: HashMap<u32, usize> = HashMap::new();
        for (g, group) in ask.groups.iter().enumerate() {
            let unit = *by_root.entry(ask.together[g]).or_insert_with(|| {
                self.units.push(Unit {
                    groups: vec![],
                    items: vec![],
                    demand: Sums::default(),
                    vms: 0,
                    signature: 0,
                    row: None,
                    zone: None,
                });
                self.units.len() - 1
            });
            let unit = &mut self.units[unit];
            let slot = unit.groups.len() as u32;
            unit.groups.push(g as u32);
            unit.vms += group.vms();
            add(&mut unit.demand, &ask.demand(g));
            let some = group.counts.iter().enumerate().filter(|(_, n)| **n > 0);
            unit.items.extend(some.map(|(class, n)| (slot, class as u32, *n)));
        }
        let mut signatures: HashMap<(Wanted, Vec<usize>), usize> = HashMap::new();
        let mut next = 0;
        for unit in &mut self.units {
            let plain = unit.groups.iter().all(|g| {
                let group = &ask.groups[*g as usize];
                group.home.is_none() && group.present.is_empty()
            });
            let selects = unit.groups.iter().map(|g| ask.groups[*g as usize].select).collect();
            unit.signature = match plain {
                true => *signatures.entry((unit.items.clone(), selects)).or_insert(next),
                false => next,
            };
            next = next.max(unit.signature + 1);
        }
        for wish in &ask.wishes {
            let mut concerned = vec![false; ask.groups.len()];
            wish.groups.iter().for_each(|g| concerned[*g as usize] = true);
            self.concerned.push(concerned);
        }
        let apart = |a: &Unit, b: &Unit| {
            let of = |g: &u32| b.groups.iter().any(|h| ask.apart[*g as usize][*h as usize]);
            a.groups.iter().any(of)
        };
        self.apart = self
            .units
            .iter()
            .map(|a| self.units.iter().map(|b| apart(a, b)).collect())
            .collect();
    }

    fn find_candidates(&mut self, fits: &mut Fits, bounded: bool) {
        let by_class: Vec<Vec<u32>> = (0..self.ask.classes.len())
            .map(|c| fits.of(self.inventory, &self.ask.fit_key(c, bounded)))
            .collect();
        let signatures = self.units.iter().map(|u| u.signature + 1).max().unwrap_or(0);
        self.candidates = vec![Candidates::default(); signatures];
        let mut known = vec![false; signatures];
        for unit in &self.units {
            if std::mem::replace(&mut known[unit.signature], true) {
                continue;
            }
            let soon = 4 * self.units.len() + 16;
            let able = (0..self.inventory.racks.len() as u32).filter(|rack| {
                sums_fit(&unit.demand, self.inventory.rack_room(*rack))
                    && unit
                        .items
                        .iter()
                        .all(|(_, class, n)| by_class[*class as usize][*rack as usize] >= *n)
                    && unit.groups.iter().all(|g| self.ask.allows(*g as usize, *rack))
            });
            let list = able.map(|rack| (self.score(&unit.demand, rack), rack)).collect();
            self.candidates[unit.signature] = Candidates::new(list, soon);
        }
        // a bound per host is one of each group
        let of_all = |c: usize| fits.of(self.inventory, &self.ask.fit_key(c, false));
        self.fitting = match self.per_host {
            u32::MAX => by_class,
            _ => (0..self.ask.classes.len()).map(of_all).collect(),
        };
    }

    /// The less is left over, and the more evenly over the dimensions, the smaller.
    fn score(&self, demand: &Sums, rack: u32) -> u64 {
        let (room, scale) = (self.inventory.rack_room(rack), &self.inventory.scale);
        let (mut sum, mut most, mut least) = (0.0f32, 0.0f32, f32::MAX);
        for d in (0..DIMS).filter(|d| scale[*d] > 0.0) {
            let left = scale[d] * room[d].saturating_sub(demand[d]) as f32;
            sum += left;
            most = most.max(left);
            least = least.min(left);
        }
        let score = sum + (most - least.min(most));
        // the sign's bit is free, and one of the least: room to put whose the rack is before all else
        let whose = (self.inventory.whose(rack) as u64) << 62;
        whose | (u64::from(score.to_bits() >> 1) << 32) | u64::from(mixed(self.ask.seed, rack))
    }

    fn may(&self, unit: usize, rack: u32) -> bool {
        let (unit, rack) = (&self.units[unit], &self.inventory.racks[rack as usize]);
        unit.row.is_none_or(|row| row == rack.row) && unit.zone.is_none_or(|zone| zone == rack.zone)
    }

    fn items(&self, unit: usize) -> Vec<Item<'_>> {
        let item = |(slot, class, count): &(u32, u32, u32)| Item {
            group: *slot,
            class: *class,
            needs: self.ask.classes[*class as usize].needs,
            count: *count,
            carries: self.carries[*class as usize].as_deref(),
        };
        self.units[unit].items.iter().map(item).collect()
    }

    fn rooms(&self, rack: u32) -> Vec<Amounts> {
        let hosts = self.inventory.racks[rack as usize].hosts.clone();
        hosts.map(|h| self.inventory.room(h)).collect()
    }

    /// Packs a unit into what is left of a rack. Groups in what comes back are slots of the unit.
    fn pack(&mut self, unit: usize, rack: u32, rooms: &mut [Amounts], all: bool) -> Option<Vec<Take>> {
        let mut budget = self.budget;
        budget.spend(LOOK_STEPS + 4 * rooms.len() as u64);
        let groups = &self.units[unit].groups;
        let present = |slot: u32, host: usize| -> u32 {
            let group = &self.ask.groups[groups[slot as usize] as usize];
            group.present.iter().filter(|(h, _)| *h == host).map(|(_, n)| *n).sum()
        };
        let packing = Packing {
            inventory: self.inventory,
            first_host: self.inventory.racks[rack as usize].hosts.start,
            per_host: self.per_host,
            present: &present,
        };
        let items = self.items(unit);
        let takes = match all {
            true => packing.all(rooms, &items, &mut budget),
            false => Some(packing.most(rooms, &items, &mut budget)),
        };
        self.budget = budget;
        takes
    }

    /// Packs a unit into an otherwise untouched rack; remembered for all units that want the same.
    fn packs_alone(&mut self, unit: usize, rack: u32) -> bool {
        let key = (self.units[unit].signature, rack);
        if let Some(known) = self.packed.get(&key) {
            return known.is_some();
        }
        let mut rooms = self.rooms(rack);
        let takes = self.pack(unit, rack, &mut rooms, true);
        let packs = takes.is_some();
        self.packed.insert(key, takes);
        packs
    }

    fn solve(mut self) -> Plan {
        let nothing_to_do = self.units.iter().all(|u| u.vms == 0);
        let able: Vec<u32> = {
            let of_unit = |u: &Unit| self.candidates[u.signature].list.len() as u32;
            let mut able = vec![0; self.ask.groups.len()];
            self.units
                .iter()
                .for_each(|u| u.groups.iter().for_each(|g| able[*g as usize] = of_unit(u)));
            able
        };
        let found = match nothing_to_do {
            true => Some(vec![]),
            false => self.near(),
        };
        let exhausted = self.budget.0 == 0 || (found.is_none() && self.cut);
        let found = match found {
            None if self.ask.best_effort => {
                self.budget = Budget(self.steps_max);
                self.most()
            }
            found => found.unwrap_or_default(),
        };
        let mut plan = Plan {
            homes: self.ask.groups.iter().map(|g| g.home).collect(),
            takes: vec![],
            unplaced: self.ask.groups.iter().map(super::ask::Group::vms).collect(),
            able,
            exhausted,
        };
        for (unit, rack, takes) in found {
            for take in takes {
                let group = self.units[unit].groups[take.group as usize];
                plan.homes[group as usize] = Some(rack);
                plan.unplaced[group as usize] -= take.count;
                plan.takes.push(Take { group, ..take });
            }
        }
        plan
    }

    /// What a unit wants, with its dimensions made comparable.
    fn weight(&self, unit: usize) -> f32 {
        let demand = &self.units[unit].demand;
        (0..DIMS).map(|d| self.inventory.scale[d] * demand[d] as f32).sum()
    }

    /// Units that want something, in the order in which they are given a home: those with fewest choices first.
    fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.units.len()).filter(|u| self.units[*u].vms > 0).collect();
        let choices = |u: &usize| self.candidates[self.units[*u].signature].list.len();
        order.sort_by(|a, b| {
            self.weight(*b)
                .total_cmp(&self.weight(*a))
                .then(choices(a).cmp(&choices(b)))
                .then(a.cmp(b))
        });
        order
    }

    /// Chooses rows and zones for those that want to be near one another, then looks for homes.
    fn near(&mut self) -> Option<Found> {
        let mut parts: Vec<(bool, Vec<usize>)> = Vec::new();
        for (is_row, roots) in [(true, &self.ask.near_row), (false, &self.ask.near_zone)] {
            let mut by_root: HashMap<u32, Vec<usize>> = HashMap::new();
            for (u, unit) in self.units.iter().enumerate() {
                for g in &unit.groups {
                    by_root.entry(roots[*g as usize]).or_default().push(u);
                }
            }
            let mut found: Vec<Vec<usize>> = by_root.into_values().collect();
            found.iter_mut().for_each(|us| us.dedup());
            found.sort();
            parts.extend(found.into_iter().filter(|us| us.len() > 1).map(|us| (is_row, us)));
        }
        let mut choices = NEAR_CHOICES_MAX;
        self.near_from(&parts, &mut choices)
    }

    fn near_from(&mut self, parts: &[(bool, Vec<usize>)], choices: &mut usize) -> Option<Found> {
        let Some(((is_row, units), others)) = parts.split_first() else {
            *choices = choices.saturating_sub(1);
            return self.homes();
        };
        for place in self.near_places(*is_row, units) {
            if *choices == 0 || self.budget.0 == 0 {
                return None;
            }
            for u in units {
                match is_row {
                    true => self.units[*u].row = Some(place),
                    false => self.units[*u].zone = Some(place),
                }
            }
            if let Some(found) = self.near_from(others, choices) {
                return Some(found);
            }
        }
        for u in units {
            match is_row {
                true => self.units[*u].row = None,
                false => self.units[*u].zone = None,
            }
        }
        None
    }

    /// Rows (or zones) in which each unit finds a rack and all of them room in sum, the tightest first.
    fn near_places(&self, is_row: bool, units: &[usize]) -> Vec<u32> {
        let place_of = |rack: &super::inventory::Rack| if is_row { rack.row } else { rack.zone };
        let mut room: HashMap<u32, Sums> = HashMap::new();
        for (n, rack) in self.inventory.racks.iter().enumerate() {
            add(
                room.entry(place_of(rack)).or_default(),
                self.inventory.rack_room(n as u32),
            );
        }
        let mut wanted = Sums::default();
        units.iter().for_each(|u| add(&mut wanted, &self.units[*u].demand));
        room.retain(|_, sums| sums_fit(&wanted, sums));
        for u in units.iter().filter(|u| self.units[**u].vms > 0) {
            let racks = &self.candidates[self.units[*u].signature].list;
            let has: std::collections::HashSet<u32> = racks
                .iter()
                .map(|(_, r)| place_of(&self.inventory.racks[*r as usize]))
                .collect();
            room.retain(|place, _| has.contains(place));
        }
        let scale = &self.inventory.scale;
        let weight = |sums: &Sums| -> f32 { (0..DIMS).map(|d| scale[d] * sums[d] as f32).sum() };
        let mut places: Vec<(f32, u32)> = room.iter().map(|(place, sums)| (weight(sums), *place)).collect();
        places.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        places.into_iter().map(|(_, place)| place).collect()
    }

    fn homes(&mut self) -> Option<Found> {
        let order = self.order();
        let alone = order.iter().all(|a| order.iter().all(|b| a == b || self.apart[*a][*b]));
        if !self.ask.wishes.is_empty()
            && let Some(found) = self.search(&order)
        {
            return Some(found);
        }
        match alone {
            true => self.matched(&order),
            false => self.fewest_racks(&order),
        }
    }
}

/// Units with their racks and what they take there.
type Found = Vec<(usize, u32, Vec<Take>)>;

/// A number that differs from rack to rack and from seed to seed (the finaliser of SplitMix64).
fn mixed(seed: u64, rack: u32) -> u32 {
    let mut z = seed ^ (u64::from(rack) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z ^ (z >> 31)) as u32
}
