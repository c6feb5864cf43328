//! What can't be: how long its answer takes, from the message's bytes on, and what memory that costs. The bench fails when an
//! answer takes more than a second.

use std::fmt::Display;
use std::time::Instant;

use serde_json::{Value, json};
use wire::rack_scheduler::{InventoryArg, RackAsk};

use super::{fleet, peak_mib};
use windlass_rack_scheduler::core::ask::Ask;
use windlass_rack_scheduler::core::inventory::{Fits, Inventory};
use windlass_rack_scheduler::core::place::place;
use windlass_rack_scheduler::core::{shortfall, topology};

/// How long an answer may take.
const ANSWER_S_MAX: f64 = 1.0;

fn short(text: &impl Display) -> String {
    let text = text.to_string();
    let shown: String = text.chars().take(110).collect();
    if shown.len() < text.len() { shown + "…" } else { shown }
}

/// As a daemon answers `plan`: the request is decoded and checked, a place is looked for, and what is missing.
fn asked(table: &Inventory, request: &[u8]) -> String {
    let request: RackAsk = match serde_json::from_slice(request) {
        Ok(request) => request,
        Err(error) => return short(&error),
    };
    let ask = match Ask::check(table, &request) {
        Ok(ask) => ask,
        Err(error) => return short(&error),
    };
    let mut fits = Fits::default();
    let plan = place(table, &mut fits, &ask);
    match plan.fits() {
        true => "it fits".into(),
        false => short(&shortfall::find(table, &mut fits, &ask, &plan).message),
    }
}

fn loaded(inventory: &[u8]) -> String {
    let inventory: InventoryArg = match serde_json::from_slice(inventory) {
        Ok(inventory) => inventory,
        Err(error) => return short(&error),
    };
    match topology::racks(&inventory) {
        Ok(racks) => format!("{} racks are fine", racks.len()),
        Err(error) => short(&error),
    }
}

fn requests() -> Vec<(&'static str, Value)> {
    let vms = |count: u64, vcpus: u64| json!({"count": count, "vcpus": vcpus, "memory_mib": 1024});
    let groups = |count: usize, each: u64| -> Vec<Value> {
        let one = |n| json!({"name": format!("k{n}"), "vms": [vms(each, 1 + n as u64 % 7)]});
        (0..count).map(one).collect()
    };
    let apart = json!([{"kind": "apart"}, {"kind": "together", "groups": ["g0", "g1"]}]);
    vec![
        (
            "10 million VMs",
            json!({"vms": [vms(10_000_000, 1)], "divide": {"groups": 10}}),
        ),
        (
            "as many VMs as a number holds",
            json!({"vms": [vms(u64::MAX, 1), vms(u64::MAX, 2)]}),
        ),
        ("no VM", json!({"vms": [vms(0, 1)]})),
        ("a negative number", json!({"vms": [{"count": -1, "vcpus": 1}]})),
        ("an amount beyond all bounds", json!({"vms": [vms(1, u64::MAX)]})),
        (
            "apart and together at once",
            json!({"vms": [vms(4, 1)], "divide": {"groups": 4}, "relations": apart}),
        ),
        (
            "an unknown rack",
            json!({"vms": [vms(4, 1)], "select": {"racks": ["nowhere"]}}),
        ),
        ("no host is that large", json!({"vms": [vms(10, 500)]})),
        (
            "more groups apart than racks",
            json!({"vms": [vms(1_000, 1)], "divide": {"groups": 1_000}}),
        ),
        (
            "10,000 VMs that want it all",
            json!({"vms": [vms(10_000, 60)], "divide": {"groups": 1_000}, "relations": []}),
        ),
        (
            "1,000 groups of seven kinds that may share, too many",
            json!({"groups": groups(1_000, 10), "relations": [], "inside": {"per_host_max": 1}}),
        ),
        (
            "the same, at most two to a host, nine to a group",
            json!({"groups": groups(1_000, 9), "relations": [{"kind": "near_row"}], "inside": {"per_host_max": 2}}),
        ),
        (
            "1,000 groups that prefer to be together and apart",
            json!({"groups": groups(1_000, 10), "relations": [{"kind": "together", "strength": "preferred"}, {"kind": "apart", "strength": "preferred"}]}),
        ),
    ]
}

fn inventories() -> Vec<(&'static str, Value)> {
    let host = |n: usize| json!({"id": format!("h{n}"), "rack": format!("r{}", n / 20), "capacity": {"vcpus": 8, "memory_mib": 8192}});
    let hosts = |count: usize| -> Vec<Value> { (0..count).map(host).collect() };
    let ring = |count: usize| -> Vec<Value> {
        let place =
            |n: usize| json!({"id": format!("p{n}"), "level": "row", "within": format!("p{}", (n + 1) % count)});
        (0..count).map(place).collect()
    };
    let mut twice = hosts(10_000);
    twice.push(host(0));
    vec![
        (
            "a loop of 100,000 places",
            json!({"places": ring(100_000), "hosts": hosts(1)}),
        ),
        ("a host that stands twice among 10,000", json!({"hosts": twice})),
        (
            "a rack of 10,000 hosts",
            json!({"hosts": (0..10_000).map(|n| json!({"id": format!("h{n}"), "rack": "r", "capacity": {"vcpus": 1}})).collect::<Vec<_>>()}),
        ),
        (
            "200,001 places more than may be",
            json!({"places": ring(200_001), "hosts": hosts(1)}),
        ),
    ]
}

pub fn bad() {
    // half of each host is taken, so that searches have something to think about
    let mut table = fleet(500, 20);
    for host in 0..table.hosts.len() {
        let mut half = table.room(host);
        half.0.iter_mut().for_each(|a| *a /= 2);
        table.take(host, &half, 1);
    }
    let cases = requests().into_iter().map(|(name, value)| (name, value, true));
    let cases = cases.chain(inventories().into_iter().map(|(name, value)| (name, value, false)));
    let mut slow = Vec::new();
    let (mut most_s, mut before) = (0.0f64, peak_mib());
    let first = before;
    for (name, value, is_request) in cases {
        let bytes = serde_json::to_vec(&value).expect("JSON");
        drop(value);
        before = before.max(peak_mib());
        let begun = Instant::now();
        let said = match is_request {
            true => asked(&table, &bytes),
            false => loaded(&bytes),
        };
        let took_s = begun.elapsed().as_secs_f64();
        most_s = most_s.max(took_s);
        println!(
            "bad: {name} ({} KiB): {:.2} ms, {} MiB more; {said}",
            bytes.len() >> 10,
            took_s * 1e3,
            peak_mib().saturating_sub(before)
        );
        if took_s > ANSWER_S_MAX {
            slow.push(name);
        }
    }
    println!(
        "bad: the slowest answer took {:.0} ms; most memory {} MiB, {first} MiB before",
        most_s * 1e3,
        peak_mib()
    );
    assert!(
        slow.is_empty(),
        "answers that took more than {ANSWER_S_MAX} s: {slow:?}"
    );
}
