//! A store that fails, by seed.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};

use crate::{Key, Kind, Meta, Result, Store, StoreError, Tried};

/// Which faults, each in thousandths of the calls it applies to. The default is none.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Same seed and same order of calls: same faults.
    pub seed: u64,
    /// Only keys (and LIST prefixes) that begin so are hit; `""` for all.
    pub only: String,
    /// The call does nothing and answers `Unavailable`, `Timeout` or `SlowDown`.
    pub errors_permille: u32,
    /// PUT and DELETE do their work and answer `Timeout`: the caller can't know.
    pub unacknowledged_permille: u32,
    /// GET and range GET notice that the body was cut, and answer `Truncated`.
    pub truncated_permille: u32,
    /// GET of a whole object gives a shorter body and says nothing.
    pub short_body_permille: u32,
    /// GET and range GET give a body with one byte changed.
    pub wrong_body_permille: u32,
    /// PUT answers `Ok` and stores nothing.
    pub lost_permille: u32,
    /// LIST answers some objects and then `Unavailable`.
    pub list_cut_permille: u32,
    /// After so many bytes in all PUTs together every PUT answers `Full`.
    pub full_after_bytes: Option<u64>,
    /// After so many calls of any kind every call answers `Unavailable`.
    pub dead_after_requests: Option<u64>,
}

/// Passes calls on to `inner`, except for [`Faults`].
#[derive(Debug)]
pub struct Flaky {
    inner: Arc<dyn Store>,
    faults: Mutex<Faults>,
    random: Mutex<u64>,
    put_bytes: AtomicU64,
    requests: AtomicU64,
    hits: AtomicU64,
}

enum Fate {
    Pass,
    Unacknowledged,
    Lost,
    Short,
    Wrong,
}

impl Flaky {
    /// A store with `faults`.
    pub fn new(inner: Arc<dyn Store>, faults: Faults) -> Arc<Self> {
        let random = Mutex::new(faults.seed);
        Arc::new(Self {
            inner,
            random,
            faults: Mutex::new(faults),
            put_bytes: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            hits: AtomicU64::new(0),
        })
    }

    /// Other faults from now on; counters of bytes and requests begin again.
    pub fn set(&self, faults: Faults) {
        *self.random.lock().unwrap_or_else(PoisonError::into_inner) = faults.seed;
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
        self.put_bytes.store(0, Ordering::SeqCst);
        self.requests.store(0, Ordering::SeqCst);
    }

