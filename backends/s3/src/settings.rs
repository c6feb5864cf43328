//! How to speak to a server: the keys that a URL and the section `[repo.s3]` of the configuration share.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Where the bucket's name stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// `https://host/bucket/key`
    Path,
    /// `https://bucket.host/key`
    Virtual,
}

/// What is made of the server's own checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checksums {
    /// Sent with each body, and looked at in answers that carry one. Servers that don't know them pass them over.
    #[default]
    Auto,
    /// Neither; for servers that refuse the header.
    Off,
}

/// A clock that goes wrong, for tests of what a server says to it: seconds that it is ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TimeShift(pub i64);

/// How to speak to a server. Holds no secret: keys come from the SDK's chain or from a file that is named here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// URL of the server; that of AWS for the region when absent.
    pub endpoint: Option<String>,
    /// Region; the SDK's chain when absent, and `us-east-1` where an endpoint is named and nobody says one.
    pub region: Option<String>,
    /// Path style where an endpoint is named, else virtual hosts, when absent.
    pub style: Option<Style>,
    /// PEM file with certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// File with keys, as the SDK's own `credentials` file is written; the SDK's whole chain when absent.
    pub credentials_file: Option<PathBuf>,
    /// Profile in that file, and in the SDK's own ones.
    pub profile: Option<String>,
    /// `AES256` or `aws:kms`: encryption by the server.
    pub sse: Option<String>,
    /// Id of the key for `aws:kms`; the bucket's own when absent.
    pub sse_kms_key_id: Option<String>,
    /// Storage class of new objects, such as `STANDARD_IA`; the bucket's own when absent.
    pub storage_class: Option<String>,
    /// What is made of the server's checksums.
    pub checksums: Checksums,
    /// Bytes a second of all bodies sent together; 0: as fast as it goes.
    pub upload_bytes_per_s_max: u64,
    /// Bytes a second of all bodies received together; 0: as fast as it goes.
    pub download_bytes_per_s_max: u64,
    /// A body or an answer of which no byte moves for so long is given up.
    pub stall_timeout_s: u64,
    /// Making a connection takes at most so long.
    pub connect_timeout_s: u64,
    /// A call is tried again for so long, while trying helps.
    pub retry_for_s: u64,
    /// Objects larger than this are stored in parts of this size.
    pub part_bytes: u64,
    /// For tests.
    pub time_shift: TimeShift,
}

/// The keys that a URL may have, in the order of the configuration reference.
pub const KEYS: &[&str] = &[
    "endpoint",
    "region",
    "style",
    "ca_file",
    "credentials_file",
    "profile",
    "sse",
    "sse_kms_key_id",
    "storage_class",
    "checksums",
    "upload_bytes_per_s_max",
    "download_bytes_per_s_max",
    "stall_timeout_s",
    "connect_timeout_s",
    "retry_for_s",
    "part_bytes",
];

const MIB: u64 = 1 << 20;

impl Default for Settings {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: None,
            style: None,
            ca_file: None,
            credentials_file: None,
            profile: None,
            sse: None,
            sse_kms_key_id: None,
            storage_class: None,
            checksums: Checksums::Auto,
            upload_bytes_per_s_max: 0,
            download_bytes_per_s_max: 0,
            stall_timeout_s: 30,
            connect_timeout_s: 10,
            retry_for_s: 120,
            part_bytes: 64 * MIB,
            time_shift: TimeShift::default(),
        }
    }
}

impl Settings {
    /// Sets one of [`KEYS`] from text; empty text sets nothing.
    ///
    /// # Errors
    /// Why it won't do, for people. The text of a value is repeated only where it can't be a secret.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        if value.is_empty() {
            return Ok(());
        }
        match key {
            "endpoint" => self.endpoint = Some(endpoint(value)?),
            "region" => self.region = Some(word(key, value)?),
            "style" => {
                self.style = Some(match value {
                    "auto" => return Ok(()),
                    "path" => Style::Path,
                    "virtual" => Style::Virtual,
                    _ => return Err(format!("style is path or virtual, not '{}'", shown(value))),
                });
            }
            "ca_file" => self.ca_file = Some(file(key, value)?),
            "credentials_file" => self.credentials_file = Some(file(key, value)?),
            "profile" => self.profile = Some(word(key, value)?),
            "sse" => {
                if value == "none" {
                    return Ok(());
                }
                if !["AES256", "aws:kms"].contains(&value) {
                    return Err(format!("sse is AES256 or aws:kms, not '{}'", shown(value)));
                }
                self.sse = Some(value.to_owned());
            }
            "sse_kms_key_id" => self.sse_kms_key_id = Some(word(key, value)?),
            "storage_class" => self.storage_class = Some(word(key, value)?),
            "checksums" => {
                self.checksums = match value {
                    "auto" => Checksums::Auto,
                    "off" => Checksums::Off,
                    _ => return Err(format!("checksums is auto or off, not '{}'", shown(value))),
                };
            }
            "upload_bytes_per_s_max" => self.upload_bytes_per_s_max = number(key, value, 0, u64::MAX)?,
            "download_bytes_per_s_max" => self.download_bytes_per_s_max = number(key, value, 0, u64::MAX)?,
            "stall_timeout_s" => self.stall_timeout_s = number(key, value, 1, 3600)?,
            "connect_timeout_s" => self.connect_timeout_s = number(key, value, 1, 600)?,
            "retry_for_s" => self.retry_for_s = number(key, value, 0, 86_400)?,
            "part_bytes" => self.part_bytes = number(key, value, 5 * MIB, 5 << 30)?,
            _ => {
                return Err(format!(
                    "s3:// has no key '{}'; known are {}",
                    shown(key),
                    KEYS.join(", ")
                ));
            }
        }
        Ok(())
    }

    pub(crate) fn stall_timeout(&self) -> Duration {
        Duration::from_secs(self.stall_timeout_s)
    }
}

fn shown(text: &str) -> String {
    text.chars().take(60).collect()
}

fn word(key: &str, value: &str) -> Result<String, String> {
    let fine = value.len() <= 512 && value.bytes().all(|b| b.is_ascii_graphic());
    if fine {
        Ok(value.to_owned())
    } else {
        Err(format!("{key} is one word of at most 512 plain characters"))
    }
}

fn file(key: &str, value: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(value);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(format!("{key} is an absolute path, not '{}'", shown(value)))
    }
}

fn number(key: &str, value: &str, min: u64, max: u64) -> Result<u64, String> {
    match u64::from_str(value) {
        Ok(n) if (min..=max).contains(&n) => Ok(n),
        _ => Err(format!(
            "{key} is a whole number from {min} to {max}, not '{}'",
            shown(value)
        )),
    }
}

fn endpoint(value: &str) -> Result<String, String> {
    // what stands before an @ may be a secret, so the text is not repeated
    let url = url::Url::parse(value)
        .map_err(|e| format!("endpoint is no URL ({e}); write https://host or https://host:port"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "endpoint may hold no user or password: keys come from the environment or from credentials_file".into(),
        );
    }
    let plain = matches!(url.scheme(), "http" | "https") && url.has_host() && url.query().is_none();
    if plain && url.fragment().is_none() {
        Ok(url.as_str().trim_end_matches('/').to_owned())
    } else {
        Err("endpoint is http:// or https:// with a host, without ? and #".into())
    }
}
