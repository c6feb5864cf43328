//! [`State`] on a redb [`Database`].
//!
//! Tables: `kv` has the value or tombstone of each key, `kv_log` for each revision that is still some key's latest the key
//! (what a watch reads), `kv_gone` the tombstones by age. All of a change is one transaction.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};

use crate::schema::META;
use crate::{
    Change, Database, Entry, KEYS_MAX, Key, Kind, LIST_ENTRIES_MAX, Prefix, Result, State, StateError, TOMBSTONES_MAX,
    Watch, rules,
};

/// Revision, end of lease in Unix milliseconds (0: none), deleted, value.
type Stored = (u64, u64, bool, &'static [u8]);
const KV: TableDefinition<'static, &str, Stored> = TableDefinition::new("kv");
const LOG: TableDefinition<'static, u64, &str> = TableDefinition::new("kv_log");
const GONE: TableDefinition<'static, u64, &str> = TableDefinition::new("kv_gone");
const REVISION: &str = "revision";
const LOG_FLOOR: &str = "log_floor";
/// Log lines that a watch reads at once.
const WATCH_BATCH: usize = 256;

/// The time in Unix milliseconds; leases end by it.
pub type NowMs = Arc<dyn Fn() -> u64 + Send + Sync>;

/// [`State`] in a redb file or in memory.
#[derive(Clone)]
pub struct Redb {
    db: Database,
    now_ms: NowMs,
}

impl Redb {
    /// State on an open database.
    pub fn new(db: Database, now_ms: NowMs) -> Self {
        Self { db, now_ms }
    }

    async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tables<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let now_ms = (self.now_ms)();
        let (value, revision) = self
            .db
            .write(move |txn| {
                let mut tables = Tables::open(txn, now_ms)?;
                let value = work(&mut tables)?;
                Ok((value, tables.revision()?))
            })
            .await?;
        self.db.revisions.send_if_modified(|known| {
            let newer = revision > *known;
            *known = revision.max(*known);
            newer
        });
        Ok(value)
    }
}

impl fmt::Debug for Redb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redb").field("db", &self.db).finish()
    }
}

fn redb_error(e: impl Into<redb::Error>) -> StateError {
    StateError::of_redb("using the state", e)
}

/// What has to hold of a key before it is written.
enum Expect {
    Anything,
    Nothing,
    Revision(u64),
}

/// The tables of one write transaction.
struct Tables<'txn> {
    meta: redb::Table<'txn, &'static str, u64>,
    kv: redb::Table<'txn, &'static str, Stored>,
    log: redb::Table<'txn, u64, &'static str>,
    gone: redb::Table<'txn, u64, &'static str>,
    now_ms: u64,
}

impl<'txn> Tables<'txn> {
    fn open(txn: &'txn WriteTransaction, now_ms: u64) -> Result<Self> {
        Ok(Self {
            meta: txn.open_table(META).map_err(redb_error)?,
            kv: txn.open_table(KV).map_err(redb_error)?,
            log: txn.open_table(LOG).map_err(redb_error)?,
            gone: txn.open_table(GONE).map_err(redb_error)?,
            now_ms,
        })
    }

    fn revision(&self) -> Result<u64> {
        Ok(self.meta.get(REVISION).map_err(redb_error)?.map_or(0, |r| r.value()))
    }

    fn live(&self, key: &Key) -> Result<Option<Entry>> {
        let stored = self.kv.get(key.as_str()).map_err(redb_error)?;
        Ok(stored.and_then(|s| live_entry(key.as_str(), s.value(), self.now_ms)))
    }

    fn check(&self, key: &Key, expect: &Expect) -> Result<()> {
        match (expect, self.live(key)?) {
            (Expect::Anything, _) | (Expect::Nothing, None) => Ok(()),
            (Expect::Revision(wanted), Some(found)) if found.revision == *wanted => Ok(()),
            (Expect::Nothing, Some(found)) => Err(rules::exists(&found)),
            (Expect::Revision(wanted), Some(found)) => Err(rules::moved(&found, *wanted)),
            (Expect::Revision(_), None) => Err(rules::missing(key)),
        }
    }

    /// Writes a value (`None`: a tombstone) and its log line.
    fn write(&mut self, key: &Key, value: Option<&[u8]>, expires_at_ms: u64) -> Result<u64> {
        let revision = self.revision()? + 1;
        self.meta.insert(REVISION, revision).map_err(redb_error)?;
        let stored = (revision, expires_at_ms, value.is_none(), value.unwrap_or_default());
        let before = self.kv.insert(key.as_str(), stored).map_err(redb_error)?;
        if let Some((old_revision, _, was_gone, _)) = before.as_ref().map(|b| b.value()) {
            self.log.remove(old_revision).map_err(redb_error)?;
            if was_gone {
                self.gone.remove(old_revision).map_err(redb_error)?;
            }
        }
        drop(before);
        self.log.insert(revision, key.as_str()).map_err(redb_error)?;
        if value.is_none() {
            self.gone.insert(revision, key.as_str()).map_err(redb_error)?;
            self.forget_old_tombstones()?;
        }
        Ok(revision)
    }

