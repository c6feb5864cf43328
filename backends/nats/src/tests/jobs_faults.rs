//! What jobs over JetStream survive: hosts that are killed, a leader that is killed, clocks that are off, duplicates that
//! come late. Seeded; a ledger has every acknowledged job.

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::jobs::{Jobs, Limits, NewJob, Outcome, Queues, Source, Target, Worker};
use async_nats::jetstream::message::PublishMessage;
use bus::{Bus as _, Received};
use integration::Random;
use integration::nats::Cluster;
use serde_json::json;
use wire::event::CloudEvent;
use wire::hosts::HostLost;
use wire::job::{Job, JobChanged, JobId, JobState};
use wire::subject::{EventFilter, JobSubject};
use wire::{ConcernName, HostId};

use super::*;
use crate::JetstreamJobs;
use crate::jobs::JobsOptions;

const LEASE_MS: u64 = 1_500;

/// Seeds of the run: `WINDLASS_SEED` replays; `WINDLASS_KILLS` (make torture) makes it longer.
fn number(variable: &str, otherwise: u64) -> u64 {
    let said = std::env::var(variable).ok();
    said.map_or(otherwise, |text| text.parse().expect("a number"))
}

fn source(off_ms: i64) -> Source {
    let (ids, started) = (AtomicU64::new(0), std::time::UNIX_EPOCH);
    Source {
        #[expect(
            clippy::disallowed_methods,
            reason = "a test whose hosts' clocks are off by some time"
        )]
        now_ms: Arc::new(move || {
            let now = std::time::SystemTime::now().duration_since(started).unwrap();
            (now.as_millis() as u64).saturating_add_signed(off_ms)
        }),
        monotonic_ms: Arc::new(|| 0),
        rfc3339: |ms| format!("{ms}"),
        // two stores never draw the same
        random: Arc::new(move || {
            u128::from(ids.fetch_add(1, Ordering::SeqCst)) << 64 | u128::from(getrandom::u64().unwrap())
        }),
    }
}

fn options() -> JobsOptions {
    JobsOptions {
        limits: Limits {
            lease_ms: LEASE_MS,
            deliveries_max: 50,
            ..JobsOptions::default().limits
        },
        duplicate_window_ms: 100,
    }
}

pub(super) async fn store(urls: &str, off_ms: i64) -> JetstreamJobs {
    let lattice = Lattice::connect(settings(urls), PATIENCE).await.unwrap();
    JetstreamJobs::open(&lattice, source(off_ms), options()).await.unwrap()
}

fn grind(steps: u64, request_id: Option<String>) -> NewJob {
    NewJob {
        concern: "mill".into(),
        kind: "grind".into(),
        request_id,
        traceparent: None,
        target: Target::Any,
        request: json!({"steps": steps}),
    }
}

/// A process of `examples/mill_host`; killed when it is dropped.
pub(super) struct MillHost(Child);

