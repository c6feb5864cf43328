//! Between the bus and a concern's mailbox: nothing is dropped in silence.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use actix::Addr;
use bus::{Delivery, Incoming, PAYLOAD_BYTES_MAX, Registration};
use futures::future::BoxFuture;
use wire::house::ConcernState;
use wire::{Code, ErrorBody, Headers};

use crate::Clock;
use crate::concern::Concern;
use crate::keeper::{Keeper, Letter, Look};
use crate::ledger::{Asked, Ledger, deadline_passed};
use crate::shelf::{Put, Shelf};
use crate::traced::{deciding, next_step};

/// Takes requests for a concern until it is closed, then refuses what the bus still brings.
#[derive(Debug)]
pub(crate) struct Inlet {
    is_closed: Arc<AtomicBool>,
    registration: Mutex<Registration>,
}

/// What the bus hands its deliveries to, on its own thread.
struct Taker<A: Concern> {
    keeper: Addr<Keeper<A>>,
    shelf: Arc<Shelf>,
    ledger: Arc<Ledger>,
    clock: Arc<dyn Clock>,
    is_closed: Arc<AtomicBool>,
}

impl Inlet {
    pub(crate) async fn open<A: Concern>(
        incoming: Incoming,
        keeper: Addr<Keeper<A>>,
        shelf: Arc<Shelf>,
        ledger: Arc<Ledger>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let is_closed = Arc::<AtomicBool>::default();
        let taker = Taker {
            keeper,
            shelf,
            ledger,
            clock,
            is_closed: is_closed.clone(),
        };
        let registration = incoming.forward(move |delivery| taker.take(delivery)).await;
        Self {
            is_closed,
            registration: Mutex::new(registration),
        }
    }

    /// Takes nothing more; what it gives ends when the bus brings nothing any more.
    pub(crate) fn close(&self) -> BoxFuture<'static, ()> {
        self.is_closed.store(true, Ordering::Release);
        // nothing panics under this lock
        self.registration.lock().unwrap_or_else(PoisonError::into_inner).close()
    }
}

impl<A: Concern> Taker<A> {
    fn take(&self, delivery: Delivery) {
        let refused = self.refuses(&delivery);
        let Delivery {
            subject,
            headers,
            payload,
            arrived,
            deadline,
            responder,
        } = delivery;
        let asked = Asked {
            subject,
            arrived,
            responder,
        };
        let slot = match refused.map_or_else(|| self.ledger.slot().ok_or_else(|| self.ledger.busy()), Err) {
            Ok(slot) => slot,
            Err(refused) => return self.answer(&headers, asked, refused),
        };
        let letter = Letter {
            asked,
            headers,
            payload,
            deadline,
            slot,
        };
        match self.shelf.put(letter) {
            Put::Behind => {}
            Put::First => {
                if self.keeper.try_send(Look).is_err() {
                    // its thread has ended without a word, or hears nothing any more
                    self.shelf.close().into_iter().for_each(|letter| self.give_back(letter));
                }
            }
            Put::Closed(letter) => self.give_back(*letter),
        }
    }

    fn refuses(&self, delivery: &Delivery) -> Option<ErrorBody> {
        if self.is_closed.load(Ordering::Acquire) || self.ledger.state() == ConcernState::Failed {
            return Some(self.ledger.unavailable());
        }
        let (subject, bytes) = (&delivery.subject, delivery.payload.len());
        if bytes > PAYLOAD_BYTES_MAX {
            let message = format!("{subject}: {bytes} bytes; at most {PAYLOAD_BYTES_MAX} are taken");
            return Some(ErrorBody::new(Code::Invalid, message));
        }
        if delivery.deadline.is_some_and(|deadline| deadline <= delivery.arrived) {
            return Some(deadline_passed(A::NAME, subject.verb()));
        }
        None
    }

    fn give_back(&self, letter: Letter) {
        self.answer(&letter.headers, letter.asked, self.ledger.unavailable());
    }

    /// A refusal has its trace in the log, too.
    fn answer(&self, headers: &Headers, asked: Asked, refused: ErrorBody) {
        let trace = next_step(headers.traceparent.as_deref(), &*self.clock);
        let subject = asked.subject.clone();
        deciding(trace, A::NAME, &subject, || self.ledger.answer(asked, Err(refused)));
    }
}
