//! Bytes of a manifest node (docs/FORMAT.md, "Manifest nodes"). Decoding copies nothing.

use crate::manifest::{ChunkRef, FANOUT, LEAF_SPAN_BYTES};
use crate::pack::{le_u32, le_u64};
use crate::{BlobId, RepoError, Result};

const MAGIC: [u8; 4] = *b"WNOD";
const NODE_VERSION: u8 = 1;
const HEADER_BYTES: usize = 16;
const ID_BYTES: usize = 32;
/// Offset and length of a leaf's entry.
const PLACE_BYTES: usize = 8;
/// Most chunks in a leaf: none is shorter than a byte, but a writer that makes more than this is broken.
const LEAF_CHUNKS_MAX: usize = 1 << 16;

fn header(out: &mut Vec<u8>, level: u8, count: usize) {
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[NODE_VERSION, level, 0, 0]);
    out.extend_from_slice(&(count as u64).to_le_bytes());
}

/// Writes a leaf: `index` is its place on the disk, `size_bytes` the disk's size.
pub(crate) fn encode_leaf(out: &mut Vec<u8>, index: u64, size_bytes: u64, chunks: &[ChunkRef]) -> Result<()> {
    let fault = |why: String| Err(RepoError::invalid(format!("manifest leaf {index}"), why));
    if chunks.len() > LEAF_CHUNKS_MAX {
        return fault(format!("{} chunks; at most {LEAF_CHUNKS_MAX}", chunks.len()));
    }
    let base = index * LEAF_SPAN_BYTES;
    let limit = (base + LEAF_SPAN_BYTES).min(size_bytes);
    out.clear();
    out.reserve(HEADER_BYTES + chunks.len() * (PLACE_BYTES + ID_BYTES));
    header(out, 0, chunks.len());
    let mut free = base;
    for chunk in chunks {
        let end = chunk.offset.checked_add(u64::from(chunk.len));
        if chunk.offset < free || chunk.len == 0 || end.is_none_or(|e| e > limit) || chunk.id.is_zero() {
            return fault(format!(
                "chunk at {} of {} bytes is out of place or order",
                chunk.offset, chunk.len
            ));
        }
        free = chunk.offset + u64::from(chunk.len);
        // below LEAF_SPAN_BYTES, so it fits
        out.extend_from_slice(&((chunk.offset - base) as u32).to_le_bytes());
        out.extend_from_slice(&chunk.len.to_le_bytes());
    }
    for chunk in chunks {
        out.extend_from_slice(chunk.id.as_bytes());
    }
    Ok(())
}

/// Writes an inner node of `level` > 0 with `children`, slot and id, in order of the slot.
pub(crate) fn encode_inner(out: &mut Vec<u8>, level: u8, children: &[(usize, BlobId)]) {
    out.clear();
    header(out, level, children.len());
    let bitmap = children.iter().fold(0u64, |map, (slot, _)| map | 1 << slot);
    out.extend_from_slice(&bitmap.to_le_bytes());
    for (_, id) in children {
        out.extend_from_slice(id.as_bytes());
    }
}

/// A decoded node that borrows its bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Node<'a> {
    Leaf(LeafView<'a>),
    Inner(InnerView<'a>),
}

/// A leaf's entries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeafView<'a> {
    places: &'a [u8],
    ids: &'a [u8],
}

/// An inner node's children.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InnerView<'a> {
    bitmap: u64,
    ids: &'a [u8],
}

fn id_at(ids: &[u8], i: usize) -> BlobId {
    let mut id = [0u8; ID_BYTES];
    id.copy_from_slice(&ids[i * ID_BYTES..][..ID_BYTES]);
    BlobId::from_bytes(id)
}

/// Reads the node `id`, of which `level` is expected. All lengths and orders are checked here, so that what the views
/// give out can be relied upon.
pub(crate) fn decode<'a>(id: &BlobId, bytes: &'a [u8], level: u8) -> Result<Node<'a>> {
    let damaged = |why: &str| RepoError::corrupt(format!("manifest node {id}"), why.to_owned());
    if bytes.len() < HEADER_BYTES || bytes[..4] != MAGIC {
        return Err(damaged("is no manifest node"));
    }
    if bytes[4] > NODE_VERSION {
        return Err(RepoError::too_new(format!("manifest node {id}"), u32::from(bytes[4])));
    }
    if bytes[4] != NODE_VERSION || bytes[5] != level || bytes[6..8] != [0, 0] {
        return Err(damaged("has an impossible header"));
    }
    let count = usize::try_from(le_u64(&bytes[8..])).map_err(|_| damaged("has an impossible count"))?;
    let body = &bytes[HEADER_BYTES..];
    if level == 0 {
        if count == 0 || count > LEAF_CHUNKS_MAX || body.len() != count * (PLACE_BYTES + ID_BYTES) {
            return Err(damaged("has a count that does not fit its length"));
        }
        let (places, ids) = body.split_at(count * PLACE_BYTES);
        let view = LeafView { places, ids };
        let mut free = 0u64;
        for i in 0..count {
            let (offset, len) = view.place(i);
            let end = u64::from(offset) + u64::from(len);
            if u64::from(offset) < free || len == 0 || end > LEAF_SPAN_BYTES {
                return Err(damaged("has chunks out of order"));
            }
            free = end;
        }
        Ok(Node::Leaf(view))
    } else {
        if count == 0 || count > FANOUT || body.len() != 8 + count * ID_BYTES {
            return Err(damaged("has a count that does not fit its length"));
        }
        let bitmap = le_u64(body);
        if bitmap.count_ones() as usize != count {
            return Err(damaged("has a bitmap that does not fit its count"));
        }
        Ok(Node::Inner(InnerView {
            bitmap,
            ids: &body[8..],
        }))
    }
}

impl LeafView<'_> {
    fn place(&self, i: usize) -> (u32, u32) {
        let place = &self.places[i * PLACE_BYTES..];
        (le_u32(place), le_u32(&place[4..]))
    }
    /// The chunks of the leaf at `index`.
    pub(crate) fn chunks(&self, index: u64) -> Vec<ChunkRef> {
        let base = index * LEAF_SPAN_BYTES;
        (0..self.places.len() / PLACE_BYTES)
            .map(|i| {
                let (offset, len) = self.place(i);
                ChunkRef {
                    offset: base + u64::from(offset),
                    len,
                    id: id_at(self.ids, i),
                }
            })
            .collect()
    }
}

impl InnerView<'_> {
    /// The children, slot and id, in order of the slot.
    pub(crate) fn children(&self) -> impl Iterator<Item = (usize, BlobId)> + '_ {
        let mut map = self.bitmap;
        (0..self.ids.len() / ID_BYTES).map(move |i| {
            let slot = map.trailing_zeros() as usize;
            map &= map - 1;
            (slot, id_at(self.ids, i))
        })
    }
}
