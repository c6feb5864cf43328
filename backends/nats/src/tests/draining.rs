//! Hosts that are told to end (SIGTERM) while requests and jobs run: what was begun is answered, what isn't finished is done by
//! another host, and nothing that was acknowledged is lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ::jobs::Jobs as _;
use bus::{Received, call_json};
use integration::Random;
use serde_json::json;
use wire::event::CloudEvent;
use wire::job::{JobChanged, JobId, JobState};
use wire::subject::EventFilter;
use wire::{Code, Headers, Subject};

use super::faults::from_environment;
use super::jobs_faults::{MillHost, ended, store};
use super::*;

const ASKERS: u64 = 8;

/// How requests without a record ended.
#[derive(Debug, Default)]
struct Dozes {
    answered: AtomicU64,
    refused: AtomicU64,
    /// Nobody said anything.
    unanswered: AtomicU64,
}

fn patience(request_id: Option<String>) -> Headers {
    Headers {
        timeout_ms: Some(4_000),
        request_id,
        ..Headers::default()
    }
}

async fn doze_until(stop: Arc<AtomicBool>, bus: NatsBus, dozes: Arc<Dozes>) {
    let subject = Subject::cluster("mill", "doze").unwrap();
    while !stop.load(Ordering::SeqCst) {
        let counter = match call_json(&bus, &subject, &json!({"ms": 20}), patience(None)).await {
            Ok(answer) => {
                assert_eq!(answer, json!(20));
                &dozes.answered
            }
            Err(e) if matches!(e.code, Code::Unavailable | Code::Busy) => &dozes.refused,
            Err(e) if e.code == Code::Deadline => &dozes.unanswered,
            Err(e) => panic!("{e:?}"),
        };
        counter.fetch_add(1, Ordering::SeqCst);
    }
}

/// Submits jobs, asking again under the same request id until the job is acknowledged.
async fn submit_until(stop: Arc<AtomicBool>, bus: NatsBus, asker: u64, seed: u64) -> BTreeMap<String, JobId> {
    let subject = Subject::cluster("mill", "grind").unwrap();
    let (mut random, mut ledger) = (Random::new(seed), BTreeMap::new());
    while !stop.load(Ordering::SeqCst) {
        let request_id = format!("{asker}-{}", ledger.len());
        // some take longer than a host may take to drain
        let steps = if random.below(8) == 0 { 60 } else { random.below(8) };
        let accepted = loop {
            match call_json(
                &bus,
                &subject,
                &json!({"steps": steps}),
                patience(Some(request_id.clone())),
            )
            .await
            {
                Ok(accepted) => break accepted,
                Err(e) if !e.code.is_permanent() => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(e) => panic!("{e:?}"),
            }
        };
        ledger.insert(request_id, JobId(accepted["job"].as_str().unwrap().into()));
        tokio::time::sleep(Duration::from_millis(100 + random.below(100))).await;
    }
    ledger
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_drain_with_work_in_hand_lose_nothing() {
    let seed = from_environment("WINDLASS_SEED", 5);
    let drains = from_environment("WINDLASS_KILLS", 3).min(100);
    eprintln!("WINDLASS_SEED={seed} WINDLASS_KILLS={drains}");
    let scratch = Scratch::new("draining").unwrap();
    let server = Server::start(&scratch.join("n1")).unwrap();
    let urls = server.url();
    let bus = bus_at(&urls).await;
    let mut events = bus::Bus::subscribe(&bus, EventFilter::All, 1 << 20).await.unwrap();
    let mut hosts: Vec<Option<MillHost>> = (0..2)
        .map(|n| Some(MillHost::start(&urls, &format!("h{n}"), 0)))
        .collect();
    let (stop, dozes) = (Arc::new(AtomicBool::new(false)), Arc::new(Dozes::default()));
    let dozers: Vec<_> = (0..ASKERS)
        .map(|_| tokio::spawn(doze_until(stop.clone(), bus.clone(), dozes.clone())))
        .collect();
    let askers: Vec<_> = (0..ASKERS)
        .map(|n| tokio::spawn(submit_until(stop.clone(), bus.clone(), n, seed + n)))
        .collect();
    let mut random = Random::new(seed);
    for round in 0..drains {
        tokio::time::sleep(Duration::from_millis(500 + random.below(700))).await;
        let n = usize::try_from(round % 2).unwrap();
        let host = hosts[n].take().expect("it serves");
        tokio::task::block_in_place(|| host.drain());
        hosts[n] = Some(tokio::task::block_in_place(|| {
            MillHost::start(&urls, &format!("h{n}"), 0)
        }));
    }
    stop.store(true, Ordering::SeqCst);
    for dozer in dozers {
        dozer.await.unwrap();
    }
    let mut ledger = BTreeMap::new();
    for asker in askers {
        ledger.extend(asker.await.unwrap());
    }
    let jobs = store(&urls, 0).await;
    let mut taken_over = 0;
    for (request_id, id) in &ledger {
        let job = ended(&jobs, id).await;
        assert_eq!(
            (job.state, job.request_id.as_ref()),
            (JobState::Done, Some(request_id)),
            "{job:?}"
        );
        taken_over += u64::from(job.attempts > 1);
    }
    // a job's message goes a moment after its record said that it ended
    for _ in 0..100 {
        if jobs.open_count().await.unwrap() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(jobs.open_count().await.unwrap(), 0);
    assert_eq!(
        jobs.list(1_000, None).await.unwrap().len(),
        ledger.len(),
        "a request id is one job"
    );
    let mut ends: BTreeMap<JobId, u32> = BTreeMap::new();
    while let Ok(Some(received)) = tokio::time::timeout(Duration::from_millis(500), events.next()).await {
        let Received::Event { payload, .. } = received else {
            continue;
        };
        if let Ok(event) = serde_json::from_slice::<CloudEvent<JobChanged>>(&payload)
            && event.data.0.state == JobState::Done
        {
            *ends.entry(event.data.0.id).or_default() += 1;
        }
    }
    assert!(
        ledger.values().all(|id| ends.get(id) == Some(&1)),
        "each ended once: {ends:?}"
    );
    eprintln!(
        "{drains} drains, {} jobs, {taken_over} taken over, {dozes:?}",
        ledger.len()
    );
    // whether one of a few drains meets a long job is chance
    assert!(taken_over > 0 || drains < 6, "a drain left work in hand");
    assert!(dozes.answered.load(Ordering::SeqCst) > 100);
    let unanswered = dozes.unanswered.load(Ordering::SeqCst);
    assert_eq!(unanswered, 0, "{dozes:?} in {drains} drains");
}
