//! Stores by URL: local files, Google Cloud Storage, Azure.
//!
//! [`open`] takes a URL and gives a [`Store`]:
//!
//! | URL | what it is |
//! |---|---|
//! | `file:///dir` | a local directory that exists; [`create`] makes it |
//! | `gs://bucket/prefix` | Google Cloud Storage; credentials from `GOOGLE_…` variables, the well-known file, or the metadata server |
//! | `az://container/prefix` | Azure Blob Storage; account, credentials and endpoint from `AZURE_STORAGE_…` variables, or the managed identity |
//! | `memory://name` | a store of this process |
//!
//! How data flows: `local` does file operations on tokio's blocking threads; `cloud` calls the crate `object_store`,
//! whose types stop there. Both map errors to [`store::Kind`] in `error`.
//!
//! What holds:
//! - a PUT to a local directory is durable when it returns: data, its entry, and every directory from the root of the store
//!   down to it;
//! - a killed PUT leaves at most a file with `#` in its name, which is never listed (no key has a `#`), and which a later
//!   process removes;
//! - no URL that comes out of here holds a secret, and URLs that hold one are refused;
//! - each call ends within its time-out ([`Timeouts`]); a local call that ended so may still finish its work later.
//!
//! Limits: one PUT is one request (no multipart), so objects of at most 5 GiB.

use std::sync::Arc;
use std::time::Duration;

use store::{Key, Kind, Memory, Prefixed, Result, Store, StoreError};
use url::Url;

mod cloud;
mod direct;
mod error;
mod files;
mod local;

#[cfg(test)]
mod fake_gcs;
#[cfg(test)]
mod tests;

/// How long each call may take, whatever the object's size.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// PUT and GET of whole objects.
    pub body: Duration,
    /// GET of a range.
    pub range: Duration,
    /// HEAD, each page of LIST, and DELETE of up to 1,000 keys.
    pub metadata: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            body: Duration::from_secs(300),
            range: Duration::from_secs(60),
            metadata: Duration::from_secs(60),
        }
    }
}

const KNOWN: &str = "file:///dir, gs://bucket/prefix, az://container/prefix, memory://name";

/// Opens the store at `url`. Nothing is written, and no server is asked yet.
///
/// # Errors
/// `Kind::Invalid` when the URL has a wrong form or an unknown scheme, `Kind::NotFound` when a local directory doesn't
/// exist, `Kind::Denied` when it may not be searched.
pub fn open(url: &str) -> Result<Arc<dyn Store>> {
    open_with(url, Timeouts::default())
}

/// As [`open`], with other time-outs.
///
/// # Errors
/// As [`open`].
pub fn open_with(url: &str, timeouts: Timeouts) -> Result<Arc<dyn Store>> {
    let parsed = parse(url)?;
    match parsed.scheme() {
        "file" => Ok(local::Local::open(&directory(url, &parsed)?, timeouts)?),
        "memory" => Ok(Memory::named(name(url, &parsed)?)?),
        "gs" => cloud_part(url, &parsed, cloud::google(bucket(url, &parsed)?, timeouts)?),
        "az" => cloud_part(url, &parsed, cloud::azure(bucket(url, &parsed)?, timeouts)?),
        other => Err(invalid(url, format!("unknown scheme {other}://; known are {KNOWN}"))),
    }
}

/// As [`open`], and makes a local directory first if it isn't there (mode 0700, durable).
///
/// # Errors
/// As [`open`], and what making the directory meets: `Kind::Denied`, `Kind::Full`.
pub fn create(url: &str) -> Result<Arc<dyn Store>> {
    let parsed = parse(url)?;
    if parsed.scheme() == "file" {
        let path = directory(url, &parsed)?;
        files::create_root(&path).map_err(|e| error::from_io("create", url, &e))?;
    }
    open(url)
}

fn invalid(url: &str, why: impl std::fmt::Display) -> StoreError {
    StoreError::new(Kind::Invalid, "open", without_secret(url), why)
}

/// `url` as it may be shown: what stands before an `@` of the authority, and after `?`, may be a secret.
fn without_secret(url: &str) -> String {
    let plain = url.split(['?', '#']).next().unwrap_or_default();
    match plain.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_once('/').map_or((rest, None), |(a, p)| (a, Some(p)));
            let host = authority.rsplit('@').next().unwrap_or_default();
            path.map_or_else(
                || format!("{scheme}://{host}"),
                |path| format!("{scheme}://{host}/{path}"),
            )
        }
        None => plain.to_owned(),
    }
}

fn parse(url: &str) -> Result<Url> {
    let parsed = Url::parse(url).map_err(|e| {
        let hint = if url.starts_with('/') {
            format!("; for a local directory write file://{url}")
        } else {
            String::new()
        };
        invalid(url, format!("{e}{hint}; known are {KNOWN}"))
    })?;
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(invalid(
            url,
            "a URL may not hold credentials: they come from the environment",
        ));
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err(invalid(
            url,
            "a URL may not have ? or #; in a file name write %3F and %23",
        ));
    }
    Ok(parsed)
}

fn directory(url: &str, parsed: &Url) -> Result<std::path::PathBuf> {
    let wrong = || invalid(url, "a local directory is written file:///absolute/path");
    // `file:relative` would be read as `/relative`.
    if !url.to_ascii_lowercase().starts_with("file://") {
        return Err(wrong());
    }
    parsed.to_file_path().map_err(|()| wrong())
}

fn bucket<'a>(url: &str, parsed: &'a Url) -> Result<&'a str> {
    match parsed.host_str() {
        Some(host) if parsed.port().is_none() && !host.is_empty() => Ok(host),
        _ => Err(invalid(url, format!("no bucket in the URL; known are {KNOWN}"))),
    }
}

fn name<'a>(url: &str, parsed: &'a Url) -> Result<&'a str> {
    match parsed.host_str() {
        Some(name) if parsed.port().is_none() && parsed.path().trim_matches('/').is_empty() => Ok(name),
        _ => Err(invalid(url, "a store in memory is written memory://name")),
    }
}

fn cloud_part(url: &str, parsed: &Url, whole: Arc<dyn Store>) -> Result<Arc<dyn Store>> {
    let prefix = parsed.path().trim_matches('/');
    if prefix.is_empty() {
        return Ok(whole);
    }
    let prefix = Key::new(prefix).map_err(|_| {
        invalid(
            url,
            "the prefix may have segments of letters, digits, `.`, `_` and `-` alone, joined by single `/`",
        )
    })?;
    Ok(Prefixed::new(whole, prefix))
}
