//! How full hosts get under our rule and under others'.

use wire::rack_scheduler::{Divide, RackAsk};

use super::{MIX, amounts, fleet, kind, vm};
use windlass_rack_scheduler::core::amounts::Amounts;
use windlass_rack_scheduler::core::ask::Ask;
use windlass_rack_scheduler::core::inventory::{Fits, Inventory};
use windlass_rack_scheduler::core::place::place;
use windlass_rack_scheduler::scenario::Dice;

/// Hosts, what each VM wants, and how many.
type Took = Vec<(usize, Amounts, u32)>;

/// How a rack and hosts are chosen by others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Ours,
    FirstFit,
    Random,
    BestFit,
    LeastFreeCapacity,
}

/// A trace of requests that come and go, under each rule.
pub fn packing(seed: u64) {
    println!(
        "packing: 40 racks of 20 hosts; requests of 1 to 4 groups of 2 to 12 VMs come and go; every other one wants its groups apart"
    );
    println!("rule                 requests  refused  VMs refused  racks a group  stranded vCPUs");
    let mut rows = Vec::new();
    for rule in [
        Rule::Ours,
        Rule::FirstFit,
        Rule::Random,
        Rule::BestFit,
        Rule::LeastFreeCapacity,
    ] {
        let mut dice = Dice::new(seed);
        let mut chance = Dice::new(seed ^ 0xABCD);
        let mut inventory = fleet(40, 20);
        let mut standing: Vec<(u64, Took)> = Vec::new();
        let (mut refused, mut vms_refused, mut vms, mut stranded, mut free, mut groups_placed, mut racks_used) =
            (0u64, 0u64, 0u64, 0u64, 0u64, 0u64, 0u64);
        let rounds = 6_000u64;
        for round in 0..rounds {
            standing.retain(|(until, takes)| {
                if *until <= round {
                    for (host, needs, count) in takes {
                        let mut room = inventory.room(*host);
                        for (mine, back) in room.0.iter_mut().zip(needs.times(*count)) {
                            *mine += back as u32;
                        }
                        inventory.set_room(*host, &room);
                    }
                }
                *until > round
            });
            let (groups, size, kind) = (dice.between(1, 4), dice.between(2, 12), kind(&mut dice));
            let (apart, life) = (dice.percent(50), dice.between(100, 1_600));
            vms += groups * size;
            let request = RackAsk {
                vms: vec![vm(kind, groups * size)],
                divide: Some(Divide::Groups(groups)),
                relations: if apart { None } else { Some(vec![]) },
                ..RackAsk::default()
            };
            let takes = match rule {
                Rule::Ours => {
                    let ask = Ask::check(&inventory, &request).expect("a fine request");
                    let plan = place(&inventory, &mut Fits::default(), &ask);
                    plan.fits()
                        .then(|| plan.takes.iter().map(|t| (t.host, amounts(kind), t.count)).collect())
                }
                _ => by_rule(&inventory, rule, groups, size as u32, amounts(kind), apart, &mut chance),
            };
            match takes {
                None => {
                    refused += 1;
                    vms_refused += groups * size;
                }
                Some(takes) => {
                    let takes: Took = takes;
                    let mut racks: Vec<u32> = takes.iter().map(|(h, ..)| inventory.rack_of(*h)).collect();
                    racks.sort_unstable();
                    racks.dedup();
                    racks_used += racks.len() as u64;
                    groups_placed += groups;
                    for (host, needs, count) in &takes {
                        inventory.take(*host, needs, *count);
                    }
                    standing.push((round + life, takes));
                }
            }
            if round > rounds / 3 && round % 100 == 0 {
                // free, but no VM of 4 vCPUs and 16 GiB fits on the host
                let common = amounts(MIX[3].0);
                for host in 0..inventory.hosts.len() {
                    let room = inventory.room(host);
                    free += u64::from(room.0[0]);
                    stranded += if common.fits(&room) { 0 } else { u64::from(room.0[0]) };
                }
            }
        }
        let figures = [
            refused as f64 * 100.0 / rounds as f64,
            racks_used as f64 / groups_placed as f64,
            stranded as f64 * 100.0 / free.max(1) as f64,
        ];
        println!(
            "{:<20} {rounds:>8} {:>7.2}% {:>11.2}% {:>14.3} {:>13.2}%",
            format!("{rule:?}"),
            figures[0],
            vms_refused as f64 * 100.0 / vms as f64,
            figures[1],
            figures[2]
        );
        rows.push((format!("{rule:?}"), figures));
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../bench/report/rack_packing.svg");
    let written = std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/../../bench/report"))
        .and_then(|()| std::fs::write(path, plot(&rows)));
    match written {
        Ok(()) => println!("plot: bench/report/rack_packing.svg"),
        Err(error) => println!("no plot: {path} can't be written: {error}"),
    }
}

/// Three panels of bars, one bar a rule.
fn plot(rows: &[(String, [f64; 3])]) -> String {
    const TITLES: [&str; 3] = ["refused requests, %", "racks a group", "stranded vCPUs, % of free"];
    const WIDE: usize = 330;
    const BAR: usize = 26;
    let high = 50 + rows.len() * BAR;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{high}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        3 * WIDE
    );
    for (n, title) in TITLES.iter().enumerate() {
        let left = n * WIDE + 10;
        let most = rows.iter().map(|(_, f)| f[n]).fold(f64::MIN_POSITIVE, f64::max);
        svg += &format!("<text x=\"{left}\" y=\"20\" font-weight=\"bold\">{title} (less is better)</text>\n");
        for (row, (name, figures)) in rows.iter().enumerate() {
            let (y, long) = (34 + row * BAR, figures[n] / most * 130.0);
            let colour = if row == 0 { "#2563eb" } else { "#94a3b8" };
            svg += &format!(
                "<text x=\"{left}\" y=\"{}\">{name}</text><rect x=\"{}\" y=\"{y}\" width=\"{long:.1}\" height=\"18\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{}\">{:.2}</text>\n",
                y + 13,
                left + 125,
                left as f64 + 130.0 + long,
                y + 13,
                figures[n]
            );
        }
    }
    svg + "</svg>\n"
}

