//! What a restore does, in which order: pure.
//!
//! ```text
//! leaf pairs that differ -> differences() -> Needs (places, holes) -> seal() -> Wanted
//! chunks of the present state, in order --------------------------> offer() -> Wanted
//!                                                                              plan() -> Plan
//! ```
//!
//! A *place* is a run of the disk that must come to hold a chunk of the target and doesn't yet. A chunk that the disk
//! holds anywhere is copied; the others are fetched. The order rests on two facts: places are disjoint, and the chunks
//! of the present state are disjoint. Copies run first, so that nothing that is fetched or punched can destroy a source;
//! among copies, whoever reads a run goes before whoever overwrites it. That is a graph between sources and places, and
//! it is walked without being stored: what a source is overwritten by, and what overwrites a place's sources, are
//! neighbours in sorted arrays. Circles are broken by holding their smallest chunk in memory (*staging*), within a
//! budget; beyond it that chunk is fetched.
//!
//! A plan is a function of its input alone, so a resumed restore computes the same one again.
//!
//! Limits: [`PLACES_MAX`] places; about 100 bytes of memory for each while planning, 70 afterwards; time grows with
//! `places * log(places)`, and with the number of chunks offered.

use std::fmt;
use std::ops::Range;

mod check;
mod differences;
mod order;
mod wanted;

pub use check::{Broken, check};
pub use differences::differences;
pub use wanted::{Needs, Wanted};

#[cfg(test)]
mod tests;

/// Most places of one plan: at the default chunk size 4 TiB of difference, and about 6 GiB of memory.
pub const PLACES_MAX: usize = 1 << 26;

/// A chunk's id, as far as planning needs it.
pub trait Key: Copy + Ord + fmt::Debug {
    /// Its first eight bytes as a big-endian number: ordered as the ids are.
    fn prefix(&self) -> u64;
}

/// A chunk at its offset on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk<K> {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub len: u32,
    /// Its id.
    pub id: K,
}

impl<K> Chunk<K> {
    /// The byte after its last.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.len))
    }
}

/// Why no plan could be made. The first two mean that a manifest is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanError {
    /// A chunk begins before its predecessor ends, or is empty.
    Overlap {
        /// Where it begins.
        offset: u64,
    },
    /// A chunk ends past the disk or its leaf.
    Outside {
        /// Where it begins.
        offset: u64,
    },
    /// More than [`PLACES_MAX`] places differ.
    TooMany,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overlap { offset } => write!(f, "the chunk at offset {offset} is empty or overlaps another"),
            Self::Outside { offset } => write!(f, "the chunk at offset {offset} ends past its leaf or disk"),
            Self::TooMany => write!(f, "more than {PLACES_MAX} places differ"),
        }
    }
}

impl std::error::Error for PlanError {}

/// A run of the disk that must come to hold a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub len: u32,
    /// Its chunk: index into [`Plan::ids`].
    pub id: u32,
}

impl Place {
    /// The bytes that it covers.
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset + u64::from(self.len)
    }
}

/// One step of the copying part, in compact form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Read the source of the place's chunk, write the place.
    Copy {
        /// Index into [`Plan::places`].
        place: u32,
    },
    /// Read the chunk's source into memory.
    Stage {
        /// Index into [`Plan::ids`].
        id: u32,
    },
    /// Write the place from memory.
    WriteStaged {
        /// Index into [`Plan::places`].
        place: u32,
        /// No later step needs the staged chunk.
        last: bool,
    },
}

/// One chunk to fetch, and all places that it goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetch {
    /// Index into [`Plan::ids`].
    pub id: u32,
    first: u32,
    count: u32,
}

/// What to do, in order: `steps`, then `fetches` (in any order among themselves), then `punches`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan<K> {
    /// Every place, by offset.
    pub places: Vec<Place>,
    /// Every chunk that is needed, once, by id.
    pub ids: Vec<K>,
    /// For each of `ids`, its length in bytes.
    pub lens: Vec<u32>,
    /// For each of `ids`, where its source is ([`NO_SOURCE`]: nowhere on the disk).
    pub sources: Vec<u64>,
    /// The copying part.
    pub steps: Vec<Step>,
    /// The fetching part, by the first place.
    pub fetches: Vec<Fetch>,
    fetch_places: Vec<u32>,
    /// Runs that become holes, by offset.
    pub punches: Vec<Range<u64>>,
}

/// Stands in [`Plan::sources`] for a chunk that is nowhere on the disk.
pub const NO_SOURCE: u64 = u64::MAX;

