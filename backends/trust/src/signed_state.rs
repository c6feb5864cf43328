//! A state that some keys of which hold orders: what stands there is signed, and what no member signed doesn't stand there.
//!
//! Under these prefixes a value is wrapped with its signature, over key, value, time and nonce. A value that isn't good is told and
//! passed over; the last good one counts on. An older good one doesn't count either, so an order that was taken back can't be
//! brought back by writing its old text. Nothing under such a prefix is deleted: a deletion has no signature, so it is passed
//! over, too. What this host itself has to obey it remembers in its own state, over a restart.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use state::{Change, Entry, Key, Kind, Prefix, Result, State, StateError, Watch};

use crate::core::refusal::Refusal;
use crate::core::stamp::{Domain, Stamp};
use crate::fleet::Fleet;

/// Below this a host keeps what it has to remember.
const REMEMBERED: &str = "signed";

/// A value and its signature, as they stand in the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Wrapped {
    value: String,
    stamp: String,
}

/// The last good value of a key.
#[derive(Debug, Clone)]
struct Good {
    time_ms: u64,
    value: Bytes,
    revision: u64,
    /// It stands in this host's own state, where it has to.
    is_kept: bool,
}

impl Good {
    /// Later, or the same once more. Of two in one millisecond the first counts.
    fn gives_way_to(&self, time_ms: u64, value: &Bytes) -> bool {
        self.time_ms < time_ms || (self.time_ms == time_ms && self.value == value)
    }
}

/// The decorator.
#[derive(Debug, Clone)]
pub struct SignedState(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    inner: Arc<dyn State>,
    own: Arc<dyn State>,
    fleet: Fleet,
    prefixes: Vec<String>,
    /// What a key ends with that this host obeys.
    mine: String,
    good: Mutex<HashMap<Key, Good>>,
}

impl SignedState {
    /// `inner`, signed below `prefixes` (each ends with `/`); `own` is this host's own state, which remembers keys that end with
    /// `/<host>`.
    pub fn new(
        inner: Arc<dyn State>,
        own: Arc<dyn State>,
        fleet: Fleet,
        host: &wire::HostId,
        prefixes: &[&str],
    ) -> Self {
        Self(Arc::new(Inner {
            inner,
            own,
            fleet,
            prefixes: prefixes.iter().map(|&prefix| prefix.to_owned()).collect(),
            mine: format!("/{host}"),
            good: Mutex::default(),
        }))
    }

    fn is_signed(&self, key: &Key) -> bool {
        self.0.prefixes.iter().any(|prefix| key.as_str().starts_with(prefix))
    }

    fn good(&self) -> MutexGuard<'_, HashMap<Key, Good>> {
        // nothing panics under this lock
        self.0.good.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value with its signature, and when it was signed.
    fn wrap(&self, key: &Key, value: &Bytes) -> Result<(Bytes, u64)> {
        let text = std::str::from_utf8(value).map_err(|_| {
            StateError::new(
                Kind::Invalid,
                format!("key {key} is signed, and takes text alone; nothing was changed"),
            )
        })?;
        // clocks are right to some milliseconds: what is written later counts later
        let last_ms = self.good().get(key).map_or(0, |good| good.time_ms);
        let stamp = self.0.fleet.sign_after(last_ms, Domain::Record, &parts(key, text));
        let stamp = stamp.map_err(|reason| {
            StateError::new(Kind::Denied, format!("key {key}: {reason}; nothing was changed")).hint(reason.hint())
        })?;
        let wrapped = Wrapped {
            value: text.to_owned(),
            stamp: stamp.to_string(),
        };
        let bytes = serde_json::to_vec(&wrapped)
            .map_err(|e| StateError::new(Kind::Invalid, format!("key {key}: {e}; nothing was changed")))?;
        Ok((bytes.into(), stamp.time_ms))
    }

    /// What this process wrote itself it has heard, as far as time goes; what it has to remember it keeps when it hears it.
    fn wrote(&self, key: &Key, value: Bytes, time_ms: u64, revision: u64) -> u64 {
        let mut good = self.good();
        if good.get(key).is_none_or(|before| before.time_ms < time_ms) {
            let written = Good {
                time_ms,
                value,
                revision,
                is_kept: false,
            };
            good.insert(key.clone(), written);
        }
        revision
    }

    fn unwrapped(&self, key: &Key, bytes: &[u8]) -> std::result::Result<(u64, Bytes), Refusal> {
        let wrapped: Wrapped = serde_json::from_slice(bytes).map_err(|_| Refusal::Unsigned)?;
        let stamp: Stamp = wrapped.stamp.parse()?;
        self.0
            .fleet
            .check(&stamp, Domain::Record, &parts(key, &wrapped.value))?;
        Ok((stamp.time_ms, wrapped.value.into()))
    }

    /// What stands there, as far as a member signed it: this, or the last good one.
    async fn heard(&self, entry: Entry) -> Result<Option<Entry>> {
        let key = entry.key.clone();
        let before = self.remembered(&key).await?;
        let refused = match self.unwrapped(&key, &entry.value) {
            Ok((time_ms, value)) if before.as_ref().is_none_or(|b| b.gives_way_to(time_ms, &value)) => {
                let good = Good {
                    time_ms,
                    value,
                    revision: entry.revision,
                    is_kept: true,
                };
                self.remember(&key, &good, &entry.value).await?;
                return Ok(Some(Entry {
                    value: good.value,
                    ..entry
                }));
            }
            Ok(_older) => Refusal::Replayed,
            Err(reason) => reason,
        };
        let stamp = serde_json::from_slice::<Wrapped>(&entry.value).ok().map(|w| w.stamp);
        self.0.fleet.refuse(&format!("key {key}"), stamp.as_deref(), refused);
        tracing::warn!(%key, reason = refused.as_str(), "a record that no member stands behind was passed over; what stood there before counts on");
        Ok(before.map(|good| Entry {
            value: good.value,
            ..entry
        }))
    }

