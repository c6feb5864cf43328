//! Time and randomness as a port.

use std::fmt::Debug;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// Where time and randomness come from.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Unix milliseconds; may jump when the host's clock is set.
    fn now_ms(&self) -> u64;
    /// Milliseconds since some fixed moment; never goes back.
    fn monotonic_ms(&self) -> u64;
    /// Random bits for ids; not for secrets.
    fn random(&self) -> u128;
}

/// The host's clock.
#[derive(Debug)]
pub struct SystemClock {
    started: std::time::Instant,
}

impl SystemClock {
    /// A clock whose monotonic time begins now.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the host's monotonic clock"
    )]
    pub fn new() -> Self {
        Self {
            started: std::time::Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the host's wall clock"
    )]
    fn now_ms(&self) -> u64 {
        let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since_1970.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
    }
    fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
    fn random(&self) -> u128 {
        // RandomState is SipHash under a key from the system's random source, another one each time; what is hashed is the same
        let half = || u128::from(RandomState::new().hash_one(0));
        half() << 64 | half()
    }
}

/// Unix milliseconds as RFC 3339 in UTC.
pub fn rfc3339(unix_ms: u64) -> String {
    let ms = i64::try_from(unix_ms).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms)
        .unwrap_or(jiff::Timestamp::MAX)
        .to_string()
}

/// A fresh ULID.
pub fn ulid(clock: &dyn Clock) -> String {
    ulid::Ulid::from_parts(clock.now_ms(), clock.random()).to_string()
}

/// What the job store wants of a clock.
pub fn job_source(clock: &Arc<dyn Clock>) -> jobs::Source {
    let (time, steady, dice) = (clock.clone(), clock.clone(), clock.clone());
    jobs::Source {
        now_ms: Arc::new(move || time.now_ms()),
        monotonic_ms: Arc::new(move || steady.monotonic_ms()),
        rfc3339,
        random: Arc::new(move || dice.random()),
    }
}

/// What the state wants of a clock.
pub fn state_clock(clock: &Arc<dyn Clock>) -> state::NowMs {
    let clock = clock.clone();
    Arc::new(move || clock.now_ms())
}

/// A clock that a test turns by hand, with randomness from a seed.
#[cfg(any(test, feature = "testing"))]
#[derive(Debug)]
pub struct ManualClock {
    now_ms: std::sync::atomic::AtomicU64,
    seed: std::sync::atomic::AtomicU64,
}

#[cfg(any(test, feature = "testing"))]
impl ManualClock {
    /// A clock that stands at `now_ms` (Unix milliseconds).
    pub fn new(now_ms: u64, seed: u64) -> Self {
        Self {
            now_ms: now_ms.into(),
            seed: seed.into(),
        }
    }
    /// Turns it forward.
    pub fn advance(&self, ms: u64) {
        self.now_ms.fetch_add(ms, std::sync::atomic::Ordering::SeqCst);
    }
}

#[cfg(any(test, feature = "testing"))]
impl Clock for ManualClock {
    fn now_ms(&self) -> u64 {
        self.now_ms.load(std::sync::atomic::Ordering::SeqCst)
    }
    fn monotonic_ms(&self) -> u64 {
        self.now_ms()
    }
    fn random(&self) -> u128 {
        // a Weyl sequence through a 128-bit multiplication: distinct for every call, the same for every seed
        let step = self
            .seed
            .fetch_add(0x9E37_79B9_7F4A_7C15, std::sync::atomic::Ordering::SeqCst);
        u128::from(step).wrapping_mul(0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645)
    }
}
