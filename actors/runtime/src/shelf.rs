//! Where letters wait for their concern's thread to take them up, all at once.
//!
//! Who puts the first letter there has to wake the keeper; the others find it woken. So a thread that is behind is woken once
//! for all that came meanwhile, and takes them in one turn.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::keeper::Letter;

#[derive(Debug)]
pub(crate) struct Shelf(Mutex<Letters>);

#[derive(Debug)]
struct Letters {
    waiting: VecDeque<Letter>,
    is_closed: bool,
}

/// What became of a letter.
pub(crate) enum Put {
    /// It is the first one: its keeper has to be told.
    First,
    /// Its keeper has been told by somebody else.
    Behind,
    /// The keeper has ended.
    Closed(Box<Letter>),
}

impl Shelf {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Letters {
            waiting: VecDeque::new(),
            is_closed: false,
        }))
    }

    fn letters(&self) -> MutexGuard<'_, Letters> {
        // nothing panics under this lock
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn put(&self, letter: Letter) -> Put {
        let mut letters = self.letters();
        if letters.is_closed {
            return Put::Closed(Box::new(letter));
        }
        letters.waiting.push_back(letter);
        match letters.waiting.len() {
            1 => Put::First,
            _ => Put::Behind,
        }
    }

    /// Moves all letters behind those of `queue`, in their order.
    pub(crate) fn take_into(&self, queue: &mut VecDeque<Letter>) {
        let mut letters = self.letters();
        match queue.is_empty() {
            // both keep the room that they have
            true => std::mem::swap(queue, &mut letters.waiting),
            false => queue.append(&mut letters.waiting),
        }
    }

    /// The letters that are left; from now on none is taken.
    pub(crate) fn close(&self) -> VecDeque<Letter> {
        let mut letters = self.letters();
        letters.is_closed = true;
        std::mem::take(&mut letters.waiting)
    }
}