/// Group after group: a rack that has slots for all of it, then hosts in it. Kueue's BestFit takes the rack with the fewest slots
/// that suffice and there the roomiest hosts first, the last one as tight as can be; LeastFreeCapacity takes the tightest hosts
/// first (documentation of Topology Aware Scheduling, kueue.sigs.k8s.io). Written anew for this bench.
fn by_rule(
    inventory: &Inventory,
    rule: Rule,
    groups: u64,
    size: u32,
    needs: Amounts,
    apart: bool,
    chance: &mut Dice,
) -> Option<Took> {
    let mut rooms: Vec<Amounts> = (0..inventory.hosts.len()).map(|h| inventory.room(h)).collect();
    let (mut takes, mut used) = (Vec::new(), vec![false; inventory.racks.len()]);
    for _ in 0..groups {
        let slots = |rack: usize, rooms: &[Amounts]| -> u32 {
            inventory.racks[rack]
                .hosts
                .clone()
                .map(|h| needs.times_in(&rooms[h], u32::MAX))
                .sum()
        };
        let able: Vec<usize> = (0..used.len())
            .filter(|r| !(apart && used[*r]) && slots(*r, &rooms) >= size)
            .collect();
        let rack = match rule {
            Rule::FirstFit | Rule::Ours => *able.first()?,
            Rule::Random => *able.get(chance.between(0, able.len().max(1) as u64 - 1) as usize)?,
            Rule::BestFit | Rule::LeastFreeCapacity => able.into_iter().min_by_key(|r| (slots(*r, &rooms), *r))?,
        };
        used[rack] = true;
        let mut hosts: Vec<(u32, usize)> = inventory.racks[rack]
            .hosts
            .clone()
            .map(|h| (needs.times_in(&rooms[h], u32::MAX), h))
            .filter(|(n, _)| *n > 0)
            .collect();
        match rule {
            Rule::BestFit => hosts.sort_by_key(|(n, h)| (u32::MAX - n, *h)),
            Rule::LeastFreeCapacity => hosts.sort_unstable(),
            Rule::Random => hosts.sort_by_key(|_| chance.roll()),
            Rule::FirstFit | Rule::Ours => {}
        }
        let mut left = size;
        while left > 0 {
            if rule == Rule::BestFit
                && let Some(at) = (0..hosts.len())
                    .filter(|i| hosts[*i].0 >= left)
                    .min_by_key(|i| hosts[*i])
            {
                let last = hosts.remove(at);
                hosts.insert(0, last);
            }
            let (n, host) = hosts.remove(0);
            let count = n.min(left);
            rooms[host].take(&needs, count);
            takes.push((host, needs, count));
            left -= count;
        }
    }
    Some(takes)
}
