//! Hosts a concern on its own thread and outlives it.
//!
//! The keeper is the actor; the concern is a value in it. A panic of the concern (in a handler, in an effect, in the
//! decision after it, in the factory, in `observed`, in its drop) is caught here, so the keeper's queue survives. Letters come by
//! the shelf, all that wait in one turn; actix's own mailbox brings the rest.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, WrapFuture};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use wire::house::ConcernState;
use wire::{Code, ErrorBody, Headers};

use crate::clock::Clock;
use crate::concern::{Call, Concern, Effect, Finish, Routes, Work};
use crate::job_runner::Runner;
use crate::ledger::{Asked, Ledger, deadline_passed};
use crate::restart::{Budget, Verdict};
use crate::rounds::Round;
use crate::shelf::Shelf;
use crate::traced::{Traced, deciding, next_step};
use crate::{Limits, Slot};

/// Room in an actor's mailbox, for `Look`, `Observe`, `Renew`, `Drain` and `Stop`. Letters wait on the shelf, bounded by the
/// ledger's slots.
pub(crate) const MAILBOX_MESSAGES_MAX: usize = 64;

/// One request on its way to the concern; holds its place in the mailbox.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) asked: Asked,
    pub(crate) headers: Headers,
    pub(crate) payload: Bytes,
    pub(crate) deadline: Option<Instant>,
    pub(crate) slot: Slot,
}

/// There are letters on the shelf.
pub(crate) struct Look;

/// Asks what the concern says of itself.
pub(crate) struct Observe;
/// Live by other limits from now on, and be built anew as soon as nothing is under way.
pub(crate) struct Renew(pub(crate) Limits);
/// Take nothing new; tell when all is answered.
pub(crate) struct Drain(pub(crate) oneshot::Sender<()>);
/// Answer what is left `unavailable`, and end.
pub(crate) struct Stop;

impl Message for Look {
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
    shelf: Arc<Shelf>,
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
type Running<A> = LocalBoxFuture<'static, Finish<A, Bytes>>;
type Unwound = Box<dyn Any + Send>;

impl<A: Concern> Keeper<A> {
    pub(crate) fn new(
        factory: Box<dyn Fn() -> A>,
        shelf: Arc<Shelf>,
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
            shelf,
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
        let in_flight_max = self.ledger.limits().in_flight_max;
        while self.in_flight < in_flight_max && self.concern.is_some() {
            let Some(letter) = self.queue.pop_front() else { break };
            self.take_up(letter, ctx);
        }
        self.tell_drained();
    }

    /// Decides on a message.
    fn take_up(&mut self, letter: Letter, ctx: &mut Ctx<A>) {
        let Some(mut concern) = self.concern.take() else { return };
        let Letter {
            asked,
            headers,
            payload,
            deadline,
            slot,
        } = letter;
        drop(slot);
        let call = self.called(&asked, headers, deadline);
        let running = deciding(call.trace, A::NAME, &call.subject.clone(), || {
            let decided = match call.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                true => Ok(Err(deadline_passed(A::NAME, call.subject.verb()))),
                false => catch_unwind(AssertUnwindSafe(|| self.routes.handle(&mut concern, &call, &payload))),
            };
            self.concern = Some(concern);
            let result = match decided.map(|effect| effect.map(Effect::into_work)) {
                Ok(Ok(Work::Run(future))) => return Some((future, call, asked)),
                Ok(Ok(Work::Answer(result))) => result,
                Ok(Err(refused)) => Err(refused),
                Err(unwound) => {
                    self.handler_died(&call, asked, unwound, ctx);
                    return None;
                }
            };
            self.ledger.answer(asked, result);
            None
        });
        if let Some((future, call, asked)) = running {
            self.begin(future, call, asked, ctx);
        }
    }

