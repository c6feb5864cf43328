//! One value, checked against its key.

use std::path::Path;

use serde::Serialize;

use crate::key::{Key, KeyType};

/// A checked value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// Text, a path, a URL, a word.
    Text(String),
    /// A number.
    Integer(u64),
}

impl std::fmt::Display for Value {
    /// As it would stand in the file.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(&toml::Value::String(text.clone()).to_string()),
            Self::Integer(number) => write!(f, "{number}"),
        }
    }
}

impl Value {
    /// For the layers.
    pub(crate) fn to_layer(&self) -> config_rs::ValueKind {
        match self {
            Self::Text(text) => text.clone().into(),
            Self::Integer(number) => (*number).into(),
        }
    }
}

/// Checks text, as a variable or a flag gives it. Relative paths begin in `working_dir`.
pub(crate) fn from_text(key: &Key, text: &str, working_dir: &Path) -> Result<Value, String> {
    match key.kind {
        KeyType::Integer { .. } => match text.trim().parse() {
            Ok(number) => from_integer(key, number),
            Err(_) => Err(wrong(key, text)),
        },
        // what is no place may be the secret itself, and would be said as a path
        KeyType::SecretOrEmpty if !text.starts_with("./") && !text.starts_with("../") => string(key, text),
        KeyType::Path | KeyType::PathOrEmpty | KeyType::SecretOrEmpty => {
            string(key, &working_dir.join(text).to_string_lossy())
        }
        KeyType::RepoUrl if !text.contains("://") => string(key, &working_dir.join(text).to_string_lossy()),
        _ => string(key, text),
    }
}

/// Checks a number.
pub(crate) fn from_integer(key: &Key, number: i128) -> Result<Value, String> {
    match key.kind {
        KeyType::Integer { min, max } => match u64::try_from(number) {
            Ok(n) if (min..=max).contains(&n) => Ok(Value::Integer(n)),
            _ => Err(wrong(key, &number.to_string())),
        },
        _ => Err(format!(
            "{}: {number} is a number; wanted is text: {}",
            key.path,
            key.kind.wanted()
        )),
    }
}

/// Checks text, as a file gives it.
pub(crate) fn string(key: &Key, text: &str) -> Result<Value, String> {
    let fine = match key.kind {
        KeyType::Integer { .. } => {
            return Err(format!(
                "{}: '{text}' is text; wanted is {}, without quotes",
                key.path,
                key.kind.wanted()
            ));
        }
        KeyType::Token => wire::HostId::new(text).is_ok(),
        KeyType::TokenOrEmpty => text.is_empty() || wire::HostId::new(text).is_ok(),
        KeyType::Labels => text.is_empty() || (text.split(',').count() <= LABELS_MAX && text.split(',').all(is_label)),
        KeyType::Path => Path::new(text).is_absolute(),
        KeyType::Word => text.len() <= 512 && text.bytes().all(|b| b.is_ascii_graphic()),
        KeyType::PathOrEmpty => text.is_empty() || Path::new(text).is_absolute(),
        KeyType::Paths => text.is_empty() || text.split(',').all(|path| Path::new(path.trim()).is_absolute()),
        // the text is not repeated: somebody may have put the secret here
        KeyType::SecretOrEmpty if !is_reference(text) => {
            return Err(format!("{}: wanted is {}", key.path, key.kind.wanted()));
        }
        KeyType::SecretOrEmpty => true,
        KeyType::NatsServers => return nats_servers(key, text),
        KeyType::RepoUrl => return repo_url(key, text),
        KeyType::LogFilter => !text.is_empty() && text.split(',').all(is_directive),
        KeyType::Listen => text.is_empty() || text.parse::<std::net::SocketAddr>().is_ok(),
        KeyType::HostName => {
            let fits = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
            text.len() <= 253 && text.chars().all(fits)
        }
        KeyType::Choice(words) => words.contains(&text),
    };
    if fine {
        Ok(Value::Text(text.to_owned()))
    } else {
        Err(wrong(key, text))
    }
}

/// As `secret::Reference` reads it; this crate knows nothing of secrets.
fn is_reference(text: &str) -> bool {
    let is_name = |name: &str| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        !name.is_empty() && name.len() <= 255 && name.bytes().all(fits)
    };
    let named = text.split_once(':').filter(|_| is_named(text));
    text.is_empty() || named.is_some_and(|(_, name)| is_name(name)) || Path::new(text).is_absolute()
}

fn is_named(text: &str) -> bool {
    ["env:", "credential:"].iter().any(|scheme| text.starts_with(scheme))
}

/// Labels that a host may have.
const LABELS_MAX: usize = 64;

fn is_label(pair: &str) -> bool {
    let is_token = |text: &str| wire::HostId::new(text).is_ok();
    pair.split_once('=')
        .is_some_and(|(name, value)| is_token(name) && is_token(value))
}

fn wrong(key: &Key, text: &str) -> String {
    let shown: String = text.chars().take(120).collect();
    let near = match key.kind {
        KeyType::Choice(words) => crate::nearest::nearest(text, words.iter().copied()),
        _ => None,
    };
    let hint = near.map(|word| format!("; did you mean '{word}'?")).unwrap_or_default();
    format!(
        "{}: '{shown}' won't do; wanted is {}{hint}",
        key.path,
        key.kind.wanted()
    )
}

/// The schemes that a repository can have; others are refused early.
const SCHEMES: &[&str] = &["file", "s3", "memory", "gs", "az"];

fn repo_url(key: &Key, text: &str) -> Result<Value, String> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return match Path::new(text).is_absolute() {
            true => Ok(Value::Text(file_url(text))),
            false => Err(wrong(key, text)),
        };
    };
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.contains('@') || scheme == "s3" && rest.contains('@') {
        // the text is not repeated: it holds a secret
        return Err(format!(
            "{}: a URL carries no user or password here; they come from the environment",
            key.path
        ));
    }
    let local = scheme != "file" || rest.starts_with('/');
    if SCHEMES.contains(&scheme) && local {
        Ok(Value::Text(text.to_owned()))
    } else {
        Err(wrong(key, text))
    }
}

fn nats_servers(key: &Key, text: &str) -> Result<Value, String> {
    if text.contains('@') {
        // the text is not repeated: it holds a secret
        return Err(format!(
            "{}: a URL carries no user or password here; name a file: nats.user_file, nats.nkey_file or nats.creds_file",
            key.path
        ));
    }
    let is_url = |url: &str| {
        let rest = url.strip_prefix("nats://").or_else(|| url.strip_prefix("tls://"));
        rest.is_some_and(|host| !host.is_empty() && !host.contains(['/', ' ']))
    };
    match text.split(',').all(|url| is_url(url.trim())) {
        true => Ok(Value::Text(text.to_owned())),
        false => Err(wrong(key, text)),
    }
}

/// `file://` URL of an absolute path; what a URL can't carry is percent-encoded (RFC 3986, section 2).
pub(crate) fn file_url(path: &str) -> String {
    use std::fmt::Write as _;
    let mut url = String::from("file://");
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => url.push(char::from(byte)),
            _ => {
                let _ = write!(url, "%{byte:02X}");
            }
        }
    }
    url
}

/// A directive of the log filter: `level`, `target` or `target=level`.
fn is_directive(text: &str) -> bool {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = |word: &str| LEVELS.iter().any(|l| l.eq_ignore_ascii_case(word));
    let is_target = |word: &str| {
        !word.is_empty()
            && word
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '-'))
    };
    match text.trim().rsplit_once('=') {
        Some((target, level)) => is_target(target) && is_level(level),
        None => is_level(text.trim()),
    }
}
