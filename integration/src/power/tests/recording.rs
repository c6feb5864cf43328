//! The mount: it behaves like a file system, and its log tells what was done.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;

use super::super::*;
use crate::scratch::Scratch;
use crate::{disk, tree};

/// Mounts, does `work`, and gives the log; checks that the mount showed what `Everything` rebuilds.
fn recorded(prepare: impl FnOnce(&Path), work: impl FnOnce(&Recording)) -> (Scratch, Log) {
    let scratch = Scratch::new("fuse").unwrap();
    let (initial, mount) = (scratch.dir("initial").unwrap(), scratch.dir("mount").unwrap());
    prepare(&initial);
    let recording = Recording::mount(&initial, &mount, &scratch.dir("bytes").unwrap()).unwrap();
    work(&recording);
    let live = tree::read(&mount).unwrap();
    let log = recording.finish().unwrap();
    assert_eq!(fs::read_dir(&mount).unwrap().count(), 0, "still mounted");
    let after = scratch.join("everything");
    CrashStates::new(&initial, &log)
        .materialise(log.ops.len() - 1, Policy::Everything, &after)
        .unwrap();
    assert_eq!(
        tree::differences(&live, &tree::read(&after).unwrap()),
        Vec::<String>::new()
    );
    (scratch, log)
}

fn sh(dir: &Path, script: &str) -> String {
    let out = Command::new("/bin/sh")
        .args(["-e", "-c", script])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).into_owned()
}

#[test]
fn a_shell_program_on_the_mount() {
    let prepare = |dir: &Path| {
        fs::write(dir.join("config"), b"version 1").unwrap();
        disk::write_files(&dir.join("files"), 3, 300_000).unwrap_or_else(|_| panic!("files"));
    };
    let (scratch, log) = recorded(
        |dir| {
            fs::create_dir(dir.join("files")).unwrap();
            prepare(dir);
        },
        |recording| {
            let dir = recording.path();
            sh(
                dir,
                "mkdir sub
                 printf 'version 2' > config.tmp
                 sync config.tmp
                 mv config.tmp config
                 dd if=/dev/zero of=sub/big bs=64k count=40 conv=fsync status=none
                 dd if=/dev/urandom of=sub/direct bs=4096 count=3 oflag=direct status=none
                 ln config sub/second-name; ln -s config link
                 rm -r files/d0
                 truncate -s 1M sub/sparse
                 sync sub/direct sub",
            );
            recording.mark("before the last fsync");
            sh(dir, "sync .");
        },
    );
    let initial = scratch.join("initial");
    let states = CrashStates::new(&initial, &log);
    let last = log.ops.len() - 1;
    let nothing = scratch.fresh("nothing").unwrap();
    states.materialise(last, Policy::Nothing, &nothing).unwrap();
    assert_eq!(fs::read(nothing.join("config")).unwrap(), b"version 2");
    assert_eq!(fs::metadata(nothing.join("sub/big")).unwrap().len(), 40 << 16);
    assert_eq!(fs::metadata(nothing.join("sub/direct")).unwrap().len(), 3 * 4096);
    assert_eq!(
        fs::metadata(nothing.join("sub/sparse")).unwrap().len(),
        0,
        "its size was never fsynced"
    );
    let before = log.mark("before the last fsync").unwrap();
    let before_it = scratch.fresh("before").unwrap();
    states.materialise(before, Policy::Nothing, &before_it).unwrap();
    assert_eq!(fs::read(before_it.join("config")).unwrap(), b"version 1");
    assert!(
        !before_it.join("sub").exists(),
        "fsync of sub does not keep its own name"
    );
    for at in log.crash_points(60) {
        for policy in [
            Policy::Nothing,
            Policy::Everything,
            Policy::ReorderedLast,
            Policy::Random(at as u64),
        ] {
            let after = scratch.fresh("after").unwrap();
            states.materialise(at, policy, &after).unwrap();
            let config = fs::read(after.join("config")).unwrap();
            assert!(
                config == b"version 1" || config == b"version 2",
                "after {at} {policy:?}: {config:?}"
            );
        }
    }
}

