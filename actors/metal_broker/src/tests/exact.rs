//! Against every possibility: one machine by looking at each, sets of three by trying all.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use proptest::prelude::*;
use wire::metal_broker::{ClusterAsk, Explanation, Machine, Member, MemberState, Selection};

use crate::core::ask::{Role, check};
use crate::core::fleet::Fleet;
use crate::core::forecast::Outlook;
use crate::core::pick::{Errors, Judge, Market, Order};
use crate::core::policy::{Policy, shipped, values};
use crate::core::select::{Standing, select};
use crate::core::set::{Offer, Wish, choose};
use crate::core::{explain, select as selecting};
use crate::scenario::{self, Random};

/// Monday, the first of January 2024, 10 o'clock.
pub const NOW_MS: u64 = 1_704_103_200_000;

/// A fleet and a policy.
pub struct Bench {
    pub fleet: Fleet,
    pub policy: Policy,
    pub order: Order,
    pub outlook: Outlook,
}

pub fn least() -> Policy {
    Policy::read(shipped::text("least_excess").unwrap()).unwrap()
}

impl Bench {
    pub fn of(machines: Vec<Machine>, policy: Policy) -> Self {
        let fleet = Fleet::of(machines.into_iter().map(Arc::new).collect(), &HashMap::new());
        Self {
            order: Order::of(&fleet, &policy),
            fleet,
            policy,
            outlook: Outlook::none("a test"),
        }
    }
    pub fn market(&self) -> Market<'_> {
        Market {
            fleet: &self.fleet,
            policy: &self.policy,
            order: &self.order,
            outlook: &self.outlook,
            now_ms: NOW_MS,
        }
    }
    pub fn select(&self, ask: &ClusterAsk) -> Selection {
        self.try_select(ask).unwrap()
    }
    pub fn try_select(&self, ask: &ClusterAsk) -> crate::Result<Selection> {
        selecting::report(self.market(), ask, &check(ask)?, 0).map(|(selection, _)| selection)
    }
    pub fn explain(&self, ask: &ClusterAsk) -> Explanation {
        explain::explain(self.market(), ask, &check(ask).unwrap(), None, 0).unwrap()
    }
    pub fn members(&self, ask: &ClusterAsk) -> Vec<Member> {
        let member = |c: &wire::metal_broker::Chosen| Member {
            role: c.role.clone(),
            machine: c.machine.clone(),
            provider: String::new(),
            rack: c.rack.clone(),
            zone: c.zone.clone(),
            state: MemberState::Leased,
        };
        self.select(ask).chosen.iter().map(member).collect()
    }
    fn offers(&self, ask: &ClusterAsk, role: &Role) -> Vec<Offer> {
        let time = values::time(NOW_MS);
        Judge::new(self.market(), ask, role, &time)
            .offers(&mut Errors::new())
            .unwrap()
    }
}

const OWN: &str = r#"
name = "own"
[weights]
price = 0.3
spread = 0.2
[[rules]]
name = "no worn disks for control"
allow = "cluster.role != 'control' || machine.wear_percent < 50"
[[rules]]
name = "arm is for arm"
allow = "machine.arch == 'x86_64' || cluster.arch == 'aarch64'"
[[scores]]
name = "full racks first"
value = "double(rack.free) / double(rack.machines)"
weight = 0.1
"#;

