//! Random inventories and requests by seed: what tests, the simulation and benches feed on (feature `testing`).

use std::collections::BTreeMap;

use wire::rack_scheduler::{Divide, GroupArg, Inside, Mode, RackAsk, Relation, RelationKind, Select, Strength, VmSpec};

use crate::core::amounts::{Amounts, Sums, add};
use crate::core::ask::Ask;
use crate::core::inventory::{HostSeed, Inventory, RackSeed, carrying};

/// Numbers from a seed (SplitMix64, <https://prng.di.unimi.it/splitmix64.c>).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice of that seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }
    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    /// One of `from` to `to`, both included.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.roll() % (to - from + 1)
    }
    /// True in so many of 100 cases.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.roll() % 100 < percent
    }
    /// One of a list.
    pub fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.between(0, list.len() as u64 - 1) as usize]
    }
}

/// How large an instance is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Racks.
    pub racks: u64,
    /// Hosts of each.
    pub hosts: u64,
    /// Groups.
    pub groups: u64,
    /// VMs of each group, at most.
    pub group_vms: u64,
    /// What is taken of all hosts once the request is placed, in percent.
    pub fill_percent: u64,
    /// As much as fits instead of all or nothing.
    pub best_effort: bool,
    /// With labels, selections and preferences, too.
    pub rich: bool,
    /// Filled around a placement of the request, which is taken out again: it can be placed, for all that it is tight.
    pub planted: bool,
}

impl Size {
    /// Small enough for an exhaustive search.
    pub fn tiny(dice: &mut Dice) -> Self {
        Self {
            racks: dice.between(1, 4),
            hosts: dice.between(1, 3),
            groups: dice.between(1, 3),
            group_vms: dice.between(1, 3),
            fill_percent: dice.between(40, 110),
            best_effort: dice.percent(30),
            rich: dice.percent(50),
            planted: false,
        }
    }
    /// As an exact solver takes it in seconds.
    pub fn medium(dice: &mut Dice) -> Self {
        Self {
            racks: dice.between(4, 12),
            hosts: dice.between(3, 10),
            groups: dice.between(2, 8),
            group_vms: dice.between(2, 12),
            fill_percent: dice.between(60, 98),
            best_effort: dice.percent(30),
            rich: dice.percent(50),
            planted: dice.percent(30),
        }
    }
    /// 200 and more VMs on 200 and more hosts, 85 to 98 % full.
    pub fn large(dice: &mut Dice) -> Self {
        Self {
            racks: dice.between(12, 20),
            hosts: dice.between(17, 24),
            groups: dice.between(8, 12),
            group_vms: dice.between(26, 34),
            fill_percent: dice.between(85, 98),
            best_effort: dice.percent(20),
            rich: dice.percent(50),
            planted: dice.percent(50),
        }
    }
}

/// Racks of a row and of a zone.
const ROW_RACKS: u64 = 3;
const ZONE_RACKS: u64 = 6;
/// How often chance looks for homes of a request that is to be planted.
const PLANT_TRIES: usize = 200;
/// Kinds of VM: vCPUs, MiB, GiB, GPUs, NICs.
const VMS: [[u64; 5]; 8] = [
    [1, 2048, 20, 0, 1],
    [2, 4096, 40, 0, 1],
    [2, 16384, 40, 0, 1],
    [4, 8192, 80, 0, 1],
    [4, 32768, 80, 0, 2],
    [8, 16384, 100, 0, 2],
    [8, 65536, 200, 0, 2],
    [16, 65536, 200, 1, 2],
];
/// Kinds of host.
const HOSTS: [[u32; 5]; 3] = [
    [32, 131_072, 2000, 0, 32],
    [64, 262_144, 4000, 0, 64],
    [64, 524_288, 4000, 4, 64],
];

/// An instance: an inventory that is partly full, and a request.
pub fn instance(dice: &mut Dice, size: Size) -> (Inventory, RackAsk) {
    let (inventory, ask, _) = planted_instance(dice, size);
    (inventory, ask)
}

