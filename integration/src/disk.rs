//! Disks: real ext4 images without root, sparse files, comparison.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{AtFlags, CWD, FallocateFlags, SeekFrom, Timespec, Timestamps, utimensat};

use crate::Random;

/// Bytes that are read and written at a time.
const STEP_BYTES: usize = 1 << 20;

/// The full path of a tool of e2fsprogs: Debian keeps them out of people's `PATH`.
///
/// # Errors
/// `NotFound` with the package to install.
pub fn e2fs_tool(name: &str) -> io::Result<PathBuf> {
    let places = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
    places
        .iter()
        .map(|p| Path::new(p).join(name))
        .find(|p| p.is_file())
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("{name} is not here: install the package e2fsprogs"),
            )
        })
}

/// Writes a tree of files, the same for the same seed: nested directories, text that compresses, random bytes, zeros, small
/// and large, an empty file, a hard link and a symbolic link. About `bytes` in all.
///
/// # Errors
/// I/O errors of writing.
pub fn write_files(dir: &Path, seed: u64, bytes: u64) -> io::Result<()> {
    let mut random = Random::new(seed);
    let mut left = bytes;
    let mut number = 0;
    while left > 0 {
        let size = match random.below(10) {
            0..=5 => 200 + random.below(20_000),
            6..=8 => 20_000 + random.below(500_000),
            _ => 500_000 + random.below(4_000_000),
        };
        let size = size.min(left);
        let path = dir.join(format!("d{}/e{}", number % 7, number % 3));
        fs::create_dir_all(&path)?;
        let (name, body) = match random.below(4) {
            0 => ("random", random_bytes(&mut random, size)),
            1 if size > 100_000 => ("zeros", vec![0; size as usize]),
            _ => ("text", text(&mut random, size)),
        };
        fs::write(path.join(format!("{name}-{number}")), body)?;
        left -= size;
        number += 1;
    }
    fs::write(dir.join("empty"), b"")?;
    fs::write(dir.join("original"), b"two names")?;
    fs::hard_link(dir.join("original"), dir.join("hard-link"))?;
    std::os::unix::fs::symlink("original", dir.join("symbolic-link"))?;
    set_times(dir)
}

/// Gives all of a tree one time of access, far enough in the future that reading it doesn't set another: mke2fs copies it.
fn set_times(path: &Path) -> io::Result<()> {
    let at = |tv_sec| Timespec { tv_sec, tv_nsec: 0 };
    let times = Timestamps {
        last_access: at(2_100_000_000),
        last_modification: at(1_700_000_000),
    };
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            set_times(&entry?.path())?;
        }
    }
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// `bytes` of random data.
pub fn random_bytes(random: &mut Random, bytes: u64) -> Vec<u8> {
    let mut body = vec![0; bytes as usize];
    random.fill(&mut body);
    body
}

/// `bytes` of words, which compress to about a third.
pub fn text(random: &mut Random, bytes: u64) -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "server",
        "listen",
        "127.0.0.1",
        "the",
        "error",
        "connection",
        "of",
        "\n",
        "request",
        "=",
        "true",
        "warning",
        "0x7f",
        "/var/lib",
        "timeout",
        ";\n",
    ];
    let mut body = Vec::with_capacity(bytes as usize + 32);
    while (body.len() as u64) < bytes {
        if random.one_in(6) {
            let _ = write!(body, "{} ", random.below(100_000));
        } else {
            body.extend_from_slice(WORDS[random.below(16) as usize].as_bytes());
            body.push(b' ');
        }
    }
    body.truncate(bytes as usize);
    body
}

/// Makes `image` a sparse ext4 disk of `size_bytes` with the files of `from`, the same for the same input.
///
/// # Errors
/// A missing tool with its package, or what mke2fs said.
pub fn ext4(image: &Path, size_bytes: u64, from: &Path) -> io::Result<()> {
    drop(File::create(image)?);
    let uuid = "6f1d7a52-0000-4000-8000-77696e646c61";
    let mut command = Command::new(e2fs_tool("mke2fs")?);
    command
        .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-U", uuid, "-E"])
        .arg(format!(
            "hash_seed={uuid},root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1"
        ))
        .arg("-d")
        .args([from, image])
        .arg(format!("{}k", size_bytes / 1024))
        .env("E2FSPROGS_FAKE_TIME", "1700000000");
    run(&mut command).map(drop)
}

