//! Port [`Store`]: immutable objects under keys.
//!
//! Servers differ, so the port asks for what all of them keep: whole-object PUT that is durable when it returns, GET,
//! range GET, HEAD, LIST by prefix, DELETE. Nothing here may rest on conditional writes: some servers accept
//! `If-None-Match` and overwrite all the same.
//!
//! How data flows: the chunk repository calls a `dyn Store`; decorators ([`Prefixed`], [`Counting`], and for tests
//! `Flaky`, `Throttled`) wrap one another in any order; at the bottom is [`Memory`] or an adapter crate.
//!
//! What holds for every implementation, and `conformance` (feature `testing`) checks:
//! - an object is seen whole or not at all, and by every call that begins after its PUT returned;
//! - a PUT over an existing key replaces it; of concurrent ones, one wins whole (one known server shows a mixture meanwhile:
//!   `conformance::run_for_a_repository` leaves that case out, for a repository gives no key a second body);
//! - an empty range inside an object reads nothing; a range that ends past the object is `Kind::Truncated`, whatever its
//!   length, and reserves no memory first;
//! - DELETE of what isn't there is no error; LIST of what isn't there is empty; LIST's prefix is text, not a directory
//!   (`pa` finds `packs/1`), and one that no key could begin with is `Kind::Invalid`;
//! - files or objects in the same place whose names are no [`Key`] are not listed and never touched.
//!
//! Not promised: an object named like the "directory" of another (`a` beside `a/b`), since local files can't do it.
//!
//! Limits: keys of [`KEY_BYTES_MAX`] bytes with segments of 255; `get` takes its own limit from the caller.

use std::fmt::Debug;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

mod counting;
mod error;
mod key;
mod memory;
mod prefixed;
mod spare;
mod tried;

/// What every implementation and decorator has to pass.
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
#[cfg(any(test, feature = "testing"))]
mod flaky;
#[cfg(any(test, feature = "testing"))]
mod throttled;

#[cfg(test)]
mod tests;

pub use counting::{Counters, Counting, Counts, OperationCount};
pub use error::{Kind, StoreError, chain_text};
#[cfg(any(test, feature = "testing"))]
pub use flaky::{Faults, Flaky};
pub use key::{KEY_BYTES_MAX, KEY_JOINED_BYTES_MAX, Key, split_prefix};
pub use memory::Memory;
pub use prefixed::Prefixed;
pub use spare::{Lent, Spare};
#[cfg(any(test, feature = "testing"))]
pub use throttled::Throttled;
pub use tried::{Honours, Tried, probe};

/// Result of a store call.
pub type Result<T> = std::result::Result<T, StoreError>;

/// What LIST and HEAD tell of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// Its key.
    pub key: Key,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Unix milliseconds of the store's own clock; the only clock by which objects are aged.
    pub last_modified_ms: i64,
}

/// Immutable objects under keys. An implementation that tries again says so in its errors
/// ([`StoreError::tried_enough`]), so that a caller doesn't multiply it; every method ends by itself. No method has a default: a decorator must say what it does with each.
#[async_trait]
pub trait Store: Debug + Send + Sync + 'static {
    /// URL without secrets, for messages to people.
    fn url(&self) -> String;
    /// Writes a whole object. When this returns `Ok` the object survives power loss, and it is visible whole or not at all.
    async fn put(&self, key: &Key, body: Bytes) -> Result<()>;
    /// Reads a whole object of at most `bytes_max` bytes (`Kind::TooLarge` beyond).
    async fn get(&self, key: &Key, bytes_max: u64) -> Result<Bytes>;
    /// Reads exactly `range`, in bytes (`Kind::Truncated` when the object is shorter).
    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes>;
    /// Size and age of an object.
    async fn head(&self, key: &Key) -> Result<Meta>;
    /// All objects whose key begins with `prefix` (`""` for all), in no promised order.
    fn list(&self, prefix: &str) -> BoxStream<'static, Result<Meta>>;
    /// Removes objects; those that don't exist are no error.
    async fn delete(&self, keys: &[Key]) -> Result<()>;
    /// Tries out what the server honours beyond this port, with the object `scratch`, which may stay behind. Nothing rests on
    /// the answers: they are for people, and for who looks for the cause of a loss.
    async fn try_out(&self, scratch: &Key) -> Result<Tried>;
    /// Where the object is as a local file, when the store is a local directory: lets an index be mapped, not loaded.
    fn local_path(&self, key: &Key) -> Option<std::path::PathBuf>;
}
