//! The TCP door: what it refuses, with real clients.

use std::path::PathBuf;

use tokio::net::TcpStream;

use super::*;
use crate::client::Client;
use crate::gateway::client::Remote;
use crate::gateway::guard::read_token;

const TOKEN: &str = "a-token-of-the-tests-0123456789-abcdef";

fn token_in(dir: &Path, text: &str, mode: u32) -> PathBuf {
    let path = dir.join("token");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}

fn config_with_address(dir: &Path) -> config::Config {
    let mut config = config_in(dir);
    config.gateway.listen = "127.0.0.1:0".into();
    config.gateway.token_file = token_in(dir, &format!("{TOKEN}\n"), 0o600);
    config
}

fn bearer() -> String {
    format!("Authorization: Bearer {TOKEN}")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_no_token_or_comes_from_elsewhere_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config_with_address(dir.path());
    config.gateway.public_name = "Windlass.example".into();
    let daemon = Daemon::with(config).await;
    let address = daemon.address.unwrap();
    let (base, right) = (format!("http://{address}"), bearer());
    let port = address.port();
    let host = format!("{base}/v1/host");
    let (ours, ours_too) = (format!("Host: localhost:{port}"), "Host: windlass.example".to_owned());
    let own_origin = format!("Origin: http://localhost:{port}");
    for headers in [
        vec![right.as_str()],
        vec![&right, &ours],
        vec![&right, &ours_too, "Origin: https://windlass.example"],
        vec![&right, &own_origin],
        vec!["authorization: bearer a-token-of-the-tests-0123456789-abcdef"],
    ] {
        let given: Vec<&str> = headers.iter().flat_map(|h| ["-H", *h]).chain([host.as_str()]).collect();
        let (status, body) = curl(&given).await;
        assert_eq!(status, 200, "{headers:?}: {}", text(&body));
        assert!(text(&body).contains("\"host\":\"h1\""));
    }
    let longer = format!("{right}x");
    for headers in [
        vec![],
        vec!["Authorization: Bearer"],
        vec!["Authorization: Bearer wrong"],
        vec!["Authorization: Basic a-token-of-the-tests-0123456789-abcdef"],
        vec!["Authorization: a-token-of-the-tests-0123456789-abcdef"],
        vec![&longer],
        vec![&right, &right],
        vec![&right, "Host: evil.example"],
        vec![&right, "Host: localhost:1"],
        vec![&right, "Host:"],
        vec![&right, "Origin: http://evil.example"],
        vec![&right, "Origin: null"],
    ] {
        for path in [
            "/v1/host",
            "/metrics",
            "/readyz",
            "/v1/events",
            "/v1/blob/x",
            "/nowhere",
        ] {
            let url = format!("{base}{path}");
            let given: Vec<&str> = headers.iter().flat_map(|h| ["-H", *h]).chain([url.as_str()]).collect();
            let (status, body) = curl(&given).await;
            // hyper itself refuses a request without Host
            assert!(status == 403 || status == 400, "{headers:?} {path}: {status}");
            assert!(!text(&body).contains(TOKEN));
        }
    }
    // health tells nothing, and needs nothing; but a foreign page may not even ask for that
    let healthz = format!("{base}/healthz");
    assert_eq!(curl(&[&healthz]).await, (200, b"ok\n".to_vec()));
    assert_eq!(curl(&["-H", "Host: evil.example", &healthz]).await.0, 403);
    // on the socket a file mode decides
    let socket = daemon.config.gateway.socket.display().to_string();
    let (status, _) = curl(&["--unix-socket", &socket, "http://whatever/v1/host"]).await;
    assert_eq!(status, 200);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_and_bodies_have_their_limits() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::with(config_with_address(dir.path())).await;
    let base = format!("http://{}", daemon.address.unwrap());
    let (host, right) = (format!("{base}/v1/host"), bearer());
    let long = format!("X-Long: {}", "x".repeat(20 << 10));
    assert_eq!(curl(&["-H", &right, "-H", &long, &host]).await.0, 431);
    let many: Vec<String> = (0..80).map(|n| format!("X-{n}: y")).collect();
    let many: Vec<&str> = many
        .iter()
        .flat_map(|h| ["-H", h.as_str()])
        .chain(["-H", &right, &host])
        .collect();
    assert_eq!(curl(&many).await.0, 431);
    let body = dir.path().join("body");
    std::fs::write(&body, vec![b' '; bus::PAYLOAD_BYTES_MAX + 1]).unwrap();
    let status = wire::house::Status::subject(&HostId::new("h1").unwrap()).unwrap();
    let (data, url) = (format!("@{}", body.display()), format!("{base}/v1/request/{status}"));
    let (code, answer) = curl(&["-H", &right, "--data-binary", &data, &url]).await;
    assert_eq!(code, 400, "{}", text(&answer));
    assert_eq!(curl(&["-H", &right, "--data-binary", "{}", &url]).await.0, 200);
    daemon.end().await;
}

