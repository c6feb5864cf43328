//! A tenant's machines in columns. Machines that differ in nothing that hardware is asked for are one *class*: a request is held
//! against each class once, and only then against machines. A fleet has few classes, however many machines.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use wire::metal_broker::{Domain, Health, Machine};

use super::ask::Need;
use super::machine::{Amounts, DIMENSIONS, WORDS, amounts};

/// Why a machine can't be chosen now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Busy {
    /// A cluster has it.
    Claimed(String),
    /// It is kept from being chosen.
    Quarantined(String),
}

/// What of a machine a request for hardware can ask for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hardware {
    /// What it has.
    pub amounts: Amounts,
    /// Its architecture.
    pub arch: String,
    /// Its kind of GPU.
    pub gpu_model: Option<String>,
    /// What it can do, sorted.
    pub features: Vec<String>,
    /// What it costs.
    pub price_class: u64,
    /// Where it is.
    pub location: String,
}

impl Hardware {
    fn of(machine: &Machine) -> Self {
        Self {
            amounts: amounts(machine),
            arch: machine.arch.clone(),
            gpu_model: machine.gpu_model.clone(),
            features: machine.features.clone(),
            price_class: machine.price_class,
            location: machine.location.clone(),
        }
    }
    /// The first thing that a need asks for and this hasn't, and what would have to change.
    pub fn lacks(&self, need: &Need) -> Option<(String, String)> {
        for ((has, wanted), word) in self.amounts.iter().zip(&need.amounts).zip(WORDS) {
            if has < wanted {
                return Some((
                    format!("has {has} {word}, {wanted} are needed"),
                    format!("{} more {word}", wanted - has),
                ));
            }
        }
        let differs = |what: &str, wanted: &Option<String>, has: Option<&str>| match wanted {
            Some(wanted) if has != Some(wanted) => Some((
                format!("its {what} is {}, {wanted} is needed", has.unwrap_or("none")),
                format!("{what} {wanted}"),
            )),
            _ => None,
        };
        differs("architecture", &need.arch, Some(&self.arch))
            .or_else(|| differs("kind of GPU", &need.gpu_model, self.gpu_model.as_deref()))
            .or_else(|| differs("location", &need.location, Some(&self.location)))
            .or_else(|| {
                let missing = need.features.iter().find(|f| self.features.binary_search(f).is_err())?;
                Some((format!("can't do {missing}"), format!("feature {missing}")))
            })
            .or_else(|| {
                let most = need.price_class_max.filter(|most| self.price_class > *most)?;
                Some((
                    format!("price class {}, at most {most} may be", self.price_class),
                    format!("price_class_max of {}", self.price_class),
                ))
            })
    }
}

/// Machines of one hardware.
#[derive(Debug, Clone)]
pub struct Class {
    /// What they have.
    pub hardware: Hardware,
    /// The machines, by index.
    pub members: Vec<u32>,
    /// Those of them that may be chosen.
    pub free: u32,
}

/// A rack as expressions see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rack {
    /// Its name.
    pub name: String,
    /// Its location.
    pub location: String,
    /// Its machines.
    pub machines: u32,
    /// Those of them that may be chosen.
    pub free: u32,
}

/// One machine.
#[derive(Debug, Clone)]
pub struct Unit {
    /// As its provider tells.
    pub machine: Arc<Machine>,
    /// Its class.
    pub class: u32,
    /// Its rack, by index.
    pub rack: u32,
    /// Its zone, by index.
    pub zone: u32,
    /// Why it can't be chosen now, as far as the broker knows.
    pub busy: Option<Busy>,
}

impl Unit {
    /// It may be chosen.
    pub fn is_free(&self) -> bool {
        self.busy.is_none() && !self.machine.taken && self.machine.health != Health::Critical
    }
    /// The domain that a role is spread over, by index.
    pub fn domain(&self, domain: Domain) -> u32 {
        match domain {
            Domain::Rack => self.rack,
            Domain::Zone => self.zone,
        }
    }
}

