//! What a cluster wants.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What fails together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Domain {
    /// A rack.
    #[default]
    Rack,
    /// A zone.
    Zone,
}

/// Nodes of one kind: each field is the least that a machine must have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoleAsk {
    /// Its name, such as `control` or `worker`.
    pub role: String,
    /// So many.
    pub count: u64,
    /// Processor cores.
    #[serde(default)]
    pub cores: u64,
    /// Memory in GiB.
    #[serde(default)]
    pub memory_gib: u64,
    /// Local disk in GiB.
    #[serde(default)]
    pub disk_gib: u64,
    /// GPUs.
    #[serde(default)]
    pub gpus: u64,
    /// The kind of GPU; any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_model: Option<String>,
    /// Network interfaces.
    #[serde(default)]
    pub nics: u64,
    /// Speed of the fastest interface in Gbit/s.
    #[serde(default)]
    pub nic_gbps: u64,
    /// Processor architecture; any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// What it must be able to do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// What its nodes are spread over.
    #[serde(default)]
    pub domain: Domain,
    /// At most so many of them in one domain; without it they are spread as well as the policy's weight says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_domain_max: Option<u64>,
}

/// A cluster. `windlass metal select FILE` reads it as TOML or JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterAsk {
    /// Its name, for people and for expressions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its nodes.
    pub roles: Vec<RoleAsk>,
    /// Where; anywhere when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// No dearer price class than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_class_max: Option<u64>,
    /// Only machines that were wiped.
    #[serde(default)]
    pub clean: bool,
    /// Room to grow: so many percent more cores, memory and disk than asked for, on each node.
    #[serde(default)]
    pub headroom_percent: u64,
    /// Machines that are up become hosts of the rack scheduler.
    #[serde(default)]
    pub rack_hosts: bool,
}

pub(super) fn sample_ask() -> ClusterAsk {
    let node = RoleAsk {
        cores: 16,
        memory_gib: 64,
        disk_gib: 400,
        nics: 2,
        nic_gbps: 10,
        arch: Some("x86_64".into()),
        ..RoleAsk::default()
    };
    ClusterAsk {
        name: Some("shop".into()),
        roles: vec![
            RoleAsk {
                role: "control".into(),
                count: 3,
                per_domain_max: Some(1),
                features: vec!["tpm2".into()],
                ..node.clone()
            },
            RoleAsk {
                role: "worker".into(),
                count: 5,
                gpus: 2,
                gpu_model: Some("a100".into()),
                domain: Domain::Zone,
                ..node
            },
        ],
        location: Some("fra".into()),
        price_class_max: Some(5),
        clean: true,
        headroom_percent: 20,
        rack_hosts: true,
    }
}
