use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use async_trait::async_trait;

use super::*;
use crate::{Database, Redb, Watch};

/// A state whose changes stop being made after `left` of them: what a maker that dies leaves behind.
#[derive(Debug)]
struct Dying {
    inner: Arc<dyn State>,
    left: AtomicI64,
}

impl Dying {
    fn may_change(&self) -> Result<()> {
        match self.left.fetch_sub(1, Ordering::SeqCst) > 0 {
            true => Ok(()),
            false => Err(StateError::new(Kind::Unavailable, "dead")),
        }
    }
}

#[async_trait]
impl State for Dying {
    async fn get(&self, key: &Key) -> Result<Option<Entry>> {
        self.inner.get(key).await
    }
    async fn put(&self, key: &Key, value: Bytes) -> Result<u64> {
        self.may_change()?;
        self.inner.put(key, value).await
    }
    async fn create(&self, key: &Key, value: Bytes) -> Result<u64> {
        self.may_change()?;
        self.inner.create(key, value).await
    }
    async fn update(&self, key: &Key, value: Bytes, revision: u64) -> Result<u64> {
        self.may_change()?;
        self.inner.update(key, value, revision).await
    }
    async fn delete(&self, key: &Key, revision: Option<u64>) -> Result<u64> {
        self.may_change()?;
        self.inner.delete(key, revision).await
    }
    async fn list(&self, prefix: &Prefix, after: Option<&Key>, entries_max: usize) -> Result<Vec<Entry>> {
        self.inner.list(prefix, after, entries_max).await
    }
    async fn watch(&self, prefix: &Prefix, after_revision: u64) -> Result<Watch> {
        self.inner.watch(prefix, after_revision).await
    }
    async fn lease(&self, key: &Key, holder: &str, ttl_ms: u64) -> Result<Entry> {
        self.inner.lease(key, holder, ttl_ms).await
    }
    async fn release(&self, key: &Key, holder: &str) -> Result<()> {
        self.inner.release(key, holder).await
    }
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn memory() -> (Arc<dyn State>, Arc<AtomicU64>, NowMs) {
    let hand = Arc::new(AtomicU64::new(1_000));
    let turned = hand.clone();
    let now_ms: NowMs = Arc::new(move || turned.load(Ordering::SeqCst));
    (
        Arc::new(Redb::new(Database::in_memory().unwrap(), now_ms.clone())),
        hand,
        now_ms,
    )
}

async fn wish(on: &Decisions, name: &str, value: Option<&'static str>) -> Wish {
    Wish {
        key: key(name),
        revision: on.read(&key(name)).await.unwrap().revision,
        value: value.map(|v| Bytes::from_static(v.as_bytes())),
    }
}

async fn values(on: &Decisions) -> Vec<Option<String>> {
    let mut all = Vec::new();
    for name in ["a", "b", "c"] {
        let value = on.read(&key(name)).await.unwrap().value;
        all.push(value.map(|v| String::from_utf8(v.to_vec()).unwrap()));
    }
    all
}

fn some(all: [&str; 3]) -> Vec<Option<String>> {
    all.iter().map(|v| (!v.is_empty()).then(|| (*v).to_owned())).collect()
}

#[tokio::test]
async fn all_keys_change_or_none_does() {
    let (state, _, now_ms) = memory();
    let on = Decisions::new(state.clone(), now_ms);
    let first = [wish(&on, "a", Some("1")).await, wish(&on, "b", Some("1")).await];
    on.change("d1", &first, 1_000).await.unwrap();
    assert_eq!(values(&on).await, some(["1", "1", ""]));
    // b moved meanwhile: c is not made, a is not changed
    let stale = [
        wish(&on, "a", Some("2")).await,
        wish(&on, "c", Some("2")).await,
        Wish {
            revision: 1,
            ..wish(&on, "b", Some("2")).await
        },
    ];
    assert_eq!(on.change("d2", &stale, 1_000).await.unwrap_err().kind, Kind::Conflict);
    assert_eq!(values(&on).await, some(["1", "1", ""]));
    let third = [wish(&on, "a", None).await, wish(&on, "c", Some("")).await];
    on.change("d3", &third, 1_000).await.unwrap();
    assert_eq!(values(&on).await[0], None);
    assert_eq!(values(&on).await[2].as_deref(), Some(""));
    assert!(
        state
            .list(&Prefix::below(&key("decision")), None, 9)
            .await
            .unwrap()
            .is_empty(),
        "no decision stays"
    );
    let twice = [third[0].clone(), third[0].clone()];
    for bad in [&twice[..], &[]] {
        assert_eq!(on.change("d4", bad, 1).await.unwrap_err().kind, Kind::Invalid);
    }
}

/// The maker dies after every number of writes: others see all of it or nothing, at once or when its time is over.
#[tokio::test]
async fn a_maker_may_die_at_every_write() {
    let mut outcomes = BTreeSet::new();
    for left in 0..16 {
        let (state, hand, now_ms) = memory();
        let on = Decisions::new(state.clone(), now_ms.clone());
        let before = [wish(&on, "a", Some("old")).await, wish(&on, "b", Some("old")).await];
        on.change("d1", &before, 1_000).await.unwrap();
        let dying = Dying {
            inner: state.clone(),
            left: AtomicI64::new(left),
        };
        let maker = Decisions::new(Arc::new(dying), now_ms);
        let wishes = [
            wish(&on, "a", Some("new")).await,
            wish(&on, "b", None).await,
            wish(&on, "c", Some("new")).await,
        ];
        let said = maker.change("d2", &wishes, 1_000).await;
        let (old, new) = (some(["old", "old", ""]), some(["new", "", "new"]));
        let at_once = values(&on).await;
        assert_eq!(at_once, if said.is_ok() { new.clone() } else { old.clone() }, "{left}");
        hand.fetch_add(1_000, Ordering::SeqCst);
        on.sweep().await.unwrap();
        assert_eq!(values(&on).await, at_once, "{left}: what was seen stays");
        assert!(
            state
                .list(&Prefix::below(&key("decision")), None, 9)
                .await
                .unwrap()
                .is_empty(),
            "{left}"
        );
        let after = [wish(&on, "a", Some("x")).await, wish(&on, "c", Some("x")).await];
        on.change("d3", &after, 1_000).await.expect("and others go on");
        outcomes.insert(said.is_ok());
    }
    assert_eq!(outcomes.len(), 2, "both ends were seen");
}

/// A slow maker whose time is over can't commit what others have given up.
#[tokio::test]
async fn who_is_late_changes_nothing() {
    let (state, hand, now_ms) = memory();
    let on = Decisions::new(state.clone(), now_ms.clone());
    let record = Record {
        verdict: Verdict::Open,
        expires_at_ms: 2_000,
        keys: vec!["a".into()],
    };
    let opened = state
        .create(&place("slow").unwrap(), encoded_record(&record).unwrap())
        .await
        .unwrap();
    on.prepare("slow", &wish(&on, "a", Some("slow")).await).await.unwrap();
    let held = wish(&on, "a", Some("quick")).await;
    let refused = on.change("quick", &[held], 1_000).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Conflict);
    assert!(refused.to_string().contains("decision slow"), "{refused}");
    hand.fetch_add(1_000, Ordering::SeqCst);
    let free = wish(&on, "a", Some("quick")).await;
    on.change("quick", &[free], 1_000).await.unwrap();
    let committed = Record {
        verdict: Verdict::Committed,
        ..record
    };
    let late = state
        .update(&place("slow").unwrap(), encoded_record(&committed).unwrap(), opened)
        .await;
    assert_eq!(late.unwrap_err().kind, Kind::Conflict);
    assert_eq!(on.read(&key("a")).await.unwrap().value.unwrap(), "quick");
}
