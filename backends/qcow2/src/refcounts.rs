//! Reference counts of host clusters: who is free, and taking and giving back.
//!
//! A block of counts that is not there yet takes the first cluster that it tells of. What is changed here is stored by
//! [`Refcounts::store_blocks`] and then [`Refcounts::store_table`], with a sync between them.

use std::collections::{BTreeSet, HashMap};

use crate::entry::{self, OFFSET};
use crate::header::Header;
use crate::medium::Medium;
use crate::{Error, Kind, Result};

/// Blocks that are kept although they are stored as they are here.
const CLEAN_BLOCKS_MAX: usize = 128;

#[derive(Debug)]
struct Block {
    bytes: Vec<u8>,
    dirty: bool,
}

/// The counts of an image that is written.
#[derive(Debug)]
pub(crate) struct Refcounts {
    table: Vec<u64>,
    table_offset: u64,
    table_clusters: u64,
    cluster_bits: u32,
    order: u32,
    blocks: HashMap<usize, Block>,
    /// Entries of the table that are not stored yet.
    unstored: BTreeSet<usize>,
    /// No cluster before this one is free.
    cursor: u64,
    /// Clusters of tables that became free.
    pub retired: Vec<u64>,
    name: String,
}

impl Refcounts {
    pub(crate) fn load(medium: &dyn Medium, header: &Header, name: &str) -> Result<Self> {
        let mut bytes = vec![0; (u64::from(header.reftable_clusters) << header.cluster_bits) as usize];
        medium
            .read_at(&mut bytes, header.reftable_offset)
            .map_err(|e| Error::io("read the refcount table of qcow2 image", name, &e))?;
        Ok(Self {
            table: entry::table_from(&bytes),
            table_offset: header.reftable_offset,
            table_clusters: u64::from(header.reftable_clusters),
            cluster_bits: header.cluster_bits,
            order: header.refcount_order,
            blocks: HashMap::new(),
            unstored: BTreeSet::new(),
            cursor: 1,
            retired: Vec::new(),
            name: name.to_owned(),
        })
    }

    /// Where the blocks and the table are.
    pub(crate) fn places(&self) -> Vec<(u64, u64)> {
        let blocks = self.table.iter().map(|e| e & OFFSET).filter(|o| *o != 0);
        let mut all: Vec<(u64, u64)> = blocks.map(|o| (o, 1 << self.cluster_bits)).collect();
        all.push((self.table_offset, self.table_clusters << self.cluster_bits));
        all
    }

    /// Clusters that one block tells of.
    fn per_block(&self) -> u64 {
        (8 << self.cluster_bits) >> self.order
    }

    fn block(&mut self, medium: &dyn Medium, index: usize) -> Result<Option<&mut Block>> {
        let offset = self.table.get(index).copied().unwrap_or(0) & OFFSET;
        if offset == 0 {
            return Ok(None);
        }
        if !self.blocks.contains_key(&index) {
            if !offset.is_multiple_of(1 << self.cluster_bits) {
                let why = format!("refcount block {index} is at {offset}, no multiple of the cluster size");
                return Err(Error::corrupt(&self.name, why));
            }
            let mut bytes = vec![0; 1 << self.cluster_bits];
            medium.read_at(&mut bytes, offset).map_err(|e| match e.kind() {
                std::io::ErrorKind::UnexpectedEof => {
                    let why = format!("refcount block {index} at {offset} is beyond the end of the file");
                    Error::corrupt(&self.name, why)
                }
                _ => Error::io("read a refcount block of qcow2 image", &self.name, &e),
            })?;
            if self.blocks.len() > CLEAN_BLOCKS_MAX {
                self.blocks.retain(|_, b| b.dirty);
            }
            self.blocks.insert(index, Block { bytes, dirty: false });
        }
        Ok(self.blocks.get_mut(&index))
    }

    /// How often a cluster is referred to.
    pub(crate) fn get(&mut self, medium: &dyn Medium, cluster: u64) -> Result<u64> {
        let (per_block, order) = (self.per_block(), self.order);
        let block = self.block(medium, index(cluster, per_block))?;
        Ok(block.map_or(0, |b| count(&b.bytes, cluster % per_block, order)))
    }

