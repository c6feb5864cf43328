//! Writing: in place where a cluster is ours alone, else into a new one; and making it durable in the order that the head
//! of the crate tells.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::PoisonError;

use crate::bitmaps;
use crate::entry::{self, Entry, ZERO};
use crate::header::Header;
use crate::image::{Image, State};
use crate::medium::Medium;
use crate::refcounts::Refcounts;
use crate::tables::Tables;
use crate::{Error, Kind, Result};

/// Bytes of changed tables at which they are made durable.
const DIRTY_BYTES_MAX: u64 = 16 << 20;
/// Clusters that wait for being given back at which the tables are made durable.
const GIVEN_UP_MAX: usize = 1 << 18;

/// What writing needs beside the tables.
#[derive(Debug)]
pub(crate) struct Writer {
    refcounts: Refcounts,
    /// Clusters of tables and the header: data that claims to be there is a lie.
    tables: HashSet<u64>,
    /// Clusters that no table in memory refers to any more, once for each reference; those stored still do.
    given_up: Vec<u64>,
    /// L1 entries that are not stored yet.
    unstored_l1: Vec<usize>,
    /// L2 tables that were changed.
    dirty_tables: u64,
    /// From here on, the medium was never written: it reads as zeros.
    fresh_from: u64,
    /// The bitmaps are marked.
    began: bool,
}

impl Writer {
    pub(crate) fn new(medium: &dyn Medium, header: &Header, tables: &Tables, name: &str) -> Result<Self> {
        let refcounts = Refcounts::load(medium, header, name)?;
        let mut places = refcounts.places();
        places.push((0, header.cluster_bytes()));
        places.push((header.l1_offset, u64::from(header.l1_entries) * 8));
        if let Some(bitmaps) = header.bitmaps {
            places.push((bitmaps.directory_offset, bitmaps.directory_bytes.min(64 << 20)));
        }
        for index in 0..tables.l1.len() {
            if let Some(offset) = tables.l2_offset(index, header, name)? {
                if tables.l1[index] & entry::COPIED == 0 {
                    let why = format!("L2 table {index} is shared, but there are no internal snapshots");
                    return Err(Error::corrupt(name, why).hint(format!("qemu-img check -r all {name}")));
                }
                places.push((offset, header.cluster_bytes()));
            }
        }
        let bits = header.cluster_bits;
        let clusters = places
            .into_iter()
            .flat_map(|(at, len)| at >> bits..at.saturating_add(len).div_ceil(1 << bits));
        let len_bytes = medium
            .len_bytes()
            .map_err(|e| Error::io("read the size of qcow2 image", name, &e))?;
        Ok(Self {
            refcounts,
            tables: clusters.collect(),
            given_up: Vec::new(),
            unstored_l1: Vec::new(),
            dirty_tables: 0,
            fresh_from: len_bytes.next_multiple_of(header.cluster_bytes()),
            began: false,
        })
    }

    fn take(&mut self, medium: &dyn Medium) -> Result<u64> {
        let tables = &self.tables;
        let taken = self.refcounts.take(medium, |cluster| tables.contains(&cluster));
        for cluster in self.refcounts.retired.drain(..) {
            self.tables.remove(&cluster);
        }
        taken
    }

    fn is_over(&self, header: &Header) -> bool {
        self.dirty_tables * header.cluster_bytes() > DIRTY_BYTES_MAX || self.given_up.len() > GIVEN_UP_MAX
    }
}

fn writer(state: &mut State) -> Result<&mut Writer> {
    let why = "a qcow2 image that was opened for reading can't be written";
    state.writer.as_mut().ok_or_else(|| Error::new(Kind::Internal, why))
}

impl Image {
    fn check_range(&self, range: &Range<u64>) -> Result<()> {
        if range.start <= range.end && range.end <= self.header.size_bytes {
            return Ok(());
        }
        Err(Error::new(
            Kind::Internal,
            format!(
                "a write to bytes {}..{} is outside of {} of {} bytes; it was not done",
                range.start, range.end, self.name, self.header.size_bytes
            ),
        ))
    }

    /// What must be durable before the first change, and what must be when too much is not.
    fn before_change(&self) -> Result<()> {
        let over = {
            let mut state = self.lock();
            let writer = writer(&mut state)?;
            if !writer.began {
                bitmaps::mark_inconsistent(&*self.medium, &self.header, &self.name)?;
                writer.began = true;
            }
            writer.is_over(&self.header)
        };
        if over { self.commit() } else { Ok(()) }
    }

