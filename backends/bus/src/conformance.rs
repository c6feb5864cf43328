//! What every bus has to pass, in one process or over a network, bare or decorated.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use wire::subject::EventFilter;
use wire::{Address, Code, ConcernName, ErrorBody, Headers, HostId, Subject};

use crate::{Bus, Endpoint, Events, Incoming, Kind, PAYLOAD_BYTES_MAX, Received, Service, answer_bytes, call_json};

/// Runs the whole suite; `make` gives a bus that nobody uses each time.
///
/// # Panics
/// When the bus fails it.
pub async fn all<F: Future<Output = Arc<dyn Bus>>>(make: impl Fn() -> F) {
    a_request_is_answered(&*make().await).await;
    nobody_is_unavailable(&*make().await).await;
    hosts_are_addressed_and_clusters_take_turns(&*make().await).await;
    a_full_queue_is_busy(&*make().await).await;
    patience_ends(&*make().await).await;
    a_server_that_leaves_is_unavailable(&*make().await).await;
    a_closed_server_finishes_what_it_took(&*make().await).await;
    payloads_are_limited(&*make().await).await;
    events_reach_who_wants_them(&*make().await).await;
    a_slow_subscriber_loses_its_oldest(&*make().await).await;
    nonsense_is_refused(&*make().await).await;
}

fn host(name: &str) -> HostId {
    HostId::new(name).expect("a host")
}

fn concern() -> ConcernName {
    ConcernName::new("mill").expect("a concern")
}

fn service(on: &str, queue_requests_max: usize) -> Service {
    Service {
        concern: concern(),
        host: host(on),
        endpoints: vec![
            Endpoint {
                verb: "any",
                address: Address::Cluster,
            },
            Endpoint {
                verb: "here",
                address: Address::Host,
            },
        ],
        queue_requests_max,
    }
}

fn any() -> Subject {
    Subject::cluster("mill", "any").expect("a subject")
}

fn here(on: &str) -> Subject {
    Subject::host(&host(on), "mill", "here").expect("a subject")
}

fn event(what: &str) -> Subject {
    Subject::event("mill", what).expect("a subject")
}

fn patience(timeout_ms: u64) -> Headers {
    Headers {
        timeout_ms: Some(timeout_ms),
        ..Headers::default()
    }
}

/// Asks and folds both sorts of error into one, as a caller sees it.
async fn ask(bus: &dyn Bus, subject: &Subject) -> Result<Value, ErrorBody> {
    call_json(bus, subject, &json!({"n": 1}), patience(5_000)).await
}

/// Answers everything with the host's name.
fn serve_all(mut incoming: Incoming, name: &'static str) -> tokio::task::JoinHandle<u64> {
    tokio::spawn(async move {
        let mut served = 0;
        while let Some(delivery) = incoming.next().await {
            delivery.responder.answer(answer_bytes(Ok(json!(name))));
            served += 1;
        }
        served
    })
}

async fn a_request_is_answered(bus: &dyn Bus) {
    let mut incoming = bus.serve(service("h1", 8)).await.expect("serve");
    let headers = Headers {
        timeout_ms: Some(5_000),
        request_id: Some("r-1".into()),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        ..Headers::default()
    };
    let subject = here("h1");
    let asked = bus.request(&subject, headers.clone(), Bytes::from_static(b"{\"n\":7}"));
    let served = async {
        let delivery = incoming.next().await.expect("a request");
        assert_eq!(delivery.subject, here("h1"));
        assert_eq!(delivery.payload, "{\"n\":7}");
        assert_eq!(
            (&delivery.headers.request_id, &delivery.headers.traceparent),
            (&headers.request_id, &headers.traceparent)
        );
        let left = delivery.headers.timeout_ms.expect("the remaining time");
        assert!(left <= 5_000, "never more than the asker gave");
        let deadline = delivery.deadline.expect("a deadline");
        assert!(deadline <= tokio::time::Instant::now() + Duration::from_millis(5_000));
        delivery.responder.answer(Bytes::from_static(b"{\"ok\":1}"));
    };
    let (answer, ()) = futures::join!(asked, served);
    assert_eq!(answer.expect("an answer"), "{\"ok\":1}");
    let refused = ErrorBody::new(Code::NotFound, "none").hint("look elsewhere");
    let server = async {
        let delivery = incoming.next().await.expect("a request");
        delivery.responder.answer(answer_bytes(Err(refused.clone())));
    };
    let (answer, ()) = futures::join!(ask(bus, &subject), server);
    assert_eq!(answer.expect_err("the server's own error"), refused);
}

