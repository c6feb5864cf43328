//! Where logs go, and what is logged.

use std::fmt;

use config::LogFormat;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, reload};
use wire::{Code, ErrorBody};

/// Changes what is logged while the process runs.
pub struct LogLevel(Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>);

impl LogLevel {
    /// Other directives from now on.
    ///
    /// # Errors
    /// `invalid` for directives that can't be read; the earlier ones stay.
    pub fn set(&self, level: &str) -> Result<(), ErrorBody> {
        let filter = EnvFilter::try_new(level)
            .map_err(|e| ErrorBody::new(Code::Invalid, format!("log.level '{level}' can't be read: {e}")))?;
        (self.0)(filter).map_err(|e| ErrorBody::new(Code::Internal, format!("log.level can't be changed: {e}")))
    }
}

/// Lines that are written while a concern decides on a request have that request's span.
struct InTrace<F>(F);

impl<S, N, F> FormatEvent<S, N> for InTrace<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        runtime::within_span(|| self.0.format_event(context, writer, event))
    }
}

/// Sends logs to standard error. To be called once.
pub fn to_stderr(level: &str, format: LogFormat) -> LogLevel {
    // the level was checked when it was loaded
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // a second call in one process (tests) keeps the first
    match format {
        LogFormat::Json => {
            let builder = builder
                .json()
                .flatten_event(true)
                .map_event_format(InTrace)
                .with_filter_reloading();
            let handle = builder.reload_handle();
            let _set_before = builder.try_init();
            LogLevel(Box::new(move |filter| handle.reload(filter)))
        }
        LogFormat::Text => {
            use std::io::IsTerminal as _;
            let no_colour = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
            let builder = builder
                .with_ansi(std::io::stderr().is_terminal() && !no_colour)
                .map_event_format(InTrace)
                .with_filter_reloading();
            let handle = builder.reload_handle();
            let _set_before = builder.try_init();
            LogLevel(Box::new(move |filter| handle.reload(filter)))
        }
    }
}
