//! Room for so many at once, where the number may change while some are taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts what is taken. Nobody waits here: who finds no room is told so.
#[derive(Debug, Default, Clone)]
pub struct Slots(Arc<AtomicUsize>);

/// A taken one; free again when it is dropped.
#[derive(Debug)]
pub struct Slot(Arc<AtomicUsize>);

impl Slots {
    /// One of `max`; `None` when as many are taken.
    pub fn take(&self, max: usize) -> Option<Slot> {
        let one_more = |taken| (taken < max).then_some(taken + 1);
        let taken = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
        taken.is_ok().then(|| Slot(self.0.clone()))
    }
    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_may_change_while_some_are_taken() {
        let slots = Slots::default();
        let taken: Vec<Slot> = (0..3).map_while(|_| slots.take(3)).collect();
        assert_eq!((taken.len(), slots.taken()), (3, 3));
        assert!(slots.take(3).is_none());
        let fourth = slots.take(4).expect("room for one more");
        assert!(slots.take(2).is_none());
        drop((taken, fourth));
        assert_eq!(slots.taken(), 0);
        assert!(slots.take(0).is_none());
    }
}
