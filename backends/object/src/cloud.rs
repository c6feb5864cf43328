//! A [`Store`] over the crate `object_store`: Google Cloud Storage and Azure.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{ClientConfigKey, ClientOptions, GetOptions, GetRange, ObjectStore, PutOptions, RetryConfig};
use store::{Key, Kind, Meta, Result, Store, StoreError, Tried, chain_text, split_prefix};

use crate::Timeouts;
use crate::error::kind_of_object_store;

/// Requests that the SDK repeats within one call before it gives up; whoever calls the store has a policy of its own.
const SDK_RETRIES_MAX: usize = 2;

/// Keys in one DELETE.
const DELETE_BATCH: usize = 1000;

pub(crate) fn google(bucket: &str, timeouts: Timeouts) -> Result<Arc<dyn Store>> {
    google_from(
        GoogleCloudStorageBuilder::from_env(),
        bucket,
        timeouts,
        client_options(timeouts),
    )
}

pub(crate) fn google_from(
    builder: GoogleCloudStorageBuilder,
    bucket: &str,
    timeouts: Timeouts,
    client: ClientOptions,
) -> Result<Arc<dyn Store>> {
    let url = format!("gs://{bucket}");
    let built = builder
        .with_bucket_name(bucket)
        .with_retry(retries(timeouts))
        .with_client_options(client)
        .build();
    Ok(Arc::new(Cloud {
        inner: Arc::new(built.map_err(|e| not_built(&url, &e))?),
        url,
        timeouts,
    }))
}

pub(crate) fn azure(container: &str, timeouts: Timeouts) -> Result<Arc<dyn Store>> {
    azure_from(MicrosoftAzureBuilder::from_env(), container, timeouts)
}

pub(crate) fn azure_from(
    builder: MicrosoftAzureBuilder,
    container: &str,
    timeouts: Timeouts,
) -> Result<Arc<dyn Store>> {
    let url = format!("az://{container}");
    // Our client options replace those of the environment: what it says of plain HTTP (an emulator, a proxy) is kept.
    let http = AzureConfigKey::Client(ClientConfigKey::AllowHttp);
    let http = builder.get_config_value(&http).is_some_and(|v| v == "true" || v == "1");
    let built = builder
        .with_container_name(container)
        .with_retry(retries(timeouts))
        .with_client_options(client_options(timeouts).with_allow_http(http))
        .build();
    Ok(Arc::new(Cloud {
        inner: Arc::new(built.map_err(|e| not_built(&url, &e))?),
        url,
        timeouts,
    }))
}

fn not_built(url: &str, e: &object_store::Error) -> StoreError {
    // What fails here is configuration: an account that isn't named, a key file that can't be read.
    let kind = match kind_of_object_store(e) {
        Kind::Denied => Kind::Denied,
        _ => Kind::Invalid,
    };
    StoreError::new(kind, "open", url, chain_text(e))
}

pub(crate) fn client_options(timeouts: Timeouts) -> ClientOptions {
    // The per-call time-outs are ours; the client's own is the longest of them, so that a dead connection is given up too.
    ClientOptions::new()
        .with_timeout(timeouts.body)
        .with_connect_timeout(Duration::from_secs(10))
}

fn retries(timeouts: Timeouts) -> RetryConfig {
    RetryConfig {
        max_retries: SDK_RETRIES_MAX,
        retry_timeout: timeouts.metadata,
        ..RetryConfig::default()
    }
}

#[derive(Debug)]
struct Cloud {
    inner: Arc<dyn ObjectStore>,
    url: String,
    timeouts: Timeouts,
}

fn said(operation: &'static str, object: &str, url: &str, e: &object_store::Error) -> StoreError {
    StoreError::new(kind_of_object_store(e), operation, object, chain_text(e)).at(url)
}

/// Every key is a valid path of the SDK: its characters need no encoding, and no segment is empty or a dot.
fn path(key: &Key) -> Path {
    Path::from(key.as_str())
}

impl Cloud {
    async fn call<T>(
        &self,
        timeout: Duration,
        operation: &'static str,
        object: &str,
        work: impl Future<Output = object_store::Result<T>> + Send,
    ) -> Result<T> {
        match tokio::time::timeout(timeout, work).await {
            Ok(done) => done.map_err(|e| said(operation, object, &self.url, &e)),
            Err(_) => Err(self.error(
                Kind::Timeout,
                operation,
                object,
                format!("no answer in {} s", timeout.as_secs_f32()),
            )),
        }
    }

    fn error(
        &self,
        kind: Kind,
        operation: &'static str,
        object: impl fmt::Display,
        why: impl fmt::Display,
    ) -> StoreError {
        StoreError::new(kind, operation, object.to_string(), why).at(&self.url)
    }

    async fn delete_batch(&self, batch: &[Key]) -> Result<()> {
        let paths: Vec<_> = batch.iter().map(|k| Ok(path(k))).collect();
        let work = async {
            let mut done = self.inner.delete_stream(stream::iter(paths).boxed());
            let mut first_error = None;
            while let Some(one) = done.next().await {
                match one {
                    Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(e) => {
                        first_error.get_or_insert(e);
                    }
                }
            }
            first_error.map_or(Ok(()), Err)
        };
        let shown = batch.first().map_or("", Key::as_str);
        self.call(self.timeouts.metadata, "delete", shown, work).await
    }

