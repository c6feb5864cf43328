//! Why something doesn't fit: which constraint, what is missing, and a change that was tried and would help.

use std::collections::BTreeMap;

use wire::rack_scheduler::{Constraint, GroupWhy, Refusal, Shortfall};

use super::amounts::{DIM_CONSTRAINTS, DIM_WORDS, DIMS, Sums, less, sums_to_wire};
use super::ask::Ask;
use super::inventory::{Fits, Inventory, carrying};
use super::place::{Plan, place_within};

/// What one trial of a change may cost.
const TRIAL_STEPS_MAX: u64 = 2_000_000;

/// What a trial without a relation may cost for each group: one look for a home for it.
const GROUP_STEPS: u64 = 20_000;

/// Whether a request fits without a relation.
fn fits_without(inventory: &Inventory, fits: &mut Fits, ask: &Ask, relation: &dyn Fn(&mut Ask)) -> bool {
    let mut other = ask.clone();
    relation(&mut other);
    let steps_max = TRIAL_STEPS_MAX.max(GROUP_STEPS * ask.groups.len() as u64);
    place_within(inventory, fits, &other, steps_max).fits()
}

/// Why a rack can't take a group alone; `None` when it could.
fn refusal(inventory: &Inventory, fits: &mut Fits, ask: &Ask, g: usize) -> Vec<Option<Constraint>> {
    let group = &ask.groups[g];
    let demand = ask.demand(g);
    let wanted: Vec<usize> = (0..ask.classes.len()).filter(|c| group.counts[*c] > 0).collect();
    let bounded: Vec<Vec<u32>> = wanted
        .iter()
        .map(|c| fits.of(inventory, &ask.fit_key(*c, true)))
        .collect();
    let free: Vec<Vec<u32>> = wanted
        .iter()
        .map(|c| fits.of(inventory, &ask.fit_key(*c, false)))
        .collect();
    let carry: Vec<Option<Vec<bool>>> = wanted
        .iter()
        .map(|c| carrying(inventory, &ask.classes[*c].labels))
        .collect();
    let of = |rack: u32| {
        if !ask.allows(g, rack) {
            return Some(Constraint::Select);
        }
        let hosts = || inventory.racks[rack as usize].hosts.clone();
        let labelled = |sets: &Vec<bool>| hosts().any(|h| sets[inventory.label_set(h) as usize]);
        if carry.iter().flatten().any(|sets| !labelled(sets)) {
            return Some(Constraint::Labels);
        }
        if let Some((d, _)) = scarcest(&demand, inventory.rack_room(rack)) {
            return Some(DIM_CONSTRAINTS[d]);
        }
        let short = |fits: &[Vec<u32>]| {
            wanted
                .iter()
                .zip(fits)
                .any(|(c, f)| f[rack as usize] < group.counts[*c])
        };
        match (short(&free), short(&bounded) && !ask.per_host_preferred) {
            (true, _) => Some(Constraint::Fragmentation),
            (_, true) => Some(Constraint::PerHost),
            _ => None,
        }
    };
    (0..inventory.racks.len() as u32).map(of).collect()
}

/// The dimension of which the largest share is missing, and how much is.
fn scarcest(demand: &Sums, room: &Sums) -> Option<(usize, u64)> {
    let share = |d: usize| demand[d].saturating_sub(room[d]) as f64 / demand[d].max(1) as f64;
    let worst = (0..DIMS).max_by(|a, b| share(*a).total_cmp(&share(*b)))?;
    (demand[worst] > room[worst]).then(|| (worst, demand[worst] - room[worst]))
}

/// Why each group is where it is, or nowhere.
pub fn group_whys(inventory: &Inventory, fits: &mut Fits, ask: &Ask, plan: &Plan) -> Vec<GroupWhy> {
    (0..ask.groups.len())
        .map(|g| {
            let mut refused: BTreeMap<Constraint, (u64, u32)> = BTreeMap::new();
            let mut able = 0;
            for (rack, why) in refusal(inventory, fits, ask, g).into_iter().enumerate() {
                match why {
                    None => able += 1,
                    Some(why) => refused.entry(why).or_insert((0, rack as u32)).0 += 1,
                }
            }
            let rack = plan.homes[g].map(|home| inventory.racks[home as usize].id.clone());
            GroupWhy {
                group: ask.groups[g].name.clone(),
                why: why(plan, g),
                rack,
                racks_able: able,
                refused: refused
                    .into_iter()
                    .map(|(constraint, (racks, example))| Refusal {
                        constraint,
                        racks,
                        example: inventory.racks[example as usize].id.clone(),
                    })
                    .collect(),
            }
        })
        .collect()
}

