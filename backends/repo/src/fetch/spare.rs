//! Memory that is lent for the raw bytes of a range and comes back when the last of them was written: fresh pages cost more
//! than decompressing into them.

use std::sync::{Arc, Mutex, PoisonError};

/// Memory in waiting.
#[derive(Debug)]
pub(super) struct Spare {
    waiting: Mutex<Vec<Vec<u8>>>,
    bytes_max: usize,
}

/// A piece of it, in use; goes back when it is dropped.
#[derive(Debug)]
pub(super) struct Lent {
    /// As long as it ever was, so that nothing is filled with zeros twice.
    memory: Vec<u8>,
    len: usize,
    home: Arc<Spare>,
}

impl Spare {
    /// Keeps at most `bytes_max` bytes in waiting.
    pub(super) fn new(bytes_max: u64) -> Self {
        Self {
            waiting: Mutex::default(),
            bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX),
        }
    }
    /// `len` bytes of any content.
    pub(super) fn lend(self: &Arc<Self>, len: usize) -> Lent {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // the smallest that is long enough, else the longest: it grows
        let fits = waiting.iter().enumerate().filter(|(_, m)| m.len() >= len);
        let best = fits.min_by_key(|(_, m)| m.len()).map(|(at, _)| at);
        let longest = || {
            waiting
                .iter()
                .enumerate()
                .max_by_key(|(_, m)| m.len())
                .map(|(at, _)| at)
        };
        let mut memory = match best.or_else(longest) {
            Some(at) => waiting.swap_remove(at),
            None => Vec::new(),
        };
        drop(waiting);
        if memory.len() < len {
            memory.resize(len, 0);
        }
        Lent {
            memory,
            len,
            home: self.clone(),
        }
    }
}

impl Lent {
    /// All of it, to be filled.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..self.len]
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.len]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut waiting = self.home.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let held: usize = waiting.iter().map(Vec::len).sum();
        if held + self.memory.len() <= self.home.bytes_max {
            waiting.push(std::mem::take(&mut self.memory));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_and_is_bounded() {
        let spare = Arc::new(Spare::new(1000));
        let held = || spare.waiting.lock().unwrap().iter().map(Vec::len).collect::<Vec<_>>();
        let (a, b, c) = (spare.lend(600), spare.lend(300), spare.lend(200));
        assert_eq!((a.as_ref().len(), b.as_ref().len()), (600, 300));
        drop((a, b));
        assert_eq!(held(), [600, 300]);
        drop(c); // would be more than is kept
        assert_eq!(held(), [600, 300]);
        let mut small = spare.lend(250);
        small.bytes_mut().fill(1);
        assert_eq!(
            (small.as_ref().len(), held()),
            (250, vec![600]),
            "the smallest that is long enough"
        );
        let grown = spare.lend(900);
        assert_eq!((grown.as_ref().len(), held()), (900, vec![]));
        drop(grown);
        assert_eq!(held(), [900]);
        assert_eq!(spare.lend(0).as_ref(), b"");
    }
}
