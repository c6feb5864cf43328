//! What this scheduler believes of the inventory: the records that it last saw, and the table made from them. It may be out of
//! date; every write is checked against the record that it replaces.

use std::collections::{BTreeMap, HashMap};

use state::{Entry, Key, LIST_ENTRIES_MAX, Prefix, State, Watch};

use super::Scheduler;
use crate::core::inventory::{Fits, Inventory, Whose};
use crate::core::ledger::{Booking, RACK_VERSION, RackRecord, Taken};
use crate::{Kind, RackError, Result};

/// Where rack records stand.
pub(super) const RACKS: &str = "rack_scheduler/racks";

/// The view.
#[derive(Default)]
pub struct View {
    racks: BTreeMap<String, (u64, RackRecord)>,
    table: Inventory,
    hosts: HashMap<String, usize>,
    /// How many VMs of each kind fit where.
    pub fits: Fits,
    /// What is planned with and not booked yet, by rack.
    held: HashMap<String, Vec<Booking>>,
    /// This scheduler, as racks' records name it.
    me: String,
    /// Racks in which another scheduler booked last.
    others: usize,
    whose_changed: bool,
    stale: bool,
    /// Every record was read once.
    pub(super) loaded: bool,
    pub(super) watch: Option<Watch>,
    /// The newest revision that the watch told.
    pub(super) seen: u64,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View")
            .field("racks", &self.racks.len())
            .field("hosts", &self.hosts.len())
            .finish_non_exhaustive()
    }
}

impl View {
    /// A view of nothing yet, of the scheduler that records name `me`.
    pub(super) fn of(me: &str) -> Self {
        Self {
            me: me.to_owned(),
            ..Self::default()
        }
    }
    fn whose(&self, record: &RackRecord) -> Whose {
        match &record.by {
            None => Whose::Nobodys,
            Some(by) if *by == self.me => Whose::Ours,
            Some(_) => Whose::Others,
        }
    }
    /// The table and what fits, brought up to the records.
    pub fn table(&mut self) -> (&mut Inventory, &mut Fits) {
        if self.stale {
            self.stale = false;
            self.fits.clear();
            self.table = Inventory::new(self.racks.iter().map(|(id, (_, record))| record.seed(id)));
            self.hosts = self.table.hosts.iter().cloned().zip(0..).collect();
            let held: Vec<String> = self.held.keys().cloned().collect();
            held.iter().for_each(|rack| self.set_rooms(rack));
            self.whose_changed = true;
        }
        if std::mem::take(&mut self.whose_changed) {
            let whose = || self.racks.values().map(|(_, r)| self.whose(r)).collect();
            let whose = (self.others > 0).then(whose);
            self.table.set_whose(whose);
        }
        (&mut self.table, &mut self.fits)
    }
    /// A rack's record and its revision.
    pub fn rack(&self, id: &str) -> Option<&(u64, RackRecord)> {
        self.racks.get(id)
    }
    /// All records.
    pub fn racks(&self) -> &BTreeMap<String, (u64, RackRecord)> {
        &self.racks
    }
    /// The rack of a host.
    pub fn rack_of(&mut self, host: &str) -> Option<String> {
        self.table();
        let number = *self.hosts.get(host)?;
        Some(self.table.racks[self.table.rack_of(number) as usize].id.clone())
    }
    /// The number of a host in the table.
    pub fn host(&mut self, id: &str) -> Option<usize> {
        self.table();
        self.hosts.get(id).copied()
    }
    /// That record of a rack, or a newer one, is known.
    pub(super) fn knows(&self, id: &str, revision: u64) -> bool {
        self.racks.get(id).is_some_and(|(known, _)| *known >= revision)
    }
    /// Takes in a record, unless a newer one is known.
    pub fn apply(&mut self, id: &str, revision: u64, record: RackRecord) {
        if let Some((known, before)) = self.racks.get(id) {
            if *known >= revision {
                return;
            }
            let same_hosts = before.hosts == record.hosts && before.row == record.row && before.zone == record.zone;
            self.stale |= !same_hosts;
            let (before, after) = (self.whose(before), self.whose(&record));
            self.others -= usize::from(before == Whose::Others);
            self.others += usize::from(after == Whose::Others);
            if before != after && !self.stale {
                self.whose_changed |= !self.table.set_whose_of(id, after, self.others > 0);
            }
        } else {
            self.stale = true;
            self.others += usize::from(self.whose(&record) == Whose::Others);
        }
        self.racks.insert(id.to_owned(), (revision, record));
        if !self.stale {
            self.set_rooms(id);
        }
    }
    /// Holds what a plan takes in a rack.
    pub(super) fn hold(&mut self, rack: &str, placement: &str, change: &str, taken: &[Taken]) {
        let booking = Booking {
            placement: placement.to_owned(),
            change: change.to_owned(),
            until_ms: None,
            taken: taken.to_vec(),
        };
        self.held.entry(rack.to_owned()).or_default().push(booking);
        for taken in taken.iter().filter(|_| !self.stale) {
            if let Some(host) = self.hosts.get(&taken.host) {
                let mut room = self.table.room(*host);
                room.take(&taken.needs, taken.vms.len() as u32);
                self.table.set_room(*host, &room);
            }
        }
    }
    /// Ends a change's hold.
    pub(super) fn let_go(&mut self, rack: &str, change: &str) {
        let Some(held) = self.held.get_mut(rack) else { return };
        held.retain(|b| b.change != change);
        if held.is_empty() {
            self.held.remove(rack);
        }
        if !self.stale {
            self.set_rooms(rack);
        }
    }
    /// Brings the table's room of a rack's hosts up to its record and what is held.
    fn set_rooms(&mut self, rack: &str) {
        let (Some(number), Some((_, record))) = (self.table.rack(rack), self.racks.get(rack)) else {
            return;
        };
        let held = self.held.get(rack).map_or(&[][..], Vec::as_slice);
        let rooms = record.rooms(held);
        let hosts = self.table.racks[number as usize].hosts.clone();
        for (host, room) in hosts.zip(rooms) {
            if self.table.room(host) != room {
                self.table.set_room(host, &room);
            }
        }
    }
    /// Forgets a rack that has gone.
    pub fn forget(&mut self, id: &str, revision: u64) {
        if self.racks.get(id).is_some_and(|(known, _)| *known < revision) {
            self.remove(id);
        }
    }
    pub(super) fn remove(&mut self, id: &str) {
        if let Some((_, record)) = self.racks.remove(id) {
            self.others -= usize::from(self.whose(&record) == Whose::Others);
            self.stale = true;
        }
    }
}