    /// What surrounds a request: the next step of its trace begins here.
    fn called(&self, asked: &Asked, mut headers: Headers, deadline: Option<Instant>) -> Call {
        let trace = next_step(headers.traceparent.as_deref(), &*self.clock);
        headers.traceparent = Some(trace.to_string());
        Call {
            subject: asked.subject.clone(),
            headers,
            deadline,
            trace,
            runner: self.runner.clone(),
        }
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

    fn begin(&mut self, mut future: Running<A>, call: Call, asked: Asked, ctx: &mut Ctx<A>) {
        let generation = self.generation;
        let guarded = async move {
            let finish = AssertUnwindSafe(&mut future).catch_unwind().await;
            // what a future holds may panic once more when it is dropped
            let dropped = catch_unwind(AssertUnwindSafe(move || drop(future)));
            finish.and_then(|finish| dropped.map(|()| finish))
        };
        let traced = Traced::request(call.trace, A::NAME, call.subject.verb());
        let mut running = Box::pin(traced.run(guarded));
        // what is known at once needs no further turn of this thread
        if let Some(finish) = (&mut running).now_or_never() {
            return traced.in_scope(|| self.end(finish, generation, &call, asked, ctx));
        }
        self.in_flight += 1;
        ctx.spawn(running.into_actor(self).map(move |finish, keeper, ctx| {
            keeper.in_flight -= 1;
            traced.in_scope(|| keeper.end(finish, generation, &call, asked, ctx));
            keeper.pump(ctx);
        }));
    }

    fn end(
        &mut self,
        finish: Result<Finish<A, Bytes>, Unwound>,
        generation: u64,
        call: &Call,
        asked: Asked,
        ctx: &mut Ctx<A>,
    ) {
        let decide = match finish {
            Ok(Finish::Answer(result)) => return self.ledger.answer(asked, result),
            Ok(Finish::Decide(decide)) => decide,
            Err(unwound) => return self.handler_died(call, asked, unwound, ctx),
        };
        let Some(concern) = self.concern.as_mut().filter(|_| generation == self.generation) else {
            let lost = format!(
                "{} died while it carried out {}; what had begun may be done in part",
                A::NAME,
                call.subject.verb()
            );
            return self.ledger.answer(asked, Err(ErrorBody::new(Code::Internal, lost)));
        };
        match catch_unwind(AssertUnwindSafe(|| decide(concern))) {
            Ok(result) => self.ledger.answer(asked, result),
            Err(unwound) => self.handler_died(call, asked, unwound, ctx),
        }
    }

    /// The message at fault is answered, then the concern is buried.
    fn handler_died(&mut self, call: &Call, asked: Asked, unwound: Unwound, ctx: &mut Ctx<A>) {
        let why = panic_text(unwound);
        let message = format!(
            "{}.{} panicked: {why}; what had begun may be done in part",
            A::NAME,
            call.subject.verb()
        );
        self.ledger.answer(
            asked,
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
        self.shelf.take_into(&mut self.queue);
        for letter in std::mem::take(&mut self.queue) {
            self.ledger.answer(letter.asked, Err(self.ledger.unavailable()));
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

impl<A: Concern> Handler<Look> for Keeper<A> {
    type Result = ();
    fn handle(&mut self, _: Look, ctx: &mut Ctx<A>) {
        if self.ledger.state() == ConcernState::Failed {
            return self.refuse_queue();
        }
        self.shelf.take_into(&mut self.queue);
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
        self.shelf.take_into(&mut self.queue);
        self.pump(ctx);
    }
}

impl<A: Concern> Handler<Stop> for Keeper<A> {
    type Result = ();
    fn handle(&mut self, _: Stop, ctx: &mut Ctx<A>) {
        if self.ledger.state() != ConcernState::Failed {
            self.ledger.set_state(ConcernState::Stopped, "");
        }
        let mut left = self.shelf.close();
        self.queue.append(&mut left);
        self.refuse_queue();
        let remains = self.concern.take();
        let _a_panic_at_the_end_changes_nothing = catch_unwind(AssertUnwindSafe(move || drop(remains)));
        actix::ActorContext::terminate(ctx);
    }
}

impl<A: Concern> Drop for Keeper<A> {
    fn drop(&mut self) {
        // its thread ended without `Stop`: who waits hears that the server left
        drop(self.shelf.close());
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
