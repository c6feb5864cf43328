//! What a concern was asked since boot, by verb: for `/metrics`.

use std::collections::BTreeMap;
use std::time::Duration;

/// Upper bounds of a histogram's buckets, in seconds; one more bucket has none.
pub const BUCKETS_S: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// Verbs that are told apart: what callers make up must not fill memory.
const VERBS_MAX: usize = 64;
/// The verb of all others.
const OTHER: &str = "other";

/// How long something took, how often.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Histogram {
    /// How many fell into each bucket of [`BUCKETS_S`], and into the one without a bound.
    pub counts: [u64; BUCKETS_S.len() + 1],
    /// Sum, in seconds.
    pub sum_s: f64,
}

impl Histogram {
    /// Counts one.
    pub fn count(&mut self, took: Duration) {
        let took_s = took.as_secs_f64();
        self.counts[BUCKETS_S.partition_point(|bound| *bound < took_s)] += 1;
        self.sum_s += took_s;
    }
    /// How many were counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// The requests of a concern since boot.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measures {
    /// How many, by verb and by outcome (`ok` or an error code).
    pub answered: BTreeMap<String, BTreeMap<&'static str, u64>>,
    /// From their arrival to their answer, by verb.
    pub took: BTreeMap<String, Histogram>,
}

impl Measures {
    pub(crate) fn count(&mut self, verb: &str, outcome: &'static str, took: Duration) {
        let verb = match self.took.len() < VERBS_MAX || self.took.contains_key(verb) {
            true => verb,
            false => OTHER,
        };
        // what has been asked before needs no memory
        if !self.took.contains_key(verb) {
            self.answered.insert(verb.to_owned(), BTreeMap::new());
            self.took.insert(verb.to_owned(), Histogram::default());
        }
        if let (Some(answered), Some(histogram)) = (self.answered.get_mut(verb), self.took.get_mut(verb)) {
            *answered.entry(outcome).or_default() += 1;
            histogram.count(took);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_belong_to_their_bucket_and_verbs_are_bounded() {
        let mut histogram = Histogram::default();
        for ms in [0, 1, 2, 10_000, 10_001] {
            histogram.count(Duration::from_millis(ms));
        }
        assert_eq!((histogram.counts[0], histogram.counts[1]), (2, 1));
        assert_eq!(
            (histogram.counts[11], histogram.counts[12], histogram.total()),
            (1, 1, 5)
        );
        let mut measures = Measures::default();
        for n in 0..1000 {
            measures.count(&format!("verb{n}"), "invalid", Duration::ZERO);
        }
        assert_eq!(measures.took.len(), VERBS_MAX + 1);
        assert_eq!(measures.answered.values().flat_map(BTreeMap::values).sum::<u64>(), 1000);
    }
}
