//! Errors of the house while it starts something.
//!
//! Policy: what the bus or the job store answered is carried whole, as the body that it becomes, so that its code and hint
//! arrive; a caller decides by [`Kind`] or `is_permanent`, never by the text. Faults of a concern that runs are no
//! `RuntimeError`: they are answers.

use wire::{Code, ErrorBody};

/// What kind of fault the house had while it started something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A concern that can't be served as it describes itself, or is there already.
    Invalid,
    /// The bus refused.
    Bus,
    /// The job store refused.
    Jobs,
    /// The host's id is taken, or the state refused.
    Host,
    /// The system gave no thread.
    System,
}

/// Why something didn't start.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct RuntimeError {
    /// What kind.
    pub kind: Kind,
    message: String,
    body: Option<ErrorBody>,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl RuntimeError {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            body: None,
            source: None,
        }
    }
    pub(crate) fn caused_by(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }
    /// False when starting again may succeed.
    pub fn is_permanent(&self) -> bool {
        match &self.body {
            Some(body) => body.code.is_permanent(),
            None => self.kind == Kind::Invalid,
        }
    }
}

impl From<bus::BusError> for RuntimeError {
    fn from(error: bus::BusError) -> Self {
        Self {
            kind: Kind::Bus,
            message: error.to_string(),
            body: Some(error.into()),
            source: None,
        }
    }
}

impl From<ErrorBody> for RuntimeError {
    fn from(body: ErrorBody) -> Self {
        Self {
            kind: Kind::Host,
            message: body.message.clone(),
            body: Some(body),
            source: None,
        }
    }
}

impl From<jobs::JobsError> for RuntimeError {
    fn from(error: jobs::JobsError) -> Self {
        Self {
            kind: Kind::Jobs,
            message: error.to_string(),
            body: Some(error.into()),
            source: None,
        }
    }
}

impl From<RuntimeError> for ErrorBody {
    fn from(error: RuntimeError) -> Self {
        let code = if error.kind == Kind::Invalid {
            Code::Invalid
        } else {
            Code::Unavailable
        };
        error.body.unwrap_or_else(|| ErrorBody::new(code, error.message))
    }
}
