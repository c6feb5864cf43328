//! For tests: a state whose every call takes one turn. Whoever polls decides who goes next, and a future that is dropped between
//! two calls is a process that died there. It has no watches and no leases.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use crate::{Entry, Key, Kind, Prefix, Result, State, StateError, Watch, rules};
use async_trait::async_trait;
use bytes::Bytes;

/// See the head of the file.
#[derive(Debug, Default)]
pub struct Slow {
    kv: Mutex<BTreeMap<String, (u64, Bytes)>>,
    revision: AtomicU64,
    /// Writes so far.
    pub writes: AtomicU64,
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

impl Slow {
    fn kv(&self) -> MutexGuard<'_, BTreeMap<String, (u64, Bytes)>> {
        self.kv.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn write(&self, key: &Key, value: Bytes) -> u64 {
        let revision = self.revision.fetch_add(1, Ordering::SeqCst) + 1;
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.kv().insert(key.as_str().to_owned(), (revision, value));
        revision
    }
    fn entry(key: &str, (revision, value): &(u64, Bytes)) -> Entry {
        Entry {
            key: Key::stored(key),
            value: value.clone(),
            revision: *revision,
            expires_at_ms: None,
        }
    }
    fn found(&self, key: &Key) -> Option<Entry> {
        self.kv().get(key.as_str()).map(|v| Self::entry(key.as_str(), v))
    }
    fn none(what: &str) -> StateError {
        StateError::new(Kind::Unavailable, format!("this state has no {what}"))
    }
}

#[async_trait]
impl State for Slow {
    async fn get(&self, key: &Key) -> Result<Option<Entry>> {
        Turn(false).await;
        Ok(self.found(key))
    }
    async fn put(&self, key: &Key, value: Bytes) -> Result<u64> {
        Turn(false).await;
        Ok(self.write(key, value))
    }
    async fn create(&self, key: &Key, value: Bytes) -> Result<u64> {
        Turn(false).await;
        match self.found(key) {
            Some(found) => Err(rules::exists(&found)),
            None => Ok(self.write(key, value)),
        }
    }
    async fn update(&self, key: &Key, value: Bytes, revision: u64) -> Result<u64> {
        Turn(false).await;
        match self.found(key) {
            Some(found) if found.revision == revision => Ok(self.write(key, value)),
            Some(found) => Err(rules::moved(&found, revision)),
            None => Err(rules::missing(key)),
        }
    }
    async fn delete(&self, key: &Key, revision: Option<u64>) -> Result<u64> {
        Turn(false).await;
        match (self.found(key), revision) {
            (None, _) => Err(rules::missing(key)),
            (Some(found), Some(wanted)) if found.revision != wanted => Err(rules::moved(&found, wanted)),
            (Some(_), _) => {
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
        Err(Self::none("watches"))
    }
    async fn lease(&self, _: &Key, _: &str, _: u64) -> Result<Entry> {
        Err(Self::none("leases"))
    }
    async fn release(&self, _: &Key, _: &str) -> Result<()> {
        Err(Self::none("leases"))
    }
}