/// The cheapest way to serve the wishes, by trying all.
fn exhaustive(wishes: &[Wish], pair: i64) -> Option<i64> {
    fn go(wishes: &[Wish], nodes: &[usize], taken: &mut Vec<(usize, Offer)>, pair: i64, best: &mut Option<i64>) {
        let Some((role, rest)) = nodes.split_first() else {
            let mut counts: BTreeMap<(usize, u32), usize> = BTreeMap::new();
            let mut cost = 0;
            for (role, offer) in taken.iter() {
                let standing = wishes[*role].standing.get(&offer.domain).copied().unwrap_or(0);
                let count = counts.entry((*role, offer.domain)).or_insert(standing);
                if wishes[*role].per_domain_max.is_some_and(|max| *count >= max) {
                    return;
                }
                cost += offer.cost + pair * *count as i64;
                *count += 1;
            }
            *best = Some(best.map_or(cost, |b| b.min(cost)));
            return;
        };
        for offer in &wishes[*role].offers {
            if taken.iter().all(|(_, t)| t.unit != offer.unit) {
                taken.push((*role, *offer));
                go(wishes, rest, taken, pair, best);
                taken.pop();
            }
        }
    }
    let nodes: Vec<usize> = wishes
        .iter()
        .enumerate()
        .flat_map(|(r, w)| std::iter::repeat_n(r, w.count))
        .collect();
    let mut best = None;
    go(wishes, &nodes, &mut Vec::new(), pair, &mut best);
    best
}

proptest! {
    #[test]
    fn one_machine_is_the_cheapest_of_all(seed in any::<u64>(), count in 1_usize..80) {
        let mut random = Random(seed);
        let machines = scenario::machines(&mut random, count, 8);
        let bench = Bench::of(machines, Policy::read(OWN).unwrap());
        let ask = scenario::ask(&mut random, 1);
        let roles = check(&ask).unwrap();
        let best = bench.offers(&ask, &roles[0]).into_iter().map(|o| (o.cost, o.unit)).min();
        let found = select(bench.market(), &ask, &roles, &Standing::new()).unwrap();
        prop_assert_eq!(found.choice.chosen[0].first().copied(), best);
        prop_assert_eq!(found.fits(), best.is_some());
        if let Some((cost, at)) = best {
            let time = values::time(NOW_MS);
            let terms = Judge::new(bench.market(), &ask, &roles[0], &time).terms(at, &mut Errors::new()).unwrap();
            let sum: i64 = terms.iter().map(|t| t.cost_millionths).sum();
            prop_assert_eq!(sum, cost, "the parts that are told are the cost");
        }
    }

    #[test]
    fn a_set_is_the_cheapest_of_all(seed in any::<u64>()) {
        let mut random = Random(seed);
        let roles = 1 + random.below(2) as usize;
        let units = 3 + random.below(6);
        let wish = |random: &mut Random| Wish {
            count: 1 + random.below(if roles == 1 { 4 } else { 2 }) as usize,
            per_domain_max: (random.below(2) == 0).then(|| 1 + random.below(2) as usize),
            standing: (0..random.below(2)).map(|_| (random.below(3) as u32, 1)).collect(),
            offers: (0..units)
                .filter_map(|unit| {
                    let cost = random.below(120) as i64;
                    let domain = (unit % (1 + units / 2)) as u32;
                    (cost < 100).then_some(Offer { cost, unit: unit as u32, domain })
                })
                .collect(),
        };
        let wishes: Vec<Wish> = (0..roles).map(|_| wish(&mut random)).collect();
        let pair = random.below(40) as i64;
        let found = choose(&wishes, pair);
        let fits = found.missing.iter().all(|n| *n == 0);
        let best = exhaustive(&wishes, pair);
        prop_assert_eq!(fits.then_some(found.cost), best);
        if fits {
            let mut used: Vec<u32> = found.chosen.iter().flatten().map(|(_, u)| *u).collect();
            used.sort_unstable();
            let all = used.len();
            used.dedup();
            prop_assert_eq!(used.len(), all, "no machine serves twice");
            for (wish, picked) in wishes.iter().zip(&found.chosen) {
                prop_assert_eq!(picked.len(), wish.count);
            }
        }
    }

    #[test]
    fn the_same_fleet_in_another_order_gives_the_same_machines(seed in any::<u64>()) {
        let mut random = Random(seed);
        let mut machines = scenario::machines(&mut random, 60, 6);
        let ask = scenario::ask(&mut random, 4);
        let one = Bench::of(machines.clone(), least()).select(&ask);
        machines.reverse();
        prop_assert_eq!(Bench::of(machines, least()).select(&ask), one);
    }
}
