//! Blobs: whole, in ranges, and to callers who don't take them.

use tokio::net::UnixStream;
use wire::job::{JobShow, JobState};
use wire::snapshot::{DiskArg, SnapshotCreate, SnapshotInfo};

use super::*;

/// A disk with data, a long hole, data that crosses leaves, and an odd end.
fn content() -> Vec<u8> {
    let mut bytes = vec![0u8; (37 << 20) + 4096];
    let mut state = 1u64;
    let length = bytes.len();
    for range in [0..3 << 20, (7 << 20) - 1000..(9 << 20) + 77, length - 5000..length - 1] {
        for byte in &mut bytes[range] {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (state >> 56) as u8;
        }
    }
    bytes
}

async fn snapshot_of(daemon: &Daemon, dir: &Path, disk: &[u8]) -> SnapshotInfo {
    let (path, definition) = (dir.join("root.raw"), dir.join("vm.xml"));
    std::fs::write(&path, disk).unwrap();
    std::fs::write(&definition, "<vm/>").unwrap();
    let request = SnapshotCreate {
        vm: "web1".into(),
        disks: vec![DiskArg {
            name: Some("root-1".into()),
            path: path.display().to_string(),
            format: None,
        }],
        definition: Some(definition.display().to_string()),
        repo: None,
        crash_consistent: false,
    };
    let host = HostId::new("h1").unwrap();
    let accepted = bus::call(&*daemon.bus(), &host, &request, Headers::default())
        .await
        .unwrap();
    loop {
        let show = JobShow {
            job: accepted.job.clone(),
        };
        let job = bus::call(&*daemon.bus(), &host, &show, Headers::default())
            .await
            .unwrap();
        match job.state {
            JobState::Done => return serde_json::from_value(job.result.unwrap()).unwrap(),
            state if state.is_final() => panic!("{job:?}"),
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_and_a_definition_come_whole_and_in_ranges() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let disk = content();
    let made = snapshot_of(&daemon, dir.path(), &disk).await;
    let socket = daemon.config.gateway.socket.display().to_string();
    let url = format!("http://x/v1/blob/{}.disk.root-1", made.id);
    let ask = |more: &[&str], url: &str| {
        let all: Vec<String> = ["--unix-socket", &socket]
            .iter()
            .chain(more)
            .chain([&url])
            .map(|s| (*s).to_owned())
            .collect();
        async move { curl(&all.iter().map(String::as_str).collect::<Vec<_>>()).await }
    };
    let (status, body) = ask(&[], &url).await;
    assert_eq!(status, 200);
    assert!(body == disk, "{} of {} bytes", body.len(), disk.len());
    let length = disk.len();
    for (asked, range) in [
        ("0-0".to_owned(), 0..1),
        ("100-3145800".to_owned(), 100..3_145_801),
        // all in a hole
        ("4000000-5000000".to_owned(), 4_000_000..5_000_001),
        ("7300000-9500000".to_owned(), 7_300_000..9_500_001),
        ("-6000".to_owned(), length - 6000..length),
        (format!("{}-", length - 1), length - 1..length),
    ] {
        let (status, body) = ask(&["--range", &asked], &url).await;
        assert_eq!(status, 206, "{asked}");
        assert!(body == disk[range], "{asked}: {} bytes", body.len());
    }
    assert_eq!(ask(&["--range", &format!("{length}-")], &url).await.0, 416);
    // head, tag, and a range of what was another content
    let head = String::from_utf8(ask(&["--head"], &url).await.1)
        .unwrap()
        .to_lowercase();
    assert!(
        head.contains(&format!("content-length: {length}\r\n")) && head.contains("accept-ranges: bytes"),
        "{head}"
    );
    let tag = head
        .lines()
        .find_map(|l| l.strip_prefix("etag: "))
        .unwrap()
        .trim()
        .to_owned();
    assert_eq!(
        ask(&["--range", "0-9", "-H", &format!("If-Range: {tag}")], &url)
            .await
            .0,
        206
    );
    assert_eq!(ask(&["--range", "0-9", "-H", "If-Range: \"other\""], &url).await.0, 200);
    let definition = format!("http://x/v1/blob/{}.definition", made.id);
    assert_eq!(ask(&[], &definition).await, (200, b"<vm/>".to_vec()));
    for (id, wanted) in [
        (format!("{}.disk.none", made.id), 404),
        ("01JCXQ6Y9D3W6V3S1W8Y5Z4K2M.definition".into(), 404),
        ("nothing".into(), 400),
        (format!("{}.definition?repo=file:///nowhere", made.id), 404),
    ] {
        let (status, body) = ask(&[], &format!("http://x/v1/blob/{id}")).await;
        assert_eq!(status, wanted, "{id}: {}", text(&body));
        assert!(text(&body).contains("\"error\""));
    }
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_nothing_is_let_go_and_damage_ends_the_stream_early() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config_in(dir.path());
    config.gateway.blobs_in_flight_max = 1;
    config.gateway.idle_timeout_s = 1;
    let daemon = Daemon::with(config).await;
    let disk = content();
    let made = snapshot_of(&daemon, dir.path(), &disk).await;
    let path = format!("/v1/blob/{}.disk.root-1", made.id);
    let mut slow = UnixStream::connect(&daemon.config.gateway.socket).await.unwrap();
    slow.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut first = [0u8; 1];
    slow.read_exact(&mut first).await.unwrap();
    let socket = daemon.config.gateway.socket.display().to_string();
    let url = format!("http://x{path}");
    let ask = ["--unix-socket", socket.as_str(), "--range", "0-9", url.as_str()];
    assert_eq!(curl(&ask).await.0, 429, "one at a time");
    let mut last = 429;
    for _ in 0..300 {
        last = curl(&ask).await.0;
        if last != 429 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(last, 206, "the slow one was let go");
    // every byte is checked: what is damaged isn't given
    let packs = dir.path().join("s/repo/packs");
    let mut damaged = 0;
    for entry in std::fs::read_dir(&packs)
        .unwrap()
        .flat_map(|d| std::fs::read_dir(d.unwrap().path()).unwrap())
    {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        if bytes.len() > 1 << 20 {
            bytes[600_000] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            damaged += 1;
        }
    }
    assert!(damaged > 0);
    let mut command = std::process::Command::new("curl");
    command.args(["--silent", "--max-time", "30", "--unix-socket", &socket, &url]);
    let done = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    assert!(!done.status.success(), "curl notices that bytes are missing");
    assert!(done.stdout.len() < disk.len() && disk.starts_with(&done.stdout));
    daemon.end().await;
}
