//! `[metal_broker]`: the metal broker.

use serde::{Deserialize, Serialize};

use crate::key::{Key, KeyType, Preset, Reload, Section};

/// The metal broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetalBroker {
    /// Where providers are described, one file each; empty: there are none.
    pub providers_dir: String,
    /// Seconds between two readings of a provider.
    pub refresh_every_s: u64,
    /// How long a provider may take for one machine, in seconds.
    pub provider_timeout_s: u64,
    /// How long a provider may take to tell all that it has, in seconds.
    pub stock_timeout_s: u64,
    /// How long a claim that was not decided stands, in seconds.
    pub tentative_s: u64,
    /// How long machines are leased until they are confirmed, in seconds.
    pub lease_s: u64,
    /// How often a request is planned anew.
    pub attempts_max: u64,
    /// Seconds between two sweeps.
    pub sweep_every_s: u64,
    /// How far the forecast looks, in hours.
    pub horizon_h: u64,
    /// Requests below which the forecast says nothing.
    pub forecast_requests_min: u64,
    /// Clusters of a tenant that are remembered once they were given back.
    pub clusters_kept_max: u64,
}

pub(crate) static SECTION: Section = Section {
    name: "metal_broker",
    about: "The best bare-metal machine for a cluster, by the customer's policy.",
    reload: Reload::All,
    keys: &[
        Key {
            path: "metal_broker.providers_dir",
            kind: KeyType::PathOrEmpty,
            preset: Preset::Text(""),
            about: "A directory with a file NAME.toml for each provider of machines: its tenant, what it speaks, where it is, and where its credentials are kept (docs/metal_broker.md). All hosts that serve this concern have the same ones.",
        },
        Key {
            path: "metal_broker.refresh_every_s",
            kind: KeyType::Integer { min: 1, max: 604_800 },
            preset: Preset::Integer(300),
            about: "How often a provider is read.",
        },
        Key {
            path: "metal_broker.provider_timeout_s",
            kind: KeyType::Integer { min: 1, max: 3600 },
            preset: Preset::Integer(30),
            about: "How long a provider may take for one machine when it is claimed or given back.",
        },
        Key {
            path: "metal_broker.stock_timeout_s",
            kind: KeyType::Integer { min: 1, max: 86_400 },
            preset: Preset::Integer(600),
            about: "How long a provider may take to tell all that it has; then what was known of it stays.",
        },
        Key {
            path: "metal_broker.tentative_s",
            kind: KeyType::Integer { min: 1, max: 86_400 },
            preset: Preset::Integer(120),
            about: "How long a claim stands that was not decided; then whoever meets it drops it. Longer than a provider may take.",
        },
        Key {
            path: "metal_broker.lease_s",
            kind: KeyType::Integer { min: 1, max: 604_800 },
            preset: Preset::Integer(1800),
            about: "How long a claimed machine may take to be confirmed; then it is quarantined and replaced.",
        },
        Key {
            path: "metal_broker.attempts_max",
            kind: KeyType::Integer { min: 1, max: 1000 },
            preset: Preset::Integer(16),
            about: "How often a claim is planned anew when others were faster or a machine is not what it was; then it is answered `busy`.",
        },
        Key {
            path: "metal_broker.sweep_every_s",
            kind: KeyType::Integer { min: 1, max: 86_400 },
            preset: Preset::Integer(30),
            about: "How often a daemon looks for providers to read, leases that ended, and what another one left unfinished.",
        },
        Key {
            path: "metal_broker.horizon_h",
            kind: KeyType::Integer { min: 1, max: 8760 },
            preset: Preset::Integer(24),
            about: "How far the forecast looks.",
        },
        Key {
            path: "metal_broker.forecast_requests_min",
            kind: KeyType::Integer { min: 1, max: 1000 },
            preset: Preset::Integer(30),
            about: "Requests of a tenant below which the forecast says nothing, and least excess decides alone.",
        },
        Key {
            path: "metal_broker.clusters_kept_max",
            kind: KeyType::Integer { min: 0, max: 100_000 },
            preset: Preset::Integer(4000),
            about: "Clusters of a tenant that are remembered once they were given back: what the forecast learns from.",
        },
    ],
};