/// A key of this concern.
pub(super) fn key(kind: &str, name: &str) -> Result<Key> {
    Ok(Key::new(format!("rack_scheduler/{kind}/{name}"))?)
}

/// Reads a record.
pub(super) fn read<T: serde::de::DeserializeOwned>(entry: &Entry) -> Result<T> {
    serde_json::from_slice(&entry.value).map_err(|e| {
        RackError::new(
            Kind::Corrupt,
            format!("record {} can't be read: {e}; nothing was changed", entry.key),
        )
    })
}

/// Reads a rack's record of a version that this windlass knows.
pub(super) fn read_rack(entry: &Entry) -> Result<RackRecord> {
    let record: RackRecord = read(entry)?;
    if record.version > RACK_VERSION {
        return Err(RackError::new(
            Kind::Corrupt,
            format!(
                "record {} has version {}; this windlass knows {RACK_VERSION}; nothing was changed",
                entry.key, record.version
            ),
        )
        .hint("use the newer windlass"));
    }
    Ok(record)
}

/// Every entry below a prefix.
pub(super) async fn all(state: &dyn State, below: &str) -> Result<Vec<Entry>> {
    let prefix = Prefix::below(&Key::new(below)?);
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let page = state
            .list(&prefix, entries.last().map(|e| &e.key), LIST_ENTRIES_MAX)
            .await?;
        let last = page.len() < LIST_ENTRIES_MAX;
        entries.extend(page);
        if last {
            return Ok(entries);
        }
    }
}

pub(super) fn rack_id(key: &Key) -> &str {
    key.as_str().rsplit('/').next().unwrap_or_default()
}

impl Scheduler {
    /// Reads one rack's record and takes it in.
    ///
    /// # Errors
    /// `NotFound` when it has gone; when the state can't be read.
    pub async fn read_rack(&self, id: &str) -> Result<(u64, RackRecord)> {
        let Some(entry) = self.state.get(&key("racks", id)?).await? else {
            self.view().remove(id);
            return Err(RackError::new(
                Kind::NotFound,
                format!("rack {id} is not in the inventory; nothing was changed"),
            )
            .hint("windlass rack inventory"));
        };
        let record = read_rack(&entry)?;
        self.view().apply(id, entry.revision, record.clone());
        Ok((entry.revision, record))
    }
}
