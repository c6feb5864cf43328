//! What the state keeps, and the only ways in which it changes.
//!
//! ```text
//! rack_scheduler/racks/<rack>            hosts, and bookings on them   compare-and-set
//! rack_scheduler/tenants/<tenant>        quota, and what is booked     compare-and-set
//! rack_scheduler/placements/<id>         the decision: what is committed, for whom, where
//! ```
//!
//! A change is first booked in each rack (and tenant) that it touches, *tentatively*, with an end. Then one write to the
//! placement's record decides: from there it is committed, in all racks at once. Tentative bookings count as taken. One
//! whose end has passed is settled by whoever meets it: if the placement's record names the change it becomes firm; if not, the
//! record is first written anew (or, for a first change, made as `void`), so that a late scheduler's decision must fail, and only
//! then is the booking dropped. So nothing rests on clocks: they only say when it is worth a look.
//!
//! A first change that touches one rack and nothing else needs none of that: the write that books it is the decision, and the
//! rack's record keeps the placement's ([`Resident`]) until somebody changes it.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};
use wire::rack_scheduler::{HostState, Inside, PlacementState, RackAsk, Unplaced};

use super::amounts::{Amounts, Sums, add, less, sums_fit};
use super::inventory::{HostSeed, RackSeed};
use crate::{Kind, RackError, Result};

mod rack_change;
mod resident;
mod tenant;

pub use rack_change::{Applied, RackChange};
pub use resident::{RESIDENT_BYTES_MAX, RESIDENTS_BYTES_MAX, Resident};
pub use tenant::{Share, TenantRecord};

/// Version of placements' and tenants' records.
pub const VERSION: u32 = 1;
/// Version of racks' records: since 2 they may keep placements, which an older windlass would lose.
pub const RACK_VERSION: u32 = 2;
/// Changes that one placement may see.
pub const CHANGES_MAX: usize = 2_000;

fn version() -> u32 {
    VERSION
}

/// A host in its rack's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRecord {
    /// Its id.
    pub id: String,
    /// What can be sold of it.
    pub sold: Amounts,
    /// What it carries.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What an operator set.
    #[serde(default)]
    pub state: HostState,
    /// What its heartbeats say.
    #[serde(default)]
    pub beat: HostState,
}

impl HostRecord {
    /// How it is: what an operator set goes before what its heartbeats say.
    pub fn now(&self) -> HostState {
        if self.state == HostState::Up {
            self.beat
        } else {
            self.state
        }
    }
}

/// VMs of one kind of one group on one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// The host.
    #[serde(rename = "h")]
    pub host: String,
    /// The group's number in the placement.
    #[serde(rename = "g")]
    pub group: u32,
    /// What each takes.
    #[serde(rename = "a")]
    pub needs: Amounts,
    /// Their numbers in the group.
    #[serde(rename = "v")]
    pub vms: Vec<u32>,
}

/// What one change of one placement takes in a rack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Booking {
    /// The placement.
    pub placement: String,
    /// The change.
    pub change: String,
    /// Tentative until then, Unix milliseconds; firm when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// What is taken.
    pub taken: Vec<Taken>,
}

/// Value of `rack_scheduler/racks/<rack>`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RackRecord {
    /// Version of the record.
    #[serde(default = "version")]
    pub version: u32,
    /// Where it stands.
    pub row: String,
    /// Where the row stands.
    pub zone: String,
    /// Where the zone stands.
    pub region: String,
    /// Its hosts.
    pub hosts: Vec<HostRecord>,
    /// What is booked.
    #[serde(default)]
    pub bookings: Vec<Booking>,
    /// Placements that were decided here and have no key of their own yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub residents: Vec<Resident>,
    /// The scheduler that booked last: others look elsewhere first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

