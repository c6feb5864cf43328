//! Events: CloudEvents 1.0 JSON, structured mode (<https://github.com/cloudevents/spec>).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One event as it is published. `data` is one of the [`crate::Topic`] types.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CloudEvent<T> {
    /// Always `1.0`.
    pub specversion: String,
    /// ULID; unique with `source`.
    pub id: String,
    /// `windlass://<host>`.
    pub source: String,
    /// `windlass.<concern>.<what>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// RFC 3339, UTC.
    pub time: String,
    /// Always `application/json`.
    pub datacontenttype: String,
    /// `traceparent` (the CloudEvents extension for distributed tracing): what it happened for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// What happened.
    pub data: T,
}

impl<T: crate::Topic> CloudEvent<T> {
    /// Wraps `data`; id and time come from the caller, for wire knows no clock and no randomness.
    pub fn new(id: String, host: &crate::HostId, time: String, data: T) -> Self {
        Self {
            specversion: "1.0".into(),
            id,
            source: format!("windlass://{host}"),
            kind: format!("windlass.{}.{}", T::CONCERN, T::WHAT),
            time,
            datacontenttype: "application/json".into(),
            traceparent: None,
            data,
        }
    }
}
