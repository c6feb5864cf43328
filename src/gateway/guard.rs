//! Who may speak over TCP: callers that show a token, call the gateway by its own name, and aren't a web page of somebody
//! else's. On the Unix socket a file mode decides, and none of this applies: whoever may use it is an admin.

use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;
use wire::{Code, ErrorBody, Role};

use super::connection::Peer;
use super::server::failure;
use super::tokens::{self, Row, Stamp};
use crate::audit::{Audit, Caller};

/// Characters of a token.
const TOKEN_BYTES_MIN: usize = 32;
const TOKEN_BYTES_MAX: usize = 4096;
/// What is answered without a token: it tells nothing but that somebody is there.
const OPEN_PATH: &str = "/healthz";

/// A token, of which only its hash is kept.
#[derive(Clone)]
pub struct Token(blake3::Hash);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    fn of(text: &str) -> Self {
        Self(blake3::hash(text.as_bytes()))
    }
    /// Takes as long whatever differs: equality of `blake3::Hash` is made for that.
    fn is(&self, text: &str) -> bool {
        self.0 == blake3::hash(text.as_bytes())
    }
}

/// The token in a file that nobody else can read.
///
/// # Errors
/// `not_found`; `denied` when others may read it; `invalid` when it holds no token. The token is in none of them.
pub fn read_token(path: &Path) -> Result<String, ErrorBody> {
    let place = path.display();
    let hint = format!("make one: (umask 077; head -c 32 /dev/urandom | base64 > {place})");
    let failed = |e: &std::io::Error| read_failed(path, e).hint(hint.clone());
    let meta = std::fs::metadata(path).map_err(|e| failed(&e))?;
    check_private(path, &meta)?;
    let invalid = || {
        ErrorBody::new(
            Code::Invalid,
            format!("the token file {place} holds no token: {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} visible characters"),
        )
        .hint(hint.clone())
    };
    if meta.len() > TOKEN_BYTES_MAX as u64 + 2 {
        return Err(invalid());
    }
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::InvalidData => return Err(invalid()),
        Err(e) => return Err(failed(&e)),
    };
    let token = text.trim();
    let fits =
        (TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic());
    if fits { Ok(token.to_owned()) } else { Err(invalid()) }
}

/// A file with tokens must be private.
///
/// # Errors
/// `denied` when it isn't.
pub(super) fn check_private(path: &Path, meta: &std::fs::Metadata) -> Result<(), ErrorBody> {
    let own = [0, rustix::process::geteuid().as_raw()].contains(&meta.uid());
    if meta.is_file() && meta.permissions().mode() & 0o077 == 0 && own {
        return Ok(());
    }
    let place = path.display();
    Err(ErrorBody::new(
        Code::Denied,
        format!("the token file {place} is not private; it must be a file of this user's that nobody else may read"),
    )
    .hint(format!("chmod 600 {place}")))
}

/// A file with tokens can't be read.
pub(super) fn read_failed(path: &Path, e: &std::io::Error) -> ErrorBody {
    let code = match e.kind() {
        std::io::ErrorKind::NotFound => Code::NotFound,
        std::io::ErrorKind::PermissionDenied => Code::Denied,
        _ => Code::Unavailable,
    };
    ErrorBody::new(code, format!("the token file {} can't be read: {e}", path.display()))
}

/// The tokens that are good: one of a file of its own, and those of people.
#[derive(Debug)]
pub(super) struct Tokens {
    single: Option<Token>,
    file: PathBuf,
    people: Mutex<(Option<Stamp>, Vec<Row>)>,
}

/// What the one token in a file of its own is called.
const SINGLE: &str = "token_file";

impl Tokens {
    /// Those of the configuration.
    ///
    /// # Errors
    /// What is wrong with the files; `not_found` when there is no token at all.
    pub(super) fn open(config: &config::Gateway) -> Result<Self, ErrorBody> {
        let stamp = tokens::stamp(&config.tokens_file);
        let people = tokens::read(&config.tokens_file)?;
        let single = match read_token(&config.token_file) {
            Ok(token) => Some(Token::of(&token)),
            Err(e) if e.code == Code::NotFound && !people.is_empty() => None,
            Err(e) => return Err(e),
        };
        Ok(Self {
            single,
            file: config.tokens_file.clone(),
            people: Mutex::new((stamp, people)),
        })
    }

