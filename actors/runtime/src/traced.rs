//! Work that belongs to a trace: its log lines have the trace's id, and so has what it asks and tells.

use std::future::Future;

use tracing::{Instrument, Span};
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
