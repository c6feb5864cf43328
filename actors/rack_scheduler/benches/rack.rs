//! What a decision costs, how full hosts get, and instances for the exact solver (`bench/rack_exact.py`).
//!
//! `cargo bench -p windlass-rack_scheduler --features testing --bench rack -- latency|fill|bad|packing`, or `dump SEED COUNT SIZE`.

#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

#[path = "rack/bad.rs"]
mod bad;
#[path = "rack/packing.rs"]
mod packing;

use std::collections::HashMap;
use std::time::Instant;

use serde_json::json;
use wire::rack_scheduler::{Divide, RackAsk, VmSpec};

use windlass_rack_scheduler::core::amounts::{Amounts, DIMS};
use windlass_rack_scheduler::core::ask::Ask;
use windlass_rack_scheduler::core::inventory::{Fits, HostSeed, Inventory, RackSeed, carrying};
use windlass_rack_scheduler::core::place::{Plan, broken, place};
use windlass_rack_scheduler::scenario::{Dice, Size, planted_instance};

/// Sizes of VMs and their share in percent. Assumed: that small ones dominate, as in the public Azure traces (the packing trace of
/// Hadary et al., "Protean", OSDI 2020, tells resources as shares of a machine, in an SQLite file that isn't in this repository).
const MIX: [([u64; 5], u64); 6] = [
    ([1, 2048, 16, 0, 1], 20),
    ([2, 4096, 32, 0, 1], 30),
    ([2, 16384, 32, 0, 1], 10),
    ([4, 16384, 64, 0, 1], 22),
    ([8, 32768, 128, 0, 1], 13),
    ([16, 65536, 256, 0, 1], 5),
];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let number = |n: usize, default: u64| args.get(n).and_then(|a| a.parse().ok()).unwrap_or(default);
    match args.first().map(String::as_str) {
        Some("latency") => latency(number(1, 2_000)),
        Some("fill") => fill(number(1, 1_000_000)),
        Some("bad") => bad::bad(),
        Some("packing") => packing::packing(number(1, 7)),
        Some("dump") => dump(
            number(1, 1),
            number(2, 100),
            args.get(3).map_or("medium", String::as_str),
        ),
        _ => {
            latency(2_000);
            fill(1_000_000);
            bad::bad();
            packing::packing(7);
        }
    }
}

fn kind(dice: &mut Dice) -> [u64; 5] {
    let mut roll = dice.between(0, 99);
    for (kind, share) in MIX {
        if roll < share {
            return kind;
        }
        roll -= share;
    }
    MIX[0].0
}

fn vm(kind: [u64; 5], count: u64) -> VmSpec {
    let [vcpus, memory_mib, disk_gib, gpus, nics] = kind;
    VmSpec {
        count,
        vcpus,
        memory_mib,
        disk_gib,
        gpus,
        nics,
        ..VmSpec::default()
    }
}

fn amounts(kind: [u64; 5]) -> Amounts {
    Amounts(kind.map(|a| a as u32))
}

fn fleet(racks: u64, hosts: u64) -> Inventory {
    let sold = Amounts([64, 262_144, 4_000, 0, 256]);
    Inventory::new((0..racks).map(|r| {
        RackSeed {
            id: format!("r{r}"),
            row: format!("row{}", r / 10),
            zone: format!("z{}", r / 100),
            hosts: (0..hosts)
                .map(|h| HostSeed {
                    id: format!("r{r}-h{h}"),
                    sold,
                    room: sold,
                    ..HostSeed::default()
                })
                .collect(),
        }
    }))
}

fn apply(inventory: &mut Inventory, ask: &Ask, plan: &Plan) {
    for take in &plan.takes {
        inventory.take(take.host, &ask.classes[take.class as usize].needs, take.count);
    }
}

fn percentile(sorted: &[f64], p: usize) -> f64 {
    sorted[(sorted.len() * p / 100).min(sorted.len() - 1)]
}

/// 100 VMs in 10 groups on 10,000 hosts in 500 racks at 80 % fill.
fn latency(runs: u64) {
    let mut dice = Dice::new(1);
    let mut inventory = fleet(500, 20);
    let hosts = inventory.hosts.len() as u64;
    let mut booked = 0u64;
    while booked < 64 * hosts * 80 / 100 {
        let (host, kind) = (dice.between(0, hosts - 1) as usize, amounts(kind(&mut dice)));
        if kind.fits(&inventory.room(host)) {
            inventory.take(host, &kind, 1);
            booked += u64::from(kind.0[0]);
        }
    }
    for (name, keep) in [
        ("index kept between requests", true),
        ("everything reckoned anew", false),
    ] {
        let (mut times, mut refused) = (Vec::new(), 0);
        let mut fits = Fits::default();
        for run in 0..runs {
            let request = RackAsk {
                vms: vec![vm(kind(&mut dice), 100)],
                divide: Some(Divide::Groups(10)),
                seed: run,
                ..RackAsk::default()
            };
            if !keep {
                fits.clear();
            }
            let begun = Instant::now();
            let ask = Ask::check(&inventory, &request).expect("a fine request");
            let plan = place(&inventory, &mut fits, &ask);
            times.push(begun.elapsed().as_secs_f64() * 1e3);
            refused += u64::from(!plan.fits());
            // booked and given back, so that the next request meets changed racks and the same fill
            let rooms: Vec<_> = plan.takes.iter().map(|t| (t.host, inventory.room(t.host))).collect();
            apply(&mut inventory, &ask, &plan);
            rooms
                .iter()
                .rev()
                .for_each(|(host, room)| inventory.set_room(*host, room));
        }
        times.sort_by(f64::total_cmp);
        println!(
            "latency, {name}: 100 VMs in 10 groups, {hosts} hosts, 500 racks, 80 % full, {runs} runs: p50 {:.3} ms, p99 {:.3} ms, most {:.3} ms; {refused} refused",
            percentile(&times, 50),
            percentile(&times, 99),
            percentile(&times, 100)
        );
    }
}

