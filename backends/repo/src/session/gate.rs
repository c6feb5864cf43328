//! Bounds the packs that are being uploaded; CPU threads wait here when the store lags behind.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
struct State {
    inside: usize,
    open_for_all: bool,
}

/// Lets a number of holders in.
#[derive(Debug)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
    inside_max: usize,
}

/// Held while inside; goes back when dropped, also when its task dies.
#[derive(Debug)]
pub(super) struct Pass(Arc<Gate>);

impl Gate {
    pub(super) fn new(inside_max: usize) -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            inside_max,
        }
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Waits until there is room.
    pub(super) fn enter(self: &Arc<Self>) -> Pass {
        let mut state = self
            .changed
            .wait_while(self.state(), |s| s.inside >= self.inside_max && !s.open_for_all)
            .unwrap_or_else(PoisonError::into_inner);
        state.inside += 1;
        Pass(self.clone())
    }
    /// From now on nobody waits for room: the session has failed, and what comes is dropped.
    pub(super) fn open_for_all(&self) {
        self.state().open_for_all = true;
        self.changed.notify_all();
    }
    /// Waits until nobody is inside.
    pub(super) fn wait_empty(&self) {
        let _state = self
            .changed
            .wait_while(self.state(), |s| s.inside > 0)
            .unwrap_or_else(PoisonError::into_inner);
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.state().inside -= 1;
        self.0.changed.notify_all();
    }
}
