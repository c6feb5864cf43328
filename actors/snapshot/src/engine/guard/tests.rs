//! The guard against made-up `/proc` and `/sys`, and against the real ones.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::*;

mod devices;

struct Host {
    _dir: tempfile::TempDir,
    root: PathBuf,
    disk: PathBuf,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        for made in [
            "proc/self",
            "proc/7/fd",
            "proc/7/fdinfo",
            "proc/9/fd",
            "proc/9/fdinfo",
            "sys/block/loop3/loop",
            "sys/block/vda",
        ] {
            fs::create_dir_all(root.join(made)).unwrap();
        }
        fs::write(root.join("proc/7/comm"), "qemu-system-x86\n").unwrap();
        let disk = root.join("web 1.raw");
        File::create(&disk).unwrap().set_len(4096).unwrap();
        Self { _dir: dir, root, disk }
    }
    fn write(&self, path: &str, text: &str) {
        fs::write(self.root.join(path), text).unwrap();
    }
    fn open_by_7(&self, flags: &str) {
        std::os::unix::fs::symlink(&self.disk, self.root.join("proc/7/fd/12")).unwrap();
        self.write("proc/7/fdinfo/12", &format!("pos:\t0\nflags:\t{flags}\nmnt_id:\t29\n"));
    }
    fn check(&self) -> Result<()> {
        Guard::new(self.root.join("proc"), self.root.join("sys"), 9).check(&self.disk)
    }
    fn refusal(&self) -> SnapshotError {
        let error = self.check().unwrap_err();
        assert_eq!(error.kind, Kind::Conflict, "{error}");
        assert!(error.message.contains("nothing was changed"), "{error}");
        error
    }
}

#[test]
fn a_free_disk_passes() {
    Host::new().check().unwrap();
}

#[test]
fn a_loop_device_is_named_with_its_mount_point() {
    let host = Host::new();
    host.write(
        "sys/block/loop3/loop/backing_file",
        &format!("{}\n", host.disk.display()),
    );
    host.write("sys/block/loop3/dev", "7:3\n");
    let error = host.refusal();
    assert!(error.message.contains("/dev/loop3"), "{error}");
    assert_eq!(error.hint.unwrap(), "losetup -d /dev/loop3");
    host.write(
        "proc/self/mountinfo",
        "36 35 7:3 / /mnt/a\\040b rw shared:1 - ext4 /dev/loop3 rw\n",
    );
    let error = host.refusal();
    assert!(error.message.contains("mounted at /mnt/a b"), "{error}");
}

#[test]
fn a_loop_device_is_found_through_a_hard_link() {
    let host = Host::new();
    let other = host.root.join("other.raw");
    fs::hard_link(&host.disk, &other).unwrap();
    host.write("sys/block/loop3/loop/backing_file", &format!("{}\n", other.display()));
    assert!(host.refusal().message.contains("/dev/loop3"));
}

#[test]
fn swap_and_file_backed_mounts_are_named() {
    let host = Host::new();
    let escaped = host.disk.display().to_string().replace(' ', "\\040");
    host.write(
        "proc/swaps",
        &format!("Filename Type Size Used Priority\n{escaped} file 4 0 -2\n"),
    );
    assert!(host.refusal().message.contains("swaps"));
    host.write("proc/swaps", "Filename\n");
    host.write(
        "proc/self/mountinfo",
        &format!("36 35 0:50 / /mnt/img ro - erofs {escaped} ro\n"),
    );
    assert!(host.refusal().message.contains("mounted at /mnt/img"));
}

#[test]
fn a_writer_is_named_a_reader_is_not() {
    for (flags, refused) in [("0100002", true), ("0100001", true), ("02100000", false)] {
        let host = Host::new();
        host.open_by_7(flags);
        if refused {
            let error = host.refusal();
            assert!(error.message.contains("process 7 (qemu-system-x86)"), "{error}");
            assert!(error.hint.unwrap().contains("process 7"));
        } else {
            host.check().unwrap();
        }
    }
}

