use std::time::Duration;

use integration::nats::{Server, ServerOptions};
use integration::scratch::Scratch;

use crate::{Credentials, Identity, Kind, Lattice, NatsBus, Settings};

mod carrying;
mod connecting;
mod credentials;
mod draining;
mod faults;
mod jobs;
mod jobs_faults;
mod keeping;
mod panics;
mod partition;

/// Settings for the servers at `urls`.
pub(crate) fn settings(urls: &str) -> Settings {
    Settings {
        servers: urls.split(',').map(str::to_owned).collect(),
        ..Settings::default()
    }
}

/// Long enough for a server on a busy machine.
pub(crate) const PATIENCE: Option<Duration> = Some(Duration::from_secs(20));

/// A bus over a connection of its own.
pub(crate) async fn bus_at(urls: &str) -> NatsBus {
    bus_with(settings(urls)).await
}

/// As [`bus_at`], with settings of its own.
pub(crate) async fn bus_with(settings: Settings) -> NatsBus {
    let lattice = Lattice::connect(settings, PATIENCE).await.unwrap();
    let identity = Identity {
        version: "0.1.0".into(),
        started_at: "2026-11-25T00:00:00Z".into(),
    };
    NatsBus::open(&lattice, identity).await.unwrap()
}
