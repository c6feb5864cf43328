//! Errors of a store.
//!
//! Policy: an adapter maps its SDK's errors to a [`Kind`] and keeps the SDK's text as the source; the SDK's types stop
//! there. Whoever calls decides by the kind, never by the text.

use std::fmt;

/// What went wrong, as far as a caller can act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The key or URL has a wrong form.
    Invalid,
    /// No such object, bucket or directory.
    NotFound,
    /// Credentials are missing or not enough, or the directory may not be read or written.
    Denied,
    /// The store is full (quota or disk).
    Full,
    /// The server asks for fewer requests.
    SlowDown,
    /// The body was shorter than promised.
    Truncated,
    /// The object is larger than the caller takes.
    TooLarge,
    /// No answer in time.
    Timeout,
    /// Network, 5xx, or an I/O error of the device.
    Unavailable,
    /// Anything else.
    Other,
}

impl Kind {
    /// The kind of an HTTP status that is no success, for servers that say no more than that.
    pub fn of_status(status: u16) -> Self {
        match status {
            400 | 411 | 412 => Self::Invalid,
            401 | 403 | 407 => Self::Denied,
            404 | 410 => Self::NotFound,
            408 | 504 => Self::Timeout,
            413 => Self::TooLarge,
            416 => Self::Truncated,
            429 | 503 => Self::SlowDown,
            507 => Self::Full,
            500.. => Self::Unavailable,
            _ => Self::Other,
        }
    }
}

/// An error and what it came of as one line: an SDK's outermost text alone often says nothing.
pub fn chain_text(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut link = error.source();
    while let Some(e) = link {
        let more = e.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        link = e.source();
    }
    text
}

/// An error of a store: which operation on which object failed, and how.
#[derive(Debug, Clone)]
pub struct StoreError {
    /// What a caller can act on.
    pub kind: Kind,
    /// `put`, `get`, …
    pub operation: &'static str,
    /// Key or prefix.
    pub object: String,
    /// The store's URL, without secrets; empty until [`StoreError::at`] says it.
    pub url: String,
    /// The SDK's or system's own words.
    pub source: String,
    /// The next thing to try, when the adapter knows better than the kind does.
    pub hint: Option<String>,
    /// The adapter tried again for as long as it was told to: trying once more, at once, is not worth it.
    pub tried_enough: bool,
}

impl StoreError {
    /// An error of `operation` on `object`.
    pub fn new(kind: Kind, operation: &'static str, object: impl Into<String>, source: impl fmt::Display) -> Self {
        Self {
            kind,
            operation,
            object: object.into(),
            url: String::new(),
            source: source.to_string(),
            hint: None,
            tried_enough: false,
        }
    }
    /// Says what to try next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    /// Says which store it was.
    #[must_use]
    pub fn at(mut self, url: &str) -> Self {
        url.clone_into(&mut self.url);
        self
    }
    pub(crate) fn invalid_key(key: &str) -> Self {
        Self::new(Kind::Invalid, "key", key, "not a valid object key")
    }
    /// False when trying again may help.
    pub fn is_permanent(&self) -> bool {
        !matches!(
            self.kind,
            Kind::SlowDown | Kind::Truncated | Kind::Timeout | Kind::Unavailable
        )
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.operation, self.object)?;
        if !self.url.is_empty() {
            write!(f, " in {}", self.url)?;
        }
        write!(f, ": {}", self.source)
    }
}

impl std::error::Error for StoreError {}
