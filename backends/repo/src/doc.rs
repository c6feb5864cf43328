//! Objects that a person can read: one line that says what it is and carries the checksum, then JSON.
//!
//! ```text
//! windlass snapshot v1 blake3=<64 hex digits>\n
//! { … }
//! ```
//!
//! The checksum is BLAKE3 of the line's words before ` blake3=` and of all bytes after the line: the version too is
//! covered, so that a damaged one is not taken for a newer one.

use std::fmt;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use ulid::Ulid;
use wire::snapshot::{DISKS_MAX, DiskInfo, Moved, Seconds, SnapshotInfo, SnapshotKind};

use crate::{BlobId, FORMAT_VERSION, ManifestRef, RepoError, Result};

/// Largest snapshot object, in bytes.
pub(crate) const SNAPSHOT_BYTES_MAX: u64 = 4 << 20;
/// First line's length is below this, in bytes.
const LINE_BYTES_MAX: usize = 160;

/// Which kind of readable object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DocKind {
    Repository,
    Snapshot,
    Session,
}

impl DocKind {
    fn word(self) -> &'static str {
        match self {
            DocKind::Repository => "repository",
            DocKind::Snapshot => "snapshot",
            DocKind::Session => "session",
        }
    }
}

/// Writes a readable object.
pub(crate) fn encode(kind: DocKind, body: &impl Serialize) -> Result<Vec<u8>> {
    let mut json = serde_json::to_vec_pretty(body).map_err(|e| RepoError::internal(kind.word(), e))?;
    json.push(b'\n');
    Ok(sealed(kind, FORMAT_VERSION, &json))
}

fn sealed(kind: DocKind, version: u32, body: &[u8]) -> Vec<u8> {
    let words = format!("windlass {} v{version}", kind.word());
    let mut bytes = format!("{words} blake3={}\n", checksum(&words, body)).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn checksum(words: &str, body: &[u8]) -> String {
    blake3::Hasher::new()
        .update(words.as_bytes())
        .update(body)
        .finalize()
        .to_hex()
        .to_string()
}

/// The same object as a windlass of another version would write it.
#[cfg(test)]
pub(crate) fn with_version(kind: DocKind, version: u32, bytes: &[u8]) -> Vec<u8> {
    let body = bytes.iter().position(|b| *b == b'\n').unwrap() + 1;
    sealed(kind, version, &bytes[body..])
}

/// Reads a readable object: version first (a newer one may have any body), then the checksum, then the JSON.
pub(crate) fn decode<T: DeserializeOwned>(kind: DocKind, object: &str, bytes: &[u8]) -> Result<(u32, T)> {
    let damaged = |why: &str| RepoError::corrupt(object, format!("damaged {} object: {why}", kind.word()));
    let end = bytes
        .iter()
        .take(LINE_BYTES_MAX)
        .position(|b| *b == b'\n')
        .ok_or_else(|| damaged("no first line"))?;
    let line = std::str::from_utf8(&bytes[..end]).map_err(|_| damaged("first line is no text"))?;
    let (words, sum) = line
        .split_once(" blake3=")
        .ok_or_else(|| damaged("first line has no checksum"))?;
    let version = words
        .strip_prefix("windlass ")
        .and_then(|l| l.strip_prefix(kind.word()))
        .and_then(|l| l.strip_prefix(" v"))
        .ok_or_else(|| damaged("first line says something else"))?;
    let version: u32 = version.parse().map_err(|_| damaged("first line has no version"))?;
    let body = &bytes[end + 1..];
    // every version keeps this line, so that damage is told from a newer version
    if sum != checksum(words, body) {
        return Err(damaged("its bytes do not match its checksum"));
    }
    if version > FORMAT_VERSION {
        return Err(RepoError::too_new(object, version));
    }
    if version == 0 {
        return Err(damaged("there was no version 0"));
    }
    let body = serde_json::from_slice(body).map_err(|e| damaged(&e.to_string()))?;
    Ok((version, body))
}

/// Id of a snapshot: a ULID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SnapshotId(Ulid);

impl SnapshotId {
    /// The id that is this ULID.
    pub fn new(ulid: Ulid) -> Self {
        Self(ulid)
    }
    /// A new id, from the system's clock and entropy.
    pub fn generate() -> Self {
        Self(Ulid::generate())
    }
    /// Its ULID.
    pub fn ulid(&self) -> Ulid {
        self.0
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for SnapshotId {
    type Err = RepoError;
    fn from_str(text: &str) -> Result<Self> {
        Ulid::from_string(text).map(Self).map_err(|e| {
            RepoError::invalid(
                text.chars().take(80).collect::<String>(),
                format!("not a snapshot id: {e}"),
            )
        })
    }
}

/// A blob with its length: what a snapshot says of the VM's definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRef {
    /// Its id.
    pub id: BlobId,
    /// Its length in bytes.
    pub len: u32,
}

/// One disk within a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskEntry {
    /// Its name within the VM.
    pub name: String,
    /// Where it was when the snapshot was taken.
    pub path: String,
    /// `raw`; later `qcow2`, `block`.
    pub format: String,
    /// Its content.
    pub manifest: ManifestRef,
    /// What taking it moved.
    pub moved: Moved,
}

/// What a snapshot will say once all of it is durable; see [`crate::Session::finish`].
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotDraft {
    /// Its id; a new one when absent.
    pub id: Option<SnapshotId>,
    /// The VM's name.
    pub vm: String,
    /// Why it is taken.
    pub kind: SnapshotKind,
    /// The host that takes it.
    pub host: String,
    /// When, RFC 3339.
    pub created_at: String,
    /// Until when it can't be forgotten without force, RFC 3339.
    pub held_until: Option<String>,
    /// The VM's disks.
    pub disks: Vec<DiskEntry>,
    /// The VM's definition.
    pub definition: Option<BlobRef>,
    /// Seconds that it took.
    pub took_s: f64,
}

/// A snapshot as stored in `snapshots/<ULID>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SnapshotDoc {
    /// Its id.
    pub id: SnapshotId,
    /// The VM's name.
    pub vm: String,
    /// Why it was taken.
    pub kind: SnapshotKind,
    /// The host that took it.
    pub host: String,
    /// When, RFC 3339.
    pub created_at: String,
    /// Until when it can't be forgotten without force, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_until: Option<String>,
    /// The VM's disks.
    pub disks: Vec<DiskEntry>,
    /// The VM's definition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<BlobRef>,
    /// Seconds that it took.
    pub took_s: f64,
}

