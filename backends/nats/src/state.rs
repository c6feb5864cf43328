//! State over JetStream: the stream `KV_windlass`, which NATS's own key-value tools read as the bucket `windlass`.
//!
//! ```text
//! a key = a subject with one message; its sequence in the stream = the revision
//! put, create, update, delete = a publish that expects the sequence that was seen
//! watch = the stream from a sequence on
//! ```
//!
//! Reads ask the stream's leader, so a write that was acknowledged is seen by who reads after it.
//!
//! A lease ends by the servers' clock: hosts whose clocks differ agree on it, and setting a host's clock changes nothing. This
//! process knows what the servers' clock says. JetStream removes the message of a lease by itself some time after its end.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_nats::jetstream::stream::{self, Stream};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use state::{
    Change, Entry, KEYS_MAX, Key, Kind, LIST_ENTRIES_MAX, NowMs, Prefix, Result, State, StateError, TOMBSTONES_MAX,
    Watch, rules,
};

use crate::error::NatsError;
use crate::lattice::Lattice;
use crate::streams::{Follows, Jetstream, Streams};
use crate::tail::Tailed;
use compaction::Compaction;
use entries::{Raw, Write, Written, read, write};
use server_clock::ServerClock;

pub(crate) mod compaction;
mod entries;
pub(crate) mod keys;
pub(crate) mod server_clock;

/// The stream.
pub(crate) const STREAM: &str = "KV_windlass";
/// How often a compare-and-set of our own is tried again when somebody was quicker.
const TRIES_MAX: usize = 32;
/// How long the message of a lease stays after its end, in seconds.
const LEASE_GONE_AFTER_S: u64 = 60;
/// Entries of a list that are read at once.
const READS_AT_ONCE: usize = 16;

fn stream_config() -> stream::Config {
    stream::Config {
        name: STREAM.to_owned(),
        description: Some("State of windlass: one message a key".to_owned()),
        subjects: vec![format!("{}>", keys::ROOT)],
        max_messages_per_subject: 1,
        max_messages: i64::try_from(KEYS_MAX + 2 * TOMBSTONES_MAX).unwrap_or(i64::MAX),
        discard: stream::DiscardPolicy::New,
        storage: stream::StorageType::File,
        // a message that rolls up everything would be a purge by a publish
        allow_rollup: false,
        // a follower may be behind: reads go to the leader
        allow_direct: false,
        allow_message_ttl: true,
        ..stream::Config::default()
    }
}

/// [`State`] over JetStream; clones are the same.
#[derive(Debug, Clone)]
pub struct NatsState(Arc<Inner>);

struct Inner {
    streams: Arc<dyn Streams>,
    /// What compaction reads; a simulation, which deletes little, has none.
    compacted: Option<(Jetstream, Stream)>,
    now_ms: NowMs,
    clock: ServerClock,
    compaction: Compaction,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner")
            .field("streams", &self.streams)
            .finish_non_exhaustive()
    }
}

impl NatsState {
    /// State over this connection; makes the stream when it isn't there.
    ///
    /// # Errors
    /// `Unavailable` when the servers don't answer or can't make the stream.
    pub async fn open(lattice: &Lattice, now_ms: NowMs) -> std::result::Result<Self, NatsError> {
        let stream = lattice.stream(stream_config()).await?;
        let streams = Jetstream(lattice.clone());
        Self::begin(Arc::new(streams.clone()), Some((streams, stream)), now_ms).await
    }

    /// State over streams that are there, for simulations.
    ///
    /// # Errors
    /// `Unavailable` when they don't tell their time.
    #[cfg(any(test, feature = "testing"))]
    pub async fn over(streams: Arc<dyn Streams>, now_ms: NowMs) -> std::result::Result<Self, NatsError> {
        Self::begin(streams, None, now_ms).await
    }

    async fn begin(
        streams: Arc<dyn Streams>,
        compacted: Option<(Jetstream, Stream)>,
        now_ms: NowMs,
    ) -> std::result::Result<Self, NatsError> {
        let clock = ServerClock::open(&*streams, STREAM).await?;
        Ok(Self(Arc::new(Inner {
            streams,
            compacted,
            now_ms,
            clock,
            compaction: Compaction::default(),
        })))
    }

    /// The servers' time, in Unix milliseconds: the same for all hosts, whatever their own clocks say.
    pub fn fleet_now(&self) -> NowMs {
        let state = self.clone();
        Arc::new(move || state.0.clock.server_ms())
    }

