//! What there is: a columnar table of hosts, grouped by rack, with an index of what is free in each rack.
//!
//! A host that takes nothing new (cordoned, draining, lost) has no room, so that no decision has to ask for its state.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::amounts::{Amounts, DIMS, Sums, add, less};

/// A host as the table is built from it.
#[derive(Debug, Clone, Default)]
pub struct HostSeed {
    /// Its id.
    pub id: String,
    /// What can be sold of it.
    pub sold: Amounts,
    /// What is free of that; nothing when it takes nothing new.
    pub room: Amounts,
    /// What it carries.
    pub labels: BTreeMap<String, String>,
}

/// A rack as the table is built from it.
#[derive(Debug, Clone, Default)]
pub struct RackSeed {
    /// Its id.
    pub id: String,
    /// Where it stands.
    pub row: String,
    /// Where the row stands.
    pub zone: String,
    /// Its hosts.
    pub hosts: Vec<HostSeed>,
}

/// A rack of the table.
#[derive(Debug, Clone)]
pub struct Rack {
    /// Its id.
    pub id: String,
    /// Number of its row.
    pub row: u32,
    /// Number of its zone.
    pub zone: u32,
    /// Its hosts' numbers.
    pub hosts: Range<usize>,
}

/// Names and their numbers.
#[derive(Debug, Clone, Default)]
pub struct Names {
    names: Vec<String>,
    numbers: HashMap<String, u32>,
}

impl Names {
    fn number(&mut self, name: &str) -> u32 {
        if let Some(n) = self.numbers.get(name) {
            return *n;
        }
        let n = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), n);
        n
    }
    /// The number of a name.
    pub fn find(&self, name: &str) -> Option<u32> {
        self.numbers.get(name).copied()
    }
    /// The name of a number.
    pub fn name(&self, number: u32) -> &str {
        self.names.get(number as usize).map_or("", String::as_str)
    }
}

/// Who booked in a rack last, when several schedulers work on one inventory: each fills racks of its own, so that they seldom
/// want to write the same record at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// This scheduler.
    Ours,
    /// Nobody yet.
    #[default]
    Nobodys,
    /// Another one: taken last.
    Others,
}

/// The table.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// Racks, in the order that they were given in.
    pub racks: Vec<Rack>,
    /// Rows.
    pub rows: Names,
    /// Zones.
    pub zones: Names,
    /// Ids of hosts.
    pub hosts: Vec<String>,
    /// Sets of labels that some host carries.
    pub label_sets: Vec<BTreeMap<String, String>>,
    rack_numbers: HashMap<String, u32>,
    rack_of: Vec<u32>,
    label_set: Vec<u32>,
    sold: [Vec<u32>; DIMS],
    room: [Vec<u32>; DIMS],
    rack_room: Vec<Sums>,
    rack_version: Vec<u32>,
    whose: Option<Vec<Whose>>,
    /// One over the mean of what a rack can sell, by dimension: makes dimensions comparable.
    pub scale: [f32; DIMS],
}

