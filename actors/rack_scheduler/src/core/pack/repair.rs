//! VMs that greedy found no host for. One that fits nowhere takes the place of another that fits elsewhere; else it ejects some,
//! those first that were seldom hard to place, and they look for a host in turn. Ends when its steps are spent.

use super::{Budget, Item, OnHost, Packing};
use crate::core::amounts::Amounts;

/// What one repair may cost.
const STEPS_MAX: u64 = 30_000;
/// VMs that one may eject.
const EJECTED_MAX: usize = 3;

/// Hosts as they are filled now.
struct Filled<'p> {
    packing: &'p Packing<'p>,
    items: &'p [Item<'p>],
    /// The first item of each item's group stands for the group.
    group: Vec<usize>,
    rooms: Vec<Amounts>,
    /// By host, then item.
    on: Vec<u32>,
    /// By host, then group.
    of_group: Vec<u32>,
    /// How often an item's VM fitted nowhere.
    hard: Vec<u32>,
    turn: u32,
}

impl Packing<'_> {
    /// All of `items`, from what greedy has placed of them; `None` when no way is found.
    pub(super) fn repaired(
        &self,
        rooms: &[Amounts],
        items: &[Item<'_>],
        placed: &[OnHost],
        budget: &mut Budget,
    ) -> Option<Vec<OnHost>> {
        let group = |i: usize| items.iter().position(|j| j.group == items[i].group).unwrap_or(i);
        let mut filled = Filled {
            packing: self,
            items,
            group: (0..items.len()).map(group).collect(),
            rooms: rooms.to_vec(),
            on: vec![0; rooms.len() * items.len()],
            of_group: vec![0; rooms.len() * items.len()],
            hard: vec![0; items.len()],
            turn: 0,
        };
        let mut left: Vec<u32> = items.iter().map(|i| i.count).collect();
        for (item, local, count) in placed {
            left[*item] -= count;
            (0..*count).for_each(|_| filled.put(*item, *local));
        }
        let mut waiting: Vec<usize> = (0..items.len()).flat_map(|i| (0..left[i]).map(move |_| i)).collect();
        let share = budget.0.min(STEPS_MAX);
        let mut steps = Budget(share);
        while let Some(item) = waiting.pop() {
            if !filled.insert(item, &mut steps) && !filled.exchange(item, &mut steps) {
                filled.hard[item] += 1;
                match filled.eject(item, &mut steps) {
                    Some(out) if steps.0 > 0 => waiting.extend(out),
                    _ => {
                        budget.spend(share - steps.0);
                        return None;
                    }
                }
            }
        }
        budget.spend(share - steps.0);
        Some(filled.takes())
    }
}

impl Filled<'_> {
    fn put(&mut self, item: usize, local: usize) {
        self.rooms[local].take(&self.items[item].needs, 1);
        self.on[local * self.items.len() + item] += 1;
        self.of_group[local * self.items.len() + self.group[item]] += 1;
    }
    fn pull(&mut self, item: usize, local: usize) {
        self.rooms[local].give(&self.items[item].needs);
        self.on[local * self.items.len() + item] -= 1;
        self.of_group[local * self.items.len() + self.group[item]] -= 1;
    }
    fn has(&self, item: usize, local: usize) -> bool {
        self.on[local * self.items.len() + item] > 0
    }
    /// How many VMs more of the item's group the host may have.
    fn free(&self, item: usize, local: usize) -> u32 {
        let bound = self.packing.bound(&self.items[item], local);
        bound.saturating_sub(self.of_group[local * self.items.len() + self.group[item]])
    }
    fn able(&self, item: usize, local: usize) -> bool {
        self.items[item].needs.fits(&self.rooms[local]) && self.free(item, local) > 0
    }
    /// Hosts, each time from another one on.
    fn hosts(&mut self) -> impl Iterator<Item = usize> + use<> {
        self.turn = self.turn.wrapping_mul(0x9E37_79B1).wrapping_add(0x7F4A_7C15);
        let (hosts, first) = (self.rooms.len(), (self.turn >> 8) as usize);
        (0..hosts).map(move |n| (first + n) % hosts)
    }

    /// On any host that has room.
    fn insert(&mut self, item: usize, steps: &mut Budget) -> bool {
        steps.spend(self.rooms.len() as u64);
        let host = self.hosts().find(|local| self.able(item, *local));
        if let Some(local) = host {
            self.put(item, local);
        }
        host.is_some()
    }

    /// In the place of a VM that has room elsewhere.
    fn exchange(&mut self, item: usize, steps: &mut Budget) -> bool {
        for local in self.hosts() {
            if self.packing.bound(&self.items[item], local) == 0 {
                continue;
            }
            for other in 0..self.items.len() {
                if other == item || !self.has(other, local) || !steps.spend(2) {
                    continue;
                }
                self.pull(other, local);
                if self.able(item, local) {
                    steps.spend(self.rooms.len() as u64);
                    let elsewhere = self.hosts().find(|to| *to != local && self.able(other, *to));
                    if let Some(to) = elsewhere {
                        self.put(other, to);
                        self.put(item, local);
                        return true;
                    }
                }
                self.put(other, local);
            }
        }
        false
    }

    /// Where those that have to go were hard to place least often.
    fn eject(&mut self, item: usize, steps: &mut Budget) -> Option<Vec<usize>> {
        let mut best: Option<(u32, usize, Vec<usize>)> = None;
        for local in self.hosts() {
            steps.spend(4 * self.items.len() as u64);
            let Some((cost, out)) = self.who_goes(item, local) else {
                continue;
            };
            if best.as_ref().is_none_or(|(least, ..)| cost < *least) {
                best = Some((cost, local, out));
            }
        }
        let (_, local, out) = best?;
        out.iter().for_each(|other| self.pull(*other, local));
        self.put(item, local);
        Some(out)
    }

    /// Who would have to go from a host, and what that costs.
    fn who_goes(&mut self, item: usize, local: usize) -> Option<(u32, Vec<usize>)> {
        if self.packing.bound(&self.items[item], local) == 0 {
            return None;
        }
        let (mut out, mut cost): (Vec<usize>, u32) = (Vec::new(), 0);
        while !self.able(item, local) {
            let crowded = self.free(item, local) == 0;
            let helps = |other: &usize| {
                let wanted = &self.items[item].needs.0;
                let short = wanted.iter().zip(&self.rooms[local].0).map(|(n, r)| n > r);
                let gives = short
                    .zip(&self.items[*other].needs.0)
                    .any(|(short, gives)| short && *gives > 0);
                self.has(*other, local)
                    && *other != item
                    && match crowded {
                        true => self.group[*other] == self.group[item],
                        false => gives,
                    }
            };
            let least = (0..self.items.len())
                .filter(helps)
                .min_by_key(|other| self.hard[*other]);
            let Some(other) = least.filter(|_| out.len() < EJECTED_MAX) else {
                break;
            };
            self.pull(other, local);
            cost += self.hard[other] + 1;
            out.push(other);
        }
        let fits = self.able(item, local);
        out.iter().for_each(|other| self.put(*other, local));
        fits.then_some((cost, out))
    }

    fn takes(&self) -> Vec<OnHost> {
        let items = self.items.len();
        let of = |n: usize| (n % items, n / items, self.on[n]);
        (0..self.on.len()).map(of).filter(|(_, _, n)| *n > 0).collect()
    }
}
