//! An exhaustive search for tiny instances: every way to give VMs hosts, so what it finds, or doesn't, is the truth.

use std::collections::BTreeMap;

use wire::rack_scheduler::Mode;

use super::placing::planned;
use crate::core::amounts::Amounts;
use crate::core::ask::Ask;
use crate::core::check;
use crate::core::inventory::Inventory;
use crate::core::place::{Plan, broken};
use crate::scenario::{Dice, Size, instance};

/// The most VMs that can be placed; with all of them the fewest pairs of groups that a preference gives way for, and with those
/// the fewest racks.
struct Truth<'a> {
    inventory: &'a Inventory,
    ask: &'a Ask,
    per_host: u32,
    most: u32,
    best: (u64, usize),
}

impl Truth<'_> {
    fn of(inventory: &Inventory, ask: &Ask, per_host: u32) -> (u32, (u64, usize)) {
        let mut truth = Truth {
            inventory,
            ask,
            per_host,
            most: 0,
            best: (u64::MAX, usize::MAX),
        };
        truth.homes(0, &mut vec![]);
        (truth.most, truth.best)
    }

    fn homes(&mut self, group: usize, homes: &mut Vec<Option<u32>>) {
        if group == self.ask.groups.len() {
            let rooms = (0..self.inventory.hosts.len())
                .map(|h| self.inventory.room(h))
                .collect();
            self.fill(
                0,
                0,
                0,
                homes,
                &mut Filled {
                    rooms,
                    on: vec![vec![0; self.inventory.hosts.len()]; group],
                    placed: 0,
                },
            );
            return;
        }
        for home in (0..self.inventory.racks.len() as u32).map(Some).chain([None]) {
            if home.is_some_and(|h| self.fits_with(group, h, homes)) || (home.is_none() && self.ask.best_effort) {
                homes.push(home);
                self.homes(group + 1, homes);
                homes.pop();
            }
        }
    }

    fn fits_with(&self, g: usize, home: u32, homes: &[Option<u32>]) -> bool {
        let (ask, racks) = (self.ask, &self.inventory.racks);
        ask.allows(g, home)
            && homes.iter().enumerate().all(|(o, other)| {
                other.is_none_or(|other| {
                    let (here, there) = (&racks[home as usize], &racks[other as usize]);
                    (!ask.apart[g][o] || home != other)
                        && (ask.together[g] != ask.together[o] || home == other)
                        && (ask.near_row[g] != ask.near_row[o] || here.row == there.row)
                        && (ask.near_zone[g] != ask.near_zone[o] || here.zone == there.zone)
                })
            })
    }

    /// VM after VM: on each host of its home, or nowhere.
    fn fill(&mut self, g: usize, class: usize, done: u32, homes: &[Option<u32>], filled: &mut Filled) {
        if g == homes.len() {
            self.most = self.most.max(filled.placed);
            let all: u32 = self.ask.groups.iter().map(|g| g.vms()).sum();
            if filled.placed == all {
                let mut racks: Vec<u32> = homes.iter().flatten().copied().collect();
                racks.sort_unstable();
                racks.dedup();
                let broken = broken(self.inventory, self.ask, homes);
                self.best = self.best.min((broken, racks.len()));
            }
            return;
        }
        if class == self.ask.classes.len() {
            return self.fill(g + 1, 0, 0, homes, filled);
        }
        if done == self.ask.groups[g].counts[class] {
            return self.fill(g, class + 1, 0, homes, filled);
        }
        let (needs, labels) = (self.ask.classes[class].needs, &self.ask.classes[class].labels);
        if let Some(home) = homes[g] {
            for host in self.inventory.racks[home as usize].hosts.clone() {
                let has = &self.inventory.label_sets[self.inventory.label_set(host) as usize];
                let labelled = labels.iter().all(|(k, v)| has.get(k) == Some(v));
                if !labelled || !needs.fits(&filled.rooms[host]) || filled.on[g][host] >= self.per_host {
                    continue;
                }
                let before = filled.rooms[host];
                filled.rooms[host].take(&needs, 1);
                filled.on[g][host] += 1;
                filled.placed += 1;
                self.fill(g, class, done + 1, homes, filled);
                filled.rooms[host] = before;
                filled.on[g][host] -= 1;
                filled.placed -= 1;
            }
        }
        if self.ask.best_effort {
            self.fill(g, class, done + 1, homes, filled);
        }
    }
}

