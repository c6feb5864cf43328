//! The map in memory: the L1 table whole, L2 tables in a cache of bounded size. Tables that were changed stay until they
//! are written.

use std::collections::HashMap;
use std::ops::Range;

use crate::entry::{self, OFFSET};
use crate::header::Header;
use crate::medium::Medium;
use crate::{Error, Result};

/// Bytes of L2 tables that are kept; those that are changed come on top.
const CACHE_BYTES_MAX: usize = 32 << 20;

/// An L2 table.
#[derive(Debug)]
pub(crate) struct L2 {
    pub entries: Vec<u64>,
    /// Entries that differ from what is stored.
    pub dirty: Option<Range<usize>>,
    /// Nothing of it is stored yet, and the L1 table that is stored doesn't know it.
    pub is_new: bool,
    used: u64,
}

/// The two levels.
#[derive(Debug)]
pub(crate) struct Tables {
    /// Entries as stored, or as they will be.
    pub l1: Vec<u64>,
    cached: HashMap<usize, L2>,
    clock: u64,
}

impl Tables {
    /// Reads the L1 table.
    pub(crate) fn load(medium: &dyn Medium, header: &Header, name: &str) -> Result<Self> {
        let mut bytes = vec![0; header.l1_entries as usize * 8];
        medium
            .read_at(&mut bytes, header.l1_offset)
            .map_err(|e| Error::io("read the L1 table of qcow2 image", name, &e))?;
        Ok(Self {
            l1: entry::table_from(&bytes),
            cached: HashMap::new(),
            clock: 0,
        })
    }

    /// Where the L2 table is, if there is one.
    pub(crate) fn l2_offset(&self, index: usize, header: &Header, name: &str) -> Result<Option<u64>> {
        let offset = self.l1.get(index).copied().unwrap_or(0) & OFFSET;
        if !offset.is_multiple_of(header.cluster_bytes()) {
            return Err(Error::corrupt(
                name,
                format!("L1 entry {index} says {offset:#x}, no multiple of the cluster size"),
            ));
        }
        Ok((offset != 0).then_some(offset))
    }

    /// The L2 table; `None` where there is none. `past_cache`: read from the medium itself.
    pub(crate) fn l2(
        &mut self,
        index: usize,
        medium: &dyn Medium,
        header: &Header,
        name: &str,
        past_cache: bool,
    ) -> Result<Option<&mut L2>> {
        self.clock += 1;
        let used = self.clock;
        if !self.cached.contains_key(&index) {
            let Some(offset) = self.l2_offset(index, header, name)? else {
                return Ok(None);
            };
            let mut bytes = vec![0; header.cluster_bytes() as usize];
            let read = if past_cache {
                medium.read_back(&mut bytes, offset)
            } else {
                medium.read_at(&mut bytes, offset)
            };
            read.map_err(|e| match e.kind() {
                std::io::ErrorKind::UnexpectedEof => Error::corrupt(
                    name,
                    format!("L2 table {index} at {offset} is beyond the end of the file"),
                ),
                _ => Error::io("read an L2 table of qcow2 image", name, &e),
            })?;
            self.make_room(header);
            self.cached.insert(
                index,
                L2 {
                    entries: entry::table_from(&bytes),
                    dirty: None,
                    is_new: false,
                    used,
                },
            );
        }
        let table = self.cached.get_mut(&index);
        Ok(table.map(|table| table.touched(used)))
    }

    /// Puts in a table without entries, at `offset`.
    pub(crate) fn insert_new(&mut self, index: usize, offset: u64, header: &Header) {
        self.l1[index] = entry::data(offset);
        self.clock += 1;
        self.make_room(header);
        self.cached.insert(
            index,
            L2 {
                entries: vec![0; header.l2_entries() as usize],
                dirty: Some(0..0),
                is_new: true,
                used: self.clock,
            },
        );
    }

    fn make_room(&mut self, header: &Header) {
        let most = (CACHE_BYTES_MAX / header.cluster_bytes() as usize).max(4);
        if self.cached.len() < most {
            return;
        }
        // The older half of what can go, so that this is seldom.
        let mut clean: Vec<(u64, usize)> = self
            .cached
            .iter()
            .filter(|(_, t)| t.dirty.is_none())
            .map(|(index, t)| (t.used, *index))
            .collect();
        clean.sort_unstable();
        for (_, index) in clean.iter().take(clean.len().div_ceil(2)) {
            self.cached.remove(index);
        }
    }

    /// Tables that were changed, in order.
    pub(crate) fn dirty(&mut self) -> Vec<(usize, &mut L2)> {
        let mut dirty: Vec<_> = self
            .cached
            .iter_mut()
            .filter(|(_, t)| t.dirty.is_some())
            .map(|(index, t)| (*index, t))
            .collect();
        dirty.sort_unstable_by_key(|(index, _)| *index);
        dirty
    }

    /// Forgets what is stored as it is here, so that it is read anew.
    pub(crate) fn drop_clean(&mut self) {
        self.cached.retain(|_, t| t.dirty.is_some());
    }
}

impl L2 {
    fn touched(&mut self, used: u64) -> &mut Self {
        self.used = used;
        self
    }

    /// Changes an entry.
    pub(crate) fn set(&mut self, at: usize, entry: u64) {
        self.entries[at] = entry;
        let old = self.dirty.take().filter(|r| !r.is_empty());
        self.dirty = Some(old.map_or(at..at + 1, |r| r.start.min(at)..r.end.max(at + 1)));
    }
}