async fn nobody_is_unavailable(bus: &dyn Bus) {
    for subject in [any(), here("h1")] {
        let error = ask(bus, &subject).await.expect_err("nobody serves");
        assert_eq!(error.code, Code::Unavailable);
        assert!(error.message.contains(&subject.to_string()), "{}", error.message);
    }
}

async fn hosts_are_addressed_and_clusters_take_turns(bus: &dyn Bus) {
    let one = serve_all(bus.serve(service("h1", 8)).await.expect("serve"), "h1");
    let two = serve_all(bus.serve(service("h2", 8)).await.expect("serve"), "h2");
    for _ in 0..4 {
        assert_eq!(ask(bus, &here("h1")).await.expect("h1"), json!("h1"));
        assert_eq!(ask(bus, &here("h2")).await.expect("h2"), json!("h2"));
    }
    assert_eq!(
        ask(bus, &here("h3")).await.expect_err("no such host").code,
        Code::Unavailable
    );
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..64 {
        seen.insert(ask(bus, &any()).await.expect("any").to_string());
    }
    assert_eq!(seen.len(), 2, "both hosts of the queue group were asked");
    one.abort();
    let _ended = one.await;
    for _ in 0..4 {
        assert_eq!(ask(bus, &any()).await.expect("who is left answers"), json!("h2"));
    }
    two.abort();
}

async fn a_full_queue_is_busy(bus: &dyn Bus) {
    let mut incoming = bus.serve(service("h1", 2)).await.expect("serve");
    let subject = here("h1");
    let crowd = futures::future::join_all((0..8).map(|_| ask(bus, &subject)));
    let server = async {
        // nothing is taken up until the crowd is there
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut served = 0;
        while let Ok(Some(delivery)) = tokio::time::timeout(Duration::from_millis(300), incoming.next()).await {
            delivery.responder.answer(answer_bytes(Ok(json!(1))));
            served += 1;
        }
        served
    };
    let (answers, served) = futures::join!(crowd, server);
    let busy: Vec<&ErrorBody> = answers.iter().filter_map(|a| a.as_ref().err()).collect();
    assert_eq!(busy.len() + served, 8, "each one was served or heard of it");
    assert!(!busy.is_empty());
    assert!(
        busy.iter().all(|e| e.code == Code::Busy && e.retry_after_ms.is_some()),
        "{busy:?}"
    );
}

async fn patience_ends(bus: &dyn Bus) {
    let mut incoming = bus.serve(service("h1", 2)).await.expect("serve");
    let error = call_json(bus, &here("h1"), &json!(1), patience(40))
        .await
        .expect_err("no answer");
    assert_eq!(error.code, Code::Deadline);
    let late = incoming.next().await.expect("it was delivered all the same");
    assert!(
        late.deadline.expect("a deadline") <= tokio::time::Instant::now(),
        "the server sees that it is late"
    );
    late.responder.answer(Bytes::from_static(b"{\"ok\":1}"));
}

async fn a_server_that_leaves_is_unavailable(bus: &dyn Bus) {
    let mut incoming = bus.serve(service("h1", 2)).await.expect("serve");
    let server = async {
        drop(incoming.next().await.expect("a request"));
        drop(incoming);
    };
    let subject = here("h1");
    let (answer, ()) = futures::join!(ask(bus, &subject), server);
    assert_eq!(answer.expect_err("dropped").code, Code::Unavailable);
    assert_eq!(ask(bus, &subject).await.expect_err("gone").code, Code::Unavailable);
}

async fn a_closed_server_finishes_what_it_took(bus: &dyn Bus) {
    let mut incoming = bus.serve(service("h1", 4)).await.expect("serve");
    let subject = here("h1");
    let server = async {
        let first = incoming.next().await.expect("a request");
        // the second is on its way
        tokio::time::sleep(Duration::from_millis(200)).await;
        incoming.close();
        first.responder.answer(answer_bytes(Ok(json!(1))));
        let refused = ask(bus, &subject).await.expect_err("closed").code;
        let second = incoming.next().await.expect("what was queued comes out");
        second.responder.answer(answer_bytes(Ok(json!(2))));
        assert!(incoming.next().await.is_none());
        refused
    };
    let (first, second, refused) = futures::join!(ask(bus, &subject), ask(bus, &subject), server);
    assert_eq!((first.expect("first"), second.expect("second")), (json!(1), json!(2)));
    assert_eq!(refused, Code::Unavailable);
}

