//! The order of copies: readers of a run before whoever overwrites it, circles broken by staging or fetching.
//!
//! The graph is bipartite and never stored. A source (one per chunk) *blocks* every copied place that overlaps it, until
//! all its own places are written or it is staged. A place's blockers and a source's blocked places are runs of sorted
//! arrays. Kahn's algorithm (doi 10.1145/368996.369025) does what has no circle; when it halts, a walk from an unwritten
//! place to one of its blockers, to that one's unwritten place, and so on, must return to itself. The smallest chunk on
//! that circle is staged. The walk keeps its path, so a long chain before a circle is walked once.

use std::collections::VecDeque;
use std::ops::Range;

use super::{Fetch, NO_SOURCE, Place, Step};

/// How much of a circle, in chunks, is looked at for its smallest: bounds what is walked again after each one.
const CIRCLE_CHUNKS_MAX: usize = 16;

/// In `pending`: the place is written.
const WRITTEN: u32 = u32::MAX;
/// In `pending`: the place is fetched, after all copies.
const FETCHED: u32 = u32::MAX - 1;
/// In `on_path`: the source isn't on the path.
const OFF: u32 = u32::MAX;

/// What is to be ordered: see [`super::Wanted`] for the fields.
#[derive(Debug)]
pub(super) struct Graph<'a> {
    pub(super) places: Places<'a>,
    pub(super) sources: &'a [u64],
    pub(super) starts: &'a [u32],
    pub(super) of_id: &'a [u32],
}

/// The order.
#[derive(Debug)]
pub(super) struct Ordered {
    pub(super) steps: Vec<Step>,
    pub(super) fetches: Vec<Fetch>,
    pub(super) fetch_places: Vec<u32>,
}

/// Finds among sorted offsets, in constant time where they are spread evenly: a table by their leading bits, with about
/// one offset to an entry.
#[derive(Debug, Clone)]
pub(super) struct Finder {
    shift: u32,
    /// Entry `i`: how many offsets are below `i << shift`.
    below: Vec<u32>,
}

impl Finder {
    pub(super) fn new(offsets: impl ExactSizeIterator<Item = u64> + Clone) -> Self {
        let bits = offsets.len().max(2).next_power_of_two().ilog2();
        let significant = u64::BITS - offsets.clone().last().unwrap_or(0).leading_zeros();
        let shift = significant.saturating_sub(bits);
        let mut below = Vec::with_capacity((1 << bits) + 1);
        for (at, offset) in (0u32..).zip(offsets.clone()) {
            while below.len() as u64 <= offset >> shift {
                below.push(at);
            }
        }
        below.push(offsets.len() as u32);
        Self { shift, below }
    }

    /// How many offsets are below `limit`; `offset_of` tells one by its index.
    fn below(&self, limit: u64, offset_of: impl Fn(usize) -> u64) -> usize {
        let entry = (limit >> self.shift) as usize;
        let end = self.below[self.below.len() - 1];
        let mut low = self.below.get(entry).copied().unwrap_or(end) as usize;
        let mut high = self.below.get(entry + 1).copied().unwrap_or(end) as usize;
        while low < high {
            let middle = usize::midpoint(low, high);
            if offset_of(middle) < limit {
                low = middle + 1
            } else {
                high = middle
            }
        }
        low
    }
}

/// Places by offset.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places<'a> {
    pub(super) all: &'a [Place],
    pub(super) finder: &'a Finder,
}

impl Places<'_> {
    /// Indices of the places that overlap a range.
    pub(super) fn overlapping(self, range: &Range<u64>) -> Range<usize> {
        if range.is_empty() {
            return 0..0;
        }
        let mut first = self.finder.below(range.start, |at| self.all[at].offset);
        if first > 0 && self.all[first - 1].range().end > range.start {
            first -= 1;
        }
        let count = self.all[first..].iter().take_while(|p| p.offset < range.end).count();
        first..first + count
    }
}

