//! Keys of objects.

use std::fmt;

use crate::{Kind, StoreError};

/// Longest key in bytes; S3 takes 1,024 and a prefix may be put in front.
pub const KEY_BYTES_MAX: usize = 512;

/// Longest key in bytes after [`Prefixed`](crate::Prefixed) has put its prefix in front.
pub const KEY_JOINED_BYTES_MAX: usize = 1024;

/// Longest segment in bytes, as local files have it.
pub const SEGMENT_BYTES_MAX: usize = 255;

fn is_segment_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')
}

fn is_segment(s: &str) -> bool {
    !s.is_empty() && s != "." && s != ".." && s.len() <= SEGMENT_BYTES_MAX && s.bytes().all(is_segment_byte)
}

/// Splits LIST's `prefix` into the whole segments (`""` or `a/b`) and the beginning of the next one.
///
/// # Errors
/// `Kind::Invalid` when no key can begin so; this is also what keeps `../` away from local files.
pub fn split_prefix(prefix: &str) -> Result<(&str, &str), StoreError> {
    let (whole, begun) = prefix.rsplit_once('/').unwrap_or(("", prefix));
    let whole_fine = if whole.is_empty() {
        !prefix.starts_with('/')
    } else {
        whole.split('/').all(is_segment)
    };
    if whole_fine && begun.bytes().all(is_segment_byte) {
        Ok((whole, begun))
    } else {
        Err(StoreError::new(
            Kind::Invalid,
            "list",
            prefix,
            "no valid object key can begin with this prefix",
        ))
    }
}

/// A key: segments of `a-z A-Z 0-9 . _ -` joined by `/`; no segment is empty, `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    /// Checks `text`.
    ///
    /// # Errors
    /// `Kind::Invalid` when it has another form.
    pub fn new(text: impl Into<String>) -> Result<Self, StoreError> {
        let text = text.into();
        let fine = text.len() <= KEY_BYTES_MAX && text.split('/').all(is_segment);
        if fine {
            Ok(Self(text))
        } else {
            Err(StoreError::invalid_key(&text))
        }
    }
    /// A key as a store tells it in LIST, so with a prefix that [`Prefixed`](crate::Prefixed) put in front; `None` when it
    /// is no key of ours.
    pub fn listed(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        let fine = text.len() <= KEY_JOINED_BYTES_MAX && text.split('/').all(is_segment);
        fine.then_some(Self(text))
    }
    /// `prefix/key`, which may be longer than a key that a caller names.
    pub(crate) fn joined(prefix: &Key, key: &Key) -> Result<Self, StoreError> {
        let text = format!("{prefix}/{key}");
        if text.len() <= KEY_JOINED_BYTES_MAX {
            Ok(Self(text))
        } else {
            Err(StoreError::invalid_key(&text))
        }
    }
    /// The key without `prefix/` in front; `None` when it has another one.
    pub(crate) fn without(&self, prefix: &Key) -> Option<Self> {
        let rest = self.0.strip_prefix(prefix.as_str())?.strip_prefix('/')?;
        Some(Self(rest.to_owned()))
    }
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
