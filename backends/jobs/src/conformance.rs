//! What every job store has to pass, embedded or in a cluster.

mod life;
mod many;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use wire::HostId;
use wire::job::{JobId, JobState};
use wire::{Code, ErrorBody};

use crate::{Jobs, Limits, NewJob, Outcome, Queues, Source, Submitted, Taken, Target, Worker};

/// Where the suite gets stores and time from.
#[async_trait]
pub trait Bench: Sync {
    /// The stores.
    type Store: Jobs + Clone;
    /// An empty store with these limits. Its times are those of [`Bench::hand`].
    async fn fresh(&self, limits: Limits) -> Self::Store;
    /// The same store as another host sees it.
    async fn elsewhere(&self, store: &Self::Store) -> Self::Store {
        store.clone()
    }
    /// The time that jobs are stamped with.
    fn hand(&self) -> &Hand;
    /// Lets time pass, for leases and for remembered request ids.
    async fn pass(&self, ms: u64);
}

/// A time that the suite turns, in Unix milliseconds.
pub type Hand = Arc<AtomicU64>;

/// A hand at some time.
pub fn hand() -> Hand {
    Arc::new(AtomicU64::new(1_000_000))
}

/// A source whose time is the hand's and whose randomness is counted.
pub fn source(hand: &Hand) -> Source {
    let (wall, monotonic, count) = (hand.clone(), hand.clone(), AtomicU64::new(0));
    Source {
        now_ms: Arc::new(move || wall.load(Ordering::SeqCst)),
        monotonic_ms: Arc::new(move || monotonic.load(Ordering::SeqCst)),
        rfc3339: |ms| format!("{ms} ms"),
        random: Arc::new(move || u128::from(count.fetch_add(1, Ordering::SeqCst))),
    }
}

/// The limits of the suite's stores. Leases are long enough for a busy machine that runs on real time.
pub const LIMITS: Limits = Limits {
    jobs_open_max: 200,
    jobs_kept_max: 3,
    idempotency_keep_ms: 5_000,
    lease_ms: 1_500,
    deliveries_max: 3,
};

/// Runs the whole suite.
///
/// # Panics
/// When the store fails it.
pub async fn all(bench: &impl Bench) {
    life::all(bench).await;
    many::all(bench).await;
}

fn new(concern: &str, request_id: Option<&str>) -> NewJob {
    NewJob {
        concern: concern.into(),
        kind: "create".into(),
        request_id: request_id.map(str::to_owned),
        traceparent: None,
        target: Target::Any,
        request: json!({"vm": "web1"}),
    }
}

fn why() -> ErrorBody {
    ErrorBody::new(Code::NotFound, "gone")
}

fn worker(host: &str, boot: &str) -> Worker {
    Worker {
        host: HostId::new(host).expect("a host"),
        boot: boot.into(),
    }
}

fn a() -> Worker {
    worker("a", "a1")
}

fn b() -> Worker {
    worker("b", "b1")
}

/// A job that has to come.
async fn took(jobs: &impl Jobs, worker: &Worker, concern: &str) -> Taken {
    let patience = Box::pin(tokio::time::sleep(Duration::from_secs(20)));
    let taken = jobs.take(worker, concern, Queues::OwnAndShared, patience).await;
    taken
        .expect("take")
        .unwrap_or_else(|| panic!("{concern} has a job for {worker:?}"))
}

/// What is there for this worker within a moment.
async fn glance(jobs: &impl Jobs, worker: &Worker, concern: &str, queues: Queues) -> Option<JobId> {
    let moment = Box::pin(tokio::time::sleep(Duration::from_millis(200)));
    let taken = jobs.take(worker, concern, queues, moment).await.expect("take");
    taken.map(|taken| taken.job.id)
}

async fn nothing(jobs: &impl Jobs, worker: &Worker, concern: &str) {
    assert_eq!(glance(jobs, worker, concern, Queues::OwnAndShared).await, None);
}

async fn accepted(jobs: &impl Jobs, new: NewJob) -> Submitted {
    jobs.submit(new).await.expect("submit")
}

async fn submitted(jobs: &impl Jobs, concern: &str) -> JobId {
    accepted(jobs, new(concern, None)).await.job
}

/// A job of `mill` in the hands of host a.
async fn running(jobs: &impl Jobs) -> Taken {
    let id = submitted(jobs, "mill").await;
    let taken = took(jobs, &a(), "mill").await;
    assert_eq!(taken.job.id, id);
    taken
}

async fn done(jobs: &impl Jobs, taken: &Taken) {
    let job = jobs
        .finish(&taken.ticket, Outcome::Done(json!(1)))
        .await
        .expect("finish");
    assert_eq!(job.state, JobState::Done);
}

/// So many jobs are open. Servers that keep a queue in several copies take a message out a moment after its end was acknowledged.
async fn open_are(jobs: &impl Jobs, count: u64) {
    let mut seen = 0;
    for _ in 0..200 {
        seen = jobs.open_count().await.expect("count");
        if seen == count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(seen, count);
}

async fn state(jobs: &impl Jobs, id: &JobId) -> JobState {
    jobs.show(id).await.expect("show").state
}

fn refused<T: std::fmt::Debug>(kind: crate::Kind, result: crate::Result<T>) {
    assert_eq!(result.expect_err("refused").kind, kind);
}
