//! A bus whose requests are signed where they change something, and heard only when a member signed them.
//!
//! Each host remembers what it heard, so a request to one host has one effect however often it is sent. A request that any host may
//! answer could be sent again to another one. So whoever gets it claims its nonce in the state that hosts share, before it is
//! carried out; where the concern itself keeps request ids (`ChangesOnce`), the signed request id does that, and saves the write.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bus::rules::{busy, nobody};
use bus::{
    Bus, BusError, Delivery, Events, Incoming, IncomingSender, Kind, NotQueued, Registration, Service, error_bytes,
    incoming_queue,
};
use bytes::Bytes;
use futures::FutureExt;
use state::{Key, State};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use wire::subject::{EventFilter, Form};
use wire::{Code, ErrorBody, Headers, Intent, Subject};

use crate::core::refusal::Refusal;
use crate::core::stamp::{Nonce, Stamp};
use crate::fleet::Fleet;

/// Where nonces are claimed.
pub(crate) const CLAIMS: &str = "nonces";
/// How long a claim stands, in milliseconds: longer than a request is in time, to both sides of the clock.
const CLAIM_MS: u64 = 300_000;
/// Claims under way at once; who comes beyond hears `busy`.
const CLAIMS_AT_ONCE_MAX: usize = 1_024;

/// What each verb of the catalog does.
type Intents = HashMap<(&'static str, &'static str), Intent>;

fn intents() -> Intents {
    let endpoints = wire::catalog::endpoints().into_iter();
    endpoints.map(|e| ((e.concern, e.verb), e.intent)).collect()
}

/// What nobody has described is taken to change something.
fn intent_of(intents: &Intents, subject: &Subject) -> Intent {
    let known = intents.get(&(subject.concern(), subject.verb()));
    known.copied().unwrap_or(Intent::Changes)
}

/// The decorator.
#[derive(Debug)]
pub struct SignedBus {
    inner: Arc<dyn Bus>,
    fleet: Fleet,
    claims: Option<Claims>,
    intents: Arc<Intents>,
}

/// Where nonces of requests to any host are claimed.
#[derive(Debug, Clone)]
struct Claims {
    state: Arc<dyn State>,
    /// This process: who claims twice is found by its own memory.
    holder: String,
    room: Arc<Semaphore>,
}

impl SignedBus {
    /// A bus for one who asks, and serves nothing.
    pub fn asking(inner: Arc<dyn Bus>, fleet: Fleet) -> Self {
        Self {
            inner,
            fleet,
            claims: None,
            intents: Arc::new(intents()),
        }
    }

    /// A bus for a host; `boot` names its process, `state` is what hosts share.
    pub fn serving(inner: Arc<dyn Bus>, fleet: Fleet, state: Arc<dyn State>, boot: String) -> Self {
        let claims = Claims {
            state,
            holder: boot,
            room: Arc::new(Semaphore::new(CLAIMS_AT_ONCE_MAX)),
        };
        Self {
            claims: Some(claims),
            ..Self::asking(inner, fleet)
        }
    }

