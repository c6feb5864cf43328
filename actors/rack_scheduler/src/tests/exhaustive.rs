//! An exhaustive search for tiny instances: every way to give VMs hosts, so what it finds, or doesn't, is the truth.

use wire::rack_scheduler::Mode;

use super::placing::planned;
use crate::core::amounts::Amounts;
use crate::core::ask::Ask;
use crate::core::check;
use crate::core::inventory::Inventory;
use crate::scenario::{Dice, Size, instance};

/// The most VMs that can be placed, and with all of them the fewest racks.
struct Truth<'a> {
    inventory: &'a Inventory,
    ask: &'a Ask,
    most: u32,
    fewest_racks: usize,
}

impl Truth<'_> {
    fn of(inventory: &Inventory, ask: &Ask) -> (u32, usize) {
        let mut truth = Truth {
            inventory,
            ask,
            most: 0,
            fewest_racks: usize::MAX,
        };
        truth.homes(0, &mut vec![]);
        (truth.most, truth.fewest_racks)
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
                self.fewest_racks = self.fewest_racks.min(racks.len());
            }
            return;
        }
        if class == self.ask.classes.len() {
            return self.fill(g + 1, 0, 0, homes, filled);
        }
        if done == self.ask.groups[g].counts[class] {
            return self.fill(g, class + 1, 0, homes, filled);
        }
        let needs = self.ask.classes[class].needs;
        if let Some(home) = homes[g] {
            for host in self.inventory.racks[home as usize].hosts.clone() {
                if !needs.fits(&filled.rooms[host]) || filled.on[g][host] >= self.ask.per_host {
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
    let (mut solvable, mut missed, mut fuller, mut wider) = (0, vec![], vec![], vec![]);
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
        let (most, fewest) = Truth::of(&inventory, &ask);
        let all: u32 = ask.groups.iter().map(|g| g.vms()).sum();
        let placed: u32 = plan.takes.iter().map(|t| t.count).sum();
        if most == all {
            solvable += 1;
            if !plan.fits() {
                missed.push(seed);
            } else if plan.racks() > fewest {
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
        "seed {seed}: {solvable} of {cases} solvable; missed {missed:?}; wider {wider:?}; less than the most {fuller:?}"
    );
    assert!(solvable > 50);
    assert!(missed.len() * 200 <= solvable, "missed {missed:?} of {solvable}");
    assert!(wider.len() * 50 <= solvable, "wider {wider:?} of {solvable}");
    assert!(fuller.len() as u64 * 20 <= cases, "less than the most: {fuller:?}");
}
