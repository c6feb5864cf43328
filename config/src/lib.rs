//! Typed configuration.
//!
//! Layers, each over the one before: defaults, a TOML file, the environment (`WINDLASS_…`), flags.
//!
//! ```text
//! Surroundings (env, user, host name) --+
//! file text ----------------------------+--> check each value against KEYS --> merge --> Config + origin of each value
//! flags --------------------------------+            |
//!                                                    +--> findings, with file and line
//! ```
//!
//! One table, [`keys`], says of every key its type, bounds, default and meaning. The reference file, `check-config`,
//! `config show` and the nearest-name suggestions all read it, so none of them can disagree with the others.
//!
//! What is absent: this crate reads nothing but the one file that it is told to; the environment comes in as an argument.
//! There is no key for a secret, and there will be none: a key may name a *file* that holds a secret, or the secret comes
//! in the environment of whoever needs it (an SDK reads its own variables).

mod bus;
mod check;
#[cfg(feature = "example")]
mod echo;
mod error;
mod file;
mod gateway;
mod hardening;
mod host;
mod key;
mod load;
mod log;
mod metal_broker;
mod nats;
mod nearest;
mod rack_scheduler;
mod reference;
mod reload;
mod repo;
mod repo_s3;
mod runtime;
mod snapshot;
mod value;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use bus::{Bus, BusMode};
pub use check::{Finding, Place, Severity, check_environment, check_text};
#[cfg(feature = "example")]
pub use echo::Echo;
pub use error::{ConfigError, Kind};
pub use file::{FileText, choose_file, read_file};
pub use gateway::Gateway;
pub use hardening::{Hardening, OnOff, Programs};
pub use host::{Host, Surroundings};
pub use key::{Key, KeyType, Preset, Reload, Section, key, keys, sections};
pub use load::{Flags, Loaded, Origin, Shown, load};
pub use log::{Log, LogFormat};
pub use metal_broker::MetalBroker;
pub use nats::Nats;
pub use rack_scheduler::{Inventory, Provide, RackScheduler};
pub use reference::reference;
pub use reload::{Change, Reloaded, is_taken_up};
pub use repo::{ChunkerConfig, ChunkerMode, Repo};
pub use repo_s3::RepoS3;
pub use runtime::Runtime;
pub use snapshot::Snapshot;
pub use value::Value;

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// This host's id in subjects.
    pub host_id: wire::HostId,
    /// Where state is kept.
    pub state_dir: PathBuf,
    /// Where this host stands and what it has.
    pub host: Host,
    /// What is logged, and how.
    pub log: Log,
    /// The message bus.
    pub bus: Bus,
    /// The servers that hosts meet at.
    pub nats: Nats,
    /// Actors and jobs.
    pub runtime: Runtime,
    /// The chunk repository.
    pub repo: Repo,
    /// The snapshot concern.
    pub snapshot: Snapshot,
    /// The rack scheduler.
    pub rack_scheduler: RackScheduler,
    /// The metal broker.
    pub metal_broker: MetalBroker,
    /// The HTTP gateway.
    pub gateway: Gateway,
    /// What the daemon gives up.
    pub hardening: Hardening,
    /// The example of CONTRIBUTING.md.
    #[cfg(feature = "example")]
    pub echo: Echo,
}

/// Every section, in the order of the reference file. A concern's settings are one file here: its section and the struct that
/// it is read into.
static SECTIONS: &[&Section] = &[
    &host::SECTION,
    &host::HOST_SECTION,
    &log::SECTION,
    &bus::SECTION,
    &nats::SECTION,
    &runtime::SECTION,
    &repo::SECTION,
    &repo::CHUNKER_SECTION,
    &repo_s3::SECTION,
    &snapshot::SECTION,
    &rack_scheduler::SECTION,
    &metal_broker::SECTION,
    &gateway::SECTION,
    &hardening::SECTION,
    #[cfg(feature = "example")]
    &echo::SECTION,
];
