//! What every job store has to pass, embedded or in a cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;
use wire::job::{JobId, JobState, Progress};
use wire::{Code, ErrorBody};

use crate::{BODY_BYTES_MAX, INTERRUPTED_JOBS_MAX, Jobs, Kind, Limits, NewJob, Outcome, Source};

/// A time that the suite turns, in Unix milliseconds.
pub type Hand = Arc<AtomicU64>;

/// A source whose time is the hand's and whose randomness is counted.
pub fn source(hand: &Hand) -> Source {
    let (hand, count) = (hand.clone(), AtomicU64::new(0));
    Source {
        now_ms: Arc::new(move || hand.load(Ordering::SeqCst)),
        rfc3339: |ms| format!("{ms} ms"),
        random: Arc::new(move || u128::from(count.fetch_add(1, Ordering::SeqCst))),
    }
}

/// Runs the whole suite; `make` gives an empty store with these limits and this source each time.
///
/// # Panics
/// When the store fails it.
pub async fn all<J: Jobs, F: Future<Output = J>>(make: impl Fn(Source, Limits) -> F) {
    let hand: Hand = Arc::new(AtomicU64::new(1_000_000));
    let limits = Limits {
        jobs_open_max: 200,
        jobs_kept_max: 3,
        idempotency_keep_h: 1,
    };
    let fresh = || make(source(&hand), limits);
    a_job_lives(&fresh().await, &hand).await;
    states_are_guarded(&fresh().await).await;
    request_ids_name_one_job(&fresh().await, &hand).await;
    claims_take_the_oldest_of_the_concern(&fresh().await).await;
    cancels(&fresh().await).await;
    an_unwanted_job_is_not_taken_up_again(&fresh().await).await;
    recovers(&fresh().await).await;
    gives_up_the_oldest_interrupted(&fresh().await).await;
    limits_hold(&fresh().await, limits).await;
}

fn new(concern: &str, request_id: Option<&str>) -> NewJob {
    NewJob {
        concern: concern.into(),
        kind: "create".into(),
        request_id: request_id.map(str::to_owned),
        request: json!({"vm": "web1"}),
    }
}

fn why() -> ErrorBody {
    ErrorBody::new(Code::NotFound, "gone")
}

async fn submitted(jobs: &impl Jobs, concern: &str) -> JobId {
    jobs.submit(new(concern, None)).await.expect("submit").job
}

async fn state(jobs: &impl Jobs, id: &JobId) -> JobState {
    jobs.show(id).await.expect("show").state
}

async fn a_job_lives(jobs: &impl Jobs, hand: &Hand) {
    let id = submitted(jobs, "mill").await;
    let job = jobs.show(&id).await.expect("show");
    assert_eq!((job.state, job.attempts), (JobState::Queued, 0));
    assert_eq!(job.request, json!({"vm": "web1"}));
    assert_eq!(
        (job.submitted_at.as_str(), job.updated_at.as_str()),
        ("1000000 ms", "1000000 ms")
    );
    hand.fetch_add(5, Ordering::SeqCst);
    let job = jobs.start(&id).await.expect("start");
    assert_eq!(
        (job.state, job.attempts, job.updated_at.as_str()),
        (JobState::Running, 1, "1000005 ms")
    );
    let progress = Progress {
        phase: "reading".into(),
        done: 1,
        total: 2,
        unit: "bytes".into(),
        rate_per_s: 1.0,
        eta_s: Some(1.0),
    };
    assert_eq!(
        jobs.progress(&id, progress.clone()).await.expect("progress").progress,
        progress
    );
    assert_eq!(jobs.open_count().await.expect("count"), 1);
    let job = jobs.finish(&id, Outcome::Done(json!(7))).await.expect("finish");
    assert_eq!(
        (job.state, &job.result, &job.error),
        (JobState::Done, &Some(json!(7)), &None)
    );
    assert_eq!(jobs.show(&id).await.expect("show"), job);
    assert_eq!(jobs.open_count().await.expect("count"), 0);
}

