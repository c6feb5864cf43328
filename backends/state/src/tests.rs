use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::StreamExt;
use redb::TableDefinition;

use crate::schema::{CURRENT, Migration, Schema, copy_path};
use crate::{
    Database, FILE_NAME, KEY_BYTES_MAX, Key, Kind, Prefix, Redb, State, StateError, TOMBSTONES_MAX, conformance,
};

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

async fn opened(dir: &Path) -> Redb {
    Redb::new(Database::open(dir).await.unwrap(), Arc::new(|| 1))
}

#[tokio::test]
async fn state_in_memory_conforms() {
    let fresh = |now| async move { Redb::new(Database::in_memory().unwrap(), now) };
    conformance::all(fresh, conformance::turn).await;
}

#[tokio::test]
async fn state_in_a_file_conforms() {
    let (dirs, count) = (tempfile::tempdir().unwrap(), AtomicU64::new(0));
    conformance::all(
        |now| {
            let dir = dirs.path().join(count.fetch_add(1, Ordering::SeqCst).to_string());
            async move { Redb::new(Database::open(dir).await.unwrap(), now) }
        },
        conformance::turn,
    )
    .await;
}

#[tokio::test]
async fn what_was_committed_is_there_when_the_process_went_without_closing() {
    let dir = tempfile::tempdir().unwrap();
    let state = opened(dir.path()).await;
    let revision = state.put(&key("a"), Bytes::from_static(b"1")).await.unwrap();
    // the file as kill -9 leaves it: as it is now, with no close
    let other = tempfile::tempdir().unwrap();
    std::fs::copy(dir.path().join(FILE_NAME), other.path().join(FILE_NAME)).unwrap();
    let survivor = opened(other.path()).await;
    assert_eq!(survivor.get(&key("a")).await.unwrap().unwrap().revision, revision);
    drop(state);
    let again = opened(dir.path()).await;
    assert_eq!(again.get(&key("a")).await.unwrap().unwrap().value, "1");
    assert!(
        again.put(&key("a"), Bytes::new()).await.unwrap() > revision,
        "revisions go on"
    );
}

#[tokio::test]
async fn a_second_opener_hears_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let first = Database::open(dir.path()).await.unwrap();
    let error = Database::open(dir.path()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Locked);
    let text = error.to_string();
    assert!(
        text.contains(FILE_NAME) && text.contains(&format!("process {}", std::process::id())),
        "{text}"
    );
    assert_eq!(wire::ErrorBody::from(error).code, wire::Code::Conflict);
    drop(first);
    Database::open(dir.path()).await.unwrap();
}

const OLD: TableDefinition<'static, &str, u64> = TableDefinition::new("old");

fn version_0_to_1(txn: &redb::WriteTransaction) -> Result<(), StateError> {
    let mut old = txn.open_table(OLD).map_err(|e| StateError::of_redb("migrating", e))?;
    old.insert("migrated", 1)
        .map_err(|e| StateError::of_redb("migrating", e))?;
    Ok(())
}

fn failing(txn: &redb::WriteTransaction) -> Result<(), StateError> {
    version_0_to_1(txn)?;
    Err(StateError::new(Kind::Full, "no room"))
}

const VERSION_0: Schema = Schema {
    version: 0,
    migrations: &[],
};