/// As [`instance`]; and whether the request was planted, so that it can be placed: chance doesn't always find homes for it.
pub fn planted_instance(dice: &mut Dice, size: Size) -> (Inventory, RackAsk, bool) {
    let ask = ask(dice, size);
    let nvme = if size.rich { dice.between(30, 80) } else { 30 };
    let mut racks: Vec<RackSeed> = (0..size.racks)
        .map(|r| RackSeed {
            id: format!("r{r}"),
            row: format!("row{}", r / ROW_RACKS),
            zone: format!("z{}", r / ZONE_RACKS),
            hosts: (0..size.hosts).map(|h| host(dice, r, h, nvme)).collect(),
        })
        .collect();
    let planted = size.planted.then(|| planted(dice, &racks, &ask)).flatten();
    let mut wanted = Sums::default();
    match &planted {
        Some(rooms) => set_rooms(&mut racks, rooms),
        None => {
            for vm in ask.vms.iter().chain(ask.groups.iter().flat_map(|g| &g.vms)) {
                add(&mut wanted, &needs(vm).times(vm.count as u32));
            }
        }
    }
    fill(dice, size, &mut racks, &wanted);
    let is_planted = planted.is_some();
    if let Some(rooms) = planted {
        for (host, left) in racks.iter_mut().flat_map(|r| &mut r.hosts).zip(rooms) {
            let sold = host.sold;
            for (room, (sold, left)) in host.room.0.iter_mut().zip(sold.0.iter().zip(left.0)) {
                *room += sold - left;
            }
        }
    }
    (Inventory::new(racks), ask, is_planted)
}

fn set_rooms(racks: &mut [RackSeed], rooms: &[Amounts]) {
    let hosts = racks.iter_mut().flat_map(|r| &mut r.hosts);
    hosts.zip(rooms).for_each(|(host, room)| host.room = *room);
}

/// VMs of others, on any host, until the scarcer of vCPUs and memory is as full as it should be with what is `wanted`.
fn fill(dice: &mut Dice, size: Size, racks: &mut [RackSeed], wanted: &Sums) {
    let (mut sold, mut room) = (Sums::default(), Sums::default());
    for host in racks.iter().flat_map(|r| &r.hosts) {
        add(&mut sold, &host.sold.times(1));
        add(&mut room, &host.room.times(1));
    }
    let hosts = (size.racks * size.hosts) as usize;
    let full =
        |room: &Sums| (0..2).any(|d| sold[d].saturating_sub(room[d]) + wanted[d] >= sold[d] * size.fill_percent / 100);
    for _ in 0..hosts * 64 {
        if full(&room) {
            break;
        }
        let n = dice.between(0, hosts as u64 - 1) as usize;
        let host = &mut racks[n / size.hosts as usize].hosts[n % size.hosts as usize];
        let vm = Amounts(dice.pick(&VMS).map(|a| a as u32));
        if vm.fits(&host.room) {
            host.room.take(&vm, 1);
            room.iter_mut().zip(vm.0).for_each(|(r, a)| *r -= u64::from(a));
        }
    }
}

/// What is free of each host once the request stands by chance on empty hosts; nothing when chance finds no way.
fn planted(dice: &mut Dice, racks: &[RackSeed], ask: &RackAsk) -> Option<Vec<Amounts>> {
    let table = Inventory::new(racks.to_vec());
    let ask = Ask::check(&table, ask).ok()?;
    (0..PLANT_TRIES).find_map(|_| plant(dice, &table, &ask))
}