    #[cfg(test)]
    pub(crate) fn fleet_of_test(&self) -> &Fleet {
        &self.fleet
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Bus for SignedBus {
    async fn request(&self, subject: &Subject, mut headers: Headers, payload: Bytes) -> Result<Bytes, BusError> {
        // whatever came from outside of this process stands for nothing here
        (headers.authority, headers.sender) = (None, None);
        if intent_of(&self.intents, subject).is_signed() {
            let signed = self.fleet.sign_request(subject, &mut headers, &payload);
            signed.map_err(|reason| {
                let why =
                    format!("{subject} changes something, and this place has no key of a member; nothing was sent");
                BusError::new(Kind::Denied, why).hint(reason.hint())
            })?;
        }
        self.inner.request(subject, headers, payload).await
    }

    async fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), BusError> {
        self.inner.publish(subject, payload).await
    }

    async fn serve(&self, service: Service) -> Result<Incoming, BusError> {
        let requests_max = service.queue_requests_max;
        let incoming = self.inner.serve(service).await?;
        let place = Arc::new(Mutex::new(None::<Registration>));
        let closed = place.clone();
        let (queue, outer) = incoming_queue(requests_max, move || {
            // nothing panics under this lock
            let registration = closed.lock().unwrap_or_else(PoisonError::into_inner).take();
            match registration {
                Some(mut registration) => registration.close(),
                None => std::future::ready(()).boxed(),
            }
        });
        let door = Door {
            fleet: self.fleet.clone(),
            claims: self.claims.clone(),
            intents: self.intents.clone(),
            queue,
            handle: Handle::current(),
        };
        let registration = incoming.forward(move |delivery| door.take(delivery)).await;
        *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(registration);
        Ok(outer)
    }

    async fn subscribe(&self, filter: EventFilter, events_queued_max: usize) -> Result<Events, BusError> {
        self.inner.subscribe(filter, events_queued_max).await
    }
}

/// Looks at each delivery before it is queued.
struct Door {
    fleet: Fleet,
    claims: Option<Claims>,
    intents: Arc<Intents>,
    queue: IncomingSender,
    handle: Handle,
}

impl Door {
    fn take(&self, mut delivery: Delivery) {
        delivery.headers.sender = None;
        let intent = intent_of(&self.intents, &delivery.subject);
        if !intent.is_signed() {
            return offer(&self.queue, delivery);
        }
        let heard = self
            .fleet
            .hear_request(&delivery.subject, &delivery.headers, &delivery.payload);
        let stamp = match heard {
            Ok(stamp) => stamp,
            Err(reason) => return refuse(&self.fleet, delivery, reason),
        };
        if let Some(error) = self.fleet.lacks_role(&stamp.sender, &delivery.subject) {
            let (subject, authority) = (delivery.subject.as_str(), delivery.headers.authority.as_deref());
            self.fleet.refuse(subject, authority, Refusal::Unauthorised);
            return delivery.responder.answer(error_bytes(error));
        }
        delivery.headers.sender = Some(stamp.sender.clone());
        let once = intent == Intent::ChangesOnce && delivery.headers.request_id.is_some();
        match &self.claims {
            Some(claims) if delivery.subject.form() == Form::Cluster && !once => self.claim(claims, &stamp, delivery),
            _ => offer(&self.queue, delivery),
        }
    }

    fn claim(&self, claims: &Claims, stamp: &Stamp, delivery: Delivery) {
        let Ok(room) = claims.room.clone().try_acquire_owned() else {
            let error = busy(&delivery.subject);
            return delivery.responder.answer(error_bytes(error.into()));
        };
        let (claims, nonce, queue, fleet) = (claims.clone(), stamp.nonce, self.queue.clone(), self.fleet.clone());
        self.handle.spawn(async move {
            match claims.claim(&nonce).await {
                Ok(()) => offer(&queue, delivery),
                Err(e) if e.kind == state::Kind::Conflict => refuse(&fleet, delivery, Refusal::Replayed),
                Err(e) => {
                    let why = format!(
                        "{}: whether it was heard before can't be known now: {e}",
                        delivery.subject
                    );
                    let error = ErrorBody::new(Code::Unavailable, format!("{why}; nothing was carried out"));
                    delivery.responder.answer(error_bytes(error));
                }
            }
            drop(room);
        });
    }
}

impl Claims {
    async fn claim(&self, nonce: &Nonce) -> state::Result<()> {
        let key = Key::new(format!("{CLAIMS}/{}", hex::encode(nonce)))?;
        self.state.lease(&key, &self.holder, CLAIM_MS).await.map(|_| ())
    }
}

fn offer(queue: &IncomingSender, delivery: Delivery) {
    let (delivery, error) = match queue.offer(delivery) {
        Ok(()) => return,
        Err(NotQueued::Full(delivery)) => {
            let error = busy(&delivery.subject);
            (delivery, error)
        }
        Err(NotQueued::Gone(delivery)) => {
            let error = nobody(&delivery.subject);
            (delivery, error)
        }
    };
    delivery.responder.answer(error_bytes(error.into()));
}

fn refuse(fleet: &Fleet, delivery: Delivery, reason: Refusal) {
    let subject = delivery.subject.as_str();
    fleet.refuse(subject, delivery.headers.authority.as_deref(), reason);
    let error = reason.error(subject);
    delivery.responder.answer(error_bytes(error));
}
