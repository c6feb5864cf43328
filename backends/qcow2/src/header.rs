//! The header, its extensions, and what of it is refused.

use crate::compressed::Compression;
use crate::medium::Medium;
use crate::{Error, Kind, Result};

const MAGIC: [u8; 4] = *b"QFI\xfb";
/// Bytes from the beginning that may hold the header, its extensions and the backing image's name.
const HEAD_BYTES_MAX: u64 = 64 << 10;
const BACKING_NAME_BYTES_MAX: u32 = 1023;
/// As in QEMU: more is absurd.
const L1_BYTES_MAX: u64 = 32 << 20;
const REFTABLE_BYTES_MAX: u64 = 8 << 20;
const SNAPSHOTS_NAMED_MAX: usize = 5;

const INCOMPATIBLE_DIRTY: u64 = 1;
const INCOMPATIBLE_CORRUPT: u64 = 1 << 1;
const INCOMPATIBLE_DATA_FILE: u64 = 1 << 2;
const INCOMPATIBLE_COMPRESSION: u64 = 1 << 3;
const INCOMPATIBLE_EXTENDED_L2: u64 = 1 << 4;
/// Of the autoclear bits: the bitmaps extension holds what it should.
pub(crate) const AUTOCLEAR_BITMAPS: u64 = 1;

const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;
const EXTENSION_BITMAPS: u32 = 0x2385_2875;

/// The image below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backing {
    /// As written: relative to the image's directory, or absolute.
    pub name: String,
    /// `raw` or `qcow2` or what else; `None` when nobody wrote it down.
    pub format: Option<String>,
}

/// Where the dirty bitmaps are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bitmaps {
    pub count: u32,
    pub directory_bytes: u64,
    pub directory_offset: u64,
}

/// A checked header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// log2 of the cluster size.
    pub cluster_bits: u32,
    /// Size of the disk in bytes.
    pub size_bytes: u64,
    /// The image below.
    pub backing: Option<Backing>,
    pub(crate) l1_entries: u32,
    pub(crate) l1_offset: u64,
    pub(crate) reftable_offset: u64,
    pub(crate) reftable_clusters: u32,
    pub(crate) refcount_order: u32,
    pub(crate) compression: Compression,
    pub(crate) incompatible: u64,
    pub(crate) autoclear: u64,
    pub(crate) bitmaps: Option<Bitmaps>,
}

/// True when these first bytes of a file are those of a qcow2 image, version 2 or 3.
pub fn is_qcow2(first: &[u8]) -> bool {
    first.len() >= 8 && first[..4] == MAGIC && matches!(number(first, 4), Some(2 | 3))
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let b = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from(number(bytes, at)?) << 32 | u64::from(number(bytes, at.checked_add(4)?)?))
}

