//! Bytes of an index segment (docs/FORMAT.md, "Index segments"), and looking up in them.
//!
//! Header, pack table and page directory are checked when a segment is opened; each page of records the first time that
//! it is used, so that a mapped segment of any size costs what is looked up in it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use memmap2::Mmap;

use super::{Hit, IndexName, interpolated_point};
use crate::blob::BlobKind;
use crate::id::prefix_of;
use crate::pack::{Entry, PackName, le_u32, le_u64};
use crate::{BlobId, RepoError, Result};

const MAGIC: [u8; 8] = *b"WINDINDX";
const SEGMENT_VERSION: u32 = 1;
const HEADER_BYTES: usize = 96;
const CHECK_AT: usize = 64;
const PACK_ROW_BYTES: usize = 40;
const DIRECTORY_ROW_BYTES: usize = 16;
const RECORD_BYTES: usize = 52;
/// Where in a record the number of the pack stands, and the other fields.
const PACK_AT: usize = 32;
const FIELDS_AT: usize = 36;
const PAGE_RECORDS: usize = 64;
const PAGE_BYTES: usize = PAGE_RECORDS * RECORD_BYTES;
/// Most records of a segment.
pub(crate) const SEGMENT_RECORDS_MAX: usize = 8 << 20;
/// Largest segment, in bytes; what is larger was not written by windlass.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// Where a segment's bytes are.
pub(crate) enum Backing {
    Mapped(Mmap),
    /// The first bytes of a file.
    Part(Mmap, usize),
    Held(Bytes),
}

impl Backing {
    fn bytes(&self) -> &[u8] {
        match self {
            Backing::Mapped(map) => map,
            Backing::Part(map, length) => &map[..*length],
            Backing::Held(bytes) => bytes,
        }
    }
}

/// A pack and its size, as a segment's table says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PackSize {
    pub(crate) name: PackName,
    pub(crate) bytes: u64,
}

/// What a segment's records sum to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SegmentSums {
    pub(crate) data_blobs: u64,
    pub(crate) data_raw_bytes: u64,
    pub(crate) data_stored_bytes: u64,
    pub(crate) node_blobs: u64,
}

impl SegmentSums {
    /// Adds a record's fields: offset, stored length, raw length, kind.
    fn add_fields(&mut self, fields: &[u8]) {
        match BlobKind::from_code(fields[12]) {
            Some(BlobKind::Data) => {
                self.data_blobs += 1;
                self.data_raw_bytes += u64::from(le_u32(&fields[8..]));
                self.data_stored_bytes += u64::from(le_u32(&fields[4..]));
            }
            Some(BlobKind::Node) => self.node_blobs += 1,
            Some(BlobKind::Definition) | None => {}
        }
    }
}

/// An opened segment.
pub(crate) struct Segment {
    object: String,
    /// The index objects that it stands for, when it was put together on this machine.
    joined: Vec<IndexName>,
    /// Its bytes are the cache's.
    cached: bool,
    backing: Backing,
    records: usize,
    packs: usize,
    directory_at: usize,
    records_at: usize,
    sums: SegmentSums,
    /// One bit a page: its check was fine.
    checked: Vec<AtomicU64>,
    damaged: AtomicBool,
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segment")
            .field("object", &self.object)
            .field("records", &self.records)
            .finish_non_exhaustive()
    }
}

/// Writes a segment of what `packs` hold. Of an id that stands twice one place is kept.
pub(crate) fn encode(mut packs: Vec<(PackSize, Vec<Entry>)>) -> Vec<u8> {
    packs.sort_unstable_by_key(|(pack, _)| *pack);
    let mut rows: Vec<Row> = Vec::with_capacity(packs.iter().map(|(_, e)| e.len()).sum());
    for (i, (_, entries)) in packs.iter().enumerate() {
        rows.extend(entries.iter().map(|entry| row_of(entry, i as u32)));
    }
    let table: Vec<PackSize> = packs.iter().map(|(pack, _)| *pack).collect();
    let mut out = encode_head(&table, &mut rows);
    out.extend_from_slice(rows.as_flattened());
    out
}

/// A record as it stands in a segment: id, number of the pack, fields.
pub(crate) type Row = [u8; RECORD_BYTES];

