//! Where a leaf is cut into chunks.
//!
//! A leaf is a run of disk of at most 4 MiB. Its 4 KiB blocks of zeros, where [`HOLE_BLOCKS`] or more stand in a row, are
//! holes; so is a leaf of nothing but zeros. What lies between holes is a segment, and each is cut by itself: by FastCDC
//! (v2020, normalization level 1; Xia et al., doi 10.1109/TPDS.2020.2984632), or at multiples of one size from the leaf's
//! start. So the chunks of a leaf are a function of its bytes alone: not of where the filesystem has holes, nor of
//! neighbours, nor of what was there before.
//!
//! **Old cut points.** With the leaf's chunks of an earlier snapshot, unchanged data is hashed and not searched for cut
//! points. FastCDC looks at a chunk's bytes and at the one byte after it, and decides each place by the 64 bytes that end
//! there. So when an old chunk starts where a new one must, and its bytes are the same (same id), there is no cut point
//! inside of it; and whether there is one at its end is decided anew from 64 bytes ([`Fastcdc::ends_after`]). If there is,
//! the chunk is what a fresh search would find.

use std::ops::Range;

use fastcdc::v2020::{self, Normalization};
use wire::repo::Chunker;

use crate::{Kind, Result, SnapshotError};

/// Zeros are looked for in aligned blocks of this size, in bytes.
pub const BLOCK_BYTES: usize = 4096;
/// So many blocks of zeros in a row are a hole.
pub const HOLE_BLOCKS: usize = 4;
/// The same in bytes.
pub const HOLE_BYTES: usize = BLOCK_BYTES * HOLE_BLOCKS;
/// Largest chunk that a chunker may make, in bytes: a leaf.
pub const CHUNK_BYTES_MAX: u32 = 4 << 20;

/// A chunk within a leaf. `I` is the id, which this module only compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeafChunk<I> {
    /// Where it begins, in bytes from the leaf's start.
    pub offset: u32,
    /// Its length in bytes.
    pub len: u32,
    /// Its id.
    pub id: I,
}

/// The bytes of a leaf.
#[derive(Debug, Clone, Copy)]
pub struct LeafBytes<'a> {
    /// As long as the leaf.
    pub bytes: &'a [u8],
    /// Parts that may hold other than zeros, in order, at multiples of [`BLOCK_BYTES`] (or the leaf's end) and at least
    /// [`HOLE_BYTES`] from each other and from the leaf's ends unless they touch them. What lies outside counts as zeros
    /// and isn't looked at.
    pub runs: &'a [Range<usize>],
}

/// What cutting cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CutStats {
    /// Bytes hashed; more than the chunks' when an old chunk did not fit.
    pub hashed_bytes: u64,
    /// Bytes searched for cut points.
    pub recut_bytes: u64,
    /// Bytes in chunks.
    pub chunk_bytes: u64,
}

/// Cuts leaves by a repository's rule.
#[derive(Debug, Clone)]
pub struct Cutter {
    rule: Rule,
}

#[derive(Debug, Clone)]
enum Rule {
    Fastcdc(Box<Fastcdc>),
    Fixed { chunk_bytes: usize },
}

impl Cutter {
    /// A cutter by the rule `chunker`.
    ///
    /// # Errors
    /// `Invalid` when the sizes are out of range or order.
    pub fn new(chunker: &Chunker) -> Result<Self> {
        let rule = match *chunker {
            Chunker::Fastcdc {
                min_bytes,
                avg_bytes,
                max_bytes,
            } => {
                check_fastcdc(min_bytes, avg_bytes, max_bytes)?;
                Rule::Fastcdc(Box::new(Fastcdc::new(
                    min_bytes as usize,
                    avg_bytes as usize,
                    max_bytes as usize,
                )))
            }
            Chunker::Fixed { chunk_bytes } => {
                if chunk_bytes == 0 || !chunk_bytes.is_multiple_of(BLOCK_BYTES as u32) || chunk_bytes > CHUNK_BYTES_MAX
                {
                    return Err(invalid(format!(
                        "chunks of {chunk_bytes} bytes: a fixed size must be a multiple of {BLOCK_BYTES} up to \
                         {CHUNK_BYTES_MAX}"
                    )));
                }
                Rule::Fixed {
                    chunk_bytes: chunk_bytes as usize,
                }
            }
        };
        Ok(Self { rule })
    }

