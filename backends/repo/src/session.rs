//! A writing session: blobs in, packs out, and at the end one snapshot or none.
//!
//! What a kill leaves behind, at any line: packs and index segments that no snapshot refers to (a later session uses
//! what the index knows of them), and an object below `sessions/`. A snapshot object is written only after everything
//! that it refers to is durable and was seen in a listing.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tracing::Instrument as _;
use ulid::Ulid;

use crate::blob::{BLOB_RAW_BYTES_MAX, BlobKind, BlobSink, Put, compress};
use crate::doc::{self, DocKind, SessionBody};
use crate::id::IdSet;
use crate::index::{Index, Marks, PackSize, Segment, write_segment};
use crate::pack::{Entry, PACK_BYTES_LIMIT, PackBuilder, SealedPack};
use crate::{BlobId, Repo, RepoError, Result, SnapshotDoc, SnapshotDraft, SnapshotId, io};

mod gate;
mod publish;

use gate::{Gate, Pass};

/// Shards of the set of ids that the session added.
const SHARDS: usize = 64;
/// Pack buffers kept for reuse.
const SPARE_MAX: usize = 2;
/// Time between renewals of the session's object, in seconds; a sweep takes one that is a day old for dead.
const RENEW_S: u64 = 600;

/// Limits of a session.
#[derive(Debug, Clone)]
pub struct SessionLimits {
    /// A pack is closed once it has this many bytes; 64 KiB to 1 GiB.
    pub pack_bytes: u32,
    /// zstd's level.
    pub zstd_level: i32,
    /// Packs being uploaded at once; more makes `put` wait.
    pub uploads_in_flight_max: usize,
    /// Entries after which the session's part of the index is written and let go.
    pub index_entries_max: usize,
    /// The session's id; a new one when absent.
    pub id: Option<Ulid>,
}

impl Default for SessionLimits {
    fn default() -> Self {
        // 800,000 entries fill 64 hash sets of 16,384 buckets to 87 %
        Self {
            pack_bytes: 16 << 20,
            zstd_level: 1,
            uploads_in_flight_max: 4,
            index_entries_max: 800_000,
            id: None,
        }
    }
}

/// A session that writes blobs and ends with one snapshot, or none.
#[derive(Debug)]
pub struct Session {
    inner: Arc<Inner>,
    renewal: tokio::task::AbortHandle,
}

#[derive(Debug)]
struct Inner {
    id: Ulid,
    repo: Repo,
    limits: SessionLimits,
    runtime: Handle,
    /// The repository's index as of the session's beginning, and which packs of it the session refers to.
    index: Arc<Index>,
    marks: Marks,
    /// Ids added by this session and not yet in `written`.
    shards: Vec<Mutex<IdSet>>,
    data: Mutex<PackBuilder>,
    nodes: Mutex<PackBuilder>,
    /// Memory of packs that are stored, for the next ones: fresh pages cost more than the copying into them.
    spare: Mutex<Vec<Vec<u8>>>,
    gate: Arc<Gate>,
    /// Packs handed to the background; as many must be in `durable` at the end.
    sealed: AtomicUsize,
    durable: Mutex<Durable>,
    /// Index segments that this session wrote.
    written: RwLock<Vec<Arc<Segment>>>,
    written_count: AtomicUsize,
    closed: AtomicBool,
    failed: AtomicBool,
    failure: Mutex<Option<RepoError>>,
}

