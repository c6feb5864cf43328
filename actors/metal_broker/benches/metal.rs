//! What a selection costs, how streams of requests fare under several rules, and instances for the exact solver
//! (`bench/metal_exact.py`).
//!
//! `cargo bench -p windlass-metal_broker --features testing --bench metal -- latency | streams [REQUESTS] [SEED] | dump SEED COUNT`.

#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

#[path = "metal/streams.rs"]
mod streams;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;
use wire::metal_broker::Machine;

use windlass_metal_broker::core::ask::check;
use windlass_metal_broker::core::fleet::Fleet;
use windlass_metal_broker::core::forecast::Outlook;
use windlass_metal_broker::core::pick::{Errors, Judge, Market, Order};
use windlass_metal_broker::core::policy::{Policy, values};
use windlass_metal_broker::core::select::{Standing, select};
use windlass_metal_broker::scenario::{self, Random};

/// Ten rules, as a customer might write them: some by hardware alone, some by the request, two by the machine.
const TEN_RULES: &str = r#"
name = "ten"
[[rules]]
name = "GPUs are kept"
allow = "machine.gpus == 0 || cluster.gpus > 0"
[[rules]]
name = "no arm by chance"
allow = "machine.arch == 'x86_64' || cluster.arch == 'aarch64'"
[[rules]]
name = "no giants for small nodes"
allow = "machine.cores <= 4 * cluster.cores || cluster.cores == 0"
[[rules]]
name = "dear ones by day alone"
allow = "machine.price_class < 9 || (time.hour >= 6 && time.hour < 22)"
[[rules]]
name = "memory for cores"
allow = "machine.memory_gib >= 2 * machine.cores"
[[rules]]
name = "two interfaces"
allow = "machine.nics >= 2"
[[rules]]
name = "fast enough"
allow = "machine.nic_gbps >= 10"
[[rules]]
name = "control needs tpm2"
allow = "cluster.role != 'control' || 'tpm2' in machine.features"
[[rules]]
name = "no worn disks"
allow = "machine.wear_percent < 90"
[[rules]]
name = "not the last of a rack"
allow = "rack.free > 1 || cluster.nodes > 1"
"#;

/// Monday, the first of January 2024, 10 o'clock.
const NOW_MS: u64 = 1_704_103_200_000;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let number = |n: usize, default: u64| args.get(n).and_then(|a| a.parse().ok()).unwrap_or(default);
    match args.first().map(String::as_str) {
        Some("latency") => latency(),
        Some("streams") => streams::streams(number(1, 10_000), number(2, 1)),
        Some("dump") => dump(number(1, 1), number(2, 400)),
        _ => {
            latency();
            streams::streams(10_000, 1);
        }
    }
}

fn fleet(machines: Vec<Machine>) -> Fleet {
    Fleet::of(machines.into_iter().map(Arc::new).collect(), &HashMap::new())
}

fn latency() {
    println!("a selection by a policy of ten rules, inventory in memory (seeds 1 and 2)");
    println!("  machines  classes  nodes       p50       p99   fitted");
    let policy = Policy::read(TEN_RULES).expect("a policy");
    for machines in [10_000, 100_000] {
        let fleet = fleet(scenario::machines(&mut Random(1), machines, machines as u64 / 40));
        let (order, outlook) = (Order::of(&fleet, &policy), Outlook::none("a bench"));
        let market = Market {
            fleet: &fleet,
            policy: &policy,
            order: &order,
            outlook: &outlook,
            now_ms: NOW_MS,
        };
        for nodes in [1, 5, 20] {
            let mut random = Random(2);
            let asks = if nodes == 1 { 4_000 } else { 200 };
            let (mut times, mut fitted) = (Vec::new(), 0);
            for _ in 0..asks {
                let ask = scenario::ask(&mut random, nodes);
                let begun = Instant::now();
                let roles = check(&ask).expect("a request");
                let outcome = select(market, &ask, &roles, &Standing::new()).expect("no rule is required");
                times.push(begun.elapsed());
                fitted += u64::from(outcome.fits());
            }
            times.sort_unstable();
            println!(
                "  {machines:>8}  {:>7}  {nodes:>5}  {:>8.1?}  {:>8.1?}  {fitted:>6}/{asks}",
                fleet.classes.len(),
                times[times.len() / 2],
                times[times.len() * 99 / 100]
            );
        }
    }
}

/// Instances with our answers, one JSON object a line: costs and domains as the policy gives them, so that the solver decides
/// about nothing but the choice.
fn dump(seed: u64, count: u64) {
    let policy = Policy::read("name = \"dump\"\n[weights]\nspread = 0.2\nprice = 0.3\n").expect("a policy");
    for n in 0..count {
        let mut random = Random(seed.wrapping_mul(1_000_003).wrapping_add(n));
        let machines = 50 + random.below(451);
        let racks = 4 + random.below(28);
        let fleet = fleet(scenario::machines(&mut random, machines as usize, racks));
        let (order, outlook) = (Order::of(&fleet, &policy), Outlook::none("a bench"));
        let market = Market {
            fleet: &fleet,
            policy: &policy,
            order: &order,
            outlook: &outlook,
            now_ms: NOW_MS,
        };
        let nodes = 1 + random.below(8);
        let ask = scenario::ask(&mut random, nodes);
        let roles = check(&ask).expect("a request");
        let outcome = select(market, &ask, &roles, &Standing::new()).expect("no rule is required");
        let time = values::time(NOW_MS);
        let wishes: Vec<_> = roles
            .iter()
            .map(|role| {
                let offers = Judge::new(market, &ask, role, &time).offers(&mut Errors::new());
                let offers = offers.expect("no rule is required");
                let offers: Vec<_> = offers.iter().map(|o| json!([o.unit, o.domain, o.cost])).collect();
                json!({"count": role.count, "per_domain_max": role.per_domain_max, "offers": offers})
            })
            .collect();
        println!(
            "{}",
            json!({"seed": seed, "n": n, "machines": machines, "pair": policy.weights.spread, "wishes": wishes,
                "fits": outcome.fits(), "cost": outcome.choice.cost})
        );
    }
}
