//! Errors of the metal broker.
//!
//! Policy: made where the failing object is known; carried up untouched; turned into `wire::ErrorBody` once, in
//! `actor.rs`. The message says what failed, on which object, why, and what was left unchanged. No error carries a secret: ports
//! know credentials by reference alone.

use std::fmt;

use wire::{Code, ErrorBody};

/// What a caller can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request, policy or inventory is wrong or contradicts itself.
    Invalid,
    /// A cluster, machine or provider doesn't exist; not in this tenant's house, that is.
    NotFound,
    /// It doesn't fit, or the thing is in a state that forbids this.
    Conflict,
    /// Others took the same machines again and again; try again.
    Busy,
    /// A provider or the state can't be read or written now.
    Unavailable,
    /// A provider refuses our credentials.
    Denied,
    /// A record isn't what was written.
    Corrupt,
    /// A fault of windlass.
    Internal,
}

/// An error: see the head of this file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetalError {
    /// What a caller can act on.
    pub kind: Kind,
    /// What failed, on which object, why, what was left unchanged.
    pub message: String,
    /// The next command to try.
    pub hint: Option<String>,
}

/// What a caller who lost against others is told to wait, in milliseconds.
const BUSY_RETRY_AFTER_MS: u64 = 50;

impl MetalError {
    /// An error without a hint.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
        }
    }
    /// Adds the next command to try.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    /// False when trying again may help.
    pub fn is_permanent(&self) -> bool {
        !matches!(self.kind, Kind::Busy | Kind::Unavailable)
    }
}

impl fmt::Display for MetalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for MetalError {}

impl From<MetalError> for ErrorBody {
    fn from(error: MetalError) -> Self {
        let code = match error.kind {
            Kind::Invalid => Code::Invalid,
            Kind::NotFound => Code::NotFound,
            Kind::Conflict => Code::Conflict,
            Kind::Busy => Code::Busy,
            Kind::Unavailable => Code::Unavailable,
            Kind::Denied => Code::Denied,
            Kind::Corrupt => Code::Corrupt,
            Kind::Internal => Code::Internal,
        };
        ErrorBody {
            code,
            message: error.message,
            hint: error.hint,
            retry_after_ms: (code == Code::Busy).then_some(BUSY_RETRY_AFTER_MS),
        }
    }
}

impl From<state::StateError> for MetalError {
    fn from(error: state::StateError) -> Self {
        let kind = match error.kind {
            state::Kind::NotFound => Kind::NotFound,
            state::Kind::Conflict | state::Kind::Compacted => Kind::Busy,
            state::Kind::Invalid => Kind::Invalid,
            state::Kind::Corrupt | state::Kind::Newer => Kind::Corrupt,
            state::Kind::Locked | state::Kind::Full | state::Kind::Denied | state::Kind::Unavailable => {
                Kind::Unavailable
            }
        };
        Self::new(kind, error.to_string())
    }
}