/// The record of an entry of the pack with that number.
pub(crate) fn row_of(entry: &Entry, pack: u32) -> Row {
    let mut row = [0; RECORD_BYTES];
    row[..32].copy_from_slice(entry.id.as_bytes());
    row[PACK_AT..FIELDS_AT].copy_from_slice(&pack.to_le_bytes());
    row[FIELDS_AT..].copy_from_slice(&entry.fields());
    row
}

/// Gives a record another pack's number.
pub(crate) fn renumber(row: &mut Row, number: impl Fn(u32) -> u32) {
    let pack = number(le_u32(&row[PACK_AT..]));
    row[PACK_AT..FIELDS_AT].copy_from_slice(&pack.to_le_bytes());
}

/// Puts records in order, and writes what stands before them in a segment. Of an id that stands twice the place in the
/// first pack is kept.
pub(crate) fn encode_head(packs: &[PackSize], rows: &mut Vec<Row>) -> Vec<u8> {
    let place = |row: &Row| (le_u32(&row[PACK_AT..]), le_u32(&row[FIELDS_AT..]));
    rows.sort_unstable_by(|a, b| a[..PACK_AT].cmp(&b[..PACK_AT]).then_with(|| place(a).cmp(&place(b))));
    rows.dedup_by(|next, kept| next[..PACK_AT] == kept[..PACK_AT]);
    let mut sums = SegmentSums::default();
    rows.iter().for_each(|row| sums.add_fields(&row[FIELDS_AT..]));

    let pages = rows.len().div_ceil(PAGE_RECORDS);
    let mut out = Vec::with_capacity(HEADER_BYTES + packs.len() * PACK_ROW_BYTES + pages * DIRECTORY_ROW_BYTES);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&SEGMENT_VERSION.to_le_bytes());
    out.extend_from_slice(&(RECORD_BYTES as u32).to_le_bytes());
    out.extend_from_slice(&(rows.len() as u64).to_le_bytes());
    out.extend_from_slice(&(packs.len() as u32).to_le_bytes());
    out.extend_from_slice(&(PAGE_RECORDS as u32).to_le_bytes());
    for sum in [
        sums.data_blobs,
        sums.data_raw_bytes,
        sums.data_stored_bytes,
        sums.node_blobs,
    ] {
        out.extend_from_slice(&sum.to_le_bytes());
    }
    out.extend_from_slice(&[0; HEADER_BYTES - CHECK_AT]);
    for pack in packs {
        out.extend_from_slice(&pack.name.0);
        out.extend_from_slice(&pack.bytes.to_le_bytes());
    }
    for page in rows.chunks(PAGE_RECORDS) {
        let page = page.as_flattened();
        out.extend_from_slice(&prefix_of(page).to_le_bytes());
        out.extend_from_slice(&page_check(page).to_le_bytes());
    }
    let check = head_check(&out);
    out[CHECK_AT..HEADER_BYTES].copy_from_slice(&check);
    out
}

fn page_check(page: &[u8]) -> u64 {
    le_u64(blake3::hash(page).as_bytes())
}

/// BLAKE3 of header, pack table and directory, without the check itself.
fn head_check(head: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&head[..CHECK_AT]);
    hasher.update(&head[HEADER_BYTES..]);
    *hasher.finalize().as_bytes()
}