#[test]
fn wrong_shapes_are_refused() {
    let host = Host::new();
    let guard = Guard::new(host.root.join("proc"), host.root.join("sys"), 9);
    let kind = |path: &Path| guard.check(path).unwrap_err().kind;
    assert_eq!(kind(&host.root.join("absent.raw")), Kind::NotFound);
    assert_eq!(kind(&host.root), Kind::Invalid);
    assert_eq!(kind(Path::new("/dev/null")), Kind::Invalid);
    let error = check_size(&host.disk, 4096, 8192).unwrap_err();
    assert_eq!(error.kind, Kind::Invalid);
    assert!(
        error.message.contains("4096") && error.message.contains("8192"),
        "{error}"
    );
}

#[test]
fn a_flock_of_this_process_is_seen_too() {
    let host = Host::new();
    let file = File::open(&host.disk).unwrap();
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
    assert!(host.refusal().message.contains("lock"));
    drop(file);
    host.check().unwrap();
}

#[test]
fn locks_of_others_are_seen_in_the_list() {
    let host = Host::new();
    let meta = fs::metadata(&host.disk).unwrap();
    let on = |inode: u64| {
        format!(
            "{:02x}:{:02x}:{inode}",
            rustix::fs::major(meta.dev()),
            rustix::fs::minor(meta.dev())
        )
    };
    host.write(
        "proc/locks",
        &format!("1: POSIX  ADVISORY  WRITE 7 {} 0 EOF\n", on(meta.ino())),
    );
    assert!(
        host.refusal()
            .message
            .contains("process 7 (qemu-system-x86) holds a lock")
    );
    host.write(
        "proc/locks",
        &format!("1: OFDLCK ADVISORY  READ -1 {} 100 100\n", on(meta.ino())),
    );
    assert!(host.refusal().message.contains("another process holds a lock"));
    host.write(
        "proc/locks",
        &format!("1: FLOCK  ADVISORY  WRITE 7 {} 0 EOF\n", on(meta.ino() + 1)),
    );
    host.check().unwrap();
}

/// A process that ends with the test.
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Holder {
    /// Runs a shell line that prints a line once it holds the file.
    fn new(line: &str) -> Self {
        let mut child = Command::new("/bin/sh")
            .arg("-c")
            .arg(line)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut first)
            .unwrap();
        assert_eq!(first, "held\n");
        Self(child)
    }
}

#[test]
fn real_processes_that_write_or_lock_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("web1.raw");
    File::create(&disk).unwrap().set_len(1 << 20).unwrap();
    let shown = disk.display();
    let guard = Guard::default();
    guard.check(&disk).unwrap();
    {
        let holder = Holder::new(&format!("exec 3>>'{shown}'; echo held; exec sleep 60"));
        let error = guard.check(&disk).unwrap_err();
        assert_eq!(error.kind, Kind::Conflict);
        assert!(
            error.message.contains(&format!("process {} (", holder.0.id())),
            "{error}"
        );
    }
    {
        let holder = Holder::new(&format!(
            "exec 3<'{shown}'; flock -n -x 3 || exit 1; echo held; exec sleep 60"
        ));
        let error = guard.check(&disk).unwrap_err();
        assert!(error.message.contains("holds a lock"), "{error}");
        drop(holder);
    }
    guard.check(&disk).unwrap();
}

/// Detaches when dropped.
struct Loop(String);

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("/sbin/losetup").args(["-d", &self.0]).status();
    }
}

/// Needs root and a free loop device; where there is none the test above it covers the logic, and this says so.
#[test]
fn a_real_loop_device_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("web1.raw");
    File::create(&disk).unwrap().set_len(1 << 20).unwrap();
    let made = Command::new("/sbin/losetup")
        .args(["--find", "--show"])
        .arg(&disk)
        .output();
    let device = match made {
        Ok(out) if out.status.success() => Loop(String::from_utf8(out.stdout).unwrap().trim().to_owned()),
        other => {
            assert!(
                !rustix::process::geteuid().is_root(),
                "losetup failed for root: {other:?}"
            );
            eprintln!("not root: no loop device to be had, real loop test left out");
            return;
        }
    };
    let error = Guard::default().check(&disk).unwrap_err();
    assert_eq!(error.kind, Kind::Conflict);
    assert!(error.message.contains(&device.0), "{error}");
    assert_eq!(error.hint.clone().unwrap(), format!("losetup -d {}", device.0));
    drop(device);
    Guard::default().check(&disk).unwrap();
}
