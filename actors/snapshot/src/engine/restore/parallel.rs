//! Work on many items by a few threads.

use std::sync::{Mutex, PoisonError};

use crate::{Result, SnapshotError};

/// Does `work` on every item, by at most `threads` threads; each thread has a state of its own. After the first error
/// no further item is begun.
pub(super) fn for_each<T: Send, S: Default>(
    items: &mut [T],
    threads: usize,
    work: impl Fn(&mut S, &mut T) -> Result<()> + Sync,
) -> Result<()> {
    let threads = threads.min(items.len());
    if threads <= 1 {
        let mut state = S::default();
        return items.iter_mut().try_for_each(|item| work(&mut state, item));
    }
    let queue = Mutex::new(items.iter_mut());
    let failed: Mutex<Option<SnapshotError>> = Mutex::new(None);
    let span = tracing::Span::current();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let _in_trace = span.enter();
                let mut state = S::default();
                loop {
                    let item = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(item) = item else { return };
                    if let Err(error) = work(&mut state, item) {
                        failed
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .get_or_insert(error);
                    }
                    if failed.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                        return;
                    }
                }
            });
        }
    });
    failed
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .map_or(Ok(()), Err)
}
