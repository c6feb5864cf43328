//! Objects in memory.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};

use crate::{Key, Kind, Meta, Result, Store, StoreError, Tried, split_prefix};

/// The stores that `memory://name` means in this process; they live as long as it does.
static NAMED: LazyLock<Mutex<HashMap<String, Arc<Memory>>>> = LazyLock::new(Mutex::default);

type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

struct Object {
    body: Bytes,
    last_modified_ms: i64,
}

/// A store in memory: for tests, and for `memory://name`. Nothing of it survives the process.
pub struct Memory {
    name: String,
    clock: Clock,
    objects: Mutex<BTreeMap<Key, Object>>,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the store's own clock is what last_modified_ms is defined by"
)]
fn system_clock_ms() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl Memory {
    /// A store of its own, that nobody else can open.
    pub fn new() -> Arc<Self> {
        Self::with_clock(system_clock_ms)
    }

    /// As [`Memory::new`], with `clock` (Unix milliseconds) for the age of objects.
    pub fn with_clock(clock: impl Fn() -> i64 + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            name: String::new(),
            clock: Arc::new(clock),
            objects: Mutex::default(),
        })
    }

    /// The store `memory://name`: the same one each time within a process.
    ///
    /// # Errors
    /// `Kind::Invalid` when `name` has not the form of a [`Key`].
    pub fn named(name: &str) -> Result<Arc<Self>> {
        Key::new(name)?;
        let mut named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || {
            Arc::new(Self {
                name: name.to_owned(),
                clock: Arc::new(system_clock_ms),
                objects: Mutex::default(),
            })
        };
        Ok(Arc::clone(named.entry(name.to_owned()).or_insert_with(fresh)))
    }

    /// Bytes of all objects together.
    pub fn stored_bytes(&self) -> u64 {
        self.lock().values().map(|o| o.body.len() as u64).sum()
    }

    /// Replaces the body of `key` in place, age kept: for tests of damage. False when there is no such object.
    pub fn corrupt(&self, key: &Key, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut objects = self.lock();
        let Some(object) = objects.get_mut(key) else {
            return false;
        };
        let mut body = object.body.to_vec();
        change(&mut body);
        object.body = body.into();
        true
    }

    // Every change below is a single map operation, so a panic elsewhere can't have left the map half-changed.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Object>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(
        &self,
        kind: Kind,
        operation: &'static str,
        object: impl fmt::Display,
        why: impl fmt::Display,
    ) -> StoreError {
        StoreError::new(kind, operation, object.to_string(), why).at(&self.url())
    }

    fn body(&self, operation: &'static str, key: &Key) -> Result<Bytes> {
        match self.lock().get(key) {
            Some(object) => Ok(object.body.clone()),
            None => Err(self.error(Kind::NotFound, operation, key, "no such object")),
        }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("name", &self.name)
            .field("objects", &self.lock().len())
            .finish()
    }
}

#[async_trait]
impl Store for Memory {
    fn url(&self) -> String {
        format!("memory://{}", self.name)
    }

    async fn put(&self, key: &Key, body: Bytes) -> Result<()> {
        let last_modified_ms = (self.clock)();
        self.lock().insert(key.clone(), Object { body, last_modified_ms });
        Ok(())
    }

    async fn get(&self, key: &Key, bytes_max: u64) -> Result<Bytes> {
        let body = self.body("get", key)?;
        if body.len() as u64 > bytes_max {
            let why = format!("the object has {} bytes, at most {bytes_max} were expected", body.len());
            return Err(self.error(Kind::TooLarge, "get", key, why));
        }
        Ok(body)
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        let body = self.body("get_range", key)?;
        if range.start > range.end {
            return Err(self.error(Kind::Invalid, "get_range", key, "the range ends before it starts"));
        }
        if range.end > body.len() as u64 {
            let why = format!(
                "bytes {}..{} asked, the object has {}",
                range.start,
                range.end,
                body.len()
            );
            return Err(self.error(Kind::Truncated, "get_range", key, why));
        }
        // Both ends are at most the length of a slice in memory.
        Ok(body.slice(range.start as usize..range.end as usize))
    }

    async fn head(&self, key: &Key) -> Result<Meta> {
        match self.lock().get(key) {
            Some(o) => Ok(Meta {
                key: key.clone(),
                size_bytes: o.body.len() as u64,
                last_modified_ms: o.last_modified_ms,
            }),
            None => Err(self.error(Kind::NotFound, "head", key, "no such object")),
        }
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, Result<Meta>> {
        if let Err(e) = split_prefix(prefix) {
            return stream::iter([Err(e.at(&self.url()))]).boxed();
        }
        let found: Vec<_> = self
            .lock()
            .iter()
            .filter(|(key, _)| key.as_str().starts_with(prefix))
            .map(|(key, o)| {
                Ok(Meta {
                    key: key.clone(),
                    size_bytes: o.body.len() as u64,
                    last_modified_ms: o.last_modified_ms,
                })
            })
            .collect();
        stream::iter(found).boxed()
    }

    async fn delete(&self, keys: &[Key]) -> Result<()> {
        let mut objects = self.lock();
        for key in keys {
            objects.remove(key);
        }
        Ok(())
    }

    async fn try_out(&self, _scratch: &Key) -> Result<Tried> {
        Ok(Tried::default())
    }

    fn local_path(&self, _key: &Key) -> Option<PathBuf> {
        None
    }
}
