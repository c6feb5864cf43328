//! Ctrl-C and SIGTERM.

use tokio::signal::unix::{Signal, SignalKind, signal};
use wire::{Code, ErrorBody};

/// Hears both from its making on; a signal between two calls is kept.
#[derive(Debug)]
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// Takes the signals over from their defaults, which would end the process.
    ///
    /// # Errors
    /// `internal` when the system refuses.
    pub fn new() -> Result<Self, ErrorBody> {
        let take = |kind| {
            signal(kind).map_err(|e| ErrorBody::new(Code::Internal, format!("signals can't be taken over: {e}")))
        };
        Ok(Self {
            interrupt: take(SignalKind::interrupt())?,
            terminate: take(SignalKind::terminate())?,
        })
    }
    /// The next of them: its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
