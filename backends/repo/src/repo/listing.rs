//! Snapshots, and counts.

use std::sync::Arc;

use bytes::Bytes;

use super::docs::{DOCS_READ_MAX, DocReader};
use super::{Repo, RepoCounts, Snapshots};
use crate::doc::SNAPSHOT_BYTES_MAX;
use crate::{Kind, RepoError, Result, SnapshotDoc, SnapshotId, io};

/// Snapshots read at once on the way back to the latest of a VM.
const LATEST_READ: usize = 32;
/// Shortest beginning of an id that is taken, in characters.
const PREFIX_CHARACTERS_MIN: usize = 8;
const ULID_CHARACTERS: usize = 26;

/// Objects below `snapshots/`, as a listing named them.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// Oldest first.
    pub(super) ids: Vec<SnapshotId>,
    /// Keys that are no ids.
    strange: Vec<String>,
}

/// Some snapshots of a repository.
#[derive(Debug, Clone, Default)]
pub struct SnapshotPage {
    /// The readable ones, oldest first.
    pub docs: Vec<SnapshotDoc>,
    /// Damaged ones that were passed over.
    pub damaged: Vec<RepoError>,
    /// There may be more, after the last of `docs`.
    pub more: bool,
}

impl SnapshotPage {
    fn take(&mut self, loaded: Result<Option<SnapshotDoc>>, vm: Option<&str>) -> Result<()> {
        match loaded {
            Ok(Some(doc)) if vm.is_none_or(|vm| doc.vm == vm) => self.docs.push(doc),
            Ok(_) => {}
            Err(error) if error.kind == Kind::Corrupt => self.damaged.push(error),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

impl Repo {
    /// All snapshots. A damaged one is told beside the others. Index segments written since are opened as well. Memory: about
    /// 1 KB a snapshot; [`Repo::snapshots_after`] needs none for those that it leaves out.
    ///
    /// # Errors
    /// `Kind::TooNew` when a newer windlass wrote one, or the store's.
    pub async fn snapshots(&self) -> Result<Snapshots> {
        let page = self.snapshots_after(None, usize::MAX, None).await?;
        Ok(Snapshots {
            docs: page.docs,
            damaged: page.damaged,
        })
    }

    /// At most `count_max` snapshots, oldest first, that follow `after`, of all VMs or of one. What follows the first page is
    /// as of the first page's listing, where this value still has it.
    ///
    /// # Errors
    /// As [`Repo::snapshots`].
    pub async fn snapshots_after(
        &self,
        after: Option<SnapshotId>,
        count_max: usize,
        vm: Option<&str>,
    ) -> Result<SnapshotPage> {
        let kept = after.and_then(|_| self.kept_listing());
        let named = match kept {
            Some(named) => named,
            None => self.list_snapshots().await?,
        };
        let mut page = SnapshotPage::default();
        let mut reader = DocReader::new(self, Some(named.clone())).await?;
        if after.is_none() {
            for object in &named.strange {
                page.take(self.load_snapshot(object).await, vm)?;
            }
        }
        let from = after.map_or(0, |after| named.ids.partition_point(|id| *id <= after));
        let (mut at, ids) = (from, &named.ids);
        while at < ids.len() && page.docs.len() < count_max {
            let part = &ids[at..ids.len().min(at + DOCS_READ_MAX)];
            at += part.len();
            for loaded in reader.read(part).await? {
                page.take(loaded, vm)?;
            }
        }
        reader.finish().await;
        page.docs.sort_by_key(|doc| doc.id);
        page.damaged.sort_by(|a, b| a.object.cmp(&b.object));
        page.more = at < ids.len() || page.docs.len() > count_max;
        page.docs.truncate(count_max);
        Ok(page)
    }

    /// What a listing names, and the index with all that these refer to.
    async fn list_snapshots(&self) -> Result<Arc<Named>> {
        let mut named = Named::default();
        io::list(self.store(), "snapshots/", |meta| {
            let key = meta.key.as_str();
            match key.strip_prefix("snapshots/").and_then(|id| id.parse().ok()) {
                // another spelling of the id would be another object
                Some(id) if SnapshotDoc::key_of(&id) == key => named.ids.push(id),
                _ => named.strange.push(key.to_owned()),
            }
        })
        .await?;
        // after the listing: whatever these refer to was in the index before they were visible
        self.refresh_index().await?;
        named.ids.sort_unstable();
        let named = Arc::new(named);
        self.keep_listing(named.clone());
        Ok(named)
    }

    /// The snapshot with this id, or with the one id that begins so (8 characters or more).
    ///
    /// # Errors
    /// `Kind::NotFound`, `Kind::Invalid` when the text is no id or several begin so, `Kind::Corrupt`, or the store's.
    pub async fn snapshot(&self, id_or_prefix: &str) -> Result<SnapshotDoc> {
        let wanted = id_or_prefix.to_ascii_uppercase();
        let shape_fits = (PREFIX_CHARACTERS_MIN..=ULID_CHARACTERS).contains(&wanted.len())
            && wanted.bytes().all(|b| b.is_ascii_alphanumeric());
        if !shape_fits {
            let shown: String = id_or_prefix.chars().take(80).collect();
            let why = format!("a snapshot's id has {ULID_CHARACTERS} letters and digits; its first 8 or more will do");
            return Err(RepoError::invalid(shown, why).hint("windlass snapshot ls"));
        }
        let mut objects = Vec::new();
        io::list(self.store(), &format!("snapshots/{wanted}"), |meta| {
            objects.push(meta.key.as_str().to_owned())
        })
        .await?;
        let none = || {
            RepoError::new(
                Kind::NotFound,
                format!("snapshots/{wanted}"),
                "there is no such snapshot",
            )
            .hint("windlass snapshot ls")
        };
        if objects.len() > 1 {
            let why = format!("{} snapshots begin so; give more of the id", objects.len());
            return Err(RepoError::invalid(wanted, why).hint("windlass snapshot ls"));
        }
        self.refresh_index().await?;
        let object = objects.first().ok_or_else(none)?;
        let id = object.strip_prefix("snapshots/").and_then(|id| id.parse().ok());
        let found = match id.filter(|id| SnapshotDoc::key_of(id) == *object) {
            Some(id) => {
                let mut reader = DocReader::new(self, None).await?;
                let loaded = reader.read(&[id]).await?.pop();
                reader.finish().await;
                loaded.transpose()?.flatten()
            }
            None => self.load_snapshot(object).await?,
        };
        found.ok_or_else(none)
    }

    /// The newest snapshot of a VM.
    ///
    /// # Errors
    /// `Kind::NotFound` when it has none. When one is damaged that might be newer, that error.
    pub async fn latest(&self, vm: &str) -> Result<SnapshotDoc> {
        let named = self.list_snapshots().await?;
        let mut reader = DocReader::new(self, Some(named.clone())).await?;
        let mut page = SnapshotPage::default();
        for part in named.ids.rchunks(LATEST_READ) {
            for loaded in reader.read(part).await? {
                page.take(loaded, Some(vm))?;
            }
            if !page.docs.is_empty() {
                break;
            }
        }
        reader.finish().await;
        for object in &named.strange {
            page.take(self.load_snapshot(object).await, Some(vm))?;
        }
        let SnapshotPage { docs, mut damaged, .. } = page;
        let found = docs.into_iter().max_by_key(|doc| doc.id);
        damaged.sort_by(|a, b| a.object.cmp(&b.object));
        let newer = |error: &RepoError| match &found {
            Some(doc) => error.object > SnapshotDoc::key_of(&doc.id),
            None => true,
        };
        // nobody can tell whose a damaged snapshot is: to take an older one in silence would be wrong
        if let Some(at) = damaged.iter().position(newer) {
            return Err(damaged.swap_remove(at));
        }
        found.ok_or_else(|| {
            RepoError::new(Kind::NotFound, format!("vm {vm}"), "has no snapshot in this repository")
                .hint("windlass snapshot ls")
        })
    }

    pub(super) async fn load_snapshot(&self, object: &str) -> Result<Option<SnapshotDoc>> {
        Ok(self.load_snapshot_bytes(object).await?.map(|(doc, _)| doc))
    }

    pub(super) async fn load_snapshot_bytes(&self, object: &str) -> Result<Option<(SnapshotDoc, Bytes)>> {
        match io::get(self.store(), object, SNAPSHOT_BYTES_MAX).await {
            Ok(bytes) => Ok(Some((SnapshotDoc::decode(object, &bytes)?, bytes))),
            // forgotten since the listing
            Err(e) if e.kind == store::Kind::NotFound => Ok(None),
            Err(e) => Err(RepoError::of_referenced(e)),
        }
    }

    /// Removes a snapshot. Its blobs stay until no snapshot needs them.
    ///
    /// # Errors
    /// `Kind::NotFound`; `Kind::Conflict` when it is held until after `now` (RFC 3339) and `force` is not given;
    /// `Kind::Invalid` when `now` is no time; or the store's. A damaged
    /// one is `Kind::Corrupt` and stays: [`Repo::discard`].
    pub async fn forget(&self, id: &SnapshotId, force: bool, now: &str) -> Result<SnapshotDoc> {
        let object = SnapshotDoc::key_of(id);
        let doc = self.snapshot(&id.to_string()).await?;
        if let Some(until) = doc.held_until.as_deref().filter(|_| !force) {
            let time = |text: &str| text.parse::<jiff::Timestamp>();
            let now = time(now).map_err(|e| RepoError::invalid(now.to_owned(), format!("not a time: {e}")))?;
            // a hold that can't be read is a hold
            if time(until).map_or(true, |until| until > now) {
                let why = format!("is held until {until}; it was left as it is");
                return Err(
                    RepoError::new(Kind::Conflict, object, why).hint(format!("windlass snapshot forget {id} --force"))
                );
            }
        }
        io::delete(self.store(), &[object]).await?;
        Ok(doc)
    }

    /// Removes a snapshot's object that can't be read, so that it doesn't stand in the way of checks for ever. What it said,
    /// a hold among it, is lost already.
    ///
    /// # Errors
    /// `Kind::NotFound`; `Kind::Conflict` when it can be read; or the store's.
    pub async fn discard(&self, id: &SnapshotId) -> Result<()> {
        let object = SnapshotDoc::key_of(id);
        match self.snapshot(&id.to_string()).await {
            Err(e) if e.kind == Kind::Corrupt => io::delete(self.store(), &[object]).await,
            Err(e) => Err(e),
            Ok(_) => Err(RepoError::new(
                Kind::Conflict,
                object,
                "is not damaged; it was left as it is",
            )),
        }
    }

    /// Counts what the repository holds. A blob that two sessions stored at once counts twice.
    ///
    /// # Errors
    /// The store's.
    pub async fn counts(&self) -> Result<RepoCounts> {
        let snapshots = self.snapshots().await?;
        let mut counts = RepoCounts {
            url: self.url(),
            ..RepoCounts::default()
        };
        counts.snapshots = (snapshots.docs.len() + snapshots.damaged.len()) as u64;
        let disks = snapshots.docs.iter().flat_map(|d| &d.disks);
        counts.disk_bytes = disks.fold(0, |sum: u64, d| sum.saturating_add(d.manifest.size_bytes));
        io::list(self.store(), "packs/", |meta| {
            counts.packs += 1;
            counts.pack_bytes += meta.size_bytes;
        })
        .await?;
        io::list(self.store(), "index/", |meta| {
            counts.indexes += 1;
            counts.index_bytes += meta.size_bytes;
        })
        .await?;
        for segment in self.index().segments() {
            let sums = segment.sums();
            counts.chunks = counts.chunks.saturating_add(sums.data_blobs);
            counts.chunk_raw_bytes = counts.chunk_raw_bytes.saturating_add(sums.data_raw_bytes);
            counts.chunk_stored_bytes = counts.chunk_stored_bytes.saturating_add(sums.data_stored_bytes);
            counts.nodes = counts.nodes.saturating_add(sums.node_blobs);
        }
        Ok(counts)
    }
}
