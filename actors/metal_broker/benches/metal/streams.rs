//! Streams of cluster requests with arrivals and departures on one fleet, under four rules: ours, ours without the forecast, a random
//! machine that does (Ironic, Metal3), the first by name (Tinkerbell).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use wire::metal_broker::ClusterAsk;

use windlass_metal_broker::core::ask::{Role, check};
use windlass_metal_broker::core::fleet::{Busy, Fleet};
use windlass_metal_broker::core::forecast::{Gate, History, Horizon, Outlook, outlook};
use windlass_metal_broker::core::pick::{Market, Order};
use windlass_metal_broker::core::policy::{Policy, shipped};
use windlass_metal_broker::core::replay::{excess, gate};
use windlass_metal_broker::core::select::{Standing, select};
use windlass_metal_broker::scenario::{self, Random};

const MACHINES: usize = 400;
/// Requests between two looks of the gate.
const LOOK_EVERY: u64 = 250;
const HOUR_S: u64 = 3_600;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Ours,
    NoForecast,
    Random,
    First,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Steady,
    Bursty,
    Diurnal,
    Drifting,
    Adversarial,
}

/// One request: when, what, how long.
struct Arrival {
    at_s: u64,
    ask: ClusterAsk,
    holds_s: u64,
}

/// The stream of a shape: the same for every rule.
fn stream(shape: Shape, requests: u64, seed: u64) -> Vec<Arrival> {
    let mut random = Random(seed ^ 0xABCD);
    // kinds of clusters that come again and again, as they do
    let kinds: Vec<ClusterAsk> = (0..10)
        .map(|_| {
            let nodes = random.of(&[1, 1, 1, 2, 3]);
            scenario::ask(&mut random, nodes)
        })
        .collect();
    let mut at_s = 0;
    (0..requests)
        .map(|n| {
            let hour = at_s / HOUR_S % 24;
            let mean_s = match shape {
                Shape::Bursty if n / 50 % 4 == 0 => 120,
                Shape::Bursty => 1_400,
                Shape::Diurnal if (8..20).contains(&hour) => 500,
                Shape::Diurnal => 2_200,
                _ => 800,
            };
            at_s += (mean_s as f64 * -(1.0 - random.unit()).ln()) as u64 + 1;
            let kind = match shape {
                // the mix moves from the first kinds to the last
                Shape::Drifting => (n * 7 / requests.max(1) + random.below(4)) as usize,
                // half a day of small ones that fit anywhere, then all at once the ones that need the large machines
                Shape::Adversarial if n / 100 % 2 == 0 => random.below(3) as usize,
                Shape::Adversarial => 7 + random.below(3) as usize,
                _ => random.below(10) as usize,
            };
            let holds_s = (60.0 * HOUR_S as f64 * -(1.0 - random.unit()).ln()) as u64 + HOUR_S;
            Arrival {
                at_s,
                ask: kinds[kind.min(9)].clone(),
                holds_s,
            }
        })
        .collect()
}

#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    refused: u64,
    served: u64,
    excess: i64,
    looks_open: u64,
    looks: u64,
}

struct Hall {
    fleet: Fleet,
    policy: Policy,
    order: Order,
    outlook: Outlook,
    random: Random,
}

impl Hall {
    fn choose(&mut self, rule: Rule, ask: &ClusterAsk, roles: &[Role], now_s: u64) -> Option<Vec<(usize, u32)>> {
        if matches!(rule, Rule::Random | Rule::First) {
            return self.choose_plainly(rule, roles);
        }
        let market = Market {
            fleet: &self.fleet,
            policy: &self.policy,
            order: &self.order,
            outlook: &self.outlook,
            now_ms: now_s * 1_000,
        };
        let outcome = select(market, ask, roles, &Standing::new()).ok()?;
        let chosen = outcome.choice.chosen.iter().enumerate();
        let all = chosen.flat_map(|(role, picked)| picked.iter().map(move |(_, at)| (role, *at)));
        outcome.fits().then(|| all.collect())
    }
    /// Node by node, any machine that does, or the first by name; within a role's bound per domain.
    fn choose_plainly(&mut self, rule: Rule, roles: &[Role]) -> Option<Vec<(usize, u32)>> {
        let mut taken: Vec<(usize, u32)> = Vec::new();
        for (at, role) in roles.iter().enumerate() {
            for _ in 0..role.count {
                let does = |unit: &u32| {
                    let u = self.fleet.unit(*unit);
                    let hardware = &self.fleet.classes[u.class as usize].hardware;
                    let near = |(r, other): &&(usize, u32)| {
                        *r == at && self.fleet.unit(*other).domain(role.domain) == u.domain(role.domain)
                    };
                    u.is_free()
                        && taken.iter().all(|(_, t)| t != unit)
                        && hardware.lacks(&role.need).is_none()
                        && role
                            .per_domain_max
                            .is_none_or(|max| taken.iter().filter(near).count() < max)
                };
                let all: Vec<u32> = (0..self.fleet.units.len() as u32).filter(does).collect();
                let unit = match (rule, all.len()) {
                    (_, 0) => return None,
                    (Rule::First, _) => all[0],
                    (_, n) => all[self.random.below(n as u64) as usize],
                };
                taken.push((at, unit));
            }
        }
        Some(taken)
    }
}