    fn set(&mut self, medium: &dyn Medium, cluster: u64, value: u64) -> Result<()> {
        let (per_block, order) = (self.per_block(), self.order);
        if let Some(block) = self.block(medium, index(cluster, per_block))? {
            set_count(&mut block.bytes, cluster % per_block, order, value);
            block.dirty = true;
        }
        Ok(())
    }

    /// Takes a free cluster and gives its number.
    ///
    /// # Errors
    /// `Corrupt` when `is_used` knows it to be in use although nothing is counted.
    pub(crate) fn take(&mut self, medium: &dyn Medium, is_used: impl Fn(u64) -> bool) -> Result<u64> {
        loop {
            let cluster = self.cursor;
            let at = index(cluster, self.per_block());
            if cluster >= OFFSET >> self.cluster_bits {
                let why = format!("qcow2 image {} is as large as the format allows", self.name);
                return Err(Error::new(Kind::Io(std::io::ErrorKind::FileTooLarge), why));
            }
            if at >= self.table.len() {
                self.grow(medium)?;
                continue;
            }
            self.cursor += 1;
            let taken = if self.table[at] & OFFSET == 0 {
                // the block takes this very cluster
                self.table[at] = cluster << self.cluster_bits;
                self.unstored.insert(at);
                let bytes = vec![0; 1 << self.cluster_bits];
                self.blocks.insert(at, Block { bytes, dirty: true });
                self.set(medium, cluster, 1)?;
                None
            } else if self.get(medium, cluster)? == 0 {
                self.set(medium, cluster, 1)?;
                Some(cluster)
            } else {
                continue;
            };
            if is_used(cluster) && !self.retired.contains(&cluster) {
                let why = format!("cluster {cluster} holds tables, but its refcount is 0");
                return Err(Error::corrupt(&self.name, why).hint(format!("qemu-img check -r all {}", self.name)));
            }
            if let Some(cluster) = taken {
                return Ok(cluster);
            }
        }
    }

    /// Gives a cluster back once; true when nothing refers to it any more.
    pub(crate) fn give_back(&mut self, medium: &dyn Medium, cluster: u64) -> Result<bool> {
        match self.get(medium, cluster)? {
            // a leak the other way round: nothing was counted, so there is nothing to give back
            0 => Ok(false),
            1 => {
                self.set(medium, cluster, 0)?;
                self.cursor = self.cursor.min(cluster);
                Ok(true)
            }
            n => self.set(medium, cluster, n - 1).map(|()| false),
        }
    }

    /// Makes the table larger: a new one behind everything that the old one can tell of, with blocks of its own, and
    /// one write of the header that makes it the table. A crash before that leaks nothing, for nothing tells of it.
    fn grow(&mut self, medium: &dyn Medium) -> Result<()> {
        let per_block = self.per_block();
        let entries_per_cluster = (1_u64 << self.cluster_bits) / 8;
        let old_len = self.table.len() as u64;
        let first = old_len * per_block;
        let clusters = (old_len + old_len / 2 + 1).div_ceil(entries_per_cluster) + 1;
        let mut blocks = 1;
        while blocks * per_block < blocks + clusters {
            blocks += 1;
        }
        let entries = clusters * entries_per_cluster;
        if clusters << self.cluster_bits > 8 << 20 || entries < old_len + blocks {
            let why = format!("the refcount table of qcow2 image {} can't become larger", self.name);
            return Err(Error::new(Kind::Io(std::io::ErrorKind::FileTooLarge), why));
        }
        self.store(medium)?;
        let io = |e: std::io::Error| Error::io("write the refcount table of qcow2 image", &self.name, &e);
        let mut table = self.table.clone();
        table.resize(entries as usize, 0);
        for block in 0..blocks {
            let mut bytes = vec![0; 1 << self.cluster_bits];
            for at in 0..per_block {
                if block * per_block + at < blocks + clusters {
                    set_count(&mut bytes, at, self.order, 1);
                }
            }
            let offset = (first + block) << self.cluster_bits;
            table[(old_len + block) as usize] = offset;
            medium.write_at(&bytes, offset).map_err(io)?;
        }
        let offset = (first + blocks) << self.cluster_bits;
        medium.write_at(&entry::table_bytes(&table), offset).map_err(io)?;
        medium.sync().map_err(io)?;
        let mut place = [0; 12]; // refcount_table_offset, refcount_table_clusters: one sector, so never torn
        place[..8].copy_from_slice(&offset.to_be_bytes());
        place[8..].copy_from_slice(&(clusters as u32).to_be_bytes());
        medium.write_at(&place, 48).map_err(io)?;
        medium.sync().map_err(io)?;
        let (old_offset, old_clusters) = (self.table_offset, self.table_clusters);
        self.table = table;
        (self.table_offset, self.table_clusters) = (offset, clusters);
        let first = old_offset >> self.cluster_bits;
        for cluster in first..first + old_clusters {
            self.give_back(medium, cluster)?;
            self.retired.push(cluster);
        }
        Ok(())
    }

