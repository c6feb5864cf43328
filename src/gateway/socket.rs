//! The Unix socket: made so that nobody else can connect at any moment, and so that a live daemon is never displaced.

use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixSocket, UnixStream};
use wire::{Code, ErrorBody};

/// Connections that may wait to be taken.
const BACKLOG: u32 = 128;
/// Longest path that the system takes for a socket, in bytes (`sun_path` less its end).
const PATH_BYTES_MAX: usize = 107;

/// What stands at a socket's path.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    /// Left by a process that is gone.
    Stale,
    Live,
}

/// A bound socket; its file goes when this is dropped, if it is still ours.
#[derive(Debug)]
pub struct Bound {
    path: PathBuf,
    identity: (u64, u64),
}

/// Makes the socket with mode 0600 and listens. A stale socket is replaced, a live one refused.
///
/// # Errors
/// `conflict` when a daemon answers there, `invalid` when something else stands there or the path is too long, `denied`,
/// `unavailable`. Nothing was changed then.
pub async fn bind(path: &Path) -> Result<(UnixListener, Bound), ErrorBody> {
    let aside = path.with_extension(format!("{}", std::process::id()));
    let longest = aside.as_os_str().len();
    if longest > PATH_BYTES_MAX {
        return Err(ErrorBody::new(
            Code::Invalid,
            format!(
                "the socket's path {} is too long: {longest} bytes of at most {PATH_BYTES_MAX}",
                path.display()
            ),
        )
        .hint("set gateway.socket to a shorter path, such as /run/windlass.sock"));
    }
    if look(path).await? == Found::Live {
        return Err(ErrorBody::new(
            Code::Conflict,
            format!("a daemon answers at {} already; nothing was changed", path.display()),
        )
        .hint("windlass status"));
    }
    let fault = |what: &str, e: &std::io::Error| fault(what, path, e);
    // made aside and not yet listening, so that there is no moment at which another user could connect; then renamed over
    // what a dead process left
    let _left_by_a_killed_namesake = std::fs::remove_file(&aside);
    let socket = UnixSocket::new_stream().map_err(|e| fault("make", &e))?;
    socket.bind(&aside).map_err(|e| fault("make", &e))?;
    let made = std::fs::set_permissions(&aside, std::fs::Permissions::from_mode(0o600))
        .and_then(|()| socket.listen(BACKLOG))
        .and_then(|listener| {
            let meta = std::fs::symlink_metadata(&aside)?;
            std::fs::rename(&aside, path)?;
            Ok((
                listener,
                Bound {
                    path: path.to_owned(),
                    identity: (meta.dev(), meta.ino()),
                },
            ))
        });
    made.map_err(|e| {
        let _best_effort = std::fs::remove_file(&aside);
        fault("make", &e)
    })
}

async fn look(path: &Path) -> Result<Found, ErrorBody> {
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(e) => return Err(fault("look at", path, &e)),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(ErrorBody::new(
                Code::Invalid,
                format!("{} is there and is no socket; it was left alone", path.display()),
            )
            .hint("remove it, or set gateway.socket"));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Ok(_) => Ok(Found::Live),
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => Ok(Found::Stale),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Found::Nothing),
        Err(e) => Err(fault("connect to", path, &e)),
    }
}

/// An I/O error on a socket.
pub(super) fn fault(what: &str, path: &Path, error: &std::io::Error) -> ErrorBody {
    let code = match error.kind() {
        ErrorKind::PermissionDenied => Code::Denied,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::InvalidInput => Code::Invalid,
        _ => Code::Unavailable,
    };
    ErrorBody::new(code, format!("can't {what} the socket {}: {error}", path.display()))
}

impl Drop for Bound {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.identity);
        if ours {
            let _gone_already = std::fs::remove_file(&self.path);
        }
    }
}