impl MillHost {
    pub(super) fn start(urls: &str, host: &str, off_ms: i64) -> Self {
        let test = std::env::current_exe().unwrap();
        let built = test.parent().and_then(|deps| deps.parent()).unwrap();
        let program = built.join("examples/mill_host");
        assert!(
            program.is_file(),
            "{} is missing: cargo build --examples -p windlass-nats",
            program.display()
        );
        let mut child = Command::new(program)
            .args([urls, host, &LEASE_MS.to_string(), &off_ms.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = std::io::BufReader::new(child.stderr.take().unwrap());
        let (serving, served) = std::sync::mpsc::channel();
        // reads to the end, so that the host never waits for a reader
        std::thread::spawn(move || {
            let mut all = Vec::new();
            for line in said.lines().map_while(Result::ok) {
                all.push(line.clone());
                if line == "serving" {
                    let _nobody_waits = serving.send(());
                }
            }
        });
        let host = Self(child);
        served.recv_timeout(Duration::from_secs(60)).expect("the host serves");
        host
    }
    /// SIGTERM; it ends in good order.
    pub(super) fn drain(mut self) {
        let id = i32::try_from(self.0.id()).unwrap();
        let id = rustix::process::Pid::from_raw(id).unwrap();
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
    /// SIGKILL.
    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for MillHost {
    fn drop(&mut self) {
        // one that has ended can't be killed
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) async fn ended(jobs: &JetstreamJobs, id: &JobId) -> Job {
    for _ in 0..1_200 {
        let job = jobs.show(id).await.unwrap();
        if job.state.is_final() {
            return job;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("job {id} does not end: {:?}", jobs.show(id).await);
}

/// Three hosts, two of them with clocks ten minutes off; they are killed in mid-job and come back, or not. Every acknowledged
/// job ends, once.
#[tokio::test(flavor = "multi_thread")]
async fn hosts_killed_in_mid_job_lose_nothing_and_end_nothing_twice() {
    let seed = number("WINDLASS_SEED", 7);
    let kills = number("WINDLASS_KILLS", 4).min(200);
    eprintln!("WINDLASS_SEED={seed} WINDLASS_KILLS={kills}");
    let mut random = Random::new(seed);
    let scratch = Scratch::new("jobs-kills").unwrap();
    let server = Server::start(&scratch.join("n1")).unwrap();
    let urls = server.url();
    let lattice = Lattice::connect(settings(&urls), PATIENCE).await.unwrap();
    let identity = Identity {
        version: "0.0.0".into(),
        started_at: "2026-11-24T03:00:00Z".into(),
    };
    let bus = NatsBus::open(&lattice, identity).await.unwrap();
    let mut events = bus.subscribe(EventFilter::All, 100_000).await.unwrap();
    let skews = [0, 600_000, -600_000];
    let mut hosts: Vec<Option<MillHost>> = (0..3)
        .map(|n| Some(MillHost::start(&urls, &format!("h{n}"), skews[n])))
        .collect();
    let jobs = store(&urls, 0).await;
    let mut ledger = Vec::new();
    for _ in 0..kills {
        for _ in 0..4 {
            ledger.push(jobs.submit(grind(10 + random.below(40), None)).await.unwrap().job);
        }
        tokio::time::sleep(Duration::from_millis(200 + random.below(800))).await;
        let n = usize::try_from(random.below(3)).unwrap();
        match hosts[n].take() {
            Some(host) => host.kill(),
            None => hosts[n] = Some(MillHost::start(&urls, &format!("h{n}"), skews[n])),
        }
    }
    if hosts.iter().all(Option::is_none) {
        hosts[0] = Some(MillHost::start(&urls, "h0", 0));
    }
    for id in &ledger {
        let job = ended(&jobs, id).await;
        assert_eq!(job.state, JobState::Done, "{job:?}");
        // whose end counted is the one that held it last
        let result = job.result.clone().unwrap();
        assert_eq!(
            result["host"].as_str(),
            job.host.as_ref().map(HostId::as_str),
            "{job:?}"
        );
        assert_eq!(result["attempt"], job.attempts, "{job:?}");
    }
    assert_eq!(jobs.open_count().await.unwrap(), 0);
    let (mut told, mut lost) = (BTreeMap::new(), 0);
    while let Ok(Some(received)) = tokio::time::timeout(Duration::from_millis(500), events.next()).await {
        let Received::Event { payload, subject } = received else {
            continue;
        };
        if let Ok(event) = serde_json::from_slice::<CloudEvent<JobChanged>>(&payload) {
            let is_end = event.data.0.state == JobState::Done;
            *told.entry(event.data.0.id).or_insert(0) += u32::from(is_end);
        }
        lost += u32::from(subject.verb() == "lost" && serde_json::from_slice::<CloudEvent<HostLost>>(&payload).is_ok());
    }
    let twice: Vec<_> = told.iter().filter(|(_, ends)| **ends > 1).collect();
    assert!(twice.is_empty(), "ended twice: {twice:?}");
    let again = ledger.len() as u64;
    eprintln!("{again} jobs, {kills} kills or starts, {lost} hosts lost");
}

/// The server that leads the queues is killed while jobs are submitted; whoever hears no answer asks again under the same
/// request id.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_killed_during_submits_costs_no_job_and_makes_none_twice() {
    let scratch = Scratch::new("jobs-leader").unwrap();
    let mut cluster = Cluster::start(scratch.path()).unwrap();
    let jobs = store(&cluster.urls(), 0).await;
    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut submitters = tokio::task::JoinSet::new();
    const EACH: u64 = 60;
    for n in 0..3 {
        let (jobs, acknowledged) = (jobs.clone(), acknowledged.clone());
        submitters.spawn(async move {
            let mut ledger = BTreeMap::new();
            for k in 0..EACH {
                let request_id = format!("{n}-{k}");
                let job = loop {
                    match jobs.submit(grind(k, Some(request_id.clone()))).await {
                        Ok(submitted) => break submitted.job,
                        Err(e) => assert!(!e.is_permanent(), "{e}"),
                    }
                };
                ledger.insert(request_id, job);
                acknowledged.fetch_add(1, Ordering::SeqCst);
            }
            ledger
        });
    }
    while acknowledged.load(Ordering::SeqCst) < EACH {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let leader = cluster.leader_of("WINDLASS_JOBS").expect("somebody leads");
    cluster.servers[leader].kill().unwrap();
    let ledger: BTreeMap<String, JobId> = submitters.join_all().await.into_iter().flatten().collect();
    cluster.servers[leader].restart().unwrap();
    cluster.wait_whole().unwrap();
    assert_eq!(ledger.len() as u64, 3 * EACH);
    let listed = jobs.list(1_000, None).await.unwrap();
    let mut ids: Vec<JobId> = listed.iter().map(|job| job.id.clone()).collect();
    ids.sort();
    let mut expected: Vec<JobId> = ledger.into_values().collect();
    expected.sort();
    assert_eq!(ids, expected, "each request is one job, and every one is there");
    // and each is done once
    let worker = Worker {
        host: HostId::new("h1").unwrap(),
        boot: "1".into(),
    };
    let mut done = Vec::new();
    for _ in 0..expected.len() {
        let patience = Box::pin(tokio::time::sleep(Duration::from_secs(30)));
        let taken = jobs
            .take(&worker, "mill", Queues::OwnAndShared, patience)
            .await
            .unwrap();
        let taken = taken.expect("another job");
        jobs.finish(&taken.ticket, Outcome::Done(json!(1))).await.unwrap();
        done.push(taken.job.id);
    }
    done.sort();
    assert_eq!(done, expected);
    // a message that was sent twice (its first answer died with the leader) is looked at, and dropped
    let soon = Box::pin(tokio::time::sleep(Duration::from_secs(2)));
    assert_eq!(
        jobs.take(&worker, "mill", Queues::OwnAndShared, soon).await.unwrap(),
        None
    );
    assert_eq!(jobs.open_count().await.unwrap(), 0);
}

/// The same command once more when JetStream's own window is over, as a message and as a call, from a host whose clock is
/// ten minutes ahead.
#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_after_the_window_has_no_effect() {
    let scratch = Scratch::new("jobs-duplicates").unwrap();
    let server = Server::start(&scratch.join("n1")).unwrap();
    let (here, ahead) = (store(&server.url(), 0).await, store(&server.url(), 600_000).await);
    let lattice = Lattice::connect(settings(&server.url()), PATIENCE).await.unwrap();
    let worker = |host: &str| Worker {
        host: HostId::new(host).unwrap(),
        boot: "1".into(),
    };
    let first = here.submit(grind(1, Some("r".into()))).await.unwrap();
    let subject = JobSubject::new("mill", None, &first.job).unwrap().to_string();
    let stream = lattice.jetstream().get_stream("WINDLASS_JOBS").await.unwrap();
    let message = stream.get_last_raw_message_by_subject(&subject).await.unwrap();
    let soon = || Box::pin(tokio::time::sleep(Duration::from_millis(500)));
    let taken = ahead
        .take(
            &worker("b"),
            "mill",
            Queues::OwnAndShared,
            Box::pin(tokio::time::sleep(Duration::from_secs(20))),
        )
        .await
        .unwrap()
        .expect("the job");
    let again = async |jobs: &JetstreamJobs| {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let duplicate = jobs.submit(grind(1, Some("r".into()))).await.unwrap();
        assert_eq!((duplicate.duplicate, &duplicate.job), (true, &first.job));
        let raw = PublishMessage::build()
            .payload(message.payload.clone())
            .message_id(first.job.to_string());
        let acknowledged = lattice.jetstream().send_publish(subject.clone(), raw).await.unwrap();
        assert!(!acknowledged.await.unwrap().duplicate, "the window is over");
        let none = here
            .take(&worker("a"), "mill", Queues::OwnAndShared, soon())
            .await
            .unwrap();
        assert_eq!(none, None);
    };
    // while it runs, and when it is done
    again(&ahead).await;
    ahead.finish(&taken.ticket, Outcome::Done(json!(1))).await.unwrap();
    again(&here).await;
    let job = here.show(&first.job).await.unwrap();
    assert_eq!(
        (job.state, job.attempts, here.open_count().await.unwrap()),
        (JobState::Done, 1, 0)
    );
    assert_eq!(here.list(10, None).await.unwrap().len(), 1);
}

/// What a fleet's queues are called is part of what other tools see.
#[test]
fn queues_have_their_subjects() {
    let concern = ConcernName::new("mill").unwrap();
    assert_eq!(JobSubject::queue(&concern, None), "windlass.v1.job.mill.@any.*");
}
