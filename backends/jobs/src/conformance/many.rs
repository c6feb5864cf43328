//! Jobs among many hosts: queues, tickets that lapse, hosts that come back, dead letters.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use wire::job::{JobState, Progress};

use super::{
    Bench, LIMITS, a, accepted, b, done, glance, new, nothing, open_are, refused, running, state, submitted, took, why,
    worker,
};
use crate::{Jobs, Kind, NewJob, Outcome, Queues, Taken, Target, Worker};

/// Longer than a lease, with the time that a store may take to be sure of it.
const LAPSED_MS: u64 = LIMITS.lease_ms + LIMITS.lease_ms / 2;

pub(super) async fn all(bench: &impl Bench) {
    let fresh = || bench.fresh(LIMITS);
    queues_are_apart(&fresh().await).await;
    a_waiting_taker_is_woken(bench).await;
    each_job_goes_to_one_taker(bench).await;
    who_keeps_its_ticket_keeps_its_job(bench).await;
    a_silent_worker_loses_its_job_and_its_word(bench).await;
    too_many_deliveries_are_a_dead_letter(bench).await;
    what_is_left_in_order_counts_no_delivery(&fresh().await).await;
    a_cancelled_job_ends_with_its_worker(bench).await;
    a_host_that_comes_back_left_its_jobs(&fresh().await).await;
}

fn to_host(worker: &Worker) -> NewJob {
    NewJob {
        target: Target::Host(worker.host.clone()),
        ..new("mill", None)
    }
}

async fn queues_are_apart(jobs: &impl Jobs) {
    let for_b = accepted(jobs, to_host(&b())).await.job;
    assert_eq!(jobs.show(&for_b).await.expect("show").target, Some(b().host));
    nothing(jobs, &a(), "mill").await;
    let shared = submitted(jobs, "mill").await;
    assert_eq!(glance(jobs, &a(), "mill", Queues::Own).await, None);
    assert_eq!(took(jobs, &a(), "mill").await.job.id, shared);
    assert_eq!(glance(jobs, &b(), "mill", Queues::Own).await, Some(for_b));
    nothing(jobs, &b(), "mill").await;
}

async fn a_waiting_taker_is_woken(bench: &impl Bench) {
    let jobs = bench.fresh(LIMITS).await;
    let there = bench.elsewhere(&jobs).await;
    for target in [Target::Any, Target::Host(a().host)] {
        let (taker, me) = (jobs.clone(), a());
        let waiting = tokio::spawn(async move { took(&taker, &me, "mill").await });
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!waiting.is_finished());
        let job = NewJob {
            target,
            ..new("mill", None)
        };
        let id = accepted(&there, job).await.job;
        let taken = waiting.await.expect("took");
        assert_eq!(taken.job.id, id);
        done(&jobs, &taken).await;
    }
}

async fn each_job_goes_to_one_taker(bench: &impl Bench) {
    let jobs = bench.fresh(LIMITS).await;
    let mut ids = BTreeSet::new();
    for _ in 0..40 {
        ids.insert(submitted(&jobs, "mill").await);
    }
    let mut takers = tokio::task::JoinSet::new();
    for n in 0..8 {
        let (jobs, me) = (bench.elsewhere(&jobs).await, worker(&format!("h{n}"), "1"));
        takers.spawn(async move {
            let mut taken = Vec::new();
            for _ in 0..5 {
                let one = took(&jobs, &me, "mill").await;
                done(&jobs, &one).await;
                taken.push(one.job.id);
            }
            taken
        });
    }
    let taken: Vec<_> = takers.join_all().await.into_iter().flatten().collect();
    assert_eq!(taken.len(), 40);
    assert_eq!(taken.into_iter().collect::<BTreeSet<_>>(), ids);
    open_are(&jobs, 0).await;
}

async fn who_keeps_its_ticket_keeps_its_job(bench: &impl Bench) {
    let jobs = bench.fresh(LIMITS).await;
    assert!(jobs.keep_every() * 2 <= Duration::from_millis(LIMITS.lease_ms));
    let taken = running(&jobs).await;
    for _ in 0..8 {
        bench.pass(LIMITS.lease_ms / 3).await;
        jobs.keep(&taken.ticket).await.expect("keep");
        assert_eq!(state(&jobs, &taken.job.id).await, JobState::Running);
    }
    nothing(&bench.elsewhere(&jobs).await, &b(), "mill").await;
    done(&jobs, &taken).await;
}

async fn a_silent_worker_loses_its_job_and_its_word(bench: &impl Bench) {
    let jobs = bench.fresh(LIMITS).await;
    let there = bench.elsewhere(&jobs).await;
    let first = running(&jobs).await;
    bench.pass(LAPSED_MS).await;
    let second = took(&there, &b(), "mill").await;
    assert_eq!(
        (&second.job.id, second.job.attempts, second.job.deliveries),
        (&first.job.id, 2, 2)
    );
    assert_eq!(second.job.host, Some(b().host));
    assert!(second.ticket.resumed);
    refused(Kind::Conflict, jobs.keep(&first.ticket).await);
    refused(Kind::Conflict, jobs.progress(&first.ticket, Progress::default()).await);
    refused(
        Kind::Conflict,
        jobs.finish(&first.ticket, Outcome::Done(json!("late"))).await,
    );
    let ended = there.finish(&second.ticket, Outcome::Done(json!("theirs"))).await;
    assert_eq!(ended.expect("finish").result, Some(json!("theirs")));
    refused(
        Kind::Conflict,
        jobs.finish(&first.ticket, Outcome::Done(json!("later"))).await,
    );
    let shown = jobs.show(&first.job.id).await.expect("show");
    assert_eq!(shown.result, Some(json!("theirs")), "it ended once");
    nothing(&jobs, &a(), "mill").await;
}

