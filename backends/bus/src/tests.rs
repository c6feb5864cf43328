use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use serde_json::{Value, json};
use wire::event::CloudEvent;
use wire::house::{ConcernFailed, Status};
use wire::subject::EventFilter;
use wire::{Code, ConcernName, ErrorBody, Headers, HostId, Request, Subject, Topic};

use crate::{
    Bus, Endpoint, Faults, Faulty, InProcess, PAYLOAD_BYTES_MAX, Received, Service, announce, answer_bytes, call,
    conformance,
};

fn host() -> HostId {
    HostId::new("h1").unwrap()
}

fn service() -> Service {
    Service {
        concern: ConcernName::new("house").unwrap(),
        host: host(),
        endpoints: vec![Endpoint::of::<Status>()],
        queue_requests_max: 64,
    }
}

#[tokio::test]
async fn the_bus_in_process_conforms() {
    conformance::all(|| async { Arc::new(InProcess::new()) as Arc<dyn Bus> }).await;
}

#[tokio::test]
async fn the_faulty_bus_without_faults_conforms() {
    let make = || async {
        let inner: Arc<dyn Bus> = Arc::new(InProcess::new());
        Arc::new(Faulty::new(inner, Faults::default())) as Arc<dyn Bus>
    };
    conformance::all(make).await;
}

#[tokio::test]
async fn typed_messages_go_both_ways() {
    let bus = InProcess::new();
    let mut incoming = bus.serve(service()).await.unwrap();
    let (on, request, headers) = (host(), Status {}, Headers::default());
    let asked = call(&bus, &on, &request, headers.clone());
    let served = async {
        let reply = serde_json::to_value(Status::sample_reply()).unwrap();
        incoming.next().await.unwrap().responder.answer(answer_bytes(Ok(reply)));
    };
    let (reply, ()) = futures::join!(asked, served);
    assert_eq!(reply.unwrap(), Status::sample_reply());
    let asked = call(&bus, &on, &request, headers);
    let served = async {
        incoming
            .next()
            .await
            .unwrap()
            .responder
            .answer(Bytes::from_static(b"{\"ok\":{}}"))
    };
    let (reply, ()) = futures::join!(asked, served);
    assert_eq!(
        reply.unwrap_err().code,
        Code::Internal,
        "an answer that can't be read shows"
    );

    let filter = EventFilter::parse("windlass.v1.event.house.concern_failed").unwrap();
    let mut events = bus.subscribe(filter, 4).await.unwrap();
    let event = CloudEvent::new(
        "01JCXQ6Y9D3W6V3S1W8Y5Z4K2M".into(),
        &host(),
        "t".into(),
        ConcernFailed::sample(),
    );
    announce(&bus, &event).await.unwrap();
    let Some(Received::Event { payload, .. }) = events.next().await else {
        panic!("an event")
    };
    assert_eq!(
        serde_json::from_slice::<CloudEvent<ConcernFailed>>(&payload).unwrap(),
        event
    );
}

#[tokio::test]
async fn headers_that_a_network_would_refuse_are_refused() {
    let bus = InProcess::new();
    let _incoming = bus.serve(service()).await.unwrap();
    let headers = Headers {
        request_id: Some("x".repeat(Headers::VALUE_BYTES_MAX + 1)),
        ..Headers::default()
    };
    assert_eq!(
        call(&bus, &host(), &Status {}, headers).await.unwrap_err().code,
        Code::Invalid
    );
}

#[tokio::test]
async fn a_subscriber_that_has_gone_is_forgotten_and_losses_are_counted() {
    let bus = InProcess::new();
    let subject = Subject::event("mill", "made").unwrap();
    drop(bus.subscribe(EventFilter::All, 1).await.unwrap());
    let slow = bus.subscribe(EventFilter::All, 1).await.unwrap();
    for _ in 0..3 {
        bus.publish(&subject, Bytes::new()).await.unwrap();
    }
    assert_eq!((bus.events_lost(), slow.lost_total()), (2, 2));
    drop(slow);
    bus.publish(&subject, Bytes::new()).await.unwrap();
    assert_eq!(bus.events_lost(), 2);
}

#[test]
fn an_answer_that_is_too_large_becomes_an_error() {
    let bytes = answer_bytes(Ok(Value::String("x".repeat(PAYLOAD_BYTES_MAX))));
    let answer: wire::Answer<Value> = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(answer.into_result().unwrap_err().code, Code::Internal);
}

/// Asks 200 times; returns what each asker heard and how many requests the server saw.
async fn under(faults: Faults) -> (Vec<Result<Value, ErrorBody>>, usize) {
    let inner = Arc::new(InProcess::new());
    let mut incoming = inner.serve(service()).await.unwrap();
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = seen.clone();
    let server = tokio::spawn(async move {
        while let Some(delivery) = incoming.next().await {
            counted.fetch_add(1, Ordering::SeqCst);
            delivery.responder.answer(answer_bytes(Ok(json!(1))));
        }
    });
    let bus = Faulty::new(inner.clone(), faults);
    let subject = Status::subject(&host()).unwrap();
    let headers = Headers {
        timeout_ms: Some(1_000),
        ..Headers::default()
    };
    let mut heard = Vec::new();
    for _ in 0..200 {
        heard.push(crate::call_json(&bus, &subject, &json!({}), headers.clone()).await);
    }
    server.abort();
    (heard, seen.load(Ordering::SeqCst))
}

#[tokio::test(start_paused = true)]
async fn faults_follow_their_seed() {
    let faults = |seed| Faults {
        seed,
        delay_ms_max: 5,
        drop_request_per_mille: 200,
        drop_answer_per_mille: 200,
        duplicate_per_mille: 200,
        drop_event_per_mille: 0,
    };
    let pattern = |heard: &[Result<Value, ErrorBody>]| heard.iter().map(Result::is_ok).collect::<Vec<_>>();
    let (first, seen) = under(faults(7)).await;
    let (again, _) = under(faults(7)).await;
    let (other, _) = under(faults(8)).await;
    assert_eq!(pattern(&first), pattern(&again));
    assert_ne!(pattern(&first), pattern(&other));
    let lost = first.iter().filter(|r| r.is_err()).count();
    assert!(
        (40..120).contains(&lost),
        "about 36 of 100 are lost on one way or the other: {lost} of 200"
    );
    let duplicates = Faults {
        duplicate_per_mille: 1_000,
        ..Faults::default()
    };
    assert_eq!(under(duplicates).await.1, 400, "each one arrives twice");
    assert!(seen > 150 && seen < 250, "some never arrive, some arrive twice: {seen}");
    assert!(
        first
            .iter()
            .flat_map(|r| r.as_ref().err())
            .all(|e| e.code == Code::Deadline)
    );
}
