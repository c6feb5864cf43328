//! Forgetting a snapshot.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CONCERN, SAMPLE_ID, sample_repo};
use crate::messages::{request, topic};

/// Forgets a snapshot. Its chunks stay until no snapshot needs them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotForget {
    /// Its id or a unique beginning (`latest` is refused).
    pub id: String,
    /// Also when it is held, or the way back of an unfinished restore's is not concerned.
    #[serde(default)]
    pub force: bool,
    /// Where; the configured default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
}

/// What was forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Forgotten {
    /// Its full id.
    pub id: String,
    /// The VM's name.
    pub vm: String,
}

request!(
    SnapshotForget,
    Forgotten,
    "forget",
    Host,
    Changes,
    "Forget a snapshot",
    Admin,
    SnapshotForget {
        id: SAMPLE_ID.into(),
        force: false,
        repo: sample_repo()
    },
    Forgotten {
        id: SAMPLE_ID.into(),
        vm: "web1".into()
    }
);

/// Event: a snapshot is no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotForgotten {
    /// Its full id.
    pub id: String,
    /// The VM's name.
    pub vm: String,
}

topic!(
    SnapshotForgotten,
    "forgotten",
    "A snapshot is no more",
    Self {
        id: SAMPLE_ID.into(),
        vm: "web1".into()
    }
);
