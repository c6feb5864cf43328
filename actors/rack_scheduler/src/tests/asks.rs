//! What can be wrong with a request or an inventory is told, each by its kind, at once.

use std::collections::BTreeMap;

use wire::rack_scheduler::{
    Divide, GroupArg, HostArg, HostState, Inside, InventoryArg, Level, PlaceArg, RackAsk, Relation, RelationKind,
    Resources, Select, Strength, VmSpec,
};

use crate::Kind;
use crate::core::ask::Ask;
use crate::core::inventory::Inventory;
use crate::core::topology;

pub(super) fn vms(count: u64, vcpus: u64, memory_mib: u64) -> VmSpec {
    VmSpec {
        count,
        vcpus,
        memory_mib,
        ..VmSpec::default()
    }
}

pub(super) fn ask(count: u64, groups: u64) -> RackAsk {
    RackAsk {
        vms: vec![vms(count, 2, 1024)],
        divide: Some(Divide::Groups(groups)),
        ..RackAsk::default()
    }
}

/// Racks `r0`… of hosts with 8 vCPUs and 8 GiB.
pub(super) fn fleet(racks: u64, hosts: u64) -> InventoryArg {
    InventoryArg {
        places: (0..racks)
            .flat_map(|r| {
                let place = |id: String, level, within| PlaceArg { id, level, within };
                [
                    (r % 4 == 0).then(|| place(format!("z{}", r / 4), Level::Zone, None)),
                    (r % 2 == 0).then(|| place(format!("row{}", r / 2), Level::Row, Some(format!("z{}", r / 4)))),
                    Some(place(format!("r{r}"), Level::Rack, Some(format!("row{}", r / 2)))),
                ]
            })
            .flatten()
            .collect(),
        hosts: (0..racks * hosts)
            .map(|n| HostArg {
                id: format!("r{}-h{}", n / hosts, n % hosts),
                rack: format!("r{}", n / hosts),
                capacity: Resources {
                    vcpus: 8,
                    memory_mib: 8192,
                    ..Resources::default()
                },
                labels: BTreeMap::new(),
                state: HostState::Up,
            })
            .collect(),
        ..InventoryArg::default()
    }
}

pub(super) fn table(inventory: &InventoryArg) -> Inventory {
    let racks = topology::racks(inventory).unwrap();
    Inventory::new(racks.iter().map(|(id, record)| record.seed(id)))
}

#[test]
fn a_request_that_makes_no_sense_says_why() {
    let inventory = table(&fleet(4, 2));
    let relation = |kind, groups: &[&str]| Relation {
        kind,
        groups: groups.iter().map(|g| (*g).to_owned()).collect(),
        strength: Strength::Hard,
    };
    let group = |name: &str, count| GroupArg {
        name: name.into(),
        vms: vec![vms(count, 1, 1)],
        select: Select::default(),
    };
    let base = || ask(4, 2);
    let cases: Vec<(RackAsk, Kind, &str)> = vec![
        (RackAsk::default(), Kind::Invalid, "no VMs"),
        (ask(0, 1), Kind::Invalid, "count of 0"),
        (ask(4, 0), Kind::Invalid, "divided by 0"),
        (ask(4, 5), Kind::Invalid, "into 5 groups"),
        (ask(10_000_000, 10), Kind::Invalid, "10000000 VMs are more than 10000"),
        (
            RackAsk {
                vms: vec![vms(u64::MAX, 1, 1), vms(u64::MAX, 1, 1)],
                ..base()
            },
            Kind::Invalid,
            "are more than 10000",
        ),
        (
            RackAsk {
                vms: vec![vms(1, u64::MAX, 1)],
                divide: None,
                ..base()
            },
            Kind::Invalid,
            "vCPUs is more than",
        ),
        (
            RackAsk {
                vms: vec![vms(1, 0, 0)],
                divide: None,
                ..base()
            },
            Kind::Invalid,
            "wants nothing",
        ),
        (
            RackAsk {
                inside: Inside {
                    per_host_max: Some(0),
                    strength: Strength::Hard,
                },
                ..base()
            },
            Kind::Invalid,
            "per_host_max is 0",
        ),
        (
            RackAsk {
                select: Select {
                    racks: vec!["r9".into()],
                    ..Select::default()
                },
                ..base()
            },
            Kind::NotFound,
            "rack 'r9'",
        ),
        (
            RackAsk {
                select: Select {
                    zones: vec!["z9".into()],
                    ..Select::default()
                },
                ..base()
            },
            Kind::NotFound,
            "zone 'z9'",
        ),
        (
            RackAsk {
                relations: Some(vec![relation(RelationKind::Apart, &["g0", "gx"])]),
                ..base()
            },
            Kind::Invalid,
            "group 'gx'",
        ),
        (
            RackAsk {
                relations: Some(vec![
                    relation(RelationKind::Apart, &[]),
                    relation(RelationKind::Together, &["g0", "g1"]),
                ]),
                ..base()
            },
            Kind::Invalid,
            "apart and together",
        ),
        (
            RackAsk {
                groups: vec![group("a", 1)],
                ..base()
            },
            Kind::Invalid,
            "either groups of its own",
        ),
        (
            RackAsk {
                groups: vec![group("a", 1), group("a", 1)],
                ..RackAsk::default()
            },
            Kind::Invalid,
            "stands twice",
        ),
        (
            RackAsk {
                groups: vec![group("a b", 1)],
                ..RackAsk::default()
            },
            Kind::Invalid,
            "can't be the name of a group",
        ),
        (
            RackAsk {
                tenant: Some("../x".into()),
                ..base()
            },
            Kind::Invalid,
            "can't be the name of a tenant",
        ),
        (
            RackAsk {
                vms: (1..=17).map(|n| vms(1, n, 1)).collect(),
                divide: None,
                ..base()
            },
            Kind::Invalid,
            "more than 16 kinds",
        ),
    ];
    for (request, kind, text) in cases {
        let error = Ask::check(&inventory, &request).unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(text), "'{error}' doesn't say '{text}'");
        assert!(error.message.contains("nothing was"), "{error}");
    }
}

