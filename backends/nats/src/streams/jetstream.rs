//! The seam over async-nats.

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, Stream};
use async_nats::jetstream::{AckKind, Message};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use serde_json::Value;
use tokio::time::Instant;

use super::{Ack, Consumer, Delivered, Follows, NotStored, Outgoing, Pulls, Result, Stored, Streams};
use crate::error::{Kind, NatsError};
use crate::lattice::Lattice;
use crate::replies::NoAnswer;
use crate::tail::{Tail, Tailed};

/// The seam over a connection; clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Jetstream(pub(crate) Lattice);

fn unavailable(e: impl std::error::Error + Send + Sync + 'static) -> NatsError {
    NatsError::new(Kind::Unavailable, e.to_string()).caused_by(e)
}

fn header_map(headers: &[(&'static str, String)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(*name, value.as_str());
    }
    map
}

/// What is said of a message, in words of our own.
pub(crate) fn headers_of(map: Option<&HeaderMap>) -> Vec<(String, String)> {
    let Some(map) = map else { return vec![] };
    map.iter()
        .filter_map(|(name, values)| Some((name.to_string(), values.first()?.to_string())))
        .collect()
}

impl Jetstream {
    async fn stream(&self, name: &str) -> Result<Stream<()>> {
        // a handle; nothing is asked
        self.0.jetstream().get_stream_no_info(name).await.map_err(unavailable)
    }
}

fn not_stored(error: PublishError) -> NotStored {
    let words = error.to_string();
    match error.kind() {
        PublishErrorKind::WrongLastSequence => NotStored::Overtaken(words),
        PublishErrorKind::MaxPayloadExceeded => NotStored::TooLarge(words),
        PublishErrorKind::WrongLastMessageId => NotStored::Refused(words),
        PublishErrorKind::Other if words.contains("maximum messages exceeded") => NotStored::Full(words),
        PublishErrorKind::TimedOut
        | PublishErrorKind::BrokenPipe
        | PublishErrorKind::StreamNotFound
        | PublishErrorKind::MaxAckPending
        | PublishErrorKind::Other => NotStored::Unclear(words),
    }
}

#[async_trait]
impl Streams for Jetstream {
    fn ack_timeout(&self) -> Duration {
        Duration::from_millis(self.0.settings().ack_timeout_ms)
    }

    fn unique(&self) -> String {
        self.0.replies().unique()
    }

    async fn ask(&self, message: &Outgoing, deadline: Instant) -> std::result::Result<Bytes, NoAnswer> {
        let headers = header_map(&message.headers);
        let asked = self
            .0
            .replies()
            .ask(&message.subject, headers, message.payload.clone(), deadline);
        Ok(asked.await?.payload)
    }

    fn look_elsewhere(&self) {
        self.0.look_elsewhere();
    }

    async fn publish(&self, message: &Outgoing) -> std::result::Result<u64, NotStored> {
        let mut publish = PublishMessage::build().payload(message.payload.clone());
        if !message.headers.is_empty() {
            publish = publish.headers(header_map(&message.headers));
        }
        let sent = self.0.jetstream().send_publish(message.subject.clone(), publish).await;
        match sent.map_err(not_stored)?.await {
            Ok(ack) => Ok(ack.sequence),
            Err(e) => Err(not_stored(e)),
        }
    }

    async fn last(&self, stream: &'static str, subject: &str) -> Result<Option<Stored>> {
        match self
            .stream(stream)
            .await?
            .get_last_raw_message_by_subject(subject)
            .await
        {
            Ok(message) => Ok(Some(Stored {
                sequence: message.sequence,
                subject: message.subject.to_string(),
                headers: headers_of(Some(&message.headers)),
                payload: message.payload,
            })),
            Err(e) if e.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(e) => Err(unavailable(e)),
        }
    }

    async fn subjects(&self, stream: &'static str, filter: &str) -> Result<Vec<String>> {
        let stream = self.stream(stream).await?;
        let listed = stream.info_with_subjects(filter).await.map_err(unavailable)?;
        let named = listed.map_ok(|(subject, _one)| subject);
        named.try_collect().await.map_err(unavailable)
    }

    async fn count(&self, stream: &'static str) -> Result<u64> {
        let info = self.stream(stream).await?.get_info().await.map_err(unavailable)?;
        Ok(info.state.messages)
    }

    async fn time_ms(&self, stream: &'static str) -> Result<i128> {
        let asked = self.0.jetstream().request(format!("STREAM.INFO.{stream}"), &());
        let info: Value = asked.await.map_err(unavailable)?;
        let told = info["ts"]
            .as_str()
            .and_then(|ts| async_nats::datetime::parse_rfc3339(ts).ok());
        let told = told.ok_or_else(|| {
            NatsError::new(
                Kind::Unfit,
                "the NATS server doesn't tell its time; windlass needs 2.11 or newer",
            )
        })?;
        Ok(told.unix_timestamp_nanos() / 1_000_000)
    }

    async fn consumer(&self, stream: &'static str, consumer: Consumer) -> Result<Arc<dyn Pulls>> {
        let config = pull::Config {
            durable_name: Some(consumer.name),
            ack_policy: AckPolicy::Explicit,
            ack_wait: consumer.ack_wait,
            filter_subject: consumer.filter,
            max_deliver: -1,
            max_ack_pending: -1,
            max_waiting: consumer.pulls_max,
            ..pull::Config::default()
        };
        let made = self.stream(stream).await?.create_consumer(config).await;
        Ok(Arc::new(Queue(made.map_err(unavailable)?)))
    }

    fn follow(&self, stream: &'static str, filters: Vec<String>, seen: u64) -> Box<dyn Follows> {
        Box::new(Tail::after(&self.0, stream, filters, seen))
    }
}

#[derive(Debug)]
struct Queue(PullConsumer);

#[async_trait]
impl Pulls for Queue {
    async fn pull(&self, wait: Duration) -> Result<Option<Box<dyn Delivered>>> {
        let asked = self.0.batch().max_messages(1).expires(wait).messages();
        let mut batch = asked.await.map_err(unavailable)?;
        match batch.next().await {
            None => Ok(None),
            Some(Ok(message)) => Ok(Some(Box::new(message))),
            Some(Err(e)) => Err(NatsError::new(Kind::Unavailable, e.to_string())),
        }
    }
}

#[async_trait]
impl Delivered for Message {
    fn payload(&self) -> &Bytes {
        &self.payload
    }

    fn sequence(&self) -> Result<u64> {
        match self.info() {
            Ok(info) => Ok(info.stream_sequence),
            Err(e) => Err(NatsError::new(Kind::Corrupt, e.to_string())),
        }
    }

    async fn ack(&self, ack: Ack) -> Result<()> {
        let told = match ack {
            Ack::Progress => self.ack_with(AckKind::Progress).await,
            Ack::Back => self.ack_with(AckKind::Nak(None)).await,
            Ack::Done => self.double_ack().await,
        };
        told.map_err(|e| NatsError::new(Kind::Unavailable, e.to_string()))
    }
}

#[async_trait]
impl Follows for Tail {
    async fn next(&mut self) -> Tailed {
        Tail::next(self).await
    }
    fn seen(&self) -> u64 {
        Tail::seen(self)
    }
}
