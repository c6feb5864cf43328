//! The life of a job in the hands of one host.

use std::sync::atomic::Ordering;

use serde_json::json;
use wire::job::{JobId, JobState, Progress};

use super::{
    Bench, LIMITS, a, accepted, b, done, glance, new, nothing, open_are, refused, running, state, submitted, took, why,
};
use crate::{BODY_BYTES_MAX, Jobs, Kind, NewJob, Outcome, Queues};

pub(super) async fn all(bench: &impl Bench) {
    let fresh = || bench.fresh(LIMITS);
    a_job_lives(&fresh().await, bench).await;
    states_are_guarded(&fresh().await).await;
    request_ids_name_one_job(&fresh().await, bench).await;
    takers_get_the_oldest_of_the_concern(&fresh().await).await;
    cancels(&fresh().await).await;
    what_ended_without_being_done_can_be_asked_for_again(&fresh().await).await;
    limits_hold(&fresh().await).await;
}

async fn a_job_lives(jobs: &impl Jobs, bench: &impl Bench) {
    let was = bench.hand().load(Ordering::SeqCst);
    let submitted = accepted(jobs, new("mill", None)).await;
    let id = submitted.job;
    let job = jobs.show(&id).await.expect("show");
    assert_eq!(submitted.accepted.as_deref(), Some(&job));
    assert_eq!((job.state, job.attempts), (JobState::Queued, 0));
    assert_eq!(job.request, json!({"vm": "web1"}));
    assert_eq!(
        (job.submitted_at, job.updated_at),
        (format!("{was} ms"), format!("{was} ms"))
    );
    bench.hand().fetch_add(5, Ordering::SeqCst);
    let taken = took(jobs, &a(), "mill").await;
    let job = &taken.job;
    assert_eq!((job.state, job.attempts, job.deliveries), (JobState::Running, 1, 1));
    assert_eq!(
        (job.updated_at.clone(), &job.host),
        (format!("{} ms", was + 5), &Some(a().host))
    );
    assert!(!taken.ticket.resumed);
    let progress = Progress {
        phase: "reading".into(),
        done: 1,
        total: 2,
        unit: "bytes".into(),
        rate_per_s: 1.0,
        eta_s: Some(1.0),
    };
    let job = jobs.progress(&taken.ticket, progress.clone()).await.expect("progress");
    assert_eq!(job.progress, progress);
    assert_eq!(jobs.keep(&taken.ticket).await.expect("keep").state, JobState::Running);
    open_are(jobs, 1).await;
    let job = jobs
        .finish(&taken.ticket, Outcome::Done(json!(7)))
        .await
        .expect("finish");
    assert_eq!(
        (job.state, &job.result, &job.error),
        (JobState::Done, &Some(json!(7)), &None)
    );
    assert_eq!(job.progress, progress, "the last progress stays");
    assert_eq!(jobs.show(&id).await.expect("show"), job);
    open_are(jobs, 0).await;
    nothing(jobs, &a(), "mill").await;
}

async fn states_are_guarded(jobs: &impl Jobs) {
    let taken = running(jobs).await;
    let failed = jobs
        .finish(&taken.ticket, Outcome::Failed(why()))
        .await
        .expect("finish");
    assert_eq!((failed.state, failed.error), (JobState::Failed, Some(why())));
    refused(Kind::Conflict, jobs.keep(&taken.ticket).await);
    refused(
        Kind::Conflict,
        jobs.finish(&taken.ticket, Outcome::Done(json!(1))).await,
    );
    refused(Kind::Conflict, jobs.progress(&taken.ticket, Progress::default()).await);
    let nobody = JobId("01ARZ3NDEKTSV4RRFFQ69G5FAV".into());
    refused(Kind::NotFound, jobs.show(&nobody).await);
    refused(Kind::NotFound, jobs.cancel(&nobody).await);
    refused(Kind::NotFound, jobs.retry(&nobody).await);
    for odd in ["", "*", "a.b", ">", "x y"] {
        refused(Kind::NotFound, jobs.show(&JobId(odd.into())).await);
        refused(Kind::NotFound, jobs.cancel(&JobId(odd.into())).await);
        refused(Kind::NotFound, jobs.retry(&JobId(odd.into())).await);
    }
}