/// Reads until the other side ends the connection.
async fn rest_of(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await;
    // a reset is an end as well
    let _end_of_either_kind = read.expect("the connection ends");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_slow_on_purpose_is_let_go_and_the_next_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config_with_address(dir.path());
    config.gateway.idle_timeout_s = 1;
    config.gateway.connections_max = 1;
    let daemon = Daemon::with(config).await;
    let address = daemon.address.unwrap();
    let (host, right) = (format!("http://{address}/v1/host"), bearer());
    // half a head, and then nothing; says nothing at all; keeps a connection that was of use once
    let served = format!("GET /healthz HTTP/1.1\r\nhost: {address}\r\n\r\n");
    for begun in ["GET /v1/host HTTP/1.1\r\nhost: x\r\n", "", &served] {
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(begun.as_bytes()).await.unwrap();
        // the only connection is taken: whoever comes waits, and is served when the slow one is gone
        assert_eq!(curl(&["-H", &right, &host]).await.0, 200, "{begun:?}");
        rest_of(&mut slow).await;
    }
    // a body that doesn't come
    let status = wire::house::Status::subject(&HostId::new("h1").unwrap()).unwrap();
    let mut slow = TcpStream::connect(address).await.unwrap();
    let head =
        format!("POST /v1/request/{status} HTTP/1.1\r\nhost: {address}\r\n{right}\r\ncontent-length: 10\r\n\r\n{{");
    slow.write_all(head.as_bytes()).await.unwrap();
    let answer = rest_of(&mut slow).await;
    assert!(
        answer.starts_with("HTTP/1.1 504") && answer.contains("did not arrive in time"),
        "{answer}"
    );
    daemon.end().await;
}

#[test]
fn a_token_file_must_be_private_and_hold_a_token() {
    let dir = tempfile::tempdir().unwrap();
    let code = |text: &str, mode| {
        let error = read_token(&token_in(dir.path(), text, mode)).unwrap_err();
        assert!(!format!("{error:?}").contains(TOKEN), "{error:?}");
        assert!(error.hint.is_some());
        error.code
    };
    for mode in [0o644, 0o640, 0o602, 0o660] {
        assert_eq!(code(TOKEN, mode), Code::Denied, "{mode:o}");
    }
    for bad in [
        "",
        "short",
        &"x".repeat(5000),
        "a token with spaces in it, which is 40 long",
        "\u{e9}".repeat(40).as_str(),
    ] {
        assert_eq!(code(bad, 0o600), Code::Invalid, "{bad}");
    }
    assert_eq!(read_token(&dir.path().join("none")).unwrap_err().code, Code::NotFound);
    assert_eq!(read_token(dir.path()).unwrap_err().code, Code::Denied);
    assert_eq!(read_token(&token_in(dir.path(), TOKEN, 0o400)).unwrap(), TOKEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_good_token_file_it_does_not_listen() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config_with_address(dir.path());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for (listen, mode, code) in [
        ("127.0.0.1:0".to_owned(), 0o644, Code::Denied),
        (taken.local_addr().unwrap().to_string(), 0o600, Code::Conflict),
    ] {
        config.gateway.listen = listen;
        config.gateway.token_file = token_in(dir.path(), TOKEN, mode);
        let (listener, _bound) = socket::bind(&dir.path().join("w.sock")).await.unwrap();
        let error = server::Doors::open(listener, &config.gateway).await.unwrap_err();
        assert_eq!(error.code, code, "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_can_use_it() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::with(config_with_address(dir.path())).await;
    let url = format!("http://{}", daemon.address.unwrap());
    let remote = Remote::new(&url, Some(&daemon.config.gateway.token_file)).unwrap();
    assert!(!format!("{remote:?}").contains(TOKEN));
    // another machine, with nothing but the address and the token
    let elsewhere = tempfile::tempdir().unwrap();
    let config = config_in(elsewhere.path());
    let client = Client::remote(&remote, &config).await.unwrap();
    assert!(client.is_daemon());
    assert_eq!(client.host().as_str(), "h1");
    assert_eq!(client.call(&wire::job::JobList::default()).await.unwrap().jobs, vec![]);
    let mut heard = client.events(EventFilter::All).await.unwrap();
    let event = CloudEvent::new(
        "01X".into(),
        &HostId::new("h1").unwrap(),
        "2026-11-24T03:00:00Z".into(),
        JobChanged(Job::sample()),
    );
    bus::announce(&*daemon.house.bus(), &event).await.unwrap();
    let received = tokio::time::timeout(Duration::from_secs(10), heard.next())
        .await
        .unwrap();
    assert!(matches!(received, Some(Received::Event { .. })), "{received:?}");
    let wrong = token_in(elsewhere.path(), &"w".repeat(40), 0o600);
    let refused = Client::remote(&Remote::new(&url, Some(&wrong)).unwrap(), &config).await;
    assert_eq!(refused.map(|_| ()).unwrap_err().code, Code::Denied);
    for bad in [
        "https://h:1",
        "h:1",
        "http://u:p@h:1",
        "http://h:1/x",
        "http://h:1/?q",
        "",
    ] {
        assert_eq!(Remote::new(bad, Some(&wrong)).unwrap_err().code, Code::Invalid, "{bad}");
    }
    assert_eq!(Remote::new(&url, None).unwrap_err().code, Code::Denied);
    daemon.end().await;
    let gone = Client::remote(&remote, &config).await.map(|_| ()).unwrap_err();
    assert_eq!(gone.code, Code::Unavailable);
}
