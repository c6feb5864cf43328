//! Hosts a concern on its own thread and outlives it.
//!
//! The keeper is the actor; the concern is a value in it. A panic of the concern (in a handler, in an effect, in the
//! decision after it, in the factory, in `observed`, in its drop) is caught here, so the keeper's queue survives.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, WrapFuture};
use bytes::Bytes;
use futures::FutureExt;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use wire::house::ConcernState;
use wire::{Code, ErrorBody};

use crate::clock::Clock;
use crate::concern::{Call, Concern, Effect, Finish, Routes};
use crate::job_runner::Runner;
use crate::ledger::{Asked, Ledger, deadline_passed};
use crate::restart::{Budget, Verdict};
use crate::rounds::Round;
use crate::{Limits, Slot};

/// Room in an actor's mailbox beside the letters: for `Observe`, `Renew`, `Drain` and `Stop`. The ledger's slots are the real
/// bound of letters.
pub(crate) const MAILBOX_SPARE: usize = 16;

/// One request on its way to the concern; holds its place in the mailbox.
pub(crate) struct Letter {
    pub(crate) call: Call,
    pub(crate) payload: Bytes,
    pub(crate) responder: Asked,
    pub(crate) slot: Slot,
}

/// Asks what the concern says of itself.
pub(crate) struct Observe;
/// Live by other limits from now on, and be built anew as soon as nothing is under way.
pub(crate) struct Renew(pub(crate) Limits);
/// Take nothing new; tell when all is answered.
pub(crate) struct Drain(pub(crate) oneshot::Sender<()>);
/// Answer what is left `unavailable`, and end.
pub(crate) struct Stop;

impl Message for Letter {
    type Result = ();
}
impl Message for Observe {
    type Result = Option<Value>;
}
impl Message for Renew {
    type Result = ();
}
impl Message for Drain {
    type Result = ();
}
impl Message for Stop {
    type Result = ();
}

/// Told to the house when a concern has spent its restart budget.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) concern: &'static str,
    pub(crate) deaths: u64,
    pub(crate) cause: String,
}

pub(crate) struct Keeper<A: Concern> {
    factory: Box<dyn Fn() -> A>,
    routes: Routes<A>,
    concern: Option<A>,
    // which of the concerns built so far this is: an effect of an earlier one decides nothing any more
    generation: u64,
    queue: VecDeque<Letter>,
    in_flight: usize,
    renewing: bool,
    budget: Budget,
    ledger: Arc<Ledger>,
    runner: Runner,
    rounds: watch::Sender<Option<Round>>,
    clock: Arc<dyn Clock>,
    failures: mpsc::Sender<Failed>,
    drained: Vec<oneshot::Sender<()>>,
}

type Ctx<A> = Context<Keeper<A>>;
type Unwound = Box<dyn Any + Send>;

impl<A: Concern> Keeper<A> {
    pub(crate) fn new(
        factory: Box<dyn Fn() -> A>,
        ledger: Arc<Ledger>,
        runner: Runner,
        rounds: watch::Sender<Option<Round>>,
        clock: Arc<dyn Clock>,
        failures: mpsc::Sender<Failed>,
    ) -> Self {
        Self {
            factory,
            routes: A::routes(),
            concern: None,
            generation: 0,
            queue: VecDeque::new(),
            in_flight: 0,
            renewing: false,
            budget: Budget::new(ledger.limits().restart),
            ledger,
            runner,
            rounds,
            clock,
            failures,
            drained: Vec::new(),
        }
    }

