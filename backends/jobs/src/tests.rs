use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serde_json::json;
use wire::job::JobState;

use crate::conformance::{self, source};
use crate::core::next_id;
use crate::{Jobs, Limits, NewJob, Outcome, Redb};

#[tokio::test]
async fn jobs_in_memory_conform() {
    conformance::all(|source, limits| async move { Redb::new(state::Database::in_memory().unwrap(), source, limits) })
        .await;
}

#[tokio::test]
async fn jobs_in_a_file_conform() {
    let dirs = tempfile::tempdir().unwrap();
    let count = AtomicU64::new(0);
    conformance::all(|source, limits| {
        let n = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let dir = dirs.path().join(n.to_string());
        async move { Redb::new(state::Database::open(dir).await.unwrap(), source, limits) }
    })
    .await;
}

#[tokio::test]
async fn a_submitted_job_is_there_after_the_process_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let hand = Arc::new(AtomicU64::new(5));
    let open = || async {
        let db = state::Database::open(dir.path()).await.unwrap();
        Redb::new(db, source(&hand), Limits::default())
    };
    let new = NewJob {
        concern: "mill".into(),
        kind: "grind".into(),
        request_id: Some("r".into()),
        request: json!(1),
    };
    let jobs = open().await;
    let (a, b) = (jobs.submit(new.clone()).await.unwrap().job, {
        let other = NewJob {
            request_id: None,
            ..new.clone()
        };
        jobs.submit(other).await.unwrap().job
    });
    jobs.start(&a).await.unwrap();
    drop(jobs);
    let jobs = open().await;
    let open_jobs: Vec<_> = jobs
        .recover()
        .await
        .unwrap()
        .into_iter()
        .map(|j| (j.id, j.state))
        .collect();
    assert_eq!(open_jobs, [(a.clone(), JobState::Interrupted), (b, JobState::Queued)]);
    assert!(jobs.submit(new).await.unwrap().duplicate);
    jobs.start(&a).await.unwrap();
    jobs.finish(&a, Outcome::Done(json!(2))).await.unwrap();
    drop(jobs);
    assert_eq!(open().await.show(&a).await.unwrap().result, Some(json!(2)));
}

#[test]
fn ids_grow_when_the_clock_stands_still_or_goes_back() {
    let first = next_id(None, 1_000, 7);
    let same_time = next_id(Some(&first.0), 1_000, 3);
    let earlier = next_id(Some(&same_time.0), 10, u128::MAX);
    let later = next_id(Some(&earlier.0), 2_000, 0);
    assert!(first < same_time && same_time < earlier && earlier < later);
    assert_eq!(next_id(Some("not an id"), 1_000, 7), first);
}
