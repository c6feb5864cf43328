//! The audit: every action with who, what, from where and how it ended; every refusal, too.
//!
//! ```text
//! gateway, house, refusals of the servers --note--> bounded queue --gathered--> audit/<ulid> in the host's own state, a ring
//!                                                                         `--> event audit.action (WINDLASS_EVENTS)
//! ```
//!
//! Looks are not noted unless they were denied. The same within a moment is one entry with a number, so a flood costs a few
//! entries. What was noted is durable within a second; a daemon that is killed loses that second. What comes faster than it can
//! be written is counted and said.

mod book;
mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use runtime::{Announcer, rfc3339, ulid};
use serde_json::Value;
use state::State;
use tokio::sync::{Mutex, mpsc, oneshot};
use wire::audit::AuditEntry;
use wire::trace::TraceContext;
use wire::{Code, ErrorBody, Role, Subject};

pub use book::AuditBook;

/// Notes that may wait to be written.
const NOTES_QUEUED_MAX: usize = 4_096;
/// Bytes of a text in an entry.
const TEXT_BYTES_MAX: usize = 512;
/// Names in a request that an entry tells; nothing else of a request is kept.
const NAMES: [&str; 9] = [
    "vm",
    "snapshot",
    "id",
    "host",
    "rack",
    "job",
    "placement",
    "tenant",
    "disk",
];

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// A token's name, or `uid 0`.
    pub who: String,
    /// What they may do.
    pub role: Role,
    /// An address, or the socket.
    pub from: String,
}

/// Something to be noted: an entry without id, time and host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    who: String,
    role: Option<Role>,
    from: String,
    what: String,
    about: String,
    refused: Option<u16>,
    why: Option<String>,
    trace_id: Option<String>,
}

enum Word {
    Note(Box<Note>, Option<Code>, u64),
    Flush(oneshot::Sender<()>),
}

/// The audit of a host; clones are the same.
#[derive(Debug, Clone)]
pub struct Audit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    words: mpsc::Sender<Word>,
    denied: AtomicU64,
    missed: AtomicU64,
    ring: Mutex<writer::Ring>,
    announcer: Announcer,
}

impl Audit {
    /// Opens what the host's own state has, and writes from now on.
    ///
    /// # Errors
    /// When the state can't be read.
    pub async fn open(own_state: Arc<dyn State>, announcer: Announcer) -> Result<Self, ErrorBody> {
        let (words, heard) = mpsc::channel(NOTES_QUEUED_MAX);
        let ring = Mutex::new(writer::Ring::open(own_state).await?);
        let audit = Self(Arc::new(Inner {
            words,
            denied: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            ring,
            announcer,
        }));
        tokio::spawn(writer::write(Arc::downgrade(&audit.0), heard));
        Ok(audit)
    }

    /// Notes how a request ended; a look that was not denied is not noted.
    pub fn note_request(
        &self,
        caller: &Caller,
        subject: &Subject,
        request: &[u8],
        trace: Option<TraceContext>,
        outcome: Result<(), &ErrorBody>,
    ) {
        let refused = outcome.err().map(|error| error.code);
        let is_look = wire::catalog::role_of(subject) == Role::Viewer;
        if is_look && refused != Some(Code::Denied) {
            return;
        }
        let note = Note {
            who: clipped(&caller.who),
            role: Some(caller.role),
            from: clipped(&caller.from),
            what: format!("{}.{}", subject.concern(), subject.verb()),
            about: names_in(request),
            refused: None,
            why: outcome.err().map(|error| clipped(&error.message)),
            trace_id: trace.map(|trace| trace.trace_id()),
        };
        self.note(note, refused, 1);
    }

    /// Notes that somebody was denied something that is no request.
    pub fn note_denied(&self, who: &str, from: &str, what: &str, why: &str, times: u64) {
        let note = Note {
            who: clipped(who),
            role: None,
            from: clipped(from),
            what: clipped(what),
            about: String::new(),
            refused: None,
            why: Some(clipped(why)),
            trace_id: None,
        };
        self.note(note, Some(Code::Denied), times);
    }

    fn note(&self, mut note: Note, refused: Option<Code>, times: u64) {
        if refused == Some(Code::Denied) {
            self.0.denied.fetch_add(times, Ordering::Relaxed);
        }
        note.refused = refused.map(Code::http_status);
        if self
            .0
            .words
            .try_send(Word::Note(Box::new(note), refused, times))
            .is_err()
        {
            self.0.missed.fetch_add(times, Ordering::Relaxed);
        }
    }

    /// Returns once everything that was noted is durable, or after a while.
    pub async fn flush(&self) {
        const PATIENCE: Duration = Duration::from_secs(2);
        let (tell, told) = oneshot::channel();
        let flushed = async {
            if self.0.words.send(Word::Flush(tell)).await.is_ok() {
                let _written_or_gone = told.await;
            }
        };
        let _in_time = tokio::time::timeout(PATIENCE, flushed).await;
    }

    /// Notes from now on what the servers refuse to us, we to others, and the servers to anybody as their log tells.
    pub fn follow_refusals(&self, lattice: &nats::Lattice) {
        const LOOK_EVERY: Duration = Duration::from_secs(1);
        let (audit, lattice) = (Arc::downgrade(&self.0), lattice.clone());
        tokio::spawn(async move {
            while let Some(audit) = audit.upgrade().map(Audit) {
                for refusal in lattice.take_refusals() {
                    audit.note_refusal(&refusal);
                }
                drop(audit);
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
    }

    fn note_refusal(&self, refusal: &nats::Refusal) {
        let what = format!("nats.{} {}", refusal.what.as_str(), refusal.subject);
        match (&refusal.who, refusal.what) {
            (Some(who), _) => self.note_denied(
                who,
                "the NATS server's log",
                what.trim_end(),
                "refused by the NATS server",
                refusal.times,
            ),
            (None, nats::Refused::ForgedEvent) => {
                let why = "an event whose source is another host than its subject says; it was dropped";
                self.note_denied("unknown", "NATS", &what, why, refusal.times);
            }
            (None, _) => {
                let host = self.0.announcer.host.to_string();
                self.note_denied(&host, "this daemon", &what, "refused by the NATS server", refusal.times);
            }
        }
    }

    fn entry(&self, note: Note, refused: Option<Code>, times: u64) -> AuditEntry {
        let clock = &*self.0.announcer.clock;
        AuditEntry {
            id: ulid(clock),
            at: rfc3339(clock.now_ms()),
            host: self.0.announcer.host.clone(),
            who: note.who,
            role: note.role,
            from: note.from,
            what: note.what,
            about: note.about,
            refused,
            why: note.why,
            times,
            trace_id: note.trace_id,
        }
    }
}

/// What the request names, of the few names that are no secrets.
fn names_in(request: &[u8]) -> String {
    let Ok(fields) = serde_json::from_slice::<BTreeMap<String, Value>>(request) else {
        return String::new();
    };
    let named = NAMES.iter().filter_map(|name| match fields.get(*name) {
        Some(Value::String(text)) if text.len() <= wire::subject::TOKEN_BYTES_MAX => Some(format!("{name}={text}")),
        _ => None,
    });
    clipped(&named.collect::<Vec<_>>().join(" "))
}

fn clipped(text: &str) -> String {
    let mut kept = String::new();
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if kept.len() + c.len_utf8() > TEXT_BYTES_MAX {
            break;
        }
        kept.push(c);
    }
    kept
}

#[cfg(test)]
mod tests;
