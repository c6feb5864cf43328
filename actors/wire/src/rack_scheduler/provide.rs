//! What hosts hear: make these VMs, give these back. A later concern answers them; today a stand-in does.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CONCERN, Resources, SAMPLE_ID, sample_vm};
use crate::messages::request;

/// A VM to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProvideVm {
    /// Its name within the placement.
    pub vm: String,
    /// Its group.
    pub group: String,
    /// What it gets.
    pub needs: Resources,
}

/// Asks a host to make VMs. The same placement and version again has one effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RackProvide {
    /// The placement.
    pub placement: String,
    /// Its version.
    pub version: u64,
    /// The group's home rack, for the VMs to know their failure domain.
    pub rack: String,
    /// The VMs.
    pub vms: Vec<ProvideVm>,
}

/// What the host says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Provided {
    /// The host takes them; otherwise `why` tells.
    pub accepted: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Tells a host that VMs no longer belong to it. Those that it doesn't have are passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RackWithdraw {
    /// The placement.
    pub placement: String,
    /// Names of the VMs.
    pub vms: Vec<String>,
}

/// What the host had of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Withdrawn {
    /// How many.
    pub vms: u64,
}

request!(
    RackProvide,
    Provided,
    "provide",
    Host,
    Changes,
    "Ask a host to make VMs",
    Host,
    RackProvide {
        placement: SAMPLE_ID.into(),
        version: 1,
        rack: "r17".into(),
        vms: vec![ProvideVm {
            vm: "g0-0".into(),
            group: "g0".into(),
            needs: sample_vm(),
        }],
    },
    Provided {
        accepted: false,
        why: Some("no such CPU here".into()),
    }
);

request!(
    RackWithdraw,
    Withdrawn,
    "withdraw",
    Host,
    Changes,
    "Tell a host that VMs no longer belong to it",
    Host,
    RackWithdraw {
        placement: SAMPLE_ID.into(),
        vms: vec!["g0-0".into()],
    },
    Withdrawn { vms: 1 }
);
