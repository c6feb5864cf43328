//! What happens to the connection: counted, and said without flooding the log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_nats::Event;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::refusals::{self, Refusals, Refused};
use crate::replies::Waiting;

/// Slow consumers are logged at most this often.
const SLOW_LOG_EVERY: Duration = Duration::from_secs(60);

/// Counts of one connection.
#[derive(Debug, Default)]
pub(crate) struct Health {
    connects: watch::Sender<u64>,
    slow_messages: AtomicU64,
    said: Mutex<Said>,
    refusals: Refusals,
    waiting: Waiting,
}

#[derive(Debug, Default)]
struct Said {
    slow_at: Option<Instant>,
    slow_untold: u64,
    last_trouble: Option<String>,
}

impl Health {
    /// Messages that were dropped for a full buffer of ours since the start.
    pub(crate) fn slow_messages(&self) -> u64 {
        self.slow_messages.load(Ordering::Relaxed)
    }
    /// How often a connection was made.
    pub(crate) fn connects(&self) -> u64 {
        *self.connects.borrow()
    }
    /// Tells of each connection that is made.
    pub(crate) fn connections(&self) -> watch::Receiver<u64> {
        self.connects.subscribe()
    }
    /// Why the last try to connect failed.
    pub(crate) fn last_trouble(&self) -> Option<String> {
        self.said().last_trouble.clone()
    }
    /// Who waits for answers over this connection.
    pub(crate) fn waiting(&self) -> &Waiting {
        &self.waiting
    }
    /// What was refused.
    pub(crate) fn refusals(&self) -> &Refusals {
        &self.refusals
    }
    fn said(&self) -> std::sync::MutexGuard<'_, Said> {
        // nothing panics under this lock
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn heard(&self, event: &Event) {
        match event {
            Event::Connected => {
                self.said().last_trouble = None;
                self.connects.send_modify(|n| *n += 1);
                tracing::info!(again = self.connects() > 1, "connected to NATS");
            }
            Event::Disconnected => tracing::warn!("the connection to NATS is lost; trying again"),
            Event::LameDuckMode => tracing::info!("the NATS server is about to end; another one will take over"),
            Event::SlowConsumer(_) => self.slow(),
            Event::ServerError(error) => {
                let text = error.to_string();
                if let Some((what, subject)) = refusals::of_error(&text) {
                    self.refusals.count(None, what, subject);
                    if what == Refused::Publish {
                        self.waiting.forbid(subject);
                    }
                }
                self.trouble(text);
            }
            Event::ClientError(error) => self.trouble(error.to_string()),
            Event::Draining | Event::Closed => tracing::debug!(%event, "NATS connection"),
        }
    }

    fn slow(&self) {
        self.slow_messages.fetch_add(1, Ordering::Relaxed);
        let mut said = self.said();
        said.slow_untold += 1;
        let now = Instant::now();
        if said.slow_at.is_none_or(|at| now - at >= SLOW_LOG_EVERY) {
            said.slow_at = Some(now);
            let messages = std::mem::take(&mut said.slow_untold);
            tracing::warn!(
                messages,
                "messages from NATS were dropped: they came faster than they were taken"
            );
        }
    }

    /// Said once until the next connection, or until it changes.
    fn trouble(&self, what: String) {
        let mut said = self.said();
        if said.last_trouble.as_deref() != Some(&what) {
            tracing::warn!(error = %what, "NATS");
            said.last_trouble = Some(what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn slow_consumers_are_counted_and_said_once_a_minute() {
        let health = Health::default();
        for _ in 0..10_000 {
            health.heard(&Event::SlowConsumer(1));
        }
        assert_eq!((health.slow_messages(), health.said().slow_untold), (10_000, 9_999));
        tokio::time::advance(SLOW_LOG_EVERY).await;
        health.heard(&Event::SlowConsumer(1));
        assert_eq!(health.said().slow_untold, 0, "told");
        health.heard(&Event::Connected);
        assert_eq!(health.connects(), 1);
    }
}