struct Filled {
    rooms: Vec<Amounts>,
    on: Vec<Vec<u32>>,
    placed: u32,
}

/// The most VMs of one group on one host.
fn per_host_most(plan: &Plan) -> u32 {
    let mut on: BTreeMap<(u32, usize), u32> = BTreeMap::new();
    for take in &plan.takes {
        *on.entry((take.group, take.host)).or_default() += take.count;
    }
    on.into_values().max().unwrap_or(0)
}

#[test]
fn tiny_instances_have_the_answer_of_an_exhaustive_search() {
    let seed: u64 = std::env::var("WINDLASS_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(1);
    let cases: u64 = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(600);
    let (mut solvable, mut with_wishes, mut missed) = (0, 0, vec![]);
    let (mut fuller, mut wider, mut unkind, mut needless) = (vec![], vec![], vec![], vec![]);
    for case in 0..cases {
        let seed = seed.wrapping_mul(1_000_003).wrapping_add(case);
        let mut dice = Dice::new(seed);
        let size = Size::tiny(&mut dice);
        let (inventory, request) = instance(&mut dice, size);
        let Ok(ask) = Ask::check(&inventory, &request) else {
            continue;
        };
        if ask.groups.iter().map(|g| g.vms()).sum::<u32>() > 7 {
            continue;
        }
        let plan = planned(&inventory, &ask);
        assert_eq!(
            check::violations(&inventory, &ask, &plan),
            Vec::<String>::new(),
            "seed {seed}"
        );
        let all: u32 = ask.groups.iter().map(|g| g.vms()).sum();
        let (mut most, mut best) = Truth::of(&inventory, &ask, ask.per_host);
        let bound_holds = most == all;
        if !bound_holds && ask.per_host_preferred {
            (most, best) = Truth::of(&inventory, &ask, u32::MAX);
        }
        let placed: u32 = plan.takes.iter().map(|t| t.count).sum();
        if most == all {
            solvable += 1;
            with_wishes += usize::from(!ask.wishes.is_empty());
            let (gave_way, racks) = (broken(&inventory, &ask, &plan.homes), plan.racks());
            if !plan.fits() {
                missed.push(seed);
            } else if bound_holds && per_host_most(&plan) > ask.per_host {
                needless.push(seed);
            } else if gave_way > best.0 {
                unkind.push(seed);
            } else if racks > best.1 {
                wider.push(seed);
            }
        } else {
            assert!(!plan.fits(), "seed {seed}: more than the truth");
            if request.mode == Mode::BestEffort {
                assert!(placed <= most, "seed {seed}: more than the truth");
                if placed < most {
                    fuller.push(seed);
                }
            }
        }
    }
    eprintln!(
        "seed {seed}: {solvable} of {cases} solvable, {with_wishes} with preferences; missed {missed:?}; wider {wider:?}; more gave way \
         {unkind:?}; the bound per host without need {needless:?}; less than the most {fuller:?}"
    );
    assert!(solvable > 50 && with_wishes > 5);
    assert!(unkind.len() * 50 <= solvable, "more gave way {unkind:?} of {solvable}");
    assert!(
        needless.len() * 200 <= solvable,
        "without need {needless:?} of {solvable}"
    );
    assert!(missed.len() * 200 <= solvable, "missed {missed:?} of {solvable}");
    assert!(wider.len() * 50 <= solvable, "wider {wider:?} of {solvable}");
    assert!(fuller.len() as u64 * 20 <= cases, "less than the most: {fuller:?}");
}