#[test]
fn the_mount_behaves_like_a_file_system() {
    recorded(
        |dir| {
            let disk = disk::sparse(&dir.join("disk"), 8 << 20).unwrap();
            disk.write_all_at(&[9; 10_000], 4 << 20).unwrap();
        },
        |recording| {
            let dir = recording.path();
            let disk = File::options().read(true).write(true).open(dir.join("disk")).unwrap();
            // Holes, allocation, punching.
            assert_eq!(disk::data_ranges(&disk).unwrap(), vec![4 << 20..(4 << 20) + 12_288]);
            disk::punch_hole(&disk, 4 << 20, 4096).unwrap();
            assert_eq!(
                disk::data_ranges(&disk).unwrap(),
                vec![(4 << 20) + 4096..(4 << 20) + 12_288]
            );
            let mut buffer = [1; 5000];
            disk.read_exact_at(&mut buffer, 4 << 20).unwrap();
            assert!(buffer[..4096].iter().all(|b| *b == 0) && buffer[4096..].iter().all(|b| *b == 9));
            use rustix::fs::FallocateFlags as F;
            rustix::fs::fallocate(&disk, F::empty(), 8 << 20, 4096).unwrap();
            rustix::fs::fallocate(&disk, F::ZERO_RANGE | F::KEEP_SIZE, (4 << 20) + 4096, 4096).unwrap();
            assert_eq!(disk.metadata().unwrap().len(), (8 << 20) + 4096);
            // mtime moves with a write.
            let before = disk.metadata().unwrap().modified().unwrap();
            std::thread::sleep(std::time::Duration::from_millis(5));
            disk.write_all_at(b"x", 0).unwrap();
            assert!(disk.metadata().unwrap().modified().unwrap() > before);
            disk.set_modified(before).unwrap();
            assert_eq!(disk.metadata().unwrap().modified().unwrap(), before);
            // O_SYNC, a removed file that is open, rename over, rewinding a listing.
            let mut synced = File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .custom_flags(0o4_010_000)
                .open(dir.join("s"))
                .unwrap();
            synced.write_all(b"synced").unwrap();
            fs::write(dir.join("t"), b"over").unwrap();
            let mut open = File::open(dir.join("s")).unwrap();
            fs::rename(dir.join("t"), dir.join("s")).unwrap();
            let mut text = String::new();
            open.read_to_string(&mut text).unwrap();
            assert_eq!((text.as_str(), open.metadata().unwrap().nlink()), ("synced", 0));
            assert_eq!(fs::read(dir.join("s")).unwrap(), b"over");
            assert_eq!(fs::read_dir(dir).unwrap().count(), 2);
            // Locks are the kernel's.
            let other = File::open(dir.join("disk")).unwrap();
            disk.lock().unwrap();
            assert!(matches!(other.try_lock(), Err(fs::TryLockError::WouldBlock)));
            // A large directory, a socket, statfs.
            fs::create_dir(dir.join("many")).unwrap();
            for i in 0..1000 {
                File::create(dir.join(format!("many/a-rather-long-name-{i}"))).unwrap();
            }
            assert_eq!(fs::read_dir(dir.join("many")).unwrap().count(), 1000);
            assert!(fs::remove_dir(dir.join("many")).is_err());
            drop(std::os::unix::net::UnixListener::bind(dir.join("socket")).unwrap());
            fs::remove_file(dir.join("socket")).unwrap();
            assert!(rustix::fs::statvfs(dir).unwrap().f_bavail > 0);
        },
    );
}

#[test]
fn a_synced_write_is_marked_and_fsyncs_are_in_order() {
    let (_scratch, log) = recorded(
        |_| (),
        |recording| {
            let path = recording.path().join("f");
            // O_DSYNC
            let mut f = File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .custom_flags(0o10_000)
                .open(&path)
                .unwrap();
            f.write_all(b"one").unwrap();
            drop(f);
            let mut f = File::options().append(true).open(&path).unwrap();
            f.write_all(b"two").unwrap();
            f.sync_data().unwrap();
            File::open(recording.path()).unwrap().sync_all().unwrap();
        },
    );
    let ops: Vec<_> = log.ops.iter().filter(|op| !matches!(op, Op::SetSize { .. })).collect();
    assert!(matches!(ops[0], Op::Create { dir: ROOT, ino: 2, .. }), "{ops:?}");
    assert!(
        matches!(
            ops[1],
            Op::Write {
                ino: 2,
                offset: 0,
                sync: true,
                ..
            }
        ),
        "{ops:?}"
    );
    let rest: Vec<_> = ops[2..].iter().filter(|op| !matches!(op, Op::Fsync { .. })).collect();
    assert!(
        matches!(
            rest[0],
            Op::Write {
                ino: 2,
                offset: 3,
                sync: false,
                ..
            }
        ),
        "{ops:?}"
    );
    assert!(matches!(ops[ops.len() - 2], Op::Fsync { ino: 2 }), "{ops:?}");
    assert!(matches!(ops[ops.len() - 1], Op::FsyncDir { ino: ROOT }), "{ops:?}");
}

#[test]
fn a_mount_that_cannot_be_says_what_is_needed() {
    let scratch = Scratch::new("fuse").unwrap();
    let (initial, bytes) = (scratch.dir("initial").unwrap(), scratch.dir("bytes").unwrap());
    let e = Recording::mount(&initial, &scratch.join("not-there"), &bytes).unwrap_err();
    assert!(e.to_string().contains("/dev/fuse"), "{e}");
}