impl Header {
    /// Bytes of a cluster.
    pub fn cluster_bytes(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Entries of an L2 table.
    pub(crate) fn l2_entries(&self) -> u64 {
        self.cluster_bytes() / 8
    }

    /// Bytes of the disk that one L2 table tells of.
    pub(crate) fn l2_span_bytes(&self) -> u64 {
        self.cluster_bytes() * self.l2_entries()
    }

    /// Reads and checks the header of the image `name`.
    ///
    /// # Errors
    /// `Corrupt`, `Unsupported`, `Io`.
    pub fn read(medium: &dyn Medium, name: &str) -> Result<Self> {
        let io = |e: std::io::Error| Error::io("read qcow2 image", name, &e);
        let len_bytes = medium.len_bytes().map_err(io)?;
        let mut head = vec![0; len_bytes.min(HEAD_BYTES_MAX) as usize];
        medium.read_at(&mut head, 0).map_err(io)?;
        if !is_qcow2(&head) {
            return Err(
                Error::new(Kind::Unsupported, format!("{name} is no qcow2 image of version 2 or 3"))
                    .hint("say --format raw if it is a raw disk"),
            );
        }
        let header = Self::parse(&head, name)?;
        header.check_places(len_bytes, name)?;
        if let Some(count) = number(&head, 60).filter(|n| *n > 0) {
            let names = snapshot_names(medium, count, long(&head, 64).unwrap_or(0));
            return Err(internal_snapshots(name, count, &names));
        }
        Ok(header)
    }

    fn parse(head: &[u8], name: &str) -> Result<Self> {
        let short = || Error::corrupt(name, "its header is cut short");
        let u32_at = |at| number(head, at).ok_or_else(short);
        let u64_at = |at| long(head, at).ok_or_else(short);
        let version = u32_at(4)?;
        let (mut incompatible, mut autoclear, mut refcount_order, mut header_bytes) = (0, 0, 4, 72);
        if version >= 3 {
            incompatible = u64_at(72)?;
            autoclear = u64_at(88)?;
            refcount_order = u32_at(96)?;
            header_bytes = u32_at(100)?;
        }
        if header_bytes < 72 || (version >= 3 && header_bytes < 104) || u64::from(header_bytes) > HEAD_BYTES_MAX {
            return Err(Error::corrupt(
                name,
                format!("its header says that it has {header_bytes} bytes"),
            ));
        }
        refuse_features(incompatible, name)?;
        if u32_at(32)? != 0 {
            return Err(unsupported(name, "encryption"));
        }
        let compression = match (incompatible & INCOMPATIBLE_COMPRESSION != 0, head.get(104).copied()) {
            (false, _) => Compression::Deflate,
            (true, Some(1)) if header_bytes > 104 => Compression::Zstd,
            (true, kind) => return Err(unsupported(name, &format!("compression of kind {kind:?}"))),
        };
        let cluster_bits = u32_at(20)?;
        if !(9..=21).contains(&cluster_bits) {
            return Err(Error::corrupt(
                name,
                format!("clusters of 2^{cluster_bits} bytes; 2^9 to 2^21 is possible"),
            ));
        }
        if refcount_order > 6 {
            return Err(Error::corrupt(name, format!("refcounts of 2^{refcount_order} bits")));
        }
        let mut header = Self {
            version,
            cluster_bits,
            size_bytes: u64_at(24)?,
            backing: None,
            l1_entries: u32_at(36)?,
            l1_offset: u64_at(40)?,
            reftable_offset: u64_at(48)?,
            reftable_clusters: u32_at(56)?,
            refcount_order,
            compression,
            incompatible,
            autoclear,
            bitmaps: None,
        };
        let format = header.extensions(head, header_bytes as usize, name)?;
        let (backing_offset, backing_bytes) = (u64_at(8)?, u32_at(16)?);
        if backing_offset != 0 && backing_bytes != 0 {
            header.backing = Some(Backing {
                name: backing_name(head, backing_offset, backing_bytes, name)?,
                format,
            });
        }
        Ok(header)
    }

    /// Reads the extensions that matter here; gives the backing image's format.
    fn extensions(&mut self, head: &[u8], mut at: usize, name: &str) -> Result<Option<String>> {
        let mut format = None;
        let end = head.len().min(self.cluster_bytes() as usize);
        while let (Some(kind), Some(len)) = (number(head, at), number(head, at + 4)) {
            if kind == 0 {
                break;
            }
            let data = at + 8..(at + 8).saturating_add(len as usize);
            if data.end > end {
                return Err(Error::corrupt(
                    name,
                    format!("header extension {kind:#x} of {len} bytes is cut short"),
                ));
            }
            let data_bytes = &head[data.clone()];
            match kind {
                EXTENSION_BACKING_FORMAT => format = Some(String::from_utf8_lossy(data_bytes).into_owned()),
                EXTENSION_BITMAPS => {
                    let (Some(count), Some(directory_bytes), Some(directory_offset)) =
                        (number(data_bytes, 0), long(data_bytes, 8), long(data_bytes, 16))
                    else {
                        return Err(Error::corrupt(name, "its bitmaps extension is cut short"));
                    };
                    self.bitmaps = Some(Bitmaps {
                        count,
                        directory_bytes,
                        directory_offset,
                    });
                }
                _ => {} // whoever may be ignored; what may not has a feature bit
            }
            at = data.end.next_multiple_of(8);
        }
        Ok(format)
    }

    /// Refuses sizes and places that can't be.
    fn check_places(&self, len_bytes: u64, name: &str) -> Result<()> {
        if self.size_bytes == 0 {
            return Err(Error::corrupt(name, "the disk has no bytes"));
        }
        let l1_bytes = u64::from(self.l1_entries) * 8;
        if l1_bytes > L1_BYTES_MAX || self.size_bytes.div_ceil(self.l2_span_bytes()) > u64::from(self.l1_entries) {
            return Err(Error::corrupt(
                name,
                format!(
                    "a disk of {} bytes doesn't go with an L1 table of {} entries",
                    self.size_bytes, self.l1_entries
                ),
            ));
        }
        let reftable_bytes = u64::from(self.reftable_clusters) << self.cluster_bits;
        if reftable_bytes == 0 || reftable_bytes > REFTABLE_BYTES_MAX {
            return Err(Error::corrupt(
                name,
                format!("a refcount table of {reftable_bytes} bytes"),
            ));
        }
        for (what, offset, bytes) in [
            ("L1 table", self.l1_offset, l1_bytes),
            ("refcount table", self.reftable_offset, reftable_bytes),
        ] {
            let end = offset.checked_add(bytes);
            if offset % self.cluster_bytes() != 0 || offset == 0 || end.is_none_or(|end| end > len_bytes) {
                return Err(Error::corrupt(
                    name,
                    format!("its {what}, {bytes} bytes at {offset}, is not within the file of {len_bytes} bytes"),
                ));
            }
        }
        Ok(())
    }

    /// Refuses to write where QEMU would not.
    pub(crate) fn check_writable(&self, name: &str) -> Result<()> {
        let why = if self.incompatible & INCOMPATIBLE_CORRUPT != 0 {
            "is marked corrupt"
        } else if self.incompatible & INCOMPATIBLE_DIRTY != 0 {
            "was not closed cleanly (its refcounts are unsettled)"
        } else {
            return Ok(());
        };
        Err(
            Error::new(Kind::Corrupt, format!("qcow2 image {name} {why}; nothing was changed"))
                .hint(format!("qemu-img check -r all {name}")),
        )
    }
}

fn unsupported(name: &str, what: &str) -> Error {
    Error::new(
        Kind::Unsupported,
        format!("qcow2 image {name} uses {what}, which windlass doesn't support; nothing was changed"),
    )
    .hint(format!(
        "a plain copy can be used: qemu-img convert -O qcow2 {name} NEW"
    ))
}

fn refuse_features(incompatible: u64, name: &str) -> Result<()> {
    let known = INCOMPATIBLE_DIRTY | INCOMPATIBLE_CORRUPT | INCOMPATIBLE_COMPRESSION;
    match incompatible & !known {
        0 => Ok(()),
        INCOMPATIBLE_DATA_FILE => Err(unsupported(name, "an external data file")),
        INCOMPATIBLE_EXTENDED_L2 => Err(unsupported(name, "extended L2 entries (subclusters)")),
        bits => Err(unsupported(
            name,
            &format!("features that came later (incompatible bits {bits:#x})"),
        )),
    }
}

fn backing_name(head: &[u8], offset: u64, bytes: u32, name: &str) -> Result<String> {
    let end = offset
        .checked_add(u64::from(bytes))
        .filter(|_| bytes <= BACKING_NAME_BYTES_MAX);
    let text = end.and_then(|end| head.get(usize::try_from(offset).ok()?..usize::try_from(end).ok()?));
    let text = text.and_then(|text| String::from_utf8(text.to_vec()).ok());
    text.ok_or_else(|| {
        Error::corrupt(
            name,
            format!("the name of its backing image, {bytes} bytes at {offset}, can't be read"),
        )
    })
}

fn internal_snapshots(name: &str, count: u32, names: &[String]) -> Error {
    let more = match (count as usize).saturating_sub(names.len()) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    Error::new(
        Kind::Unsupported,
        format!(
            "qcow2 image {name} has {count} internal snapshots ({}{more}): they would be lost; nothing was changed",
            names.join(", ")
        ),
    )
    .hint(format!(
        "a copy of the present state has none: qemu-img convert -O qcow2 {name} NEW; or remove them: qemu-img snapshot -d NAME {name}"
    ))
}

/// Names of the first internal snapshots; what can't be read is left out.
fn snapshot_names(medium: &dyn Medium, count: u32, mut at: u64) -> Vec<String> {
    let mut names = Vec::new();
    while names.len() < SNAPSHOTS_NAMED_MAX.min(count as usize) {
        let mut fixed = [0; 40];
        if medium.read_at(&mut fixed, at).is_err() {
            break;
        }
        let id_bytes = u64::from(u16::from_be_bytes([fixed[12], fixed[13]]));
        let mut text = vec![0; usize::from(u16::from_be_bytes([fixed[14], fixed[15]]))];
        let extra_bytes = u64::from(number(&fixed, 36).unwrap_or(0));
        let Some(text_at) = at.checked_add(40 + extra_bytes + id_bytes) else {
            break;
        };
        if medium.read_at(&mut text, text_at).is_err() {
            break;
        }
        names.push(String::from_utf8_lossy(&text).into_owned());
        at = (text_at + text.len() as u64).next_multiple_of(8);
    }
    names
}
