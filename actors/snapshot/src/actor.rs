//! The concern's mailbox: decides nothing that takes time. Long verbs become jobs; the others run as effects.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use runtime::{Call, Concern, Effect, JobContext, Kinds, OnCrash, Routes};
use serde_json::{Value, json};
use wire::ErrorBody;
use wire::repo::{RepoCounts, RepoInfo, RepoInit, RepoRebuildIndex, RepoShow, RepoStats};
use wire::snapshot::{
    DiffReport, Forgotten, SnapshotCreate, SnapshotDiff, SnapshotExport, SnapshotForget, SnapshotInfo, SnapshotList,
    SnapshotListing, SnapshotPlan, SnapshotRestore, SnapshotShow, SnapshotUndo, SnapshotVerify,
};

use crate::Result;
use crate::engine::progress::Progress;
use crate::job::{self, Tools};

/// How often a job's counters are read, in milliseconds.
const PROGRESS_EVERY_MS: u64 = 100;

type Outcome<T> = std::result::Result<T, ErrorBody>;

/// The snapshot concern; see the head of the crate.
pub struct Snapshot {
    tools: Arc<Tools>,
    asked: u64,
}

impl Snapshot {
    /// The concern as the keeper's factory builds it, again after each death: it has no state of its own to lose.
    pub fn new(tools: Tools) -> Self {
        Self {
            tools: Arc::new(tools),
            asked: 0,
        }
    }

    /// A job's body: its work, followed.
    fn body<W, R, T, F>(&self, work: W) -> impl Fn(JobContext, R) -> BoxFuture<'static, Outcome<T>> + use<W, R, T, F>
    where
        W: Fn(Arc<Tools>, R, Arc<Progress>) -> F + Clone + Send + Sync + 'static,
        R: Send + 'static,
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let tools = self.tools.clone();
        move |context, request| {
            let (tools, work) = (tools.clone(), work.clone());
            followed(context, move |progress| work(tools, request, progress)).boxed()
        }
    }

    fn look<T: 'static, F>(&mut self, work: impl FnOnce(Arc<Tools>) -> F) -> Effect<Self, T>
    where
        F: Future<Output = Result<T>> + 'static,
    {
        self.asked += 1;
        let work = work(self.tools.clone());
        Effect::run(async move { work.await.map_err(ErrorBody::from) })
    }

    fn list(&mut self, request: SnapshotList, _: &Call) -> Effect<Self, SnapshotListing> {
        self.look(|tools| async move { job::list(&tools, request).await })
    }
    fn show(&mut self, request: SnapshotShow, _: &Call) -> Effect<Self, SnapshotInfo> {
        self.look(|tools| async move { job::show(&tools, request).await })
    }
    fn diff(&mut self, request: SnapshotDiff, _: &Call) -> Effect<Self, DiffReport> {
        self.look(|tools| async move { job::diff(&tools, request).await })
    }
    fn forget(&mut self, request: SnapshotForget, _: &Call) -> Effect<Self, Forgotten> {
        self.look(|tools| async move { job::forget(&tools, request).await })
    }
    fn repo_init(&mut self, request: RepoInit, _: &Call) -> Effect<Self, RepoInfo> {
        self.look(|tools| async move { job::repo_init(&tools, request).await })
    }
    fn repo_show(&mut self, request: RepoShow, _: &Call) -> Effect<Self, RepoInfo> {
        self.look(|tools| async move { job::repo_show(&tools, request).await })
    }
    fn repo_stats(&mut self, request: RepoStats, _: &Call) -> Effect<Self, RepoCounts> {
        self.look(|tools| async move { job::repo_stats(&tools, request).await })
    }
}

impl Concern for Snapshot {
    const NAME: &'static str = "snapshot";
    fn routes() -> Routes<Self> {
        Routes::new()
            .job::<SnapshotCreate>()
            .job::<SnapshotRestore>()
            .job::<SnapshotPlan>()
            .job::<SnapshotUndo>()
            .job::<SnapshotExport>()
            .job::<SnapshotVerify>()
            .job::<RepoRebuildIndex>()
            .on(Self::list)
            .on(Self::show)
            .on(Self::diff)
            .on(Self::forget)
            .on(Self::repo_init)
            .on(Self::repo_show)
            .on(Self::repo_stats)
    }
    fn observed(&self) -> Value {
        json!({"asked_total": self.asked})
    }
    /// Restores and their undoing are taken up again after a crash: their intent journals say how far they were. A create
    /// is not: whoever asked for a state at one time doesn't want another, and nothing of it is visible.
    fn jobs(&self) -> Kinds {
        let parallel_max = usize::try_from(self.tools.settings.jobs_parallel_max).unwrap_or(1);
        Kinds::new()
            .parallel_max(parallel_max)
            .on(OnCrash::Fail, self.body(job::create))
            .on(OnCrash::Resume, self.body(job::restore))
            .on(OnCrash::Fail, self.body(job::plan))
            .on(OnCrash::Resume, self.body(job::undo))
            .on(OnCrash::Fail, self.body(job::export))
            .on(OnCrash::Fail, self.body(job::verify))
            .on(OnCrash::Fail, self.body(job::repo_rebuild_index))
    }
}

/// Runs a job's work, tells its progress a few times a second, and passes a cancellation on.
async fn followed<T, F>(context: JobContext, work: impl FnOnce(Arc<Progress>) -> F) -> Outcome<T>
where
    F: Future<Output = Result<T>>,
{
    let progress = Arc::new(Progress::default());
    let tell = || {
        let (phase, done, total) = progress.now();
        if !phase.is_empty() {
            context.progress(phase, done, total, "bytes");
        }
    };
    let work = work(progress.clone());
    tokio::pin!(work);
    let mut tick = tokio::time::interval(Duration::from_millis(PROGRESS_EVERY_MS));
    let outcome = loop {
        tokio::select! {
            outcome = &mut work => break outcome,
            _ = tick.tick() => {
                tell();
                if context.is_cancelled() {
                    progress.cancel();
                }
            }
        }
    };
    tell();
    outcome.map_err(ErrorBody::from)
}
