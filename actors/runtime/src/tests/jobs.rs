use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use wire::job::{Job, JobAccepted, JobCancel, JobId, JobList, JobShow, JobState};
use wire::{Address, Code, ErrorBody, Headers, Request};

use super::follow::follow;
use super::{Site, eventually, host};
use crate::job_runner::Runner;
use crate::{Call, Concern, Effect, House, JobContext, Kinds, Limits, OnCrash, Recover, Routes};

/// Work of the test concern `mill`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Work {
    Well,
    Refuse,
    Panic,
    /// Until it is cancelled.
    Endless,
    HugeResult,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
struct Grind {
    work: Work,
}

/// The same as a blocking body.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(super) struct Crush {
    pub(super) work: Work,
}

macro_rules! job_request {
    ($name:ident, $verb:literal) => {
        impl Request for $name {
            type Reply = JobAccepted;
            const CONCERN: &'static str = "mill";
            const VERB: &'static str = $verb;
            const ADDRESS: Address = Address::Host;
            const ABOUT: &'static str = "Works";
            fn sample() -> Self {
                Self { work: Work::Well }
            }
            fn sample_reply() -> JobAccepted {
                JobAccepted {
                    job: JobId("x".into()),
                    duplicate: false,
                }
            }
        }
    };
}
job_request!(Grind, "grind");
job_request!(Crush, "crush");

struct Mill(Kinds);

impl Concern for Mill {
    const NAME: &'static str = "mill";
    fn routes() -> Routes<Self> {
        Routes::new().job::<Grind>().on(Self::crush)
    }
    fn observed(&self) -> Value {
        Value::Null
    }
    fn jobs(&self) -> Kinds {
        self.0.clone()
    }
}

impl Mill {
    fn crush(&mut self, request: Crush, call: &Call) -> Effect<Self, JobAccepted> {
        call.accept(&request)
    }
}

/// How many work at once, and how many ever did.
#[derive(Default)]
pub(super) struct Gauge {
    pub(super) now: AtomicU64,
    most: AtomicU64,
    begun: AtomicU64,
}

fn work(context: &JobContext, work: Work, gauge: &Gauge) -> Result<Value, ErrorBody> {
    gauge.begun.fetch_add(1, Ordering::SeqCst);
    let now = gauge.now.fetch_add(1, Ordering::SeqCst) + 1;
    gauge.most.fetch_max(now, Ordering::SeqCst);
    let result = work_counted(context, work);
    gauge.now.fetch_sub(1, Ordering::SeqCst);
    result
}

fn work_counted(context: &JobContext, work: Work) -> Result<Value, ErrorBody> {
    match work {
        Work::Well => {
            for done in 0..=1_000 {
                context.progress("grinding", done, 1_000, "grains");
                std::thread::sleep(Duration::from_micros(200));
            }
            Ok(json!({"attempts": context.job().attempts}))
        }
        Work::Refuse => Err(ErrorBody::new(Code::NotFound, "no grain")),
        Work::Panic => panic!("the millstone cracks"),
        Work::HugeResult => Ok(Value::String("x".repeat(2 << 20))),
        Work::Endless => loop {
            context.check()?;
            std::thread::sleep(Duration::from_millis(2));
        },
    }
}

/// Starts the mill in a house.
pub(super) async fn add_mill(house: &House, on_crash: OnCrash, parallel_jobs_max: usize) -> (Arc<Gauge>, Runner) {
    let gauge = Arc::new(Gauge::default());
    let (grind, crush) = (gauge.clone(), gauge.clone());
    let kinds = Kinds::new()
        .on(on_crash, move |context, request: Grind| {
            let gauge = grind.clone();
            async move { tokio::task::block_in_place(|| work(&context, request.work, &gauge)) }
        })
        .on_blocking(on_crash, move |context, request: Crush| {
            work(&context, request.work, &crush)
        });
    let kinds = kinds.parallel_max(parallel_jobs_max);
    house
        .start(Limits::default(), move || Mill(kinds.clone()))
        .await
        .unwrap();
    let runner = house.runner_of(Mill::NAME);
    // its kinds come with its first build, on its own thread
    eventually(|| async { runner.kinds().is_some() }).await;
    (gauge, runner)
}

