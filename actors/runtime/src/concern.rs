//! What the author of a concern writes.

use std::collections::BTreeMap;
use std::future::Future;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;
use wire::job::JobAccepted;
use wire::trace::TraceContext;
use wire::{Code, ErrorBody, Headers, Request, Subject};

use crate::job_runner::{Kinds, Runner};
use crate::rounds::Round;

/// A concern: built by a factory, one message at a time, on its own thread.
///
/// ```
/// # use windlass_runtime::{Call, Concern, Effect, Routes};
/// # use wire::house::{Status, StatusReply};
/// # use wire::{ErrorBody, Request};
/// struct Door {
///     asked: u64,
/// }
///
/// impl Concern for Door {
///     const NAME: &'static str = "house";
///     fn routes() -> Routes<Self> {
///         Routes::new().on(Self::status) // one row a verb; the type of the request names it
///     }
///     fn observed(&self) -> serde_json::Value {
///         serde_json::json!({"asked": self.asked})
///     }
/// }
///
/// impl Door {
///     fn status(&mut self, _request: Status, _call: &Call) -> Effect<Self, StatusReply> {
///         self.asked += 1; // decide here, on the state ...
///         Effect::run(async { Ok(Status::sample_reply()) }) // ... and leave what takes time to a future
///     }
/// }
/// ```
pub trait Concern: Sized + Unpin + 'static {
    /// The concern's one spelling.
    const NAME: &'static str;
    /// Its verbs.
    fn routes() -> Routes<Self>;
    /// What it says of its state: for status, console, metrics and tests. Each number of the object is a metric
    /// `windlass_<concern>_<name>`; a name that ends in `_total` only grows while the concern lives, others come and go.
    fn observed(&self) -> Value;
    /// Its kinds of job, and how many run at once. Asked after each build; jobs that run go on as they began.
    fn jobs(&self) -> Kinds {
        Kinds::new()
    }
    /// Work that comes round while it lives. Asked after each build.
    fn round(&self) -> Option<Round> {
        None
    }
}

/// What surrounds a request.
#[derive(Debug, Clone)]
pub struct Call {
    /// What it was sent to.
    pub subject: Subject,
    /// Its headers; they always name a trace.
    pub headers: Headers,
    /// When its asker stops waiting.
    pub deadline: Option<Instant>,
    pub(crate) trace: TraceContext,
    pub(crate) runner: Runner,
}

impl Call {
    /// Accepts a job of the verb of `R`, one of the concern's [`Concern::jobs`]: durable first, then the answer.
    pub fn accept<A: 'static, R: Request<Reply = JobAccepted>>(&self, request: &R) -> Effect<A, JobAccepted> {
        match serde_json::to_value(request) {
            Ok(request) => {
                let (runner, headers) = (self.runner.clone(), self.headers.clone());
                let target = runner.target(R::ADDRESS);
                Effect::run(async move { runner.submit(R::VERB, request, headers, target).await })
            }
            Err(e) => Effect::answer(Err(ErrorBody::new(
                Code::Invalid,
                format!("the request can't be kept: {e}; nothing was accepted"),
            ))),
        }
    }
}

/// What follows from a decision: a future, and then the answer.
pub struct Effect<A, T>(Work<A, T>);

/// What an effect has to do yet.
pub(crate) enum Work<A, T> {
    /// Nothing: the answer was known at once, and costs no future.
    Answer(Result<T, ErrorBody>),
    Run(LocalBoxFuture<'static, Finish<A, T>>),
}

/// How an effect ends.
pub(crate) enum Finish<A, T> {
    Answer(Result<T, ErrorBody>),
    /// The answer needs the concern once more.
    Decide(Decide<A, T>),
}

/// The decision that follows an effect.
pub(crate) type Decide<A, T> = Box<dyn FnOnce(&mut A) -> Result<T, ErrorBody>>;

impl<A: 'static, T: 'static> Effect<A, T> {
    /// The answer, known at once.
    pub fn answer(result: Result<T, ErrorBody>) -> Self {
        Self(Work::Answer(result))
    }
    /// A future that ends with the answer. It runs on the concern's thread: it may wait, and must not block.
    pub fn run(future: impl Future<Output = Result<T, ErrorBody>> + 'static) -> Self {
        Self(Work::Run(future.map(Finish::Answer).boxed_local()))
    }
    /// A future, then a decision on what came of it. Not decided when the concern died in between: the asker hears
    /// `internal` then.
    pub fn then<O: 'static>(
        future: impl Future<Output = O> + 'static,
        decide: impl FnOnce(&mut A, O) -> Result<T, ErrorBody> + 'static,
    ) -> Self {
        let finish =
            |outcome| Finish::Decide(Box::new(move |concern: &mut A| decide(concern, outcome)) as Decide<A, T>);
        Self(Work::Run(future.map(finish).boxed_local()))
    }
    pub(crate) fn into_work(self) -> Work<A, T> {
        self.0
    }
}

