//! Errors of the state.
//!
//! Policy: an adapter maps its database's errors to a [`Kind`] and keeps them as the source; the database's types stop there.
//! Nothing was changed when an error comes back, and the message says so. A caller decides by the kind, never by the text.

use wire::{Code, ErrorBody};

/// What kind of fault the state had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A key, value or time that is not taken.
    Invalid,
    /// The key isn't there.
    NotFound,
    /// The key is there, has another revision, or is someone else's.
    Conflict,
    /// Another process holds the state.
    Locked,
    /// A watch is too far behind.
    Compacted,
    /// A limit or the disk is full.
    Full,
    /// The file may not be opened or written.
    Denied,
    /// The file was written by a newer windlass.
    Newer,
    /// The file isn't what was written.
    Corrupt,
    /// The file or server can't be reached now.
    Unavailable,
}

/// A fault of the state.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StateError {
    /// What kind.
    pub kind: Kind,
    message: String,
    hint: Option<String>,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StateError {
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
    /// False when the same call may succeed later.
    pub fn is_permanent(&self) -> bool {
        !matches!(self.kind, Kind::Locked | Kind::Full | Kind::Unavailable)
    }
    /// What redb reported while `what` was done.
    pub fn of_redb(what: &str, error: impl Into<redb::Error>) -> Self {
        let error = error.into();
        let kind = match &error {
            redb::Error::Io(io) => of_io(io),
            redb::Error::Corrupted(_)
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TypeDefinitionChanged { .. } => Kind::Corrupt,
            redb::Error::DatabaseAlreadyOpen => Kind::Locked,
            redb::Error::UpgradeRequired(_) => Kind::Newer,
            redb::Error::ValueTooLarge(_) => Kind::Invalid,
            _ => Kind::Unavailable,
        };
        Self::new(kind, format!("{what}: {error}; nothing was changed")).caused_by(error)
    }
}

pub(crate) fn of_io(error: &std::io::Error) -> Kind {
    use std::io::ErrorKind as Io;
    match error.kind() {
        Io::PermissionDenied | Io::ReadOnlyFilesystem => Kind::Denied,
        Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => Kind::Full,
        // redb reads past the end of a file that was cut, and reports a foreign file as invalid data
        Io::UnexpectedEof | Io::InvalidData => Kind::Corrupt,
        Io::NotADirectory | Io::IsADirectory | Io::AlreadyExists | Io::InvalidInput => Kind::Invalid,
        Io::NotFound => Kind::NotFound,
        _ => Kind::Unavailable,
    }
}

impl From<StateError> for ErrorBody {
    fn from(error: StateError) -> Self {
        let code = match error.kind {
            Kind::Invalid => Code::Invalid,
            Kind::NotFound => Code::NotFound,
            Kind::Conflict | Kind::Locked | Kind::Compacted | Kind::Newer => Code::Conflict,
            Kind::Denied => Code::Denied,
            Kind::Full | Kind::Unavailable => Code::Unavailable,
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
