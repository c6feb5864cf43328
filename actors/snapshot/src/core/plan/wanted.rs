//! What is needed, and where the disk holds it: gathered before a plan is made.

use std::ops::Range;

use super::order::{Finder, Graph, Ordered, Places, order};
use super::{Chunk, Key, NO_SOURCE, PLACES_MAX, Place, Plan, PlanError};

/// Places and holes that differ, in order of offset.
#[derive(Debug, Clone)]
pub struct Needs<K> {
    places: Vec<Place>,
    /// The chunk of each place.
    ids: Vec<K>,
    holes: Vec<Range<u64>>,
}

impl<K: Key> Default for Needs<K> {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            ids: Vec::new(),
            holes: Vec::new(),
        }
    }
}

impl<K: Key> Needs<K> {
    /// Adds a place.
    ///
    /// # Errors
    /// When it begins before the last one ends, or is one too many.
    pub fn place(&mut self, chunk: Chunk<K>) -> Result<(), PlanError> {
        let end = self.places.last().map_or(0, |p| p.range().end);
        if chunk.len == 0 || chunk.offset < end {
            return Err(PlanError::Overlap { offset: chunk.offset });
        }
        if chunk
            .offset
            .checked_add(u64::from(chunk.len))
            .is_none_or(|end| end == NO_SOURCE)
        {
            return Err(PlanError::Outside { offset: chunk.offset });
        }
        if self.places.len() >= PLACES_MAX {
            return Err(PlanError::TooMany);
        }
        self.places.push(Place {
            offset: chunk.offset,
            len: chunk.len,
            id: 0,
        });
        self.ids.push(chunk.id);
        Ok(())
    }

    /// Adds a run that must become a hole; neighbours are joined.
    pub fn hole(&mut self, range: Range<u64>) {
        match self.holes.last_mut() {
            _ if range.is_empty() => {}
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => self.holes.push(range),
        }
    }

    /// True when nothing differs.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty() && self.holes.is_empty()
    }

    /// True when no chunk is needed.
    pub fn has_no_places(&self) -> bool {
        self.places.is_empty()
    }

    /// Runs that differ, joined where they touch, by offset.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut places = self.places.iter().map(Place::range).peekable();
        let mut holes = self.holes.iter().cloned().peekable();
        let mut next = move || match (places.peek(), holes.peek()) {
            (Some(place), Some(hole)) if place.start < hole.start => places.next(),
            (_, Some(_)) => holes.next(),
            (_, None) => places.next(),
        };
        let mut joined = next();
        std::iter::from_fn(move || {
            let mut range = joined.take()?;
            loop {
                match next() {
                    Some(more) if more.start <= range.end => range.end = range.end.max(more.end),
                    more => {
                        joined = more;
                        return Some(range);
                    }
                }
            }
        })
    }

    /// Sorts the ids, so that sources can be offered.
    pub fn seal(self) -> Wanted<K> {
        let Self {
            mut places,
            ids: of_place,
            holes,
        } = self;
        let mut by_id: Vec<(u64, u32)> = (0u32..)
            .zip(&of_place)
            .map(|(place, id)| (id.prefix(), place))
            .collect();
        by_id.sort_unstable_by(|a, b| {
            a.0.cmp(&b.0)
                .then_with(|| of_place[a.1 as usize].cmp(&of_place[b.1 as usize]))
                .then(a.1.cmp(&b.1))
        });
        let mut ids: Vec<K> = Vec::new();
        let mut starts = Vec::new();
        for (at, (_, place)) in (0u32..).zip(&by_id) {
            let id = of_place[*place as usize];
            if ids.last() != Some(&id) {
                ids.push(id);
                starts.push(at);
            }
            places[*place as usize].id = ids.len() as u32 - 1;
        }
        starts.push(by_id.len() as u32);
        drop(of_place);
        let of_id = by_id.into_iter().map(|(_, place)| place).collect();
        let buckets = Buckets::new(&ids);
        let finder = Finder::new(places.iter().map(|p| p.offset));
        let candidates = vec![Candidate::default(); ids.len()];
        Wanted {
            places,
            ids,
            starts,
            of_id,
            holes,
            finder,
            buckets,
            candidates,
            others: Vec::new(),
            offered_end: 0,
        }
    }
}

/// The best source seen so far of one chunk.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    from: u64,
    /// How many that will be overwritten were kept; [`KEPT`] once one that won't be was found.
    seen: u8,
}

impl Default for Candidate {
    fn default() -> Self {
        Self {
            from: NO_SOURCE,
            seen: 0,
        }
    }
}

/// Marks a candidate that no place and no hole overwrites.
const KEPT: u8 = u8::MAX;
/// Sources of one chunk that are considered when all of them will be overwritten.
const CANDIDATES_MAX: u8 = 4;

/// What is needed, ready to be told where the disk holds it.
#[derive(Debug, Clone)]
pub struct Wanted<K> {
    places: Vec<Place>,
    ids: Vec<K>,
    /// Places of chunk `i`: `of_id[starts[i]..starts[i + 1]]`.
    starts: Vec<u32>,
    of_id: Vec<u32>,
    holes: Vec<Range<u64>>,
    finder: Finder,
    buckets: Buckets,
    candidates: Vec<Candidate>,
    /// Further candidates, which will all be overwritten.
    others: Vec<(u32, u64)>,
    offered_end: u64,
}

