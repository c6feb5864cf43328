//! As many VMs as fit: greedy under every rule, then with VMs of one kind or another left out, fewer and fewer, as long as a
//! bound says that there may be more.

use super::{Budget, Item, Packing, Rule, Take, weights};
use crate::core::amounts::{Amounts, DIMS, Sums, add};

/// What one try may cost: a search that can't end well must not eat what others need.
const TRY_STEPS_MAX: u64 = 20_000;
/// Numbers of left out VMs that are tried below what greedy left.
const FEWER_TRIES_MAX: u32 = 6;

impl Packing<'_> {
    /// Packs as many of `items` as it finds room for.
    pub fn most(&self, rooms: &mut [Amounts], items: &[Item<'_>], budget: &mut Budget) -> Vec<Take> {
        if let [item] = items {
            let takes = self.one_kind(rooms, item).0;
            return self.apply(rooms, items, &takes);
        }
        if let Some((takes, _)) = self.same_kind(rooms, items, budget) {
            return self.apply(rooms, items, &takes);
        }
        let wanted: u32 = items.iter().map(|i| i.count).sum();
        let bound = most_bound(rooms, items);
        if bound == wanted
            && let Some(takes) = self.tried(rooms, items, budget)
        {
            return takes;
        }
        let weights = weights(rooms, items);
        let rules = Rule::ALL.iter().flat_map(|rule| [*rule, rule.small_first()]);
        let (mut best, mut placed) = (Vec::new(), 0);
        for rule in rules {
            let (takes, count) = self.greedy(rooms, items, &weights, rule, budget);
            if count > placed {
                (best, placed) = (takes, count);
            }
            if placed >= bound {
                break;
            }
        }
        let least = (wanted - bound).max(1);
        for left_out in least..(wanted - placed).min(least + FEWER_TRIES_MAX) {
            for kind in 0..items.len() {
                let fewer = without(items, kind, left_out);
                if let Some(takes) = self.tried(rooms, &fewer, budget) {
                    return takes;
                }
            }
            if budget.0 == 0 {
                break;
            }
        }
        self.apply(rooms, items, &best)
    }

    fn tried(&self, rooms: &mut [Amounts], items: &[Item<'_>], budget: &mut Budget) -> Option<Vec<Take>> {
        let share = budget.0.min(TRY_STEPS_MAX);
        let mut of_try = Budget(share);
        let takes = self.all(rooms, items, &mut of_try);
        budget.spend(share - of_try.0);
        takes
    }
}

/// The items without so many VMs, of one kind first, then of the next.
fn without<'a>(items: &[Item<'a>], first: usize, mut left_out: u32) -> Vec<Item<'a>> {
    let mut fewer = items.to_vec();
    for n in 0..items.len() {
        let item = &mut fewer[(first + n) % items.len()];
        let out = item.count.min(left_out);
        item.count -= out;
        left_out -= out;
    }
    fewer.retain(|i| i.count > 0);
    fewer
}

/// No packing holds more VMs than this: of each dimension alone, the smallest VMs first.
pub(in crate::core) fn most_bound(rooms: &[Amounts], items: &[Item<'_>]) -> u32 {
    let mut free = Sums::default();
    rooms.iter().for_each(|r| add(&mut free, &r.times(1)));
    let by_dim = |d: usize| {
        let mut order: Vec<&Item<'_>> = items.iter().collect();
        order.sort_by_key(|i| i.needs.0[d]);
        let (mut left, mut sum) = (free[d], 0);
        for item in order {
            let need = u64::from(item.needs.0[d]);
            let fits = left
                .checked_div(need)
                .map_or(item.count, |n| u32::try_from(n).unwrap_or(u32::MAX).min(item.count));
            left -= need * u64::from(fits);
            sum += fits;
        }
        sum
    };
    (0..DIMS).map(by_dim).min().unwrap_or(0)
}
