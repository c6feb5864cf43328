//! What async-nats reports, as errors of the port.

use jobs::{JobsError, Kind};

/// The servers don't do what they should now; trying again may help.
pub(super) fn failed(what: &str, e: impl std::fmt::Display) -> JobsError {
    JobsError::new(Kind::Storage, format!("the job store: {what}: {e}"))
        .hint("look at the NATS servers: windlass status, nats server report jetstream")
}

/// A stored thing can't be read.
pub(super) fn unreadable(what: &str, e: impl std::fmt::Display) -> JobsError {
    JobsError::new(
        Kind::Corrupt,
        format!("{what} can't be read: {e}; it was left unchanged"),
    )
}
