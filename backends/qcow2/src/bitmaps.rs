//! Dirty bitmaps: before the first write, all of them are marked as in use, which is how QEMU marks those that it didn't
//! bring to an end. QEMU then shows them as inconsistent, and no incremental backup trusts them.

use crate::header::{AUTOCLEAR_BITMAPS, Header};
use crate::medium::Medium;
use crate::{Error, Result};

/// Largest directory that is read, in bytes.
const DIRECTORY_BYTES_MAX: u64 = 8 << 20;
const ENTRY_BYTES: usize = 24;
const FLAG_IN_USE: u32 = 1;

/// Marks every bitmap, and clears the autoclear bits of what we don't keep. Durable when it returns.
pub(crate) fn mark_inconsistent(medium: &dyn Medium, header: &Header, name: &str) -> Result<()> {
    let io = |e: std::io::Error| Error::io("mark the dirty bitmaps of qcow2 image", name, &e);
    let mut wrote = false;
    if let (true, Some(bitmaps)) = (header.autoclear & AUTOCLEAR_BITMAPS != 0, header.bitmaps) {
        if bitmaps.directory_bytes > DIRECTORY_BYTES_MAX {
            let why = format!("a directory of bitmaps of {} bytes", bitmaps.directory_bytes);
            return Err(Error::corrupt(name, why));
        }
        let mut directory = vec![0; bitmaps.directory_bytes as usize];
        medium.read_at(&mut directory, bitmaps.directory_offset).map_err(io)?;
        for at in entries(&directory, bitmaps.count, name)? {
            let flags = &directory[at + 12..at + 16];
            let flags = u32::from_be_bytes([flags[0], flags[1], flags[2], flags[3]]) | FLAG_IN_USE;
            medium
                .write_at(&flags.to_be_bytes(), bitmaps.directory_offset + at as u64 + 12)
                .map_err(io)?;
            wrote = true;
        }
    }
    let kept = header.autoclear & AUTOCLEAR_BITMAPS;
    if header.version >= 3 && kept != header.autoclear {
        medium.write_at(&kept.to_be_bytes(), 88).map_err(io)?;
        wrote = true;
    }
    if wrote { medium.sync().map_err(io) } else { Ok(()) }
}

/// Where the directory's entries begin.
fn entries(directory: &[u8], count: u32, name: &str) -> Result<Vec<usize>> {
    let (mut at, mut found) = (0, Vec::new());
    for _ in 0..count {
        let Some(entry) = directory.get(at..at + ENTRY_BYTES) else {
            return Err(Error::corrupt(name, "its directory of bitmaps is cut short"));
        };
        found.push(at);
        let name_bytes = usize::from(u16::from_be_bytes([entry[18], entry[19]]));
        let extra_bytes = u32::from_be_bytes([entry[20], entry[21], entry[22], entry[23]]) as usize;
        at = (at + ENTRY_BYTES + extra_bytes + name_bytes).next_multiple_of(8);
    }
    Ok(found)
}
