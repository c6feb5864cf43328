//! The embedded bus: everything within one process, and still nothing but bytes between the two sides.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;
use wire::subject::EventFilter;
use wire::{Headers, Subject};

use crate::events::{EventSender, Events, event_ring};
use crate::incoming::{Delivery, Incoming, IncomingSender, NotQueued, Responder, incoming_queue};
use crate::{
    BUSY_RETRY_AFTER_MS, Bus, BusError, Kind, REQUEST_TIMEOUT_MS_DEFAULT, REQUEST_TIMEOUT_MS_MAX, Service,
    check_payload,
};

#[derive(Debug, Default)]
struct Registry {
    // by subject text; several servers of one cluster subject take turns
    servers: HashMap<String, Servers>,
    subscribers: Vec<(EventFilter, EventSender)>,
    next_id: u64,
}

#[derive(Debug, Default)]
struct Servers {
    senders: Vec<(u64, IncomingSender)>,
    turn: usize,
}

/// The bus of one process.
#[derive(Debug, Clone, Default)]
pub struct InProcess {
    registry: Arc<Mutex<Registry>>,
    events_lost: Arc<AtomicU64>,
}

impl InProcess {
    /// A bus without servers and subscribers.
    pub fn new() -> Self {
        Self::default()
    }
    /// Events that slow subscribers have lost since the start.
    pub fn events_lost(&self) -> u64 {
        self.events_lost.load(Ordering::Relaxed)
    }
    fn registry(&self) -> MutexGuard<'_, Registry> {
        // nothing panics under this lock, so a poisoned registry is still whole
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Whose turn it is for `subject`.
    fn pick(&self, subject: &str) -> Option<IncomingSender> {
        let mut registry = self.registry();
        let servers = registry.servers.get_mut(subject)?;
        servers.turn = servers.turn.wrapping_add(1);
        let turn = servers.turn % servers.senders.len().max(1);
        servers.senders.get(turn).map(|(_, sender)| sender.clone())
    }
    fn nobody(&self, subject: &Subject) -> BusError {
        let error = BusError::new(
            Kind::Unavailable,
            format!("nobody answers {subject}; nothing was carried out"),
        );
        error.hint("see which concerns are up: windlass status")
    }
}

#[async_trait]
impl Bus for InProcess {
    async fn request(&self, subject: &Subject, headers: Headers, payload: Bytes) -> Result<Bytes, BusError> {
        check_payload(subject, &payload)?;
        if matches!(subject, Subject::Event { .. }) {
            return Err(BusError::new(
                Kind::Invalid,
                format!("{subject} is an event: it is published, not asked"),
            ));
        }
        let text = subject.to_string();
        let timeout_ms = headers
            .timeout_ms
            .unwrap_or(REQUEST_TIMEOUT_MS_DEFAULT)
            .min(REQUEST_TIMEOUT_MS_MAX);
        let deadline = Instant::now() + Duration::from_millis(timeout_ms);
        let server = self.pick(&text).ok_or_else(|| self.nobody(subject))?;
        let (responder, answer) = Responder::new();
        server
            .offer(received(&text, &headers, payload, deadline, responder)?)
            .map_err(|e| match e {
                NotQueued::Gone => self.nobody(subject),
                NotQueued::Full => BusError::new(
                    Kind::Busy,
                    format!("{subject} has as many requests waiting as it takes; nothing was carried out"),
                )
                .retry_after_ms(BUSY_RETRY_AFTER_MS),
            })?;
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(_dropped)) => Err(BusError::new(
                Kind::Unavailable,
                format!("the server of {subject} left before it answered; the work may have been done"),
            )),
            Err(_elapsed) => Err(BusError::new(
                Kind::Deadline,
                format!("no answer from {subject} within {timeout_ms} ms; the work may still be done"),
            )),
        }
    }

    async fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), BusError> {
        check_payload(subject, &payload)?;
        let subject = match reparsed(&subject.to_string())? {
            event @ Subject::Event { .. } => event,
            other => {
                return Err(BusError::new(
                    Kind::Invalid,
                    format!("{other} is not an event's subject; nothing was published"),
                ));
            }
        };
        let mut registry = self.registry();
        registry.subscribers.retain(|(filter, ring)| {
            if !filter.wants(&subject) {
                return ring.is_wanted();
            }
            let lost_before = ring.lost_total();
            let alive = ring.push(subject.clone(), payload.clone());
            self.events_lost
                .fetch_add(ring.lost_total() - lost_before, Ordering::Relaxed);
            alive
        });
        Ok(())
    }

    async fn serve(&self, service: Service) -> Result<Incoming, BusError> {
        if service.queue_requests_max == 0 {
            return Err(BusError::new(
                Kind::Invalid,
                format!("can't serve {}: queue_requests_max is 0", service.concern),
            ));
        }
        let subjects: Vec<String> = service.subjects()?.iter().map(ToString::to_string).collect();
        let mut registry = self.registry();
        registry.next_id += 1;
        let id = registry.next_id;
        let (weak, listed) = (Arc::downgrade(&self.registry), subjects.clone());
        let (sender, incoming) = incoming_queue(service.queue_requests_max, move || {
            if let Some(registry) = weak.upgrade() {
                let mut registry = registry.lock().unwrap_or_else(PoisonError::into_inner);
                forget_server(&mut registry, &listed, id);
            }
        });
        for subject in subjects {
            registry
                .servers
                .entry(subject)
                .or_default()
                .senders
                .push((id, sender.clone()));
        }
        Ok(incoming)
    }

    async fn subscribe(&self, filter: EventFilter, events_queued_max: usize) -> Result<Events, BusError> {
        if events_queued_max == 0 {
            return Err(BusError::new(
                Kind::Invalid,
                format!("can't subscribe to {}: events_queued_max is 0", filter.pattern()),
            ));
        }
        let (sender, events) = event_ring(events_queued_max);
        self.registry().subscribers.push((filter, sender));
        Ok(events)
    }
}

fn forget_server(registry: &mut Registry, subjects: &[String], id: u64) {
    for subject in subjects {
        if let Some(servers) = registry.servers.get_mut(subject) {
            servers.senders.retain(|(other, _)| *other != id);
            if servers.senders.is_empty() {
                registry.servers.remove(subject);
            }
        }
    }
}

/// What arrives on the other side: everything is read back from its text, as after a network.
fn received(
    subject: &str,
    headers: &Headers,
    payload: Bytes,
    deadline: Instant,
    responder: Responder,
) -> Result<Delivery, BusError> {
    let pairs = headers.pairs();
    let headers = Headers::from_pairs(pairs.iter().map(|(name, value)| (*name, value.as_str())))
        .map_err(|e| BusError::new(Kind::Invalid, format!("{subject}: {e}; nothing was sent")))?;
    Ok(Delivery {
        subject: reparsed(subject)?,
        headers,
        payload,
        deadline: Some(deadline),
        responder,
    })
}

fn reparsed(subject: &str) -> Result<Subject, BusError> {
    Subject::parse(subject).map_err(|e| BusError::new(Kind::Invalid, e.to_string()).caused_by(e))
}