impl Inventory {
    /// The table of those racks.
    pub fn new(racks: impl IntoIterator<Item = RackSeed>) -> Self {
        let mut table = Self::default();
        let mut label_numbers: HashMap<BTreeMap<String, String>, u32> = HashMap::new();
        for seed in racks {
            let number = table.racks.len() as u32;
            let begin = table.hosts.len();
            let mut free = Sums::default();
            for host in seed.hosts {
                let label_sets = &mut table.label_sets;
                let labels = *label_numbers.entry(host.labels).or_insert_with_key(|labels| {
                    label_sets.push(labels.clone());
                    label_sets.len() as u32 - 1
                });
                table.hosts.push(host.id);
                table.rack_of.push(number);
                table.label_set.push(labels);
                for d in 0..DIMS {
                    table.sold[d].push(host.sold.0[d]);
                    table.room[d].push(host.room.0[d]);
                }
                add(&mut free, &host.room.times(1));
            }
            table.rack_numbers.insert(seed.id.clone(), number);
            let (row, zone) = (table.rows.number(&seed.row), table.zones.number(&seed.zone));
            table.racks.push(Rack {
                id: seed.id,
                row,
                zone,
                hosts: begin..table.hosts.len(),
            });
            table.rack_room.push(free);
            table.rack_version.push(0);
        }
        let racks = table.racks.len().max(1) as f32;
        for d in 0..DIMS {
            let all: u64 = table.sold[d].iter().map(|a| u64::from(*a)).sum();
            table.scale[d] = if all == 0 { 0.0 } else { racks / all as f32 };
        }
        table
    }
    /// The number of a rack.
    pub fn rack(&self, id: &str) -> Option<u32> {
        self.rack_numbers.get(id).copied()
    }
    /// The rack of a host.
    pub fn rack_of(&self, host: usize) -> u32 {
        self.rack_of[host]
    }
    /// What is free of a host.
    pub fn room(&self, host: usize) -> Amounts {
        Amounts(std::array::from_fn(|d| self.room[d][host]))
    }
    /// What can be sold of a host.
    pub fn sold(&self, host: usize) -> Amounts {
        Amounts(std::array::from_fn(|d| self.sold[d][host]))
    }
    /// Who booked in a rack last; the same of all racks while there is one scheduler.
    pub fn whose(&self, rack: u32) -> Whose {
        self.whose.as_ref().map_or(Whose::Ours, |w| w[rack as usize])
    }
    /// Sets who booked in each rack last; `None` while there is one scheduler.
    pub fn set_whose(&mut self, whose: Option<Vec<Whose>>) {
        self.whose = whose;
    }
    /// Sets who booked in one rack last; false when that changes what is kept of the others, too.
    pub fn set_whose_of(&mut self, rack: &str, whose: Whose, several: bool) -> bool {
        match (&mut self.whose, self.rack_numbers.get(rack)) {
            (Some(all), Some(number)) if several => {
                all[*number as usize] = whose;
                true
            }
            (None, _) => !several,
            _ => false,
        }
    }
    /// What is free in a rack.
    pub fn rack_room(&self, rack: u32) -> &Sums {
        &self.rack_room[rack as usize]
    }
    /// The set of labels that a host carries.
    pub fn label_set(&self, host: usize) -> u32 {
        self.label_set[host]
    }
    /// Changes with every change of a rack's room.
    pub fn rack_version(&self, rack: u32) -> u32 {
        self.rack_version[rack as usize]
    }
    /// Sets what is free of a host.
    pub fn set_room(&mut self, host: usize, room: &Amounts) {
        let rack = self.rack_of[host] as usize;
        let before = self.room(host);
        for d in 0..DIMS {
            self.room[d][host] = room.0[d];
        }
        self.rack_room[rack] = less(&self.rack_room[rack], &before.times(1));
        add(&mut self.rack_room[rack], &room.times(1));
        self.rack_version[rack] = self.rack_version[rack].wrapping_add(1);
    }
    /// Books `count` VMs on a host.
    pub fn take(&mut self, host: usize, needs: &Amounts, count: u32) {
        let mut room = self.room(host);
        debug_assert!(needs.times_in(&room, count) >= count, "a host is never oversold");
        room.take(needs, count);
        self.set_room(host, &room);
    }
    /// How many VMs fit on each host of a rack, in sum; `per_host` bounds each.
    pub fn fits_in_rack(&self, rack: u32, needs: &Amounts, carries: Option<&[bool]>, per_host: u32) -> u32 {
        let wanted: [(usize, u32); DIMS] = std::array::from_fn(|d| (d, needs.0[d]));
        let mut sum = 0u32;
        for host in self.racks[rack as usize].hosts.clone() {
            if carries.is_some_and(|carries| !carries[self.label_set[host] as usize]) {
                continue;
            }
            let mut times = per_host;
            for (d, need) in wanted {
                // what is not wanted bounds nothing
                times = times.min(self.room[d][host].checked_div(need).unwrap_or(u32::MAX));
            }
            sum = sum.saturating_add(times);
        }
        sum
    }
}

/// A kind of VM as [`Fits`] remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FitKey {
    /// What it wants.
    pub needs: Amounts,
    /// Labels that its host must carry.
    pub labels: BTreeMap<String, String>,
    /// At most so many of a group on one host.
    pub per_host: u32,
}

/// How many VMs of a kind fit into each rack: reckoned once, and anew only for racks that changed since.
#[derive(Debug, Default)]
pub struct Fits {
    known: HashMap<FitKey, (Vec<u32>, Vec<u32>)>,
}

/// Kinds that are remembered; beyond that all are forgotten.
const KINDS_MAX: usize = 256;

impl Fits {
    /// Forgets everything: the table is another one.
    pub fn clear(&mut self) {
        self.known.clear();
    }
    /// VMs of that kind that fit into each rack.
    pub fn of(&mut self, inventory: &Inventory, key: &FitKey) -> Vec<u32> {
        if self.known.len() >= KINDS_MAX && !self.known.contains_key(key) {
            self.known.clear();
        }
        let racks = inventory.racks.len();
        let carries = carrying(inventory, &key.labels);
        let reckon = |rack: usize| inventory.fits_in_rack(rack as u32, &key.needs, carries.as_deref(), key.per_host);
        let (fits, seen) = self
            .known
            .entry(key.clone())
            .or_insert_with(|| ((0..racks).map(reckon).collect(), inventory.rack_version.clone()));
        for rack in 0..racks {
            if seen[rack] != inventory.rack_version[rack] {
                seen[rack] = inventory.rack_version[rack];
                fits[rack] = reckon(rack);
            }
        }
        fits.clone()
    }
}

/// Which sets of labels have all of `wanted`; `None` when nothing is wanted.
pub fn carrying(inventory: &Inventory, wanted: &BTreeMap<String, String>) -> Option<Vec<bool>> {
    let has_all = |set: &BTreeMap<String, String>| wanted.iter().all(|(k, v)| set.get(k) == Some(v));
    (!wanted.is_empty()).then(|| inventory.label_sets.iter().map(has_all).collect())
}
