//! `/metrics` before a strict reader.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

#[derive(Debug, Default)]
struct Family {
    kind: String,
    /// Labels and value of each sample, by the sample's name.
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

fn is_name(name: &str) -> bool {
    let mut letters = name.chars();
    letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && letters.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// `{a="b",…}` with its escapes, and the rest of the line.
fn labels(text: &str) -> (BTreeMap<String, String>, &str) {
    let mut found = BTreeMap::new();
    let Some(mut rest) = text.strip_prefix('{') else {
        return (found, text);
    };
    loop {
        let (name, after) = rest.split_once("=\"").unwrap();
        assert!(is_name(name), "{text}");
        let (mut value, mut at) = (String::new(), after.chars());
        loop {
            match at.next().unwrap() {
                '"' => break,
                '\\' => value.push(match at.next().unwrap() {
                    'n' => '\n',
                    c @ ('\\' | '"') => c,
                    c => panic!("escape {c} in {text}"),
                }),
                c => value.push(c),
            }
        }
        assert!(found.insert(name.to_owned(), value).is_none(), "{name} twice in {text}");
        rest = at.as_str();
        match rest.split_at(1) {
            (",", more) => rest = more,
            ("}", more) => return (found, more),
            _ => panic!("{text}"),
        }
    }
}

/// The text format 0.0.4, strictly: HELP, TYPE, then all samples of a family together; no sample twice; names and units as
/// Prometheus wants them.
fn parse(page: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut helped = String::new();
    let mut current = String::new();
    let mut seen = BTreeSet::new();
    assert!(page.ends_with('\n'));
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(!help.is_empty() && is_name(name));
            helped = name.to_owned();
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, helped, "TYPE follows its HELP");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            let fresh = Family {
                kind: kind.to_owned(),
                ..Family::default()
            };
            assert!(families.insert(name.to_owned(), fresh).is_none(), "{name} twice");
            current = name.to_owned();
        } else {
            assert!(!line.starts_with('#') && !line.is_empty(), "{line}");
            let end = line.find(['{', ' ']).unwrap();
            let (name, rest) = line.split_at(end);
            let (labels, value) = labels(rest);
            let value: f64 = value.strip_prefix(' ').unwrap().parse().unwrap();
            assert!(seen.insert((name.to_owned(), labels.clone())), "{line} twice");
            let family = families.get_mut(&current).unwrap();
            let suffix = name
                .strip_prefix(current.as_str())
                .unwrap_or_else(|| panic!("{name} in {current}"));
            match family.kind.as_str() {
                "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{line}"),
                _ => assert_eq!(suffix, "", "{line}"),
            }
            family.samples.push((name.to_owned(), labels, value));
        }
    }
    for (name, family) in families.iter().filter(|(_, f)| f.kind == "histogram") {
        check_histogram(name, family);
    }
    families
}

fn check_histogram(name: &str, family: &Family) {
    let of = |suffix: &str| {
        let wanted = format!("{name}{suffix}");
        family.samples.iter().filter(move |(n, ..)| *n == wanted)
    };
    assert!(name.ends_with("_seconds"));
    for (_, labels, count) in of("_count") {
        let buckets: Vec<(f64, f64)> = of("_bucket")
            .filter(|(_, l, _)| labels.iter().all(|(k, v)| l.get(k) == Some(v)))
            .map(|(_, l, value)| (l["le"].parse().unwrap(), *value))
            .collect();
        assert!(
            buckets.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 <= w[1].1),
            "{name} {labels:?}"
        );
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, *count)), "{name} {labels:?}");
        assert!(of("_sum").any(|(_, l, _)| l == labels));
    }
}

fn value(families: &BTreeMap<String, Family>, name: &str, labels: &[(&str, &str)]) -> f64 {
    let family = families.get(name).unwrap_or_else(|| panic!("no {name}"));
    let fits = |l: &BTreeMap<String, String>| labels.iter().all(|(k, v)| l.get(*k).is_some_and(|x| x == v));
    let found: Vec<f64> = family.samples.iter().filter(|(_, l, _)| fits(l)).map(|s| s.2).collect();
    assert_eq!(found.len(), 1, "{name} {labels:?}: {found:?}");
    found[0]
}

