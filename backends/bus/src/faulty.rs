//! A bus with faults: delays, drops and duplicates, chosen by a seed so that a bad run can be run again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use wire::subject::EventFilter;
use wire::{Headers, Subject};

use crate::{Bus, BusError, Events, Incoming, Kind, REQUEST_TIMEOUT_MS_DEFAULT, Service};

/// Which faults, and how often; the default has none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Chooses; the same seed and the same order of calls give the same faults.
    pub seed: u64,
    /// Longest delay before a message, in milliseconds.
    pub delay_ms_max: u64,
    /// Of 1,000 requests, how many never reach their server.
    pub drop_request_per_mille: u32,
    /// Of 1,000 answers, how many never reach their asker (the work was done).
    pub drop_answer_per_mille: u32,
    /// Of 1,000 requests and events, how many arrive twice.
    pub duplicate_per_mille: u32,
    /// Of 1,000 events, how many are lost.
    pub drop_event_per_mille: u32,
}

/// Adds [`Faults`] to a bus.
#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn Bus>,
    faults: Faults,
    calls: AtomicU64,
}

/// The faults of one message.
struct Dice {
    delay_ms: u64,
    drop_way_there: bool,
    drop_way_back: bool,
    duplicate: bool,
}

impl Faulty {
    /// Wraps `inner`.
    pub fn new(inner: Arc<dyn Bus>, faults: Faults) -> Self {
        Self {
            inner,
            faults,
            calls: AtomicU64::new(0),
        }
    }
    fn throw(&self, drop_there: u32, drop_back: u32) -> Dice {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let roll = |lane: u64| splitmix64(self.faults.seed ^ (call << 8) ^ lane);
        let hit = |lane: u64, per_mille: u32| roll(lane) % 1000 < u64::from(per_mille);
        Dice {
            delay_ms: roll(1) % (self.faults.delay_ms_max + 1),
            drop_way_there: hit(2, drop_there),
            drop_way_back: hit(3, drop_back),
            duplicate: hit(4, self.faults.duplicate_per_mille),
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Bus for Faulty {
    async fn request(&self, subject: &Subject, headers: Headers, payload: Bytes) -> Result<Bytes, BusError> {
        let dice = self.throw(self.faults.drop_request_per_mille, self.faults.drop_answer_per_mille);
        pause(dice.delay_ms).await;
        let timeout = Duration::from_millis(headers.timeout_ms.unwrap_or(REQUEST_TIMEOUT_MS_DEFAULT));
        let lost = || {
            BusError::new(
                Kind::Deadline,
                format!("no answer from {subject}; the work may still be done"),
            )
        };
        if dice.drop_way_there {
            tokio::time::sleep(timeout).await;
            return Err(lost());
        }
        if dice.duplicate {
            // the earlier copy's answer is the one that gets lost
            let _first = self.inner.request(subject, headers.clone(), payload.clone()).await;
        }
        let answer = self.inner.request(subject, headers, payload).await;
        if dice.drop_way_back {
            tokio::time::sleep(timeout).await;
            return Err(lost());
        }
        answer
    }

    async fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), BusError> {
        let dice = self.throw(self.faults.drop_event_per_mille, 0);
        pause(dice.delay_ms).await;
        if dice.drop_way_there {
            return Ok(());
        }
        if dice.duplicate {
            self.inner.publish(subject, payload.clone()).await?;
        }
        self.inner.publish(subject, payload).await
    }

    async fn serve(&self, service: Service) -> Result<Incoming, BusError> {
        self.inner.serve(service).await
    }

    async fn subscribe(&self, filter: EventFilter, events_queued_max: usize) -> Result<Events, BusError> {
        self.inner.subscribe(filter, events_queued_max).await
    }
}

async fn pause(ms: u64) {
    if ms > 0 {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): one multiplication chain, good enough to choose faults.
fn splitmix64(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
