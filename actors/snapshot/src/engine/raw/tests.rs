use std::io::IoSliceMut;
use std::os::unix::fs::symlink;

use rustix::io::{ReadWriteFlags, preadv2};

use super::*;

const MIB: u64 = 1 << 20;

fn sparse(dir: &Path, size_bytes: u64, data: &[(u64, Vec<u8>)]) -> PathBuf {
    let path = dir.join("disk.raw");
    let file = File::create(&path).unwrap();
    file.set_len(size_bytes).unwrap();
    for (offset, bytes) in data {
        file.write_all_at(bytes, *offset).unwrap();
    }
    path
}

fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| seed.wrapping_add((i * 7 + i / 251) as u8)).collect()
}

fn kind_of(result: Result<RawDisk>) -> (Kind, String) {
    let error = result.unwrap_err();
    (error.kind, error.message)
}

#[test]
fn what_is_no_disk_is_refused_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    let empty = dir.path().join("empty");
    File::create(&empty).unwrap();
    let socket = dir.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for (path, word) in [
        (dir.path(), "directory"),
        (&*fifo, "FIFO"), // an open that waited for a writer would hang here
        (&*empty, "empty"),
        (&*socket, "socket"),
        (Path::new("/dev/null"), "character device"),
    ] {
        for result in [RawDisk::open_read(path), RawDisk::open_write(path)] {
            let (kind, message) = kind_of(result);
            assert_eq!(kind, Kind::Invalid, "{message}");
            assert!(
                message.contains(word) && message.contains(path.to_str().unwrap()),
                "{message}"
            );
        }
    }
    assert_eq!(
        kind_of(RawDisk::open_read(&dir.path().join("absent"))).0,
        Kind::NotFound
    );
}

#[test]
fn a_symlink_is_followed_and_a_second_writer_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = sparse(dir.path(), MIB, &[(0, vec![1])]);
    let link = dir.path().join("link");
    symlink(&path, &link).unwrap();
    let disk = RawDisk::open_write(&link).unwrap();
    let (kind, message) = kind_of(RawDisk::open_write(&path));
    assert_eq!(kind, Kind::Conflict, "{message}");
    let reader = RawDisk::open_read(&path).unwrap();
    assert_eq!(reader.fingerprint().unwrap(), disk.fingerprint().unwrap());
    drop(disk);
    RawDisk::open_write(&path).unwrap();
}

#[test]
fn extents_read_and_write_within_the_disk_only() {
    let dir = tempfile::tempdir().unwrap();
    let data = pattern(3, 65536);
    let path = sparse(
        dir.path(),
        8 * MIB + 100,
        &[(MIB, data.clone()), (4 * MIB, data.clone())],
    );
    let disk = RawDisk::open_write(&path).unwrap();
    assert_eq!(disk.size_bytes(), 8 * MIB + 100);
    let mut at = 0;
    let mut seen = 0;
    while let Some(run) = disk.next_data(at).unwrap() {
        assert!(run.start >= at && run.end > run.start && run.end <= disk.size_bytes());
        seen += run.end - run.start;
        at = run.end;
    }
    assert!(seen >= 2 * 65536, "{seen}");
    assert!(disk.allocated_bytes().unwrap() >= 2 * 65536);
    assert!(disk.next_data(disk.size_bytes()).unwrap().is_none());
    assert!(disk.next_data(u64::MAX).unwrap().is_none());

    let mut buffer = vec![9; 65536];
    disk.read_at(&mut buffer, 4 * MIB).unwrap();
    assert_eq!(buffer, data);
    assert_eq!(disk.read_at(&mut buffer, 8 * MIB).unwrap_err().kind, Kind::Conflict);

    disk.write_at(&[7; 100], 8 * MIB).unwrap();
    assert_eq!(disk.write_at(&[7; 101], 8 * MIB).unwrap_err().kind, Kind::Internal);
    assert_eq!(disk.write_at(&[7], u64::MAX).unwrap_err().kind, Kind::Internal);
    assert_eq!(disk.punch(8 * MIB..8 * MIB + 101).unwrap_err().kind, Kind::Internal);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 8 * MIB + 100);
    let reader = RawDisk::open_read(&path).unwrap();
    assert_eq!(reader.write_at(&[7], 0).unwrap_err().kind, Kind::Internal);
}

