//! Events: CloudEvents in the stream `WINDLASS_EVENTS`, published with an acknowledgement, followed without gaps.
//!
//! A host's events have its id as the last token of their subjects. The servers can let it tell no others; and an event whose
//! `source` is another host than its subject says is dropped here, counted and said.

use std::time::Duration;

use async_nats::jetstream::stream;
use bus::{BusError, EventSender, Kind};
use bytes::Bytes;
use serde::Deserialize;
use wire::subject::{EventFilter, EventPlace};
use wire::{Sender, Subject};

use crate::acknowledged::{NotKept, keep};
use crate::lattice::Lattice;
use crate::nats_bus::not_connected;
use crate::refusals::Refused;
use crate::replies::NoAnswer;
use crate::streams::{Jetstream, Outgoing};
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
    let place = EventPlace {
        subject: subject.clone(),
        host: lattice.settings().party.as_ref().and_then(Sender::host).cloned(),
    };
    let event = Outgoing::new(place.to_string(), payload)
        .with("content-type", "application/cloudevents+json; charset=utf-8")
        .with("Nats-Expected-Stream", STREAM);
    match keep(&Jetstream(lattice.clone()), event).await {
        Ok(_sequence) => Ok(()),
        Err(NotKept::NotSent(NoAnswer::NotConnected)) => Err(not_connected(subject)),
        Err(why) => {
            let kind = match &why {
                NotKept::Unknown(_) => Kind::Deadline,
                NotKept::NotSent(NoAnswer::TooLarge(_) | NoAnswer::Refused(_)) => Kind::Invalid,
                NotKept::NotSent(NoAnswer::Forbidden) => Kind::Denied,
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
    let tail = Tail::from_now(lattice, STREAM, filter.patterns()).await;
    let mut tail = tail.map_err(|e| {
        let message = format!("events of {} can't be heard: {e}", filter.pattern());
        BusError::new(Kind::Unavailable, message).caused_by(e)
    })?;
    let lattice = lattice.clone();
    tokio::spawn(async move {
        while ring.is_wanted() {
            match tokio::time::timeout(WANTED_EVERY, tail.next()).await {
                Ok(Tailed::Message(message)) => {
                    // what isn't an event of ours isn't told
                    let Ok(place) = EventPlace::parse(&message.subject) else {
                        continue;
                    };
                    match is_forged(&place, &message.payload) {
                        false => {
                            ring.push(place.subject, message.payload);
                        }
                        true => lattice.refused(None, Refused::ForgedEvent, &message.subject),
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

/// True of an event that says that another host tells it than the one whose subject it has.
fn is_forged(place: &EventPlace, payload: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Told {
        source: String,
    }
    let Some(host) = &place.host else { return false };
    let told = serde_json::from_slice::<Told>(payload);
    told.map_or(true, |told| told.source != format!("windlass://{host}"))
}

/// How often it is looked whether somebody still listens, while nothing happens.
const WANTED_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_told_by_the_host_of_its_subject() {
        let told = |place: &str, source: &str| {
            let payload = serde_json::json!({"source": source, "data": {}}).to_string();
            is_forged(&EventPlace::parse(place).unwrap(), payload.as_bytes())
        };
        assert!(!told("windlass.v1.event.a.b.h1", "windlass://h1"));
        assert!(told("windlass.v1.event.a.b.h1", "windlass://h2"));
        assert!(
            !told("windlass.v1.event.a.b", "windlass://h2"),
            "of an earlier windlass"
        );
        let place = EventPlace::parse("windlass.v1.event.a.b.h1").unwrap();
        assert!(is_forged(&place, b"no event"));
    }
}
