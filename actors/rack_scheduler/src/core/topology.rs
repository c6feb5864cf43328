//! An inventory as someone gives it: checked for duplicates, loops, levels and unknown places, then cut into racks.

use std::collections::{BTreeMap, HashMap, HashSet};

use wire::rack_scheduler::{HOSTS_MAX, InventoryArg, Level, PlaceArg, RACK_HOSTS_MAX, RACKS_MAX};

use super::amounts::Amounts;
use super::ledger::{HostRecord, RackRecord};
use super::name::check_name;
use crate::{Kind, RackError, Result};

/// The place of those who name none.
const DEFAULT_PLACE: &str = "default";
/// Places of a loop that its error names.
const LOOP_SHOWN_MAX: usize = 12;
/// Percent that may be sold of what there is.
const SOLD_PERCENT_MAX: u64 = 10_000;

fn invalid(message: impl Into<String>) -> RackError {
    RackError::new(Kind::Invalid, format!("{}; nothing was loaded", message.into()))
}

/// The racks of an inventory, without bookings.
///
/// # Errors
/// `Invalid` for duplicates, loops, unknown places, wrong levels, empty or enormous inventories.
pub fn racks(inventory: &InventoryArg) -> Result<BTreeMap<String, RackRecord>> {
    if inventory.hosts.is_empty() {
        return Err(invalid("the inventory has no hosts"));
    }
    if inventory.hosts.len() > HOSTS_MAX || inventory.places.len() > RACKS_MAX * 2 {
        return Err(invalid(format!(
            "more than {HOSTS_MAX} hosts or {} places",
            RACKS_MAX * 2
        )));
    }
    let percent = |given: Option<u64>, what: &str| match given.unwrap_or(100) {
        p @ 1..=SOLD_PERCENT_MAX => Ok(u32::try_from(p).unwrap_or(100)),
        p => Err(invalid(format!("{what} is {p}: use 1 to {SOLD_PERCENT_MAX}"))),
    };
    let vcpus = percent(inventory.vcpus_sold_percent, "vcpus_sold_percent")?;
    let memory = percent(inventory.memory_sold_percent, "memory_sold_percent")?;
    let places = places(&inventory.places)?;
    let mut seen: HashMap<&str, &str> = HashMap::new();
    let mut racks: BTreeMap<String, RackRecord> = BTreeMap::new();
    for host in &inventory.hosts {
        check_name("host", &host.id)?;
        check_name("rack", &host.rack)?;
        if let Some(before) = seen.insert(&host.id, &host.rack) {
            return Err(invalid(format!(
                "host {} stands twice, in rack {before} and in rack {}",
                host.id, host.rack
            )));
        }
        let capacity = Amounts::checked(&format!("host {}", host.id), &host.capacity)?;
        if capacity.is_zero() {
            return Err(invalid(format!("host {} has nothing", host.id)));
        }
        let record = match racks.get_mut(&host.rack) {
            Some(record) => record,
            None => racks
                .entry(host.rack.clone())
                .or_insert(empty_rack(&places, &host.rack)?),
        };
        record.hosts.push(HostRecord {
            id: host.id.clone(),
            sold: capacity.oversold(vcpus, memory),
            labels: host.labels.clone(),
            state: host.state,
            beat: Default::default(),
        });
        if record.hosts.len() > RACK_HOSTS_MAX {
            return Err(invalid(format!(
                "rack {} has more than {RACK_HOSTS_MAX} hosts",
                host.rack
            )));
        }
    }
    if racks.len() > RACKS_MAX {
        return Err(invalid(format!("{} racks are more than {RACKS_MAX}", racks.len())));
    }
    Ok(racks)
}

/// Places by id, each checked: known parents of a higher level, no loops.
fn places(given: &[PlaceArg]) -> Result<HashMap<&str, &PlaceArg>> {
    let mut places: HashMap<&str, &PlaceArg> = HashMap::new();
    for place in given {
        check_name("place", &place.id)?;
        if places.insert(&place.id, place).is_some() {
            return Err(invalid(format!("place {} stands twice", place.id)));
        }
    }
    // each place is walked up from once: where an earlier walk came by, there is no loop
    let mut walked: HashSet<&str> = HashSet::new();
    for place in given {
        let (mut path, mut on_path) = (vec![place.id.as_str()], HashSet::from([place.id.as_str()]));
        let mut at = place;
        while let Some(within) = at.within.as_ref().filter(|_| !walked.contains(at.id.as_str())) {
            let Some(parent) = places.get(within.as_str()) else {
                return Err(invalid(format!(
                    "place {} stands in {within}, which is not in the inventory",
                    at.id
                )));
            };
            path.push(&parent.id);
            if !on_path.insert(&parent.id) {
                let more = if path.len() > LOOP_SHOWN_MAX { " in …" } else { "" };
                path.truncate(LOOP_SHOWN_MAX);
                return Err(invalid(format!(
                    "places go round in a loop: {}{more}",
                    path.join(" in ")
                )));
            }
            at = parent;
        }
        walked.extend(path);
    }
    for place in given {
        if let Some(parent) = place.within.as_ref().and_then(|w| places.get(w.as_str()))
            && parent.level >= place.level
        {
            return Err(invalid(
                format!(
                    "{} ({:?}) can't stand in {} ({:?})",
                    place.id, place.level, parent.id, parent.level
                )
                .to_lowercase(),
            ));
        }
    }
    Ok(places)
}

fn empty_rack(places: &HashMap<&str, &PlaceArg>, rack: &str) -> Result<RackRecord> {
    let mut found: BTreeMap<Level, &str> = BTreeMap::new();
    let mut at = places.get(rack).copied();
    if let Some(place) = at.filter(|p| p.level != Level::Rack) {
        return Err(invalid(format!("a host stands in {}, which is no rack", place.id)));
    }
    while let Some(place) = at {
        found.insert(place.level, &place.id);
        at = place.within.as_ref().and_then(|w| places.get(w.as_str())).copied();
    }
    // a level that nobody names is as wide as the one above
    let region = *found.get(&Level::Region).unwrap_or(&DEFAULT_PLACE);
    let zone = *found.get(&Level::Zone).unwrap_or(&region);
    let row = *found.get(&Level::Row).unwrap_or(&zone);
    Ok(RackRecord {
        row: row.to_owned(),
        zone: zone.to_owned(),
        region: region.to_owned(),
        ..RackRecord::default()
    })
}