impl Segment {
    /// Opens `object`: checks everything but the pages of records.
    pub(crate) fn open(object: String, backing: Backing) -> Result<Self> {
        let bytes = backing.bytes();
        let damaged = |why: &str, at: usize| {
            RepoError::corrupt(object.clone(), format!("damaged index segment: {why}")).at(at as u64)
        };
        if bytes.len() < HEADER_BYTES || bytes[..8] != MAGIC {
            return Err(damaged("no header", 0));
        }
        let version = le_u32(&bytes[8..]);
        if version > SEGMENT_VERSION {
            // every version is named by its bytes: so a newer one is told from a damaged one
            let newer = object.ends_with(blake3::hash(bytes).to_hex().as_str());
            return Err(if newer {
                RepoError::too_new(object, version)
            } else {
                damaged("impossible version", 8)
            });
        }
        let (records, packs) = (le_u64(&bytes[16..]), le_u32(&bytes[24..]) as usize);
        let shape_fits = version == SEGMENT_VERSION
            && le_u32(&bytes[12..]) as usize == RECORD_BYTES
            && le_u32(&bytes[28..]) as usize == PAGE_RECORDS
            && records <= SEGMENT_RECORDS_MAX as u64;
        if !shape_fits {
            return Err(damaged("impossible header", 8));
        }
        let records = records as usize;
        let directory_at = HEADER_BYTES + packs * PACK_ROW_BYTES;
        let records_at = directory_at + records.div_ceil(PAGE_RECORDS) * DIRECTORY_ROW_BYTES;
        if bytes.len() != records_at + records * RECORD_BYTES {
            return Err(damaged("its length does not fit its counts", bytes.len()));
        }
        if head_check(&bytes[..records_at]) != bytes[CHECK_AT..HEADER_BYTES] {
            return Err(damaged(
                "header, pack table or directory do not match their checksum",
                CHECK_AT,
            ));
        }
        let sums = SegmentSums {
            data_blobs: le_u64(&bytes[32..]),
            data_raw_bytes: le_u64(&bytes[40..]),
            data_stored_bytes: le_u64(&bytes[48..]),
            node_blobs: le_u64(&bytes[56..]),
        };
        let checked = (0..records.div_ceil(PAGE_RECORDS * 64))
            .map(|_| AtomicU64::new(0))
            .collect();
        let damaged = AtomicBool::new(false);
        Ok(Self {
            object,
            joined: Vec::new(),
            cached: false,
            backing,
            records,
            packs,
            directory_at,
            records_at,
            sums,
            checked,
            damaged,
        })
    }

    /// The same, of bytes that the cache gave.
    pub(crate) fn of_cache(mut self) -> Self {
        self.cached = true;
        self
    }
    /// The same, as what stands for those index objects.
    pub(crate) fn standing_for(mut self, joined: Vec<IndexName>) -> Self {
        self.joined = joined;
        self
    }
    pub(crate) fn object(&self) -> &str {
        &self.object
    }
    /// True when its bytes are the cache's: damage of it is not the repository's.
    pub(crate) fn is_cached(&self) -> bool {
        self.cached
    }
    /// The index objects that it stands for: itself, or those that it was joined from. Empty for an object with a strange
    /// name.
    pub(crate) fn names(&self) -> Vec<IndexName> {
        if self.joined.is_empty() {
            IndexName::from_key(&self.object).into_iter().collect()
        } else {
            self.joined.clone()
        }
    }
    pub(crate) fn is_joined(&self) -> bool {
        !self.joined.is_empty()
    }
    pub(crate) fn bytes(&self) -> u64 {
        self.backing.bytes().len() as u64
    }
    pub(crate) fn records(&self) -> usize {
        self.records
    }
    pub(crate) fn packs(&self) -> usize {
        self.packs
    }
    pub(crate) fn sums(&self) -> SegmentSums {
        self.sums
    }
    /// The pack at a place of the table; `pack` is below `packs()`.
    pub(crate) fn pack(&self, pack: u32) -> PackSize {
        let row = &self.backing.bytes()[HEADER_BYTES + pack as usize * PACK_ROW_BYTES..];
        let mut name = [0u8; 32];
        name.copy_from_slice(&row[..32]);
        PackSize {
            name: PackName(name),
            bytes: le_u64(&row[32..]),
        }
    }

    /// Where `id` stands, with `segment` as this segment's number in the answer.
    pub(crate) fn find(&self, segment: u32, id: &BlobId) -> Option<Hit> {
        let prefix = id.prefix();
        let pages = self.records.div_ceil(PAGE_RECORDS);
        // first page that begins at or past the id; the one before may hold it as well
        let at = interpolated_point(pages, prefix, |page| self.first_prefix(page));
        let mut page = at.saturating_sub(1);
        while page < pages && (page < at || self.first_prefix(page) <= prefix) {
            if let Some(record) = self.search_page(page, id) {
                return self.get(segment, record);
            }
            page += 1;
        }
        None
    }

    /// The record at a place.
    pub(crate) fn get(&self, segment: u32, record: u32) -> Option<Hit> {
        let page = self.page(record as usize / PAGE_RECORDS)?;
        let row = &page[record as usize % PAGE_RECORDS * RECORD_BYTES..][..RECORD_BYTES];
        let mut id = [0u8; 32];
        id.copy_from_slice(&row[..32]);
        let pack = le_u32(&row[32..]);
        if pack as usize >= self.packs {
            self.damaged.store(true, Ordering::Relaxed);
            return None;
        }
        let PackSize { name, bytes } = self.pack(pack);
        match Entry::from_fields(BlobId::from_bytes(id), &row[36..], bytes) {
            Ok(entry) => Some(Hit {
                segment,
                record,
                pack,
                name,
                pack_bytes: bytes,
                entry,
            }),
            Err(_) => {
                self.damaged.store(true, Ordering::Relaxed);
                None
            }
        }
    }