/// Runs debugfs commands on an image, writing. debugfs exits with 0 whatever happens, so all that it says beside its banner
/// and the echo of the commands on its error stream counts as an error.
///
/// # Errors
/// A missing tool with its package, or what debugfs said.
pub fn debugfs(image: &Path, commands: &[&str]) -> io::Result<String> {
    let mut child = Command::new(e2fs_tool("debugfs")?)
        .args([OsStr::new("-w"), OsStr::new("-f"), OsStr::new("-"), image.as_os_str()])
        .env("E2FSPROGS_FAKE_TIME", "1700000100")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let input = commands.join("\n") + "\n";
    child
        .stdin
        .take()
        .ok_or_else(|| io::Error::other("debugfs has no input"))?
        .write_all(input.as_bytes())?;
    let out = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&out.stderr);
    let wrong: Vec<&str> = said
        .lines()
        .filter(|l| !l.starts_with("debugfs ") && !l.trim().is_empty())
        .collect();
    if !out.status.success() || !wrong.is_empty() {
        return Err(io::Error::other(format!(
            "debugfs of {}: {}",
            image.display(),
            wrong.join("; ")
        )));
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Checks an ext4 image without changing it.
///
/// # Errors
/// A missing tool with its package, or what e2fsck found.
pub fn check_ext4(image: &Path) -> io::Result<()> {
    run(Command::new(e2fs_tool("e2fsck")?).args(["-f", "-n"]).arg(image)).map(drop)
}

fn run(command: &mut Command) -> io::Result<Vec<u8>> {
    let out = command.stdin(Stdio::null()).output()?;
    if out.status.success() {
        return Ok(out.stdout);
    }
    let said = [
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr),
    ]
    .concat();
    Err(io::Error::other(format!(
        "{command:?}: {}: {}",
        out.status,
        said.trim()
    )))
}

/// A file of `size_bytes` that holds nothing.
///
/// # Errors
/// I/O errors of making it.
pub fn sparse(path: &Path, size_bytes: u64) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    file.set_len(size_bytes)?;
    Ok(file)
}

/// Overwrites a part of a file that exists.
///
/// # Errors
/// I/O errors of writing.
pub fn overwrite(path: &Path, offset: u64, data: &[u8]) -> io::Result<()> {
    File::options().write(true).open(path)?.write_all_at(data, offset)
}

/// Makes a part of a file a hole; its size stays.
///
/// # Errors
/// I/O errors; not every file system can.
pub fn punch_hole(file: &File, offset: u64, length: u64) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(file, flags, offset, length).map_err(Into::into)
}

/// Bytes that a file takes on its file system.
///
/// # Errors
/// I/O errors of stat.
pub fn allocated_bytes(path: &Path) -> io::Result<u64> {
    Ok(fs::metadata(path)?.blocks() * 512)
}

/// The parts of a file that are not holes, as `SEEK_DATA` tells them.
///
/// # Errors
/// I/O errors of seeking.
pub fn data_ranges(file: &File) -> io::Result<Vec<Range<u64>>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    loop {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => return Ok(ranges),
            Err(e) => return Err(e.into()),
        };
        at = rustix::fs::seek(file, SeekFrom::Hole(start))?;
        ranges.push(start..at);
    }
}

/// Copies a file with its holes.
///
/// # Errors
/// I/O errors of reading and writing.
pub fn copy_sparse(from: &Path, to: &Path) -> io::Result<()> {
    let source = File::open(from)?;
    let target = sparse(to, source.metadata()?.len())?;
    let mut buffer = vec![0; STEP_BYTES];
    for range in data_ranges(&source)? {
        let mut at = range.start;
        while at < range.end {
            let step = usize::try_from(range.end - at).unwrap_or(STEP_BYTES).min(STEP_BYTES);
            source.read_exact_at(&mut buffer[..step], at)?;
            target.write_all_at(&buffer[..step], at)?;
            at += step as u64;
        }
    }
    Ok(())
}