    async fn remembered(&self, key: &Key) -> Result<Option<Good>> {
        let known = self.good().get(key).cloned();
        if known.is_some() || !key.as_str().ends_with(&self.0.mine) {
            return Ok(known);
        }
        let Some(kept) = self.0.own.get(&own_key(key)?).await? else {
            return Ok(None);
        };
        let wrapped = serde_json::from_slice::<Wrapped>(&kept.value).ok();
        // it was good when it was kept, and whoever signed it may have been put out since
        let good = wrapped.and_then(|w| {
            let stamp: Stamp = w.stamp.parse().ok()?;
            Some(Good {
                time_ms: stamp.time_ms,
                value: w.value.into(),
                revision: 0,
                is_kept: true,
            })
        });
        if let Some(good) = &good {
            self.good().insert(key.clone(), good.clone());
        }
        Ok(good)
    }

    async fn remember(&self, key: &Key, good: &Good, wrapped: &Bytes) -> Result<()> {
        let before = self.good().insert(key.clone(), good.clone());
        let is_new = before.is_none_or(|before| before.time_ms != good.time_ms || !before.is_kept);
        if is_new && key.as_str().ends_with(&self.0.mine) {
            self.0.own.put(&own_key(key)?, wrapped.clone()).await?;
        }
        Ok(())
    }

    async fn seen(&self, change: Result<Change>) -> Option<Result<Change>> {
        match change {
            Ok(Change::Put(entry)) if self.is_signed(&entry.key) => match self.heard(entry).await {
                Ok(entry) => entry.map(|entry| Ok(Change::Put(entry))),
                Err(e) => Some(Err(e)),
            },
            Ok(Change::Deleted { key, revision }) if self.is_signed(&key) => {
                // one that never stood there is nobody's loss
                let before = self.good().get(&key).cloned()?;
                self.0.fleet.refuse(&format!("key {key}"), None, Refusal::Unsigned);
                tracing::warn!(%key, revision, "a signed record was deleted; what stood there counts on");
                Some(Ok(Change::Put(Entry {
                    key,
                    value: before.value,
                    revision,
                    expires_at_ms: None,
                })))
            }
            other => Some(other),
        }
    }
}

fn parts<'a>(key: &'a Key, value: &'a str) -> [&'a [u8]; 2] {
    [key.as_str().as_bytes(), value.as_bytes()]
}

fn own_key(key: &Key) -> Result<Key> {
    Key::new(format!("{REMEMBERED}/{key}"))
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl State for SignedState {
    async fn get(&self, key: &Key) -> Result<Option<Entry>> {
        let entry = self.0.inner.get(key).await?;
        if !self.is_signed(key) {
            return Ok(entry);
        }
        match entry {
            Some(entry) => self.heard(entry).await,
            None => Ok(self.remembered(key).await?.map(|good| Entry {
                key: key.clone(),
                value: good.value,
                revision: good.revision,
                expires_at_ms: None,
            })),
        }
    }

    async fn put(&self, key: &Key, value: Bytes) -> Result<u64> {
        match self.is_signed(key) {
            true => {
                let (wrapped, time_ms) = self.wrap(key, &value)?;
                let revision = self.0.inner.put(key, wrapped).await?;
                Ok(self.wrote(key, value, time_ms, revision))
            }
            false => self.0.inner.put(key, value).await,
        }
    }

    async fn create(&self, key: &Key, value: Bytes) -> Result<u64> {
        match self.is_signed(key) {
            true => {
                let (wrapped, time_ms) = self.wrap(key, &value)?;
                let revision = self.0.inner.create(key, wrapped).await?;
                Ok(self.wrote(key, value, time_ms, revision))
            }
            false => self.0.inner.create(key, value).await,
        }
    }

    async fn update(&self, key: &Key, value: Bytes, revision: u64) -> Result<u64> {
        match self.is_signed(key) {
            true => {
                let (wrapped, time_ms) = self.wrap(key, &value)?;
                let revision = self.0.inner.update(key, wrapped, revision).await?;
                Ok(self.wrote(key, value, time_ms, revision))
            }
            false => self.0.inner.update(key, value, revision).await,
        }
    }

    async fn delete(&self, key: &Key, revision: Option<u64>) -> Result<u64> {
        match self.is_signed(key) {
            true => Err(StateError::new(
                Kind::Invalid,
                format!("key {key} is signed, and a deletion can't be; nothing was changed"),
            )
            .hint("write another value")),
            false => self.0.inner.delete(key, revision).await,
        }
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Key>, entries_max: usize) -> Result<Vec<Entry>> {
        let mut heard = Vec::new();
        for entry in self.0.inner.list(prefix, after, entries_max).await? {
            match self.is_signed(&entry.key) {
                true => heard.extend(self.heard(entry).await?),
                false => heard.push(entry),
            }
        }
        Ok(heard)
    }

    async fn watch(&self, prefix: &Prefix, after_revision: u64) -> Result<Watch> {
        let (state, changes) = (self.clone(), self.0.inner.watch(prefix, after_revision).await?);
        let seen = changes.filter_map(move |change| {
            let state = state.clone();
            async move { state.seen(change).await }
        });
        Ok(seen.boxed())
    }

    async fn lease(&self, key: &Key, holder: &str, ttl_ms: u64) -> Result<Entry> {
        self.0.inner.lease(key, holder, ttl_ms).await
    }

    async fn release(&self, key: &Key, holder: &str) -> Result<()> {
        self.0.inner.release(key, holder).await
    }
}
