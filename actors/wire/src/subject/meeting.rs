//! What subjects say of who speaks, where hosts and people meet at servers: the servers check it (docs/security.md).

use std::fmt;

use super::{HostId, PREFIX, Subject, SubjectError};
use crate::Sender;

impl Sender {
    /// The host, if it is one.
    pub fn host(&self) -> Option<&HostId> {
        match self {
            Self::Host(host) => Some(host),
            Self::Person(_) => None,
        }
    }
    /// As whom the servers know it: `h1`, or `@ada`, for no host can be called so.
    pub fn user(&self) -> String {
        match self {
            Self::Host(host) => host.to_string(),
            Self::Person(person) => format!("@{person}"),
        }
    }
    /// Where its answers come back: the beginning of the subjects, without the dot.
    pub fn inbox(&self) -> String {
        format!("_INBOX.{}", self.user())
    }
}

/// An event on its way between hosts: what it is, and which host tells it. `Display` gives the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventPlace {
    /// The event.
    pub subject: Subject,
    /// Who tells it; none of an event that doesn't say.
    pub host: Option<HostId>,
}

impl EventPlace {
    /// Takes the text of a subject apart.
    pub fn parse(text: &str) -> Result<Self, SubjectError> {
        let form = || SubjectError::Form(text.to_owned());
        let rest = text
            .strip_prefix(PREFIX)
            .and_then(|r| r.strip_prefix(".event."))
            .ok_or_else(form)?;
        match rest.split('.').collect::<Vec<_>>().as_slice() {
            [concern, what] => Ok(Self {
                subject: Subject::event(concern, what)?,
                host: None,
            }),
            [concern, what, host] => Ok(Self {
                subject: Subject::event(concern, what)?,
                host: Some(HostId::new(host)?),
            }),
            _ => Err(form()),
        }
    }
    /// All events that `host` tells, in NATS's wildcard form.
    pub fn told_by(host: &HostId) -> String {
        format!("{PREFIX}.event.*.*.{host}")
    }
}

impl fmt::Display for EventPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Some(host) => write!(f, "{}.{host}", self.subject),
            None => write!(f, "{}", self.subject),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::EventFilter;
    use super::*;
    use crate::PersonId;

    #[test]
    fn events_say_who_tells_them_and_inboxes_whose_they_are() {
        let (host, ada) = (HostId::new("h-1").unwrap(), PersonId::new("ada").unwrap());
        let subject = Subject::event("snapshot", "created").unwrap();
        for host in [Some(host.clone()), None] {
            let place = EventPlace {
                subject: subject.clone(),
                host,
            };
            assert_eq!(EventPlace::parse(&place.to_string()), Ok(place));
        }
        for bad in [
            "windlass.v1.event.a",
            "windlass.v1.event.a.b.c.d",
            "windlass.v1.event.a.b.@x",
        ] {
            assert!(EventPlace::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Sender::Host(host).inbox(), "_INBOX.h-1");
        assert_eq!(Sender::Person(ada).inbox(), "_INBOX.@ada");
        let exactly = EventFilter::parse("windlass.v1.event.snapshot.created").unwrap();
        assert_eq!(exactly.patterns().len(), 2);
    }
}
