//! Secrets by reference: the configuration says where a secret is, and never what it is.
//!
//! ```text
//! /etc/windlass/nats.user     a file
//! env:WINDLASS_NATS_USER      a variable of this process's environment
//! credential:nats.user        a credential that systemd passed on (LoadCredential=, SetCredentialEncrypted=)
//!        Reference --read--> Secret: no Debug, no Display, no Serialize; wiped when it is let go
//! ```
//!
//! What is absent: no secret in an error (only where it should have been), no copy that this crate makes and doesn't wipe. What
//! an SDK is given it may copy: that is its own.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use wire::{Code, ErrorBody};
use zeroize::Zeroizing;

/// Bytes of a secret.
const BYTES_MAX: u64 = 64 << 10;
/// The variable in which systemd says where its credentials are.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";
const ENV: &str = "env:";
const CREDENTIAL: &str = "credential:";

/// Where a secret is. `Display` gives the text that [`Reference::parse`] reads: it is no secret itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// A file.
    File(PathBuf),
    /// A variable of the environment.
    Env(String),
    /// A credential of systemd.
    Credential(String),
}

/// What is wrong with a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// There is none.
    NotFound,
    /// It may not be read.
    Denied,
    /// It is too long, or no text.
    Invalid,
    /// It can't be read now.
    Unavailable,
}

/// A secret that can't be had. Says where it should be, and nothing of what it is.
#[derive(Debug, thiserror::Error)]
#[error("the secret {place} {why}")]
pub struct SecretError {
    /// What kind of fault.
    pub kind: Kind,
    place: String,
    why: String,
}

impl From<SecretError> for ErrorBody {
    fn from(error: SecretError) -> Self {
        let code = match error.kind {
            Kind::NotFound => Code::NotFound,
            Kind::Denied => Code::Denied,
            Kind::Invalid => Code::Invalid,
            Kind::Unavailable => Code::Unavailable,
        };
        ErrorBody::new(code, error.to_string()).hint("docs/security.md: Secrets")
    }
}

/// A secret's text, wiped when it is let go.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a text in; the caller's own copy is the caller's to wipe.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
    /// The text, for whom it is meant.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl From<PathBuf> for Reference {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Env(name) => write!(f, "{ENV}{name}"),
            Self::Credential(name) => write!(f, "{CREDENTIAL}{name}"),
        }
    }
}

impl Reference {
    /// Reads an absolute path, `env:NAME` or `credential:NAME`; `None` for what is none of them.
    pub fn parse(text: &str) -> Option<Self> {
        let is_name = |name: &str| {
            let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
            !name.is_empty() && name.len() <= 255 && name != "." && name != ".." && name.bytes().all(fits)
        };
        if let Some(name) = text.strip_prefix(ENV) {
            return is_name(name).then(|| Self::Env(name.to_owned()));
        }
        if let Some(name) = text.strip_prefix(CREDENTIAL) {
            return is_name(name).then(|| Self::Credential(name.to_owned()));
        }
        Path::new(text).is_absolute().then(|| Self::File(text.into()))
    }

    /// The file that it is in; none of a variable.
    ///
    /// # Errors
    /// `NotFound` for a credential where systemd passed none on.
    pub fn path(&self) -> Result<Option<PathBuf>, SecretError> {
        match self {
            Self::File(path) => Ok(Some(path.clone())),
            Self::Env(_) => Ok(None),
            Self::Credential(name) => match std::env::var_os(CREDENTIALS) {
                Some(dir) => Ok(Some(Path::new(&dir).join(name))),
                None => Err(self.fault(
                    Kind::NotFound,
                    format!("isn't there: {CREDENTIALS} is not set, so systemd passed none on"),
                )),
            },
        }
    }

    /// The secret.
    ///
    /// # Errors
    /// By [`Kind`]; none has the secret in it.
    pub fn read(&self) -> Result<Secret, SecretError> {
        let Some(path) = self.path()? else {
            return self.in_environment();
        };
        let failed = |e: &std::io::Error| {
            let kind = match e.kind() {
                std::io::ErrorKind::NotFound => Kind::NotFound,
                std::io::ErrorKind::PermissionDenied => Kind::Denied,
                _ => Kind::Unavailable,
            };
            self.fault(kind, format!("can't be read: {e}"))
        };
        let mut file = std::fs::File::open(&path).map_err(|e| failed(&e))?;
        // room for all of it at once, so that no part is left behind by a buffer that grows
        let room = file.metadata().map_or(0, |meta| meta.len()).min(BYTES_MAX) + 1;
        let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(room).unwrap_or_default()));
        Read::by_ref(&mut file)
            .take(BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| failed(&e))?;
        if bytes.len() as u64 > BYTES_MAX {
            return Err(self.fault(Kind::Invalid, format!("has more than {BYTES_MAX} bytes")));
        }
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(Secret::new(text.to_owned())),
            Err(_it_quotes) => Err(self.fault(Kind::Invalid, "is no text".into())),
        }
    }

    fn in_environment(&self) -> Result<Secret, SecretError> {
        let Self::Env(name) = self else {
            return Err(self.fault(Kind::NotFound, "isn't there".into()));
        };
        match std::env::var(name) {
            Ok(text) => Ok(Secret::new(text)),
            Err(std::env::VarError::NotPresent) => {
                Err(self.fault(Kind::NotFound, "isn't there: the variable is not set".into()))
            }
            Err(std::env::VarError::NotUnicode(_)) => Err(self.fault(Kind::Invalid, "is no text".into())),
        }
    }

    fn fault(&self, kind: Kind, why: String) -> SecretError {
        SecretError {
            kind,
            place: self.to_string(),
            why,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_survive_their_text() {
        for text in ["/a/b", "env:A_B", "credential:nats.user"] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), text);
        }
        for bad in [
            "",
            "a/b",
            "env:",
            "env:a b",
            "credential:../x",
            "credential:..",
            "credential:a/b",
            "vault:x",
        ] {
            assert_eq!(Reference::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_file_is_read_and_what_is_wrong_is_told_without_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "planted\n").unwrap();
        let reference = Reference::from(path.clone());
        let secret = reference.read().unwrap();
        assert_eq!(secret.expose(), "planted\n");
        assert!(!format!("{secret:?}").contains("planted"));
        std::fs::write(&path, b"planted\xff").unwrap();
        let error = reference.read().unwrap_err();
        assert_eq!(error.kind, Kind::Invalid);
        assert!(!format!("{error} {error:?}").contains("planted"));
        std::fs::write(&path, vec![b'x'; 65 << 10]).unwrap();
        assert_eq!(reference.read().unwrap_err().kind, Kind::Invalid);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(reference.read().unwrap_err().kind, Kind::NotFound);
    }

    #[test]
    fn the_environment_and_systemd_are_asked() {
        // nextest runs each test in a process of its own; the variables are those of every process
        let path = Reference::Env("PATH".into()).read().unwrap();
        assert_eq!(path.expose(), std::env::var("PATH").unwrap());
        let none = Reference::Env("WINDLASS_NO_SUCH_VARIABLE".into()).read().unwrap_err();
        assert_eq!(none.kind, Kind::NotFound);
        if std::env::var_os(CREDENTIALS).is_none() {
            let error = Reference::Credential("nats.user".into()).read().unwrap_err();
            assert!(error.to_string().contains(CREDENTIALS), "{error}");
        }
    }
}
