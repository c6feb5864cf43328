//! Makes an empty image.

use crate::entry;
use crate::medium::Medium;
use crate::{Error, Kind, Result};

const CLUSTER_BITS: u32 = 16;

/// Writes an image of `size_bytes` that reads as zeros to an empty medium: version 3, clusters of 64 KiB, no backing
/// image. Not durable before the first sync.
///
/// # Errors
/// `Unsupported` for a size that QEMU would not open; `Io`.
pub fn create(medium: &dyn Medium, size_bytes: u64, name: &str) -> Result<()> {
    create_with(medium, size_bytes, name, CLUSTER_BITS)
}

/// As [`create`], with clusters of `2^cluster_bits` bytes; all tables must fit one block of refcounts.
pub(crate) fn create_with(medium: &dyn Medium, size_bytes: u64, name: &str, cluster_bits: u32) -> Result<()> {
    let cluster = 1_u64 << cluster_bits;
    let l1_entries = size_bytes.div_ceil(cluster * cluster / 8);
    let l1_clusters = (l1_entries * 8).div_ceil(cluster).max(1);
    if size_bytes == 0 || l1_entries * 8 > 32 << 20 {
        let why = format!("{name} can't be a qcow2 image of {size_bytes} bytes");
        return Err(Error::new(Kind::Unsupported, why));
    }
    // header, refcount table, refcount block, L1 table; one block of counts tells of `cluster / 2` clusters
    let mut head = vec![0; cluster as usize * 3];
    let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb");
    put(4, &3_u32.to_be_bytes());
    put(20, &cluster_bits.to_be_bytes());
    put(24, &size_bytes.to_be_bytes());
    put(36, &(l1_entries as u32).to_be_bytes());
    put(40, &(cluster * 3).to_be_bytes());
    put(48, &cluster.to_be_bytes());
    put(56, &1_u32.to_be_bytes());
    put(96, &4_u32.to_be_bytes());
    put(100, &104_u32.to_be_bytes());
    put(cluster as usize, &(cluster * 2).to_be_bytes());
    for used in 0..3 + l1_clusters as usize {
        put(cluster as usize * 2 + used * 2, &1_u16.to_be_bytes());
    }
    let io = |e: std::io::Error| Error::io("write qcow2 image", name, &e);
    medium.write_at(&head, 0).map_err(io)?;
    let l1 = vec![0; (l1_clusters * cluster / 8) as usize];
    medium.write_at(&entry::table_bytes(&l1), cluster * 3).map_err(io)
}