async fn request_ids_name_one_job(jobs: &impl Jobs, bench: &impl Bench) {
    let first = accepted(jobs, new("mill", Some("r 1.*"))).await;
    let again = accepted(jobs, new("mill", Some("r 1.*"))).await;
    assert_eq!((first.duplicate, again.duplicate), (false, true));
    assert_eq!(first.job, again.job);
    let other = NewJob {
        request: json!({"vm": "web2"}),
        ..new("mill", Some("r 1.*"))
    };
    refused(Kind::Conflict, jobs.submit(other).await);
    let elsewhere = accepted(jobs, new("forge", Some("r 1.*"))).await;
    assert!(!elsewhere.duplicate, "another concern has its own ids");
    let taken = took(jobs, &a(), "mill").await;
    done(jobs, &taken).await;
    nothing(jobs, &a(), "mill").await;
    // also when the job itself is no longer kept
    for _ in 0..4 {
        bench.hand().fetch_add(1, Ordering::SeqCst);
        let taken = running(jobs).await;
        done(jobs, &taken).await;
    }
    refused(Kind::NotFound, jobs.show(&first.job).await);
    let late = accepted(jobs, new("mill", Some("r 1.*"))).await;
    assert_eq!((late.duplicate, &late.job), (true, &first.job));
    nothing(jobs, &a(), "mill").await;
    bench.pass(LIMITS.idempotency_keep_ms + 1_000).await;
    let forgotten = accepted(jobs, new("mill", Some("r 1.*"))).await;
    assert!(!forgotten.duplicate, "the id is free after its time");
    assert!(forgotten.job > first.job);
}

async fn takers_get_the_oldest_of_the_concern(jobs: &impl Jobs) {
    nothing(jobs, &a(), "mill").await;
    let first = submitted(jobs, "mill").await;
    let other = submitted(jobs, "forge").await;
    let second = submitted(jobs, "mill").await;
    assert!(
        first < other && other < second,
        "ids sort by time, also within a millisecond"
    );
    assert_eq!(took(jobs, &a(), "mill").await.job.id, first);
    assert_eq!(took(jobs, &b(), "mill").await.job.id, second);
    nothing(jobs, &a(), "mill").await;
    nothing(jobs, &a(), "mil").await;
    assert_eq!(state(jobs, &other).await, JobState::Queued);
    let ids = |listed: Vec<wire::job::Job>| listed.into_iter().map(|j| j.id).collect::<Vec<_>>();
    let all = ids(jobs.list(10, None).await.expect("list"));
    assert_eq!(all, [second.clone(), other.clone(), first.clone()], "newest first");
    assert_eq!(
        ids(jobs.list(1, None).await.expect("list")),
        std::slice::from_ref(&second)
    );
    assert!(jobs.list(0, None).await.expect("list").is_empty());
    let queued = ids(jobs.list(10, Some(JobState::Queued)).await.expect("list"));
    assert_eq!(queued, [other]);
    let running = ids(jobs.list(10, Some(JobState::Running)).await.expect("list"));
    assert_eq!(running, [second, first]);
}

