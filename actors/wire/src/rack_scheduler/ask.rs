//! What someone wants: VMs, how they are divided, and how the groups stand to one another.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// VMs of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VmSpec {
    /// How many.
    pub count: u64,
    /// Virtual CPUs of each.
    #[serde(default)]
    pub vcpus: u64,
    /// Memory of each in MiB.
    #[serde(default)]
    pub memory_mib: u64,
    /// Local disk of each in GiB.
    #[serde(default)]
    pub disk_gib: u64,
    /// GPUs of each.
    #[serde(default)]
    pub gpus: u64,
    /// Network interfaces of each.
    #[serde(default)]
    pub nics: u64,
    /// Labels that its host must carry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// How the VMs become groups; sizes differ by one at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Divide {
    /// Into so many groups.
    Groups(u64),
    /// Into as few groups as have at most so many VMs each.
    GroupVms(u64),
    /// Into as many groups as the application keeps copies: each copy finds a rack of its own.
    Replicas(u64),
}

/// A group with VMs of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GroupArg {
    /// Its name within the placement.
    pub name: String,
    /// Its VMs.
    pub vms: Vec<VmSpec>,
    /// Where it may live.
    #[serde(default)]
    pub select: Select,
}

/// What holds between the home racks of groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RelationKind {
    /// Different racks.
    Apart,
    /// The same rack.
    Together,
    /// The same row.
    NearRow,
    /// The same zone.
    NearZone,
}

/// Whether it must be so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Strength {
    /// Or nothing is placed.
    #[default]
    Hard,
    /// Where it can be had.
    Preferred,
}

/// One relation between groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Relation {
    /// Which.
    pub kind: RelationKind,
    /// Between these groups, each with each; all groups when empty.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Whether it must be so.
    #[serde(default)]
    pub strength: Strength,
}

/// How the VMs of a group stand to one another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Inside {
    /// At most so many of a group on one host; 1 means different hosts. No bound when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_host_max: Option<u64>,
    /// With `preferred` the bound gives way before a VM stays unplaced.
    #[serde(default)]
    pub strength: Strength,
}

/// Where groups may live; an empty list bounds nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Select {
    /// Only these zones.
    #[serde(default)]
    pub zones: Vec<String>,
    /// Only these rows.
    #[serde(default)]
    pub rows: Vec<String>,
    /// Only these racks.
    #[serde(default)]
    pub racks: Vec<String>,
}

/// What happens when not all of it fits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Nothing is placed.
    #[default]
    AllOrNothing,
    /// As much as fits is placed; the answer tells what is not.
    BestEffort,
}

/// What someone wants. `windlass rack place FILE` reads it as TOML or JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RackAsk {
    /// Who pays; the default tenant has no quota.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The VMs; empty when `groups` name their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vms: Vec<VmSpec>,
    /// How they are divided; one group when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub divide: Option<Divide>,
    /// Groups with VMs of their own, instead of `vms` and `divide`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupArg>,
    /// Between groups. When absent, all groups are apart (hard); an empty list means that nothing holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relations: Option<Vec<Relation>>,
    /// Inside each group.
    #[serde(default)]
    pub inside: Inside,
    /// Where all groups may live.
    #[serde(default)]
    pub select: Select,
    /// When not all of it fits.
    #[serde(default)]
    pub mode: Mode,
    /// Breaks ties: the same seed on the same inventory gives the same answer.
    #[serde(default)]
    pub seed: u64,
}

impl RackAsk {
    pub(super) fn sample() -> Self {
        Self {
            tenant: Some("ads".into()),
            vms: vec![VmSpec {
                count: 100,
                vcpus: 4,
                memory_mib: 8192,
                disk_gib: 40,
                gpus: 0,
                nics: 1,
                labels: [("disk".to_owned(), "nvme".to_owned())].into(),
            }],
            divide: Some(Divide::Groups(10)),
            groups: vec![],
            relations: Some(vec![Relation {
                kind: RelationKind::Apart,
                groups: vec![],
                strength: Strength::Hard,
            }]),
            inside: Inside {
                per_host_max: Some(2),
                strength: Strength::Preferred,
            },
            select: Select {
                zones: vec!["z1".into()],
                rows: vec![],
                racks: vec![],
            },
            mode: Mode::AllOrNothing,
            seed: 7,
        }
    }
}