fn plant(dice: &mut Dice, table: &Inventory, ask: &Ask) -> Option<Vec<Amounts>> {
    let mut homes: Vec<u32> = Vec::new();
    for g in 0..ask.groups.len() {
        let fine = |rack: &u32| {
            let here = &table.racks[*rack as usize];
            homes.iter().enumerate().all(|(o, home)| {
                let there = &table.racks[*home as usize];
                (!ask.apart[g][o] || home != rack)
                    && (ask.together[g] != ask.together[o] || home == rack)
                    && (ask.near_row[g] != ask.near_row[o] || here.row == there.row)
                    && (ask.near_zone[g] != ask.near_zone[o] || here.zone == there.zone)
            })
        };
        let able = (0..table.racks.len() as u32).filter(|rack| ask.allows(g, *rack) && fine(rack));
        let able: Vec<u32> = able.collect();
        homes.push((!able.is_empty()).then(|| dice.pick(&able))?);
    }
    let mut rooms: Vec<Amounts> = (0..table.hosts.len()).map(|h| table.room(h)).collect();
    let per_host = if ask.per_host_preferred { u32::MAX } else { ask.per_host };
    for (group, home) in ask.groups.iter().zip(homes) {
        let mut on = vec![0u32; rooms.len()];
        for (class, count) in ask.classes.iter().zip(&group.counts) {
            let carries = carrying(table, &class.labels);
            for _ in 0..*count {
                let hosts = table.racks[home as usize].hosts.clone();
                let able = hosts.filter(|h| {
                    let labelled = carries.as_ref().is_none_or(|c| c[table.label_set(*h) as usize]);
                    labelled && on[*h] < per_host && class.needs.fits(&rooms[*h])
                });
                let able: Vec<usize> = able.collect();
                let host = (!able.is_empty()).then(|| dice.pick(&able))?;
                rooms[host].take(&class.needs, 1);
                on[host] += 1;
            }
        }
    }
    Some(rooms)
}

fn needs(vm: &VmSpec) -> Amounts {
    Amounts([vm.vcpus, vm.memory_mib, vm.disk_gib, vm.gpus, vm.nics].map(|a| a as u32))
}

fn host(dice: &mut Dice, rack: u64, host: u64, nvme_percent: u64) -> HostSeed {
    let kind = Amounts(dice.pick(&HOSTS));
    let labels = if dice.percent(nvme_percent) {
        nvme()
    } else {
        BTreeMap::new()
    };
    HostSeed {
        id: format!("r{rack}-h{host}"),
        sold: kind,
        room: kind,
        labels,
    }
}

fn nvme() -> BTreeMap<String, String> {
    BTreeMap::from([("disk".to_owned(), "nvme".to_owned())])
}

fn spec(dice: &mut Dice, count: u64) -> VmSpec {
    let [vcpus, memory_mib, disk_gib, gpus, nics] = VMS[dice.between(0, 6) as usize];
    VmSpec {
        count,
        vcpus,
        memory_mib,
        disk_gib,
        gpus,
        nics,
        labels: BTreeMap::new(),
    }
}

/// A request of that size.
pub fn ask(dice: &mut Dice, size: Size) -> RackAsk {
    let (vms, divide, groups) = if dice.percent(50) {
        let kinds = dice.between(1, 2);
        let total = size.groups * dice.between(1, size.group_vms);
        let vms = (0..kinds).map(|_| spec(dice, total.div_ceil(kinds))).collect();
        (vms, Some(Divide::Groups(size.groups)), vec![])
    } else {
        let kinds: Vec<VmSpec> = (0..dice.between(1, 3)).map(|_| spec(dice, 1)).collect();
        let groups = (0..size.groups)
            .map(|n| GroupArg {
                name: format!("k{n}"),
                vms: (0..dice.between(1, 2))
                    .map(|_| {
                        let mut vm = kinds[dice.between(0, kinds.len() as u64 - 1) as usize].clone();
                        vm.count = dice.between(1, size.group_vms);
                        vm
                    })
                    .collect(),
                select: Select::default(),
            })
            .collect();
        (vec![], None, groups)
    };
    let names: Vec<String> = match groups.is_empty() {
        true => (0..size.groups).map(|n| format!("g{n}")).collect(),
        false => groups.iter().map(|g: &GroupArg| g.name.clone()).collect(),
    };
    let mut ask = RackAsk {
        vms,
        divide,
        groups,
        relations: relations(dice, &names),
        inside: Inside {
            per_host_max: dice.percent(30).then(|| dice.between(1, 4)),
            strength: Strength::Hard,
        },
        mode: if size.best_effort {
            Mode::BestEffort
        } else {
            Mode::AllOrNothing
        },
        seed: dice.roll(),
        ..RackAsk::default()
    };
    if size.rich {
        enrich(dice, size, &names, &mut ask);
    }
    ask
}

