//! Errors of a bus.
//!
//! Policy: an adapter maps its SDK's errors to a [`Kind`] and keeps them as the source. What a server answers, a refusal too,
//! travels in the answer and is no error of the bus. A caller decides by the kind, never by the text.

use wire::{Code, ErrorBody};

/// What kind of fault the bus had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The message or the service can't be carried as it is.
    Invalid,
    /// Nobody serves the subject, the server left, or the bus can't be reached.
    Unavailable,
    /// The server's queue is full.
    Busy,
    /// No answer in time.
    Deadline,
    /// The asker may not send this.
    Denied,
    /// An answer or event that can't be read.
    Corrupt,
}

/// A fault of the bus itself; what a server answers travels in the answer.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct BusError {
    /// What kind.
    pub kind: Kind,
    message: String,
    hint: Option<String>,
    retry_after_ms: Option<u64>,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl BusError {
    /// An error with its message: what failed, on which subject, why, and what was left unchanged.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
            retry_after_ms: None,
            source: None,
        }
    }
    /// Adds the next thing to try.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    /// Adds when to try again, in milliseconds.
    pub fn retry_after_ms(mut self, ms: u64) -> Self {
        self.retry_after_ms = Some(ms);
        self
    }
    /// Adds what lies beneath.
    pub fn caused_by(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }
    /// False when the same message may get through later.
    pub fn is_permanent(&self) -> bool {
        matches!(self.kind, Kind::Invalid | Kind::Corrupt | Kind::Denied)
    }
}

impl From<BusError> for ErrorBody {
    fn from(error: BusError) -> Self {
        let code = match error.kind {
            Kind::Invalid => Code::Invalid,
            Kind::Denied => Code::Denied,
            Kind::Unavailable => Code::Unavailable,
            Kind::Busy => Code::Busy,
            Kind::Deadline => Code::Deadline,
            Kind::Corrupt => Code::Corrupt,
        };
        ErrorBody {
            code,
            message: error.message,
            hint: error.hint,
            retry_after_ms: error.retry_after_ms,
        }
    }
}
