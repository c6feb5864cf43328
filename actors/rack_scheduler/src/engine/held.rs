//! Room that this scheduler has planned with and not booked yet: its other requests plan around it. Other schedulers know
//! nothing of it, and nothing rests on it.

use std::sync::{Arc, Mutex, PoisonError};

use super::Scheduler;
use super::view::View;
use crate::core::change::Takes;

/// A hold; ends when it is dropped, whatever became of the plan.
#[derive(Debug)]
pub(super) struct Held {
    view: Arc<Mutex<View>>,
    change: String,
    racks: Vec<String>,
}

impl Scheduler {
    /// Holds what a plan takes. `view` is the view that it was made on.
    pub(super) fn hold(&self, view: &mut View, placement: &str, change: &str, takes: &Takes) -> Held {
        for (rack, taken) in takes {
            view.hold(rack, placement, change, taken);
        }
        Held {
            view: self.view.clone(),
            change: change.to_owned(),
            racks: takes.keys().cloned().collect(),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        for rack in &self.racks {
            view.let_go(rack, &self.change);
        }
    }
}
