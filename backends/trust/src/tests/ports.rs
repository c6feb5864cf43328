//! The decorated ports: they are the ports, and they hear nobody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bus::{Bus, Endpoint, InProcess, Service, answer_bytes};
use bytes::Bytes;
use futures::StreamExt;
use jobs::{Authority, NewJob, Now, Record, Target};
use serde_json::json;
use state::{Change, Key, Prefix, State};
use wire::job::JobId;
use wire::{Address, Answer, Code, ConcernName, Headers, HostId, Subject};

use super::{Turned, host, identity, row, told};
use crate::core::book::Book;
use crate::core::refusal::Refusal;
use crate::core::window::Bounds;
use crate::fleet::Fleet;
use crate::signed_bus::SignedBus;
use crate::signed_jobs::{JOB_MS_MAX, SignedJobs};
use crate::signed_state::SignedState;

fn state() -> Arc<dyn State> {
    memory(Arc::new(|| 1_000_000))
}

fn memory(now: state::NowMs) -> Arc<dyn State> {
    Arc::new(state::Redb::new(state::Database::in_memory().unwrap(), now))
}

/// Host n of a fleet of three; their keys are 1, 2 and 3.
fn member(n: u8, now: &Turned) -> Fleet {
    let rows = (1..=3).map(|n| told(row(&format!("h{n}"), 1, &identity(n))));
    let me = (host(&format!("h{n}")), identity(n));
    Fleet::new(Some(me), Book::of(rows), Bounds::default(), now.now())
}

fn nobody(now: &Turned) -> Fleet {
    Fleet::new(None, Book::default(), Bounds::default(), now.now())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_signed_bus_is_the_bus() {
    bus::conformance::all(|| async {
        let (now, inner) = (Turned::at(1), Arc::new(InProcess::new()));
        let bus: Arc<dyn Bus> = Arc::new(SignedBus::serving(inner, member(1, &now), state(), "boot".into()));
        bus
    })
    .await;
}

/// What is not below a signed prefix passes by; what is, is wrapped: the suite runs on both.
#[tokio::test(flavor = "multi_thread")]
async fn the_signed_state_is_the_state() {
    let fresh = |now_ms| async move {
        let fleet = member(1, &Turned::at(1));
        SignedState::new(
            memory(now_ms),
            state(),
            fleet,
            &HostId::new("h1").unwrap(),
            &["hosts/orders/"],
        )
    };
    state::conformance::all(fresh, state::conformance::turn).await;
}

fn drain() -> Subject {
    Subject::cluster("hosts", "drain").unwrap()
}

/// A host that counts what it carries out.
async fn serves(bus: &Arc<SignedBus>, name: &str) -> Arc<AtomicU64> {
    let service = Service {
        concern: ConcernName::new("hosts").unwrap(),
        host: HostId::new(name).unwrap(),
        endpoints: vec![
            Endpoint {
                verb: "drain",
                address: Address::Cluster,
            },
            Endpoint {
                verb: "ls",
                address: Address::Cluster,
            },
            Endpoint {
                verb: "revoke",
                address: Address::Host,
            },
        ],
        queue_requests_max: 16,
    };
    let done = Arc::new(AtomicU64::new(0));
    let mut incoming = bus.serve(service).await.unwrap();
    let counted = done.clone();
    tokio::spawn(async move {
        while let Some(delivery) = incoming.next().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let by = delivery.headers.sender.as_ref().map(ToString::to_string);
            delivery.responder.answer(answer_bytes(Ok(json!({"by": by}))));
        }
    });
    done
}

