//! VMs of groups onto the hosts of one rack.
//!
//! One kind of VM is reckoned exactly. Several kinds are vector bin packing: best fit under several weightings first
//! (Panigrahy et al., Heuristics for Vector Bin Packing, 2011), then VMs take one another's place ([`repair`]), then a bounded
//! search host by host over maximal patterns: if there is a packing, there is one in which the first host takes as much as it
//! can, so nothing else needs a look.

use super::amounts::{Amounts, DIMS, Sums, add, sums_fit};
use super::inventory::Inventory;

mod most;
mod repair;

pub(in crate::core) use most::most_bound;

/// VMs of one kind of one group.
#[derive(Debug, Clone)]
pub struct Item<'a> {
    /// The group.
    pub group: u32,
    /// The kind.
    pub class: u32,
    /// What each wants.
    pub needs: Amounts,
    /// How many.
    pub count: u32,
    /// Sets of labels that will do.
    pub carries: Option<&'a [bool]>,
}

/// VMs on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Take {
    /// The group.
    pub group: u32,
    /// The kind.
    pub class: u32,
    /// The host.
    pub host: usize,
    /// How many.
    pub count: u32,
}

/// What may be spent on looking: about one for each host that is tried for a VM.
#[derive(Debug, Clone, Copy)]
pub struct Budget(pub u64);

impl Budget {
    /// Spends; false when all is spent.
    pub fn spend(&mut self, steps: u64) -> bool {
        self.0 = self.0.saturating_sub(steps);
        self.0 > 0
    }
}

/// Number of the item, of the host in its rack, and how many.
type OnHost = (usize, usize, u32);

/// A rack while it is packed.
pub struct Packing<'a> {
    /// The table.
    pub inventory: &'a Inventory,
    /// The first of its hosts.
    pub first_host: usize,
    /// VMs of one group on one host, at most.
    pub per_host: u32,
    /// VMs that groups have on hosts already.
    pub present: &'a dyn Fn(u32, usize) -> u32,
}

/// Patterns that are looked at for one host.
const PATTERNS_MAX: usize = 256;

