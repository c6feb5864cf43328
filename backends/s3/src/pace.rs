//! A bandwidth limit that all bodies of a direction share, as if they stood on one line.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long the line may have been idle and still pass bytes at once: what was not used isn't saved up beyond this.
const BURST: Duration = Duration::from_millis(100);

/// One direction.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_s: u64,
    /// When the line has passed everything that was put on it so far.
    free_at: Mutex<Option<Instant>>,
}

impl Pace {
    /// `bytes_per_s` 0: no limit.
    pub(crate) fn new(bytes_per_s: u64) -> Self {
        Self {
            bytes_per_s,
            free_at: Mutex::new(None),
        }
    }

    /// Puts bytes on the line; the moment until which the sender has to wait before its next ones, if it has to.
    pub(crate) fn pass(&self, bytes: usize, now: Instant) -> Option<Instant> {
        if self.bytes_per_s == 0 || bytes == 0 {
            return None;
        }
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_s as f64);
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let floor = now.checked_sub(BURST).unwrap_or(now);
        let until = free_at.filter(|t| *t > floor).unwrap_or(floor) + takes;
        *free_at = Some(until);
        (until > now).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_share_one_line() {
        let now = Instant::now();
        let pace = Pace::new(1_000_000);
        assert_eq!(pace.pass(50_000, now), None, "a burst of 100 ms");
        let until = pace.pass(500_000, now).expect("a wait");
        assert_eq!((until - now).as_millis(), 450);
        let until = pace.pass(500_000, now).expect("a longer wait: the line is shared");
        assert_eq!((until - now).as_millis(), 950);
        let later = now + Duration::from_secs(60);
        let until = pace.pass(1_000_000, later).expect("idle time is not saved up");
        assert_eq!((until - later).as_millis(), 900);
        assert_eq!(Pace::new(0).pass(usize::MAX, now), None);
    }
}