    /// Appends the leaf's chunks to `chunks`, in order. `old` are the leaf's chunks of an earlier snapshot by the same
    /// rule, in order, or none; they change the cost and not the outcome.
    pub fn cut<I: Copy + PartialEq>(
        &self,
        leaf: LeafBytes<'_>,
        old: &[LeafChunk<I>],
        mut id_of: impl FnMut(&[u8]) -> I,
        chunks: &mut Vec<LeafChunk<I>>,
    ) -> CutStats {
        let mut stats = CutStats::default();
        let mut old = old;
        for_each_segment(leaf, |segment| {
            stats.chunk_bytes += segment.len() as u64;
            match &self.rule {
                Rule::Fastcdc(rule) => {
                    rule.cut_segment(leaf.bytes, segment, &mut old, &mut id_of, chunks, &mut stats);
                }
                Rule::Fixed { chunk_bytes } => {
                    let mut at = segment.start;
                    while at < segment.end {
                        let end = (at + 1).next_multiple_of(*chunk_bytes).min(segment.end);
                        push(chunks, at, end - at, id_of(&leaf.bytes[at..end]));
                        at = end;
                    }
                    stats.hashed_bytes += segment.len() as u64;
                }
            }
        });
        stats
    }
}

#[derive(Debug, Clone)]
struct Fastcdc {
    min: usize,
    avg: usize,
    max: usize,
    /// For places before and from `avg`.
    mask_s: u64,
    mask_l: u64,
    gear: [u64; 256],
}

impl Fastcdc {
    fn new(min: usize, avg: usize, max: usize) -> Self {
        let (mask_s, mask_l) = v2020::select_masks(avg, Normalization::Level1);
        let (table, _) = v2020::get_gear_with_seed(0);
        let mut gear = [0; 256];
        gear.copy_from_slice(&table);
        Self {
            min,
            avg,
            max,
            mask_s,
            mask_l,
            gear,
        }
    }

    /// Length of the first chunk of `rest`, a segment from a cut point to its end.
    fn search(&self, rest: &[u8]) -> usize {
        let (mask_s, mask_l) = (self.mask_s, self.mask_l);
        v2020::cut(
            rest,
            self.min,
            self.avg,
            self.max,
            mask_s,
            mask_l,
            mask_s << 1,
            mask_l << 1,
        )
        .1
    }

    fn cut_segment<I: Copy + PartialEq>(
        &self,
        bytes: &[u8],
        segment: Range<usize>,
        old: &mut &[LeafChunk<I>],
        id_of: &mut impl FnMut(&[u8]) -> I,
        chunks: &mut Vec<LeafChunk<I>>,
        stats: &mut CutStats,
    ) {
        let mut at = segment.start;
        while at < segment.end {
            let rest = &bytes[at..segment.end];
            while old.first().is_some_and(|o| (o.offset as usize) < at) {
                *old = &old[1..];
            }
            let mut tried = None;
            if let Some(o) = old.first().filter(|o| o.offset as usize == at) {
                let len = o.len as usize;
                // Before the hash, for it costs a thousandth of it.
                if self.ends_after(rest, len) {
                    let id = id_of(&rest[..len]);
                    stats.hashed_bytes += len as u64;
                    if id == o.id {
                        push(chunks, at, len, id);
                        at += len;
                        continue;
                    }
                    tried = Some((len, id));
                }
            }
            let len = self.search(rest);
            stats.recut_bytes += len as u64;
            let id = match tried {
                Some((tried_len, id)) if tried_len == len => id,
                _ => {
                    stats.hashed_bytes += len as u64;
                    id_of(&rest[..len])
                }
            };
            push(chunks, at, len, id);
            at += len;
        }
    }

    /// Whether a search in `rest` ends after `len` bytes, given that `rest[..len]` was a chunk once (so that no place
    /// within it is a cut point). Mirrors the bounds of `v2020::cut`, which decides two places at a time.
    fn ends_after(&self, rest: &[u8], len: usize) -> bool {
        if len == 0 || len > rest.len() || len > self.max {
            return false;
        }
        if len == rest.len() || len == self.max {
            return true;
        }
        // An odd byte at the end is not looked at.
        if len < self.min || len / 2 >= rest.len().min(self.max) / 2 {
            return false;
        }
        // If the chunk was once the end of a segment and odd, its last place was such an odd byte.
        self.is_cut_point(rest, len) && (len.is_multiple_of(2) || !self.is_cut_point(rest, len - 1))
    }

