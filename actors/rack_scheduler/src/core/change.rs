//! From plans to records and back: a first placement, and what grows, moves or leaves of a standing one.

use std::collections::BTreeMap;

use wire::rack_scheduler::{PlacedGroup, PlacedHost, Placement, PlacementState, RackAsk, Unplaced, VmSpec};

use super::amounts::{Amounts, Sums};
use super::ask::{Ask, Class};
use super::check;
use super::inventory::Inventory;
use super::ledger::{ClassRecord, GroupRecord, OnHost, PlacementRecord, Taken, VERSION};
use super::place::Plan;
use super::shortfall;
use crate::{Kind, RackError, Result};

/// What a change takes, by rack.
pub type Takes = BTreeMap<String, Vec<Taken>>;

/// The record of a first placement, and what it takes in each rack.
pub fn first(
    inventory: &Inventory,
    request: &RackAsk,
    ask: &Ask,
    plan: &Plan,
    id: &str,
    change: &str,
    now_ms: u64,
) -> (PlacementRecord, Takes) {
    let mut record = PlacementRecord {
        version: VERSION,
        void: false,
        state: PlacementState::Placed,
        ask: request.clone(),
        classes: ask
            .classes
            .iter()
            .map(|c| ClassRecord {
                needs: c.needs,
                labels: c.labels.clone(),
            })
            .collect(),
        groups: ask.groups.iter().map(|g| GroupRecord::named(&g.name)).collect(),
        unplaced: unplaced(ask, plan),
        gave_way: check::gave_way(inventory, ask, plan),
        ..PlacementRecord::void(id, now_ms)
    };
    let takes = added(&mut record, inventory, plan);
    committed(&mut record, change, now_ms);
    (record, takes)
}

/// Notes that a change is part of the record.
pub fn committed(record: &mut PlacementRecord, change: &str, now_ms: u64) {
    record.changes.push(change.to_owned());
    record.revision += 1;
    record.changed_at_ms = now_ms;
}

/// What has no place.
pub fn unplaced(ask: &Ask, plan: &Plan) -> Vec<Unplaced> {
    let some = plan.unplaced.iter().enumerate().filter(|(_, n)| **n > 0);
    some.map(|(g, n)| Unplaced {
        group: ask.groups[g].name.clone(),
        vms: u64::from(*n),
    })
    .collect()
}

/// Adds what a plan takes to the record, with fresh numbers.
pub fn added(record: &mut PlacementRecord, inventory: &Inventory, plan: &Plan) -> Takes {
    let mut takes = Takes::new();
    for take in &plan.takes {
        settle_home(record, inventory, plan, take.group as usize);
        let group = &mut record.groups[take.group as usize];
        let vms: Vec<u32> = (group.next..group.next + take.count).collect();
        group.next += take.count;
        put(record, inventory, take.group, take.class, take.host, vms, &mut takes);
    }
    takes
}

/// Puts VMs that left a host where the plan says, under the numbers that they have. `from` has them by group and class.
pub fn moved(
    record: &mut PlacementRecord,
    inventory: &Inventory,
    plan: &Plan,
    from: &mut BTreeMap<(u32, u32), Vec<u32>>,
) -> Takes {
    let mut takes = Takes::new();
    for take in &plan.takes {
        settle_home(record, inventory, plan, take.group as usize);
        let waiting = from.entry((take.group, take.class)).or_default();
        let vms = waiting.split_off(waiting.len().saturating_sub(take.count as usize));
        put(record, inventory, take.group, take.class, take.host, vms, &mut takes);
    }
    takes
}

fn settle_home(record: &mut PlacementRecord, inventory: &Inventory, plan: &Plan, g: usize) {
    let Some(home) = plan.homes[g] else { return };
    let rack = &inventory.racks[home as usize];
    let group = &mut record.groups[g];
    if group.rack.as_deref() != Some(&rack.id) {
        group.rack = Some(rack.id.clone());
        group.row = inventory.rows.name(rack.row).to_owned();
        group.zone = inventory.zones.name(rack.zone).to_owned();
        group.why = shortfall::why(plan, g);
    }
}

