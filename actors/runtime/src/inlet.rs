//! Between the bus and a concern's mailbox: nothing is dropped in silence.

use std::sync::Arc;

use actix::Addr;
use actix::prelude::SendError;
use bus::{Delivery, Incoming, PAYLOAD_BYTES_MAX};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::house::ConcernState;
use wire::{Code, ErrorBody, Subject};

use crate::Clock;
use crate::concern::{Call, Concern};
use crate::job_runner::Runner;
use crate::keeper::{Keeper, Letter};
use crate::ledger::{Asked, Ledger, deadline_passed};
use crate::traced::{Traced, next_step};

/// Takes requests until `stop`, then refuses what the bus still had queued.
pub(crate) async fn run<A: Concern>(
    mut incoming: Incoming,
    keeper: Addr<Keeper<A>>,
    ledger: Arc<Ledger>,
    runner: Runner,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            delivery = incoming.next() => match delivery {
                Some(mut delivery) => {
                    let trace = next_step(delivery.headers.traceparent.as_deref(), &*clock);
                    delivery.headers.traceparent = Some(trace.to_string());
                    let traced = Traced::request(trace, A::NAME, delivery.subject.verb());
                    traced.clone().in_scope(|| take(delivery, traced, &keeper, &ledger, &runner));
                }
                // the bus itself ended
                None => return,
            },
        }
    }
    incoming.close();
    while let Some(delivery) = incoming.next().await {
        let asked = asked(&delivery.subject, delivery.responder);
        ledger.answer(asked, Err(ledger.unavailable()));
    }
}

fn asked(subject: &Subject, responder: bus::Responder) -> Asked {
    Asked {
        verb: subject.verb().to_owned(),
        began: Instant::now(),
        responder,
    }
}

fn take<A: Concern>(delivery: Delivery, traced: Traced, keeper: &Addr<Keeper<A>>, ledger: &Ledger, runner: &Runner) {
    let Delivery {
        subject,
        headers,
        payload,
        deadline,
        responder,
    } = delivery;
    let responder = asked(&subject, responder);
    if payload.len() > PAYLOAD_BYTES_MAX {
        let message = format!(
            "{subject}: {} bytes; at most {PAYLOAD_BYTES_MAX} are taken",
            payload.len()
        );
        return ledger.answer(responder, Err(ErrorBody::new(Code::Invalid, message)));
    }
    if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
        return ledger.answer(responder, Err(deadline_passed(A::NAME, subject.verb())));
    }
    if ledger.state() == ConcernState::Failed {
        return ledger.answer(responder, Err(ledger.unavailable()));
    }
    let Some(slot) = ledger.slot() else {
        return ledger.answer(responder, Err(ledger.busy()));
    };
    let letter = Letter {
        call: Call {
            verb: subject.verb().to_owned(),
            headers,
            deadline,
            traced,
            runner: runner.clone(),
        },
        payload,
        responder,
        slot,
    };
    match keeper.try_send(letter) {
        Ok(()) => {}
        Err(SendError::Full(letter)) => ledger.answer(letter.responder, Err(ledger.busy())),
        Err(SendError::Closed(letter)) => ledger.answer(letter.responder, Err(ledger.unavailable())),
    }
}
