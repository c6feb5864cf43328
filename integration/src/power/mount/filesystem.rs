//! What the kernel asks over FUSE, answered by the recorder.

use std::ffi::OsStr;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::SeekFrom;

use super::{Answer, Recorder, now};
use crate::power::log::{Node, Op};

/// The kernel asks again each time: nothing of a test depends on its cache.
const TTL: Duration = Duration::ZERO;

fn answer_entry(answer: Answer<FileAttr>, reply: ReplyEntry) {
    match answer {
        Ok(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
        Err(e) => reply.error(e),
    }
}

fn answer_empty(answer: Answer<()>, reply: ReplyEmpty) {
    match answer {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(e),
    }
}

impl Filesystem for Recorder {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut state = self.lock();
        let found = state.child(parent.0, name).and_then(|ino| state.attributes(ino));
        answer_entry(found, reply);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.lock().attributes(ino.0) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(e) => reply.error(e),
        }
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let time = |t| match t {
            TimeOrNow::SpecificTime(t) => t,
            TimeOrNow::Now => now(),
        };
        let work = || {
            let ino = ino.0;
            let mut state = self.lock();
            if let Some(size) = size {
                state.file(ino)?.set_len(size).map_err(Errno::from)?;
                state.touch(ino);
                state.log.ops.push(Op::SetSize { ino, size });
            }
            let entry = state.entry(ino)?;
            entry.mode = mode.unwrap_or(entry.mode);
            entry.accessed = atime.map_or(entry.accessed, time);
            entry.modified = mtime.map_or(entry.modified, time);
            entry.changed = now();
            state.attributes(ino)
        };
        match work() {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(e) => reply.error(e),
        }
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        match self.lock().entry(ino.0).map(|e| e.node.clone()) {
            Ok(Node::Symlink(target)) => reply.data(target.as_os_str().as_encoded_bytes()),
            Ok(_) => reply.error(Errno::EINVAL),
            Err(e) => reply.error(e),
        }
    }

    fn mknod(&self, _req: &Request, dir: INodeNo, name: &OsStr, mode: u32, umask: u32, _rdev: u32, reply: ReplyEntry) {
        let (node, special) = match rustix::fs::FileType::from_raw_mode(mode) {
            rustix::fs::FileType::RegularFile => (Node::File, None),
            rustix::fs::FileType::Socket => (Node::Special, Some(FileType::Socket)),
            rustix::fs::FileType::Fifo => (Node::Special, Some(FileType::NamedPipe)),
            _ => return reply.error(Errno::EPERM),
        };
        answer_entry(self.make(dir.0, name, node, mode & !umask, special), reply);
    }

    fn mkdir(&self, _req: &Request, dir: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        answer_entry(self.make(dir.0, name, Node::Directory, mode & !umask, None), reply);
    }

    fn symlink(&self, _req: &Request, dir: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        answer_entry(
            self.make(dir.0, name, Node::Symlink(target.to_owned()), 0o777, None),
            reply,
        );
    }

    fn unlink(&self, _req: &Request, dir: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer_empty(self.remove(dir.0, name, false), reply);
    }

    fn rmdir(&self, _req: &Request, dir: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer_empty(self.remove(dir.0, name, true), reply);
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        answer_empty(self.rename_node(parent.0, name, newparent.0, newname, flags), reply);
    }

    fn link(&self, _req: &Request, ino: INodeNo, dir: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let work = || {
            let mut state = self.lock();
            if state.child(dir.0, name).is_ok() {
                return Err(Errno::EEXIST);
            }
            state.place(dir.0, name, ino.0)?;
            state.entry(ino.0)?.links += 1;
            state.log.ops.push(Op::Link {
                ino: ino.0,
                dir: dir.0,
                name: name.to_owned(),
            });
            state.attributes(ino.0)
        };
        answer_entry(work(), reply);
    }

    fn open(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.lock().entry(ino.0) {
            Ok(_) => reply.opened(FileHandle(0), FopenFlags::empty()),
            Err(e) => reply.error(e),
        }
    }

    fn create(
        &self,
        _req: &Request,
        dir: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        match self.make(dir.0, name, Node::File, mode & !umask, None) {
            Ok(attributes) => reply.created(&TTL, &attributes, Generation(0), FileHandle(0), FopenFlags::empty()),
            Err(e) => reply.error(e),
        }
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let work = || {
            let file = self.lock().file(ino.0)?;
            let mut data = vec![0; size as usize];
            let mut filled = 0;
            while filled < data.len() {
                match file
                    .read_at(&mut data[filled..], offset + filled as u64)
                    .map_err(Errno::from)?
                {
                    0 => break,
                    n => filled += n,
                }
            }
            data.truncate(filled);
            Ok(data)
        };
        match work() {
            Ok(data) => reply.data(&data),
            Err(e) => reply.error(e),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.write_at(ino.0, offset, data, flags) {
            Ok(bytes) => reply.written(bytes),
            Err(e) => reply.error(e),
        }
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.lock().log.ops.push(Op::Fsync { ino: ino.0 });
        reply.ok();
    }

    fn fsyncdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.lock().log.ops.push(Op::FsyncDir { ino: ino.0 });
        reply.ok();
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.listing(ino.0) {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(e) => reply.error(e),
        }
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let mut state = self.lock();
        if offset == 0 {
            // rewinddir shows what is there now.
            drop(state);
            let fresh = self.listing(ino.0);
            state = self.lock();
            if let Some(listing) = fresh.ok().and_then(|handle| state.listings.remove(&handle)) {
                state.listings.insert(fh.0, listing);
            }
        }
        let Some(listing) = state.listings.get(&fh.0) else {
            return reply.error(Errno::EBADF);
        };
        for (i, (child, kind, name)) in listing
            .iter()
            .enumerate()
            .skip(usize::try_from(offset).unwrap_or(usize::MAX))
        {
            if reply.add(INodeNo(*child), i as u64 + 1, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        self.lock().listings.remove(&fh.0);
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        match rustix::fs::statvfs(&self.scratch) {
            Ok(s) => reply.statfs(
                s.f_blocks,
                s.f_bfree,
                s.f_bavail,
                s.f_files,
                s.f_ffree,
                s.f_bsize as u32,
                255,
                s.f_frsize as u32,
            ),
            Err(e) => reply.error(Errno::from_i32(e.raw_os_error())),
        }
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        answer_empty(self.allocate(ino.0, offset, length, mode), reply);
    }

    fn lseek(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        // SEEK_DATA and SEEK_HOLE of <unistd.h>; the kernel answers the others itself.
        const DATA: i32 = 3;
        const HOLE: i32 = 4;
        let work = || {
            let file = self.lock().file(ino.0)?;
            let offset = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
            let to = match whence {
                DATA => SeekFrom::Data(offset),
                HOLE => SeekFrom::Hole(offset),
                _ => return Err(Errno::EINVAL),
            };
            let found = rustix::fs::seek(&file, to).map_err(|e| Errno::from_i32(e.raw_os_error()))?;
            i64::try_from(found).map_err(|_| Errno::EOVERFLOW)
        };
        match work() {
            Ok(found) => reply.offset(found),
            Err(e) => reply.error(e),
        }
    }
}