    /// Whose token this is.
    fn holder(&self, shown: &str) -> Option<(String, Role)> {
        if self.single.as_ref().is_some_and(|token| token.is(shown)) {
            return Some((SINGLE.to_owned(), Role::Admin));
        }
        // nothing panics under this lock
        let mut people = self.people.lock().unwrap_or_else(PoisonError::into_inner);
        let now = tokens::stamp(&self.file);
        if people.0 != now {
            // one that can't be read lets nobody in
            let read = tokens::read(&self.file)
                .inspect_err(|error| tracing::error!(%error, "no token of a person is good until this is put right"));
            *people = (now, read.unwrap_or_default());
        }
        // all are looked at, so that the time tells nothing
        let fitting = people.1.iter().filter(|row| row.is(shown));
        let found = fitting.fold(None, |found, row| found.or(Some(row)));
        found.map(|row| (row.name.to_string(), row.role))
    }
}

/// What callers over TCP must keep to.
#[derive(Debug)]
pub(super) struct Guard {
    tokens: Tokens,
    hosts: Vec<String>,
}

impl Guard {
    /// Callers may call the gateway by its address, by `localhost` when that is on this machine, and by `public_name`, with
    /// or without its port.
    pub(super) fn new(tokens: Tokens, address: SocketAddr, public_name: &str) -> Self {
        let ip = match address.ip() {
            std::net::IpAddr::V4(ip) => ip.to_string(),
            std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let mut names = vec![ip];
        if address.ip().is_loopback() {
            names.push("localhost".into());
        }
        if !public_name.is_empty() {
            names.push(public_name.to_ascii_lowercase());
        }
        let port = address.port();
        let hosts = names.into_iter().flat_map(|name| [format!("{name}:{port}"), name]);
        Self {
            tokens,
            hosts: hosts.collect(),
        }
    }

    fn is_ours(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        self.hosts.contains(&host)
    }

    /// The caller; `None` for a path that is open to everybody.
    fn check(&self, path: &str, headers: &HeaderMap, from: &str) -> Result<Option<Caller>, ErrorBody> {
        let refused = |why: String| ErrorBody::new(Code::Denied, format!("{why}; nothing was carried out"));
        let hosts: Vec<_> = headers.get_all(header::HOST).iter().collect();
        let host = match hosts.as_slice() {
            [one] => one.to_str().unwrap_or_default(),
            _ => "",
        };
        if !self.is_ours(host) {
            return Err(refused("the Host header doesn't name this gateway".into())
                .hint("call it by its address, or set gateway.public_name"));
        }
        for origin in headers.get_all(header::ORIGIN) {
            let origin = origin.to_str().unwrap_or_default();
            let ours = ["http://", "https://"]
                .iter()
                .any(|scheme| origin.strip_prefix(scheme).is_some_and(|host| self.is_ours(host)));
            if !ours {
                return Err(refused("a page of another origin may not call this gateway".into()));
            }
        }
        if path == OPEN_PATH {
            return Ok(None);
        }
        let shown: Vec<_> = headers.get_all(header::AUTHORIZATION).iter().collect();
        let shown = match shown.as_slice() {
            [one] => one.to_str().unwrap_or_default(),
            _ => "",
        };
        let token = match shown.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            _ => "",
        };
        if let Some((who, role)) = self.tokens.holder(token) {
            let from = from.to_owned();
            return Ok(Some(Caller { who, role, from }));
        }
        Err(refused("this gateway needs its token".into())
            .hint("Authorization: Bearer TOKEN; with windlass: --gateway URL --gateway-token-file FILE"))
    }
}

/// Whether a caller's role is enough; the answer says which is missing.
pub(super) fn may(caller: &Caller, needed: Role, what: &str) -> Result<(), ErrorBody> {
    if caller.role >= needed {
        return Ok(());
    }
    let message = format!(
        "{what} needs the role {needed}; '{}' has {}; nothing was carried out",
        caller.who, caller.role
    );
    Err(ErrorBody::new(Code::Denied, message).hint(format!("windlass gateway token add NAME --role {needed}")))
}

/// Lets a request through with its caller, or answers it.
pub(super) async fn pass(
    State((guard, audit)): State<(Arc<Guard>, Audit)>,
    Extension(peer): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    match guard.check(request.uri().path(), request.headers(), &peer.0) {
        Ok(caller) => {
            if let Some(caller) = caller {
                request.extensions_mut().insert(caller);
            }
            next.run(request).await
        }
        Err(error) => {
            audit.note_denied("unknown", &peer.0, "gateway", &error.message, 1);
            failure(&error)
        }
    }
}
