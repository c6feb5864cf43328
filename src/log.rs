//! Where logs go, and what is logged.

use config::LogFormat;
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
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            let _set_before = builder.try_init();
            LogLevel(Box::new(move |filter| handle.reload(filter)))
        }
        LogFormat::Text => {
            use std::io::IsTerminal as _;
            let no_colour = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
            let builder = builder
                .with_ansi(std::io::stderr().is_terminal() && !no_colour)
                .with_filter_reloading();
            let handle = builder.reload_handle();
            let _set_before = builder.try_init();
            LogLevel(Box::new(move |filter| handle.reload(filter)))
        }
    }
}