    #[cfg(test)]
    fn of_tests(&self) -> &(Jetstream, Stream) {
        self.0.compacted.as_ref().expect("over a lattice")
    }
    #[cfg(test)]
    pub(crate) fn lattice(&self) -> &Lattice {
        &self.of_tests().0.0
    }
    #[cfg(test)]
    pub(crate) async fn compact(&self, kept_max: u64) -> Result<usize> {
        let (streams, stream) = self.of_tests();
        compaction::compact(streams, stream, kept_max).await
    }

    fn now_ms(&self) -> u64 {
        (self.0.now_ms)()
    }

    fn live(&self, key: &Key, raw: Raw) -> Option<Entry> {
        raw.live(key, self.now_ms(), self.0.clock.now_ms())
    }

    async fn raw(&self, key: &Key) -> Result<Option<Raw>> {
        read(&*self.0.streams, key).await
    }

    async fn write(&self, key: &Key, what: Write, expected: Option<u64>) -> Result<Written> {
        write(&*self.0.streams, key, what, expected).await
    }

    /// Reads, decides, and writes where nobody was quicker; else again. The decision gets the live entry and the sequence that
    /// the message has, 0 for none.
    async fn decide<T>(
        &self,
        key: &Key,
        mut decide: impl FnMut(Option<Entry>) -> Result<(Write, T)>,
    ) -> Result<(u64, T)> {
        for _ in 0..TRIES_MAX {
            let raw = self.raw(key).await?;
            let expected = raw.as_ref().map_or(0, |raw| raw.sequence);
            let (what, outcome) = decide(raw.and_then(|raw| self.live(key, raw)))?;
            if let Written::As(revision) = self.write(key, what, Some(expected)).await? {
                return Ok((revision, outcome));
            }
        }
        Err(StateError::new(
            Kind::Unavailable,
            format!("key {key} changed {TRIES_MAX} times while it was to be written; nothing was changed"),
        ))
    }

    /// Why an expected revision was wrong.
    async fn mismatch(&self, key: &Key, revision: u64) -> StateError {
        match self.raw(key).await {
            Err(e) => e,
            Ok(raw) => match raw.and_then(|raw| self.live(key, raw)) {
                None => rules::missing(key),
                Some(found) => rules::moved(&found, revision),
            },
        }
    }
}

#[async_trait]
impl State for NatsState {
    async fn get(&self, key: &Key) -> Result<Option<Entry>> {
        Ok(self.raw(key).await?.and_then(|raw| self.live(key, raw)))
    }

    async fn put(&self, key: &Key, value: Bytes) -> Result<u64> {
        match self.write(key, Write::Value(value), None).await? {
            Written::As(revision) => Ok(revision),
            Written::Otherwise => Err(StateError::new(
                Kind::Unavailable,
                format!("key {key}: refused for a sequence that nobody expected; nothing was changed"),
            )),
        }
    }

    async fn create(&self, key: &Key, value: Bytes) -> Result<u64> {
        // mostly there is nothing, and one message does
        if let Written::As(revision) = self.write(key, Write::Value(value.clone()), Some(0)).await? {
            return Ok(revision);
        }
        let created = self.decide(key, |found| match found {
            Some(found) => Err(rules::exists(&found)),
            None => Ok((Write::Value(value.clone()), ())),
        });
        Ok(created.await?.0)
    }

    async fn update(&self, key: &Key, value: Bytes, revision: u64) -> Result<u64> {
        match self.write(key, Write::Value(value), Some(revision)).await? {
            Written::As(revision) => Ok(revision),
            Written::Otherwise => Err(self.mismatch(key, revision).await),
        }
    }

    async fn delete(&self, key: &Key, revision: Option<u64>) -> Result<u64> {
        let deleted = match revision {
            Some(revision) => match self.write(key, Write::Deletion, Some(revision)).await? {
                Written::As(deleted) => deleted,
                Written::Otherwise => return Err(self.mismatch(key, revision).await),
            },
            None => {
                let deleted = self.decide(key, |found| match found {
                    Some(_) => Ok((Write::Deletion, ())),
                    None => Err(rules::missing(key)),
                });
                deleted.await?.0
            }
        };
        self.0.compaction.deleted(self.0.compacted.as_ref());
        Ok(deleted)
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Key>, entries_max: usize) -> Result<Vec<Entry>> {
        let entries_max = entries_max.min(LIST_ENTRIES_MAX);
        let unread = |e: &dyn std::fmt::Display| {
            StateError::new(
                Kind::Unavailable,
                format!("the keys {}* can't be listed: {e}", prefix.as_str()),
            )
        };
        let subjects = self.0.streams.subjects(STREAM, &keys::below(prefix)).await;
        let names = subjects.map_err(|e| unread(&e))?;
        let names = names.iter().filter_map(|subject| keys::key(subject));
        let names: BTreeSet<Key> = names.filter(|key| after.is_none_or(|after| key > after)).collect();
        // deleted keys have a message, too: read on until the page is full
        let reads = names.into_iter().map(|key| async move {
            let raw = self.raw(&key).await?;
            Ok::<_, StateError>(raw.and_then(|raw| self.live(&key, raw)))
        });
        let live = futures::stream::iter(reads)
            .buffered(READS_AT_ONCE)
            .try_filter_map(|entry| std::future::ready(Ok(entry)));
        live.take(entries_max).try_collect().await
    }