    /// Calls that were hit by a fault so far: a test asserts that it is not 0.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::SeqCst)
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn random(&self) -> u64 {
        let mut state = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn happens(&self, permille: u32) -> bool {
        permille > 0 && self.random() % 1000 < u64::from(permille)
    }

    fn hit(&self, kind: Kind, operation: &'static str, object: &str) -> StoreError {
        self.hits.fetch_add(1, Ordering::SeqCst);
        StoreError::new(kind, operation, object, "injected fault").at(&self.url())
    }

    fn faults_for(&self, operation: &'static str, object: &str) -> Result<Option<Faults>> {
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let before = self.requests.fetch_add(1, Ordering::SeqCst);
        if faults.dead_after_requests.is_some_and(|max| before >= max) {
            return Err(self.hit(Kind::Unavailable, operation, object));
        }
        if !object.starts_with(&faults.only) {
            return Ok(None);
        }
        if self.happens(faults.errors_permille) {
            let kinds = [Kind::Unavailable, Kind::Timeout, Kind::SlowDown];
            return Err(self.hit(kinds[(self.random() % 3) as usize], operation, object));
        }
        Ok(Some(faults))
    }

    fn fate_of_put(&self, key: &Key, bytes: u64) -> Result<Fate> {
        let Some(faults) = self.faults_for("put", key.as_str())? else {
            return Ok(Fate::Pass);
        };
        let before = self.put_bytes.fetch_add(bytes, Ordering::SeqCst);
        if faults.full_after_bytes.is_some_and(|max| before + bytes > max) {
            self.put_bytes.fetch_sub(bytes, Ordering::SeqCst);
            return Err(self.hit(Kind::Full, "put", key.as_str()));
        }
        if self.happens(faults.lost_permille) {
            return Ok(Fate::Lost);
        }
        if self.happens(faults.unacknowledged_permille) {
            return Ok(Fate::Unacknowledged);
        }
        Ok(Fate::Pass)
    }

    fn fate_of_get(&self, operation: &'static str, key: &Key, whole: bool) -> Result<Fate> {
        let Some(faults) = self.faults_for(operation, key.as_str())? else {
            return Ok(Fate::Pass);
        };
        if self.happens(faults.truncated_permille) {
            return Err(self.hit(Kind::Truncated, operation, key.as_str()));
        }
        if whole && self.happens(faults.short_body_permille) {
            return Ok(Fate::Short);
        }
        if self.happens(faults.wrong_body_permille) {
            return Ok(Fate::Wrong);
        }
        Ok(Fate::Pass)
    }

    fn disturbed(&self, body: Bytes, fate: &Fate) -> Bytes {
        if body.is_empty() || matches!(fate, Fate::Pass) {
            return body;
        }
        self.hits.fetch_add(1, Ordering::SeqCst);
        let at = (self.random() % body.len() as u64) as usize;
        if matches!(fate, Fate::Short) {
            return body.slice(..at);
        }
        let mut wrong = body.to_vec();
        wrong[at] ^= 1 << (self.random() % 8);
        wrong.into()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for Flaky {
    fn url(&self) -> String {
        self.inner.url()
    }

    async fn put(&self, key: &Key, body: Bytes) -> Result<()> {
        match self.fate_of_put(key, body.len() as u64)? {
            Fate::Lost => {
                self.hits.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
            Fate::Unacknowledged => {
                self.inner.put(key, body).await?;
                Err(self.hit(Kind::Timeout, "put", key.as_str()))
            }
            _ => self.inner.put(key, body).await,
        }
    }

    async fn get(&self, key: &Key, bytes_max: u64) -> Result<Bytes> {
        let fate = self.fate_of_get("get", key, true)?;
        Ok(self.disturbed(self.inner.get(key, bytes_max).await?, &fate))
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        let fate = self.fate_of_get("get_range", key, false)?;
        Ok(self.disturbed(self.inner.get_range(key, range).await?, &fate))
    }

    async fn head(&self, key: &Key) -> Result<Meta> {
        self.faults_for("head", key.as_str())?;
        self.inner.head(key).await
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, Result<Meta>> {
        let faults = match self.faults_for("list", prefix) {
            Ok(faults) => faults.unwrap_or_default(),
            Err(e) => return stream::iter([Err(e)]).boxed(),
        };
        let found = self.inner.list(prefix);
        if !self.happens(faults.list_cut_permille) {
            return found;
        }
        let error = self.hit(Kind::Unavailable, "list", prefix);
        found
            .take((self.random() % 4) as usize)
            .chain(stream::iter([Err(error)]))
            .boxed()
    }

    async fn delete(&self, keys: &[Key]) -> Result<()> {
        let first = keys.first().map_or("", Key::as_str);
        let faults = self.faults_for("delete", first)?.unwrap_or_default();
        if self.happens(faults.unacknowledged_permille) {
            // A batch that was cut: some are gone, the caller is told that it failed.
            let done = (self.random() % (keys.len() as u64 + 1)) as usize;
            self.inner.delete(&keys[..done]).await?;
            return Err(self.hit(Kind::Timeout, "delete", first));
        }
        self.inner.delete(keys).await
    }

    async fn try_out(&self, scratch: &Key) -> Result<Tried> {
        self.faults_for("try_out", scratch.as_str())?;
        self.inner.try_out(scratch).await
    }

    /// None: a mapped file would not fail.
    fn local_path(&self, _key: &Key) -> Option<PathBuf> {
        None
    }
}
