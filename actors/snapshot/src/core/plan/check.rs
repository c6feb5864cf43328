//! What holds for every plan: used by tests and `debug_assert!`.

use std::ops::Range;

use super::order::{Finder, Places};
use super::{Fetch, Key, NO_SOURCE, Plan, Step};

/// What a plan does wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken {
    /// A step reads what an earlier one wrote.
    ReadsOverwritten {
        /// Index of the step.
        step: usize,
        /// What it reads.
        range: Range<u64>,
    },
    /// A place is written twice, or never.
    Written {
        /// Index of the place.
        place: usize,
        /// How many times it is written.
        times: u32,
    },
    /// A staged chunk is written without having been read, or read in vain, or its last write is not marked.
    Staging {
        /// Index of the step.
        step: usize,
    },
    /// A step reads a chunk that has no source.
    NoSource {
        /// Index of the step.
        step: usize,
    },
    /// A place overlaps another or a hole.
    Overlap {
        /// Where.
        offset: u64,
    },
}

/// Checks that no step reads what an earlier one wrote (but from memory), that every place is written exactly once, that
/// staging is sound, and that places and holes are disjoint. Fetches and punches read nothing and come last.
pub fn check<K: Key>(plan: &Plan<K>) -> Result<(), Broken> {
    disjoint(plan)?;
    let finder = Finder::new(plan.places.iter().map(|p| p.offset));
    let by_offset = Places {
        all: &plan.places,
        finder: &finder,
    };
    let mut written = vec![0u32; plan.places.len()];
    let mut staged = vec![false; plan.ids.len()];
    for (at, step) in plan.steps.iter().enumerate() {
        let (read, write) = match step {
            Step::Copy { place } => (Some(plan.place(*place).id), Some(*place)),
            Step::Stage { id } => {
                if std::mem::replace(&mut staged[*id as usize], true) {
                    return Err(Broken::Staging { step: at });
                }
                (Some(*id), None)
            }
            Step::WriteStaged { place, last } => {
                if !std::mem::replace(&mut staged[plan.place(*place).id as usize], !last) {
                    return Err(Broken::Staging { step: at });
                }
                (None, Some(*place))
            }
        };
        if let Some(id) = read {
            let from = plan.sources[id as usize];
            if from == NO_SOURCE {
                return Err(Broken::NoSource { step: at });
            }
            let range = from..from + u64::from(plan.lens[id as usize]);
            if by_offset.overlapping(&range).any(|place| written[place] > 0) {
                return Err(Broken::ReadsOverwritten { step: at, range });
            }
        }
        if let Some(place) = write {
            written[place as usize] += 1;
        }
    }
    if staged.contains(&true) {
        return Err(Broken::Staging { step: plan.steps.len() });
    }
    for place in plan.fetches.iter().flat_map(|fetch: &Fetch| plan.fetch_places(fetch)) {
        written[*place as usize] += 1;
    }
    match written.iter().position(|times| *times != 1) {
        Some(place) => Err(Broken::Written {
            place,
            times: written[place],
        }),
        None => Ok(()),
    }
}

fn disjoint<K>(plan: &Plan<K>) -> Result<(), Broken> {
    let places = plan.places.iter().map(super::Place::range);
    let mut all: Vec<_> = places.chain(plan.punches.iter().cloned()).collect();
    all.sort_unstable_by_key(|range| range.start);
    match all.windows(2).find(|pair| pair[0].end > pair[1].start) {
        Some(pair) => Err(Broken::Overlap { offset: pair[1].start }),
        None => Ok(()),
    }
}