    /// Calls `with` for each record of a whole page: its place, id and pack.
    pub(crate) fn for_each(&self, mut with: impl FnMut(u32, BlobId, u32)) {
        for number in 0..self.records.div_ceil(PAGE_RECORDS) {
            let Some(page) = self.page(number) else { continue };
            for (i, row) in page.chunks_exact(RECORD_BYTES).enumerate() {
                let mut id = [0u8; 32];
                id.copy_from_slice(&row[..32]);
                with(
                    (number * PAGE_RECORDS + i) as u32,
                    BlobId::from_bytes(id),
                    le_u32(&row[32..]),
                );
            }
        }
    }

    /// The error, when damage of a page was met.
    pub(crate) fn damage(&self) -> Option<RepoError> {
        self.damaged.load(Ordering::Relaxed).then(|| {
            RepoError::corrupt(
                self.object.clone(),
                "damaged index segment: a page of records does not match its checksum",
            )
        })
    }

    /// Checks all bytes against the object's name. One that was joined was made of objects that had passed.
    pub(crate) fn check_whole(&self) -> Result<()> {
        if self.is_joined() {
            return match self.damage() {
                Some(error) => Err(error),
                None => Ok(()),
            };
        }
        let name = blake3::hash(self.backing.bytes()).to_hex();
        if self.object.rsplit('/').next() == Some(name.as_str()) {
            return Ok(());
        }
        Err(RepoError::corrupt(
            self.object.clone(),
            "damaged index segment: its bytes do not match its name",
        ))
    }

    fn first_prefix(&self, page: usize) -> u64 {
        le_u64(&self.backing.bytes()[self.directory_at + page * DIRECTORY_ROW_BYTES..])
    }

    /// A page of records, checked once.
    fn page(&self, page: usize) -> Option<&[u8]> {
        let bytes = self.backing.bytes();
        let start = self.records_at + page * PAGE_BYTES;
        let rows = &bytes[start..(start + PAGE_BYTES).min(bytes.len())];
        let (word, bit) = (&self.checked[page / 64], 1u64 << (page % 64));
        if word.load(Ordering::Relaxed) & bit == 0 {
            let expected = le_u64(&bytes[self.directory_at + page * DIRECTORY_ROW_BYTES + 8..]);
            if page_check(rows) != expected {
                self.damaged.store(true, Ordering::Relaxed);
                return None;
            }
            word.fetch_or(bit, Ordering::Relaxed);
        }
        Some(rows)
    }

    fn search_page(&self, page: usize, id: &BlobId) -> Option<u32> {
        let rows = self.page(page)?;
        let (mut low, mut high) = (0, rows.len() / RECORD_BYTES);
        while low < high {
            let middle = (low + high) / 2;
            match rows[middle * RECORD_BYTES..][..32].cmp(id.as_bytes()) {
                std::cmp::Ordering::Equal => return Some((page * PAGE_RECORDS + middle) as u32),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }
}

/// Makes the checksums fit whatever the bytes are, as far as the counts allow.
#[cfg(test)]
pub(crate) fn forge(bytes: &mut [u8]) {
    if bytes.len() < HEADER_BYTES {
        return;
    }
    let records = le_u64(&bytes[16..]).min(bytes.len() as u64) as usize;
    let directory_at = HEADER_BYTES + le_u32(&bytes[24..]) as usize * PACK_ROW_BYTES;
    let records_at = directory_at + records.div_ceil(PAGE_RECORDS) * DIRECTORY_ROW_BYTES;
    if records_at > bytes.len() {
        return;
    }
    let (head, pages) = bytes.split_at_mut(records_at);
    for (page, row) in pages
        .chunks(PAGE_BYTES)
        .zip(head[directory_at..].chunks_exact_mut(DIRECTORY_ROW_BYTES))
    {
        row[8..].copy_from_slice(&page_check(page).to_le_bytes());
    }
    let check = head_check(head);
    head[CHECK_AT..HEADER_BYTES].copy_from_slice(&check);
}
