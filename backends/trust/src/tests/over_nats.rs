//! Over a real server, with whole houses: and a thief who may write whatever he likes to it.

mod houses;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use jobs::{Jobs, Record};
use serde_json::{Value, json};
use state::Key;
use wire::hosts::{HostDrain, HostList, HostOrder};
use wire::job::{JobId, JobState};
use wire::subject::JobSubject;
use wire::{Code, Headers, Sender};

use houses::{Grind, PATIENCE, World, id};

/// Three hosts, the clocks of two ten minutes off to both sides: they command one another, and the one that is put out is out
/// within a round trip.
#[tokio::test(flavor = "multi_thread")]
async fn hosts_command_one_another_until_one_is_put_out() {
    let world = World::new("trust-fleet");
    let one = world.host("h1", 0).await.unwrap();
    assert_eq!(world.host("h2", 0).await.map(|_| ()).unwrap_err().code, Code::Denied);
    for name in ["h2", "h3"] {
        assert_eq!(world.join(&one, name).await.epoch, 1);
    }
    let two = world.host("h2", 600_000).await.unwrap();
    let three = world.host("h3", -600_000).await.unwrap();
    for (from, to) in [(&one, "h2"), (&two, "h3"), (&three, "h1"), (&two, "h2")] {
        let job = from.call(to, &Grind { n: 1 }).await.unwrap().job;
        from.is(&job, JobState::Done).await;
    }
    let drained = two.call("h1", &HostDrain { host: id("h3") }).await.unwrap();
    assert_eq!(drained.order, HostOrder::Drain);

    // h3 commands without a pause, and h1 puts it out: how long is it heard?
    let (heard, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let asking = tokio::spawn({
        let (bus, heard, refused) = (three.bus.clone(), heard.clone(), refused.clone());
        async move {
            loop {
                let answer = bus::call(&*bus, &id("h2"), &Grind { n: 7 }, Headers::default()).await;
                match answer {
                    Ok(_) => heard.fetch_add(1, Ordering::SeqCst),
                    Err(e) if e.code == Code::Denied => refused.fetch_add(1, Ordering::SeqCst),
                    Err(_) => 0,
                };
            }
        }
    });
    while heard.load(Ordering::SeqCst) < 20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let began = tokio::time::Instant::now();
    one.membership.revoke(&Sender::Host(id("h3"))).await.unwrap();
    let (told, behind) = (began.elapsed(), heard.load(Ordering::SeqCst));
    while refused.load(Ordering::SeqCst) == 0 {
        assert!(began.elapsed() < PATIENCE, "never refused");
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    let out = began.elapsed();
    let late = heard.load(Ordering::SeqCst) - behind;
    eprintln!(
        "put out: written after {told:?}, refused elsewhere after {out:?}; {late} requests were heard behind the answer"
    );
    let after = heard.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(heard.load(Ordering::SeqCst), after, "once out it stays out");
    asking.abort();
    tokio::time::timeout(PATIENCE, three.membership.fleet().put_out())
        .await
        .unwrap();
    for host in [one, two, three] {
        host.leave().await;
    }
}

/// Jobs that a thief puts into the stream, and jobs that he changes.
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_job_never_runs() {
    let world = World::new("trust-jobs");
    let one = world.host("h1", 0).await.unwrap();
    let thief = world.thief().await;
    let put = |record: &Record| {
        let at = JobSubject::new("mill", Some(&id("h1")), &record.job.id)
            .unwrap()
            .to_string();
        let (thief, payload) = (thief.clone(), Bytes::from(serde_json::to_vec(record).unwrap()));
        async move { thief.publish(at, payload).await.unwrap().await.unwrap() }
    };
    let fresh = |name: &str, n: u64| {
        let new = jobs::NewJob {
            concern: "mill".into(),
            kind: "grind".into(),
            request_id: None,
            traceparent: None,
            target: jobs::Target::Host(id("h1")),
            request: json!({"n": n}),
        };
        let now = jobs::Now {
            ms: 1,
            text: "2026-11-25T00:00:00Z".into(),
        };
        Record::accepted(JobId(name.into()), new, &now)
    };
    // no signature, and one that he made up
    let bare = fresh("01JAAAAAAAAAAAAAAAAAAAAAAA", 666);
    put(&bare).await;
    let dead = one.is(&bare.job.id, JobState::Dead).await;
    let why = dead.error.unwrap();
    assert_eq!(why.code, Code::Denied, "{why:?}");
    let mut forged = fresh("01JBBBBBBBBBBBBBBBBBBBBBBB", 666);
    let stamp = crate::core::stamp::Stamp::new(
        &super::identity(66),
        crate::core::stamp::Domain::Job,
        &super::host("h1"),
        one.membership.fleet().now_ms(),
        [1; 16],
        &[],
    );
    forged.authority = Some(stamp.to_string());
    put(&forged).await;
    one.is(&forged.job.id, JobState::Dead).await;

    // a good one, once it is done: its message again, under its id, as a retry, and under another id
    let good = one.call("h1", &Grind { n: 1 }).await.unwrap().job;
    let mut copy: Option<Record> = None;
    let records = thief.get_stream("KV_windlass_jobs").await.unwrap();
    one.is(&good, JobState::Done).await;
    let raw = records
        .get_last_raw_message_by_subject(&format!("$KV.windlass_jobs.job.*.{good}"))
        .await
        .unwrap();
    let kept: Value = serde_json::from_slice(&raw.payload).unwrap();
    copy.replace(serde_json::from_value(kept["record"].clone()).unwrap());
    let mut copy = copy.unwrap();
    copy.job.state = JobState::Queued;
    assert!(copy.authority.is_some());
    put(&copy).await;
    let mut retried = copy.clone();
    retried.retries = 1;
    put(&retried).await;
    let mut renamed = copy.clone();
    renamed.job.id = JobId("01JCCCCCCCCCCCCCCCCCCCCCCC".into());
    put(&renamed).await;
    one.is(&renamed.job.id, JobState::Dead).await;
    // a person can't be brought to bless what nobody signed
    let error = one.jobs.retry(&renamed.job.id).await.unwrap_err();
    assert_eq!(error.kind, jobs::Kind::Denied, "{error}");
    assert_eq!(
        one.jobs.show(&good).await.unwrap().state,
        JobState::Done,
        "what has ended stays so"
    );
    // its record taken away, and its message put back: as the servers' owner could, or an old copy of their store
    let taken_away = format!("$KV.windlass_jobs.job.*.{good}");
    records.purge().filter(taken_away).await.unwrap();
    put(&copy).await;
    let dead = one.is(&good, JobState::Dead).await;
    assert!(dead.error.unwrap().message.contains("heard before"));
    // and something honest behind all that, so that the queue is empty
    let last = one.call("h1", &Grind { n: 2 }).await.unwrap().job;
    one.is(&last, JobState::Done).await;
    assert_eq!((one.ground(1), one.ground(2), one.ground(666)), (1, 1, 0));
    one.leave().await;
}

/// Orders, members and requests that a thief writes or sends by himself.
#[tokio::test(flavor = "multi_thread")]
async fn a_thief_with_the_servers_commands_nobody() {
    let world = World::new("trust-thief");
    let one = world.host("h1", 0).await.unwrap();
    one.call("h1", &HostDrain { host: id("h1") }).await.unwrap();
    let thief = world.thief().await;
    for value in ["\"serve\"", "{\"value\":\"\\\"serve\\\"\",\"stamp\":\"\"}"] {
        thief
            .publish("$KV.windlass.hosts.orders.h1", value.into())
            .await
            .unwrap()
            .await
            .unwrap();
    }
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("KV-Operation", "DEL");
    thief
        .publish_with_headers("$KV.windlass.hosts.orders.h1", headers, Bytes::new())
        .await
        .unwrap()
        .await
        .unwrap();
    // what comes behind it in the same watch tells that it was looked at
    one.state
        .put(&Key::new("hosts/orders/h9").unwrap(), Bytes::from_static(b"\"drain\""))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    let listed = one.call("h1", &HostList {}).await.unwrap();
    assert_eq!(listed.hosts[0].order, HostOrder::Drain, "a forged order is no order");

    // a member that nobody let in
    let mut row = super::row("x", 1, &super::identity(66));
    row.may_admit = true;
    let forged = super::stated("h1", &super::identity(66), row, vec![]);
    let at = "$KV.windlass.trust.members.host.x";
    let forged = serde_json::to_vec(&forged).unwrap();
    thief.publish(at, forged.into()).await.unwrap().await.unwrap();
    // requests: bare, and what he heard, again
    let client = async_nats::connect(world.server.url()).await.unwrap();
    let subject = "windlass.v1.host.h1.mill.grind";
    let mut listening = client.subscribe(subject).await.unwrap();
    client.flush().await.unwrap();
    // the server may hear of the listener after it hears of the first request
    let heard = loop {
        one.call("h1", &Grind { n: 5 }).await.unwrap();
        if let Ok(Some(heard)) = tokio::time::timeout(Duration::from_millis(500), listening.next()).await {
            break heard;
        }
    };
    let again = client
        .request_with_headers(subject, heard.headers.unwrap(), heard.payload.clone())
        .await;
    let bare = client.request(subject, heard.payload).await;
    for answer in [again, bare] {
        let answer: wire::Answer<Value> = serde_json::from_slice(&answer.unwrap().payload).unwrap();
        assert_eq!(answer.into_result().unwrap_err().code, Code::Denied);
    }
    assert!(one.membership.fleet().book().entry(&super::host("x")).is_none());
    let refused: BTreeMap<&str, u64> = one
        .membership
        .fleet()
        .refused()
        .into_iter()
        .map(|(reason, n)| (reason.as_str(), n))
        .collect();
    for reason in ["unsigned", "unreadable", "altered", "replayed"] {
        assert!(refused[reason] > 0, "{reason} is counted: {refused:?}");
    }
    one.leave().await;
}
