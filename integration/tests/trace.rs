//! One command over two hosts: every log line that is written for it has its trace's id, on both, also after redelivery.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::time::Duration;

use serde_json::Value;
use windlass_integration::fleet;
use windlass_integration::nats::Server;
use windlass_integration::process::{Running, Windlass};
use windlass_integration::scratch::Scratch;
use windlass_integration::{Random, disk};

const PATIENCE: Duration = Duration::from_secs(60);
const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";

fn windlass(scratch: &Scratch, server: &Server, host: &str, state: &str) -> Windlass {
    Windlass::new(&scratch.join(state))
        .unwrap()
        .env("WINDLASS_NATS", server.url())
        .env("WINDLASS_HOST_ID", host)
        .env("WINDLASS_HOST__BEAT_MS", "300")
        .env("WINDLASS_RUNTIME__JOB_LEASE_S", "2")
        .env("WINDLASS_LOG__LEVEL", "info,windlass=debug,windlass_runtime=debug")
        .env("WINDLASS_LOG__FORMAT", "json")
        .env("WINDLASS_REPO", scratch.join("repo").display().to_string())
}

fn serving(windlass: &Windlass) -> Running {
    let daemon = windlass.spawn(&["serve"]).unwrap();
    let serves = daemon.wait_for_line(PATIENCE, |line| line.contains("\"serving\""));
    serves.expect("it serves");
    daemon
}

fn lines(log: &str) -> Vec<Value> {
    log.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

/// The trace ids of all spans that a line stands in; all of a line are one.
fn trace_of(line: &Value) -> Option<&str> {
    let spans = line["spans"].as_array()?;
    spans.iter().find_map(|span| span["trace_id"].as_str())
}

fn of_trace<'a>(log: &'a [Value], id: &str) -> Vec<&'a Value> {
    log.iter().filter(|line| trace_of(line) == Some(id)).collect()
}

#[test]
fn both_hosts_of_one_command_have_its_trace_in_their_logs() {
    let scratch = Scratch::new("trace").unwrap();
    let server = Server::start(&scratch.join("nats")).unwrap();
    let (a, b) = (
        windlass(&scratch, &server, "a", "a"),
        windlass(&scratch, &server, "b", "b"),
    );
    let running_a = serving(&a);
    fleet::join(&a, &b, "b");
    let running_b = serving(&b);
    let init = b.run(&["repo", "init", "--json"]).unwrap().success();
    let path = scratch.join("web1.raw");
    std::fs::write(&path, disk::random_bytes(&mut Random::new(5), 24 << 20)).unwrap();

    // through a's gateway, for b; the caller's own trace goes on
    let subject = "windlass.v1.host.b.snapshot.create";
    let request = serde_json::json!({"vm": "web1", "disks": [{"name": "root", "path": path}]}).to_string();
    let sent = windlass(&scratch, &server, "a", "a")
        .env("WINDLASS_NATS", "")
        .env("TRACEPARENT", format!("00-{TRACE_ID}-b7ad6b7169203331-01"))
        .run(&["send", subject, &request, "--json"])
        .unwrap()
        .success();
    let job = sent.json()["job"].as_str().unwrap().to_owned();
    let shown = done(&b, &job);
    let traceparent = shown["traceparent"].as_str().unwrap();
    assert!(traceparent.starts_with(&format!("00-{TRACE_ID}-")), "{traceparent}");
    let text = b.run(&["jobs", "show", &job]).unwrap().success().stdout;
    assert!(text.contains(TRACE_ID), "{text}");

    running_a.terminate().unwrap();
    running_b.terminate().unwrap();
    let log_a = lines(&running_a.wait(PATIENCE).unwrap().success().stderr);
    let log_b = lines(&running_b.wait(PATIENCE).unwrap().success().stderr);
    let (on_a, on_b) = (of_trace(&log_a, TRACE_ID), of_trace(&log_b, TRACE_ID));
    assert!(on_a.iter().any(|line| line["message"] == "passed on"), "{log_a:?}");
    for message in ["answered", "job begins", "job ends"] {
        assert!(
            on_b.iter().any(|line| line["message"] == message),
            "{message}: {log_b:?}"
        );
    }
    // whatever is said of the job is said within its trace
    let of_job = log_b.iter().filter(|line| line.to_string().contains(&job));
    assert!(of_job.clone().count() >= 2);
    for line in of_job.filter(|line| line["target"] != "windlass_runtime::job_desk") {
        assert_eq!(trace_of(line), Some(TRACE_ID), "{line}");
    }
    // and every request that was answered had a trace, though its caller named none
    for line in log_b.iter().filter(|line| line["message"] == "answered") {
        assert_eq!(trace_of(line).map(str::len), Some(32), "{line}");
    }
    // the verb `repo init` was another command
    drop(init);
    let others = log_b.iter().filter_map(trace_of).filter(|id| *id != TRACE_ID);
    assert!(others.count() > 0);
}

fn done(host: &Windlass, job: &str) -> Value {
    let mut shown = Value::Null;
    for _ in 0..600 {
        shown = host.run(&["jobs", "show", job, "--json"]).unwrap().success().json();
        if ["done", "failed"].contains(&shown["state"].as_str().unwrap()) {
            return shown;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("job {job} doesn't end: {shown}");
}

/// A job whose worker is killed is taken up again within the trace of the request that asked for it.
#[test]
fn a_job_that_is_delivered_again_stays_in_its_trace() {
    let scratch = Scratch::new("trace").unwrap();
    let server = Server::start(&scratch.join("nats")).unwrap();
    let host = windlass(&scratch, &server, "b", "b");
    let running = serving(&host);
    let path = scratch.join("web1.raw");
    std::fs::write(&path, disk::random_bytes(&mut Random::new(6), 96 << 20)).unwrap();
    host.run(&["repo", "init"]).unwrap().success();
    let request = serde_json::json!({"vm": "web1", "disks": [{"name": "root", "path": path}]}).to_string();
    let asking = windlass(&scratch, &server, "b", "b").env("TRACEPARENT", format!("00-{TRACE_ID}-b7ad6b7169203331-01"));
    let sent = asking
        .run(&["send", "snapshot.create", &request, "--json"])
        .unwrap()
        .success();
    let job = sent.json()["job"].as_str().unwrap().to_owned();
    let begins = running.wait_for_line(PATIENCE, |line| line.contains("job begins") && line.contains(TRACE_ID));
    begins.expect("it begins");
    running.kill().unwrap();
    let running = serving(&host);
    let shown = done(&host, &job);
    running.terminate().unwrap();
    let log = lines(&running.wait(PATIENCE).unwrap().success().stderr);
    let again = of_trace(&log, TRACE_ID);
    let begins = again.iter().find(|line| line["message"] == "job begins");
    let begins = begins.unwrap_or_else(|| panic!("no second attempt in {log:?}"));
    assert_eq!(
        (&begins["resumed"], &begins["span"]["attempt"], &begins["span"]["job"]),
        (&true.into(), &2.into(), &job.as_str().into())
    );
    assert_eq!(shown["attempts"], 2);
}
