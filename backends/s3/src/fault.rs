//! What went wrong, from the SDK's words to the port's.
//!
//! The number and the code of an answer decide its kind; where a server made none, the error's own type does. Texts are for
//! people: they name the object, the server, what it answered, and what to try.

use std::error::Error;
use std::io;
use std::time::{Duration, SystemTime};

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use store::{Kind, chain_text};

use crate::line::Stalled;

/// A clock that differs more than this is worth a word; servers refuse from a quarter of an hour (or a day) on.
const SKEW_TOLD: Duration = Duration::from_secs(300);
/// Longest text of a server that is passed on, in characters.
const SAID_CHARACTERS_MAX: usize = 300;

/// One attempt that failed.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    /// Without object and server, which the caller adds.
    pub(crate) why: String,
    pub(crate) hint: Option<String>,
    /// The server asked for this pause.
    pub(crate) retry_after: Option<Duration>,
    /// There was an answer.
    pub(crate) answered: bool,
    /// The server's code for it, such as `NoSuchKey`; empty when it gave none.
    pub(crate) code: String,
}

impl Fault {
    pub(crate) fn new(kind: Kind, why: impl Into<String>) -> Self {
        Self {
            kind,
            why: why.into(),
            hint: hint(kind, "").map(str::to_owned),
            retry_after: None,
            answered: true,
            code: String::new(),
        }
    }

    /// The server read the request and said no to it: a 4xx that is no matter of keys or of load. Which kind that has in a call
    /// (a wrong checksum is tried again) doesn't matter here.
    pub(crate) fn is_refusal(&self) -> bool {
        self.why.starts_with('4') && !matches!(self.kind, Kind::Denied | Kind::SlowDown | Kind::NotFound)
    }

    /// A body that broke off or stalled.
    pub(crate) fn of_body(error: &(dyn Error + 'static)) -> Self {
        let kind = match kind_of_chain(error) {
            // the body had begun: the connection was cut
            Some(Kind::Timeout) => Kind::Timeout,
            _ => Kind::Truncated,
        };
        Self::new(kind, format!("the body broke off: {}", chain_text(error)))
    }

    /// An error of the SDK; `now` is what this host takes for the time.
    pub(crate) fn of_sdk<E>(error: &SdkError<E, HttpResponse>, now: SystemTime) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let Some(answer) = error.raw_response() else {
            return Self::without_answer(error);
        };
        let status = answer.status().as_u16();
        let (code, said) = match error.as_service_error() {
            Some(e) => (e.code().unwrap_or_default(), e.message().unwrap_or_default()),
            None => ("", ""),
        };
        let mut kind = kind_of_answer(status, code);
        if (200..300).contains(&status) {
            // an answer that began well and can't be read to its end, or is none of S3's
            kind = kind_of_chain(error).unwrap_or(Kind::Truncated);
        }
        let mut why = format!("{status}");
        if !code.is_empty() {
            why.push_str(&format!(" {code}"));
        }
        let said: String = said.chars().take(SAID_CHARACTERS_MAX).collect();
        if !said.is_empty() {
            why.push_str(&format!(" ({said})"));
        } else if code.is_empty() && (200..300).contains(&status) {
            why.push_str(&format!(", and then: {}", chain_text(error)));
        }
        let header = |name: &str| answer.headers().get(name);
        if let Some(region) = header("x-amz-bucket-region").filter(|_| kind == Kind::Invalid) {
            why.push_str(&format!("; the bucket is in region {region}"));
        }
        let skew = skew(header("date"), now).filter(|_| (400..404).contains(&status));
        if let Some(skew) = &skew {
            why.push_str(&format!("; {skew}"));
        }
        let clock = skew.is_some() || code == "RequestTimeTooSkewed";
        Self {
            kind,
            why,
            hint: if clock {
                Some("set this host's clock (timedatectl status), then try again".to_owned())
            } else {
                hint(kind, code).map(str::to_owned)
            },
            retry_after: header("retry-after")
                .and_then(|s| s.trim().parse().ok())
                .map(Duration::from_secs),
            answered: true,
            code: code.to_owned(),
        }
    }

