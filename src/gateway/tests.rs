//! The gateway over a real Unix socket, with the real house behind it.

mod address;
mod blobs;
#[cfg(feature = "example")]
mod example;
mod figures;
mod roles;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bus::{Bus, Kind, Received};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;
use wire::event::CloudEvent;
use wire::job::{Job, JobChanged};
use wire::subject::EventFilter;
use wire::{Code, Headers, HostId, Request, Subject, Topic};

use super::client::{GatewayBus, probe};
use super::{server, socket};
use crate::house::{House, Role};
use crate::tests::config_in;

/// A daemon without its signals.
struct Daemon {
    config: config::Config,
    house: House,
    stop: watch::Sender<bool>,
    served: tokio::task::JoinHandle<Result<(), wire::ErrorBody>>,
    bound: socket::Bound,
    /// Of the TCP door, when `gateway.listen` asks for one.
    address: Option<std::net::SocketAddr>,
}

impl Daemon {
    async fn start(dir: &Path) -> Self {
        Self::with(config_in(dir)).await
    }
    async fn with(config: config::Config) -> Self {
        let house = House::start(&config, Role::Daemon).await.unwrap();
        let (listener, bound) = socket::bind(&config.gateway.socket).await.unwrap();
        let (stop, stopping) = watch::channel(false);
        let doors = server::Doors::open(listener, &config.gateway).await.unwrap();
        let address = doors.address();
        let served = tokio::spawn({
            let (house, config) = (house.clone(), config.clone());
            async move { server::serve(doors, house, &config, stopping).await }
        });
        Self {
            address,
            config,
            house,
            stop,
            served,
            bound,
        }
    }
    fn bus(&self) -> Arc<dyn Bus> {
        Arc::new(GatewayBus::new(self.config.gateway.socket.clone()))
    }
    async fn end(self) {
        self.house.drain().await;
        self.stop.send(true).unwrap();
        drop(self.bound);
        tokio::time::timeout(Duration::from_secs(10), self.served)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
    /// Sends text as it is, and reads all that comes back.
    async fn raw(&self, text: &str) -> String {
        let mut stream = UnixStream::connect(&self.config.gateway.socket).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer))
            .await
            .unwrap()
            .unwrap();
        String::from_utf8(answer).unwrap()
    }
    async fn get(&self, path: &str) -> String {
        self.raw(&format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))
            .await
    }
    async fn post(&self, path: &str, headers: &str, body: &str) -> String {
        let length = body.len();
        self.raw(&format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
        ))
        .await
    }
}

/// What `curl` got: status and body.
async fn curl(arguments: &[&str]) -> (u16, Vec<u8>) {
    let mut command = std::process::Command::new("curl");
    command
        .args(["--silent", "--show-error", "--max-time", "30", "--noproxy", "*"])
        .args(["--write-out", "\n%{http_code}"])
        .args(arguments);
    let done = tokio::task::spawn_blocking(move || command.output().expect("curl runs"))
        .await
        .unwrap();
    let mut body = done.stdout;
    let end = body.iter().rposition(|b| *b == b'\n').expect("a status");
    let status = String::from_utf8(body.split_off(end)).unwrap().trim().parse().unwrap();
    (status, body)
}

fn text(body: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(body)
}