/// Why a group is where it is, in a few words.
pub fn why(plan: &Plan, g: usize) -> String {
    match (plan.homes[g], plan.able[g]) {
        (None, 0) => "no rack could take it".into(),
        (None, n) => format!("{n} racks could take it alone, but not with the others"),
        (Some(_), 1) => "the only rack that could take it".into(),
        (Some(_), n) => format!("the least is left over there, of {n} racks that could take it"),
    }
}

/// What is missing for what has no place.
pub fn find(inventory: &Inventory, fits: &mut Fits, ask: &Ask, plan: &Plan) -> Shortfall {
    let g = (0..ask.groups.len()).find(|g| plan.unplaced[*g] > 0).unwrap_or(0);
    let refused = refusal(inventory, fits, ask, g);
    let mut shortfall = if refused.iter().all(Option::is_some) {
        alone(inventory, fits, ask, g, &refused)
    } else {
        between(inventory, fits, ask, g, plan)
    };
    shortfall.change = change(inventory, fits, ask, &shortfall);
    shortfall
}

/// No rack could take the group even alone.
fn alone(inventory: &Inventory, fits: &mut Fits, ask: &Ask, g: usize, refused: &[Option<Constraint>]) -> Shortfall {
    let (group, demand) = (&ask.groups[g], ask.demand(g));
    // of racks that are allowed, the one that comes nearest
    let nearest = (0..inventory.racks.len() as u32)
        .filter(|r| !matches!(refused[*r as usize], Some(Constraint::Select | Constraint::Labels)))
        .min_by(|a, b| {
            let gap =
                |r: &u32| scarcest(&demand, inventory.rack_room(*r)).map_or(0.0, |(d, n)| n as f64 / demand[d] as f64);
            gap(a).total_cmp(&gap(b)).then(a.cmp(b))
        });
    let Some(rack) = nearest else {
        let labels = refused.contains(&Some(Constraint::Labels));
        let (constraint, why) = match labels {
            true => (
                Constraint::Labels,
                "no host of the racks that it may use carries the labels of its VMs",
            ),
            false => (Constraint::Select, "its selection leaves no rack"),
        };
        return Shortfall {
            constraint,
            group: Some(group.name.clone()),
            message: format!("group {}: {why}", group.name),
            missing: sums_to_wire(&demand),
            change: None,
        };
    };
    let (id, room) = (&inventory.racks[rack as usize].id, inventory.rack_room(rack));
    let constraint = refused[rack as usize].unwrap_or(Constraint::Search);
    let mut missing = less(&demand, room);
    let message = match (scarcest(&demand, room), constraint) {
        (Some((d, n)), _) => format!(
            "group {}: its {} VMs want {} {}; the rack that comes nearest, {id}, has {} free, {n} too few",
            group.name,
            group.vms(),
            demand[d],
            DIM_WORDS[d],
            room[d]
        ),
        (None, Constraint::PerHost) => format!(
            "group {}: with at most {} of its VMs on a host, {} of {} fit into {id}, the rack that comes nearest",
            group.name,
            ask.per_host,
            fit(inventory, fits, ask, g, rack, true),
            group.vms()
        ),
        _ => {
            let fitting = fit(inventory, fits, ask, g, rack, false);
            let short = group.vms().saturating_sub(fitting);
            if let Some(class) = (0..ask.classes.len()).find(|c| group.counts[*c] > 0) {
                missing = ask.classes[class].needs.times(short);
            }
            format!(
                "group {}: rack {id} has enough in sum, but in pieces: {fitting} of {} VMs fit on its hosts",
                group.name,
                group.vms()
            )
        }
    };
    Shortfall {
        constraint,
        group: Some(group.name.clone()),
        message,
        missing: sums_to_wire(&missing),
        change: None,
    }
}

fn fit(inventory: &Inventory, fits: &mut Fits, ask: &Ask, g: usize, rack: u32, bounded: bool) -> u32 {
    let counts = &ask.groups[g].counts;
    let some = (0..ask.classes.len()).filter(|c| counts[*c] > 0);
    some.map(|c| fits.of(inventory, &ask.fit_key(c, bounded))[rack as usize].min(counts[c]))
        .sum()
}

