//! Errors of keys, files and membership.
//!
//! Policy: why a message isn't heard is a [`Refusal`](crate::Refusal) and becomes a `denied` answer; this is for what a host or a
//! person does about its own membership. A caller decides by the kind, never by the text.

use wire::{Code, ErrorBody};

/// What kind of fault there was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A token, a key or a file that can't be used as it is.
    Invalid,
    /// No such token or member.
    NotFound,
    /// The member's standing, or somebody who was quicker, forbids it.
    Conflict,
    /// Whoever asks may not do this, or is no member.
    Denied,
    /// The state or the disk doesn't answer.
    Unavailable,
    /// Nobody acted in time.
    Deadline,
}

/// A fault.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct TrustError {
    /// What kind.
    pub kind: Kind,
    message: String,
    hint: Option<String>,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl TrustError {
    /// An error with its message: what failed, on which object, why, and what was left unchanged.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
            source: None,
        }
    }
    /// Adds the next thing to try.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    /// Adds what lies beneath.
    pub fn caused_by(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }
    /// False when the same may succeed later without anyone changing anything.
    pub fn is_permanent(&self) -> bool {
        !matches!(self.kind, Kind::Unavailable | Kind::Deadline)
    }
}

impl From<state::StateError> for TrustError {
    fn from(error: state::StateError) -> Self {
        let kind = match error.kind {
            state::Kind::Conflict => Kind::Conflict,
            state::Kind::NotFound => Kind::NotFound,
            state::Kind::Invalid => Kind::Invalid,
            _ => Kind::Unavailable,
        };
        Self::new(kind, format!("the members of the fleet: {error}")).caused_by(error)
    }
}

impl From<TrustError> for ErrorBody {
    fn from(error: TrustError) -> Self {
        let code = match error.kind {
            Kind::Invalid => Code::Invalid,
            Kind::NotFound => Code::NotFound,
            Kind::Conflict => Code::Conflict,
            Kind::Denied => Code::Denied,
            Kind::Unavailable => Code::Unavailable,
            Kind::Deadline => Code::Deadline,
        };
        ErrorBody {
            code,
            message: error.message,
            hint: error.hint,
            retry_after_ms: None,
        }
    }
}