    async fn read_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        let shown = key.as_str();
        let options = GetOptions {
            range: Some(GetRange::Bounded(range.clone())),
            ..GetOptions::default()
        };
        let work = async {
            let result = self.inner.get_opts(&path(key), options).await?;
            // The server tells less when the object ends before the range does.
            if result.range != range {
                Ok(None)
            } else {
                result.bytes().await.map(Some)
            }
        };
        let body = self.call(self.timeouts.range, "get_range", shown, work).await?;
        match body {
            Some(body) if body.len() as u64 == range.end - range.start => Ok(body),
            _ => Err(self.error(Kind::Truncated, "get_range", key, past_end(&range))),
        }
    }
}

fn past_end(range: &Range<u64>) -> String {
    format!("bytes {}..{} asked, the object ends before", range.start, range.end)
}

#[async_trait]
impl Store for Cloud {
    fn url(&self) -> String {
        self.url.clone()
    }

    async fn put(&self, key: &Key, body: Bytes) -> Result<()> {
        let path = path(key);
        let work = self.inner.put_opts(&path, body.into(), PutOptions::default());
        self.call(self.timeouts.body, "put", key.as_str(), work).await.map(drop)
    }

    async fn get(&self, key: &Key, bytes_max: u64) -> Result<Bytes> {
        let work = async {
            let result = self.inner.get_opts(&path(key), GetOptions::default()).await?;
            let size_bytes = result.meta.size;
            // Dropped unread when it is too large.
            if size_bytes > bytes_max {
                Ok(Err(size_bytes))
            } else {
                result.bytes().await.map(|b| Ok((b, size_bytes)))
            }
        };
        match self.call(self.timeouts.body, "get", key.as_str(), work).await? {
            Err(size_bytes) => {
                let why = format!("the object has {size_bytes} bytes, at most {bytes_max} were expected");
                Err(self.error(Kind::TooLarge, "get", key, why))
            }
            Ok((body, size_bytes)) if body.len() as u64 != size_bytes => {
                let why = format!("{} of {size_bytes} bytes came", body.len());
                Err(self.error(Kind::Truncated, "get", key, why))
            }
            Ok((body, _)) => Ok(body),
        }
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        if range.start > range.end {
            return Err(self.error(Kind::Invalid, "get_range", key, "the range ends before it starts"));
        }
        if range.is_empty() {
            // HTTP has no empty range; the object must exist and reach it all the same.
            let size_bytes = self.head(key).await?.size_bytes;
            let fine = range.end <= size_bytes;
            return if fine {
                Ok(Bytes::new())
            } else {
                Err(self.error(Kind::Truncated, "get_range", key, past_end(&range)))
            };
        }
        match self.read_range(key, range.clone()).await {
            // The SDK refuses some ranges that the object doesn't reach with errors of no kind: ask for the size then.
            Err(e) if matches!(e.kind, Kind::Other | Kind::Invalid) => match self.head(key).await {
                Ok(meta) if meta.size_bytes < range.end => {
                    Err(self.error(Kind::Truncated, "get_range", key, past_end(&range)))
                }
                Err(missing) if missing.kind == Kind::NotFound => Err(missing),
                _ => Err(e),
            },
            done => done,
        }
    }

    async fn head(&self, key: &Key) -> Result<Meta> {
        let path = path(key);
        let options = GetOptions {
            head: true,
            ..GetOptions::default()
        };
        let work = self.inner.get_opts(&path, options);
        let meta = self
            .call(self.timeouts.metadata, "head", key.as_str(), work)
            .await?
            .meta;
        Ok(Meta {
            key: key.clone(),
            size_bytes: meta.size,
            last_modified_ms: meta.last_modified.timestamp_millis(),
        })
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, Result<Meta>> {
        let whole = match split_prefix(prefix) {
            Ok((whole, _)) => whole,
            Err(e) => return stream::iter([Err(e.at(&self.url))]).boxed(),
        };
        // The SDK's prefix is whole segments: ask for those, and look at the text here.
        let whole = Some(Path::from(whole)).filter(|p| !p.as_ref().is_empty());
        let found = self.inner.list(whole.as_ref());
        let (prefix, url, timeout) = (prefix.to_owned(), self.url.clone(), self.timeouts.metadata);
        stream::unfold(Some(found), move |state| {
            let (prefix, url) = (prefix.clone(), url.clone());
            async move {
                let mut found = state?;
                match tokio::time::timeout(timeout, found.try_next()).await {
                    Ok(Ok(Some(meta))) => Some((listed(&meta, &prefix).map(Ok), Some(found))),
                    Ok(Ok(None)) => None,
                    Ok(Err(e)) => Some((Some(Err(said("list", &prefix, &url, &e))), None)),
                    Err(_) => {
                        let e = StoreError::new(Kind::Timeout, "list", prefix, "no answer in time").at(&url);
                        Some((Some(Err(e)), None))
                    }
                }
            }
        })
        .filter_map(futures::future::ready)
        .boxed()
    }

    async fn delete(&self, keys: &[Key]) -> Result<()> {
        for batch in keys.chunks(DELETE_BATCH) {
            let mut tries = 0;
            // Azure's batch is a POST, which the SDK doesn't repeat when a connection that waited turns out to be closed;
            // deleting twice is no harm.
            while let Err(e) = self.delete_batch(batch).await {
                if e.kind != Kind::Unavailable || tries == SDK_RETRIES_MAX {
                    return Err(e);
                }
                tries += 1;
            }
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

/// Objects of others in the bucket, whose names are no keys, are passed over.
fn listed(meta: &object_store::ObjectMeta, prefix: &str) -> Option<Meta> {
    let name = meta.location.as_ref();
    let key = if name.starts_with(prefix) {
        name.to_owned()
    } else {
        return None;
    };
    let key = Key::listed(key)?;
    Some(Meta {
        key,
        size_bytes: meta.size,
        last_modified_ms: meta.last_modified.timestamp_millis(),
    })
}