/// Each group fits alone: the relations, or sharing, stand in the way.
fn between(inventory: &Inventory, fits: &mut Fits, ask: &Ask, g: usize, plan: &Plan) -> Shortfall {
    let mut fits_when = |change: &dyn Fn(&mut Ask)| fits_without(inventory, fits, ask, change);
    let groups = ask.groups.len();
    let joined = |roots: &[u32]| (0..groups).any(|g| roots[g] != g as u32);
    let near = joined(&ask.near_row) || joined(&ask.near_zone);
    let (constraint, message) = if near && fits_when(&without_near) {
        (
            Constraint::Near,
            "no row or zone has room for all groups that are to be near".to_owned(),
        )
    } else if joined(&ask.together) && fits_when(&without_together) {
        (
            Constraint::Together,
            "groups that belong together are too large for any one rack".to_owned(),
        )
    } else if ask.apart.iter().flatten().any(|apart| *apart) && fits_when(&without_apart) {
        let able = plan.able.iter().max().copied().unwrap_or(0);
        (
            Constraint::Apart,
            format!(
                "{groups} groups are to be apart, and too few racks can each take one ({able} could take group {})",
                ask.groups[g].name
            ),
        )
    } else if plan.exhausted {
        (
            Constraint::Search,
            "the search ended at its limit; there may be a way that it didn't find".to_owned(),
        )
    } else {
        (
            Constraint::Fragmentation,
            "each group fits alone, but not all of them together".to_owned(),
        )
    };
    Shortfall {
        constraint,
        group: (groups == 1).then(|| ask.groups[g].name.clone()),
        message,
        missing: sums_to_wire(&ask.demand(g)),
        change: None,
    }
}

fn without_near(ask: &mut Ask) {
    let own: Vec<u32> = (0..ask.groups.len() as u32).collect();
    (ask.near_row, ask.near_zone) = (own.clone(), own);
}
fn without_together(ask: &mut Ask) {
    ask.together = (0..ask.groups.len() as u32).collect();
}
fn without_apart(ask: &mut Ask) {
    ask.apart.iter_mut().for_each(|row| row.fill(false));
}

/// A change that was tried and makes it fit; of each kind the smallest.
fn change(inventory: &Inventory, fits: &mut Fits, ask: &Ask, shortfall: &Shortfall) -> Option<String> {
    match shortfall.constraint {
        Constraint::Near if fits_without(inventory, fits, ask, &without_near) => {
            return Some("make nearness preferred".into());
        }
        Constraint::Together if fits_without(inventory, fits, ask, &without_together) => {
            return Some("let these groups have racks of their own".into());
        }
        _ => {}
    }
    let mut fits_when = |change: &dyn Fn(&mut Ask)| {
        let mut other = ask.clone();
        change(&mut other);
        place_within(inventory, fits, &other, TRIAL_STEPS_MAX).fits()
    };
    match shortfall.constraint {
        Constraint::PerHost => {
            let most = ask.groups.iter().map(super::ask::Group::vms).max().unwrap_or(1);
            let mut bounds =
                (ask.per_host.saturating_add(1)..=most.min(ask.per_host.saturating_add(64))).chain([u32::MAX]);
            if let Some(k) = bounds.find(|k| fits_when(&|a: &mut Ask| a.per_host = *k)) {
                return Some(match k {
                    u32::MAX => "drop inside.per_host_max".into(),
                    k => format!("inside.per_host_max = {k}"),
                });
            }
        }
        Constraint::Select if fits_when(&|a: &mut Ask| a.selects.iter_mut().for_each(|s| *s = None)) => {
            return Some("select more racks".into());
        }
        Constraint::Labels => return None,
        _ => {}
    }
    let most = ask.groups.iter().map(super::ask::Group::vms).max().unwrap_or(0);
    let fewer = |n: u32| {
        move |a: &mut Ask| {
            for group in &mut a.groups {
                let mut off = n.min(group.vms().saturating_sub(1));
                for count in &mut group.counts {
                    let gone = off.min(*count);
                    *count -= gone;
                    off -= gone;
                }
            }
        }
    };
    if most > 1 && fits_when(&fewer(most - 1)) {
        // the smallest number that helps, by halving: more off never makes it harder
        let (mut no, mut yes) = (0, most - 1);
        while yes - no > 1 {
            let half = no + (yes - no) / 2;
            match fits_when(&fewer(half)) {
                true => yes = half,
                false => no = half,
            }
        }
        let each = if ask.groups.len() == 1 { "" } else { " off each group" };
        return Some(format!("{yes} VMs fewer{each}"));
    }
    if shortfall.constraint == Constraint::Apart && fits_without(inventory, fits, ask, &without_apart) {
        return Some("make apart preferred".into());
    }
    None
}