impl Packing<'_> {
    fn carries(&self, item: &Item<'_>, local: usize) -> bool {
        let set = self.inventory.label_set(self.first_host + local) as usize;
        item.carries.is_none_or(|carries| carries[set])
    }

    fn bound(&self, item: &Item<'_>, local: usize) -> u32 {
        if self.carries(item, local) {
            self.per_host
                .saturating_sub((self.present)(item.group, self.first_host + local))
        } else {
            0
        }
    }

    /// Packs all of `items` into `rooms`, or nothing.
    pub fn all(&self, rooms: &mut [Amounts], items: &[Item<'_>], budget: &mut Budget) -> Option<Vec<Take>> {
        if let [item] = items {
            let (takes, placed) = self.one_kind(rooms, item);
            return (placed == item.count).then(|| self.apply(rooms, items, &takes));
        }
        if let Some((takes, left)) = self.same_kind(rooms, items, budget) {
            return (left == 0).then(|| self.apply(rooms, items, &takes));
        }
        let weights = weights(rooms, items);
        let wanted = items.iter().map(|i| i.count).sum::<u32>();
        let (mut best, mut most) = (Vec::new(), 0);
        for rule in Rule::ALL {
            let (takes, placed) = self.greedy(rooms, items, &weights, rule, budget);
            if placed == wanted {
                return Some(self.apply(rooms, items, &takes));
            }
            if placed > most {
                (best, most) = (takes, placed);
            }
        }
        let takes = match self.repaired(rooms, items, &best, budget) {
            Some(takes) => takes,
            None => self.search(rooms, items, &weights, budget)?,
        };
        Some(self.apply(rooms, items, &takes))
    }

    fn apply(&self, rooms: &mut [Amounts], items: &[Item<'_>], local: &[(usize, usize, u32)]) -> Vec<Take> {
        let mut takes: Vec<Take> = Vec::with_capacity(local.len());
        for (item, host, count) in local {
            rooms[*host].take(&items[*item].needs, *count);
            takes.push(Take {
                group: items[*item].group,
                class: items[*item].class,
                host: self.first_host + host,
                count: *count,
            });
        }
        takes
    }

    /// The fullest hosts first, so that room for large VMs stays in one piece; exact as to how many fit.
    fn one_kind(&self, rooms: &[Amounts], item: &Item<'_>) -> (Vec<OnHost>, u32) {
        let scale = self.inventory.scale;
        let mut able: Vec<(f32, u32, usize)> = Vec::with_capacity(rooms.len());
        for (local, room) in rooms.iter().enumerate() {
            let fits = item.needs.times_in(room, self.bound(item, local));
            if fits > 0 {
                let left: f32 = (0..DIMS)
                    .map(|d| scale[d] * (room.0[d] - fits * item.needs.0[d]) as f32)
                    .sum();
                able.push((left, fits, local));
            }
        }
        able.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.2.cmp(&b.2)));
        let (mut takes, mut wanted) = (Vec::new(), item.count);
        for (_, fits, local) in able {
            if wanted == 0 {
                break;
            }
            let count = fits.min(wanted);
            takes.push((0, local, count));
            wanted -= count;
        }
        (takes, item.count - wanted)
    }

    /// VMs of one kind of several groups: each host takes all that it can, of those groups first that have most left. Exact as to
    /// how many fit, for the bound per host is the same for all (Gale 1957; what is left stays as even as can be). `None` for
    /// several kinds, and for groups that have VMs here already. Also how many are left.
    fn same_kind(&self, rooms: &[Amounts], items: &[Item<'_>], budget: &mut Budget) -> Option<(Vec<OnHost>, u32)> {
        let first = items.first()?;
        let plain = |item: &Item<'_>| {
            let here = |local: usize| (self.present)(item.group, self.first_host + local) == 0;
            item.class == first.class && (0..rooms.len()).all(here)
        };
        if !items.iter().all(plain) {
            return None;
        }
        let (mut takes, mut left): (Vec<_>, Vec<u32>) = (Vec::new(), items.iter().map(|i| i.count).collect());
        budget.spend(left.iter().map(|n| u64::from(*n)).sum::<u64>() * items.len() as u64 / 4);
        for local in self.fullest_first(rooms, first) {
            let mut slots = first.needs.times_in(&rooms[local], left.iter().sum());
            let mut on = vec![0u32; items.len()];
            let bound = self.bound(first, local);
            while slots > 0 {
                let able = (0..items.len()).filter(|i| left[*i] > 0 && on[*i] < bound);
                let Some(most) = able.max_by_key(|i| (left[*i], usize::MAX - i)) else {
                    break;
                };
                left[most] -= 1;
                on[most] += 1;
                slots -= 1;
            }
            let some = on.into_iter().enumerate().filter(|(_, n)| *n > 0);
            takes.extend(some.map(|(i, n)| (i, local, n)));
        }
        Some((takes, left.iter().sum()))
    }

    /// Hosts that take some of these VMs, those first that they leave least of.
    fn fullest_first(&self, rooms: &[Amounts], item: &Item<'_>) -> Vec<usize> {
        let scale = self.inventory.scale;
        let mut able: Vec<(f32, usize)> = Vec::with_capacity(rooms.len());
        for (local, room) in rooms.iter().enumerate() {
            let fits = item.needs.times_in(room, u32::MAX);
            if fits > 0 && self.carries(item, local) {
                let left = (0..DIMS).map(|d| scale[d] * (room.0[d] - fits * item.needs.0[d]) as f32);
                able.push((left.sum(), local));
            }
        }
        able.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        able.into_iter().map(|(_, local)| local).collect()
    }

    fn greedy(
        &self,
        rooms: &[Amounts],
        items: &[Item<'_>],
        weights: &[f32; DIMS],
        rule: Rule,
        budget: &mut Budget,
    ) -> (Vec<OnHost>, u32) {
        let mut rooms = rooms.to_vec();
        let mut order: Vec<usize> = (0..items.len()).collect();
        let size = |i: &usize| rule.size(&items[*i].needs, weights);
        order.sort_by(|a, b| size(b).total_cmp(&size(a)).then(a.cmp(b)));
        if rule.small {
            order.reverse();
        }
        let mut on_host = vec![0u32; rooms.len() * items.len()];
        // the first item of each group stands for it
        let group_of = |i: usize| items.iter().position(|j| j.group == items[i].group).unwrap_or(i);
        let mut of_group = vec![0u32; rooms.len() * items.len()];
        let (mut takes, mut placed) = (Vec::new(), 0);
        for i in order {
            let (item, group) = (&items[i], group_of(i));
            for _ in 0..item.count {
                if !budget.spend(rooms.len() as u64) {
                    return (takes, placed);
                }
                let able = (0..rooms.len()).filter(|l| {
                    item.needs.fits(&rooms[*l]) && of_group[l * items.len() + group] < self.bound(item, *l)
                });
                let Some(local) = able.min_by(|a, b| {
                    let left = |l: &usize| rule.left(&item.needs, &rooms[*l], weights);
                    left(a).total_cmp(&left(b)).then(a.cmp(b))
                }) else {
                    break;
                };
                rooms[local].take(&item.needs, 1);
                on_host[local * items.len() + i] += 1;
                of_group[local * items.len() + group] += 1;
                placed += 1;
            }
        }
        for local in 0..rooms.len() {
            for i in 0..items.len() {
                let count = on_host[local * items.len() + i];
                if count > 0 {
                    takes.push((i, local, count));
                }
            }
        }
        (takes, placed)
    }

    fn search(
        &self,
        rooms: &[Amounts],
        items: &[Item<'_>],
        weights: &[f32; DIMS],
        budget: &mut Budget,
    ) -> Option<Vec<OnHost>> {
        let mut hosts: Vec<usize> = (0..rooms.len()).collect();
        let weigh = |l: &usize| weighed(&rooms[*l], weights);
        hosts.sort_by(|a, b| weigh(a).total_cmp(&weigh(b)).then(a.cmp(b)));
        // what the hosts from each on have in sum
        let mut suffix = vec![Sums::default(); hosts.len() + 1];
        for (n, local) in hosts.iter().enumerate().rev() {
            suffix[n] = suffix[n + 1];
            add(&mut suffix[n], &rooms[*local].times(1));
        }
        let mut left: Vec<u32> = items.iter().map(|i| i.count).collect();
        let mut chosen = Vec::new();
        let found = self.descend(rooms, items, weights, &hosts, &suffix, &mut left, &mut chosen, budget);
        found.then_some(chosen)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one recursion; a struct for it would only rename them"
    )]
    fn descend(
        &self,
        rooms: &[Amounts],
        items: &[Item<'_>],
        weights: &[f32; DIMS],
        hosts: &[usize],
        suffix: &[Sums],
        left: &mut Vec<u32>,
        chosen: &mut Vec<OnHost>,
        budget: &mut Budget,
    ) -> bool {
        if left.iter().all(|n| *n == 0) {
            return true;
        }
        let Some((local, others)) = hosts.split_first() else {
            return false;
        };
        let mut wanted = Sums::default();
        items
            .iter()
            .zip(left.iter())
            .for_each(|(i, n)| add(&mut wanted, &i.needs.times(*n)));
        if !sums_fit(&wanted, &suffix[0]) || !budget.spend(2 * items.len() as u64) {
            return false;
        }
        for pattern in self.patterns(&rooms[*local], *local, items, left, weights, budget) {
            let before = chosen.len();
            for (i, count) in pattern.iter().enumerate().filter(|(_, c)| **c > 0) {
                left[i] -= count;
                chosen.push((i, *local, *count));
            }
            if self.descend(rooms, items, weights, others, &suffix[1..], left, chosen, budget) {
                return true;
            }
            for (i, _, count) in chosen.drain(before..) {
                left[i] += count;
            }
            if budget.0 == 0 {
                return false;
            }
        }
        false
    }

    /// What one host can take so that nothing more fits; the fullest first.
    fn patterns(
        &self,
        room: &Amounts,
        local: usize,
        items: &[Item<'_>],
        left: &[u32],
        weights: &[f32; DIMS],
        budget: &mut Budget,
    ) -> Vec<Vec<u32>> {
        let mut found: Vec<(f32, Vec<u32>)> = Vec::new();
        let mut pattern = vec![0; items.len()];
        self.extend(*room, local, items, left, weights, 0, &mut pattern, &mut found, budget);
        found.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(&a.1)));
        found.into_iter().map(|(_, pattern)| pattern).collect()
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one recursion; a struct for it would only rename them"
    )]
    fn extend(
        &self,
        room: Amounts,
        local: usize,
        items: &[Item<'_>],
        left: &[u32],
        weights: &[f32; DIMS],
        next: usize,
        pattern: &mut Vec<u32>,
        found: &mut Vec<(f32, Vec<u32>)>,
        budget: &mut Budget,
    ) {
        if found.len() >= PATTERNS_MAX || !budget.spend(1 + items.len() as u64 / 2) {
            return;
        }
        let free = |i: usize, pattern: &[u32]| -> u32 {
            let same = (0..items.len()).filter(|j| items[*j].group == items[i].group);
            self.bound(&items[i], local)
                .saturating_sub(same.map(|j| pattern[j]).sum())
        };
        let Some(item) = items.get(next) else {
            budget.spend((items.len() * items.len()) as u64 / 4);
            let more =
                (0..items.len()).any(|i| left[i] > pattern[i] && free(i, pattern) > 0 && items[i].needs.fits(&room));
            if !more {
                found.push((weighed(&room, weights), pattern.clone()));
            }
            return;
        };
        let most = item.needs.times_in(&room, left[next].min(free(next, pattern)));
        for count in (0..=most).rev() {
            let mut after = room;
            after.take(&item.needs, count);
            pattern[next] = count;
            self.extend(after, local, items, left, weights, next + 1, pattern, found, budget);
        }
        pattern[next] = 0;
    }
}