    /// Writes all of `data` at `offset`.
    ///
    /// # Errors
    /// `Corrupt` when the tables send it where it can't be; `Io`; `Internal` past the end or when opened for reading.
    pub fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        let range = offset..offset.saturating_add(data.len() as u64);
        self.check_range(&range)?;
        self.before_change()?;
        let _writing = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let cluster_bytes = self.header.cluster_bytes();
        let mut at = range.start;
        while at < range.end {
            // what goes to clusters that lie side by side is one write
            let (mut run, mut host_start) = (at..at, 0);
            {
                let mut state = self.lock();
                while run.end < range.end {
                    let cluster = run.end / cluster_bytes;
                    let to = ((cluster + 1) * cluster_bytes).min(range.end);
                    let part = run.end % cluster_bytes..to - cluster * cluster_bytes;
                    let host = self.place(&mut state, cluster, &part)? + part.start;
                    if run.is_empty() {
                        host_start = host;
                    } else if host_start + (run.end - run.start) != host {
                        break; // it has its place now; the next round finds it
                    }
                    run.end = to;
                }
            }
            let bytes = &data[(run.start - offset) as usize..(run.end - offset) as usize];
            self.medium.write_at(bytes, host_start).map_err(self.io("write"))?;
            at = run.end;
        }
        Ok(())
    }

    /// The host cluster that `part` of a cluster may be written to; the rest of it holds what it held.
    fn place(&self, state: &mut State, cluster: u64, part: &Range<u64>) -> Result<u64> {
        let old = self.entry(state, cluster)?;
        let writer = writer(state)?;
        if let Entry::Data { host, .. } | Entry::Zero { host: Some(host) } = old
            && writer.tables.contains(&(host >> self.header.cluster_bits))
        {
            let why = format!("data of guest cluster {cluster} claims to be at {host}, where its tables are");
            return Err(self.corrupt(why));
        }
        let host = match old {
            Entry::Data { host, copied: true } => return Ok(host),
            _ => writer.take(&*self.medium)? << self.header.cluster_bits,
        };
        let is_fresh = host >= writer.fresh_from;
        writer.fresh_from = writer.fresh_from.max(host + self.header.cluster_bytes());
        for rest in [0..part.start, part.end..self.header.cluster_bytes()] {
            if rest.is_empty() {
                continue;
            }
            let mut bytes = vec![0; (rest.end - rest.start) as usize];
            self.read_old(&mut bytes, cluster, rest.start, old)?;
            if !is_fresh || bytes.iter().any(|b| *b != 0) {
                self.medium
                    .write_at(&bytes, host + rest.start)
                    .map_err(self.io("write"))?;
            }
        }
        self.set_entry(state, cluster, old, entry::data(host))?;
        Ok(host)
    }

    /// Changes the map, and gives up what the old entry referred to.
    fn set_entry(&self, state: &mut State, cluster: u64, old: Entry, raw: u64) -> Result<()> {
        let per_table = self.header.l2_entries();
        let (l1, l2) = ((cluster / per_table) as usize, (cluster % per_table) as usize);
        if state.tables.l2_offset(l1, &self.header, &self.name)?.is_none() {
            let writer = writer(state)?;
            let taken = writer.take(&*self.medium)?;
            writer.tables.insert(taken);
            writer.unstored_l1.push(l1);
            writer.dirty_tables += 1;
            let end = (taken + 1) << self.header.cluster_bits;
            writer.fresh_from = writer.fresh_from.max(end);
            let offset = taken << self.header.cluster_bits;
            state.tables.insert_new(l1, offset, &self.header);
        }
        let table = state.tables.l2(l1, &*self.medium, &self.header, &self.name, true)?;
        let table = table.ok_or_else(|| self.corrupt(format!("L2 table {l1} is gone")))?;
        let was_clean = table.dirty.is_none();
        table.set(l2, raw);
        let bits = self.header.cluster_bits;
        let writer = writer(state)?;
        writer.dirty_tables += u64::from(was_clean);
        match old {
            Entry::Data { host, .. } | Entry::Zero { host: Some(host) } => writer.given_up.push(host >> bits),
            Entry::Compressed { offset, len } => writer.given_up.extend(offset >> bits..=(offset + len - 1) >> bits),
            Entry::Unallocated | Entry::Zero { host: None } => {}
        }
        Ok(())
    }

    /// Makes a run read as zeros, and gives up its clusters.
    ///
    /// # Errors
    /// As [`Image::write_at`].
    pub fn punch(&self, range: Range<u64>) -> Result<()> {
        self.check_range(&range)?;
        self.before_change()?;
        let cluster_bytes = self.header.cluster_bytes();
        let mut at = range.start;
        while at < range.end {
            let cluster_end = (at / cluster_bytes + 1) * cluster_bytes;
            let is_whole = at.is_multiple_of(cluster_bytes) && cluster_end.min(self.header.size_bytes) <= range.end;
            let to = cluster_end.min(range.end);
            at = if is_whole {
                self.punch_whole(at..range.end)?
            } else {
                if self.next_data(at)?.is_some_and(|data| data.start < to) {
                    self.write_at(&vec![0; (to - at) as usize], at)?;
                }
                to
            };
        }
        Ok(())
    }

    /// Punches the whole clusters at the beginning of `range`, at most to the end of an L2 table; gives where it stopped.
    fn punch_whole(&self, range: Range<u64>) -> Result<u64> {
        let (cluster_bytes, size) = (self.header.cluster_bytes(), self.header.size_bytes);
        let span = self.header.l2_span_bytes();
        let end = range.end.min((range.start / span + 1) * span);
        // Only version 3 can say that something reads as zeros although the layer below has data.
        let below = self.below_next_data(range.start..end)?.is_some();
        if below && self.header.version < 3 {
            self.write_zeros(range.start..end)?;
            return Ok(end);
        }
        self.before_change()?;
        let raw = if below { ZERO } else { 0 };
        let mut state = self.lock();
        let mut at = range.start;
        while at < end && (at + cluster_bytes).min(size) <= end {
            let cluster = at / cluster_bytes;
            let old = self.entry(&mut state, cluster)?;
            let is_right = match old {
                Entry::Unallocated => !below,
                Entry::Zero { host: None } => true,
                _ => false,
            };
            if let Entry::Data { host, .. } = old
                && writer(&mut state)?.tables.contains(&(host >> self.header.cluster_bits))
            {
                return Err(self.corrupt(format!(
                    "guest cluster {cluster} claims to be at {host}, where its tables are"
                )));
            }
            if !is_right {
                self.set_entry(&mut state, cluster, old, raw)?;
            }
            at = (at + cluster_bytes).min(size);
        }
        Ok(at)
    }

    fn write_zeros(&self, range: Range<u64>) -> Result<()> {
        let zeros = vec![0; (1 << 20).min(range.end - range.start) as usize];
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(zeros.len() as u64);
            self.write_at(&zeros[..len as usize], at)?;
            at += len;
        }
        Ok(())
    }

    /// Everything written so far survives power loss when this returns. Tables are read anew from the medium afterwards.
    ///
    /// # Errors
    /// `Io`. A failure must not be tried again: see the medium's sync.
    pub fn sync(&self) -> Result<()> {
        self.commit()
    }

    fn commit(&self) -> Result<()> {
        let _alone = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.lock();
        let State { tables, writer } = &mut *state;
        let Some(writer) = writer else { return Ok(()) };
        let medium = &*self.medium;
        let sync = || medium.sync().map_err(self.io("make durable"));
        let write = |entries: &[u64], at: u64| {
            medium
                .write_at(&entry::table_bytes(entries), at)
                .map_err(self.io("write a table of"))
        };
        // data, refcounts, new tables
        writer.refcounts.store_blocks(medium)?;
        let offsets = tables.l1.clone();
        let place = |index: usize| offsets[index] & entry::OFFSET;
        let mut dirty = tables.dirty();
        for (index, table) in dirty.iter().filter(|(_, t)| t.is_new) {
            write(&table.entries, place(*index))?;
        }
        sync()?;
        if writer.refcounts.store_table(medium)? {
            sync()?;
        }
        // who refers to them
        let refers = !dirty.is_empty() || !writer.unstored_l1.is_empty();
        for (index, table) in &mut dirty {
            if let (false, Some(changed)) = (table.is_new, table.dirty.clone()) {
                write(
                    &table.entries[changed.clone()],
                    place(*index) + changed.start as u64 * 8,
                )?;
            }
            (table.dirty, table.is_new) = (None, false);
        }
        for index in writer.unstored_l1.drain(..) {
            write(&offsets[index..=index], self.header.l1_offset + index as u64 * 8)?;
        }
        if refers {
            sync()?;
        }
        // what nothing refers to
        for cluster in std::mem::take(&mut writer.given_up) {
            if writer.refcounts.give_back(medium, cluster)? {
                let at = cluster << self.header.cluster_bits;
                medium
                    .discard(at..at + self.header.cluster_bytes())
                    .map_err(self.io("give back blocks of"))?;
            }
        }
        if writer.refcounts.store_blocks(medium)? {
            sync()?;
        }
        writer.dirty_tables = 0;
        tables.drop_clean();
        Ok(())
    }
}