/// A step with its addresses, for those who read plans: tests, checks, messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op<K> {
    /// Read the whole chunk at `from`, then write it at `to`; the two may overlap.
    Copy {
        /// Source offset.
        from: u64,
        /// Destination offset.
        to: u64,
        /// Length in bytes.
        len: u32,
        /// The chunk.
        id: K,
    },
    /// Read a chunk into memory.
    Stage {
        /// Source offset.
        from: u64,
        /// Length in bytes.
        len: u32,
        /// The chunk.
        id: K,
        /// Name of the memory that holds it.
        slot: u32,
    },
    /// Write a staged chunk.
    WriteStaged {
        /// Name of the memory that holds it.
        slot: u32,
        /// Destination offset.
        to: u64,
        /// Length in bytes.
        len: u32,
        /// The chunk.
        id: K,
    },
    /// Fetch a chunk and write it to all its places.
    Fetch {
        /// The chunk.
        id: K,
        /// Length in bytes.
        len: u32,
        /// Destination offsets.
        to: Vec<u64>,
    },
    /// Make a run a hole.
    Punch {
        /// The run.
        range: Range<u64>,
    },
}

/// Sums of a plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes of places that are copied, staged ones included.
    pub copied_bytes: u64,
    /// Bytes of chunks that are staged, each counted once.
    pub staged_bytes: u64,
    /// Bytes of chunks to fetch before compression, each counted once.
    pub fetched_raw_bytes: u64,
    /// Bytes of places that fetched chunks go to.
    pub fetched_places_bytes: u64,
    /// Bytes that become holes.
    pub hole_bytes: u64,
}

impl<K: Key> Plan<K> {
    /// The place with this index.
    pub fn place(&self, index: u32) -> &Place {
        &self.places[index as usize]
    }

    /// The chunk with this index.
    pub fn id(&self, index: u32) -> K {
        self.ids[index as usize]
    }

    /// Where a fetched chunk goes: indices into `places`.
    pub fn fetch_places(&self, fetch: &Fetch) -> &[u32] {
        &self.fetch_places[fetch.first as usize..(fetch.first + fetch.count) as usize]
    }

    /// True when the disk already is as it should be.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty() && self.punches.is_empty()
    }

    /// How many operations it has.
    pub fn len(&self) -> usize {
        self.steps.len() + self.fetches.len() + self.punches.len()
    }

    /// All operations with their addresses, in order.
    pub fn ops(&self) -> impl Iterator<Item = Op<K>> + '_ {
        let steps = self.steps.iter().map(|step| self.op(*step));
        let fetches = self.fetches.iter().map(|fetch| {
            let places = self.fetch_places(fetch);
            let len = places.first().map_or(0, |p| self.place(*p).len);
            Op::Fetch {
                id: self.id(fetch.id),
                len,
                to: places.iter().map(|p| self.place(*p).offset).collect(),
            }
        });
        steps
            .chain(fetches)
            .chain(self.punches.iter().map(|range| Op::Punch { range: range.clone() }))
    }

    fn op(&self, step: Step) -> Op<K> {
        match step {
            Step::Copy { place } => {
                let place = self.place(place);
                let from = self.sources[place.id as usize];
                Op::Copy {
                    from,
                    to: place.offset,
                    len: place.len,
                    id: self.id(place.id),
                }
            }
            Step::Stage { id } => Op::Stage {
                from: self.sources[id as usize],
                len: self.lens[id as usize],
                id: self.id(id),
                slot: id,
            },
            Step::WriteStaged { place, .. } => {
                let place = self.place(place);
                Op::WriteStaged {
                    slot: place.id,
                    to: place.offset,
                    len: place.len,
                    id: self.id(place.id),
                }
            }
        }
    }

    /// Sums.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for step in &self.steps {
            match step {
                Step::Copy { place } => totals.copied_bytes += u64::from(self.place(*place).len),
                Step::WriteStaged { place, last } => {
                    let len = u64::from(self.place(*place).len);
                    totals.copied_bytes += len;
                    // Every staged chunk has exactly one last write.
                    totals.staged_bytes += if *last { len } else { 0 };
                }
                Step::Stage { .. } => {}
            }
        }
        for fetch in &self.fetches {
            let places = self.fetch_places(fetch);
            let len = places.first().map_or(0, |p| u64::from(self.place(*p).len));
            totals.fetched_raw_bytes += len;
            totals.fetched_places_bytes += len * places.len() as u64;
        }
        totals.hole_bytes = self.punches.iter().map(|r| r.end - r.start).sum();
        totals
    }
}