async fn payloads_are_limited(bus: &dyn Bus) {
    let mut incoming = bus.serve(service("h1", 2)).await.expect("serve");
    let large = Bytes::from(vec![b'x'; PAYLOAD_BYTES_MAX + 1]);
    let error = bus
        .request(&here("h1"), patience(1_000), large.clone())
        .await
        .expect_err("too large");
    assert_eq!(error.kind, Kind::Invalid);
    assert!(error.is_permanent());
    assert_eq!(
        bus.publish(&event("made"), large).await.expect_err("too large").kind,
        Kind::Invalid
    );
    let subject = here("h1");
    let asked = bus.request(&subject, patience(5_000), Bytes::from(vec![b'x'; PAYLOAD_BYTES_MAX]));
    let server = async {
        let delivery = incoming.next().await.expect("the largest passes");
        assert_eq!(delivery.payload.len(), PAYLOAD_BYTES_MAX);
        delivery.responder.answer(Bytes::from_static(b"{\"ok\":1}"));
    };
    let (answer, ()) = futures::join!(asked, server);
    answer.expect("an answer");
}

async fn next_event(events: &mut Events) -> Received {
    let event = tokio::time::timeout(Duration::from_secs(5), events.next()).await;
    event.expect("an event in time").expect("no end")
}

fn is_event(received: &Received, what: &str, payload: &'static str) -> bool {
    *received
        == Received::Event {
            subject: event(what),
            payload: Bytes::from_static(payload.as_bytes()),
        }
}

async fn events_reach_who_wants_them(bus: &dyn Bus) {
    let mut all = bus.subscribe(EventFilter::All, 16).await.expect("subscribe");
    let mut mill = bus
        .subscribe(EventFilter::Concern(concern()), 16)
        .await
        .expect("subscribe");
    let made_only = EventFilter::Exactly(concern(), "made".into());
    let mut made = bus.subscribe(made_only, 16).await.expect("subscribe");
    let other = Subject::event("forge", "made").expect("a subject");
    for (subject, payload) in [(&other, "0"), (&event("lost"), "1"), (&event("made"), "2")] {
        bus.publish(subject, Bytes::from_static(payload.as_bytes()))
            .await
            .expect("publish");
    }
    assert!(matches!(next_event(&mut all).await, Received::Event { subject, .. } if subject == other));
    for events in [&mut all, &mut mill] {
        assert!(is_event(&next_event(events).await, "lost", "1"));
        assert!(is_event(&next_event(events).await, "made", "2"));
    }
    assert!(is_event(&next_event(&mut made).await, "made", "2"));
    let quiet = tokio::time::timeout(Duration::from_millis(50), made.next()).await;
    assert!(quiet.is_err(), "nothing else");
}

async fn a_slow_subscriber_loses_its_oldest(bus: &dyn Bus) {
    let mut slow = bus.subscribe(EventFilter::All, 4).await.expect("subscribe");
    let mut quick = bus.subscribe(EventFilter::All, 64).await.expect("subscribe");
    for n in 0..10_u8 {
        let subject = event("made");
        let published = bus.publish(&subject, Bytes::from(vec![b'0' + n]));
        tokio::time::timeout(Duration::from_secs(5), published)
            .await
            .expect("never waits")
            .expect("publish");
    }
    for n in 0..10_u8 {
        let Received::Event { payload, .. } = next_event(&mut quick).await else {
            panic!("the quick one loses nothing")
        };
        assert_eq!(payload[..], [b'0' + n]);
    }
    // the slow one's have come by now, too
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (mut lost, mut got) = (0, Vec::new());
    while lost + got.len() as u64 != 10 {
        match next_event(&mut slow).await {
            Received::Lost(count) => lost += count,
            Received::Event { payload, .. } => got.push(payload[0]),
        }
    }
    assert_eq!(got.last(), Some(&b'9'), "the newest are kept");
    assert!(lost > 0 && slow.lost_total() == lost, "told and counted: {lost}");
}

async fn nonsense_is_refused(bus: &dyn Bus) {
    let asked = bus
        .request(&event("made"), patience(100), Bytes::new())
        .await
        .expect_err("an event isn't asked");
    assert_eq!(asked.kind, Kind::Invalid);
    let published = bus
        .publish(&any(), Bytes::new())
        .await
        .expect_err("a request isn't published");
    assert_eq!(published.kind, Kind::Invalid);
    assert_eq!(
        bus.serve(service("h1", 0)).await.expect_err("no room").kind,
        Kind::Invalid
    );
    assert_eq!(
        bus.subscribe(EventFilter::All, 0).await.expect_err("no room").kind,
        Kind::Invalid
    );
    let bad_verb = Service {
        endpoints: vec![Endpoint {
            verb: "a b",
            address: Address::Host,
        }],
        ..service("h1", 1)
    };
    assert_eq!(bus.serve(bad_verb).await.expect_err("no verb").kind, Kind::Invalid);
}
