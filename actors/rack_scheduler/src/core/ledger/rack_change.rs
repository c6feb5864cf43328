//! Every way in which a rack's record changes. A change is data, so that a writer can make many of them in one write, each
//! with an outcome of its own, and make them again on a newer record when the write was lost.

use wire::rack_scheduler::HostState;

use super::{Booking, RESIDENTS_BYTES_MAX, RackRecord, Resident};
use crate::core::beats;
use crate::{Kind, RackError, Result};

/// One change of a rack's record. Each may come twice and then changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RackChange {
    /// Books; with a resident, this write is the decision too.
    Book {
        /// What is taken.
        booking: Booking,
        /// The placement that is decided here.
        resident: Option<Resident>,
        /// The scheduler.
        by: String,
    },
    /// Gives up a booking that was not decided.
    Drop {
        /// The placement.
        placement: String,
        /// The change.
        change: String,
    },
    /// Gives VMs of a host back.
    GiveBack {
        /// The placement.
        placement: String,
        /// The host.
        host: String,
        /// Group and number of each.
        vms: Vec<(u32, u32)>,
        /// Changes that may have booked them.
        changes: Vec<String>,
    },
    /// These placements have keys of their own now.
    Forget(Vec<String>),
    /// An operator set these hosts' state.
    Mark {
        /// The hosts.
        hosts: Vec<String>,
        /// How they are.
        state: HostState,
    },
    /// An inventory was loaded.
    Load {
        /// The rack as it says; no bookings.
        fresh: RackRecord,
        /// Hosts that it doesn't name go.
        replace: bool,
    },
    /// What heartbeats say.
    Beats(RackRecord),
    /// Nothing but what is overdue.
    Look,
}

/// What a change came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    /// The record is another one now.
    pub changed: bool,
    /// VMs that were given back.
    pub vms: u64,
}

impl Applied {
    fn when(changed: bool) -> Self {
        Self { changed, vms: 0 }
    }
}

impl RackChange {
    /// Makes the change; an error leaves the record as it was. `rack` is its name.
    ///
    /// # Errors
    /// As [`RackRecord::book`]; `Busy` when the rack keeps as many residents as it may; `Conflict` when a host with VMs would go.
    pub fn apply(&self, rack: &str, record: &mut RackRecord) -> Result<Applied> {
        match self {
            Self::Book { booking, resident, by } => book(rack, record, booking, resident.as_ref(), by),
            Self::Drop { placement, change } => Ok(Applied::when(record.drop_change(placement, change))),
            Self::GiveBack {
                placement,
                host,
                vms,
                changes,
            } => {
                let vms = record.give_back(placement, host, vms, changes);
                let changed = record.forget_resident(placement) || vms > 0;
                Ok(Applied { changed, vms })
            }
            Self::Forget(placements) => {
                let gone = placements.iter().filter(|p| record.forget_resident(p)).count();
                Ok(Applied::when(gone > 0))
            }
            Self::Mark { hosts, state } => {
                let mut changed = false;
                for host in record.hosts.iter_mut().filter(|h| hosts.contains(&h.id)) {
                    changed |= host.state != *state;
                    host.state = *state;
                }
                Ok(Applied::when(changed))
            }
            Self::Load { fresh, replace } => load(rack, record, fresh, *replace),
            Self::Beats(beats) => Ok(Applied::when(beats::merge(record, beats))),
            Self::Look => Ok(Applied::default()),
        }
    }
}

fn book(
    rack: &str,
    record: &mut RackRecord,
    booking: &Booking,
    resident: Option<&Resident>,
    by: &str,
) -> Result<Applied> {
    let before = record.bookings.len();
    if let Some(resident) = resident
        && record.resident(&resident.placement).is_none()
        && record.residents_bytes() + resident.record.len() > RESIDENTS_BYTES_MAX
    {
        return Err(RackError::new(
            Kind::Busy,
            format!("rack {rack} keeps as many placements as it may; nothing was placed"),
        ));
    }
    record.book(rack, booking.clone())?;
    if record.bookings.len() > before {
        record.by = Some(by.to_owned());
        record.residents.extend(resident.cloned());
    }
    if resident.is_none() {
        // a change of a placement that stands has a key to be decided by
        record.forget_resident(&booking.placement);
    }
    Ok(Applied::when(true))
}

fn load(rack: &str, record: &mut RackRecord, fresh: &RackRecord, replace: bool) -> Result<Applied> {
    let named = |id: &str| fresh.hosts.iter().any(|h| h.id == id);
    if replace {
        let booked = record.booked();
        let going = |id: &str| !named(id) && booked.contains_key(id);
        if let Some(host) = record.hosts.iter().find(|h| going(&h.id)) {
            return Err(RackError::new(
                Kind::Conflict,
                format!(
                    "host {} of rack {rack} has VMs and is not in the new inventory; the rack was left as it is",
                    host.id
                ),
            )
            .hint(format!("windlass rack evacuate --host {}", host.id)));
        }
    }
    let old = std::mem::take(&mut record.hosts);
    let kept = old.into_iter().filter(|h| !replace && !named(&h.id));
    record.hosts = fresh.hosts.iter().cloned().chain(kept).collect();
    record.hosts.sort_by(|a, b| a.id.cmp(&b.id));
    (record.row, record.zone, record.region) = (fresh.row.clone(), fresh.zone.clone(), fresh.region.clone());
    Ok(Applied::when(true))
}
