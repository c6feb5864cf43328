//! Byte-for-byte comparison of disks.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use wire::{Code, ErrorBody};

use super::stage::{Stage, internal, say};

const PIECE_BYTES: usize = 1 << 20;
const BLOCK_BYTES: usize = 4096;

/// Compares every byte of two files and says so; `corrupt` at the first difference.
pub(crate) fn same(stage: &Stage, what: &str, ours: &str, kept: &str) -> Result<(), ErrorBody> {
    match first_difference(stage, &stage.path(ours), &stage.path(kept))? {
        None => {
            say(&format!("  compared: {ours} equals {kept} in every byte, after {what}"));
            Ok(())
        }
        Some(at) => Err(ErrorBody::new(
            Code::Corrupt,
            format!("{ours} differs from {kept} at byte {at}: {what} did not bring the disk back"),
        )
        .hint("windlass demo --keep leaves both for a look")),
    }
}

/// Where two files differ first; the length of the shorter one when it is a beginning of the other.
pub(crate) fn first_difference(stage: &Stage, a: &Path, b: &Path) -> Result<Option<u64>, ErrorBody> {
    let (a, a_len) = open(a)?;
    let (b, b_len) = open(b)?;
    let (mut one, mut other) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
    let mut at = 0;
    while at < a_len.min(b_len) {
        stage.check()?;
        let n = usize::try_from((a_len.min(b_len) - at).min(PIECE_BYTES as u64)).unwrap_or(PIECE_BYTES);
        read(&a, &mut one[..n], at)?;
        read(&b, &mut other[..n], at)?;
        if one[..n] != other[..n] {
            let within = one[..n].iter().zip(&other[..n]).position(|(x, y)| x != y).unwrap_or(0);
            return Ok(Some(at + within as u64));
        }
        at += n as u64;
    }
    Ok((a_len != b_len).then_some(at))
}

/// How far an interrupted restore came, counted in blocks of 4 KiB, in bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Halfway {
    /// Blocks in which the damaged disk differs from the original.
    pub differing_bytes: u64,
    /// Of them, those that are as the original again.
    pub back_bytes: u64,
    /// Of them, those that equal neither.
    pub torn_bytes: u64,
}

/// Compares a disk with what it was before the restore and with what it is to become.
pub(crate) fn halfway(stage: &Stage, disk: &Path, damaged: &Path, original: &Path) -> Result<Halfway, ErrorBody> {
    let (disk, size) = open(disk)?;
    let ((damaged, damaged_size), (original, original_size)) = (open(damaged)?, open(original)?);
    if size != damaged_size || size != original_size {
        return Err(ErrorBody::new(
            Code::Corrupt,
            "the interrupted restore changed the disk's size",
        ));
    }
    let mut found = Halfway::default();
    let (mut now, mut before, mut wanted) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
    let mut at = 0;
    while at < size {
        stage.check()?;
        let n = usize::try_from((size - at).min(PIECE_BYTES as u64)).unwrap_or(PIECE_BYTES);
        read(&damaged, &mut before[..n], at)?;
        read(&original, &mut wanted[..n], at)?;
        if before[..n] != wanted[..n] {
            read(&disk, &mut now[..n], at)?;
            for start in (0..n).step_by(BLOCK_BYTES) {
                let block = start..n.min(start + BLOCK_BYTES);
                let (now, before, wanted) = (&now[block.clone()], &before[block.clone()], &wanted[block.clone()]);
                if before != wanted {
                    found.differing_bytes += block.len() as u64;
                    found.back_bytes += if now == wanted { block.len() as u64 } else { 0 };
                    found.torn_bytes += if now != wanted && now != before {
                        block.len() as u64
                    } else {
                        0
                    };
                }
            }
        }
        at += n as u64;
    }
    Ok(found)
}

fn open(path: &Path) -> Result<(File, u64), ErrorBody> {
    let file = File::open(path).map_err(|e| internal(&format!("open {}", path.display()), e))?;
    let size = file
        .metadata()
        .map_err(|e| internal(&format!("look at {}", path.display()), e))?
        .len();
    Ok((file, size))
}

fn read(file: &File, buffer: &mut [u8], at: u64) -> Result<(), ErrorBody> {
    file.read_exact_at(buffer, at).map_err(|e| internal("read a disk", e))
}
