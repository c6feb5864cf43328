use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bus::{Bus, Endpoint, Faults, Faulty, Received, Service, answer_bytes, call_json, conformance};
use bytes::Bytes;
use integration::nats::Cluster;
use serde_json::json;
use wire::subject::EventFilter;
use wire::{Address, Code, ConcernName, ErrorBody, Headers, HostId, Subject};

use super::*;

fn service(on: &str, queue_requests_max: usize) -> Service {
    Service {
        concern: ConcernName::new("mill").unwrap(),
        host: HostId::new(on).unwrap(),
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

fn here() -> Subject {
    Subject::host(&HostId::new("h1").unwrap(), "mill", "here").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bus_over_nats_conforms_bare_and_under_the_decorator() {
    let scratch = Scratch::new("bus").unwrap();
    let server = Server::start(&scratch.join("n1")).unwrap();
    conformance::all(|| async { Arc::new(bus_at(&server.url()).await) as Arc<dyn Bus> }).await;
    conformance::all(|| async {
        let inner = Arc::new(bus_at(&server.url()).await) as Arc<dyn Bus>;
        Arc::new(Faulty::new(inner, Faults::default())) as Arc<dyn Bus>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bus_over_a_cluster_conforms() {
    let scratch = Scratch::new("bus-cluster").unwrap();
    let cluster = Cluster::start(scratch.path()).unwrap();
    conformance::all(|| async { Arc::new(bus_at(&cluster.urls()).await) as Arc<dyn Bus> }).await;
    let bus = bus_at(&cluster.urls()).await;
    assert_eq!(bus.lattice().replicas(), 3);
}

/// Whatever is sent to an endpoint, by whomever, is answered, and the next request is served.
#[tokio::test(flavor = "multi_thread")]
async fn nonsense_from_outside_is_answered() {
    let scratch = Scratch::new("bus").unwrap();
    let server = Server::start(&scratch.join("n1")).unwrap();
    let bus = bus_at(&server.url()).await;
    let mut incoming = bus.serve(service("h1", 8)).await.unwrap();
    let served = tokio::spawn(async move {
        while let Some(delivery) = incoming.next().await {
            delivery
                .responder
                .answer(answer_bytes(Ok(json!(delivery.payload.len()))));
        }
    });
    let outside = async_nats::connect(server.url()).await.unwrap();
    let ask = |headers: async_nats::HeaderMap, payload: Vec<u8>| {
        outside.request_with_headers(here().to_string(), headers, payload.into())
    };
    let error = |message: async_nats::Message| {
        let headers = message.headers.expect("error headers");
        let answer: wire::Answer<serde_json::Value> = serde_json::from_slice(&message.payload).unwrap();
        let error = answer.into_result().unwrap_err();
        assert_eq!(
            headers.get("Nats-Service-Error-Code").unwrap().as_str(),
            error.code.http_status().to_string()
        );
        assert!(
            headers
                .get("Nats-Service-Error")
                .unwrap()
                .as_str()
                .contains(&error.message)
        );
        error.code
    };
    let mut bad = async_nats::HeaderMap::new();
    bad.insert("Windlass-Timeout-Ms", "soon");
    assert_eq!(error(ask(bad, vec![]).await.unwrap()), Code::Invalid);
    let mut long = async_nats::HeaderMap::new();
    long.insert("traceparent", "x".repeat(300).as_str());
    assert_eq!(error(ask(long, vec![]).await.unwrap()), Code::Invalid);
    let large = ask(async_nats::HeaderMap::new(), vec![b'x'; bus::PAYLOAD_BYTES_MAX + 1])
        .await
        .unwrap();
    assert_eq!(error(large), Code::Invalid);
    // another version's subject has nobody, and says so at once
    let v2 = here().to_string().replace(".v1.", ".v2.");
    let nobody = outside.request(v2, Bytes::new()).await.unwrap_err();
    assert_eq!(nobody.kind(), async_nats::RequestErrorKind::NoResponders);
    // without a reply subject there is nobody to answer, and nothing is done
    outside.publish(here().to_string(), Bytes::new()).await.unwrap();
    assert_eq!(
        call_json(&bus, &here(), &json!("x"), Headers::default()).await,
        Ok(json!(3))
    );
    served.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_for_an_answer_goes_with_its_asker() {
    let scratch = Scratch::new("bus").unwrap();
    let server = Server::start(&scratch.join("n1")).unwrap();
    let bus = bus_at(&server.url()).await;
    let _never_read = bus.serve(service("h1", 100)).await.unwrap();
    let impatient = Headers {
        timeout_ms: Some(20),
        ..Headers::default()
    };
    let (subject, request) = (here(), json!({}));
    let asked = (0..50).map(|_| call_json(&bus, &subject, &request, impatient.clone()));
    let heard = futures::future::join_all(asked).await;
    let late = |answer: &Result<_, ErrorBody>| answer.as_ref().is_err_and(|e| e.code == Code::Deadline);
    assert!(heard.iter().all(late), "{heard:?}");
    assert_eq!(bus.lattice().replies().waiting_count(), 0);
}

/// The server is killed and comes back: who served serves, who listened hears what was published meanwhile by others.
#[tokio::test(flavor = "multi_thread")]
async fn servers_and_subscribers_outlive_the_connection() {
    let scratch = Scratch::new("bus").unwrap();
    let mut server = Server::start(&scratch.join("n1")).unwrap();
    let bus = bus_at(&server.url()).await;
    let mut incoming = bus.serve(service("h1", 8)).await.unwrap();
    let served = tokio::spawn(async move {
        while let Some(delivery) = incoming.next().await {
            delivery.responder.answer(answer_bytes(Ok(json!(1))));
        }
    });
    let mut events = bus.subscribe(EventFilter::All, 64).await.unwrap();
    let made = Subject::event("mill", "made").unwrap();
    bus.publish(&made, Bytes::from_static(b"0")).await.unwrap();
    server.kill().unwrap();
    connecting::until(|| !bus.lattice().is_connected()).await;
    let down = bus.publish(&made, Bytes::from_static(b"lost")).await.unwrap_err();
    assert_eq!(down.kind, bus::Kind::Unavailable, "not acknowledged is an error");
    let down = call_json(&bus, &here(), &json!({}), Headers::default())
        .await
        .unwrap_err();
    assert_eq!(down.code, Code::Unavailable);
    server.restart().unwrap();
    // others are quicker to come back than we
    let quick = bus_at(&server.url()).await;
    for n in b'1'..b'5' {
        quick.publish(&made, Bytes::from(vec![n])).await.unwrap();
    }
    for n in b'0'..b'5' {
        let heard = tokio::time::timeout(Duration::from_secs(60), events.next())
            .await
            .unwrap();
        let Some(Received::Event { payload, .. }) = heard else {
            panic!("{heard:?}")
        };
        assert_eq!(payload[..], [n], "in order, none lost, none twice");
    }
    assert_eq!(
        call_json(&bus, &here(), &json!({}), Headers::default()).await,
        Ok(json!(1))
    );
    served.abort();
}

/// A host comes and goes while another one stays, under requests that either may answer: each is answered at once.
#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_leaves_nobody_unanswered() {
    let scratch = Scratch::new("bus").unwrap();
    let server = Server::start(&scratch.join("n1")).unwrap();
    let (goes, stays, asker) = (
        bus_at(&server.url()).await,
        bus_at(&server.url()).await,
        bus_at(&server.url()).await,
    );
    let serve = |mut incoming: bus::Incoming| async move {
        let mut served = 0_u64;
        while let Some(delivery) = incoming.next().await {
            delivery.responder.answer(answer_bytes(Ok(json!(1))));
            served += 1;
        }
        served
    };
    let _stays = tokio::spawn(serve(stays.serve(service("h2", 1_000)).await.unwrap()));
    let stop = Arc::new(AtomicBool::new(false));
    let any = Subject::cluster("mill", "any").unwrap();
    let askers: Vec<_> = (0..32)
        .map(|_| {
            let (stop, asker, any) = (stop.clone(), asker.clone(), any.clone());
            tokio::spawn(async move {
                let (patient, mut heard) = (patience(5_000), BTreeMap::<String, u64>::new());
                while !stop.load(Ordering::SeqCst) {
                    let answer = call_json(&asker, &any, &json!({}), patient.clone()).await;
                    let outcome = answer.map_or_else(|e| e.code.to_string(), |_| "ok".to_owned());
                    *heard.entry(outcome).or_default() += 1;
                }
                heard
            })
        })
        .collect();
    let mut served = 0;
    for _ in 0..200 {
        let mut incoming = goes.serve(service("h1", 1_000)).await.unwrap();
        for _ in 0..20 {
            incoming
                .next()
                .await
                .unwrap()
                .responder
                .answer(answer_bytes(Ok(json!(1))));
        }
        // what it has taken is answered, what is under way hears of its end
        incoming.close();
        served += serve(incoming).await;
    }
    stop.store(true, Ordering::SeqCst);
    let mut heard = BTreeMap::<String, u64>::new();
    for asker in askers {
        for (outcome, count) in asker.await.unwrap() {
            *heard.entry(outcome).or_default() += count;
        }
    }
    eprintln!("{heard:?}, {served} served behind a close");
    assert!(heard["ok"] > 1_000, "{heard:?}");
    let others = heard
        .keys()
        .filter(|outcome| !["ok", "unavailable"].contains(&outcome.as_str()));
    assert_eq!(others.count(), 0, "{heard:?}");
}

fn patience(timeout_ms: u64) -> Headers {
    Headers {
        timeout_ms: Some(timeout_ms),
        ..Headers::default()
    }
}