impl Site {
    async fn add_mill(&self, on_crash: OnCrash, parallel_jobs_max: usize) -> Arc<Gauge> {
        add_mill(&self.house, on_crash, parallel_jobs_max).await.0
    }
    async fn submit<R: Request<Reply = JobAccepted>>(&self, request: R, request_id: Option<&str>) -> JobAccepted {
        let headers = Headers {
            request_id: request_id.map(str::to_owned),
            ..Headers::default()
        };
        bus::call(&*self.bus, &host(), &request, headers).await.unwrap()
    }
    async fn follow(&self, job: &JobId) -> Job {
        follow(&*self.bus, &host(), job, |_| {}).await.unwrap()
    }
    async fn show(&self, job: &JobId) -> Job {
        bus::call(&*self.bus, &host(), &JobShow { job: job.clone() }, Headers::default())
            .await
            .unwrap()
    }
    async fn job_is(&self, job: &JobId, state: JobState) {
        eventually(|| async { self.show(job).await.state == state }).await;
    }
}

fn grind(work: Work) -> Grind {
    Grind { work }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_accepted_run_and_followed_to_its_result() {
    let site = Site::new().await;
    site.add_mill(OnCrash::Fail, 2).await;
    let accepted = site.submit(grind(Work::Well), None).await;
    assert!(!accepted.duplicate);
    let mut seen = Vec::new();
    let job = follow(&*site.bus, &host(), &accepted.job, |job| seen.push(job.clone()))
        .await
        .unwrap();
    assert_eq!(
        (job.state, &job.result),
        (JobState::Done, &Some(json!({"attempts": 1})))
    );
    assert_eq!(
        (job.progress.done, job.progress.total, job.progress.unit.as_str()),
        (1_000, 1_000, "grains")
    );
    let halfway: Vec<_> = seen
        .iter()
        .filter(|j| j.state == JobState::Running && j.progress.done > 0)
        .collect();
    assert!(!halfway.is_empty(), "progress was told while it ran");
    assert!(halfway.iter().any(|j| j.progress.rate_per_s > 0.0), "{halfway:?}");
    assert!(
        seen.len() < 20,
        "1,001 steps in about 0.2 s or more were throttled: {}",
        seen.len()
    );
    let status = site.house.status().await.unwrap();
    assert_eq!(status.jobs_open, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fails_or_panics_ends_as_failed_and_the_next_one_runs() {
    let site = Site::new().await;
    site.add_mill(OnCrash::Fail, 1).await;
    for (what, code) in [
        (Work::Refuse, Code::NotFound),
        (Work::Panic, Code::Internal),
        (Work::HugeResult, Code::Internal),
    ] {
        let (a, b) = (
            site.submit(grind(what), None).await,
            site.submit(Crush { work: what }, None).await,
        );
        for accepted in [a, b] {
            let job = site.follow(&accepted.job).await;
            assert_eq!(job.state, JobState::Failed, "{what:?}");
            assert_eq!(job.error.unwrap().code, code, "{what:?}");
        }
    }
    let well = site.submit(Crush { work: Work::Well }, None).await;
    assert_eq!(site.follow(&well.job).await.state, JobState::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_names_one_job() {
    let site = Site::new().await;
    let gauge = site.add_mill(OnCrash::Fail, 2).await;
    let first = site.submit(Crush { work: Work::Well }, Some("nightly")).await;
    let again = site.submit(Crush { work: Work::Well }, Some("nightly")).await;
    assert_eq!((again.duplicate, &again.job), (true, &first.job));
    site.follow(&first.job).await;
    let after = site.submit(Crush { work: Work::Well }, Some("nightly")).await;
    assert_eq!((after.duplicate, &after.job), (true, &first.job));
    assert_eq!(gauge.begun.load(Ordering::SeqCst), 1);
    let headers = Headers {
        request_id: Some("nightly".into()),
        ..Headers::default()
    };
    let other = bus::call(&*site.bus, &host(), &Crush { work: Work::Refuse }, headers)
        .await
        .unwrap_err();
    assert_eq!(other.code, Code::Conflict);
}

#[tokio::test(flavor = "multi_thread")]
async fn running_and_waiting_jobs_can_be_cancelled_and_the_limit_holds() {
    let site = Site::new().await;
    let gauge = site.add_mill(OnCrash::Fail, 2).await;
    let mut jobs = Vec::new();
    for _ in 0..4 {
        jobs.push(site.submit(Crush { work: Work::Endless }, None).await.job);
    }
    eventually(|| async { gauge.begun.load(Ordering::SeqCst) == 2 }).await;
    for job in jobs.iter().rev() {
        let _seen: Job = bus::call(&*site.bus, &host(), &JobCancel { job: job.clone() }, Headers::default())
            .await
            .unwrap();
    }
    for job in &jobs {
        site.job_is(job, JobState::Cancelled).await;
    }
    assert_eq!(gauge.most.load(Ordering::SeqCst), 2);
    assert_eq!(gauge.begun.load(Ordering::SeqCst), 2, "the waiting ones never began");
    let listed = bus::call(&*site.bus, &host(), &JobList::default(), Headers::default())
        .await
        .unwrap();
    let newest_first: Vec<JobId> = jobs.into_iter().rev().collect();
    assert_eq!(listed.jobs.into_iter().map(|j| j.id).collect::<Vec<_>>(), newest_first);
    let unknown = JobShow {
        job: JobId("nope".into()),
    };
    let unknown = bus::call(&*site.bus, &host(), &unknown, Headers::default())
        .await
        .unwrap_err();
    assert_eq!(unknown.code, Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_interrupts_what_it_can_t_wait_for_and_the_next_daemon_takes_it_up() {
    let db = state::Database::in_memory().unwrap();
    let site = Site::with(db.clone(), Recover::Resume).await;
    site.add_mill(OnCrash::Resume, 1).await;
    let running = site.submit(Crush { work: Work::Endless }, None).await.job;
    let waiting = site.submit(Crush { work: Work::Well }, None).await.job;
    site.job_is(&running, JobState::Running).await;
    assert_eq!(site.house.drain(Duration::from_millis(20)).await, 1);
    drop(site);

    let command = Site::with(db.clone(), Recover::MarkInterrupted).await;
    let gauge = command.add_mill(OnCrash::Resume, 1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(command.show(&running).await.state, JobState::Interrupted);
    assert_eq!(command.show(&waiting).await.state, JobState::Queued);
    assert_eq!(
        gauge.begun.load(Ordering::SeqCst),
        0,
        "a single command runs nothing of others"
    );
    command.house.drain(Duration::from_secs(1)).await;
    drop(command);

    let daemon = Site::with(db, Recover::Resume).await;
    daemon.add_mill(OnCrash::Resume, 2).await;
    daemon.job_is(&waiting, JobState::Done).await;
    daemon.job_is(&running, JobState::Running).await;
    assert_eq!(daemon.show(&running).await.attempts, 2);
    daemon.house.drain(Duration::from_millis(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_can_t_be_taken_up_again_is_failed_after_a_crash() {
    let db = state::Database::in_memory().unwrap();
    let site = Site::with(db.clone(), Recover::Resume).await;
    site.add_mill(OnCrash::Fail, 1).await;
    let running = site.submit(Crush { work: Work::Endless }, None).await.job;
    site.job_is(&running, JobState::Running).await;
    // a second house on the same store is what a crash looks like to the store: no drain, the job is still `running`
    let after = Site::with(db, Recover::Resume).await;
    let gauge = after.add_mill(OnCrash::Fail, 1).await;
    after.job_is(&running, JobState::Failed).await;
    assert_eq!(after.show(&running).await.error.unwrap().code, Code::Unavailable);
    assert_eq!(gauge.begun.load(Ordering::SeqCst), 0);
    site.house.drain(Duration::from_millis(1)).await;
}

/// A reload changes how many jobs run at once: more begin at once, fewer are left as they end.
#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_runner_runs_as_many_at_once_as_it_may() {
    let site = Site::new().await;
    let (gauge, runner) = add_mill(&site.house, OnCrash::Fail, 1).await;
    let kinds = runner.kinds().unwrap();
    let endless = async || site.submit(grind(Work::Endless), None).await.job;
    let now = |count| {
        let gauge = gauge.clone();
        eventually(move || {
            let gauge = gauge.clone();
            async move { gauge.now.load(Ordering::SeqCst) == count }
        })
    };
    let first = [endless().await, endless().await, endless().await];
    now(1).await;
    runner.renew(kinds.clone().parallel_max(3));
    now(3).await;
    runner.renew(kinds.parallel_max(1));
    let next = [endless().await, endless().await];
    for job in &first {
        assert!(gauge.now.load(Ordering::SeqCst) <= 3);
        let cancel = JobCancel { job: job.clone() };
        bus::call(&*site.bus, &host(), &cancel, Headers::default())
            .await
            .unwrap();
        site.job_is(job, JobState::Cancelled).await;
    }
    site.job_is(&next[0], JobState::Running).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(gauge.now.load(Ordering::SeqCst), 1);
    assert_eq!(site.show(&next[1]).await.state, JobState::Queued);
    for job in next.iter().rev() {
        let cancel = JobCancel { job: job.clone() };
        bus::call(&*site.bus, &host(), &cancel, Headers::default())
            .await
            .unwrap();
    }
    // a runtime ends with its blocking work
    now(0).await;
}