/// Labels, selections and preferences.
fn enrich(dice: &mut Dice, size: Size, names: &[String], ask: &mut RackAsk) {
    if dice.percent(40) {
        let specs = ask.vms.iter_mut().chain(ask.groups.iter_mut().flat_map(|g| &mut g.vms));
        for spec in specs {
            if dice.percent(30) {
                spec.labels = nvme();
            }
        }
    }
    if dice.percent(40) {
        ask.select = select(dice, size);
    }
    let own = dice.percent(30);
    for group in ask.groups.iter_mut().filter(|_| own) {
        if dice.percent(40) {
            group.select = select(dice, size);
        }
    }
    if dice.percent(40) {
        ask.inside.strength = Strength::Preferred;
    }
    let weaker = dice.percent(40);
    for relation in ask.relations.iter_mut().flatten().filter(|_| weaker) {
        if dice.percent(60) {
            relation.strength = Strength::Preferred;
        }
    }
    for _ in 0..dice.between(0, 2) {
        let groups: Vec<String> = names.iter().filter(|_| dice.percent(50)).cloned().collect();
        let kind = dice.pick(&[
            RelationKind::Apart,
            RelationKind::Together,
            RelationKind::NearRow,
            RelationKind::NearZone,
        ]);
        // none at all means that all are apart
        let relations = ask.relations.get_or_insert_with(|| {
            vec![Relation {
                kind: RelationKind::Apart,
                groups: vec![],
                strength: Strength::Hard,
            }]
        });
        if groups.len() > 1 {
            relations.push(Relation {
                kind,
                groups,
                strength: Strength::Preferred,
            });
        }
    }
}

/// Most of the zones, the rows or the racks.
fn select(dice: &mut Dice, size: Size) -> Select {
    let mut some = |prefix: &str, all: u64| -> Vec<String> {
        let names = (0..all).filter(|_| !dice.percent(30)).map(|n| format!("{prefix}{n}"));
        names.collect()
    };
    let (zones, rows, racks) = (
        some("z", size.racks.div_ceil(ZONE_RACKS)),
        some("row", size.racks.div_ceil(ROW_RACKS)),
        some("r", size.racks),
    );
    match dice.between(0, 2) {
        0 => Select {
            zones,
            ..Select::default()
        },
        1 => Select {
            rows,
            ..Select::default()
        },
        _ => Select {
            racks,
            ..Select::default()
        },
    }
}

fn relations(dice: &mut Dice, names: &[String]) -> Option<Vec<Relation>> {
    let hard = |kind, groups: Vec<String>| Relation {
        kind,
        groups,
        strength: Strength::Hard,
    };
    let some = |dice: &mut Dice| -> Vec<String> { names.iter().filter(|_| dice.percent(60)).cloned().collect() };
    match dice.between(0, 9) {
        0..=3 => None,
        4..=6 => {
            let apart = some(dice);
            Some(if apart.len() > 1 {
                vec![hard(RelationKind::Apart, apart)]
            } else {
                vec![]
            })
        }
        7 => Some(vec![]),
        8 => {
            let near = dice.pick(&[RelationKind::NearRow, RelationKind::NearZone]);
            Some(vec![hard(RelationKind::Apart, vec![]), hard(near, names.to_vec())])
        }
        _ => {
            let pair: Vec<String> = names.iter().take(2).cloned().collect();
            let rest: Vec<String> = names.iter().skip(1).cloned().collect();
            let mut all = vec![hard(RelationKind::Together, pair)];
            if rest.len() > 1 {
                all.push(hard(RelationKind::Apart, rest));
            }
            Some(all)
        }
    }
}