impl<K: Key> Wanted<K> {
    /// Tells where the disk holds a chunk now. Called for every chunk of the present state, in order of offset; those
    /// that aren't needed cost a look-up.
    ///
    /// # Errors
    /// When it begins before the last one offered ends.
    pub fn offer(&mut self, chunk: Chunk<K>) -> Result<(), PlanError> {
        if chunk.len == 0 || chunk.offset < self.offered_end {
            return Err(PlanError::Overlap { offset: chunk.offset });
        }
        self.offered_end = chunk.end();
        let Some(id) = self.buckets.find(&self.ids, &chunk.id) else {
            return Ok(());
        };
        let candidate = self.candidates[id];
        let len = self.places[self.of_id[self.starts[id] as usize] as usize].len;
        if candidate.seen == KEPT || len != chunk.len {
            return Ok(());
        }
        let range = chunk.offset..chunk.end();
        if !self.is_overwritten(&range) {
            self.candidates[id] = Candidate {
                from: chunk.offset,
                seen: KEPT,
            };
        } else if candidate.seen == 0 {
            self.candidates[id] = Candidate {
                from: chunk.offset,
                seen: 1,
            };
        } else if candidate.seen < CANDIDATES_MAX {
            self.candidates[id].seen += 1;
            self.others.push((id as u32, chunk.offset));
        }
        Ok(())
    }

    fn by_offset(&self) -> Places<'_> {
        Places {
            all: &self.places,
            finder: &self.finder,
        }
    }

    fn is_overwritten(&self, range: &Range<u64>) -> bool {
        let hole = self.holes.partition_point(|h| h.end <= range.start);
        !self.by_offset().overlapping(range).is_empty() || self.holes.get(hole).is_some_and(|h| h.start < range.end)
    }

    /// Makes the plan; at most `staging_bytes_max` bytes are staged at a time.
    pub fn plan(mut self, staging_bytes_max: u64) -> Plan<K> {
        let sources = self.choose_sources();
        let graph = Graph {
            places: self.by_offset(),
            sources: &sources,
            starts: &self.starts,
            of_id: &self.of_id,
        };
        let Ordered {
            steps,
            fetches,
            fetch_places,
        } = order(&graph, staging_bytes_max);
        let first_place = |at: &u32| self.places[self.of_id[*at as usize] as usize].len;
        let lens = self.starts[..self.ids.len()].iter().map(first_place).collect();
        let Self { places, ids, holes, .. } = self;
        let plan = Plan {
            places,
            ids,
            lens,
            sources,
            steps,
            fetches,
            fetch_places,
            punches: holes,
        };
        debug_assert_eq!(super::check(&plan), Ok(()));
        plan
    }

    /// Of each chunk's candidates the best: not overwritten at all, not by a copy, the first.
    fn choose_sources(&mut self) -> Vec<u64> {
        let mut sources: Vec<u64> = self.candidates.iter().map(|c| c.from).collect();
        self.candidates = Vec::new();
        let mut others = std::mem::take(&mut self.others);
        others.sort_unstable();
        let is_free = |id: u32, from: u64| {
            let len = u64::from(self.places[self.of_id[self.starts[id as usize] as usize] as usize].len);
            let range = from..from + len;
            let mut over = self.by_offset().overlapping(&range);
            // Whether a place is copied to was settled by the first candidates; others don't change it.
            over.all(|p| sources_of(&self.places, p, &sources) == NO_SOURCE)
        };
        let mut better: Vec<(u32, u64)> = Vec::new();
        for (id, from) in others {
            let settled = better.last().is_some_and(|(last, _)| *last == id);
            if !settled && !is_free(id, sources[id as usize]) && is_free(id, from) {
                better.push((id, from));
            }
        }
        for (id, from) in better {
            sources[id as usize] = from;
        }
        sources
    }
}

fn sources_of(places: &[Place], place: usize, sources: &[u64]) -> u64 {
    sources[places[place].id as usize]
}

/// Finds an id among sorted ones: a table by the leading bits of the prefix, about one id to an entry.
#[derive(Debug, Clone)]
struct Buckets {
    shift: u32,
    starts: Vec<u32>,
}

impl Buckets {
    fn new<K: Key>(ids: &[K]) -> Self {
        let bits = ids.len().max(2).next_power_of_two().ilog2();
        let shift = u64::BITS - bits;
        let mut starts = vec![0; (1 << bits) + 1];
        for id in ids {
            starts[(id.prefix() >> shift) as usize + 1] += 1;
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        Self { shift, starts }
    }

    fn find<K: Key>(&self, ids: &[K], id: &K) -> Option<usize> {
        let bucket = (id.prefix() >> self.shift) as usize;
        let range = self.starts[bucket] as usize..self.starts[bucket + 1] as usize;
        ids[range.clone()].binary_search(id).ok().map(|at| range.start + at)
    }
}
