//! A store behind a slow line.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::time::Instant;

use crate::{Key, Meta, Result, Store, Tried};

/// Adds latency to every call, and passes bodies at a bounded rate, shared by all calls as on one line.
///
/// Time is tokio's, so that a test with a paused clock runs at once.
#[derive(Debug)]
pub struct Throttled {
    inner: Arc<dyn Store>,
    latency: Duration,
    bytes_per_s: u64,
    /// When the line has passed everything that was put on it so far.
    free_at: Mutex<Option<Instant>>,
}

impl Throttled {
    /// `latency` before each call (LIST: before its first answer); `bytes_per_s` 0 means no bound.
    pub fn new(inner: Arc<dyn Store>, latency: Duration, bytes_per_s: u64) -> Arc<Self> {
        Arc::new(Self {
            inner,
            latency,
            bytes_per_s,
            free_at: Mutex::new(None),
        })
    }

    async fn pass(&self, bytes: u64) {
        if self.bytes_per_s == 0 || bytes == 0 {
            return;
        }
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_s as f64);
        let until = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let until = free_at.filter(|t| *t > now).unwrap_or(now) + takes;
            *free_at = Some(until);
            until
        };
        tokio::time::sleep_until(until).await;
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for Throttled {
    fn url(&self) -> String {
        self.inner.url()
    }

    async fn put(&self, key: &Key, body: Bytes) -> Result<()> {
        tokio::time::sleep(self.latency).await;
        self.pass(body.len() as u64).await;
        self.inner.put(key, body).await
    }

    async fn get(&self, key: &Key, bytes_max: u64) -> Result<Bytes> {
        tokio::time::sleep(self.latency).await;
        let body = self.inner.get(key, bytes_max).await?;
        self.pass(body.len() as u64).await;
        Ok(body)
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        tokio::time::sleep(self.latency).await;
        let body = self.inner.get_range(key, range).await?;
        self.pass(body.len() as u64).await;
        Ok(body)
    }

    async fn head(&self, key: &Key) -> Result<Meta> {
        tokio::time::sleep(self.latency).await;
        self.inner.head(key).await
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, Result<Meta>> {
        let found = self.inner.list(prefix);
        let latency = self.latency;
        stream::once(async move {
            tokio::time::sleep(latency).await;
            found
        })
        .flatten()
        .boxed()
    }

    async fn delete(&self, keys: &[Key]) -> Result<()> {
        tokio::time::sleep(self.latency).await;
        self.inner.delete(keys).await
    }

    async fn try_out(&self, scratch: &Key) -> Result<Tried> {
        tokio::time::sleep(self.latency).await;
        self.inner.try_out(scratch).await
    }

    /// None: a mapped file would not be slow.
    fn local_path(&self, _key: &Key) -> Option<PathBuf> {
        None
    }
}