/// 100,000 hosts filled with a million VMs.
fn fill(wanted: u64) {
    let mut dice = Dice::new(2);
    let begun = Instant::now();
    let mut inventory = fleet(5_000, 20);
    let built = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    let (mut fits, mut placed, mut requests, mut refused) = (Fits::default(), 0u64, 0u64, 0u64);
    while placed < wanted {
        let request = RackAsk {
            vms: vec![vm(kind(&mut dice), 100)],
            divide: Some(Divide::Groups(10)),
            seed: requests,
            ..RackAsk::default()
        };
        let ask = Ask::check(&inventory, &request).expect("a fine request");
        let plan = place(&inventory, &mut fits, &ask);
        requests += 1;
        match plan.fits() {
            true => {
                apply(&mut inventory, &ask, &plan);
                placed += 100;
            }
            false => refused += 1,
        }
        if refused > 10_000 {
            break;
        }
    }
    let took = begun.elapsed().as_secs_f64();
    let (mut sold, mut free) = (0u64, 0u64);
    for host in 0..inventory.hosts.len() {
        sold += u64::from(inventory.sold(host).0[0]);
        free += u64::from(inventory.room(host).0[0]);
    }
    println!(
        "fill: {placed} VMs in {requests} requests ({refused} refused) on {} hosts in {took:.2} s on one core (table built in {built:.2} s); {} % of vCPUs booked; most memory {} MiB",
        inventory.hosts.len(),
        (sold - free) * 100 / sold,
        peak_mib()
    );
}

fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap_or_default();
    line.split_whitespace()
        .nth(1)
        .and_then(|kb| kb.parse::<u64>().ok())
        .unwrap_or(0)
        / 1024
}

/// Instances and our answers, one JSON object a line.
fn dump(seed: u64, count: u64, size: &str) {
    for n in 0..count {
        let seed = seed.wrapping_mul(1_000_003).wrapping_add(n);
        let mut dice = Dice::new(seed);
        let size = match size {
            "large" => Size::large(&mut dice),
            _ => Size::medium(&mut dice),
        };
        let (inventory, request, planted) = planted_instance(&mut dice, size);
        let Ok(ask) = Ask::check(&inventory, &request) else {
            continue;
        };
        let begun = Instant::now();
        let plan = place(&inventory, &mut Fits::default(), &ask);
        let ms = begun.elapsed().as_secs_f64() * 1e3;
        let apart: Vec<(usize, usize)> = (0..ask.groups.len())
            .flat_map(|a| (0..a).map(move |b| (b, a)))
            .filter(|(a, b)| ask.apart[*a][*b])
            .collect();
        let mut on_host: HashMap<(u32, usize), u32> = HashMap::new();
        for take in &plan.takes {
            *on_host.entry((take.group, take.host)).or_default() += take.count;
        }
        let line = json!({
            "seed": seed,
            "fill": size.fill_percent,
            "planted": planted,
            "hosts": (0..inventory.hosts.len()).map(|h| {
                let rack = &inventory.racks[inventory.rack_of(h) as usize];
                json!({"rack": inventory.rack_of(h), "row": rack.row, "zone": rack.zone, "room": inventory.room(h).0, "labels": inventory.label_set(h)})
            }).collect::<Vec<_>>(),
            "classes": ask.classes.iter().map(|c| c.needs.0).collect::<Vec<[u32; DIMS]>>(),
            // the sets of labels that will do for each class; null: all
            "carries": ask.classes.iter().map(|c| carrying(&inventory, &c.labels)).collect::<Vec<_>>(),
            "groups": ask.groups.iter().map(|g| g.counts.clone()).collect::<Vec<_>>(),
            "allowed": (0..ask.groups.len()).map(|g| {
                (0..inventory.racks.len() as u32).filter(|r| ask.allows(g, *r)).collect::<Vec<_>>()
            }).collect::<Vec<_>>(),
            "apart": apart,
            "together": ask.together,
            "near_row": ask.near_row,
            "near_zone": ask.near_zone,
            "wishes": ask.wishes.iter().map(|w| json!({"kind": w.kind, "groups": w.groups})).collect::<Vec<_>>(),
            "per_host": (ask.per_host < u32::MAX).then_some(ask.per_host),
            "per_host_preferred": ask.per_host_preferred,
            "best_effort": ask.best_effort,
            "ours": {
                "fits": plan.fits(),
                "racks": plan.racks(),
                "placed": plan.takes.iter().map(|t| t.count).sum::<u32>(),
                "broken": broken(&inventory, &ask, &plan.homes),
                "per_host_kept": on_host.values().all(|n| *n <= ask.per_host),
                "exhausted": plan.exhausted,
                "ms": ms,
            },
        });
        println!("{line}");
    }
}
