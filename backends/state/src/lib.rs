//! Port [`State`]: small values under keys, each with a revision, compare-and-set, watches and leases.
//!
//! ```text
//! put | create | update | delete --one transaction--> value + revision + log line --> every watch from its revision on
//! ```
//!
//! * [`Database`] is the one file of a state directory (redb): its lock, its version, its transactions. Durable work
//!   (crate `jobs`) keeps its tables in the same file, for redb admits one process.
//! * [`Redb`] is [`State`] on a [`Database`]; on [`Database::in_memory`] it is the fake of the tests.
//! * [`rules`]: what every state refuses, and the words of its errors.
//! * `conformance` (feature `testing`) is what every implementation has to pass.
//!
//! Invariants: a revision is never given twice; a call that returned `Ok` survives `kill -9` and power loss; a watch never
//! skips the latest change of a key without saying so (`Compacted`).
//!
//! What is absent: no clock (the time comes in as a closure), no bulk bytes ([`VALUE_BYTES_MAX`]), no transaction over two
//! keys in the port (JetStream has none).

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod database;
pub mod decision;
mod error;
mod key;
mod redb_state;
pub mod rules;
mod schema;
#[cfg(any(test, feature = "testing"))]
mod slow;

#[cfg(test)]
mod tests;

pub use database::{Database, FILE_NAME, Release};
pub use error::{Kind, StateError};
pub use key::{Key, Prefix};
pub use redb_state::{NowMs, Redb};
#[cfg(any(test, feature = "testing"))]
pub use slow::Slow;

/// The result of this crate's calls.
pub type Result<T> = std::result::Result<T, StateError>;

/// Longest value, in bytes: with what surrounds it, it fits into the 1 MiB that a NATS server carries unless told otherwise.
pub const VALUE_BYTES_MAX: usize = (1 << 20) - (16 << 10);
/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 256;
/// Most keys that a state holds.
pub const KEYS_MAX: u64 = 1_000_000;
/// Most entries that one [`State::list`] returns.
pub const LIST_ENTRIES_MAX: usize = 1_000;
/// Deletions that are remembered for watches; a watch that is further behind hears `Compacted`.
pub const TOMBSTONES_MAX: u64 = 10_000;
/// Longest lease, in milliseconds: a day.
pub const LEASE_TTL_MS_MAX: u64 = 86_400_000;

/// One key as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// Its value.
    pub value: Bytes,
    /// The revision of the whole state at which this value was written; grows with every change of any key.
    pub revision: u64,
    /// With a lease: when it ends, Unix milliseconds.
    pub expires_at_ms: Option<u64>,
}

/// What a watch tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The key has this value now.
    Put(Entry),
    /// The key was deleted at this revision. A watch from revision 0 may tell it of keys that it never named before.
    Deleted {
        /// The key.
        key: Key,
        /// When.
        revision: u64,
    },
}

impl Change {
    /// Where to resume a watch after this change.
    pub fn revision(&self) -> u64 {
        match self {
            Change::Put(entry) => entry.revision,
            Change::Deleted { revision, .. } => *revision,
        }
    }
}

/// Changes in the order of their revisions; of a key that changed several times, at least the latest. It reads as it is
/// polled and holds at most one batch, so a slow watcher costs nothing. Ends after the first error.
pub type Watch = BoxStream<'static, Result<Change>>;

/// The port. In a cluster a change that ends with `Unavailable` may have been made when the message says so; who must know reads.
#[async_trait]
pub trait State: Debug + Send + Sync + 'static {
    /// The entry of a key, or `None`.
    ///
    /// # Errors
    /// `Unavailable` or `Corrupt` when the state can't be read.
    async fn get(&self, key: &Key) -> Result<Option<Entry>>;

    /// Writes a value whatever was there; returns its revision. Ends a lease on the key.
    ///
    /// # Errors
    /// `Invalid` for a value over [`VALUE_BYTES_MAX`], `Full` at [`KEYS_MAX`] keys or a full disk.
    async fn put(&self, key: &Key, value: Bytes) -> Result<u64>;

    /// Writes a value where there is none.
    ///
    /// # Errors
    /// As [`State::put`]; `Conflict` when the key exists.
    async fn create(&self, key: &Key, value: Bytes) -> Result<u64>;

    /// Writes a value where the key still has `revision` (compare-and-set).
    ///
    /// # Errors
    /// As [`State::put`]; `Conflict` when it changed since, `NotFound` when it is gone.
    async fn update(&self, key: &Key, value: Bytes, revision: u64) -> Result<u64>;

    /// Removes a key, with `revision` only where it still has that one; returns the revision of the deletion.
    ///
    /// # Errors
    /// `Conflict` when it changed since, `NotFound` when it is gone.
    async fn delete(&self, key: &Key, revision: Option<u64>) -> Result<u64>;

    /// Entries under `prefix` in the order of their keys, those after `after` only, at most `entries_max`
    /// ([`LIST_ENTRIES_MAX`] if that is less).
    ///
    /// # Errors
    /// `Unavailable` or `Corrupt` when the state can't be read.
    async fn list(&self, prefix: &Prefix, after: Option<&Key>, entries_max: usize) -> Result<Vec<Entry>>;

    /// Every change under `prefix` with a revision greater than `after_revision`, then those to come. 0 begins with
    /// everything that is there.
    ///
    /// # Errors
    /// In the stream: `Compacted` when deletions since `after_revision` are no longer known; list and begin again.
    async fn watch(&self, prefix: &Prefix, after_revision: u64) -> Result<Watch>;

    /// Takes or renews a lease: the key has the value `holder` until `ttl_ms` has passed, then it is gone. The end of a
    /// lease by time is not told to watches. A lease saves double work; nothing may rest on it alone.
    ///
    /// # Errors
    /// `Conflict` while another holder has it (the message tells who and how long) or the key is no lease, `Invalid` for a
    /// time of 0 or over [`LEASE_TTL_MS_MAX`].
    async fn lease(&self, key: &Key, holder: &str, ttl_ms: u64) -> Result<Entry>;

    /// Gives a lease back.
    ///
    /// # Errors
    /// `Conflict` when `holder` doesn't have it (any more).
    async fn release(&self, key: &Key, holder: &str) -> Result<()>;
}