fn put(
    record: &mut PlacementRecord,
    inventory: &Inventory,
    group: u32,
    class: u32,
    host: usize,
    vms: Vec<u32>,
    takes: &mut Takes,
) {
    let id = &inventory.hosts[host];
    let on = &mut record.groups[group as usize].on;
    match on.iter_mut().find(|o| o.host == *id && o.class == class) {
        Some(there) => there.vms.extend(&vms),
        None => on.push(OnHost {
            host: id.clone(),
            class,
            vms: vms.clone(),
        }),
    }
    let rack = &inventory.racks[inventory.rack_of(host) as usize].id;
    takes.entry(rack.clone()).or_default().push(Taken {
        host: id.clone(),
        group,
        needs: record.classes[class as usize].needs,
        vms,
    });
}

/// The request that a change of a standing placement is: `counts` are what is to be placed of each group and class; groups in
/// `rehome` get another home than the one they have.
///
/// # Errors
/// `Conflict` when a home is no longer in the inventory; as [`Ask::check`].
pub fn ask_for(inventory: &Inventory, record: &PlacementRecord, counts: Vec<Vec<u32>>, rehome: &[u32]) -> Result<Ask> {
    // names that a selection means may have gone since: what stands needs no selection, what moves does
    let mut ask = Ask::check(inventory, &record.ask)?;
    ask.classes = record
        .classes
        .iter()
        .map(|c| Class {
            needs: c.needs,
            labels: c.labels.clone(),
        })
        .collect();
    let mut homes: Vec<Option<u32>> = Vec::with_capacity(record.groups.len());
    for group in &record.groups {
        homes.push(match &group.rack {
            None => None,
            Some(rack) => Some(inventory.rack(rack).ok_or_else(|| {
                RackError::new(
                    Kind::Conflict,
                    format!(
                        "rack {rack}, home of group {}, is no longer in the inventory; nothing was changed",
                        group.name
                    ),
                )
                .hint("windlass rack inventory")
            })?),
        });
    }
    for (g, counts) in counts.into_iter().enumerate() {
        let stays = homes[g].filter(|_| !rehome.contains(&(g as u32)));
        let group = &record.groups[g];
        ask.groups[g].counts = counts;
        ask.groups[g].home = stays;
        ask.groups[g].present = match stays {
            Some(home) => present(inventory, home, group),
            None => vec![],
        };
        if stays.is_none() {
            // the homes of the others bound where this one may go
            let near = |roots: &[u32], h: usize| roots[g] == roots[h] && g != h;
            let others: Vec<(usize, u32)> = (0..homes.len())
                .filter(|h| *h != g && !rehome.contains(&(*h as u32)))
                .filter_map(|h| homes[h].map(|home| (h, home)))
                .collect();
            let base = ask.selects[ask.groups[g].select].clone();
            let may = |rack: u32| {
                let here = &inventory.racks[rack as usize];
                base.as_ref().is_none_or(|b| b[rack as usize])
                    && homes[g] != Some(rack)
                    && others.iter().all(|(h, home)| {
                        let there = &inventory.racks[*home as usize];
                        (!ask.apart[g][*h] || *home != rack)
                            && (ask.together[g] != ask.together[*h] || *home == rack)
                            && (!near(&ask.near_row, *h) || here.row == there.row)
                            && (!near(&ask.near_zone, *h) || here.zone == there.zone)
                    })
            };
            let bounded = (0..inventory.racks.len() as u32).map(may).collect();
            ask.selects.push(Some(bounded));
            ask.groups[g].select = ask.selects.len() - 1;
        } else {
            ask.selects.push(None);
            ask.groups[g].select = ask.selects.len() - 1;
        }
    }
    ask.best_effort = false;
    Ok(ask)
}

fn present(inventory: &Inventory, home: u32, group: &GroupRecord) -> Vec<(usize, u32)> {
    let hosts = inventory.racks[home as usize].hosts.clone();
    let on = |host: usize| -> u32 {
        let here = group.on.iter().filter(|o| o.host == inventory.hosts[host]);
        here.map(|o| o.vms.len() as u32).sum()
    };
    hosts.map(|h| (h, on(h))).filter(|(_, n)| *n > 0).collect()
}