impl Graph<'_> {
    fn places_of(&self, id: u32) -> &[u32] {
        &self.of_id[self.starts[id as usize] as usize..self.starts[id as usize + 1] as usize]
    }

    fn len(&self, id: u32) -> u64 {
        u64::from(self.places.all[self.of_id[self.starts[id as usize] as usize] as usize].len)
    }

    /// The run that a chunk is copied from; empty when it has no source.
    fn source(&self, id: u32) -> Range<u64> {
        let from = self.sources[id as usize];
        if from == NO_SOURCE {
            0..0
        } else {
            from..from + self.len(id)
        }
    }

    fn is_copied(&self, place: usize) -> bool {
        self.sources[self.places.all[place].id as usize] != NO_SOURCE
    }

    fn overlaps_own_source(&self, place: u32) -> bool {
        let place = self.places.all[place as usize];
        let source = self.source(place.id);
        place.offset < source.end && source.start < place.range().end
    }
}

/// Orders all places.
pub(super) fn order(graph: &Graph<'_>, staging_bytes_max: u64) -> Ordered {
    let mut order = Order::new(graph, staging_bytes_max);
    for place in 0..graph.places.all.len() as u32 {
        if order.pending[place as usize] == 0 {
            order.ready.push_back(place);
        }
    }
    order.write_ready();
    order.break_circles();
    order.finish()
}

struct Order<'a> {
    graph: &'a Graph<'a>,
    staging_bytes_max: u64,
    staged_bytes: u64,
    /// Sources that block at least one place, by offset: (from, chunk).
    blocking: Vec<(u64, u32)>,
    blocking_finder: Finder,
    /// Of each place: how many sources block it, or [`WRITTEN`], or [`FETCHED`].
    pending: Vec<u32>,
    /// Of each chunk: places still to be copied.
    remaining: Vec<u32>,
    /// Of each chunk: the first of its places that may still have to be copied.
    cursor: Vec<u32>,
    /// Of each chunk: blocks nothing (any more).
    released: Vec<bool>,
    /// Of each chunk: is in memory.
    staged: Vec<bool>,
    ready: VecDeque<u32>,
    steps: Vec<Step>,
}

impl<'a> Order<'a> {
    fn new(graph: &'a Graph<'a>, staging_bytes_max: u64) -> Self {
        let chunks = graph.sources.len() as u32;
        let mut order = Self {
            graph,
            staging_bytes_max,
            staged_bytes: 0,
            blocking: Vec::new(),
            blocking_finder: Finder::new([].into_iter()),
            pending: vec![0; graph.places.all.len()],
            remaining: vec![0; chunks as usize],
            cursor: vec![0; chunks as usize],
            released: vec![true; chunks as usize],
            staged: vec![false; chunks as usize],
            ready: VecDeque::new(),
            steps: Vec::new(),
        };
        for id in 0..chunks {
            if graph.sources[id as usize] == NO_SOURCE {
                for place in graph.places_of(id) {
                    order.pending[*place as usize] = FETCHED;
                }
            } else {
                order.remaining[id as usize] = graph.places_of(id).len() as u32;
                order.block(id);
            }
        }
        order.blocking.sort_unstable();
        order.blocking_finder = Finder::new(order.blocking.iter().map(|(from, _)| *from));
        order
    }

    /// Counts a source in at every place that overwrites it.
    fn block(&mut self, id: u32) {
        let mut blocks = false;
        for place in self.graph.places.overlapping(&self.graph.source(id)) {
            if self.graph.is_copied(place) && !self.is_last_reader(place as u32, id) {
                self.pending[place] += 1;
                blocks = true;
            }
        }
        if blocks {
            self.released[id as usize] = false;
            self.blocking.push((self.graph.sources[id as usize], id));
        }
    }

    /// True when nobody but the place itself has still to read the source: a chunk is read whole before it is written,
    /// so a place may overlap its own source.
    fn is_last_reader(&self, place: u32, id: u32) -> bool {
        self.graph.places.all[place as usize].id == id && self.remaining[id as usize] == 1
    }

    fn write_ready(&mut self) {
        while let Some(place) = self.ready.pop_front() {
            // It may have become a fetch since it was found ready.
            if self.pending[place as usize] == 0 {
                self.write(place);
            }
        }
    }

    fn write(&mut self, place: u32) {
        let id = self.graph.places.all[place as usize].id;
        self.pending[place as usize] = WRITTEN;
        self.remaining[id as usize] -= 1;
        let last = self.remaining[id as usize] == 0;
        if self.staged[id as usize] {
            self.steps.push(Step::WriteStaged { place, last });
            if last {
                self.staged_bytes -= self.graph.len(id);
            }
            return;
        }
        self.steps.push(Step::Copy { place });
        if self.released[id as usize] {
            return;
        }
        if last {
            self.release(id);
        } else if self.remaining[id as usize] == 1 {
            let reader = self.unwritten_place(id);
            if self.graph.overlaps_own_source(reader) {
                self.unblock(reader);
            }
        }
    }

