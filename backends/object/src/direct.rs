//! Large objects go to the medium past the page cache: its pages would have to be found, filled by the processor and written
//! back, for bytes that this process doesn't read again. Measured with 16 MiB packs: a quarter of the processor's time of the
//! buffered way where memory is at hand, a fourteenth where the kernel has to ask a hypervisor for it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

/// Objects from this size on; smaller ones are read again soon (snapshots, index, nodes) and cost little.
const DIRECT_FROM_BYTES: usize = 1 << 20;
/// Every block device and file system takes this: the size of a page.
const ALIGN_BYTES: usize = 4096;
/// Bytes of one write. They are copied to aligned memory first, which stays in the processor's own cache.
const STEP_BYTES: usize = 1 << 20;

/// Writes all of `body` to an empty file. What the file system doesn't take directly goes the usual way, as does the tail
/// that fills no page.
pub(crate) fn write_all(file: &File, body: &[u8]) -> io::Result<()> {
    let mut done = 0;
    if body.len() >= DIRECT_FROM_BYTES && set_direct(file, true).is_ok() {
        let written = write_pages(file, body);
        set_direct(file, false)?;
        done = written?;
    }
    file.write_all_at(&body[done..], done as u64)
}

fn set_direct(file: &File, on: bool) -> io::Result<()> {
    let mut flags = fcntl_getfl(file)?;
    flags.set(OFlags::DIRECT, on);
    Ok(fcntl_setfl(file, flags)?)
}

/// Writes whole pages from the beginning; returns how many bytes: fewer when the file system stops taking them so.
fn write_pages(file: &File, body: &[u8]) -> io::Result<usize> {
    let mut memory = vec![0; STEP_BYTES + ALIGN_BYTES];
    let start = memory.as_ptr().align_offset(ALIGN_BYTES);
    let Some(aligned) = memory.get_mut(start..start + STEP_BYTES) else {
        return Ok(0);
    };
    let mut done = 0;
    for step in body.chunks(STEP_BYTES) {
        let pages = step.len() / ALIGN_BYTES * ALIGN_BYTES;
        let (from, to) = (&step[..pages], &mut aligned[..pages]);
        to.copy_from_slice(from);
        let written = match file.write_at(to, done as u64) {
            Ok(written) => written,
            // "not like this": the rest goes the usual way, which also tells what is really wrong
            Err(e) if e.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => break,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => 0,
            Err(e) => return Err(e),
        };
        done += written;
        if written < step.len() {
            break;
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_there_whatever_its_length() {
        let directory = tempfile::tempdir().unwrap();
        let shm = tempfile::tempdir_in("/dev/shm").unwrap();
        for root in [directory.path(), shm.path()] {
            for length in [
                0,
                1,
                4096,
                (1 << 20) - 1,
                1 << 20,
                (1 << 20) + 1,
                (5 << 20) + 4097,
                3 << 20,
            ] {
                let body = store::conformance::body(length as u64, length);
                // at an address that is aligned to nothing
                let odd = [&[7u8][..], &body].concat();
                let path = root.join(format!("{length}"));
                let file = File::create_new(&path).unwrap();
                write_all(&file, &odd[1..]).unwrap();
                assert!(std::fs::read(&path).unwrap() == body, "{length} bytes");
                let flags = fcntl_getfl(&file).unwrap();
                assert!(!flags.contains(OFlags::DIRECT));
            }
        }
    }
}
