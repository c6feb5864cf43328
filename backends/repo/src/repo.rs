//! A repository: opening it, and reading blobs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use store::Store;

pub use wire::repo::RepoCounts;

use crate::config::{CONFIG_BYTES_MAX, CONFIG_KEY, RepoParams};
use crate::fetch::{self, open_blob};
use crate::index::{Hit, Index, Segment, load_segment};
use crate::{
    BlobId, FetchLimits, FetchPlan, Kind, RepoConfig, RepoError, Result, Session, SessionLimits, SnapshotDoc, io,
};

mod listing;
mod nodes;
mod rebuild;

/// Index segments opened at once.
const SEGMENT_LOADS_MAX: usize = 8;
/// Blobs up to this length are checked on the async thread, longer ones aside.
const INLINE_BYTES_MAX: u32 = 512 << 10;

/// A repository on a store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Repo {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Arc<dyn Store>,
    config: RepoConfig,
    index: RwLock<Arc<Index>>,
    /// Index objects that could not be opened.
    damaged: Mutex<Vec<RepoError>>,
}

/// All snapshots of a repository.
#[derive(Debug, Clone, Default)]
pub struct Snapshots {
    /// The readable ones, oldest first.
    pub docs: Vec<SnapshotDoc>,
    /// The damaged ones; each error names its object.
    pub damaged: Vec<RepoError>,
}

/// Called with what is done and the total, both in bytes.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Send + Sync);

impl Repo {
    /// Makes a repository in an empty place.
    ///
    /// # Errors
    /// `Kind::Conflict` when there is one already (a best effort: two `init` at once may both succeed, and the later
    /// wins whole), `Kind::Invalid` for impossible chunk sizes, or the store's.
    pub async fn init(store: Arc<dyn Store>, params: RepoParams) -> Result<Self> {
        let config = RepoConfig::new(&params)?;
        match store.head(&io::key(CONFIG_KEY)?).await {
            Err(e) if e.kind == store::Kind::NotFound => {}
            Ok(_) => {
                let why = format!("{} holds a repository already; it was left as it is", store.url());
                return Err(RepoError::new(Kind::Conflict, CONFIG_KEY, why).hint("windlass repo show"));
            }
            Err(e) => return Err(e.at(&store.url()).into()),
        }
        io::put(&store, CONFIG_KEY, config.encode()?.into()).await?;
        Self::open(store).await
    }

    /// Opens a repository. Damaged index objects are left out and told by [`Repo::damaged_indexes`].
    ///
    /// # Errors
    /// `Kind::NotFound` when there is none, `Kind::TooNew` when a newer windlass made it, `Kind::Corrupt` when its
    /// config is damaged, or the store's.
    pub async fn open(store: Arc<dyn Store>) -> Result<Self> {
        let bytes = io::get(&store, CONFIG_KEY, CONFIG_BYTES_MAX)
            .await
            .map_err(|e| match e.kind {
                store::Kind::NotFound => {
                    let why = format!("there is no repository in {}", store.url());
                    RepoError::new(Kind::NotFound, CONFIG_KEY, why).hint("windlass repo init")
                }
                _ => RepoError::of_referenced(e),
            })?;
        let config = RepoConfig::decode(&bytes)?;
        let inner = Inner {
            store,
            config,
            index: RwLock::default(),
            damaged: Mutex::default(),
        };
        let repo = Self { inner: Arc::new(inner) };
        repo.refresh_index().await?;
        Ok(repo)
    }

