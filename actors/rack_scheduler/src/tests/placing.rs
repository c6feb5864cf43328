//! Placing, by property and by table.

use proptest::prelude::*;
use wire::rack_scheduler::{Constraint, Divide, GroupArg, Inside, Mode, RackAsk, Relation, RelationKind, Strength};

use super::asks::{ask, fleet, table, vms};
use crate::core::amounts::Amounts;
use crate::core::ask::Ask;
use crate::core::inventory::{Fits, Inventory};
use crate::core::place::{Plan, broken, place};
use crate::core::{check, shortfall, whatif};
use crate::scenario::{Dice, Size, instance, planted_instance};

pub(super) fn planned(inventory: &Inventory, ask: &Ask) -> Plan {
    place(inventory, &mut Fits::default(), ask)
}

fn answer(inventory: &Inventory, request: &RackAsk) -> (Ask, Plan) {
    let ask = Ask::check(inventory, request).unwrap();
    let plan = planned(inventory, &ask);
    assert_eq!(check::violations(inventory, &ask, &plan), Vec::<String>::new());
    (ask, plan)
}

fn short(inventory: &Inventory, request: &RackAsk) -> wire::rack_scheduler::Shortfall {
    let (ask, plan) = answer(inventory, request);
    assert!(!plan.fits());
    shortfall::find(inventory, &mut Fits::default(), &ask, &plan)
}

proptest! {
    #[test]
    fn every_answer_keeps_every_hard_constraint_and_comes_again(seed in any::<u64>(), large in any::<bool>()) {
        let mut dice = Dice::new(seed);
        let size = if large { Size::medium(&mut dice) } else { Size::tiny(&mut dice) };
        let (inventory, request) = instance(&mut dice, size);
        if let Ok(ask) = Ask::check(&inventory, &request) {
            let plan = planned(&inventory, &ask);
            prop_assert_eq!(check::violations(&inventory, &ask, &plan), Vec::<String>::new());
            prop_assert_eq!(&plan, &planned(&inventory, &ask), "the same request, the same answer");
            if !plan.fits() {
                let missing = shortfall::find(&inventory, &mut Fits::default(), &ask, &plan);
                prop_assert!(!missing.message.is_empty());
            }
        }
    }

    #[test]
    fn fits_that_are_remembered_are_those_reckoned_anew(seed in any::<u64>()) {
        let mut dice = Dice::new(seed);
        let size = Size::medium(&mut dice);
        let (mut inventory, request) = instance(&mut dice, size);
        if let Ok(ask) = Ask::check(&inventory, &request) {
            let mut fits = Fits::default();
            for _ in 0..4 {
                let plan = place(&inventory, &mut fits, &ask);
                prop_assert_eq!(&plan, &planned(&inventory, &ask));
                for take in &plan.takes {
                    inventory.take(take.host, &ask.classes[take.class as usize].needs, take.count);
                }
            }
        }
    }
}

#[test]
fn what_was_planted_is_found() {
    let (mut planted, mut missed, mut rich) = (0, vec![], 0);
    for seed in 0..250 {
        let mut dice = Dice::new(seed);
        let size = Size {
            planted: true,
            best_effort: false,
            ..Size::medium(&mut dice)
        };
        let (inventory, request, is_planted) = planted_instance(&mut dice, size);
        if is_planted {
            planted += 1;
            rich += usize::from(size.rich);
            if !answer(&inventory, &request).1.fits() {
                missed.push(seed);
            }
        }
    }
    assert!(planted > 120 && rich > 40, "{planted} planted, {rich} of them rich");
    assert!(missed.len() * 200 <= planted, "missed {missed:?} of {planted}");
}

/// Groups of so many VMs each, of two vCPUs.
fn groups_of(sizes: &[u64]) -> Vec<GroupArg> {
    let group = |(n, size): (usize, &u64)| GroupArg {
        name: format!("g{n}"),
        vms: vec![vms(*size, 2, 1)],
        select: Default::default(),
    };
    sizes.iter().enumerate().map(group).collect()
}

#[test]
fn racks_that_fit_tightly_give_way_to_fewer_roomy_ones() {
    // six racks have room for just one of the groups each; the last two, of eight VMs each, hold all of them
    let mut inventory = table(&fleet(8, 2));
    let sizes = [5, 4, 3, 2, 1, 1];
    for (rack, size) in sizes.iter().enumerate() {
        let (all, host) = (8 - *size as u32, 2 * rack);
        inventory.take(host, &Amounts([2, 0, 0, 0, 0]), all.min(4));
        inventory.take(host + 1, &Amounts([2, 0, 0, 0, 0]), all.saturating_sub(4));
    }
    let request = RackAsk {
        groups: groups_of(&sizes),
        relations: Some(vec![]),
        ..RackAsk::default()
    };
    assert_eq!(answer(&inventory, &request).1.racks(), 2);
}

