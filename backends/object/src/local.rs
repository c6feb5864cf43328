//! A [`Store`] of local files: [`Files`] on tokio's blocking threads, with time-outs.

use std::fmt;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use store::{Key, Kind, Meta, Result, Store, StoreError, Tried, split_prefix};
use tokio::sync::mpsc;
use url::Url;

use crate::Timeouts;
use crate::error::{from_io, kind_of_io};
use crate::files::{Files, ReadError, modified_ms};

/// Objects that LIST hands over at a time.
const LIST_BATCH: usize = 512;

/// Keys that one DELETE time-out is for.
const DELETE_BATCH: usize = 1000;

#[derive(Debug)]
pub(crate) struct Local {
    files: Arc<Files>,
    url: String,
    timeouts: Timeouts,
}

impl Local {
    pub(crate) fn open(directory: &Path, timeouts: Timeouts) -> Result<Arc<Self>> {
        let shown = directory.display().to_string();
        let root = directory.canonicalize().map_err(|e| from_io("open", &shown, &e))?;
        if !root.is_dir() {
            return Err(StoreError::new(Kind::Invalid, "open", shown, "this is not a directory"));
        }
        let url = Url::from_directory_path(&root)
            .map_err(|()| StoreError::new(Kind::Invalid, "open", shown, "this path has no URL"))?;
        let url = url.as_str().trim_end_matches('/');
        let url = if url == "file:" {
            "file:///".to_owned()
        } else {
            url.to_owned()
        };
        Ok(Arc::new(Self {
            files: Arc::new(Files::new(root)),
            url,
            timeouts,
        }))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        timeout: Duration,
        operation: &'static str,
        object: &str,
        work: impl FnOnce(&Files) -> T + Send + 'static,
    ) -> Result<T> {
        let files = Arc::clone(&self.files);
        let error = |kind, why: String| StoreError::new(kind, operation, object.to_string(), why).at(&self.url);
        match tokio::time::timeout(timeout, tokio::task::spawn_blocking(move || work(&files))).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(e)) => Err(error(Kind::Other, e.to_string())),
            Err(_) => Err(error(
                Kind::Timeout,
                format!("the file system did not answer in {} s", timeout.as_secs_f32()),
            )),
        }
    }

    fn said(&self, operation: &'static str, key: &Key, e: &io::Error) -> StoreError {
        from_io(operation, key.as_str(), e).at(&self.url)
    }

    fn said_of_read(&self, operation: &'static str, key: &Key, asked: &str, e: ReadError) -> StoreError {
        let (kind, why) = match e {
            ReadError::Io(e) => return self.said(operation, key, &e),
            ReadError::TooLarge { size_bytes } => (
                Kind::TooLarge,
                format!("the object has {size_bytes} bytes, {asked} were expected"),
            ),
            ReadError::Short { size_bytes } => (Kind::Truncated, format!("{asked} asked, the object has {size_bytes}")),
        };
        StoreError::new(kind, operation, key.as_str(), why).at(&self.url)
    }
}

#[async_trait]
impl Store for Local {
    fn url(&self) -> String {
        self.url.clone()
    }

    async fn put(&self, key: &Key, body: Bytes) -> Result<()> {
        let own = key.clone();
        let done = self
            .blocking(self.timeouts.body, "put", key.as_str(), move |files| {
                files.put(&own, &body)
            })
            .await?;
        done.map_err(|e| self.said("put", key, &e))
    }

    async fn get(&self, key: &Key, bytes_max: u64) -> Result<Bytes> {
        let own = key.clone();
        let done = self
            .blocking(self.timeouts.body, "get", key.as_str(), move |files| {
                files.get(&own, bytes_max)
            })
            .await?;
        done.map_err(|e| self.said_of_read("get", key, &format!("at most {bytes_max}"), e))
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        if range.start > range.end {
            let why = "the range ends before it starts";
            return Err(StoreError::new(Kind::Invalid, "get_range", key.as_str(), why).at(&self.url));
        }
        let asked = format!("bytes {}..{}", range.start, range.end);
        let own = key.clone();
        let work = move |files: &Files| files.get_range(&own, &range);
        let done = self
            .blocking(self.timeouts.range, "get_range", key.as_str(), work)
            .await?;
        done.map_err(|e| self.said_of_read("get_range", key, &asked, e))
    }