    fn forget_old_tombstones(&mut self) -> Result<()> {
        while self.gone.len().map_err(redb_error)? > TOMBSTONES_MAX {
            let Some((revision, key)) = self
                .gone
                .pop_first()
                .map_err(redb_error)?
                .map(|(r, k)| (r.value(), k.value().to_owned()))
            else {
                break;
            };
            self.kv.remove(key.as_str()).map_err(redb_error)?;
            self.log.remove(revision).map_err(redb_error)?;
            self.meta.insert(LOG_FLOOR, revision).map_err(redb_error)?;
        }
        Ok(())
    }

    fn put(&mut self, key: &Key, value: &[u8], expect: &Expect, expires_at_ms: u64) -> Result<u64> {
        rules::check_value(key, value)?;
        self.check(key, expect)?;
        if self.kv.len().map_err(redb_error)? >= KEYS_MAX && self.live(key)?.is_none() {
            return Err(rules::full(key));
        }
        self.write(key, Some(value), expires_at_ms)
    }
}

fn live_entry(
    key: &str,
    (revision, expires_at_ms, deleted, value): (u64, u64, bool, &[u8]),
    now_ms: u64,
) -> Option<Entry> {
    let live = !deleted && (expires_at_ms == 0 || expires_at_ms > now_ms);
    live.then(|| Entry {
        key: Key::stored(key),
        value: Bytes::copy_from_slice(value),
        revision,
        expires_at_ms: (expires_at_ms != 0).then_some(expires_at_ms),
    })
}

/// Opens a table for reading; a table that was never written is `None`.
fn opened<K: redb::Key + 'static, V: redb::Value + 'static>(
    txn: &ReadTransaction,
    table: TableDefinition<'static, K, V>,
) -> Result<Option<redb::ReadOnlyTable<K, V>>> {
    match txn.open_table(table) {
        Ok(table) => Ok(Some(table)),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(e) => Err(redb_error(e)),
    }
}

fn meta_number(txn: &ReadTransaction, name: &str) -> Result<u64> {
    let Some(meta) = opened(txn, META)? else { return Ok(0) };
    Ok(meta.get(name).map_err(redb_error)?.map_or(0, |n| n.value()))
}

#[async_trait]
impl State for Redb {
    async fn get(&self, key: &Key) -> Result<Option<Entry>> {
        let (key, now_ms) = (key.clone(), (self.now_ms)());
        self.db
            .read(move |txn| {
                let Some(kv) = opened(txn, KV)? else { return Ok(None) };
                let stored = kv.get(key.as_str()).map_err(redb_error)?;
                Ok(stored.and_then(|s| live_entry(key.as_str(), s.value(), now_ms)))
            })
            .await
    }

    async fn put(&self, key: &Key, value: Bytes) -> Result<u64> {
        let key = key.clone();
        self.change(move |t| t.put(&key, &value, &Expect::Anything, 0)).await
    }

    async fn create(&self, key: &Key, value: Bytes) -> Result<u64> {
        let key = key.clone();
        self.change(move |t| t.put(&key, &value, &Expect::Nothing, 0)).await
    }

    async fn update(&self, key: &Key, value: Bytes, revision: u64) -> Result<u64> {
        let key = key.clone();
        self.change(move |t| t.put(&key, &value, &Expect::Revision(revision), 0))
            .await
    }

    async fn delete(&self, key: &Key, revision: Option<u64>) -> Result<u64> {
        let key = key.clone();
        self.change(move |t| {
            let found = t.live(&key)?.ok_or_else(|| rules::missing(&key))?;
            t.check(&key, &Expect::Revision(revision.unwrap_or(found.revision)))?;
            t.write(&key, None, 0)
        })
        .await
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Key>, entries_max: usize) -> Result<Vec<Entry>> {
        let (prefix, after, now_ms) = (prefix.clone(), after.cloned(), (self.now_ms)());
        let entries_max = entries_max.min(LIST_ENTRIES_MAX);
        self.db
            .read(move |txn| {
                let Some(kv) = opened(txn, KV)? else {
                    return Ok(Vec::new());
                };
                let from = match &after {
                    Some(key) if key.as_str() >= prefix.as_str() => Bound::Excluded(key.as_str()),
                    _ => Bound::Included(prefix.as_str()),
                };
                let mut entries = Vec::new();
                for row in kv.range::<&str>((from, Bound::Unbounded)).map_err(redb_error)? {
                    let (key, stored) = row.map_err(redb_error)?;
                    if entries.len() == entries_max || !prefix.takes(key.value()) {
                        break;
                    }
                    entries.extend(live_entry(key.value(), stored.value(), now_ms));
                }
                Ok(entries)
            })
            .await
    }

