//! Keeping the index up to date: what a listing names is opened, from the cache where it has it, and many small ones as few.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError};

use super::Repo;
use crate::cache::RepoCache;
use crate::index::{ALONE_LOADS_MAX, Index, IndexName, Loader, SMALL_BYTES_MAX, SMALL_LOADS_MAX, Segment, is_small};
use crate::{Result, io};

impl Repo {
    /// The cache, when the store is distant and there is one.
    pub(crate) fn cache(&self) -> Option<&RepoCache> {
        self.inner.cache.as_ref()
    }
    pub(crate) fn loader(&self) -> Loader {
        Loader {
            store: self.store().clone(),
            cache: self.inner.cache.clone(),
        }
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
    fn set_index(&self, index: Arc<Index>) {
        *self.inner.index.write().unwrap_or_else(PoisonError::into_inner) = index;
    }

    /// Opens segments that were written since, lets go of those that are gone, and of those whose cached bytes turned out
    /// to be damaged.
    pub(crate) async fn refresh_index(&self) -> Result<Arc<Index>> {
        let (known, loader) = (self.index(), self.loader());
        // two names that don't parse are two objects that can't be opened: they are told as damaged
        let (mut listed, mut strange) = (HashMap::new(), Vec::new());
        io::list(self.store(), "index/", |meta| {
            match IndexName::from_key(meta.key.as_str()) {
                Some(name) => {
                    listed.insert(name, meta.size_bytes);
                }
                None => strange.push((meta.key.as_str().to_owned(), meta.size_bytes)),
            }
        })
        .await?;
        let mut kept = Vec::new();
        for segment in known.segments() {
            let damaged = segment.is_cached() && segment.damage().is_some();
            let names = segment.names();
            if damaged {
                loader.drop_cached(segment);
            } else if !names.is_empty() && names.iter().all(|n| listed.contains_key(n)) {
                names.iter().for_each(|n| {
                    listed.remove(n);
                });
                kept.push(segment.clone());
            }
        }
        if listed.is_empty() && strange.is_empty() && kept.len() == known.segments().len() {
            return Ok(known);
        }
        kept.extend(loader.joined(&mut listed).await?);
        let (small, large): (BTreeMap<_, _>, BTreeMap<_, _>) =
            listed.into_iter().partition(|(_, size)| *size <= SMALL_BYTES_MAX);
        let open_small = kept.iter().filter(|s| is_small(s)).count();
        let mut alone: Vec<(String, u64)> = large.into_iter().map(|(name, size)| (name.key(), size)).collect();
        alone.extend(strange);
        let mut damaged = Vec::new();
        if open_small + small.len() > loader.alone_max() {
            let (join, stay) = kept.into_iter().partition(|s| is_small(s));
            kept = stay;
            let joined = loader.join(join, small.into_iter().collect()).await?;
            kept.extend(joined.segments);
            damaged = joined.damaged;
        } else {
            let small = small.into_iter().map(|(name, size)| (name.key(), size)).collect();
            let opened = loader.one_by_one(small, SMALL_LOADS_MAX).await?;
            kept.extend(opened.segments);
            damaged.extend(opened.damaged);
        }
        let opened = loader.one_by_one(alone, ALONE_LOADS_MAX).await?;
        kept.extend(opened.segments);
        damaged.extend(opened.damaged);
        kept.sort_by(|a, b| a.object().cmp(b.object()));
        *self.inner.damaged.lock().unwrap_or_else(PoisonError::into_inner) = damaged;
        let index = Arc::new(io::blocking("index", move || Ok(Index::new(kept))).await?);
        self.set_index(index.clone());
        Ok(index)
    }
}