/// A tenant's machines.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    /// Machines, by id.
    pub units: Vec<Unit>,
    /// Their hardware.
    pub classes: Vec<Class>,
    /// Their racks.
    pub racks: Vec<Rack>,
    /// What each class has, a column a dimension: the prefilter reads nothing else.
    columns: [Vec<u64>; DIMENSIONS],
    /// The most that any machine has, by dimension: what excess is measured by.
    pub scale: Amounts,
    by_id: HashMap<String, u32>,
}

fn index(n: usize) -> u32 {
    // an inventory has at most a hundred thousand machines
    u32::try_from(n).unwrap_or(u32::MAX)
}

impl Fleet {
    /// The machines of an inventory, in the order of their ids, and who is busy.
    pub fn of(mut machines: Vec<Arc<Machine>>, busy: &HashMap<String, Busy>) -> Self {
        machines.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        let mut fleet = Self::default();
        let (mut classes, mut racks, mut zones) = (BTreeMap::new(), HashMap::new(), HashMap::new());
        for machine in &machines {
            let count = classes.len();
            classes.entry(Hardware::of(machine)).or_insert(count);
        }
        // classes are numbered by their hardware, so that the same machines have the same numbers whoever saw them first
        for (at, class) in classes.values_mut().enumerate() {
            *class = at;
        }
        fleet.classes = classes
            .keys()
            .map(|hardware| Class {
                hardware: hardware.clone(),
                members: Vec::new(),
                free: 0,
            })
            .collect();
        for machine in machines {
            let class = classes[&Hardware::of(&machine)];
            let count = index(racks.len());
            let rack = *racks
                .entry((machine.location.clone(), machine.rack.clone()))
                .or_insert(count);
            if rack == count {
                fleet.racks.push(Rack {
                    name: machine.rack.clone(),
                    location: machine.location.clone(),
                    machines: 0,
                    free: 0,
                });
            }
            let count = index(zones.len());
            let zone = *zones
                .entry((machine.location.clone(), machine.zone.clone()))
                .or_insert(count);
            let at = index(fleet.units.len());
            for (most, has) in fleet.scale.iter_mut().zip(amounts(&machine)) {
                *most = (*most).max(has);
            }
            fleet.by_id.insert(machine.id.clone(), at);
            fleet.classes[class].members.push(at);
            let unit = Unit {
                class: index(class),
                rack,
                zone,
                busy: busy.get(&machine.id).cloned(),
                machine,
            };
            fleet.classes[class].free += u32::from(unit.is_free());
            fleet.racks[rack as usize].machines += 1;
            fleet.racks[rack as usize].free += u32::from(unit.is_free());
            fleet.units.push(unit);
        }
        for d in 0..DIMENSIONS {
            fleet.columns[d] = fleet.classes.iter().map(|c| c.hardware.amounts[d]).collect();
        }
        fleet
    }
    /// A machine's place.
    pub fn find(&self, id: &str) -> Option<u32> {
        self.by_id.get(id).copied()
    }
    /// A machine.
    pub fn unit(&self, at: u32) -> &Unit {
        &self.units[at as usize]
    }
    /// Makes a machine busy or free.
    pub fn set_busy(&mut self, id: &str, busy: Option<Busy>) {
        let Some(at) = self.find(id) else { return };
        let unit = &mut self.units[at as usize];
        let before = unit.is_free();
        unit.busy = busy;
        let after = unit.is_free();
        for free in [
            &mut self.classes[unit.class as usize].free,
            &mut self.racks[unit.rack as usize].free,
        ] {
            *free = *free + u32::from(after) - u32::from(before);
        }
    }
    /// Classes with a free machine whose hardware does for a need: amounts by columns first, words for those that are left.
    pub fn fitting(&self, need: &Need) -> Vec<u32> {
        let mut fits = vec![true; self.classes.len()];
        for (column, wanted) in self.columns.iter().zip(need.amounts) {
            if wanted > 0 {
                for (fit, has) in fits.iter_mut().zip(column) {
                    *fit &= *has >= wanted;
                }
            }
        }
        let words = |class: &Class| class.free > 0 && class.hardware.lacks(need).is_none();
        (0..self.classes.len())
            .filter(|at| fits[*at] && words(&self.classes[*at]))
            .map(index)
            .collect()
    }
}