#[test]
fn a_preference_that_cannot_be_had_whole_gives_way_for_few_pairs() {
    // a rack holds eight of these VMs: of four groups of three that prefer to be together two and two can be
    let inventory = table(&fleet(4, 2));
    let request = RackAsk {
        groups: groups_of(&[3, 3, 3, 3]),
        relations: Some(vec![Relation {
            kind: RelationKind::Together,
            groups: vec![],
            strength: Strength::Preferred,
        }]),
        ..RackAsk::default()
    };
    let (checked, plan) = answer(&inventory, &request);
    assert_eq!((broken(&inventory, &checked, &plan.homes), plan.racks()), (4, 2));
    // five that prefer to be apart, in four racks: one pair shares
    let request = RackAsk {
        groups: groups_of(&[3, 3, 3, 3, 3]),
        relations: Some(vec![Relation {
            kind: RelationKind::Apart,
            groups: vec![],
            strength: Strength::Preferred,
        }]),
        ..RackAsk::default()
    };
    let (checked, plan) = answer(&inventory, &request);
    assert_eq!((broken(&inventory, &checked, &plan.homes), plan.racks()), (1, 4));
}

#[test]
fn groups_that_share_hosts_within_their_bounds_find_room_if_there_is_any() {
    // hosts with 4, 1, 1 and 1 slots; with one VM of a group on a host at most, four, two and one VM fit only if the small groups
    // leave the lone slots to the large one
    let mut inventory = table(&fleet(1, 4));
    for host in 1..4 {
        inventory.take(host, &Amounts([2, 0, 0, 0, 0]), 3);
    }
    let ask = |sizes: &[u64]| RackAsk {
        groups: groups_of(sizes),
        relations: Some(vec![]),
        inside: Inside {
            per_host_max: Some(1),
            strength: Strength::Hard,
        },
        ..RackAsk::default()
    };
    assert!(answer(&inventory, &ask(&[4, 1, 1, 1])).1.fits());
    assert!(answer(&inventory, &ask(&[1, 1, 4, 1])).1.fits());
    assert!(!answer(&inventory, &ask(&[4, 2, 1])).1.fits());
}

#[test]
fn apart_is_the_default_and_each_group_has_one_home() {
    let inventory = table(&fleet(4, 2));
    let (_, plan) = answer(&inventory, &ask(8, 4));
    assert!(plan.fits());
    assert_eq!(plan.racks(), 4);
    // without relations they share
    let request = RackAsk {
        relations: Some(vec![]),
        ..ask(8, 4)
    };
    assert_eq!(answer(&inventory, &request).1.racks(), 1);
}

#[test]
fn a_matching_is_found_where_greedy_fails() {
    // the large group fits only into the emptiest rack, which the small one would like as well
    let mut inventory = table(&fleet(3, 1));
    inventory.take(1, &crate::core::amounts::Amounts([4, 0, 0, 0, 0]), 1);
    inventory.take(2, &crate::core::amounts::Amounts([6, 0, 0, 0, 0]), 1);
    let group = |name: &str, count| wire::rack_scheduler::GroupArg {
        name: name.into(),
        vms: vec![vms(count, 2, 1)],
        select: Default::default(),
    };
    let request = RackAsk {
        groups: vec![group("a", 1), group("b", 2), group("c", 4)],
        ..RackAsk::default()
    };
    let (_, plan) = answer(&inventory, &request);
    assert_eq!(plan.homes, vec![Some(2), Some(1), Some(0)]);
}