    async fn head(&self, key: &Key) -> Result<Meta> {
        let own = key.clone();
        let done = self
            .blocking(self.timeouts.metadata, "head", key.as_str(), move |files| {
                files.head(&own)
            })
            .await?;
        let (size_bytes, last_modified_ms) = done.map_err(|e| self.said("head", key, &e))?;
        Ok(Meta {
            key: key.clone(),
            size_bytes,
            last_modified_ms,
        })
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, Result<Meta>> {
        if let Err(e) = split_prefix(prefix) {
            return stream::iter([Err(e.at(&self.url))]).boxed();
        }
        let (files, prefix, url, timeout) = (
            Arc::clone(&self.files),
            prefix.to_owned(),
            self.url.clone(),
            self.timeouts.metadata,
        );
        // The walk begins when the stream is first polled, and ends when the receiver is dropped.
        stream::once(async move {
            let (sender, receiver) = mpsc::channel(4);
            let shown = prefix.clone();
            tokio::task::spawn_blocking(move || {
                Walk {
                    files: &files,
                    prefix: &prefix,
                    sender,
                    batch: Vec::new(),
                    above: Vec::new(),
                }
                .run()
            });
            batches(receiver, shown, url, timeout)
        })
        .flatten()
        .boxed()
    }

    async fn delete(&self, keys: &[Key]) -> Result<()> {
        for batch in keys.chunks(DELETE_BATCH) {
            let own = batch.to_vec();
            let shown = batch.first().map_or("", Key::as_str);
            let work = move |files: &Files| files.delete(&own);
            let done = self.blocking(self.timeouts.metadata, "delete", shown, work).await?;
            done.map_err(|(key, e)| self.said("delete", &key, &e))?;
        }
        Ok(())
    }

    async fn try_out(&self, _scratch: &Key) -> Result<Tried> {
        Ok(Tried::default())
    }

    fn local_path(&self, key: &Key) -> Option<PathBuf> {
        Some(self.files.path(key))
    }
}

type Batch = std::result::Result<Vec<Meta>, io::Error>;

fn batches(
    receiver: mpsc::Receiver<Batch>,
    prefix: String,
    url: String,
    timeout: Duration,
) -> impl futures::Stream<Item = Result<Meta>> {
    let error = move |kind, why: &dyn fmt::Display| {
        let shown = if prefix.is_empty() { "all objects" } else { &prefix };
        stream::iter(vec![Err(StoreError::new(kind, "list", shown, why).at(&url))])
    };
    stream::unfold(Some(receiver), move |state| {
        let error = error.clone();
        async move {
            let mut receiver = state?;
            match tokio::time::timeout(timeout, receiver.recv()).await {
                Ok(Some(Ok(batch))) => Some((
                    stream::iter(batch.into_iter().map(Ok).collect::<Vec<_>>()),
                    Some(receiver),
                )),
                Ok(Some(Err(e))) => Some((error(kind_of_io(&e), &e), None)),
                Ok(None) => None,
                Err(_) => Some((error(Kind::Timeout, &"the file system did not answer in time"), None)),
            }
        }
    })
    .flatten()
}

/// A walk through the directories that can hold keys with a prefix. Names that are no keys are passed over: temporary
/// files, `lost+found`, whatever people put there.
struct Walk<'a> {
    files: &'a Files,
    prefix: &'a str,
    sender: mpsc::Sender<Batch>,
    batch: Vec<Meta>,
    /// Device and inode of the directories that the walk is in: a symbolic link back to one of them is not followed.
    above: Vec<(u64, u64)>,
}

/// Nobody listens any more.
struct Gone;

impl Walk<'_> {
    fn run(mut self) {
        let whole = split_prefix(self.prefix).map_or("", |(whole, _)| whole);
        let start = self.files.root().join(whole);
        self.above
            .extend(std::fs::metadata(self.files.root()).map(|m| (m.dev(), m.ino())));
        let result = match self.directory(&start, whole) {
            // Nothing below the prefix is an empty answer, no root at all is an error.
            Ok(Some(e)) if !self.files.root().is_dir() || !absent(&e) => {
                self.sender.blocking_send(Err(e)).map_err(|_| Gone)
            }
            Ok(_) => self.flush(),
            Err(gone) => Err(gone),
        };
        if result.is_err() {
            tracing::trace!("a listing was dropped before its end");
        }
    }

    fn flush(&mut self) -> std::result::Result<(), Gone> {
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            Ok(())
        } else {
            self.sender.blocking_send(Ok(batch)).map_err(|_| Gone)
        }
    }

    /// Tells all of `directory`, whose key is `key` (`""` for the root). `Ok(Some)`: it could not be read.
    fn directory(&mut self, directory: &Path, key: &str) -> std::result::Result<Option<io::Error>, Gone> {
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(e) => return Ok(Some(e)),
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(e) => return Ok(Some(e)),
            };
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let child = if key.is_empty() {
                name.to_owned()
            } else {
                format!("{key}/{name}")
            };
            let Some(child) = Key::listed(child) else { continue };
            if !self.may_hold(child.as_str()) {
                continue;
            }
            if let Some(e) = self.entry(&entry, child)? {
                return Ok(Some(e));
            }
        }
        Ok(None)
    }

    /// Whether `key` begins with the prefix, or is a directory on the way to it.
    fn may_hold(&self, key: &str) -> bool {
        key.starts_with(self.prefix) || self.prefix.strip_prefix(key).is_some_and(|rest| rest.starts_with('/'))
    }

    fn entry(&mut self, entry: &std::fs::DirEntry, key: Key) -> std::result::Result<Option<io::Error>, Gone> {
        let metadata = match entry.file_type() {
            Ok(kind) if kind.is_symlink() => std::fs::metadata(entry.path()),
            Ok(_) => entry.metadata(),
            Err(e) => Err(e),
        };
        match metadata {
            Ok(m) if m.is_dir() => {
                let identity = (m.dev(), m.ino());
                if self.above.contains(&identity) {
                    return Ok(None);
                }
                self.above.push(identity);
                let error = self.directory(&entry.path(), key.as_str())?;
                self.above.pop();
                return Ok(error.filter(|e| !absent(e)));
            }
            Ok(m) if m.is_file() && key.as_str().starts_with(self.prefix) => {
                self.batch.push(Meta {
                    key,
                    size_bytes: m.len(),
                    last_modified_ms: modified_ms(&m),
                });
            }
            Ok(_) => {}
            // Removed while we walk.
            Err(e) if absent(&e) => {}
            Err(e) => return Ok(Some(e)),
        }
        if self.batch.len() >= LIST_BATCH {
            self.flush()?;
        }
        Ok(None)
    }
}

fn absent(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
