//! What the servers' clock says: leases end by theirs, so that hosts whose clocks differ agree, and that a host's clock may be set
//! while its leases stand. Between two looks at it the time goes on as this host's steady clock does.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::NatsError;
use crate::streams::Streams;

/// How long a look is good for: two steady clocks differ by less than a millisecond in that time, but for one that stood still
/// while its host slept.
const MEASURED_EVERY: Duration = Duration::from_secs(60);

/// A look at it: the servers' time in Unix milliseconds, and when that was.
#[derive(Debug, Clone, Copy)]
struct Look {
    server_ms: i128,
    at: Instant,
}

/// The latest look.
#[derive(Debug)]
pub(crate) struct ServerClock(Mutex<Look>);

impl ServerClock {
    pub(crate) async fn open(streams: &dyn Streams, stream: &'static str) -> Result<Self, NatsError> {
        Ok(Self(Mutex::new(look(streams, stream).await?)))
    }

    fn latest(&self) -> MutexGuard<'_, Look> {
        // nothing panics under this lock
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The servers' time now, Unix milliseconds.
    pub(crate) fn now_ms(&self) -> i128 {
        let latest = *self.latest();
        latest.server_ms + i128::try_from(latest.at.elapsed().as_millis()).unwrap_or(0)
    }

    /// The same for those who count without a sign.
    pub(crate) fn server_ms(&self) -> u64 {
        u64::try_from(self.now_ms()).unwrap_or(0)
    }

    /// Looks again when the last time is a while ago; goes on with what it has when the servers don't answer.
    pub(crate) async fn refresh(&self, streams: &dyn Streams, stream: &'static str) {
        if self.latest().at.elapsed() < MEASURED_EVERY {
            return;
        }
        match look(streams, stream).await {
            Ok(look) => *self.latest() = look,
            Err(error) => tracing::warn!(%error, "the servers' clock can't be read; the last look at it is kept"),
        }
    }
}

/// The servers' time (in the answer about a stream), as that of the middle of asking.
async fn look(streams: &dyn Streams, stream: &'static str) -> Result<Look, NatsError> {
    let before = Instant::now();
    let server_ms = streams.time_ms(stream).await.map_err(|e| {
        let message = format!("the servers' clock can't be read: {e}");
        NatsError::new(e.kind, message).caused_by(e)
    })?;
    Ok(Look {
        server_ms,
        at: before + before.elapsed() / 2,
    })
}
