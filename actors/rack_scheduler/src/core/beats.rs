//! Hosts as their heartbeats tell of them, made into racks.

use std::collections::BTreeMap;

use wire::hosts::{HostInfo, HostState as Beat};
use wire::rack_scheduler::{AMOUNT_MAX, HostState, RACK_HOSTS_MAX};

use super::amounts::Amounts;
use super::ledger::{HostRecord, RackRecord};
use super::name::check_name;

/// The place of those who name none.
const DEFAULT_PLACE: &str = "default";

/// The racks of those hosts, and for people what was left out. What is sold of each is the given percentage of what it has.
pub fn racks(
    hosts: &[HostInfo],
    vcpus_percent: u32,
    memory_percent: u32,
) -> (BTreeMap<String, RackRecord>, Vec<String>) {
    let (mut racks, mut left_out): (BTreeMap<String, RackRecord>, Vec<String>) = (BTreeMap::new(), vec![]);
    for info in hosts {
        let (facts, host) = (&info.facts, info.host.as_str());
        let zone = facts.zone.as_deref().unwrap_or(DEFAULT_PLACE);
        let row = facts.row.as_deref().unwrap_or(zone);
        let rack = facts.rack.as_deref().unwrap_or(DEFAULT_PLACE);
        let named = [("host", host), ("rack", rack), ("row", row), ("zone", zone)]
            .into_iter()
            .find_map(|(what, name)| check_name(what, name).err());
        if let Some(error) = named {
            left_out.push(format!("host {host} is left out: {error}"));
            continue;
        }
        let record = racks.entry(rack.to_owned()).or_insert_with(|| RackRecord {
            row: row.to_owned(),
            zone: zone.to_owned(),
            region: DEFAULT_PLACE.to_owned(),
            ..RackRecord::default()
        });
        if record.row != row || record.zone != zone {
            left_out.push(format!(
                "host {host} says that rack {rack} stands in row {row} of zone {zone}; others say row {} of zone {}",
                record.row, record.zone
            ));
        }
        if record.hosts.len() == RACK_HOSTS_MAX {
            left_out.push(format!(
                "host {host} is left out: rack {rack} has {RACK_HOSTS_MAX} hosts, the most"
            ));
            continue;
        }
        let bounded = |amount: u64| u32::try_from(amount.min(AMOUNT_MAX)).unwrap_or(u32::MAX);
        let has = Amounts([
            bounded(u64::from(facts.capacity.vcpus)),
            bounded(facts.capacity.memory_bytes >> 20),
            bounded(facts.capacity.disk_bytes >> 30),
            bounded(u64::from(facts.capacity.gpus)),
            bounded(u64::from(facts.capacity.nics)),
        ]);
        record.hosts.push(HostRecord {
            id: host.to_owned(),
            sold: has.oversold(vcpus_percent, memory_percent),
            labels: facts.labels.clone(),
            state: HostState::Up,
            beat: beat(info.state),
        });
    }
    (racks, left_out)
}

/// What a heartbeat means for VMs. A daemon that ended in good order leaves its VMs where they are.
fn beat(state: Beat) -> HostState {
    match state {
        Beat::Up => HostState::Up,
        Beat::Cordoned | Beat::Stopped => HostState::Cordoned,
        Beat::Draining | Beat::Drained => HostState::Draining,
        Beat::Lost => HostState::Lost,
    }
}

/// Brings a rack's record up to what the heartbeats say; true when it changed. Hosts that no longer beat stay as they are, and so
/// does what an operator set.
pub fn merge(record: &mut RackRecord, beats: &RackRecord) -> bool {
    let before = record.clone();
    (record.row, record.zone) = (beats.row.clone(), beats.zone.clone());
    for host in &beats.hosts {
        match record.hosts.iter_mut().find(|h| h.id == host.id) {
            Some(known) => {
                *known = HostRecord {
                    state: known.state,
                    ..host.clone()
                }
            }
            None => record.hosts.push(host.clone()),
        }
    }
    record.hosts.sort_by(|a, b| a.id.cmp(&b.id));
    *record != before
}
