//! Events: CloudEvents in the stream `WINDLASS_EVENTS`, published with an acknowledgement, followed without gaps.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::stream;
use bus::{BusError, EventSender, Kind};
use bytes::Bytes;
use wire::Subject;
use wire::subject::{EventFilter, Form};

use crate::acknowledged::{NotKept, keep};
use crate::lattice::Lattice;
use crate::nats_bus::not_connected;
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

/// Publishes; an event that the servers didn't acknowledge is an error.
pub(crate) async fn publish(lattice: &Lattice, subject: &Subject, payload: Bytes) -> Result<(), BusError> {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "application/cloudevents+json; charset=utf-8");
    headers.insert("Nats-Expected-Stream", STREAM);
    match keep(lattice, &subject.to_string(), headers, payload).await {
        Ok(_sequence) => Ok(()),
        Err(NotKept::NotSent(NoAnswer::NotConnected)) => Err(not_connected(subject)),
        Err(why) => {
            let kind = match &why {
                NotKept::Unknown(_) => Kind::Deadline,
                NotKept::NotSent(NoAnswer::TooLarge(_) | NoAnswer::Refused(_)) => Kind::Invalid,
                NotKept::NotSent(_) | NotKept::Refused(_) => Kind::Unavailable,
                NotKept::Unreadable(_) => Kind::Corrupt,
            };
            let message = format!("{subject}: the event was not taken into {STREAM}: {why}");
            Err(BusError::new(kind, message).caused_by(why))
        }
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
                    if let Ok(subject) = Subject::parse(&message.subject)
                        && subject.form() == Form::Event
                    {
                        ring.push(subject, message.payload);
                    }
                }
                Ok(Tailed::Reopened { skipped, renewed }) => {
                    let lost = skipped + u64::from(renewed);
                    if lost > 0 {
                        ring.lose(lost);
                    }
                }
                Err(_quiet) => {}
            }
        }
    });
    Ok(())
}

/// How often it is looked whether somebody still listens, while nothing happens.
const WANTED_EVERY: Duration = Duration::from_secs(1);
