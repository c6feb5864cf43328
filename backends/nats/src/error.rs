//! Errors of the connection to NATS.
//!
//! Policy: what async-nats reports is mapped to a [`Kind`] where it is met and kept as the source; its types stop in this crate.
//! The ports' adapters turn a [`NatsError`] into their port's own error. A caller decides by the kind, never by the text.

use wire::{Code, ErrorBody};

/// What kind of fault there was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A setting that can't be used.
    Invalid,
    /// The server refuses us, or a file of credentials can't be read.
    Denied,
    /// No server answers, or not in time.
    Unavailable,
    /// The servers have another windlass's data than this host saw last, or less of it.
    Corrupt,
    /// The server is too old, or configured so that windlass can't work.
    Unfit,
}

/// A fault of the connection.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct NatsError {
    /// What kind.
    pub kind: Kind,
    message: String,
    hint: Option<String>,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl NatsError {
    /// An error with its message: what failed, on which object, why, and what was left unchanged.
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
            source: None,
        }
    }
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    pub(crate) fn caused_by(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }
    /// False when the same may succeed later without anyone changing anything.
    pub fn is_permanent(&self) -> bool {
        self.kind != Kind::Unavailable
    }
}

impl From<NatsError> for ErrorBody {
    fn from(error: NatsError) -> Self {
        let code = match error.kind {
            Kind::Invalid => Code::Invalid,
            Kind::Denied => Code::Denied,
            Kind::Unavailable | Kind::Unfit => Code::Unavailable,
            Kind::Corrupt => Code::Corrupt,
        };
        ErrorBody {
            code,
            message: error.message,
            hint: error.hint,
            retry_after_ms: None,
        }
    }
}
