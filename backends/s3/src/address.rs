//! `s3://bucket/prefix?key=value&…`.

use store::{Key, Kind, Result, StoreError};
use url::Url;

use crate::settings::Settings;

/// Longest URL that is looked at, in bytes.
const URL_BYTES_MAX: usize = 8 << 10;

/// Where the objects are and how to speak to the server.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    /// The bucket.
    pub(crate) bucket: String,
    /// What stands before each key: empty, or whole segments with a `/` at the end.
    pub(crate) prefix: String,
    /// The settings with the URL's own laid over them.
    pub(crate) settings: Settings,
}

impl Address {
    /// `s3://bucket/prefix`: without the keys, so without what may name files of this host.
    pub(crate) fn url(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.prefix)
            .trim_end_matches('/')
            .to_owned()
    }
}

fn invalid(url: &str, why: impl std::fmt::Display) -> StoreError {
    let plain = url.split(['?', '#']).next().unwrap_or_default();
    let rest = plain.split_once("://").map_or(plain, |(_, rest)| rest);
    let shown: String = rest.rsplit('@').next().unwrap_or_default().chars().take(200).collect();
    StoreError::new(Kind::Invalid, "open", format!("s3://{shown}"), why)
        .hint("write s3://bucket/prefix?endpoint=https://host&region=name (docs/s3.md has every key)")
}

/// Takes a URL apart.
pub(crate) fn parse(url: &str, settings: &Settings) -> Result<Address> {
    if url.len() > URL_BYTES_MAX {
        return Err(invalid(
            url,
            format!("a URL of {} bytes; at most {URL_BYTES_MAX}", url.len()),
        ));
    }
    let parsed = Url::parse(url).map_err(|e| invalid(url, e))?;
    if parsed.scheme() != "s3" {
        return Err(invalid(url, "not an s3:// URL"));
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(invalid(
            url,
            "a URL may not hold credentials: they come from the environment or from credentials_file",
        ));
    }
    if parsed.fragment().is_some() || parsed.port().is_some() {
        return Err(invalid(url, "no port and no # here; the server is named by endpoint=…"));
    }
    let bucket = parsed.host_str().unwrap_or_default();
    if !is_bucket(bucket) {
        return Err(invalid(
            url,
            "the bucket's name has 3 to 63 of a-z, 0-9, '-' and '.', and begins and ends with a letter or digit",
        ));
    }
    let prefix = parsed.path().trim_matches('/');
    if !prefix.is_empty() && Key::new(prefix).is_err() {
        return Err(invalid(
            url,
            "the prefix may have segments of letters, digits, `.`, `_` and `-` alone, joined by single `/`",
        ));
    }
    let mut settings = settings.clone();
    for (key, value) in parsed.query_pairs() {
        settings.set(&key, &value).map_err(|why| invalid(url, why))?;
    }
    Ok(Address {
        bucket: bucket.to_owned(),
        prefix: if prefix.is_empty() {
            String::new()
        } else {
            format!("{prefix}/")
        },
        settings,
    })
}

/// The rules of general-purpose buckets, as the S3 User Guide has them under "Bucket naming rules".
fn is_bucket(name: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    (3..=63).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
        && edge(name.as_bytes().first())
        && edge(name.as_bytes().last())
}
