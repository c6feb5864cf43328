//! HTTP on a Unix socket, and on TCP where that is configured: how the command line, and whoever speaks HTTP, reaches a
//! running daemon (docs/gateway.md).
//!
//! ```text
//! POST /v1/request/<subject>      the request as JSON; answered with {"ok": ...} or {"error": ...}
//! GET  /v1/events?filter=<subject pattern>   events as they happen (text/event-stream)
//! GET  /v1/blob/<id>              bytes that no message carries
//! GET  /v1/host                   whose daemon this is
//! GET  /metrics                   for Prometheus
//! GET  /healthz  /readyz          for supervisors
//! ```
//!
//! `connection` takes connections and keeps their limits; `guard` decides who may speak over TCP; `server` is the thin layer
//! between HTTP and the bus; `tokens` are those of people, each with a role. Headers of a request travel as HTTP headers of the same names. The HTTP status follows from
//! the answer's code, which is what counts.
//!
//! What is absent: no TCP without a token, no TLS (a proxy has it), no second way to a concern (everything goes over the bus;
//! blobs are read from the repository, which is shared by design, and change nothing).

mod blob;
pub mod client;
mod connection;
pub mod guard;
mod metrics;
pub mod server;
pub mod socket;
mod sse;
pub mod tokens;

use serde::{Deserialize, Serialize};
use wire::{Code, HostId};

/// Path of requests, before the subject.
const REQUEST_PATH: &str = "/v1/request/";
/// Path of events.
const EVENTS_PATH: &str = "/v1/events";
/// Path of blobs, before the id.
const BLOB_PATH: &str = "/v1/blob/";
/// Path of the daemon's own description.
const HOST_PATH: &str = "/v1/host";

/// Whose daemon this is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostInfo {
    /// The host's id.
    pub host: HostId,
    /// windlass's version.
    pub version: String,
    /// Version of the wire.
    pub wire_version: u32,
    /// The process.
    pub pid: u32,
    /// In a fleet: its public key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_key: Option<String>,
}

/// The HTTP status of an answer with that error code.
fn http_status(code: Code) -> u16 {
    code.http_status()
}

#[cfg(test)]
mod tests;
