//! Deletions are remembered for watches, the newest [`TOMBSTONES_MAX`] of them; below the floor they are forgotten.
//!
//! Whoever deletes much looks now and then. The floor is raised before the markers go, so a watch that is behind it hears
//! `Compacted` and misses nothing in silence. A marker goes by being written over with a message that the servers forget a moment
//! later: who could delete one message through their API could delete any.

use std::sync::atomic::{AtomicU64, Ordering};

use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::stream::Stream;
use futures::StreamExt;
use state::{Key, Kind, Result, StateError, TOMBSTONES_MAX};

use super::entries::{FORGOTTEN, Write, is_deletion, write};
use super::{STREAM, keys};
use crate::acknowledged::keep;
use crate::streams::{Jetstream, OPERATION, Outgoing, Streams};

/// How many deletions of one process bring it to look.
const LOOK_EVERY: u64 = TOMBSTONES_MAX / 2;

pub(crate) fn floor_subject() -> String {
    // no key has this subject: behind a '=' there would be two digits
    format!("{}=floor", keys::ROOT)
}

/// Counts deletions.
#[derive(Debug, Default)]
pub(crate) struct Compaction(AtomicU64);

impl Compaction {
    /// A key was deleted; now and then the old markers go.
    pub(crate) fn deleted(&self, of: Option<&(Jetstream, Stream)>) {
        if self.0.fetch_add(1, Ordering::Relaxed) % LOOK_EVERY != LOOK_EVERY - 1 {
            return;
        }
        let Some((streams, stream)) = of.cloned() else { return };
        tokio::spawn(async move {
            if let Err(error) = compact(&streams, &stream, TOMBSTONES_MAX).await {
                tracing::warn!(%error, "old deletions stay in the state for now");
            }
        });
    }
}

/// The revision up to which deletions may be forgotten.
pub(crate) async fn floor(streams: &dyn Streams) -> Result<u64> {
    let found = streams.last(STREAM, &floor_subject()).await.map_err(|e| failed(&e))?;
    let told = found.and_then(|message| std::str::from_utf8(&message.payload).ok()?.parse().ok());
    Ok(told.unwrap_or(0))
}

/// Removes all markers but the newest `kept_max`; returns how many went.
pub(crate) async fn compact(streams: &dyn Streams, stream: &Stream, kept_max: u64) -> Result<usize> {
    let mut markers = markers(stream).await?;
    let excess = markers
        .len()
        .saturating_sub(usize::try_from(kept_max).unwrap_or(usize::MAX));
    markers.sort_unstable_by_key(|(sequence, _)| *sequence);
    markers.truncate(excess);
    let Some((raised, _)) = markers.last() else {
        return Ok(0);
    };
    if floor(streams).await? < *raised {
        let kept = keep(streams, Outgoing::new(floor_subject(), raised.to_string())).await;
        kept.map_err(|e| failed(&e))?;
    }
    let mut gone = 0;
    for (sequence, key) in &markers {
        // one that was written over meanwhile is gone already
        match write(streams, key, Write::Oblivion, Some(*sequence)).await {
            Ok(_) => gone += 1,
            Err(error) => tracing::debug!(sequence, %error, "a marker was not removed"),
        }
    }
    Ok(gone)
}

/// The sequences and keys of all markers.
async fn markers(stream: &Stream) -> Result<Vec<(u64, Key)>> {
    let config = OrderedConfig {
        filter_subject: format!("{}>", keys::ROOT),
        headers_only: true,
        ..OrderedConfig::default()
    };
    let consumer = stream.create_consumer(config).await.map_err(|e| failed(&e))?;
    let mut found = Vec::new();
    if consumer.cached_info().num_pending == 0 {
        return Ok(found);
    }
    let mut messages = consumer.messages().await.map_err(|e| failed(&e))?;
    while let Some(message) = messages.next().await {
        let message = message.map_err(|e| failed(&e))?;
        let info = message.info().map_err(|e| failed(&e))?;
        let (sequence, pending) = (info.stream_sequence, info.pending);
        let header = |name: &str| message.headers.as_ref().and_then(|h| h.get(name)).map(|v| v.as_str());
        if is_deletion(header(OPERATION))
            && header(FORGOTTEN).is_none()
            && let Some(key) = keys::key(&message.subject)
        {
            found.push((sequence, key));
        }
        if pending == 0 {
            break;
        }
    }
    Ok(found)
}

fn failed(error: &dyn std::fmt::Display) -> StateError {
    StateError::new(Kind::Unavailable, format!("deletions can't be looked through: {error}"))
}
