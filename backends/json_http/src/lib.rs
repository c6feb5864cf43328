//! JSON over HTTP from machines that may answer anything: a web page, a million members, or nothing at all. The only user of reqwest.
//!
//! Every answer is bounded in time and in bytes; what isn't JSON is an error that says so. Credentials come in as a [`Secret`], which
//! prints nothing, and are in no error.
//!
//! What is absent: no retries (who asks knows whether asking again helps), no redirects (credentials go where they were meant to go
//! and nowhere else), no proxies (controllers stand in the same network).

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, ETAG, HeaderMap, IF_MATCH, LOCATION};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use url::Url;

/// Largest answer, in bytes.
pub const BODY_BYTES_MAX: usize = 16 << 20;

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No connection, no answer in time, or 503 and 429: later, perhaps.
    Unavailable,
    /// Any other status from 500 on: it failed at this.
    Broken,
    /// 401 or 403.
    Denied,
    /// 404 or 410.
    NotFound,
    /// 409 or 412: another state than was thought.
    Conflict,
    /// Any other status that is no success.
    Refused,
    /// An answer that isn't JSON, or too large.
    Garbled,
    /// The address or the credentials can't be understood.
    Invalid,
}

/// An error: what failed, on which address, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpError {
    /// What a caller can act on.
    pub kind: Kind,
    /// For people; without credentials.
    pub message: String,
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for HttpError {}

/// A secret, which prints nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Where a secret is kept; configuration holds this, never the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// The first line of a file.
    File(PathBuf),
    /// A variable of the environment.
    Env(String),
}

impl Secret {
    /// Reads a secret.
    ///
    /// # Errors
    /// `Invalid` where there is none; the message names the place.
    pub fn read(kept: &Kept) -> Result<Self, HttpError> {
        let wrong = |why: String| HttpError {
            kind: Kind::Invalid,
            message: why,
        };
        let text = match kept {
            Kept::File(path) => std::fs::read_to_string(path)
                .map_err(|e| wrong(format!("the secret in {} can't be read: {e}", path.display())))?,
            Kept::Env(name) => {
                std::env::var(name).map_err(|_| wrong(format!("there is no secret in the variable {name}")))?
            }
        };
        match text.lines().next().unwrap_or_default() {
            "" => Err(wrong(format!("the secret in {kept:?} is empty"))),
            line => Ok(Self(line.to_owned())),
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// Nobody in particular.
    None,
    /// By name and password.
    Basic(String, Secret),
    /// By a token in this header.
    Token(&'static str, Secret),
}

/// How a client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How long one answer may take, its body included.
    pub timeout: Duration,
    /// Certificates aren't checked: controllers often have one that they made themselves.
    pub any_certificate: bool,
    /// Who asks.
    pub login: Login,
    /// Headers of every request.
    pub headers: Vec<(&'static str, String)>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            any_certificate: false,
            login: Login::None,
            headers: Vec::new(),
        }
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The body; `Null` where there was none.
    pub body: Value,
    /// Which version of the thing it is, where the server says.
    pub etag: Option<String>,
    /// Where what was made is, where the server says.
    pub location: Option<String>,
}

/// Asks one server. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    settings: Settings,
}

impl Client {
    /// For a server at `base`.
    ///
    /// # Errors
    /// `Invalid` for an address that isn't one, or has credentials in it.
    pub fn new(base: &str, settings: Settings) -> Result<Self, HttpError> {
        let wrong = |why: &str| HttpError {
            kind: Kind::Invalid,
            message: format!("the address of a provider {why}"),
        };
        let base = Url::parse(base).map_err(|e| wrong(&format!("can't be understood: {e}")))?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(wrong("is http://HOST… or https://HOST…"));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err(wrong("has credentials in it; they belong into a file or a variable"));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &settings.headers {
            let value = value
                .parse()
                .map_err(|_| wrong("comes with a header that can't be sent"))?;
            headers.insert(*name, value);
        }
        let http = reqwest::Client::builder()
            .timeout(settings.timeout)
            .danger_accept_invalid_certs(settings.any_certificate)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .default_headers(headers)
            .build()
            .map_err(|e| wrong(&format!("can't be used: {e}")))?;
        Ok(Self { http, base, settings })
    }
    /// The address.
    pub fn base(&self) -> &str {
        self.base.as_str()
    }
    /// Reads.
    ///
    /// # Errors
    /// See [`Kind`].
    pub async fn get(&self, path: &str) -> Result<Answer, HttpError> {
        self.ask(Method::GET, path, None, None).await
    }
    /// Makes.
    ///
    /// # Errors
    /// See [`Kind`].
    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer, HttpError> {
        self.ask(Method::POST, path, Some(body), None).await
    }
    /// Changes, with `etag` only what is still that version.
    ///
    /// # Errors
    /// See [`Kind`].
    pub async fn patch(&self, path: &str, body: &Value, etag: Option<&str>) -> Result<Answer, HttpError> {
        self.ask(Method::PATCH, path, Some(body), etag).await
    }
    /// Removes.
    ///
    /// # Errors
    /// See [`Kind`].
    pub async fn delete(&self, path: &str) -> Result<Answer, HttpError> {
        self.ask(Method::DELETE, path, None, None).await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        etag: Option<&str>,
    ) -> Result<Answer, HttpError> {
        let url = self.base.join(path).map_err(|e| HttpError {
            kind: Kind::Garbled,
            message: format!("{}: a link that can't be followed: {e}", self.base),
        })?;
        if url.host_str() != self.base.host_str() || url.port_or_known_default() != self.base.port_or_known_default() {
            return Err(HttpError {
                kind: Kind::Garbled,
                message: format!("{}: a link that leads to another server; it isn't followed", self.base),
            });
        }
        let failed = |kind: Kind, why: String| HttpError {
            kind,
            message: format!("{method} {url}: {why}"),
        };
        let mut request = self.http.request(method.clone(), url.clone());
        request = match &self.settings.login {
            Login::None => request,
            Login::Basic(name, secret) => request.basic_auth(name, Some(&secret.0)),
            Login::Token(header, secret) => request.header(*header, &secret.0),
        };
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        }
        if let Some(etag) = etag {
            request = request.header(IF_MATCH, etag);
        }
        let answer = request
            .send()
            .await
            .map_err(|e| failed(Kind::Unavailable, told(&e, &self.settings)))?;
        let status = answer.status();
        let header = |name| {
            let value = answer.headers().get(name)?;
            value.to_str().ok().map(str::to_owned)
        };
        let (etag, location) = (header(ETAG), header(LOCATION));
        let is_json = header(CONTENT_TYPE).is_none_or(|t| t.contains("json"));
        let bytes = bounded(answer).await.map_err(|(kind, why)| failed(kind, why))?;
        if let Some(kind) = refusal(status) {
            let said: String = String::from_utf8_lossy(&bytes).chars().take(200).collect();
            let said = if is_json { said } else { "a page, not JSON".to_owned() };
            return Err(failed(
                kind,
                format!("answered {}: {}", status.as_u16(), said.escape_debug()),
            ));
        }
        let body = match bytes.iter().all(u8::is_ascii_whitespace) {
            true => Value::Null,
            false => serde_json::from_slice(&bytes).map_err(|e| {
                let what = if is_json { "broken JSON" } else { "a page, not JSON" };
                failed(Kind::Garbled, format!("answered {what}: {e}"))
            })?,
        };
        Ok(Answer { body, etag, location })
    }
}

