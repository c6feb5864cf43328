//! Errors of a repository.
//!
//! Policy: a caller decides by [`Kind`], never by the text. A store's error keeps its kind; an object that should be
//! there and is not, or is shorter than it was written, is `Corrupt`, for packs, indexes and nodes never change.

use std::fmt;
use std::sync::Arc;

use store::StoreError;
use wire::{Code, ErrorBody};

/// What went wrong, as far as a caller can act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// No such repository or snapshot.
    NotFound,
    /// Stored bytes are not what was written.
    Corrupt,
    /// Written by a newer windlass.
    TooNew {
        /// The version of the format that it has.
        version: u32,
    },
    /// It exists already, or is held.
    Conflict,
    /// The caller asks for something impossible.
    Invalid,
    /// The store failed.
    Store(store::Kind),
    /// A fault of this crate or of the process (a task died).
    Internal,
}

/// An error of a repository: what failed, on which object, why, and what to try next.
#[derive(Debug, Clone)]
pub struct RepoError {
    /// What a caller can act on.
    pub kind: Kind,
    /// The object's key (`packs/…`, `index/…`, `snapshots/…`, `config`), or the blob's id when no object is known.
    pub object: String,
    /// Where in the object, in bytes, when that is known.
    pub offset: Option<u64>,
    /// Why.
    pub message: String,
    /// Ids of the snapshots that are concerned, when known.
    pub snapshots: Vec<String>,
    /// The next command to try.
    pub hint: Option<String>,
    source: Option<Arc<StoreError>>,
}

const VERIFY_HINT: &str = "windlass snapshot verify";

impl RepoError {
    /// An error on `object`.
    pub fn new(kind: Kind, object: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind,
            object: object.into(),
            offset: None,
            message: message.into(),
            snapshots: Vec::new(),
            hint: None,
            source: None,
        }
    }
    /// Damage of `object`; the hint is to look for more.
    pub fn corrupt(object: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Kind::Corrupt, object, message).hint(VERIFY_HINT)
    }
    /// A wrong request.
    pub fn invalid(object: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, object, message)
    }
    pub(crate) fn internal(object: impl Into<String>, message: impl fmt::Display) -> Self {
        Self::new(Kind::Internal, object, message.to_string())
    }
    /// A newer format than this windlass knows.
    pub(crate) fn too_new(object: impl Into<String>, version: u32) -> Self {
        let known = crate::FORMAT_VERSION;
        Self::new(
            Kind::TooNew { version },
            object,
            format!("has format version {version}; this windlass knows versions up to {known}; nothing was changed"),
        )
        .hint(format!("use a windlass that knows repository format {version}"))
    }
    /// Adds where in the object.
    #[must_use]
    pub fn at(mut self, offset: u64) -> Self {
        self.offset = Some(offset);
        self
    }
    /// Adds the next command to try.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    /// Adds a snapshot that is concerned.
    #[must_use]
    pub fn in_snapshot(mut self, id: impl Into<String>) -> Self {
        let id = id.into();
        if !self.snapshots.contains(&id) {
            self.snapshots.push(id);
        }
        self
    }
    /// The store's error of an immutable object that something refers to: absent or short means damage.
    pub(crate) fn of_referenced(error: StoreError) -> Self {
        match error.kind {
            store::Kind::NotFound => Self::corrupt(error.object.clone(), "is referred to, but is not in the store"),
            store::Kind::Truncated => Self::corrupt(error.object.clone(), "is shorter than when it was written"),
            store::Kind::TooLarge => Self::corrupt(error.object.clone(), "is larger than any that windlass writes"),
            _ => error.into(),
        }
    }
    /// False when trying again may help.
    pub fn is_permanent(&self) -> bool {
        match &self.source {
            Some(source) => source.is_permanent(),
            None => true,
        }
    }
    fn code(&self) -> Code {
        match self.kind {
            Kind::NotFound => Code::NotFound,
            Kind::Corrupt => Code::Corrupt,
            Kind::Conflict => Code::Conflict,
            Kind::Invalid | Kind::TooNew { .. } => Code::Invalid,
            Kind::Internal => Code::Internal,
            Kind::Store(kind) => match kind {
                store::Kind::Invalid => Code::Invalid,
                store::Kind::NotFound => Code::NotFound,
                store::Kind::Denied => Code::Denied,
                store::Kind::SlowDown => Code::Busy,
                store::Kind::Timeout => Code::Deadline,
                store::Kind::Truncated | store::Kind::TooLarge => Code::Corrupt,
                store::Kind::Full | store::Kind::Unavailable => Code::Unavailable,
                store::Kind::Other => Code::Internal,
            },
        }
    }
}

impl From<StoreError> for RepoError {
    fn from(error: StoreError) -> Self {
        let hint = match error.kind {
            _ if error.hint.is_some() => error.hint.as_deref(),
            store::Kind::Full => Some("free space where the repository is (windlass snapshot forget), then try again"),
            store::Kind::Denied => Some("check the permissions of the repository's directory, or its credentials"),
            _ => None,
        };
        Self {
            kind: Kind::Store(error.kind),
            object: error.object.clone(),
            offset: None,
            message: error.to_string(),
            snapshots: Vec::new(),
            hint: hint.map(str::to_owned),
            source: Some(Arc::new(error)),
        }
    }
}

impl From<&RepoError> for ErrorBody {
    fn from(error: &RepoError) -> Self {
        let body = ErrorBody::new(error.code(), error.to_string());
        match &error.hint {
            Some(hint) => body.hint(hint.clone()),
            None => body,
        }
    }
}

impl From<RepoError> for ErrorBody {
    fn from(error: RepoError) -> Self {
        (&error).into()
    }
}

impl fmt::Display for RepoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.source.is_some() {
            f.write_str(&self.message)?;
        } else {
            write!(f, "{}", self.object)?;
            if let Some(offset) = self.offset {
                write!(f, " at byte {offset}")?;
            }
            write!(f, ": {}", self.message)?;
        }
        match self.snapshots.len() {
            0 => Ok(()),
            n => {
                write!(f, " (needed by snapshot {}", self.snapshots[..n.min(5)].join(", "))?;
                if n > 5 {
                    write!(f, " and {} more", n - 5)?;
                }
                f.write_str(")")
            }
        }
    }
}

impl std::error::Error for RepoError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|s| &**s as &(dyn std::error::Error + 'static))
    }
}
