//! Events: CloudEvents in the stream `WINDLASS_EVENTS`, published with an acknowledgement, followed without gaps.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::stream;
use bus::{BusError, EventSender, Kind};
use bytes::Bytes;
use serde::Deserialize;
use tokio::time::Instant;
use wire::Subject;
use wire::subject::EventFilter;

use crate::nats_bus::not_connected;
use crate::lattice::Lattice;
use crate::replies::NoAnswer;
use crate::tail::{Tail, Tailed};

/// Where events are kept.
pub(crate) const STREAM: &str = "WINDLASS_EVENTS";
/// How long, in hours.
const KEPT_H: u64 = 72;
/// How many bytes of them, on each server that has a copy.
const KEPT_BYTES: i64 = 256 << 20;

pub(crate) fn stream_config() -> stream::Config {
    stream::Config {
        name: STREAM.to_owned(),
        description: Some("What happened on the hosts of windlass: CloudEvents 1.0".to_owned()),
        subjects: vec![EventFilter::All.pattern()],
        max_age: Duration::from_secs(KEPT_H * 3600),
        max_bytes: KEPT_BYTES,
        discard: stream::DiscardPolicy::Old,
        storage: stream::StorageType::File,
        ..stream::Config::default()
    }
}

/// What JetStream answers to a publish.
#[derive(Debug, Deserialize)]
pub(crate) struct Acknowledged {
    #[serde(default)]
    pub(crate) seq: u64,
    #[serde(default)]
    pub(crate) error: Option<Refusal>,
}

/// Why JetStream kept nothing.
#[derive(Debug, Deserialize)]
pub(crate) struct Refusal {
    #[serde(default)]
    pub(crate) err_code: u64,
    #[serde(default)]
    pub(crate) description: String,
}

/// Publishes; an event that the servers didn't acknowledge is an error.
pub(crate) async fn publish(lattice: &Lattice, subject: &Subject, payload: Bytes) -> Result<(), BusError> {
    let timeout_ms = lattice.settings().ack_timeout_ms;
    let deadline = Instant::now() + Duration::from_millis(timeout_ms);
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "application/cloudevents+json; charset=utf-8");
    headers.insert("Nats-Expected-Stream", STREAM);
    let text = subject.to_string();
    let asked = lattice.replies().ask(&text, headers, payload, deadline).await;
    let message = asked.map_err(|why| match &why {
        NoAnswer::Nobody => BusError::new(
            Kind::Unavailable,
            format!("{subject}: no stream {STREAM} takes events; nothing was published"),
        ),
        NoAnswer::Late => BusError::new(
            Kind::Deadline,
            format!("{subject}: not acknowledged within {timeout_ms} ms; it may have been published"),
        ),
        NoAnswer::NotConnected => not_connected(subject),
        NoAnswer::TooLarge(_) | NoAnswer::Refused(_) => {
            BusError::new(Kind::Invalid, format!("{subject}: {why}")).caused_by(why)
        }
    })?;
    match serde_json::from_slice::<Acknowledged>(&message.payload) {
        Ok(Acknowledged { error: None, .. }) => Ok(()),
        Ok(Acknowledged { error: Some(refusal), .. }) => Err(BusError::new(
            Kind::Unavailable,
            format!("{subject}: {STREAM} refuses: {}; nothing was published", refusal.description),
        )),
        Err(e) => Err(BusError::new(
            Kind::Corrupt,
            format!("{subject}: the acknowledgement can't be read; it may have been published"),
        )
        .caused_by(e)),
    }
}

/// Fills a ring with the events that `filter` wants, from now on, over reconnects too.
pub(crate) async fn feed(lattice: &Lattice, filter: EventFilter, ring: EventSender) -> Result<(), BusError> {
    let tail = Tail::from_now(lattice, STREAM, filter.pattern()).await;
    let mut tail = tail.map_err(|e| {
        let message = format!("events of {} can't be heard: {e}", filter.pattern());
        BusError::new(Kind::Unavailable, message).caused_by(e)
    })?;
    tokio::spawn(async move {
        while ring.is_wanted() {
            match tokio::time::timeout(WANTED_EVERY, tail.next()).await {
                Ok(Tailed::Message(message)) => {
                    // what isn't an event of ours isn't told
                    if let Ok(subject @ Subject::Event { .. }) = Subject::parse(&message.subject) {
                        ring.push(subject, message.payload);
                    }
                }
                Ok(Tailed::Skipped(count)) => ring.lose(count),
                Err(_quiet) => {}
            }
        }
    });
    Ok(())
}

/// How often it is looked whether somebody still listens, while nothing happens.
const WANTED_EVERY: Duration = Duration::from_secs(1);
