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

/// What was measured.
#[derive(Debug)]
pub(crate) struct ServerClock(Mutex<(i128, Instant)>);

impl ServerClock {
    pub(crate) async fn open(lattice: &Lattice, stream: &str, now_ms: &NowMs) -> Result<Self, NatsError> {
        Ok(Self(Mutex::new((
            measure(lattice, stream, now_ms).await?,
            Instant::now(),
        ))))
    }
    /// Milliseconds to add to this host's time.
    pub(crate) fn offset_ms(&self) -> i128 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }
    /// Measures again when the last time is a while ago; keeps what it has when the servers don't answer.
    pub(crate) async fn refresh(&self, lattice: &Lattice, stream: &str, now_ms: &NowMs) {
        let measured = self.0.lock().unwrap_or_else(PoisonError::into_inner).1;
        if measured.elapsed() < MEASURED_EVERY {
            return;
        }
        match measure(lattice, stream, now_ms).await {
            Ok(offset) => *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (offset, Instant::now()),
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
