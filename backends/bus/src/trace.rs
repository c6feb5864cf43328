//! The trace that the present task works for: what it asks and tells belongs to it without anybody's doing.

use std::future::Future;

use wire::trace::TraceContext;

tokio::task_local! {
    static CURRENT: TraceContext;
}

/// The trace of the task or thread that calls; `None` outside of [`scope`] and [`sync_scope`]. A task that is spawned has to be
/// wrapped anew.
pub fn current() -> Option<TraceContext> {
    CURRENT.try_with(|trace| *trace).ok()
}

/// `future`, as work for `trace`.
pub fn scope<F: Future>(trace: TraceContext, future: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(trace, future)
}

/// `work`, as work for `trace`.
pub fn sync_scope<T>(trace: TraceContext, work: impl FnOnce() -> T) -> T {
    CURRENT.sync_scope(trace, work)
}