    /// What the repository is.
    pub fn config(&self) -> &RepoConfig {
        &self.inner.config
    }
    /// The store that it is on.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.inner.store
    }
    /// The store's URL, without secrets.
    pub fn url(&self) -> String {
        self.inner.store.url()
    }
    /// The id that `raw` has in this repository.
    pub fn id_of(&self, raw: &[u8]) -> BlobId {
        BlobId::keyed(&self.inner.config.key, raw)
    }
    /// True when the index knows the blob.
    pub fn contains(&self, id: &BlobId) -> bool {
        self.index().find(id).is_some()
    }
    /// Damage of the index met so far: objects that could not be opened, and pages that did not match their checksum.
    /// Blobs that only those know can't be read until [`Repo::rebuild_index`].
    pub fn damaged_indexes(&self) -> Vec<RepoError> {
        let mut damaged = self
            .inner
            .damaged
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        damaged.extend(self.index().damage());
        damaged
    }
    /// Begins to write. Must be called within tokio, and the session used while that runtime lives.
    ///
    /// # Errors
    /// The store's.
    pub async fn begin(&self, limits: SessionLimits) -> Result<Arc<Session>> {
        Session::begin(self.clone(), limits).await
    }
    /// Reads one blob, checked.
    ///
    /// # Errors
    /// `Kind::Corrupt` when the blob is damaged or not to be found, or the store's.
    pub async fn read(&self, id: &BlobId) -> Result<Bytes> {
        let hit = self.locate_all(std::slice::from_ref(id)).await?[0];
        let (start, end) = (
            u64::from(hit.entry.offset),
            u64::from(hit.entry.offset) + u64::from(hit.entry.stored),
        );
        let stored = io::get_range(self.store(), &hit.name.key(), start..end)
            .await
            .map_err(|e| RepoError::of_referenced(e).at(start))?;
        let key = self.inner.config.key;
        if hit.entry.raw <= INLINE_BYTES_MAX {
            return open_blob(&key, &hit.name, &hit.entry, stored);
        }
        io::blocking("read", move || open_blob(&key, &hit.name, &hit.entry, stored)).await
    }
    /// Plans to read `ids`: each once, close ones with one request.
    ///
    /// # Errors
    /// `Kind::Corrupt` when the index does not know one.
    pub fn plan_fetch(&self, ids: &[BlobId], limits: &FetchLimits) -> Result<FetchPlan> {
        let index = self.index();
        let find = |id| index.find(id).map(fetch::wanted).ok_or_else(|| self.unknown(id));
        Ok(FetchPlan::new(
            ids.iter().map(find).collect::<Result<Vec<_>>>()?,
            limits,
        ))
    }
    /// Runs a plan: blobs come unordered, each once, checked. The first error ends the stream. Must be called within
    /// tokio; dropping the stream ends the work.
    pub fn fetch(&self, plan: FetchPlan, limits: &FetchLimits) -> BoxStream<'static, Result<(BlobId, Bytes)>> {
        fetch::run(self.store().clone(), self.inner.config.key, plan, limits.clone())
    }

    pub(crate) fn blob_key(&self) -> [u8; 32] {
        self.inner.config.key
    }
    pub(crate) fn index(&self) -> Arc<Index> {
        self.inner.index.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// Where the blobs are; looks for newer index segments when one is not known.
    pub(crate) async fn locate_all(&self, ids: &[BlobId]) -> Result<Vec<Hit>> {
        let index = self.index();
        let hits: Option<Vec<Hit>> = ids.iter().map(|id| index.find(id)).collect();
        if let Some(hits) = hits {
            return Ok(hits);
        }
        let index = self.refresh_index().await?;
        ids.iter()
            .map(|id| index.find(id).ok_or_else(|| self.unknown(id)))
            .collect()
    }
    /// The error of a blob that no index knows.
    pub(crate) fn unknown(&self, id: &BlobId) -> RepoError {
        let damaged = self.damaged_indexes();
        match damaged.first() {
            None => RepoError::corrupt(format!("blob {id}"), "is referred to, but no index knows where it is"),
            Some(first) => RepoError::corrupt(
                first.object.clone(),
                format!("is damaged, and no other index knows blob {id}; rebuilding the index from the packs finds it"),
            ),
        }
    }
    fn set_index(&self, index: Arc<Index>) {
        *self.inner.index.write().unwrap_or_else(PoisonError::into_inner) = index;
    }
    /// Adds segments that this process wrote.
    pub(crate) fn add_segments(&self, written: Vec<Arc<Segment>>) {
        if written.is_empty() {
            return;
        }
        let mut segments = self.index().segments().to_vec();
        segments.extend(written);
        self.set_index(Arc::new(Index::new(segments)));
    }
    /// Opens segments that were written since, lets go of those that are gone.
    pub(crate) async fn refresh_index(&self) -> Result<Arc<Index>> {
        let known = self.index();
        let mut open: HashMap<&str, &Arc<Segment>> = known.segments().iter().map(|s| (s.object(), s)).collect();
        let (mut kept, mut new) = (Vec::new(), Vec::new());
        io::list(self.store(), "index/", |meta| match open.remove(meta.key.as_str()) {
            Some(segment) => kept.push(segment.clone()),
            None => new.push(meta),
        })
        .await?;
        if new.is_empty() && open.is_empty() {
            return Ok(known);
        }
        let mut loads = stream::iter(new.into_iter().map(|meta| async move {
            let object = meta.key.as_str().to_owned();
            load_segment(self.store(), object, meta.size_bytes).await
        }))
        .buffer_unordered(SEGMENT_LOADS_MAX);
        let mut damaged = Vec::new();
        while let Some(loaded) = loads.next().await {
            match loaded {
                Ok(segment) => kept.push(Arc::new(segment)),
                Err(error) if error.kind == Kind::Corrupt => {
                    tracing::warn!(%error, "index object left out");
                    damaged.push(error);
                }
                // removed since the listing
                Err(error) if error.kind == Kind::Store(store::Kind::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        drop(loads);
        kept.sort_by(|a, b| a.object().cmp(b.object()));
        *self.inner.damaged.lock().unwrap_or_else(PoisonError::into_inner) = damaged;
        let index = Arc::new(io::blocking("index", move || Ok(Index::new(kept))).await?);
        self.set_index(index.clone());
        Ok(index)
    }
}

#[cfg(test)]
mod tests;