async fn old_value(db: &Database, name: &'static str) -> Option<u64> {
    db.read(move |txn| {
        let table = txn.open_table(OLD).map_err(|e| StateError::of_redb("reading", e))?;
        Ok::<_, StateError>(
            table
                .get(name)
                .map_err(|e| StateError::of_redb("reading", e))?
                .map(|v| v.value()),
        )
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn an_older_file_is_migrated_after_a_copy_was_kept() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(FILE_NAME);
    let db = Database::open_with(dir.path(), &VERSION_0).unwrap();
    db.write(|txn| {
        let mut old = txn.open_table(OLD).map_err(|e| StateError::of_redb("writing", e))?;
        old.insert("before", 7).map_err(|e| StateError::of_redb("writing", e))?;
        Ok::<_, StateError>(())
    })
    .await
    .unwrap();
    drop(db);

    let bad = Schema {
        version: 1,
        migrations: &[Migration { from: 0, run: failing }],
    };
    assert_eq!(Database::open_with(dir.path(), &bad).unwrap_err().kind, Kind::Full);
    let unknown = Database::open_with(dir.path(), &CURRENT).unwrap_err();
    assert_eq!(unknown.kind, Kind::Newer, "this release has no way from 0: {unknown}");

    let good = Schema {
        version: 1,
        migrations: &[Migration {
            from: 0,
            run: version_0_to_1,
        }],
    };
    let db = Database::open_with(dir.path(), &good).unwrap();
    assert_eq!(
        (old_value(&db, "before").await, old_value(&db, "migrated").await),
        (Some(7), Some(1))
    );
    drop(db);
    Database::open_with(dir.path(), &CURRENT).expect("now it is of this version");

    let kept = tempfile::tempdir().unwrap();
    std::fs::copy(copy_path(&file, 0), kept.path().join(FILE_NAME)).unwrap();
    let copy = Database::open_with(kept.path(), &VERSION_0).unwrap();
    assert_eq!(
        (old_value(&copy, "before").await, old_value(&copy, "migrated").await),
        (Some(7), None)
    );
}

#[tokio::test]
async fn a_newer_file_is_left_alone_and_names_the_version() {
    let dir = tempfile::tempdir().unwrap();
    let newer = Schema {
        version: 7,
        migrations: &[],
    };
    drop(Database::open_with(dir.path(), &newer).unwrap());
    let error = Database::open(dir.path()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Newer);
    assert!(
        error.to_string().contains("version 7") && error.is_permanent(),
        "{error}"
    );
    Database::open_with(dir.path(), &newer).expect("left as it was");
}

#[tokio::test]
async fn a_file_that_is_none_of_ours_is_refused_without_a_panic() {
    let garbage: Vec<u8> = (0..100_000_u32).map(|n| (n * 31 % 251) as u8).collect();
    for bytes in [b"not a database".to_vec(), garbage] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE_NAME), &bytes).unwrap();
        let error = Database::open(dir.path()).await.unwrap_err();
        assert_eq!(error.kind, Kind::Corrupt, "{error}");
        assert_eq!(
            std::fs::read(dir.path().join(FILE_NAME)).unwrap(),
            bytes,
            "left unchanged"
        );
    }
    let dir = tempfile::tempdir().unwrap();
    let foreign = redb::Database::create(dir.path().join(FILE_NAME)).unwrap();
    let txn = foreign.begin_write().unwrap();
    txn.open_table(OLD).unwrap();
    txn.commit().unwrap();
    drop(foreign);
    assert_eq!(Database::open(dir.path()).await.unwrap_err().kind, Kind::Corrupt);
    let not_a_dir = dir.path().join(FILE_NAME);
    assert!(Database::open(not_a_dir).await.unwrap_err().is_permanent());
}

#[tokio::test]
async fn a_file_that_was_cut_or_flipped_gives_an_error_and_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let state = opened(dir.path()).await;
    for n in 0..50 {
        state
            .put(&key(&format!("k/{n}")), Bytes::from(vec![n; 3_000]))
            .await
            .unwrap();
    }
    drop(state);
    let whole = std::fs::read(dir.path().join(FILE_NAME)).unwrap();
    for n in 0..24_usize {
        let mut bytes = whole.clone();
        let at = whole.len() / 25 * (n + 1);
        if n % 2 == 0 {
            bytes.truncate(at);
        } else {
            bytes[at..at + 64].fill(0xA5);
        }
        let damaged = tempfile::tempdir().unwrap();
        std::fs::write(damaged.path().join(FILE_NAME), &bytes).unwrap();
        // a flipped value is beyond redb (checksums guard its commits); the point is that nothing here panics
        if let Ok(db) = Database::open(damaged.path()).await {
            let state = Redb::new(db, Arc::new(|| 1));
            let _any = state.list(&Prefix::all(), None, 100).await;
            let _any = state.put(&key("k/1"), Bytes::from_static(b"x")).await;
        }
    }
}

#[tokio::test]
async fn a_watch_that_is_too_far_behind_hears_so() {
    let state = Redb::new(Database::in_memory().unwrap(), Arc::new(|| 1));
    let first = state.put(&key("w/first"), Bytes::new()).await.unwrap();
    for n in 0..TOMBSTONES_MAX + 2 {
        let k = key(&format!("w/{n}"));
        state.put(&k, Bytes::new()).await.unwrap();
        state.delete(&k, None).await.unwrap();
    }
    let behind = state.watch(&Prefix::all(), first).await.unwrap().next().await.unwrap();
    assert_eq!(behind.unwrap_err().kind, Kind::Compacted);
    let from_start = state.watch(&Prefix::all(), 0).await.unwrap().next().await.unwrap();
    assert_eq!(
        from_start.unwrap().revision(),
        first,
        "a watch from 0 needs no old deletions"
    );
}

#[test]
fn keys_are_checked() {
    for good in ["a", "a/b", "A-1_2/c.d=e", &"k".repeat(KEY_BYTES_MAX)] {
        assert_eq!(Key::new(good).unwrap().as_str(), good);
    }
    let long = "k".repeat(KEY_BYTES_MAX + 1);
    for bad in [
        "", "/", "a/", "/a", "a//b", ".a", "a.", "a/./b", "a b", "a*", "a>", "é", "a\n", &long,
    ] {
        assert_eq!(Key::new(bad).unwrap_err().kind, Kind::Invalid, "{bad}");
    }
}
