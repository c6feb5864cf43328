//! What must hold between racks and placements, as functions: debug builds check what one record shows, simulations the whole.

use std::collections::{BTreeMap, BTreeSet};

use super::ledger::{Booking, PlacementRecord, RackRecord};

/// One VM of a placement on a host: placement, host, group, number.
pub type Seat = (String, String, u32, u32);

/// What is wrong with a rack's record whoever wrote it: hosts that are oversold, VMs that are booked twice. What an undecided change
/// booked may stand beside what the next try of the same placement books: one of the two is dropped when its time has passed.
pub fn of_rack(id: &str, record: &RackRecord) -> Vec<String> {
    let oversold = record.oversold();
    let mut wrong: Vec<String> = oversold
        .iter()
        .map(|host| format!("rack {id}: {host} is oversold"))
        .collect();
    let (mut firm, mut of_change) = (BTreeSet::new(), BTreeSet::new());
    for booking in &record.bookings {
        for seat in seats(booking) {
            let twice = booking.until_ms.is_none() && !firm.insert(seat.clone());
            if !of_change.insert((&booking.change, seat.clone())) || twice {
                wrong.push(format!("rack {id}: {seat:?} is booked twice"));
            }
        }
    }
    wrong
}

/// What a write breaks: what is wrong with `after` and wasn't with what it replaces. A host whose capacity was cut below what is
/// booked is no fault of who cuts it.
pub fn broken(id: &str, before: Option<&RackRecord>, after: &RackRecord) -> Vec<String> {
    let Some(before) = before else {
        return of_rack(id, after);
    };
    let mut as_it_could_be = after.clone();
    for host in &mut as_it_could_be.hosts {
        if let Some(known) = before.hosts.iter().find(|known| known.id == host.id) {
            host.sold = known.sold;
        }
    }
    let known = of_rack(id, before);
    let mut wrong = of_rack(id, &as_it_could_be);
    wrong.retain(|why| !known.contains(why));
    wrong
}

fn seats(booking: &Booking) -> impl Iterator<Item = Seat> + '_ {
    booking.taken.iter().flat_map(|taken| {
        let seat = |vm: &u32| (booking.placement.clone(), taken.host.clone(), taken.group, *vm);
        taken.vms.iter().map(seat).collect::<Vec<_>>()
    })
}

/// Everything that is booked.
pub fn booked(racks: &BTreeMap<String, RackRecord>) -> BTreeSet<Seat> {
    racks.values().flat_map(|rack| &rack.bookings).flat_map(seats).collect()
}

/// Everything that is committed.
pub fn committed<'a>(records: impl IntoIterator<Item = &'a PlacementRecord>) -> BTreeSet<Seat> {
    let mut committed = BTreeSet::new();
    for record in records {
        for (g, group) in record.groups.iter().enumerate() {
            for on in &group.on {
                let seat = |vm: &u32| (record.id.clone(), on.host.clone(), g as u32, *vm);
                committed.extend(on.vms.iter().map(seat));
            }
        }
    }
    committed
}

/// What is booked and not committed, and the other way round, when nobody has anything under way: a placement is there whole
/// or not at all.
pub fn halves(racks: &BTreeMap<String, RackRecord>, records: &[PlacementRecord]) -> Vec<String> {
    let (booked, committed) = (booked(racks), committed(records));
    let only_booked = booked
        .difference(&committed)
        .map(|seat| format!("{seat:?} is booked for nothing"));
    let only_committed = committed
        .difference(&booked)
        .map(|seat| format!("{seat:?} is committed and not booked"));
    only_booked.chain(only_committed).collect()
}
