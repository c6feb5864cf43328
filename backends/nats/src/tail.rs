//! Follows a stream from a place on, over reconnects and dead leaders, without gaps.
//!
//! The place is ours: a consumer is thrown away and made anew behind the last message that was seen, so what happens to it
//! on the servers doesn't matter. A message that is seen again is not told again.

use std::time::Duration;

use async_nats::jetstream::consumer::pull::{Ordered, OrderedConfig};
use async_nats::jetstream::consumer::{DeliverPolicy, ReplayPolicy};
use futures::StreamExt;
use tokio::sync::watch;

use crate::backoff::jittered;
use crate::error::{Kind, NatsError};
use crate::lattice::Lattice;
use crate::streams::{Stored, headers_of};

/// How long the servers may take to make a consumer.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// What comes next.
#[derive(Debug)]
pub enum Tailed {
    /// A message.
    Message(Stored),
    /// It was begun anew behind what was seen.
    Reopened {
        /// Messages of any subject that went before they could be read.
        skipped: u64,
        /// The servers lost the stream: this is another one of the same name, read from its beginning.
        renewed: bool,
    },
}

/// A reader of a stream.
pub(crate) struct Tail {
    lattice: Lattice,
    stream: &'static str,
    filters: Vec<String>,
    seen: u64,
    // of the stream that `seen` counts in; another one has begun anew
    created: Option<i64>,
    messages: Option<Ordered>,
    connected: watch::Receiver<u64>,
    failures: usize,
}

impl Tail {
    /// Everything after what the stream has now.
    pub(crate) async fn from_now(
        lattice: &Lattice,
        stream: &'static str,
        filters: Vec<String>,
    ) -> Result<Self, NatsError> {
        let (created, _, last) = state_of(lattice, stream).await?;
        let mut tail = Self::after(lattice, stream, filters, last);
        tail.created = Some(created);
        tail.open().await?;
        Ok(tail)
    }

    /// Everything after `seen`.
    pub(crate) fn after(lattice: &Lattice, stream: &'static str, filters: Vec<String>, seen: u64) -> Self {
        Self {
            lattice: lattice.clone(),
            stream,
            filters,
            seen,
            created: None,
            messages: None,
            connected: lattice.connections(),
            failures: 0,
        }
    }

    /// What was seen last.
    pub(crate) fn seen(&self) -> u64 {
        self.seen
    }

    /// Waits for what comes next; tries again for ever while the servers don't answer.
    pub(crate) async fn next(&mut self) -> Tailed {
        loop {
            let Some(messages) = &mut self.messages else {
                match self.open().await {
                    Ok(reopened) => return reopened,
                    Err(error) => {
                        tracing::debug!(stream = self.stream, %error, "can't be followed now");
                        tokio::time::sleep(jittered(self.failures)).await;
                        self.failures += 1;
                    }
                }
                continue;
            };
            let message = tokio::select! {
                // the connection was made anew: the consumer may have gone with its server
                _ = self.connected.changed() => None,
                message = messages.next() => message.and_then(Result::ok),
            };
            let Some(message) = message else {
                self.messages = None;
                continue;
            };
            let Ok(sequence) = message.info().map(|info| info.stream_sequence) else {
                continue;
            };
            if sequence <= self.seen {
                continue;
            }
            (self.seen, self.failures) = (sequence, 0);
            let message = message.message;
            return Tailed::Message(Stored {
                sequence,
                subject: message.subject.to_string(),
                headers: headers_of(message.headers.as_ref()),
                payload: message.payload,
            });
        }
    }

    /// Makes a consumer behind what was seen.
    async fn open(&mut self) -> Result<Tailed, NatsError> {
        let opened = tokio::time::timeout(OPEN_TIMEOUT, self.open_once()).await;
        opened.map_err(|_elapsed| NatsError::new(Kind::Unavailable, format!("{}: no answer", self.stream)))?
    }

    async fn open_once(&mut self) -> Result<Tailed, NatsError> {
        self.connected.mark_unchanged();
        let (created, first, _) = state_of(&self.lattice, self.stream).await?;
        let renewed = self.created.replace(created).is_some_and(|before| before != created);
        if renewed {
            tracing::error!(
                stream = self.stream,
                "the NATS servers lost this stream; what it had is gone"
            );
            self.seen = 0;
        }
        let skipped = match self.seen {
            0 => 0,
            seen => first.saturating_sub(seen + 1),
        };
        let stream = self.lattice.jetstream().get_stream_no_info(self.stream).await;
        let unavailable =
            |e: &dyn std::fmt::Display| NatsError::new(Kind::Unavailable, format!("{}: {e}", self.stream));
        let stream = stream.map_err(|e| unavailable(&e))?;
        let config = OrderedConfig {
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: self.seen + 1,
            },
            filter_subjects: self.filters.clone(),
            replay_policy: ReplayPolicy::Instant,
            ..OrderedConfig::default()
        };
        let consumer = stream.create_consumer(config).await.map_err(|e| unavailable(&e))?;
        self.messages = Some(consumer.messages().await.map_err(|e| unavailable(&e))?);
        Ok(Tailed::Reopened { skipped, renewed })
    }
}

/// When the stream was made (Unix nanoseconds), its first and its last sequence.
pub(crate) async fn state_of(lattice: &Lattice, name: &str) -> Result<(i64, u64, u64), NatsError> {
    let stream = lattice.jetstream().get_stream(name).await.map_err(|e| {
        NatsError::new(Kind::Unavailable, format!("the stream {name} can't be looked at: {e}")).caused_by(e)
    })?;
    let info = stream.cached_info();
    let created = info.created.unix_timestamp_nanos();
    Ok((
        i64::try_from(created).unwrap_or(i64::MAX),
        info.state.first_sequence,
        info.state.last_sequence,
    ))
}
