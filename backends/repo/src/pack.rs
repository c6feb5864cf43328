//! Bytes of a pack (docs/FORMAT.md, "Packs"): header, blobs back to back, a record for each, footer.

use std::fmt;

use crate::blob::{BLOB_RAW_BYTES_MAX, BlobKind, Compression};
use crate::{BlobId, RepoError, Result};

const HEADER_MAGIC: [u8; 8] = *b"WINDPACK";
const FOOTER_MAGIC: [u8; 8] = *b"KCAPDNIW";
const PACK_VERSION: u32 = 1;
const HEADER_BYTES: usize = 16;
const RECORD_BYTES: usize = 48;
pub(crate) const FOOTER_BYTES: usize = 48;
/// Largest `pack_bytes` that a session may ask for: with one more blob and the trailer, offsets stay below 4 GiB.
pub(crate) const PACK_BYTES_LIMIT: u32 = 1 << 30;
/// Largest pack that is read as a whole, in bytes.
pub(crate) const PACK_READ_BYTES_MAX: u64 = 3 << 29;

/// Name of a pack: BLAKE3 of all its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PackName(pub(crate) [u8; 32]);

impl PackName {
    /// Its object's key.
    pub(crate) fn key(&self) -> String {
        let name = hex::encode(self.0);
        format!("packs/{}/{name}", &name[..2])
    }
    /// The name in an object's key.
    pub(crate) fn from_key(key: &str) -> Option<Self> {
        let (dir, name) = key.strip_prefix("packs/")?.split_once('/')?;
        let mut bytes = [0u8; 32];
        hex::decode_to_slice(name, &mut bytes).ok()?;
        (name.starts_with(dir) && dir.len() == 2).then_some(Self(bytes))
    }
}

impl fmt::Debug for PackName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key())
    }
}

/// Where a blob stands in a pack, and how it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: BlobId,
    pub(crate) offset: u32,
    pub(crate) stored: u32,
    pub(crate) raw: u32,
    pub(crate) kind: BlobKind,
    pub(crate) compression: Compression,
}

impl Entry {
    /// Writes the fields after the id, 16 bytes, the form that packs and index segments share.
    pub(crate) fn put_fields(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.fields());
    }
    /// The same.
    pub(crate) fn fields(&self) -> [u8; 16] {
        let mut fields = [0; 16];
        fields[..4].copy_from_slice(&self.offset.to_le_bytes());
        fields[4..8].copy_from_slice(&self.stored.to_le_bytes());
        fields[8..12].copy_from_slice(&self.raw.to_le_bytes());
        // cipher 0: none
        fields[12..14].copy_from_slice(&[self.kind.code(), self.compression.code()]);
        fields
    }
    /// Reads them; `pack_bytes` is the size of the pack in which the blob must lie.
    pub(crate) fn from_fields(id: BlobId, bytes: &[u8], pack_bytes: u64) -> std::result::Result<Self, String> {
        let entry = Self {
            id,
            offset: le_u32(bytes),
            stored: le_u32(&bytes[4..]),
            raw: le_u32(&bytes[8..]),
            kind: BlobKind::from_code(bytes[12]).ok_or_else(|| format!("unknown blob kind {}", bytes[12]))?,
            compression: Compression::from_code(bytes[13])
                .ok_or_else(|| format!("unknown compression {}", bytes[13]))?,
        };
        if bytes[14] != 0 || bytes[15] != 0 {
            return Err(format!("unknown cipher {}", bytes[14]));
        }
        let end = u64::from(entry.offset) + u64::from(entry.stored);
        let fits = entry.offset as usize >= HEADER_BYTES && entry.stored > 0 && end + FOOTER_BYTES as u64 <= pack_bytes;
        if !fits || entry.raw == 0 || entry.raw as usize > BLOB_RAW_BYTES_MAX || entry.stored > entry.raw {
            return Err(format!("blob {id} has an impossible place or length"));
        }
        Ok(entry)
    }
}

pub(crate) fn le_u32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

pub(crate) fn le_u64(bytes: &[u8]) -> u64 {
    let mut eight = [0u8; 8];
    eight.copy_from_slice(&bytes[..8]);
    u64::from_le_bytes(eight)
}

