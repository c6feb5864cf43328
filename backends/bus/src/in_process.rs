//! The embedded bus: everything within one process, and still nothing but bytes between the two sides. Subjects and headers
//! that a network would refuse are refused here too: a subject when it is served, headers when they are sent.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use tokio::time::Instant;
use wire::subject::EventFilter;
use wire::{Headers, Subject};

use crate::events::{EventSender, Events, event_ring};
use crate::incoming::{Delivery, Incoming, IncomingSender, NotQueued, Responder, incoming_queue};
use crate::rules::{
    busy, check_asked, check_payload, check_published, check_ring, check_service, late, left, nobody, patience_ms,
};
use crate::{Bus, BusError, Kind, Service};

#[derive(Debug, Default)]
struct Registry {
    // several servers of one cluster subject take turns
    servers: HashMap<Subject, Servers>,
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
    fn pick(&self, subject: &Subject) -> Option<IncomingSender> {
        let mut registry = self.registry();
        let servers = registry.servers.get_mut(subject)?;
        servers.turn = servers.turn.wrapping_add(1);
        let turn = servers.turn % servers.senders.len().max(1);
        servers.senders.get(turn).map(|(_, sender)| sender.clone())
    }
}

#[async_trait]
impl Bus for InProcess {
    async fn request(&self, subject: &Subject, headers: Headers, payload: Bytes) -> Result<Bytes, BusError> {
        check_payload(subject, &payload)?;
        check_asked(subject)?;
        let timeout_ms = patience_ms(&headers);
        let arrived = Instant::now();
        let deadline = arrived + Duration::from_millis(timeout_ms);
        let headers = read_back(subject, headers)?;
        let server = self.pick(subject).ok_or_else(|| nobody(subject))?;
        let (responder, answer) = Responder::new();
        server
            .offer(Delivery {
                subject: subject.clone(),
                headers,
                payload,
                arrived,
                deadline: Some(deadline),
                responder,
            })
            .map_err(|e| match e {
                NotQueued::Gone(_) => nobody(subject),
                NotQueued::Full(_) => busy(subject),
            })?;
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(_dropped)) => Err(left(subject)),
            Err(_elapsed) => Err(late(subject, timeout_ms)),
        }
    }

    async fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), BusError> {
        check_payload(subject, &payload)?;
        check_published(subject)?;
        let subject = reparsed(&subject.to_string())?;
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
        check_service(&service)?;
        let subjects = service.subjects()?;
        let subjects: Vec<Subject> = subjects
            .iter()
            .map(|subject| reparsed(&subject.to_string()))
            .collect::<Result<_, _>>()?;
        let mut registry = self.registry();
        registry.next_id += 1;
        let id = registry.next_id;
        let (weak, listed) = (Arc::downgrade(&self.registry), subjects.clone());
        let (sender, incoming) = incoming_queue(service.queue_requests_max, move || {
            if let Some(registry) = weak.upgrade() {
                let mut registry = registry.lock().unwrap_or_else(PoisonError::into_inner);
                forget_server(&mut registry, &listed, id);
            }
            // what is offered is offered by then
            std::future::ready(()).boxed()
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
        check_ring(&filter, events_queued_max)?;
        let (sender, events) = event_ring(events_queued_max);
        self.registry().subscribers.push((filter, sender));
        Ok(events)
    }
}

fn forget_server(registry: &mut Registry, subjects: &[Subject], id: u64) {
    for subject in subjects {
        if let Some(servers) = registry.servers.get_mut(subject) {
            servers.senders.retain(|(other, _)| *other != id);
            if servers.senders.is_empty() {
                registry.servers.remove(subject);
            }
        }
    }
}

/// The headers as they arrive on the other side: read back from their text, as after a network.
fn read_back(subject: &Subject, headers: Headers) -> Result<Headers, BusError> {
    if headers.request_id.is_none() && headers.traceparent.is_none() && headers.authority.is_none() {
        // a number survives its text
        return Ok(headers);
    }
    let pairs = headers.pairs();
    Headers::from_pairs(pairs.iter().map(|(name, value)| (*name, value.as_str())))
        .map_err(|e| BusError::new(Kind::Invalid, format!("{subject}: {e}; nothing was sent")))
}

fn reparsed(subject: &str) -> Result<Subject, BusError> {
    Subject::parse(subject).map_err(|e| BusError::new(Kind::Invalid, e.to_string()).caused_by(e))
}
