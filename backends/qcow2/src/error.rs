//! Errors of images: what is wrong with which image, and what helps.

use std::fmt;

/// What a caller can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The image breaks the format's rules.
    Corrupt,
    /// The image uses what isn't supported here.
    Unsupported,
    /// A system call on one of its files failed.
    Io(std::io::ErrorKind),
    /// The caller asked for what can't be.
    Internal,
}

/// An error: the message names the image.
#[derive(Debug, Clone)]
pub struct Error {
    /// What a caller can act on.
    pub kind: Kind,
    /// What is wrong, with which image.
    pub message: String,
    /// The next command to try.
    pub hint: Option<String>,
}

impl Error {
    /// An error without a hint.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
        }
    }

    /// Adds the next command to try.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn corrupt(image: &str, why: impl fmt::Display) -> Self {
        Self::new(Kind::Corrupt, format!("qcow2 image {image} is damaged: {why}"))
            .hint(format!("qemu-img check {image}"))
    }

    pub(crate) fn io(what: &str, image: &str, error: &std::io::Error) -> Self {
        Self::new(Kind::Io(error.kind()), format!("can't {what} {image}: {error}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