/// A pack that is being filled.
#[derive(Debug, Default)]
pub(crate) struct PackBuilder {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// A whole pack.
#[derive(Debug)]
pub(crate) struct SealedPack {
    pub(crate) name: PackName,
    pub(crate) bytes: Vec<u8>,
    pub(crate) entries: Vec<Entry>,
}

impl PackBuilder {
    /// An empty pack in the memory of an earlier one.
    pub(crate) fn reusing(memory: Option<Vec<u8>>) -> Self {
        let mut bytes = memory.unwrap_or_default();
        bytes.clear();
        Self {
            bytes,
            entries: Vec::new(),
        }
    }
    /// Appends a blob; returns the pack's length. `capacity` is reserved by the first.
    pub(crate) fn push(&mut self, mut entry: Entry, stored: &[u8], capacity: usize) -> usize {
        if self.bytes.is_empty() {
            self.bytes.reserve(capacity);
            self.bytes.extend_from_slice(&HEADER_MAGIC);
            self.bytes.extend_from_slice(&PACK_VERSION.to_le_bytes());
            self.bytes.extend_from_slice(&[0; 4]);
        }
        // a pack is closed at PACK_BYTES_LIMIT at the latest, and a blob is shorter than that
        entry.offset = self.bytes.len() as u32;
        entry.stored = stored.len() as u32;
        self.bytes.extend_from_slice(stored);
        self.entries.push(entry);
        self.bytes.len()
    }
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
    /// Adds the trailer and computes the name.
    pub(crate) fn seal(self) -> SealedPack {
        let Self { mut bytes, entries } = self;
        let trailer = bytes.len();
        bytes.reserve(entries.len() * RECORD_BYTES + FOOTER_BYTES);
        for entry in &entries {
            bytes.extend_from_slice(entry.id.as_bytes());
            entry.put_fields(&mut bytes);
        }
        bytes.extend_from_slice(&(entries.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&PACK_VERSION.to_le_bytes());
        let check = blake3::hash(&bytes[trailer..]);
        bytes.extend_from_slice(check.as_bytes());
        bytes.extend_from_slice(&FOOTER_MAGIC);
        SealedPack {
            name: PackName(*blake3::hash(&bytes).as_bytes()),
            bytes,
            entries,
        }
    }
}

/// Length of a pack's trailer in bytes, records and footer, read from its last [`FOOTER_BYTES`].
pub(crate) fn trailer_bytes(object: &str, footer: &[u8], pack_bytes: u64) -> Result<u64> {
    let damaged = |why: &str| RepoError::corrupt(object, why).at(pack_bytes.saturating_sub(FOOTER_BYTES as u64));
    if footer.len() != FOOTER_BYTES || footer[40..] != FOOTER_MAGIC {
        return Err(damaged("has no pack footer"));
    }
    let version = le_u32(&footer[4..]);
    if version > PACK_VERSION {
        return Err(RepoError::too_new(object, version));
    }
    let length = u64::from(le_u32(footer)) * RECORD_BYTES as u64 + FOOTER_BYTES as u64;
    if version != PACK_VERSION || length + HEADER_BYTES as u64 > pack_bytes {
        return Err(damaged("has an impossible pack footer"));
    }
    Ok(length)
}

/// Reads a trailer of [`trailer_bytes`] bytes: what the pack holds.
pub(crate) fn decode_trailer(object: &str, trailer: &[u8], pack_bytes: u64) -> Result<Vec<Entry>> {
    let start = pack_bytes.saturating_sub(trailer.len() as u64);
    let damaged = |why: String| RepoError::corrupt(object, why).at(start);
    let footer_at = trailer
        .len()
        .checked_sub(FOOTER_BYTES)
        .ok_or_else(|| damaged("is too short".into()))?;
    let footer = &trailer[footer_at..];
    if trailer_bytes(object, footer, pack_bytes)? != trailer.len() as u64 {
        return Err(damaged("has a footer that does not fit its trailer".into()));
    }
    if blake3::hash(&trailer[..footer_at + 8]).as_bytes() != &footer[8..40] {
        return Err(damaged("has a trailer that does not match its checksum".into()));
    }
    trailer[..footer_at]
        .chunks_exact(RECORD_BYTES)
        .map(|record| {
            let (id, fields) = record.split_at(32);
            let mut bytes = [0u8; 32];
            bytes.copy_from_slice(id);
            Entry::from_fields(BlobId::from_bytes(bytes), fields, pack_bytes).map_err(damaged)
        })
        .collect()
}

/// Checks a whole pack against its name, and reads what it holds.
pub(crate) fn decode_whole(name: &PackName, bytes: &[u8]) -> Result<Vec<Entry>> {
    let object = name.key();
    if blake3::hash(bytes).as_bytes() != &name.0 {
        return Err(RepoError::corrupt(object, "its bytes do not match its name"));
    }
    let size = bytes.len() as u64;
    let head_fine = bytes.len() >= HEADER_BYTES + FOOTER_BYTES && bytes[..8] == HEADER_MAGIC;
    if !head_fine {
        return Err(RepoError::corrupt(object, "is no pack").at(0));
    }
    let version = le_u32(&bytes[8..]);
    if version > PACK_VERSION {
        return Err(RepoError::too_new(object, version));
    }
    let length = trailer_bytes(&object, &bytes[bytes.len() - FOOTER_BYTES..], size)?;
    decode_trailer(&object, &bytes[(size - length) as usize..], size)
}