type Handle<A> = Box<dyn Fn(&mut A, &Call, &Bytes) -> Result<Effect<A, Bytes>, ErrorBody>>;

/// The verbs of a concern: one row each.
pub struct Routes<A> {
    rows: BTreeMap<&'static str, Handle<A>>,
    endpoints: Vec<bus::Endpoint>,
    // rows that belong to another concern or stand twice
    faults: Vec<String>,
}

impl<A: Concern> Default for Routes<A> {
    fn default() -> Self {
        Self::new()
    }
}

impl<A: Concern> Routes<A> {
    /// No verbs.
    pub fn new() -> Self {
        Self {
            rows: BTreeMap::new(),
            endpoints: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// Adds the verb of the handler's request type.
    pub fn on<R: Request>(mut self, handler: fn(&mut A, R, &Call) -> Effect<A, R::Reply>) -> Self {
        let handle: Handle<A> = Box::new(move |concern, call, payload| {
            let request = decoded::<R>(payload)?;
            Ok(encoded(handler(concern, request, call)))
        });
        if R::CONCERN != A::NAME {
            self.faults
                .push(format!("{}.{} is no verb of {}", R::CONCERN, R::VERB, A::NAME));
        }
        if self.rows.insert(R::VERB, handle).is_some() {
            self.faults.push(format!("{}.{} stands twice", A::NAME, R::VERB));
        }
        self.endpoints.push(bus::Endpoint::of::<R>());
        self
    }

    /// Adds a verb that needs no decision but becomes a job at once, as [`Call::accept`].
    pub fn job<R: Request<Reply = JobAccepted>>(self) -> Self {
        self.on(|_: &mut A, request: R, call| call.accept(&request))
    }

    pub(crate) fn endpoints(&self) -> Result<Vec<bus::Endpoint>, String> {
        match self.faults.first() {
            None => Ok(self.endpoints.clone()),
            Some(fault) => Err(fault.clone()),
        }
    }

    pub(crate) fn handle(&self, concern: &mut A, call: &Call, payload: &Bytes) -> Result<Effect<A, Bytes>, ErrorBody> {
        let Some(handle) = self.rows.get(call.subject.verb()) else {
            let known: Vec<&str> = self.rows.keys().copied().collect();
            return Err(ErrorBody::new(
                Code::Invalid,
                format!(
                    "{} has no verb '{}'; it has {}; nothing was carried out",
                    A::NAME,
                    call.subject.verb(),
                    known.join(", ")
                ),
            ));
        };
        handle(concern, call, payload)
    }
}

fn decoded<R: Request>(payload: &Bytes) -> Result<R, ErrorBody> {
    serde_json::from_slice(payload).map_err(|e| {
        ErrorBody::new(
            Code::Invalid,
            format!(
                "the request to {}.{} can't be read: {e}; nothing was carried out",
                R::CONCERN,
                R::VERB
            ),
        )
        .hint("windlass schema")
    })
}

/// The effect whose answer is encoded as soon as it is there.
fn encoded<A: 'static, T: Serialize + 'static>(effect: Effect<A, T>) -> Effect<A, Bytes> {
    let encode = |result: Result<T, ErrorBody>| {
        bus::reply_bytes(&result?).map_err(|e| {
            ErrorBody::new(
                Code::Internal,
                format!("the reply can't be encoded: {e}; the request was carried out"),
            )
        })
    };
    let finished = move |finish| match finish {
        Finish::Answer(result) => Finish::Answer(encode(result)),
        Finish::Decide(decide) => {
            Finish::Decide(Box::new(move |concern: &mut A| encode(decide(concern))) as Decide<A, _>)
        }
    };
    Effect(match effect.0 {
        Work::Answer(result) => Work::Answer(encode(result)),
        Work::Run(future) => Work::Run(future.map(finished).boxed_local()),
    })
}
