//! The embedded store: the conformance suite, what a process leaves behind, and ids.

mod transitions;

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use serde_json::json;
use wire::HostId;
use wire::job::{JobId, JobState};

use crate::conformance::{self, Bench, Hand, hand, source};
use crate::core::{Record, next_id};
use crate::{INTERRUPTED_JOBS_MAX, Jobs, Kind, Limits, NewJob, Outcome, Queues, Redb, Taken, Target, Worker};

struct Embedded {
    hand: Hand,
    dirs: Option<tempfile::TempDir>,
    made: AtomicU64,
}

#[async_trait]
impl Bench for Embedded {
    type Store = Redb;
    async fn fresh(&self, limits: Limits) -> Redb {
        let db = match &self.dirs {
            Some(dirs) => {
                let n = self.made.fetch_add(1, Ordering::SeqCst);
                state::Database::open(dirs.path().join(n.to_string())).await.unwrap()
            }
            None => state::Database::in_memory().unwrap(),
        };
        Redb::new(db, source(&self.hand), limits)
    }
    fn hand(&self) -> &Hand {
        &self.hand
    }
    async fn pass(&self, ms: u64) {
        self.hand.fetch_add(ms, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_in_memory_conform() {
    let bench = Embedded {
        hand: hand(),
        dirs: None,
        made: AtomicU64::new(0),
    };
    conformance::all(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_in_a_file_conform() {
    let bench = Embedded {
        hand: hand(),
        dirs: Some(tempfile::tempdir().unwrap()),
        made: AtomicU64::new(0),
    };
    conformance::all(&bench).await;
}

fn worker(boot: &str) -> Worker {
    Worker {
        host: HostId::new("h1").unwrap(),
        boot: boot.into(),
    }
}

fn new(request_id: Option<&str>) -> NewJob {
    NewJob {
        concern: "mill".into(),
        kind: "grind".into(),
        request_id: request_id.map(str::to_owned),
        traceparent: None,
        target: Target::Host(worker("1").host),
        request: json!(1),
    }
}

async fn take(jobs: &Redb, boot: &str) -> Option<Taken> {
    let at_once = Box::pin(std::future::ready(()));
    let worker = worker(boot);
    jobs.take(&worker, "mill", Queues::OwnAndShared, at_once).await.unwrap()
}

#[tokio::test]
async fn a_submitted_job_is_there_after_the_process_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let hand = hand();
    let open = || async {
        let db = state::Database::open(dir.path()).await.unwrap();
        Redb::new(db, source(&hand), Limits::default())
    };
    let jobs = open().await;
    let a = jobs.submit(new(Some("r"))).await.unwrap().job;
    let b = jobs.submit(new(None)).await.unwrap().job;
    assert_eq!(take(&jobs, "1").await.unwrap().job.id, a);
    drop(jobs);
    let jobs = open().await;
    jobs.recover(&worker("2")).await.unwrap();
    let states: Vec<_> = jobs
        .list(9, None)
        .await
        .unwrap()
        .into_iter()
        .map(|j| (j.id, j.state))
        .collect();
    assert_eq!(states, [(b, JobState::Queued), (a.clone(), JobState::Interrupted)]);
    assert!(jobs.submit(new(Some("r"))).await.unwrap().duplicate);
    let taken = jobs.take_this(&worker("2"), &a).await.unwrap();
    assert!(taken.ticket.resumed);
    jobs.finish(&taken.ticket, Outcome::Done(json!(2))).await.unwrap();
    drop(jobs);
    assert_eq!(open().await.show(&a).await.unwrap().result, Some(json!(2)));
}

#[tokio::test]
async fn a_job_that_ends_its_process_each_time_is_a_dead_letter() {
    let db = state::Database::in_memory().unwrap();
    let limits = Limits::default();
    let id = {
        let jobs = Redb::new(db.clone(), source(&hand()), limits);
        jobs.submit(new(None)).await.unwrap().job
    };
    for boot in 1..=limits.deliveries_max {
        let jobs = Redb::new(db.clone(), source(&hand()), limits);
        jobs.recover(&worker(&boot.to_string())).await.unwrap();
        assert_eq!(take(&jobs, &boot.to_string()).await.unwrap().job.id, id);
    }
    let jobs = Redb::new(db, source(&hand()), limits);
    jobs.recover(&worker("last")).await.unwrap();
    assert_eq!(jobs.show(&id).await.unwrap().state, JobState::Dead);
    assert!(take(&jobs, "last").await.is_none());
}

#[tokio::test]
async fn the_oldest_interrupted_jobs_are_given_up() {
    let jobs = Redb::new(
        state::Database::in_memory().unwrap(),
        source(&hand()),
        Limits::default(),
    );
    let mut ids = Vec::new();
    for _ in 0..INTERRUPTED_JOBS_MAX + 2 {
        let id = jobs.submit(new(None)).await.unwrap().job;
        jobs.take_this(&worker("1"), &id).await.unwrap();
        ids.push(id);
    }
    jobs.recover(&worker("2")).await.unwrap();
    let state = |id: JobId| {
        let jobs = jobs.clone();
        async move { jobs.show(&id).await.unwrap().state }
    };
    assert_eq!(state(ids[1].clone()).await, JobState::Failed);
    assert_eq!(state(ids[2].clone()).await, JobState::Interrupted);
}

#[tokio::test]
async fn a_single_command_takes_what_it_was_asked_for() {
    let jobs = Redb::new(
        state::Database::in_memory().unwrap(),
        source(&hand()),
        Limits::default(),
    );
    let first = jobs.submit(new(None)).await.unwrap().job;
    let second = jobs.submit(new(None)).await.unwrap().job;
    let taken = jobs.take_this(&worker("1"), &second).await.unwrap();
    assert_eq!(
        jobs.take_this(&worker("1"), &second).await.unwrap_err().kind,
        Kind::Conflict
    );
    jobs.finish(&taken.ticket, Outcome::Done(json!(1))).await.unwrap();
    assert_eq!(
        jobs.take_this(&worker("1"), &second).await.unwrap_err().kind,
        Kind::Conflict
    );
    assert_eq!(jobs.show(&first).await.unwrap().state, JobState::Queued);
}

/// As the first version wrote it.
#[test]
fn records_of_the_first_version_are_read() {
    let text = r#"{"job":{"id":"01JCXQ6Y9D3W6V3S1W8Y5Z4K2M","concern":"mill","kind":"grind","state":"running",
        "progress":{"phase":"","done":0,"total":0,"unit":"","rate_per_s":0.0},"attempts":1,
        "submitted_at":"x","updated_at":"x","request":1},"cancel_asked":true,"ended_ms":0}"#;
    let record = Record::decode(text.as_bytes()).unwrap();
    assert!(record.job.cancel_asked && record.was_left_by(&worker("2")));
    let again = Record::decode(&serde_json::to_vec(&record).unwrap()).unwrap();
    assert_eq!(again, record);
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
