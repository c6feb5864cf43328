use bus::InProcess;
use runtime::SystemClock;
use state::Database;

use super::*;

async fn opened(dir: &std::path::Path) -> Audit {
    let clock: Arc<dyn runtime::Clock> = Arc::new(SystemClock::new());
    let database = Database::open(dir).await.unwrap();
    let state = Arc::new(state::Redb::new(database, runtime::state_clock(&clock)));
    let announcer = Announcer {
        host: wire::HostId::new("h1").unwrap(),
        bus: Arc::new(InProcess::new()),
        clock,
    };
    Audit::open(state, announcer).await.unwrap()
}

fn ada() -> Caller {
    Caller {
        who: "ada".into(),
        role: Role::Viewer,
        from: "10.0.0.1:5".into(),
    }
}

async fn all(audit: &Audit) -> Vec<AuditEntry> {
    audit.flush().await;
    audit.0.ring.lock().await.newest(usize::MAX, |_| true).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn actions_are_kept_over_a_restart_and_looks_only_when_denied() {
    let dir = tempfile::tempdir().unwrap();
    let audit = opened(dir.path()).await;
    let host = wire::HostId::new("h1").unwrap();
    let forget = Subject::host(&host, "snapshot", "forget").unwrap();
    let ls = Subject::host(&host, "snapshot", "ls").unwrap();
    let request = br#"{"snapshot": "01J", "token": "planted-secret", "repo": "s3://b"}"#;
    audit.note_request(&ada(), &forget, request, None, Ok(()));
    audit.note_request(&ada(), &ls, b"{}", None, Ok(()));
    let denied = ErrorBody::new(Code::Denied, "no");
    audit.note_request(&ada(), &ls, b"{}", None, Err(&denied));
    let entries = all(&audit).await;
    assert_eq!(entries.len(), 2, "{entries:?}");
    let done = entries.iter().find(|e| e.what == "snapshot.forget").unwrap();
    assert_eq!(
        (done.about.as_str(), done.refused, done.times),
        ("snapshot=01J", None, 1)
    );
    assert!(!format!("{entries:?}").contains("planted"), "only names are kept");
    drop(audit);
    // the task that writes lets go of the state a moment later
    let again = tokio::time::timeout(Duration::from_secs(20), opened_when_free(dir.path()));
    let again = again.await.expect("the state is free again");
    assert_eq!(all(&again).await, entries);
}

async fn opened_when_free(dir: &std::path::Path) -> Audit {
    while Database::open(dir).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    opened(dir).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_a_few_entries_and_a_number() {
    let dir = tempfile::tempdir().unwrap();
    let audit = opened(dir.path()).await;
    for _ in 0..1_000_u64 {
        audit.note_denied("User h1", "log", "nats.publish a", "refused", 1);
    }
    let entries = all(&audit).await;
    let (times, missed) = (
        entries.iter().map(|e| e.times).sum::<u64>(),
        audit.0.missed.load(Ordering::Relaxed),
    );
    assert_eq!((times + missed, audit.0.denied.load(Ordering::Relaxed)), (1_000, 1_000));
    assert!(entries.len() < 50, "{}", entries.len());
}