/// Offset of the first byte in which two files differ; where one ends, if it is the beginning of the other.
///
/// # Errors
/// I/O errors of reading.
pub fn first_difference(a: &Path, b: &Path) -> io::Result<Option<u64>> {
    let (a, b) = (File::open(a)?, File::open(b)?);
    let (size_a, size_b) = (a.metadata()?.len(), b.metadata()?.len());
    let (mut left, mut right) = (vec![0; STEP_BYTES], vec![0; STEP_BYTES]);
    let mut at = 0;
    let common = size_a.min(size_b);
    while at < common {
        let step = usize::try_from(common - at).unwrap_or(STEP_BYTES).min(STEP_BYTES);
        a.read_exact_at(&mut left[..step], at)?;
        b.read_exact_at(&mut right[..step], at)?;
        if left[..step] != right[..step] {
            let within = left[..step]
                .iter()
                .zip(&right[..step])
                .position(|(x, y)| x != y)
                .unwrap_or(0);
            return Ok(Some(at + within as u64));
        }
        at += step as u64;
    }
    Ok((size_a != size_b).then_some(common))
}

/// Panics with the first offset in which two files differ.
///
/// # Panics
/// When they differ, or can't be read.
#[track_caller]
pub fn assert_same(a: &Path, b: &Path) {
    match first_difference(a, b) {
        Ok(None) => {}
        Ok(Some(at)) => panic!("{} and {} differ at byte {at}", a.display(), b.display()),
        Err(e) => panic!("comparing {} and {}: {e}", a.display(), b.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_real_disk_is_the_same_each_time_and_can_be_edited() {
        let scratch = Scratch::new("disk").unwrap();
        let (a, b, files) = (
            scratch.join("a.img"),
            scratch.join("b.img"),
            scratch.dir("files").unwrap(),
        );
        write_files(&files, 7, 6 << 20).unwrap();
        ext4(&a, 64 << 20, &files).unwrap();
        ext4(&b, 64 << 20, &files).unwrap();
        check_ext4(&a).unwrap();
        assert_eq!(fs::metadata(&a).unwrap().len(), 64 << 20);
        let allocated = allocated_bytes(&a).unwrap();
        assert!((2 << 20..24 << 20).contains(&allocated), "{allocated} bytes allocated");
        assert!(data_ranges(&File::open(&a).unwrap()).unwrap().len() > 1);
        assert_same(&a, &b);
        debugfs(&b, &["rm /original", "mkdir /new"]).unwrap();
        assert!(first_difference(&a, &b).unwrap().is_some());
        assert!(
            debugfs(&b, &["rm /not-there"])
                .unwrap_err()
                .to_string()
                .contains("File not found")
        );
        assert!(debugfs(&a, &["ls -p /"]).unwrap().contains("symbolic-link"));
    }

    #[test]
    fn copies_keep_holes_and_differences_are_found() {
        let scratch = Scratch::new("sparse").unwrap();
        let (a, b) = (scratch.join("a"), scratch.join("b"));
        let file = sparse(&a, 10 << 20).unwrap();
        overwrite(&a, 3 << 20, &[7; 100_000]).unwrap();
        overwrite(&a, (10 << 20) - 1, &[1]).unwrap();
        copy_sparse(&a, &b).unwrap();
        assert_same(&a, &b);
        assert!(allocated_bytes(&b).unwrap() < 200_000);
        punch_hole(&file, 3 << 20, 4096).unwrap();
        assert_eq!(first_difference(&a, &b).unwrap(), Some(3 << 20));
        drop(sparse(&b, 5).unwrap());
        assert_eq!(first_difference(&a, &b).unwrap(), Some(5));
    }
}
