//! The concern's mailbox: decides nothing that takes time. Long verbs become jobs; the others run as effects.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use runtime::{Call, Concern, Effect, JobContext, Kinds, OnCrash, Routes, Runner};
use serde_json::{Value, json};
use wire::event::CloudEvent;
use wire::job::JobAccepted;
use wire::repo::{RepoCounts, RepoInfo, RepoInit, RepoRebuildIndex, RepoShow, RepoStats};
use wire::snapshot::{
    DiffReport, DiskRestored, Forgotten, SnapshotCreate, SnapshotCreated, SnapshotDiff, SnapshotExport, SnapshotForget,
    SnapshotForgotten, SnapshotInfo, SnapshotList, SnapshotListing, SnapshotPlan, SnapshotRestore, SnapshotShow,
    SnapshotUndo, SnapshotVerify,
};
use wire::{ErrorBody, Request, Topic};

use crate::Result;
use crate::engine::progress::Progress;
use crate::job::{self, Tools};

/// How often a job's counters are read, in milliseconds.
const PROGRESS_EVERY_MS: u64 = 100;

/// The snapshot concern; see the head of the crate.
pub struct Snapshot {
    tools: Arc<Tools>,
    runner: Runner,
    asked: u64,
    jobs_accepted: u64,
}

impl Snapshot {
    /// The concern as the keeper's factory builds it, again after each death: it has no state of its own to lose.
    pub fn new(tools: Arc<Tools>, runner: Runner) -> Self {
        Self {
            tools,
            runner,
            asked: 0,
            jobs_accepted: 0,
        }
    }

    /// The kinds of job that [`runtime::House::runner`] runs for this concern.
    ///
    /// Restores and their undoing are taken up again after a crash: their intent journals say how far they were. A create
    /// is not: whoever asked for a state at one time doesn't want another, and nothing of it is visible.
    pub fn kinds(tools: &Arc<Tools>) -> Kinds {
        let t = tools.clone();
        let (create, restore, plan, undo) = (t.clone(), t.clone(), t.clone(), t.clone());
        let (export, verify, rebuild) = (t.clone(), t.clone(), t);
        Kinds::new()
            .on(OnCrash::Fail, move |context, request: SnapshotCreate| {
                let tools = create.clone();
                followed(context, |progress| async move {
                    let snapshot = job::create(&tools, request, &progress).await?;
                    announce(
                        &tools,
                        SnapshotCreated {
                            snapshot: snapshot.clone(),
                        },
                    )
                    .await;
                    Ok(snapshot)
                })
            })
            .on(OnCrash::Resume, move |context, request: SnapshotRestore| {
                let tools = restore.clone();
                followed(context, |progress| async move {
                    let report = job::restore(&tools, request, &progress).await?;
                    announce(&tools, DiskRestored { report: report.clone() }).await;
                    Ok(report)
                })
            })
            .on(OnCrash::Fail, move |context, request: SnapshotPlan| {
                let tools = plan.clone();
                followed(context, |progress| async move {
                    job::plan(&tools, request, &progress).await
                })
            })
            .on(OnCrash::Resume, move |context, request: SnapshotUndo| {
                let tools = undo.clone();
                followed(context, |progress| async move {
                    let report = job::undo(&tools, request, &progress).await?;
                    announce(&tools, DiskRestored { report: report.clone() }).await;
                    Ok(report)
                })
            })
            .on(OnCrash::Fail, move |context, request: SnapshotExport| {
                let tools = export.clone();
                followed(context, |progress| async move {
                    job::export(&tools, request, &progress).await
                })
            })
            .on(OnCrash::Fail, move |context, request: SnapshotVerify| {
                let tools = verify.clone();
                followed(context, |progress| async move {
                    job::verify(&tools, request, &progress).await
                })
            })
            .on(OnCrash::Fail, move |context, request: RepoRebuildIndex| {
                let tools = rebuild.clone();
                followed(
                    context,
                    |_| async move { job::repo_rebuild_index(&tools, request).await },
                )
            })
    }

    fn job<R: Request<Reply = JobAccepted>>(&mut self, request: R, call: &Call) -> Effect<Self, JobAccepted> {
        self.jobs_accepted += 1;
        self.runner.accept(&request, call)
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
        self.look(|tools| async move {
            let gone = job::forget(&tools, request).await?;
            announce(
                &tools,
                SnapshotForgotten {
                    id: gone.id.clone(),
                    vm: gone.vm.clone(),
                },
            )
            .await;
            Ok(gone)
        })
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
            .on(Self::job::<SnapshotCreate>)
            .on(Self::job::<SnapshotRestore>)
            .on(Self::job::<SnapshotPlan>)
            .on(Self::job::<SnapshotUndo>)
            .on(Self::job::<SnapshotExport>)
            .on(Self::job::<SnapshotVerify>)
            .on(Self::job::<RepoRebuildIndex>)
            .on(Self::list)
            .on(Self::show)
            .on(Self::diff)
            .on(Self::forget)
            .on(Self::repo_init)
            .on(Self::repo_show)
            .on(Self::repo_stats)
    }
    fn observed(&self) -> Value {
        json!({"asked": self.asked, "jobs_accepted": self.jobs_accepted})
    }
}

/// Runs a job's work, tells its progress a few times a second, and passes a cancellation on.
async fn followed<T, F>(context: JobContext, work: impl FnOnce(Arc<Progress>) -> F) -> std::result::Result<T, ErrorBody>
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

/// Publishes an event. That nobody heard it is no fault of what happened.
async fn announce<T: Topic>(tools: &Tools, data: T) {
    let event = CloudEvent::new(
        runtime::ulid(&*tools.clock),
        &tools.host,
        runtime::rfc3339(tools.clock.now_ms()),
        data,
    );
    if let Err(error) = bus::announce(&*tools.bus, &event).await {
        tracing::warn!(%error, what = T::WHAT, "an event was not published");
    }
}
