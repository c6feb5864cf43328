//! Durable job submit beside bare JetStream publishes of the same job, in one run, alternated, with the same window:
//! `cargo bench -p windlass-nats --bench jobs_submit`.
//!
//! The bare publisher does what a person's would: it makes the job, serialises it, names it (`Nats-Msg-Id`, without which a second
//! try after a lost acknowledgement is a second job) and publishes it on one subject.
//! Both go to work-queue streams of the same configuration on the same servers, each acknowledged before it counts. On a cluster
//! both streams are led by the first server and both clients are connected to it: where the leader stands decides more than
//! what is sent. What is not equal: a submit has a subject of its own instead of a name, so that a waiting job can be found by
//! its id; the lines below each ratio say what a subject and a name cost a publisher of bytes that were made before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::jetstream;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use integration::nats::{Cluster, Server};
use integration::scratch::Scratch;
use jobs::{Jobs, Limits, NewJob, Record, Source, Target};
use serde_json::json;
use windlass_nats::{JetstreamJobs, JobsOptions, Lattice, Settings};
use wire::job::JobId;

const WINDOW: usize = 64;
const ROUNDS: usize = 5;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
fn now() -> Instant {
    Instant::now()
}

fn new() -> NewJob {
    NewJob {
        concern: "mill".into(),
        kind: "grind".into(),
        request_id: None,
        traceparent: None,
        target: Target::Any,
        request: json!({"vm": "web1", "disks": [{"path": "/srv/web1.raw"}]}),
    }
}

fn source() -> Source {
    Source {
        now_ms: Arc::new(|| 1_000_000),
        monotonic_ms: Arc::new(|| 0),
        rfc3339: |_| "2026-11-24T03:00:00Z".into(),
        random: Arc::new(|| 7),
    }
}

/// Another text each time, as long as a job's id.
fn unique() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{:026}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The record of a job, as a submit makes it.
fn record(id: String) -> Record {
    Record::accepted(JobId(id), new(), &source().now())
}

async fn bare(context: &jetstream::Context, count: usize) -> Result<Duration, Failure> {
    let began = now();
    let publish = |_| async {
        let record = record(unique());
        let message = PublishMessage::build()
            .payload(serde_json::to_vec(&record)?.into())
            .message_id(record.job.id.0);
        context.send_publish("bare.jobs", message).await?.await?;
        Ok::<_, Failure>(())
    };
    futures::stream::iter(0..count)
        .map(publish)
        .buffer_unordered(WINDOW)
        .try_collect::<()>()
        .await?;
    Ok(began.elapsed())
}

/// Publishes bytes that were made before, on a subject of their own or with a name for JetStream's window.
async fn dressed(
    context: &jetstream::Context,
    payload: &Bytes,
    count: usize,
    own_subject: bool,
    named: bool,
) -> Result<Duration, Failure> {
    let began = now();
    let publish = |_| async move {
        let subject = match own_subject {
            true => format!("bare.{}", unique()),
            false => "bare.jobs".into(),
        };
        let message = PublishMessage::build().payload(payload.clone());
        let message = match named {
            true => message.message_id(unique()),
            false => message,
        };
        context.send_publish(subject, message).await?.await?;
        Ok::<_, Failure>(())
    };
    futures::stream::iter(0..count)
        .map(publish)
        .buffer_unordered(WINDOW)
        .try_collect::<()>()
        .await?;
    Ok(began.elapsed())
}

async fn submits(jobs: &JetstreamJobs, count: usize) -> Result<Duration, Failure> {
    let began = now();
    let submit = |_| async {
        jobs.submit(new()).await?;
        Ok::<_, Failure>(())
    };
    futures::stream::iter(0..count)
        .map(submit)
        .buffer_unordered(WINDOW)
        .try_collect::<()>()
        .await?;
    Ok(began.elapsed())
}

/// Makes the first server the leader of a stream.
async fn led_by_the_first(context: &jetstream::Context, cluster: &Cluster, stream: &str) -> Result<(), Failure> {
    for _ in 0..60 {
        match cluster.leader_of(stream) {
            Some(0) => return Ok(()),
            None => {}
            Some(_) => {
                let first = json!({"placement": {"preferred": cluster.servers[0].name()}});
                let subject = format!("STREAM.LEADER.STEPDOWN.{stream}");
                let _answer: serde_json::Value = context.request(subject, &first).await?;
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Err(format!("{stream} is not led by the first server").into())
}

fn median(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0], values[values.len() - 1])
}

#[expect(clippy::print_stdout, reason = "a benchmark's report")]
async fn compare(
    what: &str,
    urls: &str,
    replicas: usize,
    count: usize,
    cluster: Option<&Cluster>,
) -> Result<(), Failure> {
    let settings = Settings {
        servers: urls.split(',').map(str::to_owned).collect(),
        ..Settings::default()
    };
    let lattice = Lattice::connect(settings, Some(Duration::from_secs(20))).await?;
    let options = JobsOptions {
        limits: Limits {
            jobs_open_max: 10_000_000,
            ..JobsOptions::default().limits
        },
        ..JobsOptions::default()
    };
    let jobs = JetstreamJobs::open(&lattice, source(), options).await?;
    let addresses: Vec<&str> = urls.split(',').collect();
    let context = jetstream::new(async_nats::connect(addresses).await?);
    let config = Config {
        name: "BARE".into(),
        subjects: vec!["bare.*".into()],
        retention: RetentionPolicy::WorkQueue,
        discard: DiscardPolicy::New,
        num_replicas: replicas,
        ..Config::default()
    };
    context.create_stream(config).await?;
    if let Some(cluster) = cluster {
        for stream in ["BARE", "WINDLASS_JOBS"] {
            led_by_the_first(&context, cluster, stream).await?;
        }
    }
    let payload = Bytes::from(serde_json::to_vec(&record("01JCXQ6Y9D3W6V3S1W8Y5Z4K2M".into()))?);
    bare(&context, count / 4).await?;
    submits(&jobs, count / 4).await?;
    let (mut ratios, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // which one comes first changes with each round
        let (b, s) = if round % 2 == 0 {
            let b = bare(&context, count).await?;
            (b, submits(&jobs, count).await?)
        } else {
            let s = submits(&jobs, count).await?;
            (bare(&context, count).await?, s)
        };
        ratios.push(b.as_secs_f64() / s.as_secs_f64());
        ours.push(count as f64 / s.as_secs_f64());
        theirs.push(count as f64 / b.as_secs_f64());
    }
    let ((ratio, least, most), (ours, ..), (theirs, ..)) = (median(ratios), median(ours), median(theirs));
    println!(
        "jobs submit, {what}: {ours:.0}/s beside {theirs:.0}/s bare, ratio {ratio:.2} ({least:.2} to {most:.2}), {ROUNDS} rounds of {count}, window {WINDOW}, {} bytes",
        payload.len()
    );
    for (own_subject, named) in [(false, false), (true, false), (false, true), (true, true)] {
        let took = dressed(&context, &payload, count, own_subject, named).await?;
        println!(
            "  bare, own subject {own_subject}, named {named}: {:.0}/s",
            count as f64 / took.as_secs_f64()
        );
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let scratch = Scratch::new("jobs-submit")?;
    let server = Server::start(&scratch.join("n1"))?;
    compare("one server, synced at each write", &server.url(), 1, 2_000, None).await?;
    drop(server);
    let cluster = Cluster::start(&scratch.join("three"))?;
    let first = cluster.servers[0].url();
    compare("cluster of three, 3 replicas", &first, 3, 5_000, Some(&cluster)).await?;
    Ok(())
}
