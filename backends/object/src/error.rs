//! What a system or an SDK says, in the port's kinds.

use std::error::Error;
use std::io;

use store::{Kind, StoreError};

/// The kind of an I/O error.
pub(crate) fn kind_of_io(e: &io::Error) -> Kind {
    use rustix::io::Errno;
    if let Some(errno) = Errno::from_io_error(e) {
        match errno {
            Errno::NOSPC | Errno::DQUOT => return Kind::Full,
            Errno::ACCESS | Errno::PERM | Errno::ROFS => return Kind::Denied,
            Errno::NOENT => return Kind::NotFound,
            Errno::NAMETOOLONG | Errno::NOTDIR | Errno::ISDIR | Errno::LOOP | Errno::INVAL => return Kind::Invalid,
            Errno::TIMEDOUT => return Kind::Timeout,
            Errno::IO
            | Errno::NXIO
            | Errno::NODEV
            | Errno::STALE
            | Errno::MFILE
            | Errno::NFILE
            | Errno::NOMEM
            | Errno::AGAIN
            | Errno::BUSY => return Kind::Unavailable,
            _ => {}
        }
    }
    match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::Full,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Kind::Denied,
        io::ErrorKind::NotFound => Kind::NotFound,
        io::ErrorKind::UnexpectedEof => Kind::Truncated,
        io::ErrorKind::TimedOut => Kind::Timeout,
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidFilename => Kind::Invalid,
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::NotConnected
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::BrokenPipe => Kind::Unavailable,
        _ => Kind::Other,
    }
}

pub(crate) fn from_io(operation: &'static str, object: &str, e: &io::Error) -> StoreError {
    StoreError::new(kind_of_io(e), operation, object, e)
}

/// The kind of an error of `object_store`: its own where it tells, else what lies deepest in the chain that tells.
pub(crate) fn kind_of_object_store(e: &object_store::Error) -> Kind {
    use object_store::Error as E;
    match e {
        E::NotFound { .. } => Kind::NotFound,
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => Kind::Denied,
        E::InvalidPath { .. } | E::UnknownConfigurationKey { .. } => Kind::Invalid,
        _ => kind_of_chain(e),
    }
}

fn kind_of_chain(e: &(dyn Error + 'static)) -> Kind {
    let mut kind = Kind::Other;
    let mut link: Option<&(dyn Error + 'static)> = Some(e);
    while let Some(error) = link {
        if let Some(status) = status_in(&error.to_string()) {
            return Kind::of_status(status);
        }
        if let Some(http) = error.downcast_ref::<object_store::client::HttpError>() {
            kind = kind_of_http(http.kind());
        } else if let Some(io) = error.downcast_ref::<io::Error>() {
            match kind_of_io(innermost(io)) {
                Kind::Other => {}
                // A name that doesn't resolve or a socket that isn't there says nothing of the object.
                Kind::NotFound => kind = Kind::Unavailable,
                told => kind = told,
            }
        }
        link = error.source();
    }
    kind
}

/// The I/O error that others were made of by `io::Error::other`, which `source` passes over.
fn innermost(mut e: &io::Error) -> &io::Error {
    while let Some(inner) = e.get_ref().and_then(|inner| inner.downcast_ref::<io::Error>()) {
        e = inner;
    }
    e
}

/// The status that the SDK's text tells. Its type that holds the number (`RetryError`) is private in 0.14.2, so the text
/// is all there is; the tests hold it against a server, for every status that matters.
fn status_in(text: &str) -> Option<u16> {
    if text.contains("Server returned error response") {
        // A success with an error for a body: S3's way of saying so late.
        return Some(if text.contains("SlowDown") { 503 } else { 500 });
    }
    let (_, rest) = text.split_once("non-2xx status code: ")?;
    rest.get(..3)?.parse().ok()
}

fn kind_of_http(kind: object_store::client::HttpErrorKind) -> Kind {
    use object_store::client::HttpErrorKind as H;
    match kind {
        H::Timeout => Kind::Timeout,
        H::Decode | H::Interrupted => Kind::Truncated,
        H::Connect | H::Request => Kind::Unavailable,
        _ => Kind::Other,
    }
}
