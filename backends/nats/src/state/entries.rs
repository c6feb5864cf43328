//! One key's message: written with an expectation, read from the leader.

use bytes::Bytes;
use planted::Fault;
use state::{Entry, Key, Kind, Result, StateError, rules};

use super::{STREAM, keys};
use crate::acknowledged::{NotKept, keep};
use crate::replies::NoAnswer;
use crate::streams::{EXPECTED, OPERATION, Outgoing, Stored, Streams, TTL};

/// When a lease ends by the servers' clock, Unix milliseconds.
const EXPIRES: &str = "Windlass-Expires-Ms";
/// The deletion of the key is forgotten, and this message goes in a moment.
pub(crate) const FORGOTTEN: &str = "Windlass-Forgotten";
/// JetStream: the expected sequence was another one.
const WRONG_SEQUENCE: [u64; 2] = [10_071, 10_164];
/// JetStream: limits of the stream, of the account or of the disk.
const FULL: [u64; 6] = [10_023, 10_028, 10_047, 10_054, 10_077, 10_118];

/// A key's message as it stands in the stream, whether it means something now or not.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) sequence: u64,
    pub(crate) value: Bytes,
    pub(crate) deleted: bool,
    /// Its deletion is no longer remembered.
    pub(crate) forgotten: bool,
    /// By the servers' clock.
    pub(crate) expires_ms: Option<i128>,
}

impl Raw {
    pub(crate) fn of(message: Stored) -> Self {
        Self {
            sequence: message.sequence,
            deleted: is_deletion(message.header(OPERATION)),
            forgotten: message.header(FORGOTTEN).is_some(),
            expires_ms: message.header(EXPIRES).and_then(|text| text.parse().ok()),
            value: message.payload,
        }
    }

    /// As a caller sees it, by whose clock it is `now_ms`; `None` when it was deleted or its time is over by the servers' clock.
    pub(crate) fn live(self, key: &Key, now_ms: u64, server_ms: i128) -> Option<Entry> {
        let over = self.expires_ms.is_some_and(|end| end <= server_ms);
        let expires_at_ms = self
            .expires_ms
            .map(|end| now_ms.saturating_add(u64::try_from(end - server_ms).unwrap_or(0)));
        (!self.deleted && !over).then(|| Entry {
            key: key.clone(),
            value: self.value,
            revision: self.sequence,
            expires_at_ms,
        })
    }
}

/// Whether a message says that its key is gone.
pub(crate) fn is_deletion(operation: Option<&str>) -> bool {
    operation.is_some_and(|op| op == "DEL" || op == "PURGE")
}

/// What is written.
#[derive(Debug)]
pub(crate) enum Write {
    Value(Bytes),
    /// A value with an end by the servers' clock; its message goes a while after it, by the servers' own doing.
    Lease {
        value: Bytes,
        expires_ms: i128,
        gone_after_s: u64,
    },
    Deletion,
    /// The end of a lease before its time: remembered for a while, as the lease would have been.
    Release {
        gone_after_s: u64,
    },
    /// Over a deletion: nobody needs to remember it.
    Oblivion,
}

/// What came of a write.
#[derive(Debug)]
pub(crate) enum Written {
    /// With this revision.
    As(u64),
    /// The expectation was wrong; nothing was written.
    Otherwise,
}

/// Writes where the key's message has the sequence `expected`, whatever it has when there is none.
pub(crate) async fn write(streams: &dyn Streams, key: &Key, what: Write, expected: Option<u64>) -> Result<Written> {
    let message = |value: Bytes| Outgoing::new(keys::subject(key), value);
    let mut message = match what {
        Write::Value(value) => message(value),
        Write::Lease {
            value,
            expires_ms,
            gone_after_s,
        } => message(value)
            .with(EXPIRES, expires_ms)
            .with(TTL, format!("{gone_after_s}s")),
        Write::Deletion => message(Bytes::new()).with(OPERATION, "DEL"),
        Write::Release { gone_after_s } => message(Bytes::new())
            .with(OPERATION, "DEL")
            .with(TTL, format!("{gone_after_s}s")),
        Write::Oblivion => message(Bytes::new())
            .with(OPERATION, "PURGE")
            .with(FORGOTTEN, 1)
            // as short as the servers can
            .with(TTL, "1s"),
    };
    rules::check_value(key, &message.payload)?;
    if let Some(sequence) = expected.filter(|_| !planted::is(Fault::StateUncompared)) {
        message = message.with(EXPECTED, sequence);
    }
    match keep(streams, message).await {
        Ok(sequence) => Ok(Written::As(sequence)),
        Err(NotKept::Refused(refusal)) if WRONG_SEQUENCE.contains(&refusal.err_code) => Ok(Written::Otherwise),
        Err(why) => Err(not_written(key, why)),
    }
}

fn not_written(key: &Key, why: NotKept) -> StateError {
    let kind = match &why {
        NotKept::Refused(refusal) if FULL.contains(&refusal.err_code) => Kind::Full,
        NotKept::NotSent(NoAnswer::TooLarge(_) | NoAnswer::Refused(_)) => Kind::Invalid,
        NotKept::NotSent(NoAnswer::Forbidden) => Kind::Denied,
        NotKept::Unreadable(_) => Kind::Corrupt,
        _ => Kind::Unavailable,
    };
    StateError::new(kind, format!("key {key}: {why}")).caused_by(why)
}

/// The key's message, from the stream's leader.
pub(crate) async fn read(streams: &dyn Streams, key: &Key) -> Result<Option<Raw>> {
    match streams.last(STREAM, &keys::subject(key)).await {
        Ok(found) => Ok(found.map(Raw::of)),
        Err(e) => Err(StateError::new(Kind::Unavailable, format!("key {key} can't be read: {e}")).caused_by(e)),
    }
}