fn refusal(status: StatusCode) -> Option<Kind> {
    match status.as_u16() {
        200..=299 => None,
        401 | 403 => Some(Kind::Denied),
        404 | 410 => Some(Kind::NotFound),
        409 | 412 => Some(Kind::Conflict),
        429 | 503 | 504 => Some(Kind::Unavailable),
        500..=599 => Some(Kind::Broken),
        _ => Some(Kind::Refused),
    }
}

fn told(error: &reqwest::Error, settings: &Settings) -> String {
    if error.is_timeout() {
        return format!("no answer in {} ms", settings.timeout.as_millis());
    }
    if error.is_connect() {
        return "no connection".into();
    }
    "no answer".into()
}

/// The body, chunk after chunk, up to its bound.
async fn bounded(mut answer: reqwest::Response) -> Result<Vec<u8>, (Kind, String)> {
    let too_large = || (Kind::Garbled, format!("answers more than {BODY_BYTES_MAX} bytes"));
    if answer.content_length().is_some_and(|n| n > BODY_BYTES_MAX as u64) {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    loop {
        match answer.chunk().await {
            Ok(Some(chunk)) if bytes.len() + chunk.len() > BODY_BYTES_MAX => return Err(too_large()),
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => return Ok(bytes),
            Err(_) => return Err((Kind::Unavailable, "the answer broke off".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_without_sense_and_with_credentials_are_refused() {
        for wrong in ["", "ftp://h", "https://", "http://root:calvin@h/", "not an address"] {
            let error = Client::new(wrong, Settings::default()).expect_err(wrong);
            assert_eq!(error.kind, Kind::Invalid);
            assert!(!error.message.contains("calvin"), "{error}");
        }
    }

    #[test]
    fn a_secret_is_read_where_it_is_kept_and_prints_nothing() {
        let file = std::env::temp_dir().join(format!("windlass-secret-{}", std::process::id()));
        std::fs::write(&file, "calvin\nmore\n").unwrap();
        let secret = Secret::read(&Kept::File(file.clone())).unwrap();
        std::fs::write(&file, "\n").unwrap();
        assert!(Secret::read(&Kept::File(file.clone())).is_err());
        std::fs::remove_file(&file).unwrap();
        assert_eq!(secret.0, "calvin");
        let settings = Settings {
            login: Login::Basic("root".into(), secret),
            ..Settings::default()
        };
        let client = Client::new("http://127.0.0.1:1/", settings).unwrap();
        assert!(!format!("{client:?}").contains("calvin"));
        assert!(Secret::read(&Kept::File("/no/such/file".into())).is_err());
        assert!(Secret::read(&Kept::Env("WINDLASS_NO_SUCH_VARIABLE".into())).is_err());
    }

    #[tokio::test]
    async fn a_link_to_another_server_is_not_followed() {
        let client = Client::new("http://127.0.0.1:1/redfish/", Settings::default()).unwrap();
        let error = client.get("http://10.0.0.1/redfish/v1").await.unwrap_err();
        assert_eq!(error.kind, Kind::Garbled);
        let error = client.get("/redfish/v1").await.unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable, "{error}");
    }
}
