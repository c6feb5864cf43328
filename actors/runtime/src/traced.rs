//! Work that belongs to a trace: its log lines have the trace's id, and so has what it asks and tells.
//!
//! A span costs more than most decisions, and few decisions write a line. So what a concern decides at once has its span made
//! when a line is written ([`within_span`]); what takes time ([`Traced`]) has one from the start, for what it spawns takes the
//! current span along.

use std::cell::RefCell;
use std::future::Future;

use tracing::{Instrument, Span};
use wire::Subject;
use wire::trace::TraceContext;

use crate::Clock;

/// A trace, and the span that its log lines stand in. The span is of level error, so that it is there whatever is logged.
#[derive(Debug, Clone)]
pub struct Traced {
    trace: TraceContext,
    span: Span,
}

/// The next step of the trace that a header names; a new trace when it names none.
pub fn next_step(traceparent: Option<&str>, clock: &dyn Clock) -> TraceContext {
    match traceparent.and_then(TraceContext::parse) {
        Some(trace) => trace.child(clock.random()),
        None => TraceContext::begin(clock.random(), clock.random()),
    }
}

/// A request that is decided on: its trace, concern and subject.
type Decision = (TraceContext, &'static str, Subject);

thread_local! {
    /// What this thread decides on.
    static DECISION: RefCell<Option<Decision>> = const { RefCell::new(None) };
}

/// Puts back what the thread decided on before, also when the work panics.
struct Before(Option<Decision>);

impl Drop for Before {
    fn drop(&mut self) {
        DECISION.replace(self.0.take());
    }
}

/// `decide`, as work for the trace of a request.
pub(crate) fn deciding<T>(
    trace: TraceContext,
    concern: &'static str,
    subject: &Subject,
    decide: impl FnOnce() -> T,
) -> T {
    let _before = Before(DECISION.replace(Some((trace, concern, subject.clone()))));
    bus::trace::sync_scope(trace, decide)
}

/// `write`, within the span of the request that the thread decides on, if it does: to be put around whatever writes log lines.
pub fn within_span<T>(write: impl FnOnce() -> T) -> T {
    match DECISION.replace(None) {
        None => write(),
        Some((trace, concern, subject)) => {
            let span = Traced::request(trace, concern, subject.verb()).span;
            let _again = Before(Some((trace, concern, subject)));
            span.in_scope(write)
        }
    }
}

impl Traced {
    /// A command of a person.
    pub fn command(trace: TraceContext) -> Self {
        let span = tracing::error_span!("command", trace_id = trace.trace_id());
        Self { trace, span }
    }

    /// A request to a concern.
    pub fn request(trace: TraceContext, concern: &str, verb: &str) -> Self {
        let span = tracing::error_span!("request", trace_id = trace.trace_id(), concern, verb);
        Self { trace, span }
    }

    /// An attempt at a job.
    pub(crate) fn job(trace: TraceContext, job: &wire::job::Job) -> Self {
        let span = tracing::error_span!(
            "job",
            trace_id = trace.trace_id(),
            job = %job.id,
            concern = job.concern,
            verb = job.kind,
            attempt = job.attempts
        );
        Self { trace, span }
    }

    /// What the present task works for.
    pub(crate) fn current() -> Option<Self> {
        let span = Span::current();
        bus::trace::current().map(|trace| Self { trace, span })
    }

    /// `future`, as work for the trace.
    pub fn run<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        bus::trace::scope(self.trace, future).instrument(self.span.clone())
    }

    /// `work`, as work for the trace.
    pub fn in_scope<T>(&self, work: impl FnOnce() -> T) -> T {
        self.span.in_scope(|| bus::trace::sync_scope(self.trace, work))
    }
}