impl SnapshotDoc {
    pub(crate) fn from_draft(id: SnapshotId, draft: SnapshotDraft) -> Self {
        Self {
            id,
            vm: draft.vm,
            kind: draft.kind,
            host: draft.host,
            created_at: draft.created_at,
            held_until: draft.held_until,
            disks: draft.disks,
            definition: draft.definition,
            took_s: draft.took_s,
        }
    }
    pub(crate) fn key_of(id: &SnapshotId) -> String {
        format!("snapshots/{id}")
    }
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        encode(DocKind::Snapshot, self)
    }
    pub(crate) fn decode(object: &str, bytes: &[u8]) -> Result<Self> {
        let (_, doc): (u32, Self) = decode(DocKind::Snapshot, object, bytes)?;
        if SnapshotDoc::key_of(&doc.id) != object {
            return Err(RepoError::corrupt(object, format!("holds snapshot {}", doc.id)));
        }
        let sizes_fit = doc.disks.iter().all(|d| d.manifest.check().is_ok())
            && doc
                .definition
                .is_none_or(|d| d.len as usize <= crate::BLOB_RAW_BYTES_MAX);
        if doc.disks.len() > DISKS_MAX || !sizes_fit {
            return Err(RepoError::corrupt(object, "has more or larger disks than there can be"));
        }
        Ok(doc)
    }
    /// The disk of that name.
    pub fn disk(&self, name: &str) -> Option<&DiskEntry> {
        self.disks.iter().find(|d| d.name == name)
    }
    /// As it crosses the wire.
    pub fn info(&self) -> SnapshotInfo {
        SnapshotInfo {
            id: self.id.to_string(),
            vm: self.vm.clone(),
            kind: self.kind,
            host: self.host.clone(),
            created_at: self.created_at.clone(),
            held_until: self.held_until.clone(),
            disks: self.disks.iter().map(DiskEntry::info).collect(),
            definition_bytes: self.definition.map(|d| u64::from(d.len)),
            took_s: Seconds(self.took_s),
        }
    }
}

impl DiskEntry {
    /// As it crosses the wire.
    pub fn info(&self) -> DiskInfo {
        DiskInfo {
            name: self.name.clone(),
            path: self.path.clone(),
            format: self.format.clone(),
            size_bytes: self.manifest.size_bytes,
            root: self.manifest.root.map(|r| r.to_string()),
            moved: self.moved,
        }
    }
}

/// Body of `sessions/<ULID>`: tells a sweep that someone writes; its age is the store's Last-Modified.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SessionBody {
    pub(crate) id: Ulid,
    pub(crate) writer: String,
}
