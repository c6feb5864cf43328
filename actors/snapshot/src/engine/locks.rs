//! QEMU's image locks: how QEMU's processes, and we among them, agree on who may use an image.
//!
//! Source: `block/file-posix.c` of QEMU. Locks of open file descriptions on single bytes, all of them shared, so that many
//! can hold the same; who wants to know whether one is held asks for it exclusively. A byte from 100 on says "I do this", one
//! from 200 on says "nobody else may do this": 0 reading what is consistent, 1 writing, 2 writing what is equal, 3 resizing.
//!
//! They live as long as the open file. A filesystem without such locks has none to honour.

use std::fs::File;
use std::os::fd::AsRawFd;

const DOES: i64 = 100;
const FORBIDS: i64 = 200;

const CONSISTENT_READ: u8 = 1;
const WRITE: u8 = 1 << 1;
const WRITE_UNCHANGED: u8 = 1 << 2;
const RESIZE: u8 = 1 << 3;
const ALL: u8 = CONSISTENT_READ | WRITE | WRITE_UNCHANGED | RESIZE;

/// Bytes of a file on which QEMU's locks stand.
pub const BYTES: std::ops::Range<u64> = 100..204;

/// What is claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// To read while nobody writes.
    Read,
    /// To write while nobody else does anything.
    Write,
}

/// Takes the locks of a claim on `file`. `Ok(Some(what))`: someone else's stand against it, and none were taken.
///
/// # Errors
/// Of the system call; not for filesystems that don't know such locks.
pub fn take(file: &File, claim: Claim) -> std::io::Result<Option<&'static str>> {
    let (does, forbids) = match claim {
        Claim::Read => (CONSISTENT_READ, WRITE | RESIZE),
        Claim::Write => (CONSISTENT_READ | WRITE | RESIZE, ALL),
    };
    // Ours first, then a look at theirs: of two that come at once, at least one sees the other.
    let taken = bytes(DOES, does)
        .chain(bytes(FORBIDS, forbids))
        .try_for_each(|at| lock(file, at));
    match taken {
        Ok(()) => {}
        Err(e) if is_unknown(&e) => return Ok(None),
        Err(e) => return Err(e),
    }
    let against = against(file, does, forbids);
    if !matches!(against, Ok(None)) {
        unlock(file)?;
    }
    against
}

/// What stands against a claim.
fn against(file: &File, does: u8, forbids: u8) -> std::io::Result<Option<&'static str>> {
    for at in bytes(DOES, forbids) {
        if is_held(file, at)? {
            let writes = at - DOES == 1 || at - DOES == 3;
            return Ok(Some(if writes { "writes to it" } else { "reads it" }));
        }
    }
    for at in bytes(FORBIDS, does) {
        if is_held(file, at)? {
            return Ok(Some(if at == FORBIDS {
                "keeps everyone else away"
            } else {
                "lets nobody write"
            }));
        }
    }
    Ok(None)
}

fn bytes(base: i64, bits: u8) -> impl Iterator<Item = i64> {
    (0..4)
        .filter(move |bit| bits & (1 << bit) != 0)
        .map(move |bit| base + bit)
}

fn is_unknown(error: &std::io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::ENOLCK | libc::EOPNOTSUPP | libc::ENOSYS)
    )
}

fn lock(file: &File, at: i64) -> std::io::Result<()> {
    call(file, libc::F_OFD_SETLK, libc::F_RDLCK, at, 1).map(drop)
}

fn unlock(file: &File) -> std::io::Result<()> {
    let len = (BYTES.end - BYTES.start).cast_signed();
    call(file, libc::F_OFD_SETLK, libc::F_UNLCK, DOES, len).map(drop)
}

/// True when another open file holds a lock on this byte.
fn is_held(file: &File, at: i64) -> std::io::Result<bool> {
    Ok(call(file, libc::F_OFD_GETLK, libc::F_WRLCK, at, 1)? != libc::F_UNLCK)
}

/// Gives the kind of lock that the kernel answers with.
fn call(file: &File, command: libc::c_int, kind: libc::c_int, start: i64, len: i64) -> std::io::Result<libc::c_int> {
    // SAFETY: `flock` is a plain C struct, for which all zeros is a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = start;
    lock.l_len = len;
    loop {
        // SAFETY: the descriptor is open for as long as `file` lives, and `lock` is a `flock` that outlives the call.
        let done = unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) };
        if done == 0 {
            return Ok(lock.l_type.into());
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_go_together_and_a_writer_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, b"x").unwrap();
        let open = || File::options().read(true).write(true).open(&path).unwrap();
        let (a, b) = (open(), open());
        assert_eq!(take(&a, Claim::Read).unwrap(), None);
        assert_eq!(take(&b, Claim::Read).unwrap(), None);
        let c = open();
        assert!(take(&c, Claim::Write).unwrap().is_some());
        drop((a, b));
        assert_eq!(take(&c, Claim::Write).unwrap(), None);
        let d = open();
        assert_eq!(take(&d, Claim::Read).unwrap(), Some("writes to it"));
        assert!(take(&d, Claim::Write).unwrap().is_some());
        drop(c);
        // a claim that was refused left nothing behind
        assert_eq!(take(&open(), Claim::Write).unwrap(), None);
    }
}