    async fn watch(&self, prefix: &Prefix, after_revision: u64) -> Result<Watch> {
        let newest = self.db.read(|txn| meta_number(txn, REVISION)).await?;
        let follower = Follower {
            state: self.clone(),
            prefix: prefix.clone(),
            after: after_revision,
            // what was forgotten before a watch from 0 began can't be missed by it
            complete_from: if after_revision == 0 { newest } else { 0 },
            batch: VecDeque::new(),
            wake: self.db.revisions.subscribe(),
            ended: false,
        };
        Ok(futures::stream::unfold(follower, |mut follower| async move {
            let change = follower.next().await?;
            Some((change, follower))
        })
        .boxed())
    }

    async fn lease(&self, key: &Key, holder: &str, ttl_ms: u64) -> Result<Entry> {
        rules::check_lease(key, ttl_ms)?;
        let (key, holder) = (key.clone(), Bytes::copy_from_slice(holder.as_bytes()));
        self.change(move |t| {
            if let Some(found) = t.live(&key)? {
                rules::check_holder(&found, &holder, t.now_ms)?;
            }
            let expires_at_ms = t.now_ms.saturating_add(ttl_ms);
            let revision = t.put(&key, &holder, &Expect::Anything, expires_at_ms)?;
            Ok(Entry {
                key,
                value: holder,
                revision,
                expires_at_ms: Some(expires_at_ms),
            })
        })
        .await
    }

    async fn release(&self, key: &Key, holder: &str) -> Result<()> {
        let (key, holder) = (key.clone(), holder.to_owned());
        self.change(move |t| {
            let found = t.live(&key)?.ok_or_else(|| rules::lease_over(&key))?;
            rules::check_holder(&found, holder.as_bytes(), t.now_ms)?;
            t.write(&key, None, 0).map(|_revision| ())
        })
        .await
    }
}

/// One watch: where it is, and what it has read ahead.
struct Follower {
    state: Redb,
    prefix: Prefix,
    after: u64,
    complete_from: u64,
    batch: VecDeque<Change>,
    wake: tokio::sync::watch::Receiver<u64>,
    ended: bool,
}

impl Follower {
    async fn next(&mut self) -> Option<Result<Change>> {
        loop {
            if let Some(change) = self.batch.pop_front() {
                return Some(Ok(change));
            }
            if self.ended {
                return None;
            }
            // marked before the read: a change that comes in between wakes the wait below
            self.wake.mark_unchanged();
            match self.read_batch().await {
                Err(e) => {
                    self.ended = true;
                    return Some(Err(e));
                }
                Ok(true) => {}
                // the sender lives in our own Database, so waiting can't fail
                Ok(false) => self.ended = self.wake.changed().await.is_err(),
            }
        }
    }

    /// Reads on; false when there was nothing.
    async fn read_batch(&mut self) -> Result<bool> {
        let (prefix, after, complete_from, now_ms) = (
            self.prefix.clone(),
            self.after,
            self.complete_from,
            (self.state.now_ms)(),
        );
        let (reached, batch) = self
            .state
            .db
            .read(move |txn| read_log(txn, &prefix, after, complete_from, now_ms))
            .await?;
        let progressed = reached > self.after;
        self.after = reached;
        self.batch = batch;
        Ok(progressed)
    }
}

fn read_log(
    txn: &ReadTransaction,
    prefix: &Prefix,
    after: u64,
    complete_from: u64,
    now_ms: u64,
) -> Result<(u64, VecDeque<Change>)> {
    let floor = meta_number(txn, LOG_FLOOR)?;
    if floor > after.max(complete_from) {
        return Err(StateError::new(
            Kind::Compacted,
            format!(
                "deletions after revision {after} are no longer known (up to {floor}); list the keys and watch from there"
            ),
        ));
    }
    let (mut reached, mut batch) = (after, VecDeque::new());
    let (Some(log), Some(kv)) = (opened(txn, LOG)?, opened(txn, KV)?) else {
        return Ok((reached, batch));
    };
    for row in log.range(after + 1..).map_err(redb_error)?.take(WATCH_BATCH) {
        let (revision, key) = row.map_err(redb_error)?;
        reached = revision.value();
        if !prefix.takes(key.value()) {
            continue;
        }
        let Some(stored) = kv.get(key.value()).map_err(redb_error)? else {
            continue;
        };
        let (_, _, deleted, _) = stored.value();
        if deleted {
            batch.push_back(Change::Deleted {
                key: Key::stored(key.value()),
                revision: reached,
            });
        } else {
            batch.extend(live_entry(key.value(), stored.value(), now_ms).map(Change::Put));
        }
    }
    Ok((reached, batch))
}