    /// Writes the blocks that were changed; true when there were any.
    pub(crate) fn store_blocks(&mut self, medium: &dyn Medium) -> Result<bool> {
        let mut any = false;
        for (index, block) in self.blocks.iter_mut().filter(|(_, b)| b.dirty) {
            medium
                .write_at(&block.bytes, self.table[*index] & OFFSET)
                .map_err(|e| Error::io("write a refcount block of qcow2 image", &self.name, &e))?;
            block.dirty = false;
            any = true;
        }
        Ok(any)
    }

    /// Writes the table's new entries, after what they point at is durable; true when there were any.
    pub(crate) fn store_table(&mut self, medium: &dyn Medium) -> Result<bool> {
        for index in &self.unstored {
            medium
                .write_at(&self.table[*index].to_be_bytes(), self.table_offset + *index as u64 * 8)
                .map_err(|e| Error::io("write the refcount table of qcow2 image", &self.name, &e))?;
        }
        let any = !self.unstored.is_empty();
        self.unstored.clear();
        Ok(any)
    }

    /// Makes everything durable.
    pub(crate) fn store(&mut self, medium: &dyn Medium) -> Result<()> {
        let sync = |name: &str| {
            medium
                .sync()
                .map_err(|e| Error::io("make durable qcow2 image", name, &e))
        };
        if self.store_blocks(medium)? {
            sync(&self.name)?;
        }
        if self.store_table(medium)? {
            sync(&self.name)?;
        }
        Ok(())
    }
}

fn index(cluster: u64, per_block: u64) -> usize {
    usize::try_from(cluster / per_block).unwrap_or(usize::MAX)
}

/// A count of `2^order` bits. Below a byte, the lower bits are the earlier clusters.
fn count(block: &[u8], at: u64, order: u32) -> u64 {
    let at = at as usize;
    match order {
        0..=2 => {
            let (bits, per_byte) = (1 << order, 8 >> order);
            let byte = u64::from(block[at / per_byte]);
            byte >> (at % per_byte * bits) & ((1 << bits) - 1)
        }
        _ => {
            let bytes = 1 << (order - 3);
            block[at * bytes..(at + 1) * bytes]
                .iter()
                .fold(0, |value, byte| value << 8 | u64::from(*byte))
        }
    }
}

fn set_count(block: &mut [u8], at: u64, order: u32, value: u64) {
    let at = at as usize;
    match order {
        0..=2 => {
            let (bits, per_byte) = (1 << order, 8 >> order);
            let shift = at % per_byte * bits;
            let byte = &mut block[at / per_byte];
            let mask = (((1_u32 << bits) - 1) << shift) as u8;
            *byte = *byte & !mask | (value as u8) << shift & mask;
        }
        _ => {
            let bytes = 1 << (order - 3);
            block[at * bytes..(at + 1) * bytes].copy_from_slice(&value.to_be_bytes()[8 - bytes..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_every_width_stand_beside_one_another() {
        for order in 0..=6 {
            let mut block = vec![0; 512];
            let most = if order == 6 { u64::MAX } else { (1 << (1 << order)) - 1 };
            for at in 0..40 {
                set_count(&mut block, at, order, if at % 3 == 0 { most } else { at % 2 });
            }
            for at in 0..40 {
                let expected = if at % 3 == 0 { most } else { at % 2 };
                assert_eq!(count(&block, at, order), expected, "order {order}, at {at}");
            }
        }
    }
}
