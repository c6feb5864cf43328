//! Subjects: built and parsed here alone.
//!
//! ```text
//! windlass.v1.<concern>.<verb>               any host that serves the concern (queue group <concern>)
//! windlass.v1.host.<host>.<concern>.<verb>   that host
//! windlass.v1.event.<concern>.<what>         events
//! windlass.v1.event.<concern>.<what>.<host>  an event where hosts meet: who says so is in the subject, which the servers check
//! windlass.v1.job.<concern>.<host>.<id>      a job in the queue of one host
//! windlass.v1.job.<concern>.@any.<id>        a job in the queue that all hosts share
//! _INBOX.<host>.…  _INBOX.@<person>.…        where answers to a host, or to a person's verb, come back
//! ```

use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const PREFIX: &str = "windlass.v1";
/// Longest token (host, concern, verb) in bytes.
pub const TOKEN_BYTES_MAX: usize = 64;

/// Why a subject or one of its tokens was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// A token is empty, too long, or has a character that subjects can't carry.
    #[error("'{0}' can't be part of a subject: use 1 to {TOKEN_BYTES_MAX} of a-z, A-Z, 0-9, '_' and '-'")]
    Token(String),
    /// The text is not one of the three forms above.
    #[error(
        "'{0}' is not a windlass subject; it looks like windlass.v1.<concern>.<verb>, windlass.v1.host.<host>.<concern>.<verb> or windlass.v1.event.<concern>.<what>"
    )]
    Form(String),
}

fn token(text: &str) -> Result<String, SubjectError> {
    checked(text).map(str::to_owned)
}

fn checked(text: &str) -> Result<&str, SubjectError> {
    let fine = !text.is_empty()
        && text.len() <= TOKEN_BYTES_MAX
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if fine {
        Ok(text)
    } else {
        Err(SubjectError::Token(text.to_owned()))
    }
}

macro_rules! token_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schemars(with = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks that `text` is 1 to 64 of a-z, A-Z, 0-9, `_` and `-`.
            pub fn new(text: &str) -> Result<Self, SubjectError> {
                token(text).map(Self)
            }
            /// The token as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl std::str::FromStr for $name {
            type Err = SubjectError;
            fn from_str(text: &str) -> Result<Self, SubjectError> {
                Self::new(text)
            }
        }
        impl TryFrom<String> for $name {
            type Error = SubjectError;
            fn try_from(text: String) -> Result<Self, SubjectError> {
                Self::new(&text)
            }
        }
        impl From<$name> for String {
            fn from(token: $name) -> String {
                token.0
            }
        }
    };
}

token_type! {
    /// A host's id: unique in the fleet, stable over restarts.
    HostId
}
token_type! {
    /// A person's name among the members of a fleet.
    PersonId
}
token_type! {
    /// A concern's name, such as `snapshot`: its directory, config section, subject token and metric prefix.
    ConcernName
}

mod meeting;
pub use meeting::EventPlace;

/// Where a message goes. `Display` gives the text; [`Subject::parse`] takes it apart again. Clones share the text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject {
    text: Arc<str>,
    form: Form,
    // where the concern begins, and the verb behind it
    concern: u8,
    verb: u8,
}

/// What a subject is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Form {
    /// A request that any host answers which serves the concern.
    Cluster,
    /// A request that one host answers.
    Host,
    /// An event: something that happened.
    Event,
}

impl Subject {
    /// `windlass.v1.<concern>.<verb>`
    pub fn cluster(concern: &str, verb: &str) -> Result<Self, SubjectError> {
        Self::of(Form::Cluster, "", concern, verb)
    }
    /// `windlass.v1.host.<host>.<concern>.<verb>`
    pub fn host(host: &HostId, concern: &str, verb: &str) -> Result<Self, SubjectError> {
        Self::of(Form::Host, host.as_str(), concern, verb)
    }
    /// `windlass.v1.event.<concern>.<what>`
    pub fn event(concern: &str, what: &str) -> Result<Self, SubjectError> {
        Self::of(Form::Event, "", concern, what)
    }

    /// Every request to one host, in NATS's wildcard form.
    pub fn below_host(host: &HostId) -> String {
        format!("{PREFIX}.host.{host}.>")
    }
    /// One request to whatever host, in NATS's wildcard form.
    pub fn to_any_host(concern: &str, verb: &str) -> Result<String, SubjectError> {
        Ok(format!("{PREFIX}.host.*.{}.{}", checked(concern)?, checked(verb)?))
    }

