//! Keys: segments of `[A-Za-z0-9_.=-]` joined by `/`, the intersection of what redb and JetStream KV take
//! (<https://docs.nats.io/nats-concepts/jetstream/key-value-store>).

use std::fmt;

use crate::{KEY_BYTES_MAX, Kind, Result, StateError};

/// A checked key, such as `snapshot/disks/web1/root`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    /// Checks that `text` is 1 to [`KEY_BYTES_MAX`] bytes of non-empty segments that neither begin nor end with `.`.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn new(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        let fine = text.len() <= KEY_BYTES_MAX && text.split('/').all(is_segment);
        if fine {
            return Ok(Self(text));
        }
        let shown: String = text.chars().take(80).collect();
        Err(StateError::new(
            Kind::Invalid,
            format!(
                "'{shown}' is not a key: use segments of a-z, A-Z, 0-9, '_', '-', '=' and inner '.', joined by '/', at most {KEY_BYTES_MAX} bytes"
            ),
        ))
    }
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// A key that was checked when it was stored.
    pub(crate) fn stored(text: &str) -> Self {
        Self(text.to_owned())
    }
}

fn is_segment(segment: &str) -> bool {
    !segment.is_empty()
        && !segment.starts_with('.')
        && !segment.ends_with('.')
        && segment
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'=' | b'.'))
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// All keys below a key: `a/b` takes `a/b/c`, and neither `a/b` nor `a/bc`. The empty one takes all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(String);

impl Prefix {
    /// Every key.
    pub fn all() -> Self {
        Self(String::new())
    }
    /// Everything below `key`.
    pub fn below(key: &Key) -> Self {
        Self(format!("{key}/"))
    }
    /// True when the key lies below.
    pub fn takes(&self, key: &str) -> bool {
        key.starts_with(&self.0)
    }
    /// What the keys begin with.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