async fn cancels(jobs: &impl Jobs) {
    let waiting = submitted(jobs, "mill").await;
    assert_eq!(jobs.cancel(&waiting).await.expect("cancel").state, JobState::Cancelled);
    nothing(jobs, &a(), "mill").await;
    open_are(jobs, 0).await;
    let taken = running(jobs).await;
    let asked = jobs.cancel(&taken.job.id).await.expect("cancel");
    assert_eq!((asked.state, asked.cancel_asked), (JobState::Running, true));
    assert!(
        jobs.keep(&taken.ticket).await.expect("keep").cancel_asked,
        "its worker hears of it"
    );
    let ended = jobs
        .finish(&taken.ticket, Outcome::Cancelled(why()))
        .await
        .expect("finish");
    assert_eq!(ended.state, JobState::Cancelled);
    let again = jobs.cancel(&taken.job.id).await.expect("cancel");
    assert_eq!(again, ended, "a final job is left as it is");
    // nobody takes up again what nobody wants
    let taken = running(jobs).await;
    jobs.cancel(&taken.job.id).await.expect("cancel");
    let left = jobs.finish(&taken.ticket, Outcome::Interrupted(why())).await;
    assert_eq!(left.expect("finish").state, JobState::Cancelled);
    nothing(jobs, &b(), "mill").await;
}

async fn what_ended_without_being_done_can_be_asked_for_again(jobs: &impl Jobs) {
    let taken = running(jobs).await;
    refused(Kind::Conflict, jobs.retry(&taken.job.id).await);
    jobs.finish(&taken.ticket, Outcome::Failed(why()))
        .await
        .expect("finish");
    let again = jobs.retry(&taken.job.id).await.expect("retry");
    assert_eq!(
        (again.state, again.deliveries, &again.error),
        (JobState::Queued, 0, &None)
    );
    refused(Kind::Conflict, jobs.retry(&taken.job.id).await);
    open_are(jobs, 1).await;
    let second = took(jobs, &b(), "mill").await;
    assert_eq!(
        (&second.job.id, second.job.attempts, second.job.deliveries),
        (&taken.job.id, 2, 1)
    );
    assert!(!second.ticket.resumed, "it begins anew");
    done(jobs, &second).await;
    refused(Kind::Conflict, jobs.retry(&taken.job.id).await);
    let waiting = submitted(jobs, "mill").await;
    jobs.cancel(&waiting).await.expect("cancel");
    jobs.retry(&waiting).await.expect("retry");
    assert_eq!(took(jobs, &a(), "mill").await.job.id, waiting);
    assert_eq!(glance(jobs, &a(), "mill", Queues::Own).await, None);
}

async fn limits_hold(jobs: &impl Jobs) {
    let large = NewJob {
        request: json!("x".repeat(BODY_BYTES_MAX)),
        ..new("mill", None)
    };
    refused(Kind::Invalid, jobs.submit(large).await);
    let nearly = json!("x".repeat(BODY_BYTES_MAX - 100));
    let first = NewJob {
        request: nearly.clone(),
        ..new("mill", None)
    };
    accepted(jobs, first).await;
    let mut ids = Vec::new();
    for _ in 1..LIMITS.jobs_open_max {
        ids.push(submitted(jobs, "mill").await);
    }
    let full = jobs.submit(new("mill", None)).await.expect_err("full");
    assert_eq!(full.kind, Kind::Busy);
    assert!(!full.is_permanent());
    let taken = took(jobs, &a(), "mill").await;
    let large = Outcome::Done(json!("x".repeat(BODY_BYTES_MAX)));
    refused(Kind::Invalid, jobs.finish(&taken.ticket, large).await);
    assert_eq!(state(jobs, &taken.job.id).await, JobState::Running, "left unchanged");
    jobs.finish(&taken.ticket, Outcome::Done(nearly.clone()))
        .await
        .expect("finish");
    let whole = jobs.show(&taken.job.id).await.expect("show");
    assert_eq!((&whole.request, whole.result.as_ref()), (&nearly, Some(&nearly)));
    ids.push(submitted(jobs, "mill").await);
    refused(Kind::Busy, jobs.submit(new("mill", None)).await);
    for id in &ids[..5] {
        jobs.cancel(id).await.expect("cancel");
    }
    let mut kept = 0;
    for id in ids[..5].iter().chain([&taken.job.id]) {
        kept += u64::from(jobs.show(id).await.is_ok());
    }
    assert_eq!(kept, LIMITS.jobs_kept_max, "the oldest final jobs go");
}