fn run(rule: Rule, arrivals: &[Arrival], seed: u64) -> Tally {
    let policy = Policy::read(shipped::text("least_excess").expect("it is shipped")).expect("a policy");
    let fleet = super::fleet(scenario::machines(&mut Random(seed), MACHINES, 20));
    let mut hall = Hall {
        order: Order::of(&fleet, &policy),
        fleet,
        policy,
        outlook: Outlook::none(""),
        random: Random(seed),
    };
    let (mut tally, horizon) = (Tally::default(), Horizon::default());
    let mut back: BinaryHeap<Reverse<(u64, String)>> = BinaryHeap::new();
    let mut history = History::default();
    for (n, arrival) in arrivals.iter().enumerate() {
        while back.peek().is_some_and(|r| r.0.0 <= arrival.at_s) {
            if let Some(Reverse((_, id))) = back.pop() {
                hall.fleet.set_busy(&id, None);
            }
        }
        if rule == Rule::Ours && (n as u64).is_multiple_of(LOOK_EVERY) {
            let opened: Gate = gate(&history, &hall.fleet, &hall.policy.weights, arrival.at_s, &horizon);
            tally.looks += 1;
            tally.looks_open += u64::from(opened.open);
            hall.outlook = outlook(&history, &hall.fleet, opened, arrival.at_s, &horizon);
        } else if hall.outlook.gate.open && n.is_multiple_of(16) {
            let opened = hall.outlook.gate.clone();
            hall.outlook = outlook(&history, &hall.fleet, opened, arrival.at_s, &horizon);
        }
        let roles = check(&arrival.ask).expect("a request");
        let nodes: u64 = roles.iter().map(|r| r.count as u64).sum();
        let until_s = arrival.at_s + arrival.holds_s;
        match hall.choose(rule, &arrival.ask, &roles, arrival.at_s) {
            None => tally.refused += nodes,
            Some(chosen) => {
                tally.served += nodes;
                for (role, at) in chosen {
                    let unit = hall.fleet.unit(at);
                    let hardware = &hall.fleet.classes[unit.class as usize].hardware;
                    let need = &roles[role].need.amounts;
                    tally.excess += excess(&hardware.amounts, need, &hall.fleet.scale, &hall.policy.weights);
                    let id = unit.machine.id.clone();
                    hall.fleet.set_busy(&id, Some(Busy::Claimed("c".into())));
                    back.push(Reverse((until_s, id)));
                }
                for role in &roles {
                    // as the broker's own records: what was refused leaves none, and what stands has no end yet
                    history.note(&role.need, arrival.at_s, role.count as u32, Some(until_s));
                }
            }
        }
    }
    tally
}

pub(super) fn streams(requests: u64, seed: u64) {
    println!("{requests} cluster requests on {MACHINES} machines (seed {seed}); nodes refused, and excess a node");
    println!("  shape        rule          refused   served  refused %   excess   gate open");
    for shape in [
        Shape::Steady,
        Shape::Bursty,
        Shape::Diurnal,
        Shape::Drifting,
        Shape::Adversarial,
    ] {
        let arrivals = stream(shape, requests, seed);
        for rule in [Rule::Ours, Rule::NoForecast, Rule::Random, Rule::First] {
            let tally = run(rule, &arrivals, seed);
            let name = match rule {
                Rule::Ours => "windlass",
                Rule::NoForecast => "no forecast",
                Rule::Random => "random",
                Rule::First => "first by name",
            };
            println!(
                "  {:<11}  {name:<13} {:>7}  {:>7}  {:>8.2}  {:>7.4}  {:>4}/{}",
                format!("{shape:?}").to_lowercase(),
                tally.refused,
                tally.served,
                tally.refused as f64 * 100.0 / (tally.refused + tally.served).max(1) as f64,
                tally.excess as f64 / 1e6 / tally.served.max(1) as f64,
                tally.looks_open,
                tally.looks
            );
        }
    }
}
