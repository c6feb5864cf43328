//! Counts what goes through, for tests of economy and for benchmarks.

use std::collections::BTreeMap;
use std::ops::{Range, Sub};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;

use crate::{Key, Meta, Result, Store, Tried};

/// What one kind of operation came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OperationCount {
    /// Calls, failed ones too.
    pub requests: u64,
    /// Calls that failed.
    pub errors: u64,
    /// Objects told by LIST or named to DELETE; 1 for each successful other call.
    pub objects: u64,
    /// Bytes of bodies that were taken or given.
    pub bytes: u64,
}

impl Sub for OperationCount {
    type Output = Self;
    fn sub(self, earlier: Self) -> Self {
        Self {
            requests: self.requests - earlier.requests,
            errors: self.errors - earlier.errors,
            objects: self.objects - earlier.objects,
            bytes: self.bytes - earlier.bytes,
        }
    }
}

/// The counters at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    /// PUT.
    pub put: OperationCount,
    /// GET of whole objects.
    pub get: OperationCount,
    /// GET of ranges.
    pub get_range: OperationCount,
    /// HEAD.
    pub head: OperationCount,
    /// LIST; a request is one call, however many pages the server needs.
    pub list: OperationCount,
    /// DELETE; a request is one call, however many objects it names.
    pub delete: OperationCount,
    /// PUTs by the first segment of the key (`packs`, `index`, …).
    pub put_by_segment: BTreeMap<String, OperationCount>,
}

impl Counts {
    /// What happened since `earlier`, a snapshot of the same store.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let put_by_segment = self
            .put_by_segment
            .iter()
            .map(|(s, now)| {
                (
                    s.clone(),
                    *now - earlier.put_by_segment.get(s).copied().unwrap_or_default(),
                )
            })
            .filter(|(_, n)| *n != OperationCount::default())
            .collect();
        Self {
            put: self.put - earlier.put,
            get: self.get - earlier.get,
            get_range: self.get_range - earlier.get_range,
            head: self.head - earlier.head,
            list: self.list - earlier.list,
            delete: self.delete - earlier.delete,
            put_by_segment,
        }
    }

    /// Calls of every kind.
    pub fn requests(&self) -> u64 {
        [self.put, self.get, self.get_range, self.head, self.list, self.delete]
            .iter()
            .map(|c| c.requests)
            .sum()
    }

    /// Bytes read by GET, whole and by range.
    pub fn read_bytes(&self) -> u64 {
        self.get.bytes + self.get_range.bytes
    }
}

#[derive(Debug, Default)]
struct Cell {
    requests: AtomicU64,
    errors: AtomicU64,
    objects: AtomicU64,
    bytes: AtomicU64,
}

impl Cell {
    fn done<T>(&self, result: &Result<T>, objects: u64, bytes: u64) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if result.is_ok() {
            self.objects.fetch_add(objects, Ordering::Relaxed);
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        } else {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
    }
    fn now(&self) -> OperationCount {
        OperationCount {
            requests: self.requests.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            objects: self.objects.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

#[derive(Debug, Default)]
struct Cells {
    put: Cell,
    get: Cell,
    get_range: Cell,
    head: Cell,
    list: Cell,
    delete: Cell,
    put_by_segment: Mutex<BTreeMap<String, OperationCount>>,
}

/// Counts requests and bytes on their way to `inner`.
#[derive(Debug)]
pub struct Counting {
    inner: Arc<dyn Store>,
    /// False: bytes that are mapped through `local_path` would not be counted, so there is none.
    local_paths: bool,
    cells: Arc<Cells>,
}

/// Counters that outlive the stores that they are of.
#[derive(Debug, Clone, Default)]
pub struct Counters(Arc<Cells>);

impl Counters {
    /// Counts what goes to `inner` in these counters; `local_path` is passed on, and what is read that way isn't counted.
    pub fn around(&self, inner: Arc<dyn Store>) -> Arc<Counting> {
        Arc::new(Counting {
            inner,
            local_paths: true,
            cells: self.0.clone(),
        })
    }
    /// The counters now.
    pub fn counts(&self) -> Counts {
        self.0.counts()
    }
}

impl Counting {
    /// Counts every byte: `local_path` answers `None`, so that nobody reads past the counters.
    pub fn new(inner: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self::build(inner, false))
    }

    /// As [`Counting::new`], but `local_path` is passed on; what is read that way isn't counted.
    pub fn with_local_paths(inner: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self::build(inner, true))
    }

    fn build(inner: Arc<dyn Store>, local_paths: bool) -> Self {
        Self {
            inner,
            local_paths,
            cells: Arc::default(),
        }
    }

    /// The counters now.
    pub fn counts(&self) -> Counts {
        self.cells.counts()
    }
}

impl Cells {
    fn counts(&self) -> Counts {
        Counts {
            put: self.put.now(),
            get: self.get.now(),
            get_range: self.get_range.now(),
            head: self.head.now(),
            list: self.list.now(),
            delete: self.delete.now(),
            put_by_segment: self
                .put_by_segment
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        }
    }

    fn count_segment(&self, key: &Key, fine: bool, bytes: u64) {
        let segment = key.as_str().split('/').next().unwrap_or_default();
        let mut by_segment = self.put_by_segment.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_segment.entry(segment.to_owned()).or_default();
        count.requests += 1;
        if fine {
            count.objects += 1;
            count.bytes += bytes;
        } else {
            count.errors += 1;
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for Counting {
    fn url(&self) -> String {
        self.inner.url()
    }

    async fn put(&self, key: &Key, body: Bytes) -> Result<()> {
        let bytes = body.len() as u64;
        let result = self.inner.put(key, body).await;
        self.cells.put.done(&result, 1, bytes);
        self.cells.count_segment(key, result.is_ok(), bytes);
        result
    }

    async fn get(&self, key: &Key, bytes_max: u64) -> Result<Bytes> {
        let result = self.inner.get(key, bytes_max).await;
        self.cells
            .get
            .done(&result, 1, result.as_ref().map_or(0, |b| b.len() as u64));
        result
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        let result = self.inner.get_range(key, range).await;
        self.cells
            .get_range
            .done(&result, 1, result.as_ref().map_or(0, |b| b.len() as u64));
        result
    }

    async fn head(&self, key: &Key) -> Result<Meta> {
        let result = self.inner.head(key).await;
        self.cells.head.done(&result, 1, 0);
        result
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, Result<Meta>> {
        self.cells.list.requests.fetch_add(1, Ordering::Relaxed);
        let cells = Arc::clone(&self.cells);
        let told = move |found: &Result<Meta>| {
            let counter = if found.is_ok() {
                &cells.list.objects
            } else {
                &cells.list.errors
            };
            counter.fetch_add(1, Ordering::Relaxed);
        };
        self.inner.list(prefix).inspect(told).boxed()
    }

    async fn delete(&self, keys: &[Key]) -> Result<()> {
        let result = self.inner.delete(keys).await;
        self.cells.delete.done(&result, keys.len() as u64, 0);
        result
    }

    async fn try_out(&self, scratch: &Key) -> Result<Tried> {
        self.inner.try_out(scratch).await
    }

    fn local_path(&self, key: &Key) -> Option<PathBuf> {
        if self.local_paths {
            self.inner.local_path(key)
        } else {
            None
        }
    }
}
