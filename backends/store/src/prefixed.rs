//! Many stores in one: every key gets a prefix.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};

use crate::{Key, Meta, Result, Store, StoreError, Tried, split_prefix};

/// The part of `inner` below `prefix/`, as a store of its own.
#[derive(Debug)]
pub struct Prefixed {
    inner: Arc<dyn Store>,
    prefix: Key,
}

impl Prefixed {
    /// All keys are below `prefix/` in `inner`.
    pub fn new(inner: Arc<dyn Store>, prefix: Key) -> Arc<Self> {
        Arc::new(Self { inner, prefix })
    }

    fn outer(&self, key: &Key) -> Result<Key> {
        Key::joined(&self.prefix, key).map_err(|e| e.at(&self.url()))
    }

    /// Tells the error in the caller's terms: its own key, and this store's URL.
    fn said(&self, key: &Key) -> impl FnOnce(StoreError) -> StoreError + use<> {
        let (url, object) = (self.url(), key.to_string());
        move |mut e| {
            e.object = object;
            e.at(&url)
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for Prefixed {
    fn url(&self) -> String {
        format!("{}/{}", self.inner.url(), self.prefix)
    }

    async fn put(&self, key: &Key, body: Bytes) -> Result<()> {
        self.inner.put(&self.outer(key)?, body).await.map_err(self.said(key))
    }

    async fn get(&self, key: &Key, bytes_max: u64) -> Result<Bytes> {
        self.inner
            .get(&self.outer(key)?, bytes_max)
            .await
            .map_err(self.said(key))
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        self.inner
            .get_range(&self.outer(key)?, range)
            .await
            .map_err(self.said(key))
    }

    async fn head(&self, key: &Key) -> Result<Meta> {
        let meta = self.inner.head(&self.outer(key)?).await.map_err(self.said(key))?;
        Ok(Meta {
            key: key.clone(),
            ..meta
        })
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, Result<Meta>> {
        // Checked before joining: `../` must not reach the neighbours.
        if let Err(e) = split_prefix(prefix) {
            return stream::iter([Err(e.at(&self.url()))]).boxed();
        }
        let own = self.prefix.clone();
        let url = self.url();
        self.inner
            .list(&format!("{}/{prefix}", self.prefix))
            .filter_map(move |found| {
                let mapped = match found {
                    Ok(meta) => meta.key.without(&own).map(|key| Ok(Meta { key, ..meta })),
                    Err(e) => Some(Err(e.at(&url))),
                };
                futures::future::ready(mapped)
            })
            .boxed()
    }

    async fn delete(&self, keys: &[Key]) -> Result<()> {
        let outer = keys.iter().map(|k| self.outer(k)).collect::<Result<Vec<_>>>()?;
        self.inner.delete(&outer).await.map_err(|e| e.at(&self.url()))
    }

    async fn try_out(&self, scratch: &Key) -> Result<Tried> {
        self.inner
            .try_out(&self.outer(scratch)?)
            .await
            .map_err(self.said(scratch))
    }

    fn local_path(&self, key: &Key) -> Option<PathBuf> {
        self.inner.local_path(&self.outer(key).ok()?)
    }
}