impl RackRecord {
    /// What is booked on each host.
    pub fn booked(&self) -> HashMap<&str, Sums> {
        let mut booked: HashMap<&str, Sums> = HashMap::new();
        for taken in self.bookings.iter().flat_map(|b| &b.taken) {
            add(
                booked.entry(&taken.host).or_default(),
                &taken.needs.times(taken.vms.len() as u32),
            );
        }
        booked
    }
    /// For the table.
    pub fn seed(&self, id: &str) -> RackSeed {
        let booked = self.booked();
        let host = |host: &HostRecord| HostSeed {
            id: host.id.clone(),
            sold: host.sold,
            room: room(host, booked.get(host.id.as_str())),
            labels: host.labels.clone(),
        };
        RackSeed {
            id: id.to_owned(),
            row: self.row.clone(),
            zone: self.zone.clone(),
            hosts: self.hosts.iter().map(host).collect(),
        }
    }
    /// What is free of each host; `held` counts as taken, as far as it isn't booked here.
    pub fn rooms(&self, held: &[Booking]) -> Vec<Amounts> {
        let mut booked = self.booked();
        if !held.is_empty() {
            let here: HashSet<&str> = self.bookings.iter().map(|b| b.change.as_str()).collect();
            let more = held.iter().filter(|b| !here.contains(b.change.as_str()));
            for taken in more.flat_map(|b| &b.taken) {
                add(
                    booked.entry(&taken.host).or_default(),
                    &taken.needs.times(taken.vms.len() as u32),
                );
            }
        }
        let hosts = self.hosts.iter();
        hosts.map(|h| room(h, booked.get(h.id.as_str()))).collect()
    }
    /// The host has room for all of it, and takes new VMs: the guard at every write. Booking the same change again changes
    /// nothing.
    ///
    /// # Errors
    /// `Busy` when a host has no room any more, is gone, or takes nothing new: the plan was made on older facts.
    pub fn book(&mut self, rack: &str, booking: Booking) -> Result<()> {
        if self.find(&booking.placement, &booking.change).is_some() {
            return Ok(());
        }
        let stale = |host: &str, why: &str| {
            RackError::new(
                Kind::Busy,
                format!("host {host} of rack {rack} {why} since the plan was made; nothing was placed"),
            )
        };
        let mut wanted: HashMap<&str, Sums> = HashMap::new();
        for taken in &booking.taken {
            add(
                wanted.entry(&taken.host).or_default(),
                &taken.needs.times(taken.vms.len() as u32),
            );
        }
        let booked = self.booked();
        for (id, sums) in wanted {
            let host = self
                .hosts
                .iter()
                .find(|h| h.id == id)
                .ok_or_else(|| stale(id, "has gone"))?;
            if host.now() != HostState::Up {
                return Err(stale(id, "takes nothing new"));
            }
            if !sums_fit(&sums, &room(host, booked.get(id)).times(1)) {
                return Err(stale(id, "was booked by others"));
            }
        }
        self.bookings.push(booking);
        Ok(())
    }
    fn find(&self, placement: &str, change: &str) -> Option<usize> {
        self.bookings
            .iter()
            .position(|b| b.placement == placement && b.change == change)
    }
    /// Makes a change's bookings firm. False when there is nothing to do.
    pub fn settle(&mut self, placement: &str, change: &str) -> bool {
        let booking = self.find(placement, change).map(|n| &mut self.bookings[n]);
        booking.and_then(|b| b.until_ms.take()).is_some()
    }
    /// Drops a change that was never committed. False when there is nothing to do.
    pub fn drop_change(&mut self, placement: &str, change: &str) -> bool {
        let before = self.bookings.len();
        self.bookings
            .retain(|b| b.placement != placement || b.change != change || b.until_ms.is_none());
        self.bookings.len() < before
    }
    /// Gives VMs of a host back, by group and number, as far as one of `changes` booked them: a later change may have brought
    /// the same VM back to the same host. Returns how many of them were there.
    pub fn give_back(&mut self, placement: &str, host: &str, vms: &[(u32, u32)], changes: &[String]) -> u64 {
        let mut given = 0;
        let ours = |b: &&mut Booking| b.placement == placement && changes.contains(&b.change);
        for booking in self.bookings.iter_mut().filter(ours) {
            for taken in booking.taken.iter_mut().filter(|t| t.host == host) {
                let group = taken.group;
                let before = taken.vms.len();
                taken.vms.retain(|vm| !vms.contains(&(group, *vm)));
                given += (before - taken.vms.len()) as u64;
            }
            booking.taken.retain(|t| !t.vms.is_empty());
        }
        self.bookings.retain(|b| !b.taken.is_empty());
        given
    }
    /// Tentative bookings whose end has passed: placement and change.
    pub fn overdue(&self, now_ms: u64) -> Vec<(String, String)> {
        let late = |b: &&Booking| b.until_ms.is_some_and(|until| until <= now_ms);
        let name = |b: &Booking| (b.placement.clone(), b.change.clone());
        self.bookings.iter().filter(late).map(name).collect()
    }
    /// No host has more booked than it can sell: what must hold after every write (unless its capacity was cut since).
    pub fn oversold(&self) -> Vec<&str> {
        let booked = self.booked();
        let over = |h: &&HostRecord| {
            booked
                .get(h.id.as_str())
                .is_some_and(|b| !sums_fit(b, &h.sold.times(1)))
        };
        self.hosts.iter().filter(over).map(|h| h.id.as_str()).collect()
    }
}

fn room(host: &HostRecord, booked: Option<&Sums>) -> Amounts {
    if host.now() != HostState::Up {
        return Amounts::default();
    }
    let free = less(&host.sold.times(1), booked.unwrap_or(&Sums::default()));
    Amounts(free.map(|a| u32::try_from(a).unwrap_or(u32::MAX)))
}

/// VMs of one kind of a group on one host, as the placement knows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnHost {
    /// The host.
    #[serde(rename = "h")]
    pub host: String,
    /// Number of the class.
    #[serde(rename = "c")]
    pub class: u32,
    /// Their numbers in the group.
    #[serde(rename = "v")]
    pub vms: Vec<u32>,
}

