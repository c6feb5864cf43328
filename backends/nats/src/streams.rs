//! What jobs and state need of JetStream, in words of our own: [`Jetstream`] does it over async-nats.
//!
//! ```text
//! jobs, state --Streams--> Jetstream --> NATS servers
//!                    `---> a simulated world (integration/tests/simulation), which loses, delays and repeats
//! ```
//!
//! The decisions stand on this side of the seam, tries and waits among them: a simulation runs the very code that runs in
//! production, and brings nothing but streams.

mod jetstream;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use crate::error::NatsError;
use crate::replies::NoAnswer;
use crate::tail::Tailed;

pub(crate) use jetstream::{Jetstream, headers_of};

/// The sequence that the last message of the subject must have; 0 for none.
pub const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";
/// A message of this id is stored once within the stream's window of ids.
pub const MESSAGE_ID: &str = "Nats-Msg-Id";
/// After so many seconds the message goes by itself.
pub const TTL: &str = "Nats-TTL";
/// What NATS's key-value clients look at: the key is gone.
pub const OPERATION: &str = "KV-Operation";

/// The result of these calls.
pub type Result<T> = std::result::Result<T, NatsError>;

/// A message to be stored.
#[derive(Debug, Clone, Default)]
pub struct Outgoing {
    /// Where.
    pub subject: String,
    /// What is said of it.
    pub headers: Vec<(&'static str, String)>,
    /// What it says.
    pub payload: Bytes,
}

impl Outgoing {
    /// A message.
    pub fn new(subject: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Self {
            subject: subject.into(),
            headers: vec![],
            payload: payload.into(),
        }
    }
    /// One more thing said of it.
    pub fn with(mut self, header: &'static str, value: impl ToString) -> Self {
        self.headers.push((header, value.to_string()));
        self
    }
    /// What is said of it under this name.
    #[cfg(any(test, feature = "testing"))]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str())
    }
}

/// A stored message.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its place in the stream.
    pub sequence: u64,
    /// Where it was sent.
    pub subject: String,
    /// What is said of it.
    pub headers: Vec<(String, String)>,
    /// What it says.
    pub payload: Bytes,
}

impl Stored {
    /// What is said of it under this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// Why one try to store a message is not known to have stored it.
#[derive(Debug, thiserror::Error)]
pub enum NotStored {
    /// The subject's last message isn't the expected one; nothing was stored.
    #[error("somebody was there before: {0}")]
    Overtaken(String),
    /// The stream holds as many messages as it may; nothing was stored.
    #[error("{0}")]
    Full(String),
    /// No server carries so much; nothing was stored.
    #[error("{0}")]
    TooLarge(String),
    /// Nothing was stored, and nothing will be.
    #[error("{0}")]
    Refused(String),
    /// It may be stored; the same message may be sent again.
    #[error("{0}")]
    Unclear(String),
}

/// An error of streams that don't answer.
#[cfg(any(test, feature = "testing"))]
pub fn not_answered(what: &str) -> NatsError {
    NatsError::new(crate::error::Kind::Unavailable, what)
}

/// A queue's place for those who pull from it.
#[derive(Debug, Clone)]
pub struct Consumer {
    /// Its name.
    pub name: String,
    /// Which subjects.
    pub filter: String,
    /// A message that wasn't acknowledged for so long is delivered again.
    pub ack_wait: Duration,
    /// Pulls that may wait.
    pub pulls_max: i64,
}

/// What is said of a delivered message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ack {
    /// It is worked on: its time begins anew.
    Progress,
    /// It goes back to its queue at once.
    Back,
    /// It has served; waits until the servers say that they know.
    Done,
}

/// A delivered message.
#[async_trait]
pub trait Delivered: Debug + Send + Sync {
    /// What it says.
    fn payload(&self) -> &Bytes;
    /// Its place in the stream.
    ///
    /// # Errors
    /// `Corrupt` when the servers don't say so.
    fn sequence(&self) -> Result<u64>;
    /// Tells its queue.
    ///
    /// # Errors
    /// `Unavailable` when it can't be told, or with [`Ack::Done`] when no server confirms it.
    async fn ack(&self, ack: Ack) -> Result<()>;
}

/// Where messages are pulled from.
#[async_trait]
pub trait Pulls: Debug + Send + Sync + 'static {
    /// The next message; `None` when there is none for so long.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn pull(&self, wait: Duration) -> Result<Option<Box<dyn Delivered>>>;
}

/// Follows a stream.
#[async_trait]
pub trait Follows: Send {
    /// Waits for what comes next; tries again for ever while the servers don't answer.
    async fn next(&mut self) -> Tailed;
    /// What was seen last.
    fn seen(&self) -> u64;
}

/// The seam.
#[async_trait]
pub trait Streams: Debug + Send + Sync + 'static {
    /// How long one acknowledgement may take.
    fn ack_timeout(&self) -> Duration;
    /// A text that nobody else makes, in this process or another.
    fn unique(&self) -> String;
    /// Sends, and waits for JetStream's answer until `deadline`.
    ///
    /// # Errors
    /// Why there is none.
    async fn ask(&self, message: &Outgoing, deadline: Instant) -> std::result::Result<Bytes, NoAnswer>;
    /// The server at hand doesn't keep what it is given: another one may.
    fn look_elsewhere(&self);
    /// One try to store a message; its sequence.
    ///
    /// # Errors
    /// As [`NotStored`].
    async fn publish(&self, message: &Outgoing) -> std::result::Result<u64, NotStored>;
    /// The last message of these subjects, from the stream's leader.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn last(&self, stream: &'static str, subject: &str) -> Result<Option<Stored>>;
    /// The subjects that have messages.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn subjects(&self, stream: &'static str, filter: &str) -> Result<Vec<String>>;
    /// How many messages there are.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn count(&self, stream: &'static str) -> Result<u64>;
    /// The servers' time, Unix milliseconds.
    ///
    /// # Errors
    /// `Unavailable`; `Unfit` for a server that doesn't tell it.
    async fn time_ms(&self, stream: &'static str) -> Result<i128>;
    /// A queue's place; made when it isn't there.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn consumer(&self, stream: &'static str, consumer: Consumer) -> Result<Arc<dyn Pulls>>;
    /// Everything of these subjects after the sequence `seen`.
    fn follow(&self, stream: &'static str, filters: Vec<String>, seen: u64) -> Box<dyn Follows>;
}
