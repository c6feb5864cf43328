//! Entries of the L1 and L2 tables.

/// The cluster is referred to from here alone, so it may be overwritten in place.
pub(crate) const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
/// Reads as zeros, whatever the cluster holds (version 3).
pub(crate) const ZERO: u64 = 1;
/// The bits of an entry that are a host offset.
pub(crate) const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// What an L2 entry says of its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The backing image has it, or it reads as zeros.
    Unallocated,
    /// Zeros; `host` is a cluster that is kept for it.
    Zero { host: Option<u64> },
    /// At `host`; `copied`: no one else refers to it.
    Data { host: u64, copied: bool },
    /// At most `len` compressed bytes from `offset`.
    Compressed { offset: u64, len: u64 },
}

impl Entry {
    /// Reads an entry; an error says what is wrong with it.
    pub(crate) fn decode(raw: u64, cluster_bits: u32, version: u32) -> Result<Self, &'static str> {
        if raw & COMPRESSED != 0 {
            // sectors of 512 bytes, counted from the one that `offset` is in
            let bits = 62 - (cluster_bits - 8);
            let offset = raw & ((1 << bits) - 1);
            let sectors = ((raw & !(COPIED | COMPRESSED)) >> bits) + 1;
            if offset > OFFSET {
                return Err("compressed data lies absurdly far off");
            }
            return Ok(Self::Compressed {
                offset,
                len: sectors * 512 - offset % 512,
            });
        }
        let host = raw & OFFSET;
        if host & ((1 << cluster_bits) - 1) != 0 {
            return Err("a cluster begins at no multiple of the cluster size");
        }
        if version >= 3 && raw & ZERO != 0 {
            return Ok(Self::Zero {
                host: (host != 0).then_some(host),
            });
        }
        if host == 0 {
            // (only an external data file may have its first cluster at 0)
            return Ok(Self::Unallocated);
        }
        Ok(Self::Data {
            host,
            copied: raw & COPIED != 0,
        })
    }
}

/// The entry of a cluster at `host` that is referred to from here alone.
pub(crate) fn data(host: u64) -> u64 {
    host | COPIED
}

/// Reads a table of entries.
pub(crate) fn table_from(bytes: &[u8]) -> Vec<u64> {
    bytes
        .chunks_exact(8)
        .map(|b| u64::from_be_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
        .collect()
}

/// Writes a table of entries.
pub(crate) fn table_bytes(entries: &[u64]) -> Vec<u8> {
    entries.iter().flat_map(|e| e.to_be_bytes()).collect()
}