async fn states_are_guarded(jobs: &impl Jobs) {
    let id = submitted(jobs, "mill").await;
    let conflict = |r: crate::Result<wire::job::Job>| assert_eq!(r.expect_err("refused").kind, Kind::Conflict);
    conflict(jobs.progress(&id, Progress::default()).await);
    conflict(jobs.finish(&id, Outcome::Failed(why())).await);
    jobs.start(&id).await.expect("start");
    conflict(jobs.start(&id).await);
    let job = jobs.finish(&id, Outcome::Failed(why())).await.expect("finish");
    assert_eq!((job.state, job.error), (JobState::Failed, Some(why())));
    conflict(jobs.start(&id).await);
    conflict(jobs.finish(&id, Outcome::Done(json!(1))).await);
    conflict(jobs.progress(&id, Progress::default()).await);
    let nobody = JobId("01ARZ3NDEKTSV4RRFFQ69G5FAV".into());
    assert_eq!(jobs.show(&nobody).await.expect_err("unknown").kind, Kind::NotFound);
    assert_eq!(jobs.start(&nobody).await.expect_err("unknown").kind, Kind::NotFound);
    assert_eq!(
        jobs.cancel(&JobId(String::new())).await.expect_err("unknown").kind,
        Kind::NotFound
    );
}

async fn request_ids_name_one_job(jobs: &impl Jobs, hand: &Hand) {
    let first = jobs.submit(new("mill", Some("r"))).await.expect("submit");
    let again = jobs.submit(new("mill", Some("r"))).await.expect("submit");
    assert_eq!((first.duplicate, again.duplicate), (false, true));
    assert_eq!(first.job, again.job);
    let other = NewJob {
        request: json!({"vm": "web2"}),
        ..new("mill", Some("r"))
    };
    assert_eq!(
        jobs.submit(other).await.expect_err("another request").kind,
        Kind::Conflict
    );
    let elsewhere = jobs.submit(new("forge", Some("r"))).await.expect("submit");
    assert!(!elsewhere.duplicate, "another concern has its own ids");
    // also when the job itself is no longer kept
    for id in [first.job.clone(), elsewhere.job] {
        jobs.start(&id).await.expect("start");
        jobs.finish(&id, Outcome::Done(json!(1))).await.expect("finish");
    }
    for _ in 0..4 {
        let id = submitted(jobs, "mill").await;
        jobs.start(&id).await.expect("start");
        jobs.finish(&id, Outcome::Done(json!(1))).await.expect("finish");
        hand.fetch_add(1, Ordering::SeqCst);
    }
    assert_eq!(jobs.show(&first.job).await.expect_err("pruned").kind, Kind::NotFound);
    let late = jobs.submit(new("mill", Some("r"))).await.expect("submit");
    assert_eq!((late.duplicate, &late.job), (true, &first.job));
    hand.fetch_add(3_600_000, Ordering::SeqCst);
    let forgotten = jobs.submit(new("mill", Some("r"))).await.expect("submit");
    assert!(!forgotten.duplicate, "the id is free after idempotency_keep_h");
    assert!(forgotten.job > first.job);
}

async fn claims_take_the_oldest_of_the_concern(jobs: &impl Jobs) {
    assert_eq!(jobs.claim("mill").await.expect("claim"), None);
    let a = submitted(jobs, "mill").await;
    let other = submitted(jobs, "forge").await;
    let b = submitted(jobs, "mill").await;
    assert!(a < other && other < b, "ids sort by time, also within a millisecond");
    assert_eq!(jobs.claim("mill").await.expect("claim").map(|j| j.id), Some(a.clone()));
    assert_eq!(jobs.claim("mill").await.expect("claim").map(|j| j.id), Some(b.clone()));
    assert_eq!(jobs.claim("mill").await.expect("claim"), None);
    assert_eq!(jobs.claim("mil").await.expect("claim"), None);
    assert_eq!(state(jobs, &other).await, JobState::Queued);
    let ids: Vec<JobId> = jobs.list(10).await.expect("list").into_iter().map(|j| j.id).collect();
    assert_eq!(ids, [b.clone(), other, a], "newest first");
    assert_eq!(jobs.list(1).await.expect("list")[0].id, b);
    assert!(jobs.list(0).await.expect("list").is_empty());
}

