//! A repository: opening it, and reading blobs.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use futures::stream::BoxStream;
use store::Store;

pub use wire::repo::RepoCounts;

use crate::cache::{Cache, RepoCache};
use crate::config::{CONFIG_BYTES_MAX, CONFIG_KEY, RepoParams, honours};
use crate::fetch::{self, Stored, open_blob};
use crate::index::{Hit, Index};
use crate::{
    BlobId, FetchLimits, FetchPlan, Kind, RepoConfig, RepoError, Result, Session, SessionLimits, SnapshotDoc, io,
};

mod docs;
mod kept;
mod listing;
mod nodes;
mod rebuild;
mod refresh;

use listing::Named;
pub use listing::SnapshotPage;

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
    cache: Option<RepoCache>,
    demand: kept::Demand,
    /// What the last listing of snapshots named: further pages of it are of the same moment.
    listing: Mutex<Option<Arc<Named>>>,
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
    /// Makes a repository in an empty place. Tries out the store first when the parameters say so.
    ///
    /// # Errors
    /// `Kind::Conflict` when there is one already (a best effort: two `init` at once may both succeed, and the later
    /// wins whole), `Kind::Invalid` for impossible chunk sizes or a store that doesn't keep what a
    /// repository needs, or the store's.
    pub async fn init(store: Arc<dyn Store>, params: RepoParams) -> Result<Self> {
        Self::init_with(store, params, None).await
    }

    /// As [`Repo::init`], with a cache.
    ///
    /// # Errors
    /// As [`Repo::init`]; never the cache's.
    pub async fn init_with(store: Arc<dyn Store>, params: RepoParams, cache: Option<Arc<Cache>>) -> Result<Self> {
        let mut config = RepoConfig::new(&params)?;
        match store.head(&io::key(CONFIG_KEY)?).await {
            Err(e) if e.kind == store::Kind::NotFound => {}
            Ok(_) => {
                let why = format!("{} holds a repository already; it was left as it is", store.url());
                return Err(RepoError::new(Kind::Conflict, CONFIG_KEY, why).hint("windlass repo show"));
            }
            Err(e) => return Err(e.at(&store.url()).into()),
        }
        if params.try_store {
            let seen = store::probe(&*store, &format!("probe/{}", params.id))
                .await
                .map_err(|e| e.at(&store.url()))?;
            if let Some(what) = seen.missing() {
                let why = format!(
                    "{} does not keep what a repository needs: {what}; nothing was made",
                    store.url()
                );
                return Err(RepoError::invalid(CONFIG_KEY, why).hint("use another server for this repository"));
            }
            config.store = Some(honours(&seen));
        }
        io::put(&store, CONFIG_KEY, config.encode()?.into()).await?;
        Self::open_with(store, cache).await
    }

    /// Opens a repository. Damaged index objects are left out and told by [`Repo::damaged_indexes`].
    ///
    /// # Errors
    /// `Kind::NotFound` when there is none, `Kind::TooNew` when a newer windlass made it, `Kind::Corrupt` when its
    /// config is damaged, or the store's.
    pub async fn open(store: Arc<dyn Store>) -> Result<Self> {
        Self::open_with(store, None).await
    }

    /// As [`Repo::open`], with a cache for what doesn't change. A store that is a local directory needs none and uses none.
    ///
    /// # Errors
    /// As [`Repo::open`]; never the cache's.
    pub async fn open_with(store: Arc<dyn Store>, cache: Option<Arc<Cache>>) -> Result<Self> {
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
        let distant = store.local_path(&io::key(CONFIG_KEY)?).is_none();
        let cache = cache.filter(|_| distant).and_then(|cache| cache.of(&config.id));
        let inner = Inner {
            store,
            config,
            cache,
            demand: kept::Demand::default(),
            listing: Mutex::default(),
            index: RwLock::default(),
            damaged: Mutex::default(),
        };
        let repo = Self { inner: Arc::new(inner) };
        repo.refresh_index().await?;
        Ok(repo)
    }

    /// The same repository, opened anew and past the cache: for checks, which must see what the store has.
    ///
    /// # Errors
    /// As [`Repo::open`].
    pub async fn uncached(&self) -> Result<Self> {
        match self.inner.cache {
            Some(_) => Self::open(self.store().clone()).await,
            None => Ok(self.clone()),
        }
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
    /// Plans to read `ids`: each once, close ones with one request, about in this order.
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
    /// Runs a plan: blobs come about in their order, each once, checked. The first error ends the stream. Must be called within
    /// tokio; dropping the stream ends the work.
    pub fn fetch(&self, plan: FetchPlan, limits: &FetchLimits) -> BoxStream<'static, Result<(BlobId, Bytes)>> {
        fetch::run_opened(self.store().clone(), self.inner.config.key, plan, limits.clone())
    }
    /// As [`Repo::fetch`], each blob as it is stored, to be opened by whoever takes it.
    pub fn fetch_stored(&self, plan: FetchPlan, limits: &FetchLimits) -> BoxStream<'static, Result<Stored>> {
        fetch::run(self.store().clone(), self.inner.config.key, plan, limits.clone())
    }

    fn kept_listing(&self) -> Option<Arc<Named>> {
        self.inner
            .listing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
    fn keep_listing(&self, named: Arc<Named>) {
        *self.inner.listing.lock().unwrap_or_else(PoisonError::into_inner) = Some(named);
    }
    fn demand(&self) -> &kept::Demand {
        &self.inner.demand
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
}

#[cfg(test)]
mod tests;
