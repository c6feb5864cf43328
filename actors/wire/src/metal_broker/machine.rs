//! A bare-metal machine as a provider tells of it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a machine's controller says of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Nothing is wrong.
    #[default]
    Ok,
    /// It doesn't say.
    Unknown,
    /// Something wears out or is redundant no more.
    Warning,
    /// It can't be used.
    Critical,
}

/// A machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Machine {
    /// Its id, unique among its tenant's.
    pub id: String,
    /// The provider that has it; the broker writes it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub provider: String,
    /// Processor cores.
    pub cores: u64,
    /// Memory in GiB.
    pub memory_gib: u64,
    /// Local disk in GiB.
    #[serde(default)]
    pub disk_gib: u64,
    /// GPUs.
    #[serde(default)]
    pub gpus: u64,
    /// What kind of GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_model: Option<String>,
    /// Network interfaces.
    #[serde(default)]
    pub nics: u64,
    /// The fastest of them in Gbit/s.
    #[serde(default)]
    pub nic_gbps: u64,
    /// Processor architecture, such as `x86_64`.
    pub arch: String,
    /// What it can do, such as `sriov`, `tpm2`, `sev_snp`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// What it costs, from 0, the cheapest, to 9.
    #[serde(default)]
    pub price_class: u64,
    /// Where it is.
    #[serde(default = "default_place")]
    pub location: String,
    /// Its zone: power, cooling.
    #[serde(default = "default_place")]
    pub zone: String,
    /// Its rack.
    pub rack: String,
    /// How it is.
    #[serde(default)]
    pub health: Health,
    /// How worn its disks are, in percent.
    #[serde(default)]
    pub wear_percent: u64,
    /// Its disks were wiped since its last tenant.
    #[serde(default = "yes")]
    pub clean: bool,
    /// The provider has it in hand: in use, in maintenance, being cleaned.
    #[serde(default)]
    pub taken: bool,
    /// What it carries.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

fn default_place() -> String {
    "default".into()
}

fn yes() -> bool {
    true
}

pub(super) fn sample_machine() -> Machine {
    Machine {
        id: "m17".into(),
        provider: "hall-1".into(),
        cores: 64,
        memory_gib: 512,
        disk_gib: 3840,
        gpus: 0,
        gpu_model: None,
        nics: 2,
        nic_gbps: 25,
        arch: "x86_64".into(),
        features: vec!["sriov".into(), "tpm2".into()],
        price_class: 3,
        location: "fra".into(),
        zone: "z1".into(),
        rack: "r17".into(),
        health: Health::Ok,
        wear_percent: 4,
        clean: true,
        taken: false,
        labels: [("row".to_owned(), "b".to_owned())].into(),
    }
}
