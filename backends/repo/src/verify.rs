//! Checking that snapshots can be restored.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;

use crate::doc::BlobRef;
use crate::fetch::open_blob;
use crate::id::IdSet;
use crate::index::{Hit, Index, Marks};
use crate::manifest::{LEAF_SPAN_BYTES, NodeSource, children_of, leaf_of};
use crate::pack::{self, Entry, PACK_READ_BYTES_MAX, PackName};
use crate::{BlobId, DiskEntry, Kind, Progress, Repo, RepoError, Result, SnapshotDoc, io};

/// Most findings that a report keeps.
pub const FINDINGS_MAX: usize = 100;
/// Manifest nodes read at once.
const NODE_BATCH: usize = 512;
/// Packs read at once, and their bytes.
const PACK_LOADS_MAX: usize = 4;
const PACK_LOAD_BYTES: u64 = 128 << 20;

/// What a check found.
#[derive(Debug, Clone, Default)]
pub struct VerifyReport {
    /// Snapshots checked.
    pub snapshots: u64,
    /// Manifest nodes read.
    pub nodes: u64,
    /// Chunks checked: each once, however many snapshots need it.
    pub chunks: u64,
    /// Bytes read from the store: stored bytes of nodes, and of packs.
    pub read_bytes: u64,
    /// Damage: the first [`FINDINGS_MAX`], each with the snapshots that need what is damaged.
    pub findings: Vec<RepoError>,
    /// How many there were.
    pub findings_total: u64,
}

impl Repo {
    /// Checks `docs`. Quick: every manifest is whole, every chunk is in the index with its length, and every pack that
    /// is needed is there with its size. Full: in addition every byte of those packs is read and every blob in them
    /// checked. The index's own objects are checked whole either way. Memory: some 40 bytes a manifest node and a bit
    /// a chunk.
    ///
    /// Done and total of `progress` are in bytes: of the disks at first; a full check then adds the packs'.
    ///
    /// # Errors
    /// The store's, and `Kind::TooNew`. Damage is no error but a finding. Damaged snapshot objects are told by
    /// [`Repo::snapshots`].
    pub async fn verify(&self, docs: &[SnapshotDoc], quick: bool, progress: Progress<'_>) -> Result<VerifyReport> {
        // what the cache has may be whole where the store's is not
        let repo = self.uncached().await?;
        let index = repo.refresh_index().await?;
        let mut check = Check::new(&repo, index.clone());
        check.index_objects().await?;
        let mut done: u64 = 0;
        let disks = docs.iter().flat_map(|d| &d.disks);
        let disks_bytes = disks.fold(0u64, |sum, d| sum.saturating_add(d.manifest.size_bytes));
        progress(0, disks_bytes);
        for doc in docs {
            check.report.snapshots += 1;
            if let Some(definition) = &doc.definition {
                check.definition(definition, quick).await?;
            }
            for disk in &doc.disks {
                check
                    .disk(disk, &|bytes| progress(done.saturating_add(bytes), disks_bytes))
                    .await?;
                done = done.saturating_add(disk.manifest.size_bytes);
                progress(done, disks_bytes);
            }
        }
        let packs = check.packs_present().await?;
        if !quick {
            check
                .packs_whole(packs, &|bytes, of| {
                    progress(done.saturating_add(bytes), disks_bytes.saturating_add(of))
                })
                .await?;
        }
        check.attribute(docs).await;
        Ok(check.report)
    }
}

/// State of one check.
struct Check<'a> {
    repo: &'a Repo,
    index: Arc<Index>,
    marks: Marks,
    seen_nodes: IdSet,
    /// One bit a record of each segment: some snapshot needs it.
    needed: Vec<Vec<u64>>,
    report: VerifyReport,
    /// What is damaged, and which findings say so.
    bad_ids: BTreeMap<BlobId, usize>,
    bad_packs: BTreeMap<PackName, usize>,
}

impl<'a> Check<'a> {
    fn new(repo: &'a Repo, index: Arc<Index>) -> Self {
        Self {
            repo,
            marks: Marks::new(&index),
            seen_nodes: IdSet::default(),
            needed: index
                .segments()
                .iter()
                .map(|s| vec![0; s.records().div_ceil(64)])
                .collect(),
            index,
            report: VerifyReport::default(),
            bad_ids: BTreeMap::new(),
            bad_packs: BTreeMap::new(),
        }
    }