/// The parser of Prometheus's own library for Python, which `make deps` installs.
fn prometheus_takes(page: &str) {
    use std::io::Write as _;
    const SCRIPT: &str = "import sys\nfrom prometheus_client.parser import text_string_to_metric_families as parse\n\
        print(sum(len(f.samples) for f in parse(sys.stdin.read())))";
    let python = format!(
        "{}/.cache/windlass/prometheus/bin/python3",
        std::env::var("HOME").unwrap()
    );
    let mut child = std::process::Command::new(&python)
        .args(["-c", SCRIPT])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{python}: {e}; make deps installs it"));
    child.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success());
    let samples = page.lines().filter(|l| !l.starts_with('#')).count();
    assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), samples.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_what_a_strict_reader_takes_and_they_count() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let host = HostId::new("h1").unwrap();
    let read = || async {
        let answer = daemon.get("/metrics").await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
        body.to_owned()
    };
    let before = parse(&read().await);
    let list = wire::snapshot::SnapshotList::default();
    bus::call(&*daemon.bus(), &host, &list, Headers::default())
        .await
        .unwrap();
    let missing = wire::job::JobShow {
        job: wire::job::JobId("01JCXQ6Y9D3W6V3S1W8Y5Z4K2M".into()),
    };
    bus::call(&*daemon.bus(), &host, &missing, Headers::default())
        .await
        .unwrap_err();
    let page = read().await;
    let after = parse(&page);
    assert_eq!(
        value(
            &after,
            "windlass_snapshot_requests_total",
            &[("verb", "ls"), ("code", "ok")]
        ),
        1.0
    );
    assert_eq!(
        value(
            &after,
            "windlass_jobs_requests_total",
            &[("verb", "show"), ("code", "not_found")]
        ),
        1.0
    );
    for concern in ["snapshot", "jobs"] {
        assert_eq!(
            value(&after, &format!("windlass_{concern}_state"), &[("state", "up")]),
            1.0
        );
        assert_eq!(
            value(&after, &format!("windlass_{concern}_state"), &[("state", "failed")]),
            0.0
        );
        assert_eq!(
            value(
                &after,
                &format!("windlass_{concern}_deaths_total"),
                &[("cause", "panic")]
            ),
            0.0
        );
        assert_eq!(value(&after, &format!("windlass_{concern}_mailbox_messages"), &[]), 0.0);
    }
    let listed = |f| value(f, "windlass_store_requests_total", &[("operation", "list")]);
    assert!(listed(&after) > listed(&before), "the listing asked the store");
    for state in [
        "queued",
        "running",
        "interrupted",
        "done",
        "failed",
        "cancelled",
        "dead",
    ] {
        assert_eq!(value(&after, "windlass_house_jobs", &[("state", state)]), 0.0);
    }
    assert_eq!(value(&after, "windlass_build_info", &[("host", "h1")]), 1.0);
    assert!(value(&after, "process_resident_memory_bytes", &[]) > 1e6);
    assert!(value(&after, "process_open_fds", &[]) > 3.0);
    assert!(value(&after, "process_cpu_seconds_total", &[]) >= 0.0);
    assert!(value(&after, "process_start_time_seconds", &[]) > 1.6e9);
    assert!(value(&after, "process_max_fds", &[]) > 3.0);
    prometheus_takes(&page);
    // ours carry their concern, and nothing is counted in another unit than the base one
    for name in after.keys() {
        assert!(name.starts_with("windlass_") || name.starts_with("process_"), "{name}");
        assert!(
            !["_ms", "_kb", "_mib", "_minutes"]
                .iter()
                .any(|unit| name.contains(unit)),
            "{name}"
        );
    }
    daemon.end().await;
}
