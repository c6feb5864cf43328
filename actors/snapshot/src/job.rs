//! What a request does, step by step: opens disks and repositories, calls the engine, and records the result.
//!
//! Each job is one function of the tools, its request and its progress. Everything here is async and runs off the actor; the engine's blocking parts run on blocking threads.

mod create;
mod export;
mod look;
mod record;
mod repository;
mod restore;
mod undo;
mod verify;

use std::path::PathBuf;
use std::sync::Arc;

use config::Snapshot as Settings;
use repo::SessionLimits;
use runtime::{Announcer, Clock};
use state::State;

pub use create::create;

pub use export::export;
pub use look::{diff, forget, list, show};
pub use repository::{repo_init, repo_rebuild_index, repo_show, repo_stats};
pub use restore::restore;
pub use undo::{plan, undo};
pub use verify::verify;

use crate::port::Repos;
use crate::{Kind, Result, SnapshotError};

/// What every job of this concern works with.
#[derive(Debug, Clone)]
pub struct Tools {
    /// This host, and where its events go.
    pub announcer: Announcer,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What saves work: which snapshot a disk was last equal to.
    pub state: Arc<dyn State>,
    /// Opens repositories.
    pub repos: Arc<dyn Repos>,
    /// `[snapshot]`.
    pub settings: Settings,
    /// How sessions write.
    pub session_limits: SessionLimits,
    /// How restores read.
    pub fetch_limits: repo::FetchLimits,
    /// Where the intent journals are.
    pub state_dir: PathBuf,
}

/// Runs blocking work on a blocking thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    // its log lines belong to the request or job that it is done for
    let span = tracing::Span::current();
    match tokio::task::spawn_blocking(move || span.in_scope(work)).await {
        Ok(result) => result,
        Err(error) => Err(SnapshotError::new(
            Kind::Internal,
            format!("a worker of the snapshot engine died: {error}"),
        )),
    }
}
