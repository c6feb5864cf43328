//! Why something is not heard.

use std::fmt;

use wire::{Code, ErrorBody};

/// Why something is not heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    /// It has no signature, and needs one.
    Unsigned,
    /// Its signature can't be read.
    Unreadable,
    /// Whoever signed it is no member, as far as this host knows.
    Unknown,
    /// Whoever signed it was put out of the fleet.
    Revoked,
    /// It was signed too long ago, or ahead of the fleet's clock.
    Stale,
    /// It isn't what was signed, or another key signed it.
    Altered,
    /// It was heard before.
    Replayed,
    /// Whoever signed it may not do this.
    Unauthorised,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Refusal; 8] = [
        Refusal::Unsigned,
        Refusal::Unreadable,
        Refusal::Unknown,
        Refusal::Revoked,
        Refusal::Stale,
        Refusal::Altered,
        Refusal::Replayed,
        Refusal::Unauthorised,
    ];

    /// The reason as it stands in events and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Refusal::Unsigned => "unsigned",
            Refusal::Unreadable => "unreadable",
            Refusal::Unknown => "unknown",
            Refusal::Revoked => "revoked",
            Refusal::Stale => "stale",
            Refusal::Altered => "altered",
            Refusal::Replayed => "replayed",
            Refusal::Unauthorised => "unauthorised",
        }
    }

    fn why(self) -> &'static str {
        match self {
            Refusal::Unsigned => "no member of the fleet has signed it",
            Refusal::Unreadable => "its signature can't be read",
            Refusal::Unknown => "whoever signed it is no member of the fleet",
            Refusal::Revoked => "whoever signed it was put out of the fleet",
            Refusal::Stale => "it was signed too long ago, or ahead of the fleet's clock",
            Refusal::Altered => "it is not what was signed",
            Refusal::Replayed => "it was heard before",
            Refusal::Unauthorised => "whoever signed it may not do this",
        }
    }

    /// The next thing to do about it.
    pub fn hint(self) -> &'static str {
        match self {
            Refusal::Unsigned => {
                "ask through the socket of a daemon, or join: windlass hosts token --person NAME on a member, then windlass \
                 hosts join TOKEN here"
            }
            Refusal::Unknown | Refusal::Revoked => {
                "windlass hosts token on a member, then windlass hosts join TOKEN here; windlass hosts members tells who belongs"
            }
            Refusal::Stale | Refusal::Replayed => "ask again: each request is signed anew",
            Refusal::Unreadable | Refusal::Altered => {
                "compare the versions and the keys of both sides: windlass hosts members"
            }
            Refusal::Unauthorised => "windlass hosts members tells who may",
        }
    }

    /// The error of whoever asked for `what`.
    pub fn error(self, what: impl fmt::Display) -> ErrorBody {
        let message = format!("{what}: {}; nothing was carried out", self.why());
        ErrorBody::new(Code::Denied, message).hint(self.hint())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.why())
    }
}

impl std::error::Error for Refusal {}