/// New VMs dealt to groups, the smallest first; classes that the placement doesn't have yet are added to it.
///
/// # Errors
/// `NotFound` for an unknown group; `Invalid` for VMs that want nothing or too much.
pub fn dealt(record: &mut PlacementRecord, vms: &[VmSpec], groups: &[String]) -> Result<Vec<Vec<u32>>> {
    let mut members: Vec<usize> = Vec::new();
    for name in groups {
        let found = record.groups.iter().position(|g| g.name == *name);
        members.push(found.ok_or_else(|| {
            RackError::new(
                Kind::NotFound,
                format!("placement {} has no group {name}; nothing was changed", record.id),
            )
        })?);
    }
    if members.is_empty() {
        members = (0..record.groups.len()).collect();
    }
    let total: u64 = vms.iter().map(|v| v.count).fold(record.vms(), u64::saturating_add);
    if vms.iter().all(|v| v.count == 0) || total > wire::rack_scheduler::VMS_MAX {
        return Err(RackError::new(
            Kind::Invalid,
            format!(
                "a placement has 1 to {} VMs, and grows by 1 at least; nothing was changed",
                wire::rack_scheduler::VMS_MAX
            ),
        ));
    }
    let mut sizes: Vec<u64> = record.groups.iter().map(GroupRecord::vms).collect();
    let mut counts = vec![vec![0u32; record.classes.len()]; record.groups.len()];
    for vm in vms {
        let class = ClassRecord {
            needs: Amounts::of_vm("a VM", vm)?,
            labels: vm.labels.clone(),
        };
        let number = match record.classes.iter().position(|c| *c == class) {
            Some(number) => number,
            None => {
                record.classes.push(class);
                record.classes.len() - 1
            }
        };
        if record.classes.len() > wire::rack_scheduler::SPECS_MAX {
            return Err(RackError::new(
                Kind::Invalid,
                format!(
                    "more than {} kinds of VM; nothing was changed",
                    wire::rack_scheduler::SPECS_MAX
                ),
            ));
        }
        counts.iter_mut().for_each(|c| c.resize(record.classes.len(), 0));
        for _ in 0..vm.count {
            let smallest = members.iter().copied().min_by_key(|g| (sizes[*g], *g)).unwrap_or(0);
            sizes[smallest] += 1;
            counts[smallest][number] += 1;
        }
    }
    Ok(counts)
}

/// The name of a VM.
pub fn vm_name(group: &GroupRecord, number: u32) -> String {
    format!("{}-{number}", group.name)
}

/// What a tenant's quota has to hold of a plan.
pub fn sums_of(takes: &Takes) -> Sums {
    let mut sums = Sums::default();
    for taken in takes.values().flatten() {
        super::amounts::add(&mut sums, &taken.needs.times(taken.vms.len() as u32));
    }
    sums
}

/// A record as its reader sees it.
pub fn shown(record: &PlacementRecord, created_at: String, duplicate: bool) -> Placement {
    Placement {
        id: record.id.clone(),
        state: record.state,
        created_at,
        tenant: record.ask.tenant.clone(),
        version: record.revision,
        fits: record.unplaced.is_empty(),
        groups: record.groups.iter().map(shown_group).collect(),
        unplaced: record.unplaced.clone(),
        gave_way: record.gave_way.clone(),
        duplicate,
    }
}

fn shown_group(group: &GroupRecord) -> PlacedGroup {
    let mut hosts: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for on in &group.on {
        hosts.entry(&on.host).or_default().extend(&on.vms);
    }
    PlacedGroup {
        name: group.name.clone(),
        rack: group.rack.clone(),
        row: group.row.clone(),
        zone: group.zone.clone(),
        hosts: hosts
            .into_iter()
            .map(|(host, mut vms)| {
                vms.sort_unstable();
                PlacedHost {
                    host: host.to_owned(),
                    vms: vms.into_iter().map(|n| vm_name(group, n)).collect(),
                }
            })
            .collect(),
        why: group.why.clone(),
    }
}
