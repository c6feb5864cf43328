//! Who stands behind a request, a job or a record: a member of the fleet.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::subject::SubjectError;
use crate::{HostId, PersonId};

/// A member of the fleet. Its text is `host:h1` or `person:ada`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum Sender {
    /// A host, and whoever speaks through its socket.
    Host(HostId),
    /// A person with a key of their own.
    Person(PersonId),
}

impl Sender {
    /// `host` or `person`.
    pub fn kind(&self) -> &'static str {
        match self {
            Sender::Host(_) => "host",
            Sender::Person(_) => "person",
        }
    }
    /// The id without its kind.
    pub fn name(&self) -> &str {
        match self {
            Sender::Host(host) => host.as_str(),
            Sender::Person(person) => person.as_str(),
        }
    }
    /// Of a kind and an id.
    ///
    /// # Errors
    /// For another kind, and for what is no id.
    pub fn of(kind: &str, name: &str) -> Result<Self, SubjectError> {
        match kind {
            "host" => HostId::new(name).map(Sender::Host),
            "person" => PersonId::new(name).map(Sender::Person),
            other => Err(SubjectError::Token(other.to_owned())),
        }
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind(), self.name())
    }
}

impl FromStr for Sender {
    type Err = SubjectError;
    fn from_str(text: &str) -> Result<Self, SubjectError> {
        let (kind, name) = text
            .split_once(':')
            .ok_or_else(|| SubjectError::Token(text.to_owned()))?;
        Self::of(kind, name)
    }
}

impl TryFrom<String> for Sender {
    type Error = SubjectError;
    fn try_from(text: String) -> Result<Self, SubjectError> {
        text.parse()
    }
}

impl From<Sender> for String {
    fn from(sender: Sender) -> String {
        sender.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_survive_their_text() {
        for text in ["host:h1", "person:ada"] {
            assert_eq!(text.parse::<Sender>().unwrap().to_string(), text);
        }
        for foreign in ["h1", "host:", "host:a b", "root:h1", "host:h1:x", ""] {
            assert!(foreign.parse::<Sender>().is_err(), "{foreign}");
        }
    }
}