    /// Takes up messages in their order, as many as may be under way.
    fn pump(&mut self, ctx: &mut Ctx<A>) {
        if self.renewing && self.drained.is_empty() && !self.renew(ctx) {
            return;
        }
        while self.in_flight < self.ledger.limits().in_flight_max {
            let Some(mut concern) = self.concern.take() else { break };
            let Some(letter) = self.queue.pop_front() else {
                self.concern = Some(concern);
                break;
            };
            let Letter {
                call,
                payload,
                responder,
                slot,
            } = letter;
            drop(slot);
            if call.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                self.concern = Some(concern);
                self.ledger.answer(responder, Err(deadline_passed(A::NAME, &call.verb)));
                continue;
            }
            let traced = call.traced.clone();
            traced.in_scope(|| {
                let decided = catch_unwind(AssertUnwindSafe(|| self.routes.handle(&mut concern, &call, &payload)));
                self.concern = Some(concern);
                match decided {
                    Ok(Ok(effect)) => self.begin(effect, call, responder, ctx),
                    Ok(Err(refused)) => self.ledger.answer(responder, Err(refused)),
                    Err(unwound) => self.handler_died(&call, responder, unwound, ctx),
                }
            });
        }
        self.tell_drained();
    }

    /// A successor, once nothing is under way; false until then.
    fn renew(&mut self, ctx: &mut Ctx<A>) -> bool {
        if self.in_flight > 0 {
            return false;
        }
        self.renewing = false;
        // one that died is built by its own hour, with what the factory finds then
        if let Some(remains) = self.concern.take() {
            self.generation += 1;
            let _a_panic_at_its_end_changes_nothing = catch_unwind(AssertUnwindSafe(move || drop(remains)));
            self.build(ctx);
        }
        true
    }

    fn begin(&mut self, effect: Effect<A, Value>, call: Call, responder: Asked, ctx: &mut Ctx<A>) {
        let generation = self.generation;
        let mut future = effect.into_future();
        let guarded = async move {
            let finish = AssertUnwindSafe(&mut future).catch_unwind().await;
            // what a future holds may panic once more when it is dropped
            let dropped = catch_unwind(AssertUnwindSafe(move || drop(future)));
            finish.and_then(|finish| dropped.map(|()| finish))
        };
        let mut running = Box::pin(call.traced.run(guarded));
        // what is known at once needs no further turn of this thread
        if let Some(finish) = (&mut running).now_or_never() {
            return self.end(finish, generation, &call, responder, ctx);
        }
        self.in_flight += 1;
        ctx.spawn(running.into_actor(self).map(move |finish, keeper, ctx| {
            keeper.in_flight -= 1;
            let traced = call.traced.clone();
            traced.in_scope(|| keeper.end(finish, generation, &call, responder, ctx));
            keeper.pump(ctx);
        }));
    }

    fn end(
        &mut self,
        finish: Result<Finish<A, Value>, Unwound>,
        generation: u64,
        call: &Call,
        responder: Asked,
        ctx: &mut Ctx<A>,
    ) {
        let decide = match finish {
            Ok(Finish::Answer(result)) => return self.ledger.answer(responder, result),
            Ok(Finish::Decide(decide)) => decide,
            Err(unwound) => return self.handler_died(call, responder, unwound, ctx),
        };
        let Some(concern) = self.concern.as_mut().filter(|_| generation == self.generation) else {
            let lost = format!(
                "{} died while it carried out {}; what had begun may be done in part",
                A::NAME,
                call.verb
            );
            return self.ledger.answer(responder, Err(ErrorBody::new(Code::Internal, lost)));
        };
        match catch_unwind(AssertUnwindSafe(|| decide(concern))) {
            Ok(result) => self.ledger.answer(responder, result),
            Err(unwound) => self.handler_died(call, responder, unwound, ctx),
        }
    }

    /// The message at fault is answered, then the concern is buried.
    fn handler_died(&mut self, call: &Call, responder: Asked, unwound: Unwound, ctx: &mut Ctx<A>) {
        let why = panic_text(unwound);
        let message = format!(
            "{}.{} panicked: {why}; what had begun may be done in part",
            A::NAME,
            call.verb
        );
        self.ledger.answer(
            responder,
            Err(ErrorBody::new(Code::Internal, message).hint("windlass status; the log has more")),
        );
        self.died("panic", &why, ctx);
    }

    fn died(&mut self, cause: &str, why: &str, ctx: &mut Ctx<A>) {
        self.generation += 1;
        let remains = self.concern.take();
        let _a_second_panic_changes_nothing = catch_unwind(AssertUnwindSafe(move || drop(remains)));
        self.ledger.count_death(cause);
        match self.budget.died(self.clock.monotonic_ms()) {
            Verdict::Rebuild { after_ms } => {
                tracing::error!(
                    concern = A::NAME,
                    cause,
                    why,
                    after_ms,
                    "concern died; its successor follows"
                );
                self.set_state_unless_draining(ConcernState::Restarting);
                let generation = self.generation;
                ctx.run_later(Duration::from_millis(after_ms), move |keeper, ctx| {
                    if keeper.generation == generation {
                        keeper.build(ctx);
                    }
                });
            }
            Verdict::Spent => self.fail(cause, why),
        }
    }

    fn build(&mut self, ctx: &mut Ctx<A>) {
        let built = catch_unwind(AssertUnwindSafe(|| {
            let concern = (self.factory)();
            let (kinds, round) = (concern.jobs(), concern.round());
            (concern, kinds, round)
        }));
        match built {
            Ok((concern, kinds, round)) => {
                self.concern = Some(concern);
                self.runner.renew(kinds);
                // who drains begins nothing
                self.rounds.send_replace(round.filter(|_| self.drained.is_empty()));
                self.set_state_unless_draining(ConcernState::Up);
                self.pump(ctx);
            }
            Err(unwound) => self.died("factory_panic", &panic_text(unwound), ctx),
        }
    }

    fn fail(&mut self, cause: &str, why: &str) {
        let deaths = self.budget.deaths();
        let restart = self.ledger.limits().restart;
        tracing::error!(
            concern = A::NAME,
            cause,
            why,
            deaths,
            "concern failed: its restart budget is spent"
        );
        let because = format!(
            ": it died {deaths} times within {} s, last of {cause} ({why})",
            restart.window_s
        );
        self.ledger.set_state(ConcernState::Failed, &because);
        self.rounds.send_replace(None);
        self.refuse_queue();
        let failed = Failed {
            concern: A::NAME,
            deaths,
            cause: cause.to_owned(),
        };
        if let Err(e) = self.failures.try_send(failed) {
            tracing::warn!(concern = A::NAME, error = %e, "the event house.concern_failed was not published");
        }
        self.tell_drained();
    }

    fn refuse_queue(&mut self) {
        for letter in std::mem::take(&mut self.queue) {
            self.ledger.answer(letter.responder, Err(self.ledger.unavailable()));
        }
    }

    fn set_state_unless_draining(&self, state: ConcernState) {
        if self.drained.is_empty() {
            self.ledger.set_state(state, "");
        }
    }

    fn tell_drained(&mut self) {
        if self.queue.is_empty() && self.in_flight == 0 {
            for drained in self.drained.drain(..) {
                let _asker_gone = drained.send(());
            }
        }
    }
}

