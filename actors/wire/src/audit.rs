//! Who did what, and who was refused.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::catalog::{Role, Room};
use crate::messages::{SAMPLE_ID, request, sample_host, topic};
use crate::{Code, HostId};

const CONCERN: &str = "audit";

pub(crate) fn room() -> Room {
    Room::default().request::<AuditList>().topic::<AuditAction>()
}

/// Something that was done, or refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditEntry {
    /// ULID; sorts by time.
    pub id: String,
    /// When, RFC 3339, by the clock of the host that noticed. With `times` over 1: when first.
    pub at: String,
    /// The host that noticed.
    pub host: HostId,
    /// Who: a token's name, `uid 0`, a member of the fleet, a user of the NATS servers.
    pub who: String,
    /// As whom, where there are roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// From where: an address, the socket, the servers.
    pub from: String,
    /// What: a verb such as `snapshot.restore`, or what was tried on the servers.
    pub what: String,
    /// On what, such as `vm=web1`; only names, nothing else of the request.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// The error's code; absent when it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Code>,
    /// The error in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// How often: the same within a moment is one entry.
    pub times: u64,
    /// The trace that it belongs to, as the log has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

/// Asks a host what it noticed, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditList {
    /// At most this many; 0 means the default of 100. At most 1,000.
    #[serde(default)]
    pub count_max: u32,
    /// Only what was denied.
    #[serde(default)]
    pub denied: bool,
}

/// What a host noticed, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditListing {
    /// The entries.
    pub entries: Vec<AuditEntry>,
    /// What was denied since the daemon began, counted one by one.
    pub denied_total: u64,
    /// Entries that were not kept since then, for more came than could be written.
    pub missed_total: u64,
}

request!(
    AuditList,
    AuditListing,
    "ls",
    Host,
    Reads,
    "What was done through this host, and who was refused",
    Admin,
    Self {
        count_max: 100,
        denied: true,
    },
    AuditListing {
        entries: vec![AuditEntry::sample()],
        denied_total: 1,
        missed_total: 0,
    }
);

/// Event: something was done, or refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct AuditAction(pub AuditEntry);

topic!(
    AuditAction,
    "action",
    "Something was done, or refused: who, what, from where, and how it ended",
    Self(AuditEntry::sample())
);

impl AuditEntry {
    /// An entry for documents and tests.
    pub fn sample() -> Self {
        Self {
            id: SAMPLE_ID.into(),
            at: "2026-11-24T03:00:00Z".into(),
            host: sample_host(),
            who: "ada".into(),
            role: Some(Role::Viewer),
            from: "10.0.0.9:51234".into(),
            what: "snapshot.forget".into(),
            about: "snapshot=01JCXQ6Y9D3W6V3S1W8Y5Z4K2M".into(),
            refused: Some(Code::Denied),
            why: Some("snapshot.forget needs the role admin; 'ada' has viewer; nothing was carried out".into()),
            times: 1,
            trace_id: Some("0af7651916cd43dd8448eb211c80319c".into()),
        }
    }
}