/// How scarce each dimension is here: wanted over free.
fn weights(rooms: &[Amounts], items: &[Item<'_>]) -> [f32; DIMS] {
    let (mut free, mut wanted) = (Sums::default(), Sums::default());
    rooms.iter().for_each(|r| add(&mut free, &r.times(1)));
    items.iter().for_each(|i| add(&mut wanted, &i.needs.times(i.count)));
    std::array::from_fn(|d| {
        let share = wanted[d] as f32 / free[d].max(1) as f32;
        share / free[d].max(1) as f32 * rooms.len() as f32
    })
}

fn weighed(amounts: &Amounts, weights: &[f32; DIMS]) -> f32 {
    (0..DIMS).map(|d| weights[d] * amounts.0[d] as f32).sum()
}

/// A way to order VMs and to choose hosts.
#[derive(Debug, Clone, Copy)]
struct Rule {
    by_largest: bool,
    by_shape: bool,
    small: bool,
}

impl Rule {
    const ALL: [Rule; 4] = [
        Rule::new(false, false),
        Rule::new(true, false),
        Rule::new(false, true),
        Rule::new(true, true),
    ];
    const fn new(by_largest: bool, by_shape: bool) -> Self {
        Self {
            by_largest,
            by_shape,
            small: false,
        }
    }
    fn small_first(mut self) -> Self {
        self.small = true;
        self
    }
    fn size(self, needs: &Amounts, weights: &[f32; DIMS]) -> f32 {
        let parts = (0..DIMS).map(|d| weights[d] * needs.0[d] as f32);
        if self.by_largest {
            parts.fold(0.0, f32::max)
        } else {
            parts.sum()
        }
    }
    /// How bad what is left would be: its weight, or how little its shape is that of the VM.
    fn left(self, needs: &Amounts, room: &Amounts, weights: &[f32; DIMS]) -> f32 {
        if !self.by_shape {
            return (0..DIMS).map(|d| weights[d] * (room.0[d] - needs.0[d]) as f32).sum();
        }
        let (mut dot, mut length) = (0.0f32, 0.0f32);
        for ((weight, need), room) in weights.iter().zip(needs.0).zip(room.0) {
            let (n, r) = (weight * need as f32, weight * room as f32);
            dot += n * r;
            length += r * r;
        }
        -dot / length.max(f32::MIN_POSITIVE)
    }
}