#[test]
fn nearness_takes_a_row_that_holds_them_all() {
    // rows of two racks: row0 has one full rack
    let mut inventory = table(&fleet(4, 1));
    inventory.take(0, &crate::core::amounts::Amounts([8, 0, 0, 0, 0]), 1);
    let near = |strength| RackAsk {
        relations: Some(vec![
            Relation {
                kind: RelationKind::Apart,
                groups: vec![],
                strength: Strength::Hard,
            },
            Relation {
                kind: RelationKind::NearRow,
                groups: vec![],
                strength,
            },
        ]),
        ..ask(2, 2)
    };
    let (_, plan) = answer(&inventory, &near(Strength::Hard));
    let mut homes: Vec<u32> = plan.homes.iter().flatten().copied().collect();
    homes.sort_unstable();
    assert_eq!(homes, vec![2, 3]);
    let (checked, plan) = answer(&inventory, &near(Strength::Preferred));
    assert_eq!(check::gave_way(&inventory, &checked, &plan), Vec::<String>::new());
    let request = RackAsk {
        divide: Some(Divide::Groups(3)),
        vms: vec![vms(3, 2, 1)],
        ..near(Strength::Preferred)
    };
    let (checked, plan) = answer(&inventory, &request);
    assert!(plan.fits());
    assert_eq!(
        check::gave_way(&inventory, &checked, &plan),
        vec!["groups that prefer one row are in 2"]
    );
    let hard = RackAsk {
        divide: Some(Divide::Groups(3)),
        vms: vec![vms(3, 2, 1)],
        ..near(Strength::Hard)
    };
    let missing = short(&inventory, &hard);
    assert_eq!(missing.constraint, Constraint::Near);
    assert_eq!(missing.change.as_deref(), Some("make nearness preferred"));
}

#[test]
fn what_is_missing_is_named_and_the_change_was_tried() {
    let inventory = table(&fleet(4, 2));
    // each rack has 16 vCPUs
    let missing = short(&inventory, &ask(9, 1));
    assert_eq!(
        (missing.constraint, missing.missing.vcpus),
        (Constraint::Vcpus, 2),
        "{missing:?}"
    );
    assert_eq!(missing.change.as_deref(), Some("1 VMs fewer"));
    // five groups, four racks
    let missing = short(&inventory, &ask(5, 5));
    assert_eq!(missing.constraint, Constraint::Apart, "{missing:?}");
    assert_eq!(missing.change.as_deref(), Some("make apart preferred"));
    // two hosts, four VMs, one on each
    let request = RackAsk {
        inside: Inside {
            per_host_max: Some(1),
            strength: Strength::Hard,
        },
        ..ask(4, 1)
    };
    let missing = short(&inventory, &request);
    assert_eq!(missing.constraint, Constraint::PerHost, "{missing:?}");
    assert_eq!(missing.change.as_deref(), Some("inside.per_host_max = 2"));
    // preferred gives way
    let request = RackAsk {
        inside: Inside {
            per_host_max: Some(1),
            strength: Strength::Preferred,
        },
        ..ask(4, 1)
    };
    let (checked, plan) = answer(&inventory, &request);
    assert!(plan.fits() && !check::gave_way(&inventory, &checked, &plan).is_empty());
    // enough in sum, in pieces
    let request = RackAsk {
        vms: vec![vms(3, 5, 1)],
        divide: None,
        ..ask(3, 1)
    };
    assert_eq!(short(&inventory, &request).constraint, Constraint::Fragmentation);
    let mut request = ask(1, 1);
    request.vms[0].labels = [("disk".to_owned(), "nvme".to_owned())].into();
    assert_eq!(short(&inventory, &request).constraint, Constraint::Labels);
}

#[test]
fn best_effort_places_what_fits() {
    let inventory = table(&fleet(2, 1));
    let request = RackAsk {
        mode: Mode::BestEffort,
        ..ask(12, 3)
    };
    let (_, plan) = answer(&inventory, &request);
    // four to a rack; the third group has no rack of its own
    assert_eq!(plan.unplaced.iter().sum::<u32>(), 4);
    let request = RackAsk {
        mode: Mode::BestEffort,
        ..ask(12, 2)
    };
    assert_eq!(answer(&inventory, &request).1.unplaced, vec![2, 2]);
}

#[test]
fn whatif_says_how_many_and_what_runs_out() {
    let inventory = table(&fleet(4, 2));
    let checked = Ask::check(
        &inventory,
        &RackAsk {
            vms: vec![vms(3, 3, 1024)],
            ..RackAsk::default()
        },
    )
    .unwrap();
    let report = whatif::whatif(&inventory, &checked);
    // two on each of eight hosts; four to a rack make one group of three
    assert_eq!((report.vms, report.groups, report.racks), (16, 4, 4));
    assert_eq!(report.runs_out, Some(Constraint::Vcpus));
    assert_eq!(report.left.vcpus, 8 * 2);
}

#[test]
fn enormous_and_hopeless_requests_are_answered_in_bounded_steps() {
    let inventory = table(&fleet(50, 20));
    let request = RackAsk {
        vms: vec![vms(5000, 3, 1000), vms(5000, 5, 3000)],
        divide: Some(Divide::Groups(500)),
        relations: Some(vec![]),
        ..RackAsk::default()
    };
    let (ask, plan) = answer(&inventory, &request);
    assert!(!plan.fits());
    shortfall::find(&inventory, &mut Fits::default(), &ask, &plan);
}
