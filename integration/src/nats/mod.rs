//! Real NATS servers with JetStream, alone or as a cluster of three, on free ports of loopback.
//!
//! `scripts/deps.sh test` installs the server; `WINDLASS_NATS_SERVER` names another. A [`Server`] that is dropped is killed by
//! its id, also when the test panics; its store goes with the test's scratch directory.

mod cluster;
mod link;
mod monitor;
mod server;

pub use cluster::{Cluster, Links};
pub use link::Link;
pub use server::{Server, ServerOptions};

use std::io;
use std::path::PathBuf;

/// The interpreter that has `nats-py`, a NATS client that isn't ours.
///
/// # Errors
/// `NotFound` with how to install it.
pub fn python() -> io::Result<PathBuf> {
    installed("python3", "WINDLASS_NATS_PYTHON")
}

/// The server itself.
///
/// # Errors
/// `NotFound` with how to install it.
pub fn program() -> io::Result<PathBuf> {
    installed("nats-server", "WINDLASS_NATS_SERVER")
}

fn installed(name: &str, variable: &str) -> io::Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(path.into());
    }
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let path = home.join(".cache/windlass/nats/bin").join(name);
    if path.exists() {
        return Ok(path);
    }
    let why = format!(
        "no {}: run `make deps` (scripts/deps.sh test), or set {variable}",
        path.display()
    );
    Err(io::Error::new(io::ErrorKind::NotFound, why))
}
