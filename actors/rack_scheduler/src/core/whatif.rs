//! How many VMs of a kind fit, and what runs out first.

use wire::rack_scheduler::WhatifReport;

use super::amounts::{DIM_CONSTRAINTS, DIMS, Sums, add, sums_to_wire};
use super::ask::Ask;
use super::inventory::{Inventory, carrying};

/// Answers for the first class of a request with one group; its count is the size of a group.
pub fn whatif(inventory: &Inventory, ask: &Ask) -> WhatifReport {
    let (class, size) = (&ask.classes[0], ask.groups[0].vms().max(1));
    let carries = carrying(inventory, &class.labels);
    let (mut vms, mut groups, mut racks) = (0u64, 0u64, 0u64);
    let mut ends = [0u64; DIMS];
    let mut left = Sums::default();
    for (number, rack) in inventory.racks.iter().enumerate() {
        if !ask.allows(0, number as u32) {
            continue;
        }
        let mut here = 0u64;
        for host in rack.hosts.clone() {
            let mut room = inventory.room(host);
            let labelled = carries
                .as_ref()
                .is_none_or(|sets| sets[inventory.label_set(host) as usize]);
            if labelled {
                let fits = class.needs.times_in(&room, ask.per_host);
                here += u64::from(fits);
                room.take(&class.needs, fits);
                if let Some(d) = (0..DIMS).find(|d| room.0[*d] < class.needs.0[*d]) {
                    ends[d] += 1;
                }
            }
            add(&mut left, &room.times(1));
        }
        vms += here;
        // hosts that serve one group serve another too: the bound is per group
        groups += here / u64::from(size);
        racks += u64::from(here >= u64::from(size));
    }
    let first = (0..DIMS).filter(|d| ends[*d] > 0).max_by_key(|d| ends[*d]);
    WhatifReport {
        vms,
        groups,
        racks,
        runs_out: first.map(|d| DIM_CONSTRAINTS[d]),
        left: sums_to_wire(&left),
    }
}
