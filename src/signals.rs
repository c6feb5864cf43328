//! Ctrl-C, SIGTERM and SIGHUP.

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

/// SIGHUP: read the configuration again. Heard from its making on; several between two calls are one.
#[derive(Debug)]
pub struct Hangups(Signal);

impl Hangups {
    /// Takes the signal over from its default, which would end the process.
    ///
    /// # Errors
    /// `internal` when the system refuses.
    pub fn new() -> Result<Self, ErrorBody> {
        take(SignalKind::hangup()).map(Self)
    }
    /// The next one.
    pub async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending().await
        }
    }
}

fn take(kind: SignalKind) -> Result<Signal, ErrorBody> {
    signal(kind).map_err(|e| ErrorBody::new(Code::Internal, format!("signals can't be taken over: {e}")))
}