    async fn watch(&self, prefix: &Prefix, after_revision: u64) -> Result<Watch> {
        let watcher = Watcher {
            tail: self.0.streams.follow(STREAM, vec![keys::below(prefix)], after_revision),
            state: self.clone(),
            ended: false,
        };
        Ok(futures::stream::unfold(watcher, |mut watcher| async move {
            let change = watcher.next().await?;
            Some((change, watcher))
        })
        .boxed())
    }

    async fn lease(&self, key: &Key, holder: &str, ttl_ms: u64) -> Result<Entry> {
        rules::check_lease(key, ttl_ms)?;
        self.0.clock.refresh(&*self.0.streams, STREAM).await;
        let value = Bytes::copy_from_slice(holder.as_bytes());
        let (revision, expires_at_ms) = self
            .decide(key, |found| {
                if let Some(found) = found {
                    rules::check_holder(&found, holder.as_bytes(), self.now_ms())?;
                }
                let expires_at_ms = self.now_ms().saturating_add(ttl_ms);
                let lease = Write::Lease {
                    value: value.clone(),
                    expires_ms: self.0.clock.now_ms() + i128::from(ttl_ms),
                    gone_after_s: ttl_ms.div_ceil(1_000) + LEASE_GONE_AFTER_S,
                };
                Ok((lease, expires_at_ms))
            })
            .await?;
        Ok(Entry {
            key: key.clone(),
            value,
            revision,
            expires_at_ms: Some(expires_at_ms),
        })
    }

    async fn release(&self, key: &Key, holder: &str) -> Result<()> {
        let released = self.decide(key, |found| {
            let found = found.ok_or_else(|| rules::lease_over(key))?;
            rules::check_holder(&found, holder.as_bytes(), self.now_ms())?;
            let gone_after_s = LEASE_GONE_AFTER_S;
            Ok((Write::Release { gone_after_s }, ()))
        });
        released.await?;
        Ok(())
    }
}

/// One watch.
struct Watcher {
    tail: Box<dyn Follows>,
    state: NatsState,
    ended: bool,
}

impl Watcher {
    async fn next(&mut self) -> Option<Result<Change>> {
        while !self.ended {
            match self.tail.next().await {
                Tailed::Message(message) => {
                    let Some(key) = keys::key(&message.subject) else {
                        continue;
                    };
                    let raw = Raw::of(message);
                    if raw.forgotten {
                        continue;
                    }
                    if raw.deleted {
                        let revision = raw.sequence;
                        return Some(Ok(Change::Deleted { key, revision }));
                    }
                    // the end of a lease by time is not told, nor a lease that has ended
                    if let Some(entry) = self.state.live(&key, raw) {
                        return Some(Ok(Change::Put(entry)));
                    }
                }
                Tailed::Reopened { renewed, .. } => {
                    if let Err(e) = self.check_reopened(renewed).await {
                        self.ended = true;
                        return Some(Err(e));
                    }
                }
            }
        }
        None
    }

    /// What went while nobody looked.
    async fn check_reopened(&mut self, renewed: bool) -> Result<()> {
        if renewed {
            let message =
                "the NATS servers lost the state (stream KV_windlass is another one now): what this watch saw is gone";
            return Err(
                StateError::new(Kind::Corrupt, message).hint("docs/lattice.md: when the servers lose their store")
            );
        }
        let seen = self.tail.seen();
        if seen == 0 {
            return Ok(());
        }
        let floor = compaction::floor(&*self.state.0.streams).await?;
        if seen >= floor {
            return Ok(());
        }
        Err(StateError::new(
            Kind::Compacted,
            format!("deletions up to revision {floor} are no longer known, and this watch is at {seen}"),
        )
        .hint("list, and watch from there"))
    }
}
