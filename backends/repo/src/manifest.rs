//! Manifests: which chunk stands where on a disk. A tree of fixed fan-out over offsets; equal subtrees have equal ids,
//! so two manifests are compared by reading only what differs.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{BlobId, RepoError, Result};

mod build;
mod diff;
mod leaves;
mod node;

pub use build::Builder;
pub use diff::{Diff, LeafPair, diff};
pub use leaves::leaves;
pub(crate) use leaves::{children_of, leaf_of};
pub(crate) use node::{Node, decode};

/// Bytes of disk that a leaf spans. Chunks never cross a leaf's boundary.
pub const LEAF_SPAN_BYTES: u64 = 4 << 20;
/// Children of an inner node.
pub const FANOUT: usize = 64;
/// Largest disk, in bytes: 64 to the power of 5 leaves, 4 PiB.
pub const DISK_BYTES_MAX: u64 = LEAF_SPAN_BYTES << 30;

/// A chunk where it stands on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkRef {
    /// Where on the disk, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u32,
    /// Its id.
    pub id: BlobId,
}

/// A disk's content: its size and the root of its tree (`None`: all zeros).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestRef {
    /// Size of the disk in bytes.
    pub size_bytes: u64,
    /// Root node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<BlobId>,
}

impl ManifestRef {
    /// How many leaves the disk has, holes included.
    pub fn leaf_count(&self) -> u64 {
        self.size_bytes.div_ceil(LEAF_SPAN_BYTES)
    }
    /// Level of the root: 0 when it is a leaf.
    pub(crate) fn height(&self) -> u8 {
        let mut height = 0;
        let mut reach = 1u64;
        while reach < self.leaf_count() {
            reach = reach.saturating_mul(FANOUT as u64);
            height += 1;
        }
        height
    }
    pub(crate) fn check(&self) -> Result<()> {
        if self.size_bytes > DISK_BYTES_MAX {
            let size = self.size_bytes;
            return Err(RepoError::invalid(
                "manifest",
                format!("a disk of {size} bytes; at most {DISK_BYTES_MAX}"),
            ));
        }
        Ok(())
    }
}

/// Gives manifest nodes by id, checked.
#[async_trait]
pub trait NodeSource: Send + Sync {
    /// The nodes with these ids, in the same order.
    async fn nodes(&self, ids: &[BlobId]) -> Result<Vec<Bytes>>;
}

/// One leaf of a manifest that is not all holes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Which: it spans `index * LEAF_SPAN_BYTES ..`.
    pub index: u64,
    /// Its chunks, in order of their offset.
    pub chunks: Vec<ChunkRef>,
}

/// Leaves that one node of `level` spans.
pub(crate) fn leaves_below(level: u8) -> u64 {
    1u64 << (6 * u32::from(level))
}

/// The leaves that touch `range` of a disk of `size_bytes`.
pub(crate) fn leaf_range(size_bytes: u64, range: &Range<u64>) -> Range<u64> {
    let end = range.end.min(size_bytes);
    if range.start >= end {
        return 0..0;
    }
    range.start / LEAF_SPAN_BYTES..end.div_ceil(LEAF_SPAN_BYTES)
}

#[cfg(test)]
mod tests;

/// For tests of other modules.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    pub(crate) fn leaf(chunks: &[ChunkRef]) -> Vec<u8> {
        let mut out = Vec::new();
        node::encode_leaf(&mut out, 0, LEAF_SPAN_BYTES, chunks).unwrap();
        out
    }
    pub(crate) fn inner(level: u8, children: &[(usize, BlobId)]) -> Vec<u8> {
        let mut out = Vec::new();
        node::encode_inner(&mut out, level, children);
        out
    }
}