fn status_of(answer: &str) -> u16 {
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_through_and_come_back_typed() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let info = probe(&daemon.config.gateway.socket).await.unwrap().unwrap();
    assert_eq!((info.host.as_str(), info.pid), ("h1", std::process::id()));
    let status = bus::call(&*daemon.bus(), &info.host, &wire::house::Status {}, Headers::default())
        .await
        .unwrap();
    assert_eq!(status.host, info.host);
    assert!(status.concerns.iter().any(|c| c.concern == "snapshot"), "{status:?}");
    // an error keeps its code, message and hint
    let missing = wire::job::JobShow {
        job: wire::job::JobId("01JCXQ6Y9D3W6V3S1W8Y5Z4K2M".into()),
    };
    let error = bus::call(&*daemon.bus(), &info.host, &missing, Headers::default())
        .await
        .unwrap_err();
    assert_eq!(error.code, Code::NotFound);
    let nobody = Subject::cluster("nobody", "home").unwrap();
    let error = bus::call_json(&*daemon.bus(), &nobody, &serde_json::json!({}), Headers::default())
        .await
        .unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_statuses_follow_from_the_codes() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let host = HostId::new("h1").unwrap();
    let status = format!("/v1/request/{}", wire::house::Status::subject(&host).unwrap());
    let show = format!("/v1/request/{}", wire::job::JobShow::subject(&host).unwrap());
    let answer = daemon.post(&status, "", "").await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("{\"ok\":{\"host\":\"h1\""),
        "{answer}"
    );
    for (path, headers, body, wanted) in [
        (show.as_str(), "", "{\"job\":\"nope\"}", 404),
        (show.as_str(), "", "{", 400),
        (status.as_str(), "Windlass-Timeout-Ms: soon\r\n", "{}", 400),
        ("/v1/request/windlass.v2.a.b", "", "{}", 400),
        ("/v1/request/windlass.v1.event.snapshot.created", "", "{}", 400),
        ("/v1/request/windlass.v1.nobody.home", "", "{}", 503),
        ("/v1/elsewhere", "", "{}", 404),
        ("/healthz", "", "{}", 400),
    ] {
        let answer = daemon.post(path, headers, body).await;
        assert_eq!(status_of(&answer), wanted, "{path} {body}: {answer}");
        assert!(answer.contains("{\"error\":{\"code\":"), "{answer}");
    }
    assert_eq!(daemon.get("/healthz").await.lines().last(), Some("ok"));
    assert_eq!(daemon.get("/readyz").await.lines().last(), Some("ready"));
    assert_eq!(status_of(&daemon.get("/v1/events?filter=x").await), 400);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_over_the_limit_are_refused_and_the_daemon_lives() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let subject = wire::house::Status::subject(&HostId::new("h1").unwrap()).unwrap();
    let body = Bytes::from(vec![b' '; bus::PAYLOAD_BYTES_MAX + 1]);
    let answer = daemon.bus().request(&subject, Headers::default(), body).await;
    match answer {
        Ok(bytes) => assert!(String::from_utf8_lossy(&bytes).contains("\"invalid\""), "{bytes:?}"),
        // the daemon may close before the whole body was written
        Err(e) => assert_eq!(e.kind, Kind::Unavailable),
    }
    assert!(probe(&daemon.config.gateway.socket).await.unwrap().is_some());
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_reach_followers_until_the_daemon_ends() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let mut all = daemon.bus().subscribe(EventFilter::All, 16).await.unwrap();
    let other = EventFilter::Concern(wire::ConcernName::new("house").unwrap());
    let mut none = daemon.bus().subscribe(other, 16).await.unwrap();
    let event = CloudEvent::new(
        "01X".into(),
        &HostId::new("h1").unwrap(),
        "2026-11-24T03:00:00Z".into(),
        JobChanged(Job::sample()),
    );
    bus::announce(&*daemon.house.bus(), &event).await.unwrap();
    // hosts tell how they are, too
    let (subject, payload) = loop {
        let received = tokio::time::timeout(Duration::from_secs(10), all.next())
            .await
            .unwrap()
            .unwrap();
        let Received::Event { subject, payload } = received else {
            panic!("{received:?}")
        };
        if subject.concern() != "hosts" {
            break (subject, payload);
        }
    };
    assert_eq!(subject, JobChanged::subject().unwrap());
    assert_eq!(
        serde_json::from_slice::<CloudEvent<JobChanged>>(&payload).unwrap(),
        event
    );
    daemon.end().await;
    while let Some(last) = tokio::time::timeout(Duration::from_secs(10), all.next()).await.unwrap() {
        assert!(matches!(&last, Received::Event { subject, .. } if subject.concern() == "hosts"));
    }
    assert_eq!(
        tokio::time::timeout(Duration::from_secs(10), none.next())
            .await
            .unwrap(),
        None
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_and_requests_have_their_limits() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config_in(dir.path());
    config.gateway.followers_max = 1;
    let daemon = Daemon::with(config).await;
    let first = daemon.bus().subscribe(EventFilter::All, 16).await.unwrap();
    let second = daemon.bus().subscribe(EventFilter::All, 16).await.unwrap_err();
    assert_eq!(second.kind, Kind::Busy);
    drop(first);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_is_private_replaced_when_stale_and_kept_when_live() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.sock");
    let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
    let (listener, bound) = socket::bind(&path).await.unwrap();
    assert_eq!(mode(&path), 0o600);
    let live = socket::bind(&path).await.unwrap_err();
    assert_eq!(live.code, Code::Conflict);
    // what a killed process leaves: the file, with nobody behind it
    drop(listener);
    std::mem::forget(bound);
    assert!(path.exists());
    assert_eq!(probe(&path).await.unwrap(), None);
    let (_listener, bound) = socket::bind(&path).await.unwrap();
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        1,
        "nothing is left aside"
    );
    drop(bound);
    assert!(!path.exists());
    // something else in its place is left alone
    std::fs::write(&path, "precious").unwrap();
    assert_eq!(socket::bind(&path).await.unwrap_err().code, Code::Invalid);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    let long = dir.path().join("x".repeat(120));
    assert_eq!(socket::bind(&long).await.unwrap_err().code, Code::Invalid);
    assert_eq!(probe(&long).await.unwrap(), None);
    assert_eq!(
        socket::bind(Path::new("/nowhere/w.sock")).await.unwrap_err().code,
        Code::NotFound
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_daemon_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.sock");
    let (listener, _bound) = socket::bind(&path).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _asker_gone = stream.write_all(b"220 mail ready\r\n").await;
        }
    });
    assert_eq!(probe(&path).await.unwrap_err().code, Code::Unavailable);
}