async fn too_many_deliveries_are_a_dead_letter(bench: &impl Bench) {
    let jobs = bench.fresh(LIMITS).await;
    let mut taken: Taken = running(&jobs).await;
    for n in 2..=LIMITS.deliveries_max {
        bench.pass(LAPSED_MS).await;
        taken = took(&jobs, &worker(&format!("h{n}"), "1"), "mill").await;
        assert_eq!(taken.job.deliveries, n);
    }
    bench.pass(LAPSED_MS).await;
    // it is found dead by whoever would have got it
    for _ in 0..100 {
        nothing(&jobs, &b(), "mill").await;
        if state(&jobs, &taken.job.id).await == JobState::Dead {
            break;
        }
    }
    let dead = jobs.show(&taken.job.id).await.expect("show");
    assert_eq!((dead.state, dead.deliveries), (JobState::Dead, LIMITS.deliveries_max));
    assert!(
        dead.error.as_ref().is_some_and(|e| e.hint.is_some()),
        "{:?}",
        dead.error
    );
    refused(
        Kind::Conflict,
        jobs.finish(&taken.ticket, Outcome::Done(json!(1))).await,
    );
    open_are(&jobs, 0).await;
    // others come and go, the dead letter stays
    for _ in 0..=LIMITS.jobs_kept_max {
        let one = running(&jobs).await;
        done(&jobs, &one).await;
    }
    let listed = jobs.list(10, Some(JobState::Dead)).await.expect("list");
    assert_eq!(listed, [dead]);
    let again = jobs.retry(&taken.job.id).await.expect("retry");
    assert_eq!((again.state, again.deliveries), (JobState::Queued, 0));
    let last = took(&jobs, &b(), "mill").await;
    assert_eq!((&last.job.id, last.job.deliveries), (&taken.job.id, 1));
    done(&jobs, &last).await;
    assert!(jobs.list(10, Some(JobState::Dead)).await.expect("list").is_empty());
}

async fn what_is_left_in_order_counts_no_delivery(jobs: &impl Jobs) {
    let id = submitted(jobs, "mill").await;
    for n in 0..LIMITS.deliveries_max + 2 {
        let taken = took(jobs, &a(), "mill").await;
        assert_eq!(
            (&taken.job.id, taken.job.deliveries, taken.ticket.resumed),
            (&id, 1, n > 0)
        );
        let left = jobs
            .finish(&taken.ticket, Outcome::Interrupted(why()))
            .await
            .expect("leave");
        assert_eq!((left.state, left.error), (JobState::Interrupted, Some(why())));
    }
    let taken = took(jobs, &b(), "mill").await;
    done(jobs, &taken).await;
    // given back without having begun: as if nothing had been
    let id = submitted(jobs, "mill").await;
    let taken = took(jobs, &a(), "mill").await;
    let back = jobs
        .finish(&taken.ticket, Outcome::HandedBack)
        .await
        .expect("hand back");
    assert_eq!((back.state, back.deliveries), (JobState::Queued, 0));
    let taken = took(jobs, &b(), "mill").await;
    assert_eq!((&taken.job.id, taken.ticket.resumed), (&id, false));
    done(jobs, &taken).await;
}

async fn a_cancelled_job_ends_with_its_worker(bench: &impl Bench) {
    let jobs = bench.fresh(LIMITS).await;
    let taken = running(&jobs).await;
    jobs.cancel(&taken.job.id).await.expect("cancel");
    bench.pass(LAPSED_MS).await;
    for _ in 0..100 {
        nothing(&jobs, &b(), "mill").await;
        if state(&jobs, &taken.job.id).await == JobState::Cancelled {
            return;
        }
    }
    panic!("the job of a dead worker was not cancelled");
}

async fn a_host_that_comes_back_left_its_jobs(jobs: &impl Jobs) {
    let first = running(jobs).await;
    let theirs = accepted(jobs, new("mill", None)).await.job;
    let kept = took(jobs, &b(), "mill").await;
    assert_eq!(kept.job.id, theirs);
    let unwanted = running(jobs).await;
    jobs.cancel(&unwanted.job.id).await.expect("cancel");
    let waiting = submitted(jobs, "mill").await;
    let back = worker("a", "a2");
    jobs.recover(&back).await.expect("recover");
    assert_eq!(state(jobs, &first.job.id).await, JobState::Interrupted);
    assert_eq!(state(jobs, &unwanted.job.id).await, JobState::Cancelled);
    assert_eq!(state(jobs, &theirs).await, JobState::Running, "another host's");
    refused(
        Kind::Conflict,
        jobs.finish(&first.ticket, Outcome::Done(json!(1))).await,
    );
    let mut got = BTreeSet::new();
    for _ in 0..2 {
        let taken = took(jobs, &back, "mill").await;
        assert_eq!(taken.ticket.resumed, taken.job.id == first.job.id);
        got.insert(taken.job.id.clone());
        done(jobs, &taken).await;
    }
    assert_eq!(got, BTreeSet::from([first.job.id, waiting]));
    nothing(jobs, &back, "mill").await;
    done(jobs, &kept).await;
}
