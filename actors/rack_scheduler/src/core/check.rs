//! What must hold of every answer, reckoned from nothing but the inventory and the request: used by tests, by the
//! simulation, and before anything is committed.

use std::collections::HashMap;

use wire::rack_scheduler::RelationKind;

use super::amounts::{Sums, add, sums_fit};
use super::ask::Ask;
use super::inventory::Inventory;
use super::place::Plan;

/// Every hard constraint that the plan goes against, for people; none for a sound plan.
pub fn violations(inventory: &Inventory, ask: &Ask, plan: &Plan) -> Vec<String> {
    let mut found = Vec::new();
    conservation(ask, plan, &mut found);
    hosts(inventory, ask, plan, &mut found);
    homes(inventory, ask, plan, &mut found);
    if !ask.best_effort && !plan.fits() && !plan.takes.is_empty() {
        found.push("all or nothing was asked for, and something was placed".into());
    }
    found
}

fn conservation(ask: &Ask, plan: &Plan, found: &mut Vec<String>) {
    for (g, group) in ask.groups.iter().enumerate() {
        let mut placed = vec![0u32; ask.classes.len()];
        for take in plan.takes.iter().filter(|t| t.group as usize == g) {
            placed[take.class as usize] += take.count;
        }
        if placed.iter().zip(&group.counts).any(|(p, wanted)| p > wanted) {
            found.push(format!("group {} got more than it asked for", group.name));
        }
        if placed.iter().sum::<u32>() + plan.unplaced[g] != group.vms() {
            found.push(format!(
                "group {}: placed and unplaced aren't what was asked for",
                group.name
            ));
        }
    }
}

fn hosts(inventory: &Inventory, ask: &Ask, plan: &Plan, found: &mut Vec<String>) {
    let mut on_host: HashMap<usize, Sums> = HashMap::new();
    let mut of_group: HashMap<(u32, usize), u32> = HashMap::new();
    for take in &plan.takes {
        let class = &ask.classes[take.class as usize];
        add(on_host.entry(take.host).or_default(), &class.needs.times(take.count));
        *of_group.entry((take.group, take.host)).or_default() += take.count;
        let labels = &inventory.label_sets[inventory.label_set(take.host) as usize];
        if class.labels.iter().any(|(k, v)| labels.get(k) != Some(v)) {
            found.push(format!("host {} doesn't carry the labels", inventory.hosts[take.host]));
        }
    }
    for (host, sums) in on_host {
        if !sums_fit(&sums, &inventory.room(host).times(1)) {
            found.push(format!("host {} is oversold", inventory.hosts[host]));
        }
    }
    for (g, group) in ask.groups.iter().enumerate() {
        for (host, n) in &group.present {
            *of_group.entry((g as u32, *host)).or_default() += n;
        }
    }
    if !ask.per_host_preferred {
        let touched = |g: u32, host: usize| plan.takes.iter().any(|t| t.group == g && t.host == host);
        for ((g, host), n) in of_group {
            if n > ask.per_host && touched(g, host) {
                found.push(format!("host {} has {n} VMs of one group", inventory.hosts[host]));
            }
        }
    }
}

fn homes(inventory: &Inventory, ask: &Ask, plan: &Plan, found: &mut Vec<String>) {
    for take in &plan.takes {
        let rack = inventory.rack_of(take.host);
        let name = &ask.groups[take.group as usize].name;
        if plan.homes[take.group as usize] != Some(rack) {
            found.push(format!("a VM of group {name} is not in its home rack"));
        }
        if !ask.allows(take.group as usize, rack) {
            found.push(format!("group {name} is where it may not be"));
        }
    }
    let housed: Vec<(usize, u32)> = (0..ask.groups.len())
        .filter_map(|g| plan.homes[g].map(|home| (g, home)))
        .collect();
    for (n, (a, rack_a)) in housed.iter().enumerate() {
        for (b, rack_b) in &housed[..n] {
            let (ra, rb) = (&inventory.racks[*rack_a as usize], &inventory.racks[*rack_b as usize]);
            let names = || format!("groups {} and {}", ask.groups[*b].name, ask.groups[*a].name);
            if ask.apart[*a][*b] && rack_a == rack_b {
                found.push(format!("{} are in one rack", names()));
            }
            if ask.together[*a] == ask.together[*b] && rack_a != rack_b {
                found.push(format!("{} are in two racks", names()));
            }
            if ask.near_row[*a] == ask.near_row[*b] && ra.row != rb.row {
                found.push(format!("{} are in two rows", names()));
            }
            if ask.near_zone[*a] == ask.near_zone[*b] && ra.zone != rb.zone {
                found.push(format!("{} are in two zones", names()));
            }
        }
    }
}

/// Preferences that the plan goes against, for people.
pub fn gave_way(inventory: &Inventory, ask: &Ask, plan: &Plan) -> Vec<String> {
    let mut found = Vec::new();
    if ask.per_host_preferred {
        let mut of_group: HashMap<(u32, usize), u32> = HashMap::new();
        for take in &plan.takes {
            *of_group.entry((take.group, take.host)).or_default() += take.count;
        }
        let over = of_group.values().filter(|n| **n > ask.per_host).count();
        if over > 0 {
            found.push(format!("on {over} hosts a group has more than {} VMs", ask.per_host));
        }
    }
    for wish in &ask.wishes {
        let homes: Vec<u32> = wish.groups.iter().filter_map(|g| plan.homes[*g as usize]).collect();
        let mut of: Vec<u32> = homes
            .iter()
            .map(|home| match wish.kind {
                RelationKind::Apart | RelationKind::Together => *home,
                RelationKind::NearRow => inventory.racks[*home as usize].row,
                RelationKind::NearZone => inventory.racks[*home as usize].zone,
            })
            .collect();
        of.sort_unstable();
        of.dedup();
        match wish.kind {
            RelationKind::Apart if of.len() < homes.len() => {
                found.push(format!(
                    "{} groups that prefer to be apart share {} racks",
                    homes.len(),
                    of.len()
                ));
            }
            RelationKind::Together if of.len() > 1 => {
                found.push(format!("groups that prefer to be together are in {} racks", of.len()));
            }
            RelationKind::NearRow if of.len() > 1 => {
                found.push(format!("groups that prefer one row are in {}", of.len()));
            }
            RelationKind::NearZone if of.len() > 1 => {
                found.push(format!("groups that prefer one zone are in {}", of.len()));
            }
            _ => {}
        }
    }
    found
}