    /// Whether the rolling hash asks for a cut before `rest[place]`, `min <= place`. The hash shifts by a bit a byte, so
    /// that 64 bytes make it; a chunk's first `min` bytes don't count.
    fn is_cut_point(&self, rest: &[u8], place: usize) -> bool {
        let from = self.min.max((place + 1).saturating_sub(64));
        let hash = rest[from..=place]
            .iter()
            .fold(0_u64, |hash, b| (hash << 1).wrapping_add(self.gear[usize::from(*b)]));
        hash & (if place < self.avg { self.mask_s } else { self.mask_l }) == 0
    }
}

fn push<I>(chunks: &mut Vec<LeafChunk<I>>, offset: usize, len: usize, id: I) {
    chunks.push(LeafChunk {
        offset: offset as u32,
        len: len as u32,
        id,
    });
}

/// Calls `segment` for each run between holes, in order.
fn for_each_segment(leaf: LeafBytes<'_>, mut segment: impl FnMut(Range<usize>)) {
    // A leaf so short that its zeros would be no hole.
    if leaf.bytes.len() < HOLE_BYTES && leaf.runs.iter().all(|run| is_zero(&leaf.bytes[run.clone()])) {
        return;
    }
    for run in leaf.runs {
        // Where the segment under way begins, and where the zeros that may end it begin.
        let mut start = if run.start == 0 { Some(0) } else { None };
        let mut zeros: Option<usize> = None;
        let mut at = run.start;
        while at < run.end {
            let end = (at + BLOCK_BYTES).min(run.end);
            if is_zero(&leaf.bytes[at..end]) {
                zeros.get_or_insert(at);
            } else {
                if let Some(zeros) = zeros.take().filter(|zeros| (at - zeros) / BLOCK_BYTES >= HOLE_BLOCKS)
                    && let Some(start) = start.take().filter(|start| *start < zeros)
                {
                    segment(start..zeros);
                }
                start.get_or_insert(at);
            }
            at = end;
        }
        let Some(start) = start else { continue };
        // Zeros before a gap belong to the hole; zeros before the leaf's end must be as many as anywhere.
        let end = match zeros {
            Some(zeros) if run.end < leaf.bytes.len() || (run.end - zeros).div_ceil(BLOCK_BYTES) >= HOLE_BLOCKS => {
                zeros
            }
            _ => run.end,
        };
        if start < end {
            segment(start..end);
        }
    }
}

/// Whether all bytes are zero; gives up at the first 256 that aren't.
fn is_zero(bytes: &[u8]) -> bool {
    let mut parts = bytes.chunks_exact(256);
    // Folded without a branch, which the compiler turns into vector instructions.
    parts.by_ref().all(|part| part.iter().fold(0, |all, b| all | b) == 0) && parts.remainder().iter().all(|b| *b == 0)
}

fn check_fastcdc(min: u32, avg: u32, max: u32) -> Result<()> {
    let in_range = |value: u32, low: usize, high: usize| (low..=high).contains(&(value as usize));
    let wrong = if !in_range(min, v2020::MINIMUM_MIN, v2020::MINIMUM_MAX) {
        format!(
            "min_bytes = {min} must be {} to {}",
            v2020::MINIMUM_MIN,
            v2020::MINIMUM_MAX
        )
    } else if !in_range(avg, v2020::AVERAGE_MIN, v2020::AVERAGE_MAX) {
        format!(
            "avg_bytes = {avg} must be {} to {}",
            v2020::AVERAGE_MIN,
            v2020::AVERAGE_MAX
        )
    } else if !in_range(max, v2020::MAXIMUM_MIN, CHUNK_BYTES_MAX as usize) {
        format!("max_bytes = {max} must be {} to {CHUNK_BYTES_MAX}", v2020::MAXIMUM_MIN)
    } else if !(min <= avg && avg <= max) {
        format!("min_bytes = {min}, avg_bytes = {avg}, max_bytes = {max} must not fall")
    } else if [min, avg, max].iter().any(|size| size % 2 == 1) {
        format!("min_bytes = {min}, avg_bytes = {avg}, max_bytes = {max} must be even")
    } else {
        return Ok(());
    };
    Err(invalid(format!("chunker: {wrong}")))
}

fn invalid(message: String) -> SnapshotError {
    SnapshotError::new(Kind::Invalid, message)
}

#[cfg(test)]
mod tests;
