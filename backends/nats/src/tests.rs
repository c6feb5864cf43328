use std::time::Duration;

use integration::nats::{Server, ServerOptions};
use integration::scratch::Scratch;

use crate::{Credentials, Kind, Lattice, Settings};

mod connecting;

/// Settings for the servers at `urls`.
pub(crate) fn settings(urls: &str) -> Settings {
    Settings {
        servers: urls.split(',').map(str::to_owned).collect(),
        ..Settings::default()
    }
}

/// Long enough for a server on a busy machine.
pub(crate) const PATIENCE: Option<Duration> = Some(Duration::from_secs(20));
