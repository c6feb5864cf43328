//! Ids of blobs and names of content-named objects.

use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::RepoError;

/// Id of a blob: BLAKE3 of its raw bytes, keyed with the repository's key, so that ids tell nothing across repositories.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BlobId([u8; 32]);

impl BlobId {
    /// The id with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
    /// Computes the id of `raw` under `key`.
    pub fn keyed(key: &[u8; 32], raw: &[u8]) -> Self {
        Self(*blake3::keyed_hash(key, raw).as_bytes())
    }
    /// The first 8 bytes as a big-endian number: orders as the id does.
    pub(crate) fn prefix(&self) -> u64 {
        prefix_of(&self.0)
    }
    pub(crate) fn is_zero(&self) -> bool {
        self.0 == [0; 32]
    }
}

/// The first 8 bytes of an id as a big-endian number.
pub(crate) fn prefix_of(id: &[u8]) -> u64 {
    let mut first = [0u8; 8];
    first.copy_from_slice(&id[..8]);
    u64::from_be_bytes(first)
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobId({})", hex::encode(&self.0[..6]))
    }
}

impl FromStr for BlobId {
    type Err = RepoError;
    fn from_str(text: &str) -> Result<Self, RepoError> {
        let mut bytes = [0u8; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|e| {
            RepoError::invalid(text.chars().take(80).collect::<String>(), format!("not a blob id: {e}"))
        })?;
        Ok(Self(bytes))
    }
}

impl Serialize for BlobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BlobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Name of an object that is named by the BLAKE3 of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectName(pub(crate) [u8; 32]);

impl ObjectName {
    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0u8; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        // another spelling would be another object
        (hex::encode(bytes) == text).then_some(Self(bytes))
    }
    pub(crate) fn to_hex(self) -> String {
        hex::encode(self.0)
    }
}

/// Hasher for maps keyed by [`BlobId`]: the id is a keyed hash already, so its own bytes are the hash.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        // bytes 8..16: the first ones choose a shard, and would leave the rest of a shard's table unevenly filled
        if let Some(part) = bytes.get(8..16).and_then(|b| b.try_into().ok()) {
            self.0 = u64::from_le_bytes(part);
        }
    }
    // the length prefix of arrays says nothing
    fn write_usize(&mut self, _: usize) {}
}

pub(crate) type IdBuildHasher = BuildHasherDefault<IdHasher>;
pub(crate) type IdSet = std::collections::HashSet<BlobId, IdBuildHasher>;
pub(crate) type IdMap<V> = std::collections::HashMap<BlobId, V, IdBuildHasher>;
