//! How far the servers' clock is ahead of this host's: leases end by theirs, so that hosts whose clocks differ agree.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use state::NowMs;
use tokio::time::Instant;

use crate::error::{Kind, NatsError};
use crate::lattice::Lattice;

/// How long a measurement is good for: this host's clock may be set meanwhile.
const MEASURED_EVERY: Duration = Duration::from_secs(60);

/// What was measured: how far the servers' clock is ahead, their time then, and when.
#[derive(Debug)]
pub(crate) struct ServerClock(Mutex<Measured>);

#[derive(Debug, Clone, Copy)]
struct Measured {
    offset_ms: i128,
    server_ms: u64,
    at: Instant,
}

impl Measured {
    fn now(offset_ms: i128, now_ms: &NowMs) -> Self {
        Self {
            offset_ms,
            server_ms: u64::try_from(i128::from(now_ms()) + offset_ms).unwrap_or_default(),
            at: Instant::now(),
        }
    }
}

impl ServerClock {
    pub(crate) async fn open(lattice: &Lattice, stream: &str, now_ms: &NowMs) -> Result<Self, NatsError> {
        let offset_ms = measure(lattice, stream, now_ms).await?;
        Ok(Self(Mutex::new(Measured::now(offset_ms, now_ms))))
    }
    fn measured(&self) -> Measured {
        // nothing panics under this lock
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Milliseconds to add to this host's time.
    pub(crate) fn offset_ms(&self) -> i128 {
        self.measured().offset_ms
    }
    /// The servers' time now, in Unix milliseconds. It goes on by this host's monotonic clock, so setting this host's clock
    /// doesn't move it.
    pub(crate) fn server_ms(&self) -> u64 {
        let measured = self.measured();
        let since = u64::try_from(measured.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        measured.server_ms.saturating_add(since)
    }
    /// Measures again when the last time is a while ago; keeps what it has when the servers don't answer.
    pub(crate) async fn refresh(&self, lattice: &Lattice, stream: &str, now_ms: &NowMs) {
        if self.measured().at.elapsed() < MEASURED_EVERY {
            return;
        }
        match measure(lattice, stream, now_ms).await {
            Ok(offset) => {
                *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Measured::now(offset, now_ms);
            }
            Err(error) => tracing::warn!(%error, "the servers' clock can't be read; the last look at it is kept"),
        }
    }
}

/// The servers' time (in the answer about a stream) less ours in the middle of asking.
async fn measure(lattice: &Lattice, stream: &str, now_ms: &NowMs) -> Result<i128, NatsError> {
    let before = now_ms();
    let info: Value = lattice
        .jetstream()
        .request(format!("STREAM.INFO.{stream}"), &())
        .await
        .map_err(|e| {
            NatsError::new(Kind::Unavailable, format!("the servers' clock can't be read: {e}")).caused_by(e)
        })?;
    let middle = i128::from(before) + i128::from(now_ms().saturating_sub(before)) / 2;
    let server = info["ts"]
        .as_str()
        .and_then(|ts| async_nats::datetime::parse_rfc3339(ts).ok());
    let server = server.ok_or_else(|| {
        NatsError::new(
            Kind::Unfit,
            "the NATS server doesn't tell its time; windlass needs 2.11 or newer",
        )
    })?;
    Ok(server.unix_timestamp_nanos() / 1_000_000 - middle)
}
