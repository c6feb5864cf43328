//! Errors of the job store.
//!
//! Policy: a refusal names the job and leaves it as it was. A fault of the state beneath is kept as the source, and its code
//! and hint become the answer's. A caller decides by [`Kind`], never by the text.

use wire::job::{JobId, JobState};
use wire::{Code, ErrorBody};

/// What kind of fault the job store had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A request or result that is not taken.
    Invalid,
    /// No such job.
    NotFound,
    /// The job's state or its request id forbids it.
    Conflict,
    /// Too many open jobs.
    Busy,
    /// Nobody stands behind it.
    Denied,
    /// A stored job can't be read.
    Corrupt,
    /// The storage failed; its own error is the source.
    Storage,
}

/// A fault of the job store.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct JobsError {
    /// What kind.
    pub kind: Kind,
    message: String,
    hint: Option<String>,
    permanent: bool,
    #[source]
    source: Option<Box<state::StateError>>,
}

impl JobsError {
    /// An error with its message: what failed, on which job, why, and what was left unchanged.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
            permanent: !matches!(kind, Kind::Busy | Kind::Storage),
            source: None,
        }
    }
    /// Adds the next thing to try.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    /// False when the same call may succeed later.
    pub fn is_permanent(&self) -> bool {
        self.permanent
    }
    /// No such job.
    pub fn not_found(id: &JobId) -> Self {
        Self::new(Kind::NotFound, format!("job {id} doesn't exist")).hint("windlass jobs ls")
    }
    /// A request id that names a job with another request.
    pub fn other_request(request_id: &str, id: &JobId) -> Self {
        Self::new(
            Kind::Conflict,
            format!("request id '{request_id}' names job {id}, which has another request; nothing was submitted"),
        )
        .hint(format!("windlass jobs show {id}, or use another request id"))
    }
    /// The job is in another state than the one wanted.
    pub fn wrong_state(id: &JobId, state: JobState, wanted: &str) -> Self {
        let state = state.as_str();
        Self::new(
            Kind::Conflict,
            format!("job {id} is {state}, not {wanted}; it was left unchanged"),
        )
    }
}

impl From<state::StateError> for JobsError {
    fn from(error: state::StateError) -> Self {
        let kind = if error.kind == state::Kind::Corrupt {
            Kind::Corrupt
        } else {
            Kind::Storage
        };
        Self {
            kind,
            message: format!("the job store: {error}"),
            hint: None,
            permanent: error.is_permanent(),
            source: Some(Box::new(error)),
        }
    }
}

impl From<JobsError> for ErrorBody {
    fn from(error: JobsError) -> Self {
        let code = match error.kind {
            // the storage knows best what it was; its hint goes with it
            Kind::Corrupt | Kind::Storage if error.source.is_some() => {
                let inner = error.source.map(|e| ErrorBody::from(*e));
                return ErrorBody {
                    code: inner.as_ref().map_or(Code::Unavailable, |e| e.code),
                    message: error.message,
                    hint: error.hint.or_else(|| inner.and_then(|e| e.hint)),
                    retry_after_ms: None,
                };
            }
            Kind::Invalid => Code::Invalid,
            Kind::NotFound => Code::NotFound,
            Kind::Conflict => Code::Conflict,
            Kind::Busy => Code::Busy,
            Kind::Denied => Code::Denied,
            Kind::Corrupt => Code::Corrupt,
            Kind::Storage => Code::Unavailable,
        };
        ErrorBody {
            code,
            message: error.message,
            hint: error.hint,
            retry_after_ms: (error.kind == Kind::Busy).then_some(1_000),
        }
    }
}