/// A group of a placement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRecord {
    /// Its name.
    pub name: String,
    /// Its home.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rack: Option<String>,
    /// The rack's row.
    #[serde(default)]
    pub row: String,
    /// The rack's zone.
    #[serde(default)]
    pub zone: String,
    /// The number of its next VM: numbers are never given twice.
    pub next: u32,
    /// Its VMs.
    pub on: Vec<OnHost>,
    /// Why this rack.
    #[serde(default)]
    pub why: String,
}

impl GroupRecord {
    /// A group of that name without VMs.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            rack: None,
            row: String::new(),
            zone: String::new(),
            next: 0,
            on: vec![],
            why: String::new(),
        }
    }
    /// How many VMs it has.
    pub fn vms(&self) -> u64 {
        self.on.iter().map(|o| o.vms.len() as u64).sum()
    }
}

/// A kind of VM of a placement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassRecord {
    /// What each takes.
    pub needs: Amounts,
    /// Labels that its host must carry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// VMs that are committed to leave a rack, and have not been given back there yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// The rack.
    pub rack: String,
    /// The host.
    pub host: String,
    /// Group and number of each.
    pub vms: Vec<(u32, u32)>,
    /// How many changes were committed before they left.
    pub after: usize,
}

/// Value of `rack_scheduler/placements/<id>`: the one record that decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementRecord {
    /// Version of the record.
    #[serde(default = "version")]
    pub version: u32,
    /// Its id.
    pub id: String,
    /// Never committed: made so that a late decision fails.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub void: bool,
    /// How it is.
    pub state: PlacementState,
    /// When it was committed, Unix milliseconds.
    pub created_at_ms: u64,
    /// When it was last changed, Unix milliseconds.
    pub changed_at_ms: u64,
    /// Grows with every committed change.
    pub revision: u64,
    /// What was asked for at first.
    pub ask: RackAsk,
    /// Changes that are committed.
    pub changes: Vec<String>,
    /// Kinds of VM.
    pub classes: Vec<ClassRecord>,
    /// Groups.
    pub groups: Vec<GroupRecord>,
    /// What has no place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unplaced: Vec<Unplaced>,
    /// Preferences that gave way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gave_way: Vec<String>,
    /// What has to be given back yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaving: Vec<Leaving>,
    /// What was given back, and its hosts have to hear yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unheard: Vec<Leaving>,
    /// Hosts that have to hear of VMs yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub untold: Vec<String>,
}

impl PlacementRecord {
    /// A record that says that the placement was never committed.
    pub fn void(id: &str, now_ms: u64) -> Self {
        Self {
            version: VERSION,
            id: id.to_owned(),
            void: true,
            state: PlacementState::Released,
            created_at_ms: now_ms,
            changed_at_ms: now_ms,
            revision: 0,
            ask: RackAsk {
                inside: Inside::default(),
                ..RackAsk::default()
            },
            changes: vec![],
            classes: vec![],
            groups: vec![],
            unplaced: vec![],
            gave_way: vec![],
            leaving: vec![],
            unheard: vec![],
            untold: vec![],
        }
    }
    /// How many VMs it has.
    pub fn vms(&self) -> u64 {
        self.groups.iter().map(GroupRecord::vms).sum()
    }
    /// What it takes in sum.
    pub fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        for on in self.groups.iter().flat_map(|g| &g.on) {
            let needs = self.classes[on.class as usize].needs;
            add(&mut sums, &needs.times(on.vms.len() as u32));
        }
        sums
    }
    /// VMs of those that left a host which are not there again by now.
    pub fn still_gone(&self, left: &Leaving) -> Vec<(u32, u32)> {
        let here = |(g, vm): &(u32, u32)| {
            let group = self.groups.get(*g as usize);
            group.is_some_and(|g| g.on.iter().any(|o| o.host == left.host && o.vms.contains(vm)))
        };
        left.vms.iter().copied().filter(|vm| !here(vm)).collect()
    }
    /// Takes VMs out of their groups and notes that their racks have to give them back; returns how many.
    pub fn leave(&mut self, from: impl Fn(&GroupRecord, &OnHost, u32) -> bool) -> u64 {
        let mut gone = 0;
        for (g, group) in self.groups.iter_mut().enumerate() {
            let Some(rack) = group.rack.clone() else { continue };
            let copy = group.clone();
            for on in &mut group.on {
                let (stay, go): (Vec<u32>, Vec<u32>) = on.vms.iter().partition(|vm| !from(&copy, on, **vm));
                gone += go.len() as u64;
                on.vms = stay;
                if !go.is_empty() {
                    self.leaving.push(Leaving {
                        rack: rack.clone(),
                        host: on.host.clone(),
                        vms: go.into_iter().map(|vm| (g as u32, vm)).collect(),
                        after: self.changes.len(),
                    });
                }
            }
            group.on.retain(|on| !on.vms.is_empty());
        }
        gone
    }
}
