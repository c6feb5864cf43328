//! What surrounds a payload: headers, the answer and its error codes.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Sender;

/// Error codes of an answer; the CLI's exit codes follow from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request can't be understood or asks for something impossible.
    Invalid,
    /// The thing named doesn't exist.
    NotFound,
    /// The thing is in a state, or in someone else's hands, that forbids this now.
    Conflict,
    /// The asker or the process may not do this.
    Denied,
    /// Too much is queued; see `retry_after_ms`.
    Busy,
    /// The request's time was up before the work was done.
    Deadline,
    /// Something that is needed doesn't answer, or is full.
    Unavailable,
    /// Stored bytes are not what was written.
    Corrupt,
    /// A fault of windlass itself.
    Internal,
}

impl Code {
    /// All codes, in the order of their exit codes.
    pub const ALL: [Code; 9] = [
        Code::Invalid,
        Code::NotFound,
        Code::Conflict,
        Code::Denied,
        Code::Busy,
        Code::Deadline,
        Code::Unavailable,
        Code::Corrupt,
        Code::Internal,
    ];
    /// The code as it stands in an answer.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::Invalid => "invalid",
            Code::NotFound => "not_found",
            Code::Conflict => "conflict",
            Code::Denied => "denied",
            Code::Busy => "busy",
            Code::Deadline => "deadline",
            Code::Unavailable => "unavailable",
            Code::Corrupt => "corrupt",
            Code::Internal => "internal",
        }
    }
    /// Exit code of the CLI: 2 `invalid` (as clap's own usage errors), then 3 to 10. 1 is kept for `internal`.
    pub fn exit_code(self) -> u8 {
        match self {
            Code::Internal => 1,
            Code::Invalid => 2,
            Code::NotFound => 3,
            Code::Conflict => 4,
            Code::Denied => 5,
            Code::Busy => 6,
            Code::Deadline => 7,
            Code::Unavailable => 8,
            Code::Corrupt => 9,
        }
    }
    /// The HTTP status that means the same, for the gateway and for clients of NATS services.
    pub fn http_status(self) -> u16 {
        match self {
            Code::Invalid => 400,
            Code::Denied => 403,
            Code::NotFound => 404,
            Code::Conflict => 409,
            Code::Busy => 429,
            Code::Corrupt | Code::Internal => 500,
            Code::Unavailable => 503,
            Code::Deadline => 504,
        }
    }
    /// False when the same request may succeed later without anyone changing anything.
    pub fn is_permanent(self) -> bool {
        !matches!(self, Code::Busy | Code::Deadline | Code::Unavailable)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error as it crosses the wire: what failed, on which object, why and what was left unchanged (`message`), and the
/// next command to try (`hint`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{message}")]
pub struct ErrorBody {
    /// What kind of error this is.
    pub code: Code,
    /// What failed, on which object, why, and what was left unchanged.
    pub message: String,
    /// The next command to try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// With `busy`: when to try again, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl ErrorBody {
    /// An error with a message and nothing else.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
            retry_after_ms: None,
        }
    }
    /// Adds the next command to try.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    /// Adds when to try again, in milliseconds.
    pub fn retry_after_ms(mut self, ms: u64) -> Self {
        self.retry_after_ms = Some(ms);
        self
    }
}

/// `{"ok": …}` or `{"error": …}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Answer<T> {
    /// The reply.
    Ok(T),
    /// Why there is none.
    Error(ErrorBody),
}

impl<T> Answer<T> {
    /// The answer as a `Result`.
    pub fn into_result(self) -> Result<T, ErrorBody> {
        match self {
            Answer::Ok(value) => Ok(value),
            Answer::Error(error) => Err(error),
        }
    }
}

impl<T> From<Result<T, ErrorBody>> for Answer<T> {
    fn from(result: Result<T, ErrorBody>) -> Self {
        match result {
            Ok(value) => Answer::Ok(value),
            Err(error) => Answer::Error(error),
        }
    }
}

/// Headers of a request or an event, as typed fields; [`Headers::pairs`] gives them in NATS's and HTTP's form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    /// `Windlass-Timeout-Ms`: what is left of the asker's patience, so that clocks needn't agree.
    pub timeout_ms: Option<u64>,
    /// `Windlass-Request-Id`: idempotency key; the same id twice has one effect.
    pub request_id: Option<String>,
    /// `traceparent` (W3C Trace Context).
    pub traceparent: Option<String>,
    /// `Windlass-Authority`: who stands behind the request, with a signature over it. Buses of a fleet write and check it.
    pub authority: Option<String>,
    /// Who that is, as this process's bus has found it true. It is no header: nothing from outside sets it.
    pub sender: Option<Sender>,
}