    /// Keeps a finding; returns its place (past the end when there are too many).
    fn find(&mut self, error: RepoError) -> usize {
        self.report.findings_total += 1;
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(error);
            return self.report.findings.len() - 1;
        }
        FINDINGS_MAX
    }
    fn bad_id(&mut self, id: BlobId, error: RepoError) {
        if !self.bad_ids.contains_key(&id) {
            let at = self.find(error);
            self.bad_ids.insert(id, at);
        }
    }

    async fn index_objects(&mut self) -> Result<()> {
        let index = self.index.clone();
        let mut damaged = io::blocking("index", move || {
            Ok(index
                .segments()
                .iter()
                .filter_map(|s| s.check_whole().err())
                .collect::<Vec<_>>())
        })
        .await?;
        for error in self.repo.damaged_indexes() {
            if !damaged.iter().any(|d| d.object == error.object) {
                damaged.push(error);
            }
        }
        for error in damaged {
            self.find(error);
        }
        Ok(())
    }

    /// Marks a blob as needed; a finding when the index lacks it or says another length.
    fn need(&mut self, id: &BlobId, raw_bytes: Option<u32>) -> Option<Hit> {
        let Some(hit) = self.index.find(id) else {
            let error = self.repo.unknown(id);
            self.bad_id(*id, error);
            return None;
        };
        if let Some(raw) = raw_bytes.filter(|raw| *raw != hit.entry.raw) {
            let why = format!("the manifest says {raw} bytes, the index {}", hit.entry.raw);
            self.bad_id(*id, RepoError::corrupt(format!("blob {id}"), why));
            return None;
        }
        self.marks.mark(&hit);
        let word = &mut self.needed[hit.segment as usize][hit.record as usize / 64];
        let bit = 1u64 << (hit.record % 64);
        if *word & bit == 0 && raw_bytes.is_some() {
            self.report.chunks += 1;
        }
        *word |= bit;
        Some(hit)
    }

    async fn definition(&mut self, definition: &BlobRef, quick: bool) -> Result<()> {
        if self.need(&definition.id, Some(definition.len)).is_none() || quick {
            return Ok(());
        }
        match self.repo.read(&definition.id).await {
            Ok(_) => {}
            Err(error) if error.kind == Kind::Corrupt => self.bad_id(definition.id, error),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Walks a manifest; what an earlier snapshot has in common is not read again.
    async fn disk(&mut self, disk: &DiskEntry, walked: &(dyn Fn(u64) + Send + Sync)) -> Result<()> {
        let manifest = disk.manifest;
        manifest.check()?;
        let mut todo: Vec<(u8, u64, BlobId)> = manifest.root.iter().map(|r| (manifest.height(), 0, *r)).collect();
        while let Some(&(level, ..)) = todo.last() {
            let same = todo
                .iter()
                .rev()
                .take(NODE_BATCH)
                .take_while(|item| item.0 == level)
                .count();
            let mut batch = todo.split_off(todo.len() - same);
            batch.reverse();
            batch.retain(|(_, _, id)| self.seen_nodes.insert(*id));
            batch.retain(|(_, _, id)| self.need(id, None).is_some());
            let read = self.nodes(&batch).await?;
            let mut children = Vec::new();
            for ((_, index, id), bytes) in batch.iter().zip(&read) {
                let Some(bytes) = bytes else { continue };
                self.report.nodes += 1;
                let found = if level == 0 {
                    leaf_of(&manifest, *index, id, bytes).map(|leaf| {
                        for chunk in &leaf.chunks {
                            self.need(&chunk.id, Some(chunk.len));
                        }
                    })
                } else {
                    children_of(&manifest, level, *index, id, bytes)
                        .map(|found| children.extend(found.into_iter().map(|(index, id)| (level - 1, index, id))))
                };
                match found {
                    Ok(()) => {}
                    Err(error) if error.kind == Kind::Corrupt => self.bad_id(*id, error),
                    Err(error) => return Err(error),
                }
            }
            if let Some((_, index, _)) = batch.last().filter(|_| level == 0) {
                walked(((index + 1) * LEAF_SPAN_BYTES).min(manifest.size_bytes));
            }
            todo.extend(children.into_iter().rev());
        }
        Ok(())
    }

    /// Reads nodes; one that is damaged becomes a finding and `None`.
    async fn nodes(&mut self, batch: &[(u8, u64, BlobId)]) -> Result<Vec<Option<Bytes>>> {
        let ids: Vec<BlobId> = batch.iter().map(|item| item.2).collect();
        let stored = |id: &BlobId| self.index.find(id).map_or(0, |hit| u64::from(hit.entry.stored));
        self.report.read_bytes += ids.iter().map(stored).sum::<u64>();
        match self.repo.nodes(&ids).await {
            Ok(nodes) => return Ok(nodes.into_iter().map(Some).collect()),
            Err(error) if error.kind == Kind::Corrupt => {}
            Err(error) => return Err(error),
        }
        let mut nodes = Vec::with_capacity(ids.len());
        for id in ids {
            nodes.push(match self.repo.read(&id).await {
                Ok(node) => Some(node),
                Err(error) if error.kind == Kind::Corrupt => {
                    self.bad_id(id, error);
                    None
                }
                Err(error) => return Err(error),
            });
        }
        Ok(nodes)
    }

    /// Checks that the needed packs are in a listing with their sizes; returns those that are.
    async fn packs_present(&mut self) -> Result<BTreeMap<PackName, u64>> {
        let wanted = self.marks.marked(&self.index);
        let mut present = BTreeMap::new();
        io::list(self.repo.store(), "packs/", |meta| {
            if let Some(name) = PackName::from_key(meta.key.as_str())
                && wanted.contains_key(&name)
            {
                present.insert(name, meta.size_bytes);
            }
        })
        .await?;
        let mut whole = BTreeMap::new();
        for (name, bytes) in wanted {
            let why = match present.get(&name) {
                Some(size) if *size == bytes => {
                    whole.insert(name, bytes);
                    continue;
                }
                Some(size) => format!("has {size} bytes instead of {bytes}"),
                None => "is gone".to_owned(),
            };
            let at = self.find(RepoError::corrupt(name.key(), why));
            self.bad_packs.insert(name, at);
        }
        Ok(whole)
    }

    /// Reads packs whole and checks each blob in them.
    async fn packs_whole(
        &mut self,
        packs: BTreeMap<PackName, u64>,
        read: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<()> {
        let total: u64 = packs.values().sum();
        let largest = packs.values().max().copied().unwrap_or(1);
        let at_once = (PACK_LOAD_BYTES / largest.max(1)).clamp(1, PACK_LOADS_MAX as u64) as usize;
        let (store, key) = (self.repo.store().clone(), self.repo.blob_key());
        let loads = packs.into_iter().map(|(name, bytes)| {
            let store = store.clone();
            async move {
                let whole = match io::get(&store, &name.key(), PACK_READ_BYTES_MAX).await {
                    Ok(whole) => whole,
                    Err(e) => return (name, bytes, Err(RepoError::of_referenced(e))),
                };
                let checked = io::blocking("verify", move || Ok(check_pack(&key, &name, whole))).await;
                (name, bytes, checked)
            }
        });
        let mut loads = stream::iter(loads).buffer_unordered(at_once);
        let mut done = 0;
        while let Some((name, bytes, checked)) = loads.next().await {
            done += bytes;
            self.report.read_bytes += bytes;
            match checked {
                Ok(Checked::Whole) => {}
                Ok(Checked::Blobs(damaged)) => damaged.into_iter().for_each(|(id, error)| self.bad_id(id, error)),
                Ok(Checked::Pack(whole, error)) => self.damaged_pack(name, &whole, error),
                Err(error) if error.kind == Kind::Corrupt => {
                    let at = self.find(error);
                    self.bad_packs.insert(name, at);
                }
                Err(error) => return Err(error),
            }
            read(done, total);
        }
        Ok(())
    }

    /// Tells which needed blobs of a damaged pack are damaged; the pack itself when none is.
    fn damaged_pack(&mut self, name: PackName, whole: &Bytes, error: RepoError) {
        let key = self.repo.blob_key();
        let mut damaged = Vec::new();
        for (number, segment) in self.index.segments().iter().enumerate() {
            let mut of_pack = Vec::new();
            segment.for_each(|record, _, pack| {
                let needed = self.needed[number][record as usize / 64] & 1 << (record % 64) != 0;
                if needed && (pack as usize) < segment.packs() && segment.pack(pack).name == name {
                    of_pack.push(record);
                }
            });
            let hits = of_pack
                .into_iter()
                .filter_map(|record| segment.get(number as u32, record));
            damaged.extend(hits.filter_map(|hit| check_blob(&key, &name, &hit.entry, whole).err()));
        }
        if damaged.is_empty() {
            let mut error = error;
            error.message.push_str("; but every blob in it that is needed is whole");
            let at = self.find(error);
            self.bad_packs.insert(name, at);
        }
        for (id, error) in damaged {
            self.bad_id(id, error);
        }
    }

    /// Adds to each finding the snapshots that need what is damaged. Walks again, which only a damaged repository pays.
    async fn attribute(&mut self, docs: &[SnapshotDoc]) {
        if self.bad_ids.is_empty() && self.bad_packs.is_empty() {
            return;
        }
        for doc in docs {
            let mut concerned = BTreeSet::new();
            if let Some(definition) = &doc.definition {
                concerned.extend(self.findings_of(&definition.id));
            }
            for disk in &doc.disks {
                self.concerned(disk, &mut concerned).await;
            }
            let id = doc.id.to_string();
            for at in concerned {
                if let Some(finding) = self.report.findings.get_mut(at)
                    && !finding.snapshots.contains(&id)
                {
                    finding.snapshots.push(id.clone());
                }
            }
        }
    }

    fn findings_of(&self, id: &BlobId) -> Vec<usize> {
        let by_pack = self.index.find(id).and_then(|hit| self.bad_packs.get(&hit.name));
        self.bad_ids.get(id).into_iter().chain(by_pack).copied().collect()
    }

    async fn concerned(&self, disk: &DiskEntry, concerned: &mut BTreeSet<usize>) {
        let manifest = disk.manifest;
        let mut todo: Vec<(u8, u64, BlobId)> = manifest.root.iter().map(|r| (manifest.height(), 0, *r)).collect();
        while let Some(&(level, ..)) = todo.last() {
            let same = todo
                .iter()
                .rev()
                .take(NODE_BATCH)
                .take_while(|item| item.0 == level)
                .count();
            let mut batch = todo.split_off(todo.len() - same);
            batch.reverse();
            batch.retain(|(_, _, id)| {
                let findings = self.findings_of(id);
                let whole = !self.bad_ids.contains_key(id);
                concerned.extend(findings);
                whole
            });
            let ids: Vec<BlobId> = batch.iter().map(|item| item.2).collect();
            // a batch that can't be read says no more than what was found already
            let Ok(read) = self.repo.nodes(&ids).await else {
                continue;
            };
            for ((_, index, id), bytes) in batch.iter().zip(&read) {
                if level == 0 {
                    let Ok(leaf) = leaf_of(&manifest, *index, id, bytes) else {
                        continue;
                    };
                    leaf.chunks
                        .iter()
                        .for_each(|chunk| concerned.extend(self.findings_of(&chunk.id)));
                } else if let Ok(children) = children_of(&manifest, level, *index, id, bytes) {
                    todo.extend(children.into_iter().rev().map(|(index, id)| (level - 1, index, id)));
                }
            }
        }
    }
}

enum Checked {
    Whole,
    /// Blobs that are not what their ids say, in a pack that is as it was written.
    Blobs(Vec<(BlobId, RepoError)>),
    /// The pack is not as it was written.
    Pack(Bytes, RepoError),
}

fn check_pack(key: &[u8; 32], name: &PackName, whole: Bytes) -> Checked {
    let entries = match pack::decode_whole(name, &whole) {
        Ok(entries) => entries,
        Err(error) => return Checked::Pack(whole, error),
    };
    let damaged: Vec<_> = entries
        .iter()
        .filter_map(|entry| check_blob(key, name, entry, &whole).err())
        .collect();
    if damaged.is_empty() {
        Checked::Whole
    } else {
        Checked::Blobs(damaged)
    }
}

fn check_blob(
    key: &[u8; 32],
    name: &PackName,
    entry: &Entry,
    whole: &Bytes,
) -> std::result::Result<(), (BlobId, RepoError)> {
    let (start, end) = (entry.offset as usize, entry.offset as usize + entry.stored as usize);
    if end > whole.len() {
        let error = RepoError::corrupt(name.key(), format!("ends before blob {}", entry.id)).at(start as u64);
        return Err((entry.id, error));
    }
    open_blob(key, name, entry, whole.slice(start..end))
        .map(drop)
        .map_err(|error| (entry.id, error))
}
