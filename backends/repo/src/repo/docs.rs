//! Reading snapshot objects: from the cache what it has, the rest with many requests at once.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream;

use super::Repo;
use super::listing::Named;
use crate::cache::DocBatches;
use crate::{Kind, Result, SnapshotDoc, SnapshotId, io};

/// Snapshots that one call reads at most.
pub(super) const DOCS_READ_MAX: usize = 512;
/// Snapshot objects fetched at once.
const LOADS_MAX: usize = 32;

/// One pass over snapshots.
pub(super) struct DocReader<'a> {
    repo: &'a Repo,
    /// What is listed now; the cache may forget the rest. `None`: nobody knows, all of it stays.
    named: Option<Arc<Named>>,
    batches: Option<DocBatches>,
}

type Found = Vec<(SnapshotId, Option<SnapshotDoc>)>;

impl<'a> DocReader<'a> {
    pub(super) async fn new(repo: &'a Repo, named: Option<Arc<Named>>) -> Result<Self> {
        let batches = match repo.cache().cloned() {
            Some(cache) => Some(io::blocking("snapshots", move || Ok(DocBatches::new(cache))).await?),
            None => None,
        };
        Ok(Self { repo, named, batches })
    }

    /// The objects of `ids`, in any order; `None` for one that is gone.
    ///
    /// # Errors
    /// Only of the cache's thread; what is wrong with an object stands in its place.
    pub(super) async fn read(&mut self, ids: &[SnapshotId]) -> Result<Vec<Result<Option<SnapshotDoc>>>> {
        let (mut all, missing) = self.of_cache(ids).await?;
        let repo = self.repo;
        let load = |id: SnapshotId| async move { (id, repo.load_snapshot_bytes(&SnapshotDoc::key_of(&id)).await) };
        let mut loads = stream::iter(missing.into_iter().map(load)).buffer_unordered(LOADS_MAX);
        let mut fresh = Vec::new();
        while let Some((id, loaded)) = loads.next().await {
            all.push(loaded.map(|found| {
                found.map(|(doc, bytes)| {
                    fresh.push((id, bytes));
                    doc
                })
            }));
        }
        drop(loads);
        if let Some(mut batches) = self.batches.take() {
            let kept = io::blocking("snapshots", move || {
                fresh.into_iter().for_each(|(id, bytes)| batches.add(id, bytes));
                Ok(batches)
            });
            self.batches = Some(kept.await?);
        }
        Ok(all)
    }

    async fn of_cache(&mut self, ids: &[SnapshotId]) -> Result<(Vec<Result<Option<SnapshotDoc>>>, Vec<SnapshotId>)> {
        let Some(mut batches) = self.batches.take() else {
            return Ok((Vec::new(), ids.to_vec()));
        };
        let ids = ids.to_vec();
        let (batches, found) = io::blocking("snapshots", move || {
            let read = |id: SnapshotId| {
                // what can't be read here is read from the store, which tells better
                let doc = batches
                    .get(&id)
                    .and_then(|b| SnapshotDoc::decode(&SnapshotDoc::key_of(&id), &b).ok());
                (id, doc)
            };
            let found: Found = ids.into_iter().map(read).collect();
            Ok((batches, found))
        })
        .await?;
        self.batches = Some(batches);
        let (mut all, mut missing) = (Vec::new(), Vec::new());
        for (id, doc) in found {
            match doc {
                Some(doc) => all.push(Ok(Some(doc))),
                None => missing.push(id),
            }
        }
        Ok((all, missing))
    }

    /// Ends the pass: what was fetched stays in the cache.
    pub(super) async fn finish(self) {
        let Some(batches) = self.batches else { return };
        let named = self.named;
        let finished = io::blocking("snapshots", move || {
            batches.finish(|id| named.as_ref().is_none_or(|named| named.ids.binary_search(id).is_ok()));
            Ok(())
        });
        if let Err(error) = finished.await
            && error.kind == Kind::Internal
        {
            tracing::warn!(%error, "snapshots were not kept in the cache");
        }
    }
}