    /// The first place that the chunk has still to be copied to. Only while `remaining` isn't 0.
    fn unwritten_place(&mut self, id: u32) -> u32 {
        let places = self.graph.places_of(id);
        let cursor = &mut self.cursor[id as usize];
        while self.pending[places[*cursor as usize] as usize] >= FETCHED {
            *cursor += 1;
        }
        places[*cursor as usize]
    }

    fn unblock(&mut self, place: u32) {
        let pending = &mut self.pending[place as usize];
        *pending -= 1;
        if *pending == 0 {
            self.ready.push_back(place);
        }
    }

    /// The source may be overwritten from here on.
    fn release(&mut self, id: u32) {
        self.released[id as usize] = true;
        for place in self.graph.places.overlapping(&self.graph.source(id)) {
            let place = place as u32;
            if self.pending[place as usize] < FETCHED && !self.is_last_reader(place, id) {
                self.unblock(place);
            }
        }
    }

    fn break_circles(&mut self) {
        let mut on_path = vec![OFF; self.graph.sources.len()];
        let mut path: Vec<(u64, u32)> = Vec::new(); // (length, chunk)
        let mut next = 0;
        loop {
            let Some((_, top)) = path.last().copied() else {
                let Some(start) = (next..self.remaining.len()).find(|id| self.remaining[*id] > 0) else {
                    return;
                };
                next = start;
                on_path[start] = 0;
                path.push((self.graph.len(start as u32), start as u32));
                continue;
            };
            if self.remaining[top as usize] == 0 {
                on_path[top as usize] = OFF;
                path.pop();
                continue;
            }
            let place = self.unwritten_place(top);
            let blocker = self.blocker(place);
            let met = on_path[blocker as usize];
            if met == OFF {
                on_path[blocker as usize] = path.len() as u32;
                path.push((self.graph.len(blocker), blocker));
                continue;
            }
            let from = (met as usize).max(path.len().saturating_sub(CIRCLE_CHUNKS_MAX));
            let smallest = (from..path.len()).min_by_key(|at| path[*at].0).unwrap_or(from);
            let (_, id) = path[smallest];
            for (_, dropped) in path.drain(smallest..) {
                on_path[dropped as usize] = OFF;
            }
            self.set_aside(id);
            self.write_ready();
        }
    }

    /// One of the sources that block a place. Only for a place that is blocked.
    fn blocker(&self, place: u32) -> u32 {
        let range = self.graph.places.all[place as usize].range();
        let after = self.blocking_finder.below(range.end, |at| self.blocking[at].0);
        let found = self.blocking[..after].iter().rev().map(|(_, id)| *id).find(|id| {
            !self.released[*id as usize] && !self.is_last_reader(place, *id) && self.graph.source(*id).end > range.start
        });
        found.expect("a pending place has a blocker: `pending` counts exactly the sources found here")
    }

    /// Reads a source into memory, or has it fetched when there is no room.
    fn set_aside(&mut self, id: u32) {
        let len = self.graph.len(id);
        if self.staged_bytes + len <= self.staging_bytes_max {
            self.staged_bytes += len;
            self.staged[id as usize] = true;
            self.steps.push(Step::Stage { id });
            self.release(id);
            return;
        }
        for place in self.graph.places_of(id) {
            if self.pending[*place as usize] < FETCHED {
                self.pending[*place as usize] = FETCHED;
            }
        }
        self.remaining[id as usize] = 0;
        self.release(id);
    }

    fn finish(self) -> Ordered {
        let Self {
            graph,
            pending,
            mut steps,
            ..
        } = self;
        steps.shrink_to_fit();
        let mut fetches = Vec::new();
        let mut fetch_places = Vec::new();
        for id in 0..graph.sources.len() as u32 {
            let first = fetch_places.len() as u32;
            fetch_places.extend(graph.places_of(id).iter().filter(|p| pending[**p as usize] == FETCHED));
            let count = fetch_places.len() as u32 - first;
            if count > 0 {
                fetches.push(Fetch { id, first, count });
            }
        }
        fetches.sort_unstable_by_key(|f| fetch_places[f.first as usize]);
        Ordered {
            steps,
            fetches,
            fetch_places,
        }
    }
}
