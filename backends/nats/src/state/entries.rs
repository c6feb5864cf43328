//! One key's message: written with an expectation, read from the leader.

use async_nats::HeaderMap;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, Stream};
use bytes::Bytes;
use state::{Entry, Key, Kind, Result, StateError, rules};

use super::keys;
use crate::acknowledged::{NotKept, keep};
use crate::lattice::Lattice;
use crate::replies::NoAnswer;

/// When a lease ends by the servers' clock, Unix milliseconds.
const EXPIRES: &str = "Windlass-Expires-Ms";
/// What NATS's key-value clients look at.
const OPERATION: &str = "KV-Operation";
/// The deletion of the key is forgotten, and this message goes in a moment.
const FORGOTTEN: &str = "Windlass-Forgotten";
/// The sequence that the key's message must have; 0 for none.
const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";
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
    pub(crate) fn new(sequence: u64, headers: Option<&HeaderMap>, value: Bytes) -> Self {
        let header = |name: &str| headers.and_then(|h| h.get(name)).map(|v| v.as_str());
        Self {
            sequence,
            value,
            deleted: header(OPERATION).is_some_and(|op| op == "DEL" || op == "PURGE"),
            forgotten: header(FORGOTTEN).is_some(),
            expires_ms: header(EXPIRES).and_then(|text| text.parse().ok()),
        }
    }

    /// As a caller sees it; `None` when it was deleted or its time is over. `offset_ms` is what the servers' clock is ahead.
    pub(crate) fn live(self, key: &Key, now_ms: u64, offset_ms: i128) -> Option<Entry> {
        let expires_at_ms = self.expires_ms.map(|ms| u64::try_from(ms - offset_ms).unwrap_or(0));
        let over = expires_at_ms.is_some_and(|end| end <= now_ms);
        (!self.deleted && !over).then(|| Entry {
            key: key.clone(),
            value: self.value,
            revision: self.sequence,
            expires_at_ms,
        })
    }
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
pub(crate) async fn write(lattice: &Lattice, key: &Key, what: Write, expected: Option<u64>) -> Result<Written> {
    let mut headers = HeaderMap::new();
    let value = match what {
        Write::Value(value) => value,
        Write::Lease {
            value,
            expires_ms,
            gone_after_s,
        } => {
            headers.insert(EXPIRES, expires_ms.to_string());
            headers.insert("Nats-TTL", format!("{gone_after_s}s"));
            value
        }
        Write::Deletion => {
            headers.insert(OPERATION, "DEL");
            Bytes::new()
        }
        Write::Release { gone_after_s } => {
            headers.insert(OPERATION, "DEL");
            headers.insert("Nats-TTL", format!("{gone_after_s}s"));
            Bytes::new()
        }
        Write::Oblivion => {
            headers.insert(OPERATION, "PURGE");
            headers.insert(FORGOTTEN, "1");
            // as short as the servers can
            headers.insert("Nats-TTL", "1s");
            Bytes::new()
        }
    };
    rules::check_value(key, &value)?;
    if let Some(sequence) = expected {
        headers.insert(EXPECTED, sequence.to_string());
    }
    match keep(lattice, &keys::subject(key), headers, value).await {
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
pub(crate) async fn read(stream: &Stream, key: &Key) -> Result<Option<Raw>> {
    match stream.get_last_raw_message_by_subject(&keys::subject(key)).await {
        Ok(message) => Ok(Some(Raw::new(
            message.sequence,
            Some(&message.headers),
            message.payload,
        ))),
        Err(e) if e.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(e) => Err(StateError::new(Kind::Unavailable, format!("key {key} can't be read: {e}")).caused_by(e)),
    }
}