async fn ask(bus: &dyn Bus, subject: &Subject, headers: Headers) -> Result<serde_json::Value, Code> {
    let answer = bus.request(subject, headers, Bytes::from_static(b"{}")).await;
    let bytes = answer.map_err(|e| wire::ErrorBody::from(e).code)?;
    let answer: Answer<serde_json::Value> = serde_json::from_slice(&bytes).unwrap();
    answer.into_result().map_err(|e| e.code)
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_heard_from_members_once_and_reads_from_anybody() {
    let (now, inner, shared) = (Turned::at(1_000), Arc::new(InProcess::new()), state());
    let serving = |n: u8| {
        let bus = SignedBus::serving(inner.clone(), member(n, &now), shared.clone(), format!("boot{n}"));
        Arc::new(bus)
    };
    let (one, two) = (serving(1), serving(2));
    let (on_one, on_two) = (serves(&one, "h1").await, serves(&two, "h2").await);
    let done = || on_one.load(Ordering::SeqCst) + on_two.load(Ordering::SeqCst);
    let three = SignedBus::asking(inner.clone(), member(3, &now));
    let said = ask(&three, &drain(), Headers::default()).await.unwrap();
    assert_eq!(
        said["by"], "host:h3",
        "whoever carries it out knows who stands behind it"
    );
    // reads need nobody
    let ls = Subject::cluster("hosts", "ls").unwrap();
    let place = SignedBus::asking(inner.clone(), nobody(&now));
    assert_eq!(ask(&place, &ls, Headers::default()).await.unwrap()["by"], json!(null));
    assert_eq!(done(), 2);
    // a place without a key doesn't even send a command; one that sends it bare is refused
    assert_eq!(ask(&place, &drain(), Headers::default()).await, Err(Code::Denied));
    assert_eq!(ask(&*inner, &drain(), Headers::default()).await, Err(Code::Denied));
    // a header that names a sender, from outside, says nothing
    let claims = Headers {
        sender: Some(host("h1")),
        ..Headers::default()
    };
    assert_eq!(ask(&*inner, &ls, claims).await.unwrap()["by"], json!(null));
    assert_eq!(done(), 3);

    // what a member signed, sent again by somebody who listened: to the same host and to the other one
    let mut captured = Headers::default();
    member(3, &now).sign_request(&drain(), &mut captured, b"{}").unwrap();
    let mut outcomes = Vec::new();
    for _ in 0..4 {
        outcomes.push(ask(&*inner, &drain(), captured.clone()).await);
    }
    assert_eq!(outcomes.iter().filter(|o| o.is_ok()).count(), 1, "{outcomes:?}");
    assert_eq!(done(), 4, "carried out once, on whichever host");
    let revoke = Subject::host(&HostId::new("h2").unwrap(), "hosts", "revoke").unwrap();
    let mut captured = Headers::default();
    member(3, &now).sign_request(&revoke, &mut captured, b"{}").unwrap();
    assert!(ask(&*inner, &revoke, captured.clone()).await.is_ok());
    assert_eq!(ask(&*inner, &revoke, captured.clone()).await, Err(Code::Denied));
    // for another host, or with another body
    let elsewhere = Subject::host(&HostId::new("h1").unwrap(), "hosts", "revoke").unwrap();
    assert_eq!(ask(&*inner, &elsewhere, captured).await, Err(Code::Denied));
    let refused: Vec<(Refusal, u64)> = two.fleet_of_test().refused();
    let of = |reason| refused.iter().find(|(r, _)| *r == reason).unwrap().1;
    assert!(of(Refusal::Replayed) >= 1, "{refused:?}");
    assert_eq!(done(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_put_out_is_not_heard_from_the_next_message_on() {
    let (now, inner, shared) = (Turned::at(1_000), Arc::new(InProcess::new()), state());
    let fleet = member(1, &now);
    let one = Arc::new(SignedBus::serving(inner.clone(), fleet.clone(), shared, "boot".into()));
    let done = serves(&one, "h1").await;
    let three = SignedBus::asking(inner, member(3, &now));
    assert!(ask(&three, &drain(), Headers::default()).await.is_ok());
    let mut out = row("h3", 2, &identity(3));
    out.revoked = true;
    fleet
        .book_mut()
        .hear(&super::stated("h2", &identity(2), out, vec![]))
        .unwrap();
    assert_eq!(ask(&three, &drain(), Headers::default()).await, Err(Code::Denied));
    assert_eq!(done.load(Ordering::SeqCst), 1);
}

fn record(request: serde_json::Value) -> Record {
    let new = NewJob {
        concern: "snapshot".into(),
        kind: "restore".into(),
        request_id: Some("r".into()),
        traceparent: None,
        target: Target::Host(HostId::new("h1").unwrap()),
        request,
    };
    let now = Now {
        ms: 1,
        text: "now".into(),
    };
    Record::accepted(JobId("01J".into()), new, &now)
}

#[tokio::test]
async fn a_job_is_what_its_submitter_signed() {
    let now = Turned::at(1_000_000);
    let (submits, own) = (SignedJobs::open(member(2, &now), state()).await.unwrap(), state());
    let takes = SignedJobs::open(member(1, &now), own.clone()).await.unwrap();
    let mut good = record(json!({"vm": "web1", "n": 1.5}));
    assert!(takes.check(&good).is_err(), "unsigned");
    submits.sign(&mut good).unwrap();
    // over its way through the servers
    let mut arrived = Record::decode(&serde_json::to_vec(&good).unwrap()).unwrap();
    assert_eq!(takes.check(&arrived), Ok(()));
    // what a worker writes is not signed by the submitter
    arrived.job.attempts = 3;
    arrived.job.host = Some(HostId::new("h1").unwrap());
    assert_eq!(takes.check(&arrived), Ok(()));
    let changes: [fn(&mut Record); 8] = [
        |r| r.job.id = JobId("01K".into()),
        |r| r.job.concern = "rack_scheduler".into(),
        |r| r.job.kind = "undo".into(),
        |r| r.job.request_id = None,
        |r| r.job.request_id = Some(String::new()),
        |r| r.job.target = None,
        |r| r.job.request = json!({"vm": "web2", "n": 1.5}),
        |r| r.retries = 1,
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let mut forged = good.clone();
        change(&mut forged);
        let error = takes.check(&forged).unwrap_err();
        assert_eq!(error.code, Code::Denied, "change {n}");
        assert!(takes.intact(&forged).is_err(), "change {n}: nor is it queued again");
    }
    // it counts for a week; whoever wants it then signs it anew
    now.advance(JOB_MS_MAX);
    assert_eq!(takes.check(&good), Ok(()));
    now.advance(1);
    assert!(takes.check(&good).unwrap_err().hint.unwrap().contains("jobs retry"));
    assert_eq!(takes.intact(&good), Ok(()));

    // once it has ended on a host it isn't begun there by the same word, also after a restart; a retry is another word
    submits.sign(&mut good).unwrap();
    assert_eq!(takes.check(&good), Ok(()));
    takes.ended(&good).await;
    let again = SignedJobs::open(member(1, &now), own).await.unwrap();
    for host in [&takes, &again] {
        assert_eq!(host.check(&good).unwrap_err().code, Code::Denied);
    }
    good.retries += 1;
    submits.sign(&mut good).unwrap();
    assert_eq!(again.check(&good), Ok(()));
}

fn order_key(name: &str) -> Key {
    Key::new(format!("hosts/orders/{name}")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_members_orders() {
    let (now, shared, own) = (Turned::at(1_000), state(), state());
    let of = |n: u8, own: &Arc<dyn State>| {
        let name = HostId::new(&format!("h{n}")).unwrap();
        SignedState::new(shared.clone(), own.clone(), member(n, &now), &name, &["hosts/orders/"])
    };
    let (one, two) = (of(1, &own), of(2, &state()));
    let key = order_key("h1");
    let mut watch = one.watch(&Prefix::below(&Key::new("hosts").unwrap()), 0).await.unwrap();
    two.put(&key, Bytes::from_static(b"\"drain\"")).await.unwrap();
    let drain_text = shared.get(&key).await.unwrap().unwrap().value;
    assert_eq!(one.get(&key).await.unwrap().unwrap().value, "\"drain\"");
    let told = |change: Option<state::Result<Change>>| match change.unwrap().unwrap() {
        Change::Put(entry) => entry.value,
        other => panic!("{other:?}"),
    };
    assert_eq!(told(watch.next().await), "\"drain\"");
    // in the same millisecond, and later all the same
    two.put(&key, Bytes::from_static(b"\"cordon\"")).await.unwrap();
    assert_eq!(one.get(&key).await.unwrap().unwrap().value, "\"cordon\"");
    assert_eq!(told(watch.next().await), "\"cordon\"");
    // a thief with the servers: bare, in another's name, under another key, an old one again, and nothing at all
    let other_key = drain_text.clone();
    let forgeries = [
        Bytes::from_static(b"\"serve\""),
        drain_text,
        Bytes::from_static(b"{\"value\":\"\\\"serve\\\"\",\"stamp\":\"v1.host:h1.1.x.y\"}"),
    ];
    for forged in forgeries {
        shared.put(&key, forged).await.unwrap();
        assert_eq!(one.get(&key).await.unwrap().unwrap().value, "\"cordon\"");
        assert_eq!(told(watch.next().await), "\"cordon\"", "the last good one counts on");
    }
    shared.put(&order_key("h2"), other_key).await.unwrap();
    assert_eq!(two.get(&order_key("h2")).await.unwrap(), None);
    shared.delete(&key, None).await.unwrap();
    assert_eq!(one.get(&key).await.unwrap().unwrap().value, "\"cordon\"");
    assert_eq!(told(watch.next().await), "\"cordon\"");
    // and over a restart
    let again = of(1, &own);
    assert_eq!(again.get(&key).await.unwrap().unwrap().value, "\"cordon\"");
    assert!(one.delete(&key, None).await.is_err());
    // what isn't an order passes by
    one.put(&Key::new("hosts/beats/h1").unwrap(), Bytes::from_static(b"beat"))
        .await
        .unwrap();
    assert_eq!(
        shared
            .get(&Key::new("hosts/beats/h1").unwrap())
            .await
            .unwrap()
            .unwrap()
            .value,
        "beat"
    );
}