/// Packs that are stored.
#[derive(Debug, Default)]
struct Durable {
    packs: Vec<PackSize>,
    /// Of them those that no written segment lists yet.
    unlisted: Vec<(PackSize, Vec<Entry>)>,
    unlisted_entries: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    /// Begins: the session's object is written first.
    pub(crate) async fn begin(repo: Repo, mut limits: SessionLimits) -> Result<Arc<Self>> {
        limits.pack_bytes = limits.pack_bytes.clamp(64 << 10, PACK_BYTES_LIMIT);
        limits.index_entries_max = limits.index_entries_max.clamp(1, 4 << 20);
        let index = repo.refresh_index().await?;
        let id = limits.id.unwrap_or_else(Ulid::generate);
        let body = SessionBody {
            id,
            writer: "windlass".to_owned(),
        };
        let object = Bytes::from(doc::encode(DocKind::Session, &body)?);
        io::put(repo.store(), &session_key(&id), object.clone()).await?;
        let renewal = tokio::spawn(renew(repo.clone(), session_key(&id), object).in_current_span()).abort_handle();
        let inner = Inner {
            id,
            runtime: Handle::current(),
            marks: Marks::new(&index),
            index,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            data: Mutex::default(),
            nodes: Mutex::default(),
            gate: Arc::new(Gate::new(limits.uploads_in_flight_max.max(1))),
            sealed: AtomicUsize::new(0),
            spare: Mutex::default(),
            durable: Mutex::default(),
            written: RwLock::default(),
            written_count: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            failure: Mutex::default(),
            limits,
            repo,
        };
        Ok(Arc::new(Self {
            inner: Arc::new(inner),
            renewal,
        }))
    }
    /// Its id: the name of its object below `sessions/`.
    pub fn id(&self) -> Ulid {
        self.inner.id
    }
    /// Makes everything durable, then the snapshot visible. No `put` may be running.
    ///
    /// # Errors
    /// The session's first error, or `Kind::Invalid` for a draft that refers to what was not put, or `Kind::Corrupt`
    /// when a pack that is referred to is gone. Then no snapshot is visible.
    pub async fn finish(self: Arc<Self>, draft: SnapshotDraft) -> Result<SnapshotDoc> {
        let result = self.inner.publish(draft).await;
        self.end().await;
        result
    }
    /// Ends without a snapshot. What was stored stays as it is: a later session uses it when the index knows it.
    pub async fn abandon(self: Arc<Self>) {
        self.inner.closed.store(true, Ordering::SeqCst);
        self.end().await;
    }
    async fn end(&self) {
        self.renewal.abort();
        if let Err(error) = io::delete(self.inner.repo.store(), &[session_key(&self.inner.id)]).await {
            // it only keeps a later sweep waiting until it is old
            tracing::warn!(%error, "the session's object stays behind");
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

fn session_key(id: &Ulid) -> String {
    format!("sessions/{id}")
}

/// Writes the same bytes again from time to time, so that the store's Last-Modified tells that the writer lives.
async fn renew(repo: Repo, object: String, bytes: Bytes) {
    loop {
        tokio::time::sleep(Duration::from_secs(RENEW_S)).await;
        if let Err(error) = io::put(repo.store(), &object, bytes.clone()).await {
            tracing::warn!(%error, "could not renew the session");
        }
    }
}

impl BlobSink for Session {
    fn id_of(&self, raw: &[u8]) -> BlobId {
        self.inner.repo.id_of(raw)
    }
    fn known(&self, id: &BlobId) -> bool {
        self.inner.known_before(id) || self.inner.added(id)
    }
    fn put(&self, kind: BlobKind, id: &BlobId, raw: &[u8]) -> Result<Put> {
        let inner = &self.inner;
        inner.check()?;
        if raw.is_empty() || raw.len() > BLOB_RAW_BYTES_MAX {
            let why = format!("a blob of {} bytes; 1 to {BLOB_RAW_BYTES_MAX} can be stored", raw.len());
            return Err(RepoError::invalid(format!("blob {id}"), why));
        }
        debug_assert_eq!(*id, self.id_of(raw), "the id is that of the bytes");
        if inner.known_before(id) || inner.added(id) || !inner.claim(id) {
            return Ok(Put::Known);
        }
        let result = compress(raw, inner.limits.zstd_level, |compression, stored| {
            // from BLOB_RAW_BYTES_MAX on lengths fit; place and stored length are the pack's to fill in
            let entry = Entry {
                id: *id,
                offset: 0,
                stored: 0,
                raw: raw.len() as u32,
                kind,
                compression,
            };
            inner.append(entry, stored)?;
            Ok(Put::New {
                stored_bytes: stored.len() as u32,
            })
        });
        match result.and_then(|inner| inner) {
            Ok(put) => Ok(put),
            // others were told that the id is known: without it the session can't go on
            Err(error) => Err(inner.fail(error)),
        }
    }
}

impl Inner {
    /// The session's failure, if it has failed or ended.
    fn check(&self) -> Result<()> {
        if self.failed.load(Ordering::Acquire)
            && let Some(error) = lock(&self.failure).clone()
        {
            return Err(error);
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(RepoError::invalid(session_key(&self.id), "the session has ended"));
        }
        Ok(())
    }

    /// Keeps the first failure, wakes who waits, and gives the first back.
    fn fail(&self, error: RepoError) -> RepoError {
        let first = lock(&self.failure).get_or_insert(error).clone();
        self.failed.store(true, Ordering::Release);
        self.gate.open_for_all();
        first
    }

    fn known_before(&self, id: &BlobId) -> bool {
        match self.index.find(id) {
            Some(hit) => {
                self.marks.mark(&hit);
                true
            }
            None => false,
        }
    }

    fn shard(&self, id: &BlobId) -> &Mutex<IdSet> {
        &self.shards[id.as_bytes()[0] as usize % SHARDS]
    }

    fn added(&self, id: &BlobId) -> bool {
        // in this order: an id is put into `written` before it leaves its shard
        lock(self.shard(id)).contains(id) || self.in_written(id)
    }

    fn in_written(&self, id: &BlobId) -> bool {
        self.written_count.load(Ordering::Acquire) > 0
            && self
                .written
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .iter()
                .any(|s| s.find(0, id).is_some())
    }

    /// True for the one caller that shall add the blob.
    fn claim(&self, id: &BlobId) -> bool {
        lock(self.shard(id)).insert(*id)
    }

    /// Copies a blob into the open pack of its kind; the pack that becomes full goes to the store.
    fn append(self: &Arc<Self>, entry: Entry, stored: &[u8]) -> Result<()> {
        let builder = if entry.kind == BlobKind::Node {
            &self.nodes
        } else {
            &self.data
        };
        let full = self.limits.pack_bytes as usize;
        let taken = {
            let mut pack = lock(builder);
            self.check()?;
            if pack.push(entry, stored, full + (full >> 4)) < full {
                return Ok(());
            }
            // waiting with the lock held is what makes everybody wait when the store lags behind: so no more than the
            // open packs and those in flight are in memory, whatever the number of threads
            let pass = self.gate.enter();
            let next = PackBuilder::reusing(lock(&self.spare).pop());
            (std::mem::replace(&mut *pack, next), pass)
        };
        self.upload(taken.0, taken.1);
        Ok(())
    }

    /// Seals on the calling thread, then stores in the background.
    fn upload(self: &Arc<Self>, pack: PackBuilder, pass: Pass) {
        let sealed = pack.seal();
        self.sealed.fetch_add(1, Ordering::SeqCst);
        let inner = self.clone();
        self.runtime.spawn(async move {
            if inner.failed.load(Ordering::Acquire) {
                return;
            }
            if let Err(error) = inner.store_pack(sealed).await {
                inner.fail(error);
            }
            drop(pass);
        });
    }

    async fn store_pack(&self, sealed: SealedPack) -> Result<()> {
        let SealedPack { name, bytes, entries } = sealed;
        let size = PackSize {
            name,
            bytes: bytes.len() as u64,
        };
        let bytes = Bytes::from(bytes);
        io::put(self.repo.store(), &name.key(), bytes.clone()).await?;
        if entries.first().is_some_and(|e| e.kind == BlobKind::Node) {
            self.repo.keep_pack(&name, &bytes).await;
        }
        if bytes.is_unique() {
            let mut spare = lock(&self.spare);
            if spare.len() < SPARE_MAX {
                spare.push(bytes.into());
            }
        }
        let due = {
            let mut durable = lock(&self.durable);
            durable.packs.push(size);
            durable.unlisted_entries += entries.len();
            durable.unlisted.push((size, entries));
            (durable.unlisted_entries >= self.limits.index_entries_max).then(|| durable.take_unlisted())
        };
        match due {
            Some(packs) => self.write_index(packs).await,
            None => Ok(()),
        }
    }

    /// Writes a segment of the index and lets go of its ids.
    async fn write_index(&self, packs: Vec<(PackSize, Vec<Entry>)>) -> Result<()> {
        if packs.is_empty() {
            return Ok(());
        }
        let segment = Arc::new(write_segment(&self.repo.loader(), packs).await?);
        self.written
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(segment.clone());
        self.written_count.fetch_add(1, Ordering::Release);
        segment.for_each(|_, id, _| {
            lock(self.shard(&id)).remove(&id);
        });
        Ok(())
    }
}

impl Durable {
    fn take_unlisted(&mut self) -> Vec<(PackSize, Vec<Entry>)> {
        self.unlisted_entries = 0;
        std::mem::take(&mut self.unlisted)
    }
}