    fn without_answer(error: &(dyn Error + 'static)) -> Self {
        let mut fault = Self::new(Kind::Other, chain_text(error));
        fault.answered = false;
        if find::<CredentialsError>(error).is_some() {
            fault.kind = Kind::Denied;
            fault.why = format!("no credentials: {}", chain_text(error));
        } else {
            fault.kind = kind_of_chain(error).unwrap_or(Kind::Unavailable);
        }
        fault.hint = hint(fault.kind, "").map(str::to_owned);
        fault
    }
}

/// How far this host's clock is from the server's, when it is worth a word.
fn skew(date: Option<&str>, now: SystemTime) -> Option<String> {
    let server = DateTime::from_str(date?, Format::HttpDate).ok()?;
    let server = SystemTime::try_from(server).ok()?;
    let (apart, which) = match now.duration_since(server) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(e) => (e.duration(), "behind"),
    };
    (apart > SKEW_TOLD).then(|| format!("this host's clock is {} s {which} the server's", apart.as_secs()))
}

/// The kind of an answer that is no success.
fn kind_of_answer(status: u16, code: &str) -> Kind {
    match code {
        "SlowDown" | "ThrottlingException" | "TooManyRequests" | "RequestLimitExceeded" | "Throttling" => {
            return Kind::SlowDown;
        }
        "RequestTimeout" => return Kind::Timeout,
        // damaged on its way there: the next one may arrive whole
        "BadDigest" | "InvalidDigest" | "XAmzContentSHA256Mismatch" | "IncompleteBody" => return Kind::Unavailable,
        "OperationAborted" | "ConditionalRequestConflict" | "InternalError" => return Kind::Unavailable,
        "QuotaExceeded" | "XMinioStorageFull" | "StorageFull" => return Kind::Full,
        "NoSuchKey" | "NoSuchBucket" | "NoSuchUpload" => return Kind::NotFound,
        "RequestTimeTooSkewed" => return Kind::Denied,
        "InvalidRange" => return Kind::Truncated,
        _ => {}
    }
    match status {
        // a redirect to another region, a method that the server doesn't know
        300..=308 | 405 => Kind::Invalid,
        501 => Kind::Other,
        _ => Kind::of_status(status),
    }
}

fn hint(kind: Kind, code: &str) -> Option<&'static str> {
    let hint = match (code, kind) {
        ("NoSuchBucket", _) => "make the bucket, or correct its name in the repository's URL",
        ("SignatureDoesNotMatch" | "InvalidAccessKeyId" | "ExpiredToken", _) => {
            "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the profile, or credentials_file"
        }
        (_, Kind::Denied) => {
            "check the keys (AWS_ACCESS_KEY_ID, AWS_PROFILE, credentials_file) and what they may do with the bucket"
        }
        ("PermanentRedirect" | "AuthorizationHeaderMalformed", _) => "correct region=… in the repository's URL",
        (_, Kind::Full) => "free space there, or raise the quota, then try again",
        (_, Kind::SlowDown) => {
            "try again later, or lower repo.uploads_in_flight_max and repo.fetch_requests_in_flight_max"
        }
        (_, Kind::Timeout | Kind::Unavailable | Kind::Truncated) => {
            "see that the server runs and can be reached from here, then run the same command again"
        }
        _ => return None,
    };
    Some(hint)
}

fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut link = Some(error);
    while let Some(e) = link {
        if let Some(found) = e.downcast_ref::<T>() {
            return Some(found);
        }
        link = e.source();
    }
    None
}

/// The kind of an error that is no answer: ours, the SDK's own time-out, or the system's.
fn kind_of_chain(error: &(dyn Error + 'static)) -> Option<Kind> {
    if find::<Stalled>(error).is_some() {
        return Some(Kind::Timeout);
    }
    let mut kind = None;
    let mut link = Some(error);
    while let Some(e) = link {
        if let Some(connector) = e.downcast_ref::<aws_smithy_runtime_api::client::result::ConnectorError>() {
            kind = Some(if connector.is_timeout() {
                Kind::Timeout
            } else {
                Kind::Unavailable
            });
        }
        if let Some(io) = e.downcast_ref::<io::Error>() {
            kind = Some(match io.kind() {
                io::ErrorKind::TimedOut => Kind::Timeout,
                _ => Kind::Unavailable,
            });
        }
        link = e.source();
    }
    kind
}