impl Headers {
    /// Name of the header that carries the remaining time.
    pub const TIMEOUT_MS: &'static str = "Windlass-Timeout-Ms";
    /// Name of the header that carries the idempotency key.
    pub const REQUEST_ID: &'static str = "Windlass-Request-Id";
    /// Name of the header with the signature.
    pub const AUTHORITY: &'static str = "Windlass-Authority";
    /// Name of the W3C trace header.
    pub const TRACEPARENT: &'static str = "traceparent";
    /// Longest value taken from outside, in bytes.
    pub const VALUE_BYTES_MAX: usize = 256;

    /// The headers that are set, as names and values.
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = Vec::new();
        if let Some(ms) = self.timeout_ms {
            pairs.push((Self::TIMEOUT_MS, ms.to_string()));
        }
        if let Some(id) = &self.request_id {
            pairs.push((Self::REQUEST_ID, id.clone()));
        }
        if let Some(trace) = &self.traceparent {
            pairs.push((Self::TRACEPARENT, trace.clone()));
        }
        if let Some(authority) = &self.authority {
            pairs.push((Self::AUTHORITY, authority.clone()));
        }
        pairs
    }

    /// Reads headers; names are compared without case and unknown ones are passed over.
    ///
    /// # Errors
    /// `invalid` when a value is too long or `Windlass-Timeout-Ms` is not a number.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, ErrorBody> {
        let mut headers = Self::default();
        for (name, value) in pairs {
            let slot = if name.eq_ignore_ascii_case(Self::TIMEOUT_MS) {
                let ms = value.parse().map_err(|_| {
                    ErrorBody::new(
                        Code::Invalid,
                        format!("header {name}: '{}' is not a number of milliseconds", clip(value)),
                    )
                })?;
                headers.timeout_ms = Some(ms);
                continue;
            } else if name.eq_ignore_ascii_case(Self::REQUEST_ID) {
                &mut headers.request_id
            } else if name.eq_ignore_ascii_case(Self::TRACEPARENT) {
                &mut headers.traceparent
            } else if name.eq_ignore_ascii_case(Self::AUTHORITY) {
                &mut headers.authority
            } else {
                continue;
            };
            if value.len() > Self::VALUE_BYTES_MAX {
                return Err(ErrorBody::new(
                    Code::Invalid,
                    format!(
                        "header {name} has {} bytes; at most {} are taken",
                        value.len(),
                        Self::VALUE_BYTES_MAX
                    ),
                ));
            }
            *slot = Some(value.to_owned());
        }
        Ok(headers)
    }
}

fn clip(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_their_two_forms() {
        let ok: Answer<u32> = Ok(7).into();
        assert_eq!(serde_json::to_string(&ok).unwrap(), r#"{"ok":7}"#);
        let error: Answer<u32> = Err(ErrorBody::new(Code::Busy, "full").retry_after_ms(50)).into();
        assert_eq!(
            serde_json::to_string(&error).unwrap(),
            r#"{"error":{"code":"busy","message":"full","retry_after_ms":50}}"#
        );
        assert_eq!(
            serde_json::from_str::<Answer<u32>>(r#"{"ok":7}"#)
                .unwrap()
                .into_result(),
            Ok(7)
        );
    }

    #[test]
    fn headers_survive_their_pairs_and_bad_ones_are_refused() {
        let headers = Headers {
            timeout_ms: Some(5),
            request_id: Some("r".into()),
            traceparent: Some("t".into()),
            authority: Some("a".into()),
            sender: None,
        };
        let pairs = headers.pairs();
        let back = Headers::from_pairs(pairs.iter().map(|(n, v)| (*n, v.as_str()))).unwrap();
        assert_eq!(back, headers);
        assert_eq!(
            Headers::from_pairs([("windlass-timeout-ms", "x")]).unwrap_err().code,
            Code::Invalid
        );
        let long = "x".repeat(300);
        assert_eq!(
            Headers::from_pairs([("traceparent", long.as_str())]).unwrap_err().code,
            Code::Invalid
        );
    }

    #[test]
    fn exit_codes_differ() {
        let mut seen: Vec<u8> = Code::ALL.iter().map(|c| c.exit_code()).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), Code::ALL.len());
        assert!(!seen.contains(&0));
    }
}