    /// The host counts only for [`Form::Host`], and was checked.
    fn of(form: Form, host: &str, concern: &str, verb: &str) -> Result<Self, SubjectError> {
        checked(concern)?;
        checked(verb)?;
        let before: &[&str] = match form {
            Form::Cluster => &[PREFIX, "."],
            Form::Host => &[PREFIX, ".host.", host, "."],
            Form::Event => &[PREFIX, ".event."],
        };
        let begins: usize = before.iter().map(|part| part.len()).sum();
        let mut text = String::with_capacity(begins + concern.len() + 1 + verb.len());
        before.iter().for_each(|part| text.push_str(part));
        text.push_str(concern);
        text.push('.');
        text.push_str(verb);
        // a token has 64 bytes at most, and only one stands before the concern
        let place = |at: usize| u8::try_from(at).map_err(|_| SubjectError::Form(text.clone()));
        let (concern, verb) = (place(begins)?, place(begins + concern.len() + 1)?);
        Ok(Self {
            text: text.into(),
            form,
            concern,
            verb,
        })
    }

    /// What it is for.
    pub fn form(&self) -> Form {
        self.form
    }
    /// The text, as `Display` gives it.
    pub fn as_str(&self) -> &str {
        &self.text
    }
    /// The concern that the subject belongs to.
    pub fn concern(&self) -> &str {
        &self.text[usize::from(self.concern)..usize::from(self.verb) - 1]
    }
    /// The verb of a request, or what an event tells.
    pub fn verb(&self) -> &str {
        &self.text[usize::from(self.verb)..]
    }
    /// The queue group of a cluster-wide request; host-addressed requests and events have none.
    pub fn queue_group(&self) -> Option<&str> {
        match self.form {
            Form::Cluster => Some(self.concern()),
            Form::Host | Form::Event => None,
        }
    }
    /// Takes the text of a subject apart.
    pub fn parse(text: &str) -> Result<Self, SubjectError> {
        let form = || SubjectError::Form(text.to_owned());
        let rest = text
            .strip_prefix(PREFIX)
            .and_then(|r| r.strip_prefix('.'))
            .ok_or_else(form)?;
        let tokens: Vec<&str> = rest.split('.').collect();
        match tokens.as_slice() {
            ["host", host, concern, verb] => Self::host(&HostId::new(host)?, concern, verb),
            ["event", concern, what] => Self::event(concern, what),
            ["host" | "event", ..] => Err(form()),
            [concern, verb] => Self::cluster(concern, verb),
            _ => Err(form()),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subject({})", self.text)
    }
}

/// Which events a subscriber wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventFilter {
    /// Every event of every concern.
    All,
    /// Every event of one concern.
    Concern(ConcernName),
    /// One kind of event.
    Exactly(ConcernName, String),
}

impl EventFilter {
    /// True when `subject` is an event that this filter wants.
    pub fn wants(&self, subject: &Subject) -> bool {
        subject.form() == Form::Event
            && match self {
                Self::All => true,
                Self::Concern(wanted) => wanted.as_str() == subject.concern(),
                Self::Exactly(wanted, kind) => wanted.as_str() == subject.concern() && kind == subject.verb(),
            }
    }
    /// The filter in NATS's wildcard form.
    pub fn pattern(&self) -> String {
        match self {
            Self::All => format!("{PREFIX}.event.>"),
            Self::Concern(concern) => format!("{PREFIX}.event.{concern}.*"),
            Self::Exactly(concern, what) => format!("{PREFIX}.event.{concern}.{what}"),
        }
    }
    /// The filter for events that say in their subjects which host tells them, and for those that don't.
    pub fn patterns(&self) -> Vec<String> {
        match self {
            Self::All => vec![self.pattern()],
            Self::Concern(concern) => vec![format!("{PREFIX}.event.{concern}.>")],
            Self::Exactly(..) => vec![self.pattern(), format!("{}.*", self.pattern())],
        }
    }
    /// Reads the form that [`EventFilter::pattern`] writes.
    pub fn parse(text: &str) -> Result<Self, SubjectError> {
        let form = || SubjectError::Form(text.to_owned());
        let rest = text
            .strip_prefix(PREFIX)
            .and_then(|r| r.strip_prefix(".event."))
            .ok_or_else(form)?;
        match rest.split('.').collect::<Vec<_>>().as_slice() {
            [">"] => Ok(Self::All),
            [concern, "*" | ">"] => Ok(Self::Concern(ConcernName::new(concern)?)),
            [concern, what] => Ok(Self::Exactly(ConcernName::new(concern)?, token(what)?)),
            _ => Err(form()),
        }
    }
}

/// In the place of a host: the queue that all hosts share. No host can be called so.
const ANY_HOST: &str = "@any";

/// Where a job waits. `Display` gives the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JobSubject {
    concern: ConcernName,
    host: Option<HostId>,
    job: String,
}