async fn cancels(jobs: &impl Jobs) {
    let waiting = submitted(jobs, "mill").await;
    assert_eq!(jobs.cancel(&waiting).await.expect("cancel").state, JobState::Cancelled);
    assert_eq!(
        jobs.claim("mill").await.expect("claim"),
        None,
        "a cancelled job isn't handed out"
    );
    let running = submitted(jobs, "mill").await;
    jobs.start(&running).await.expect("start");
    assert_eq!(jobs.cancel(&running).await.expect("cancel").state, JobState::Running);
    let ended = jobs.finish(&running, Outcome::Cancelled(why())).await.expect("finish");
    assert_eq!(ended.state, JobState::Cancelled);
    assert_eq!(
        jobs.cancel(&running).await.expect("cancel"),
        ended,
        "a final job is left as it is"
    );
}

async fn an_unwanted_job_is_not_taken_up_again(jobs: &impl Jobs) {
    let left = submitted(jobs, "mill").await;
    jobs.start(&left).await.expect("start");
    jobs.cancel(&left).await.expect("cancel");
    let ended = jobs.finish(&left, Outcome::Interrupted(why())).await.expect("finish");
    assert_eq!(ended.state, JobState::Cancelled);
}

async fn recovers(jobs: &impl Jobs) {
    let running = submitted(jobs, "mill").await;
    let unwanted = submitted(jobs, "mill").await;
    let left = submitted(jobs, "mill").await;
    let queued = submitted(jobs, "mill").await;
    for id in [&running, &unwanted, &left] {
        jobs.start(id).await.expect("start");
    }
    jobs.cancel(&unwanted).await.expect("cancel");
    jobs.finish(&left, Outcome::Interrupted(why())).await.expect("finish");
    let open: Vec<_> = jobs
        .recover()
        .await
        .expect("recover")
        .into_iter()
        .map(|j| (j.id, j.state))
        .collect();
    let expected = [
        (running.clone(), JobState::Interrupted),
        (left.clone(), JobState::Interrupted),
        (queued, JobState::Queued),
    ];
    assert_eq!(open, expected, "open ones, oldest first");
    assert_eq!(state(jobs, &unwanted).await, JobState::Cancelled);
    assert_eq!(jobs.start(&running).await.expect("start").attempts, 2);
    let given_up = jobs.finish(&left, Outcome::Failed(why())).await.expect("give up");
    assert_eq!(given_up.state, JobState::Failed);
}

async fn gives_up_the_oldest_interrupted(jobs: &impl Jobs) {
    let mut ids = Vec::new();
    for _ in 0..INTERRUPTED_JOBS_MAX + 2 {
        let id = submitted(jobs, "mill").await;
        jobs.start(&id).await.expect("start");
        ids.push(id);
    }
    assert_eq!(jobs.recover().await.expect("recover").len(), INTERRUPTED_JOBS_MAX);
    assert_eq!(state(jobs, &ids[1]).await, JobState::Failed);
    assert_eq!(state(jobs, &ids[2]).await, JobState::Interrupted);
}

async fn limits_hold(jobs: &impl Jobs, limits: Limits) {
    let large = NewJob {
        request: json!("x".repeat(BODY_BYTES_MAX)),
        ..new("mill", None)
    };
    assert_eq!(jobs.submit(large).await.expect_err("too large").kind, Kind::Invalid);
    let mut ids = Vec::new();
    for _ in 0..limits.jobs_open_max {
        ids.push(submitted(jobs, "mill").await);
    }
    let full = jobs.submit(new("mill", None)).await.expect_err("full");
    assert_eq!(full.kind, Kind::Busy);
    assert!(!full.is_permanent());
    jobs.start(&ids[0]).await.expect("start");
    let large = Outcome::Done(json!("x".repeat(BODY_BYTES_MAX)));
    assert_eq!(
        jobs.finish(&ids[0], large).await.expect_err("too large").kind,
        Kind::Invalid
    );
    assert_eq!(state(jobs, &ids[0]).await, JobState::Running, "left unchanged");
    jobs.finish(&ids[0], Outcome::Done(json!(1))).await.expect("finish");
    jobs.submit(new("mill", None)).await.expect("there is room again");
    for id in &ids[1..6] {
        jobs.cancel(id).await.expect("cancel");
    }
    let mut kept = 0;
    for id in &ids[..6] {
        kept += u64::from(jobs.show(id).await.is_ok());
    }
    assert_eq!(kept, limits.jobs_kept_max, "the oldest final jobs go");
}
