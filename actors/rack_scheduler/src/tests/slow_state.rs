//! A state whose every call takes one turn: whoever polls decides who goes next, and a future that is dropped between two
//! calls is a scheduler that died there.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use state::{Entry, Key, Kind, Prefix, Result, State, StateError, Watch};

/// See the head of the file.
#[derive(Debug, Default)]
pub(super) struct SlowState {
    kv: Mutex<BTreeMap<String, (u64, Bytes)>>,
    revision: AtomicU64,
    /// Writes so far.
    pub(super) writes: AtomicU64,
}

/// Ready at the second poll.
struct Turn(bool);

impl Future for Turn {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match std::mem::replace(&mut self.0, true) {
            true => Poll::Ready(()),
            false => {
                // several calls may be under way in one future, which polls those that were woken
                context.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

impl SlowState {
    fn kv(&self) -> MutexGuard<'_, BTreeMap<String, (u64, Bytes)>> {
        self.kv.lock().unwrap()
    }
    fn write(&self, key: &Key, value: Bytes) -> u64 {
        let revision = self.revision.fetch_add(1, Ordering::SeqCst) + 1;
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.kv().insert(key.as_str().to_owned(), (revision, value));
        revision
    }
    fn entry(key: &str, (revision, value): &(u64, Bytes)) -> Entry {
        Entry {
            key: Key::new(key).unwrap(),
            value: value.clone(),
            revision: *revision,
            expires_at_ms: None,
        }
    }
    fn lost(key: &Key, kind: Kind) -> StateError {
        StateError::new(kind, format!("key {key} changed"))
    }
}

#[async_trait]
impl State for SlowState {
    async fn get(&self, key: &Key) -> Result<Option<Entry>> {
        Turn(false).await;
        Ok(self.kv().get(key.as_str()).map(|v| Self::entry(key.as_str(), v)))
    }
    async fn put(&self, key: &Key, value: Bytes) -> Result<u64> {
        Turn(false).await;
        Ok(self.write(key, value))
    }
    async fn create(&self, key: &Key, value: Bytes) -> Result<u64> {
        Turn(false).await;
        if self.kv().contains_key(key.as_str()) {
            return Err(Self::lost(key, Kind::Conflict));
        }
        Ok(self.write(key, value))
    }
    async fn update(&self, key: &Key, value: Bytes, revision: u64) -> Result<u64> {
        Turn(false).await;
        let known = self.kv().get(key.as_str()).map(|(r, _)| *r);
        match known {
            Some(known) if known == revision => Ok(self.write(key, value)),
            Some(_) => Err(Self::lost(key, Kind::Conflict)),
            None => Err(Self::lost(key, Kind::NotFound)),
        }
    }
    async fn delete(&self, key: &Key, revision: Option<u64>) -> Result<u64> {
        Turn(false).await;
        let known = self.kv().get(key.as_str()).map(|(r, _)| *r);
        match known {
            None => Err(Self::lost(key, Kind::NotFound)),
            Some(known) if revision.is_some_and(|r| r != known) => Err(Self::lost(key, Kind::Conflict)),
            Some(_) => {
                self.kv().remove(key.as_str());
                Ok(self.revision.fetch_add(1, Ordering::SeqCst) + 1)
            }
        }
    }
    async fn list(&self, prefix: &Prefix, after: Option<&Key>, entries_max: usize) -> Result<Vec<Entry>> {
        Turn(false).await;
        let after = after.map(|k| k.as_str().to_owned());
        let kv = self.kv();
        let wanted = |k: &&String| prefix.takes(k) && after.as_ref().is_none_or(|a| *k > a);
        Ok(kv
            .iter()
            .filter(|(k, _)| wanted(k))
            .take(entries_max)
            .map(|(k, v)| Self::entry(k, v))
            .collect())
    }
    async fn watch(&self, _: &Prefix, _: u64) -> Result<Watch> {
        Err(StateError::new(Kind::Unavailable, "this state has no watches"))
    }
    async fn lease(&self, key: &Key, _: &str, _: u64) -> Result<Entry> {
        Err(Self::lost(key, Kind::Unavailable))
    }
    async fn release(&self, key: &Key, _: &str) -> Result<()> {
        Err(Self::lost(key, Kind::Unavailable))
    }
}