impl<A: Concern> Actor for Keeper<A> {
    type Context = Context<Self>;
    fn started(&mut self, ctx: &mut Ctx<A>) {
        self.build(ctx);
    }
}

impl<A: Concern> Handler<Letter> for Keeper<A> {
    type Result = ();
    fn handle(&mut self, letter: Letter, ctx: &mut Ctx<A>) {
        if self.ledger.state() == ConcernState::Failed {
            return self.ledger.answer(letter.responder, Err(self.ledger.unavailable()));
        }
        self.queue.push_back(letter);
        self.pump(ctx);
    }
}

impl<A: Concern> Handler<Observe> for Keeper<A> {
    type Result = Option<Value>;
    fn handle(&mut self, _: Observe, ctx: &mut Ctx<A>) -> Option<Value> {
        let concern = self.concern.as_ref()?;
        match catch_unwind(AssertUnwindSafe(|| concern.observed())) {
            Ok(observed) => Some(observed),
            Err(unwound) => {
                self.died("observed_panic", &panic_text(unwound), ctx);
                None
            }
        }
    }
}

impl<A: Concern> Handler<Renew> for Keeper<A> {
    type Result = ();
    fn handle(&mut self, Renew(limits): Renew, ctx: &mut Ctx<A>) {
        ctx.set_mailbox_capacity(limits.mailbox_messages_max + MAILBOX_SPARE);
        self.ledger.set_limits(limits);
        self.budget.set(limits.restart);
        self.renewing = true;
        self.pump(ctx);
    }
}

impl<A: Concern> Handler<Drain> for Keeper<A> {
    type Result = ();
    fn handle(&mut self, Drain(drained): Drain, ctx: &mut Ctx<A>) {
        if self.ledger.state() != ConcernState::Failed {
            self.ledger.set_state(ConcernState::Draining, "");
        }
        self.rounds.send_replace(None);
        self.drained.push(drained);
        self.pump(ctx);
    }
}

impl<A: Concern> Handler<Stop> for Keeper<A> {
    type Result = ();
    fn handle(&mut self, _: Stop, ctx: &mut Ctx<A>) {
        if self.ledger.state() != ConcernState::Failed {
            self.ledger.set_state(ConcernState::Stopped, "");
        }
        self.refuse_queue();
        let remains = self.concern.take();
        let _a_panic_at_the_end_changes_nothing = catch_unwind(AssertUnwindSafe(move || drop(remains)));
        actix::ActorContext::terminate(ctx);
    }
}

/// What a panic said.
pub(crate) fn panic_text(unwound: Unwound) -> String {
    let text = unwound
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| unwound.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    // a payload may panic when it is dropped; forgetting one costs a few bytes a death, and deaths have a budget
    std::mem::forget(unwound);
    text
}
