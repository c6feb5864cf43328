//! What every bus refuses, and what its askers hear: the same words whatever carries the message.

use bytes::Bytes;
use wire::subject::{EventFilter, Form};
use wire::{Headers, Subject};

use crate::{
    BUSY_RETRY_AFTER_MS, BusError, Kind, PAYLOAD_BYTES_MAX, REQUEST_TIMEOUT_MS_DEFAULT, REQUEST_TIMEOUT_MS_MAX, Service,
};

/// How long the asker waits, in milliseconds.
pub fn patience_ms(headers: &Headers) -> u64 {
    headers
        .timeout_ms
        .unwrap_or(REQUEST_TIMEOUT_MS_DEFAULT)
        .min(REQUEST_TIMEOUT_MS_MAX)
}

/// Refuses what no bus carries.
///
/// # Errors
/// `Invalid` over [`PAYLOAD_BYTES_MAX`].
pub fn check_payload(subject: &Subject, payload: &Bytes) -> Result<(), BusError> {
    if payload.len() <= PAYLOAD_BYTES_MAX {
        return Ok(());
    }
    Err(BusError::new(
        Kind::Invalid,
        format!(
            "the message to {subject} has {} bytes; at most {PAYLOAD_BYTES_MAX} are carried; nothing was sent",
            payload.len()
        ),
    ))
}

/// Refuses to ask an event.
///
/// # Errors
/// `Invalid`.
pub fn check_asked(subject: &Subject) -> Result<(), BusError> {
    match subject.form() {
        Form::Event => Err(BusError::new(
            Kind::Invalid,
            format!("{subject} is an event: it is published, not asked"),
        )),
        _ => Ok(()),
    }
}

/// Refuses to publish a request.
///
/// # Errors
/// `Invalid`.
pub fn check_published(subject: &Subject) -> Result<(), BusError> {
    match subject.form() {
        Form::Event => Ok(()),
        _ => Err(BusError::new(
            Kind::Invalid,
            format!("{subject} is not an event's subject; nothing was published"),
        )),
    }
}

/// Refuses a service without room.
///
/// # Errors
/// `Invalid`.
pub fn check_service(service: &Service) -> Result<(), BusError> {
    if service.queue_requests_max > 0 {
        return Ok(());
    }
    Err(BusError::new(
        Kind::Invalid,
        format!("can't serve {}: queue_requests_max is 0", service.concern),
    ))
}

/// Refuses a ring without room.
///
/// # Errors
/// `Invalid`.
pub fn check_ring(filter: &EventFilter, events_queued_max: usize) -> Result<(), BusError> {
    if events_queued_max > 0 {
        return Ok(());
    }
    Err(BusError::new(
        Kind::Invalid,
        format!("can't subscribe to {}: events_queued_max is 0", filter.pattern()),
    ))
}

/// Nobody serves the subject.
pub fn nobody(subject: &Subject) -> BusError {
    BusError::new(
        Kind::Unavailable,
        format!("nobody answers {subject}; nothing was carried out"),
    )
    .hint("see which concerns are up: windlass status")
}

/// The server's queue is full.
pub fn busy(subject: &Subject) -> BusError {
    BusError::new(
        Kind::Busy,
        format!("{subject} has as many requests waiting as it takes; nothing was carried out"),
    )
    .retry_after_ms(BUSY_RETRY_AFTER_MS)
}

/// The server went away with the request.
pub fn left(subject: &Subject) -> BusError {
    BusError::new(
        Kind::Unavailable,
        format!("the server of {subject} left before it answered; the work may have been done"),
    )
}

/// The asker's time is up.
pub fn late(subject: &Subject, timeout_ms: u64) -> BusError {
    BusError::new(
        Kind::Deadline,
        format!("no answer from {subject} within {timeout_ms} ms; the work may still be done"),
    )
}