#[test]
fn an_inventory_that_makes_no_sense_says_why() {
    let place = |id: &str, level, within: Option<&str>| PlaceArg {
        id: id.into(),
        level,
        within: within.map(Into::into),
    };
    let with = |change: &dyn Fn(&mut InventoryArg)| {
        let mut inventory = fleet(2, 2);
        change(&mut inventory);
        topology::racks(&inventory).unwrap_err()
    };
    let cases: [(crate::RackError, &str); 11] = [
        (with(&|i| i.hosts.clear()), "no hosts"),
        (with(&|i| i.hosts[3].id = "r0-h0".into()), "host r0-h0 stands twice"),
        (with(&|i| i.hosts[0].id = "a/b".into()), "can't be the name"),
        (with(&|i| i.hosts[0].capacity = Resources::default()), "has nothing"),
        (with(&|i| i.hosts[0].capacity.vcpus = u64::MAX), "more than"),
        (with(&|i| i.hosts[0].rack = "row0".into()), "is no rack"),
        (with(&|i| i.places.push(place("r0", Level::Rack, None))), "stands twice"),
        (
            with(&|i| i.places.push(place("x", Level::Rack, Some("nowhere")))),
            "nowhere",
        ),
        (
            with(&|i| {
                i.places.push(place("a", Level::Row, Some("b")));
                i.places.push(place("b", Level::Row, Some("a")));
            }),
            "loop: a in b in a",
        ),
        (
            with(&|i| i.places.push(place("x", Level::Zone, Some("row0")))),
            "can't stand in",
        ),
        (with(&|i| i.vcpus_sold_percent = Some(0)), "vcpus_sold_percent is 0"),
    ];
    for (error, text) in cases {
        assert_eq!(error.kind, Kind::Invalid, "{error}");
        assert!(error.message.contains(text), "'{error}' doesn't say '{text}'");
    }
}

#[test]
fn groups_differ_by_one_at_most_of_every_kind_and_in_sum() {
    let inventory = table(&fleet(4, 2));
    for (a, b, divide) in [
        (100, 7, Divide::Groups(10)),
        (5, 3, Divide::Replicas(3)),
        (17, 1, Divide::GroupVms(4)),
        (1, 1, Divide::Groups(2)),
    ] {
        let request = RackAsk {
            vms: vec![vms(a, 1, 1), vms(b, 2, 1)],
            divide: Some(divide),
            ..RackAsk::default()
        };
        let checked = Ask::check(&inventory, &request).unwrap();
        let spread = |of: &dyn Fn(&crate::core::ask::Group) -> u32| {
            let sizes: Vec<u32> = checked.groups.iter().map(of).collect();
            sizes.iter().max().unwrap() - sizes.iter().min().unwrap()
        };
        assert!(spread(&|g| g.vms()) <= 1 && spread(&|g| g.counts[0]) <= 1 && spread(&|g| g.counts[1]) <= 1);
        let total: u32 = checked.groups.iter().map(|g| g.vms()).sum();
        assert_eq!(u64::from(total), a + b);
        if let Divide::GroupVms(most) = divide {
            assert!(checked.groups.iter().all(|g| u64::from(g.vms()) <= most));
        }
    }
}
