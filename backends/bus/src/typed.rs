//! The typed way to use a bus.

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use wire::event::CloudEvent;
use wire::{Answer, Code, ErrorBody, Headers, HostId, Request, Subject, Topic};

use crate::{Bus, BusError, Kind, PAYLOAD_BYTES_MAX, trace};

/// Asks with a typed request. `host` counts only for host-addressed verbs.
///
/// # Errors
/// The server's error as it answered it, or the bus's own turned into one.
pub async fn call<R: Request>(
    bus: &dyn Bus,
    host: &HostId,
    request: &R,
    headers: Headers,
) -> Result<R::Reply, ErrorBody> {
    let subject = R::subject(host).map_err(|e| ErrorBody::new(Code::Invalid, e.to_string()))?;
    let payload = encode(&subject, request)?;
    let answer = bus.request(&subject, in_trace(headers), payload).await?;
    read_answer::<R::Reply>(&subject, &answer)
}

/// Asks with any JSON, as `windlass send` does.
///
/// # Errors
/// As [`call`].
pub async fn call_json(
    bus: &dyn Bus,
    subject: &Subject,
    request: &Value,
    headers: Headers,
) -> Result<Value, ErrorBody> {
    let payload = encode(subject, request)?;
    let answer = bus.request(subject, in_trace(headers), payload).await?;
    read_answer::<Value>(subject, &answer)
}

/// Headers that name no trace get that of the present task.
fn in_trace(mut headers: Headers) -> Headers {
    if headers.traceparent.is_none() {
        headers.traceparent = trace::current().map(|trace| trace.to_string());
    }
    headers
}

/// An event with the trace that it was published in.
#[derive(Serialize)]
struct Traced<'a, T> {
    #[serde(flatten)]
    event: &'a CloudEvent<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
}

/// Publishes a typed event.
///
/// # Errors
/// `Invalid` when it can't be encoded or is too large.
pub async fn announce<T: Topic>(bus: &dyn Bus, event: &CloudEvent<T>) -> Result<(), BusError> {
    let subject = T::subject().map_err(|e| BusError::new(Kind::Invalid, e.to_string()))?;
    let traceparent = match event.traceparent {
        None => trace::current().map(|trace| trace.to_string()),
        Some(_) => None,
    };
    let payload = serde_json::to_vec(&Traced { event, traceparent }).map_err(|e| {
        BusError::new(
            Kind::Invalid,
            format!("the event for {subject} can't be encoded; nothing was published"),
        )
        .caused_by(e)
    })?;
    bus.publish(&subject, payload.into()).await
}

/// Encodes an answer; one that is too large for the bus becomes an `internal` error that says so.
pub fn answer_bytes(result: Result<Value, ErrorBody>) -> Bytes {
    match result {
        Ok(value) => reply_bytes(&value).expect("JSON values always encode"),
        Err(error) => error_bytes(error),
    }
}

/// Encodes a reply as an answer; one that is too large for the bus becomes an `internal` error that says so.
///
/// # Errors
/// When it has something that JSON hasn't, such as a map whose keys aren't text.
pub fn reply_bytes<T: Serialize>(reply: &T) -> Result<Bytes, serde_json::Error> {
    let bytes = serde_json::to_vec(&Answer::Ok(reply))?;
    if bytes.len() <= PAYLOAD_BYTES_MAX {
        return Ok(bytes.into());
    }
    Ok(error_bytes(too_large(bytes.len())))
}

/// Encodes an error as an answer; one that is too large for the bus becomes another, which says so.
pub fn error_bytes(error: ErrorBody) -> Bytes {
    let encoded = |error: ErrorBody| {
        serde_json::to_vec(&Answer::<()>::Error(error))
            .expect("an error holds only text and numbers, which always encode")
    };
    let bytes = encoded(error);
    match bytes.len() <= PAYLOAD_BYTES_MAX {
        true => bytes.into(),
        false => encoded(too_large(bytes.len())).into(),
    }
}

fn too_large(bytes: usize) -> ErrorBody {
    let message =
        format!("the answer has {bytes} bytes; at most {PAYLOAD_BYTES_MAX} are carried; the request was carried out");
    ErrorBody::new(Code::Internal, message)
}

fn encode(subject: &Subject, request: &impl Serialize) -> Result<Bytes, ErrorBody> {
    serde_json::to_vec(request).map(Bytes::from).map_err(|e| {
        ErrorBody::new(
            Code::Invalid,
            format!("the request to {subject} can't be encoded: {e}; nothing was sent"),
        )
    })
}

fn read_answer<T: serde::de::DeserializeOwned>(subject: &Subject, bytes: &[u8]) -> Result<T, ErrorBody> {
    serde_json::from_slice::<Answer<T>>(bytes)
        .map_err(|e| {
            ErrorBody::new(
                Code::Internal,
                format!("the answer from {subject} can't be read: {e}; the request may have been carried out"),
            )
            .hint("compare the versions of both sides: windlass status")
        })?
        .into_result()
}