#[test]
fn a_punched_run_reads_as_zeros_to_the_byte_and_gives_blocks_back() {
    let dir = tempfile::tempdir().unwrap();
    let data = pattern(5, 4 << 20);
    let path = sparse(dir.path(), 4 * MIB, &[(0, data.clone())]);
    let disk = RawDisk::open_write(&path).unwrap();
    disk.sync().unwrap();
    let before = disk.allocated_bytes().unwrap();
    disk.punch(MIB + 1..3 * MIB - 1).unwrap();
    disk.punch(5..5).unwrap();
    let mut want = data;
    want[MIB as usize + 1..3 * MIB as usize - 1].fill(0);
    let mut got = vec![1; 4 << 20];
    disk.read_at(&mut got, 0).unwrap();
    assert!(got == want);
    assert!(disk.allocated_bytes().unwrap() <= before - 2 * MIB + 2 * 4096);
    // The way of filesystems without holes leaves the same bytes.
    disk.write_at(&[1; 4096], 3 * MIB - 4096).unwrap();
    disk.write_zeros(3 * MIB - 4096..3 * MIB).unwrap();
    want[3 * MIB as usize - 4096..3 * MIB as usize].fill(0);
    disk.read_at(&mut got, 0).unwrap();
    assert!(got == want);
}

/// Whether a byte is in the page cache: `RWF_NOWAIT` answers only from there. `None` where that is not known.
fn cached(file: &File, offset: u64) -> Option<bool> {
    let mut byte = [0];
    match preadv2(file, &mut [IoSliceMut::new(&mut byte)], offset, ReadWriteFlags::NOWAIT) {
        Ok(_) => Some(true),
        Err(Errno::AGAIN) => Some(false),
        Err(_) => None,
    }
}

#[test]
fn read_back_comes_from_the_medium() {
    // Beside this program: temporary directories are often tmpfs, where the cache is the medium.
    let dir = tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
    let data = pattern(8, 1 << 20);
    let path = sparse(dir.path(), 4 * MIB + 5, &[]);
    let disk = RawDisk::open_write(&path).unwrap();
    disk.write_at(&data, MIB + 300).unwrap();
    disk.write_at(&[6; 5], 4 * MIB).unwrap();
    disk.sync().unwrap();
    let probes = [MIB + 300, MIB + MIB / 2, 2 * MIB, 4 * MIB];
    if probes.iter().any(|at| cached(&disk.file, *at) != Some(true)) || disk.direct().is_none() {
        eprintln!("this filesystem has no page cache to look into or no direct reads: not tested");
        return;
    }
    let mut got = vec![0; 1 << 20];
    disk.read_back(&mut got, MIB + 300).unwrap();
    assert!(got == data);
    let mut tail = [0; 5];
    disk.read_back(&mut tail, 4 * MIB).unwrap();
    assert_eq!(tail, [6; 5]);
    // The pages were dropped and the reads did not bring them back: so the bytes came from below the cache.
    for at in probes {
        assert_eq!(
            cached(&disk.file, at),
            Some(false),
            "byte {at} was answered from the cache"
        );
    }
    // An ordinary read does bring them back: the probe above can fail.
    disk.read_at(&mut got, MIB + 300).unwrap();
    assert_eq!(cached(&disk.file, MIB + 300), Some(true));
    assert_eq!(disk.read_back(&mut [0; 6], 4 * MIB).unwrap_err().kind, Kind::Conflict);
    disk.read_back(&mut [], 0).unwrap();
}

#[test]
fn a_changed_disk_has_another_fingerprint() {
    let dir = tempfile::tempdir().unwrap();
    let path = sparse(dir.path(), MIB, &[(0, vec![1])]);
    let disk = RawDisk::open_read(&path).unwrap();
    let before = disk.fingerprint().unwrap();
    assert_eq!(before, disk.fingerprint().unwrap());
    std::thread::sleep(std::time::Duration::from_millis(30)); // longer than the clock tick of older kernels' timestamps
    std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .write_all_at(&[2], 0)
        .unwrap();
    assert_ne!(before, disk.fingerprint().unwrap());
}