impl JobSubject {
    /// The place of a job: in the queue of `host`, or in the one that all hosts share.
    pub fn new(concern: &str, host: Option<&HostId>, job: &crate::job::JobId) -> Result<Self, SubjectError> {
        Ok(Self {
            concern: ConcernName::new(concern)?,
            host: host.cloned(),
            job: token(&job.0)?,
        })
    }
    /// The host whose queue it is; none of the one that all hosts share.
    pub fn host(&self) -> Option<&HostId> {
        self.host.as_ref()
    }
    /// The job's id.
    pub fn job(&self) -> crate::job::JobId {
        crate::job::JobId(self.job.clone())
    }
    /// Takes the text of a subject apart.
    pub fn parse(text: &str) -> Result<Self, SubjectError> {
        let form = || SubjectError::Form(text.to_owned());
        let rest = text
            .strip_prefix(PREFIX)
            .and_then(|r| r.strip_prefix(".job."))
            .ok_or_else(form)?;
        match rest.split('.').collect::<Vec<_>>().as_slice() {
            [concern, host, job] => Ok(Self {
                concern: ConcernName::new(concern)?,
                host: Self::queue_of_token(host)?,
                job: token(job)?,
            }),
            _ => Err(form()),
        }
    }
    /// The queue of `host`, or the one that all hosts share, as the token of a subject.
    pub fn queue_token(host: Option<&HostId>) -> &str {
        host.map_or(ANY_HOST, HostId::as_str)
    }
    /// Reads what [`JobSubject::queue_token`] writes.
    pub fn queue_of_token(text: &str) -> Result<Option<HostId>, SubjectError> {
        match text {
            ANY_HOST => Ok(None),
            host => HostId::new(host).map(Some),
        }
    }
    /// All jobs of all queues, in NATS's wildcard form.
    pub fn every() -> String {
        format!("{PREFIX}.job.*.*.*")
    }
    /// The jobs of one queue, in NATS's wildcard form.
    pub fn queue(concern: &ConcernName, host: Option<&HostId>) -> String {
        format!("{PREFIX}.job.{concern}.{}.*", Self::queue_token(host))
    }
    /// One job, whatever its queue, in NATS's wildcard form.
    pub fn anywhere(job: &crate::job::JobId) -> Result<String, SubjectError> {
        Ok(format!("{PREFIX}.job.*.*.{}", token(&job.0)?))
    }
}

impl fmt::Display for JobSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = Self::queue_token(self.host.as_ref());
        write!(f, "{PREFIX}.job.{}.{host}.{}", self.concern, self.job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_survives_its_text() {
        let host = HostId::new("h-1").unwrap();
        for subject in [
            Subject::cluster("rack_scheduler", "place").unwrap(),
            Subject::host(&host, "snapshot", "create").unwrap(),
            Subject::event("snapshot", "created").unwrap(),
        ] {
            assert_eq!(Subject::parse(&subject.to_string()), Ok(subject));
        }
        for filter in [
            "windlass.v1.event.>",
            "windlass.v1.event.snapshot.*",
            "windlass.v1.event.snapshot.created",
        ] {
            assert_eq!(EventFilter::parse(filter).unwrap().pattern(), filter);
        }
    }

    #[test]
    fn jobs_have_their_places() {
        let (host, job) = (HostId::new("h-1").unwrap(), crate::job::JobId("01J".into()));
        let own = JobSubject::new("snapshot", Some(&host), &job).unwrap();
        let shared = JobSubject::new("snapshot", None, &job).unwrap();
        assert_eq!(own.to_string(), "windlass.v1.job.snapshot.h-1.01J");
        assert_eq!(shared.to_string(), "windlass.v1.job.snapshot.@any.01J");
        for subject in [own, shared] {
            assert_eq!(JobSubject::parse(&subject.to_string()).unwrap(), subject);
            assert_eq!(subject.job(), job);
            assert!(Subject::parse(&subject.to_string()).is_err());
        }
        assert!(HostId::new(ANY_HOST).is_err());
        for bad in ["", "*", ">", "a.b", "a b"] {
            let job = crate::job::JobId(bad.into());
            assert!(JobSubject::new("snapshot", None, &job).is_err() && JobSubject::anywhere(&job).is_err());
        }
    }

    #[test]
    fn what_is_not_a_subject_is_refused() {
        for text in [
            "",
            "windlass",
            "windlass.v2.a.b",
            "windlass.v1.a",
            "windlass.v1.host.h.a",
            "windlass.v1.event.a",
            "windlass.v1.a.b.c",
            "windlass.v1.a.*",
            "windlass.v1..b",
            "windlass.v1.a.b ",
            "windlass.v1.é.b",
        ] {
            assert!(Subject::parse(text).is_err(), "{text} was taken");
        }
        assert!(HostId::new(&"x".repeat(65)).is_err());
        assert!(serde_json::from_str::<HostId>("\"a.b\"").is_err());
    }
}
