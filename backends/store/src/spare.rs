//! Memory that is lent for large bodies and comes back when the last part of one was let go: fresh pages cost more than what is
//! done with them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Memory in waiting. Once nothing of it is lent nothing waits either, so that who rests holds no memory.
#[derive(Debug)]
pub struct Spare {
    state: Mutex<State>,
    bytes_max: usize,
    piece_bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<Vec<u8>>,
    waiting_bytes: usize,
    lent: usize,
}

/// A piece of it, in use; goes back when it is dropped.
#[derive(Debug)]
pub struct Lent {
    memory: Vec<u8>,
    len: usize,
    home: Arc<Spare>,
}

impl Spare {
    /// Pieces of `piece_bytes`, more or much less where that is asked for; at most `bytes_max` bytes of them wait.
    pub fn new(bytes_max: u64, piece_bytes: usize) -> Self {
        Self {
            state: Mutex::default(),
            bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX),
            piece_bytes,
        }
    }
    fn state(&self) -> MutexGuard<'_, State> {
        // nothing panics under this lock
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// How large a new piece is that holds `len` bytes: what is much less than a piece doesn't cost a whole one.
    fn size_of(&self, len: usize) -> usize {
        match len.checked_next_power_of_two() {
            Some(size) if size < self.piece_bytes => size,
            _ => len.max(self.piece_bytes),
        }
    }
    /// `len` bytes of any content.
    pub fn lend(self: &Arc<Self>, len: usize) -> Lent {
        let mut state = self.state();
        state.lent += 1;
        // what came back last is in the processor's caches, if anything is
        let at = state.waiting.iter().rposition(|memory| memory.len() >= len);
        let waited = at.map(|at| state.waiting.remove(at));
        state.waiting_bytes -= waited.as_ref().map_or(0, Vec::len);
        drop(state);
        Lent {
            memory: waited.unwrap_or_else(|| vec![0; self.size_of(len)]),
            len,
            home: self.clone(),
        }
    }
}

impl Lent {
    /// All of it, to be filled.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..self.len]
    }
    /// Its bytes to share; it goes back when the last of them is dropped.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.len]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        let mut state = self.home.state();
        state.lent -= 1;
        if state.lent == 0 {
            state.waiting_bytes = 0;
            let let_go = std::mem::take(&mut state.waiting);
            drop(state);
            drop(let_go);
        } else if state.waiting_bytes + memory.len() <= self.home.bytes_max {
            state.waiting_bytes += memory.len();
            state.waiting.push(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_and_is_bounded() {
        let spare = Arc::new(Spare::new(1000, 300));
        let held = || spare.state().waiting.iter().map(Vec::len).collect::<Vec<_>>();
        let still = spare.lend(1);
        let (a, b, c) = (spare.lend(600), spare.lend(250), spare.lend(200));
        assert_eq!((a.as_ref().len(), b.as_ref().len()), (600, 250));
        drop((a, b));
        assert_eq!(held(), [600, 256]);
        drop(c); // would be more than is kept
        assert_eq!(held(), [600, 256]);
        let mut small = spare.lend(250);
        small.bytes_mut().fill(1);
        assert_eq!((small.as_ref().len(), held()), (250, vec![600]), "what came back last");
        let large = spare.lend(900);
        assert_eq!((large.as_ref().len(), held()), (900, vec![600]));
        drop(large);
        assert_eq!(held(), [600], "it would be more than is kept");
        let shared = small.freeze();
        let part = shared.slice(..10);
        drop(shared);
        assert_eq!(held(), [600], "a part of it is in use");
        drop(part);
        assert_eq!(held(), [600, 256]);
        assert_eq!(spare.lend(0).as_ref(), b"");
        drop(still);
        assert_eq!((held(), spare.state().waiting_bytes), (vec![], 0), "nothing is lent");
    }
}
