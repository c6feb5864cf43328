//! Errors of the snapshot concern.
//!
//! Policy: made where the failing object is known; carried up untouched; turned into `wire::ErrorBody` once, in
//! `actor.rs`. The message says what failed, on which object, why, and what was left unchanged.

use std::fmt;

use wire::{Code, ErrorBody};

/// What a caller can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request is wrong.
    Invalid,
    /// A disk, snapshot or VM doesn't exist.
    NotFound,
    /// The disk is in use, changed while it was read, or has an unfinished restore.
    Conflict,
    /// No permission.
    Denied,
    /// The disk's or state's filesystem is full.
    Full,
    /// The store or device doesn't answer.
    Unavailable,
    /// Stored or read-back bytes are wrong.
    Corrupt,
    /// Someone cancelled it.
    Cancelled,
    /// A fault of windlass.
    Internal,
}

/// An error: see the head of this file.
#[derive(Debug, Clone)]
pub struct SnapshotError {
    /// What a caller can act on.
    pub kind: Kind,
    /// What failed, on which object, why, what was left unchanged.
    pub message: String,
    /// The next command to try.
    pub hint: Option<String>,
}

impl SnapshotError {
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
    /// An I/O error of `what` on `object`.
    pub fn io(what: &str, object: impl fmt::Display, error: &std::io::Error) -> Self {
        use std::io::ErrorKind as E;
        let kind = match error.kind() {
            E::NotFound => Kind::NotFound,
            E::PermissionDenied | E::ReadOnlyFilesystem => Kind::Denied,
            E::StorageFull | E::QuotaExceeded | E::FileTooLarge => Kind::Full,
            E::IsADirectory | E::NotADirectory | E::InvalidInput => Kind::Invalid,
            _ => Kind::Unavailable,
        };
        Self::new(kind, format!("can't {what} {object}: {error}"))
    }
    /// False when trying again may help.
    pub fn is_permanent(&self) -> bool {
        !matches!(self.kind, Kind::Full | Kind::Unavailable)
    }
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SnapshotError {}

impl From<SnapshotError> for ErrorBody {
    fn from(error: SnapshotError) -> Self {
        let code = match error.kind {
            Kind::Invalid => Code::Invalid,
            Kind::NotFound => Code::NotFound,
            Kind::Conflict | Kind::Cancelled => Code::Conflict,
            Kind::Denied => Code::Denied,
            Kind::Full | Kind::Unavailable => Code::Unavailable,
            Kind::Corrupt => Code::Corrupt,
            Kind::Internal => Code::Internal,
        };
        ErrorBody {
            code,
            message: error.message,
            hint: error.hint,
            retry_after_ms: None,
        }
    }
}

impl From<repo::RepoError> for SnapshotError {
    fn from(error: repo::RepoError) -> Self {
        let kind = match error.kind {
            repo::Kind::NotFound => Kind::NotFound,
            repo::Kind::Corrupt => Kind::Corrupt,
            repo::Kind::TooNew { .. } | repo::Kind::Invalid => Kind::Invalid,
            repo::Kind::Conflict => Kind::Conflict,
            repo::Kind::Store(store::Kind::Denied) => Kind::Denied,
            repo::Kind::Store(store::Kind::Full) => Kind::Full,
            repo::Kind::Store(store::Kind::NotFound) => Kind::NotFound,
            repo::Kind::Store(store::Kind::Invalid) => Kind::Invalid,
            repo::Kind::Store(_) => Kind::Unavailable,
            repo::Kind::Internal => Kind::Internal,
        };
        Self {
            kind,
            message: error.to_string(),
            hint: error.hint.clone(),
        }
    }
}
