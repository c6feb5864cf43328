//! A disk made elsewhere, changed by a package manager while it was mounted, survives create, restore and cmp on S3.
//!
//! Once by files of this machine's packages, which are copied into a loop-mounted ext4 file system; once as a whole Debian
//! (`scripts/deps.sh` keeps it, made by mmdebstrap) that apt-get changes in a chroot of the mounted disk. Root is needed, and
//! for the second the way to the packages that this machine's apt has.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "test code; the figures belong to the report of a run"
)]

mod fixture;

use std::path::{Path, PathBuf};
use std::process::Command;

use fixture::{create, restore_args, show, verify};
use windlass_integration::disk;
use windlass_integration::process::Windlass;
use windlass_integration::s3_server::Garage;
use windlass_integration::scratch::Scratch;

fn sh(script: &str, arguments: &[&Path]) {
    let out = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script, "sh"])
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{script}\n{said}");
}

/// A loop-mounted file system, unmounted again also on panic.
struct Mounted(PathBuf);

impl Mounted {
    fn new(image: &Path, at: PathBuf) -> Self {
        std::fs::create_dir_all(&at).unwrap();
        sh("mount -o loop \"$1\" \"$2\"", &[image, &at]);
        Self(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // anything that a package's scripts mounted or left running is in the way: the lazy form waits for it
        let _ = Command::new("umount").args(["-R", "-l"]).arg(&self.0).status();
    }
}

/// Copies the files of installed packages into a root.
const UNPACK: &str = r#"
to=$1; shift
for p in $PACKAGES; do
    dpkg -L "$p" 2>/dev/null | while read -r f; do
        # packages still name /bin and /lib, which are links into /usr
        dir=$(realpath "$(dirname "$f")") && [ -e "$f" ] || continue
        mkdir -p "$to$dir"
        if [ ! -d "$f" ]; then cp -a --remove-destination "$f" "$to$dir/"; fi
    done
done
"#;

fn with_packages(packages: &str, to: &Path) {
    sh(&format!("PACKAGES='{packages}'\n{UNPACK}"), &[to]);
}

/// States: `image` as it was first, as it was later. Then the first comes back in place, and the later as a new file.
fn round(scratch: &Scratch, image: &Path, change: impl FnOnce(&Path)) {
    let garage = Garage::start().unwrap();
    let state = scratch.dir("w").unwrap().join("state");
    let windlass = garage.account.windlass(Windlass::new(&state).unwrap(), "disks");
    windlass.run(&["repo", "init", "--json"]).unwrap().success();
    let (first_copy, later_copy) = (scratch.join("first.raw"), scratch.join("later.raw"));
    disk::copy_sparse(image, &first_copy).unwrap();
    let first = create(&windlass, image);
    {
        let mounted = Mounted::new(image, scratch.join("mnt"));
        change(&mounted.0);
    }
    sh(
        "sync; while losetup -j \"$1\" | grep -q .; do sleep 0.1; done",
        &[image],
    );
    disk::copy_sparse(image, &later_copy).unwrap();
    assert!(disk::first_difference(&first_copy, &later_copy).unwrap().is_some());
    let later = create(&windlass, image);
    let report = windlass.run(&restore_args(&first, image)).unwrap().success().json();
    println!("{}", report["disks"][0]);
    sh("cmp \"$1\" \"$2\"", &[image, &first_copy]);
    sh("e2fsck -fn \"$1\"", &[image]);
    let out = scratch.join("out.raw");
    let output = show(&out);
    windlass
        .run(&["snapshot", "export", "--json", &later, "--output", &output])
        .unwrap()
        .success();
    sh("cmp \"$1\" \"$2\"", &[&out, &later_copy]);
    verify(&windlass);
}

#[test]
#[ignore = "the Debian below shows more: make torture runs both"]
fn a_disk_that_packages_changed_survives() {
    let scratch = Scratch::new("s3-disk").unwrap();
    let image = scratch.join("vm.raw");
    disk::sparse(&image, 256 << 20).unwrap();
    sh("/usr/sbin/mke2fs -q -F -t ext4 \"$1\"", &[&image]);
    {
        let mounted = Mounted::new(&image, scratch.join("mnt"));
        with_packages("bash dpkg tar libc6", &mounted.0);
    }
    sh("while losetup -j \"$1\" | grep -q .; do sleep 0.1; done", &[&image]);
    round(&scratch, &image, |root| {
        with_packages("e2fsprogs findutils grep sed", root);
        with_packages("bash tar", root);
        sh(
            "rm -rf \"$1\"/usr/share/doc; echo changed > \"$1\"/etc-changed",
            &[root],
        );
    });
}

#[test]
fn a_whole_debian_that_apt_changed_survives() {
    let scratch = Scratch::new("s3-debian").unwrap();
    let image = scratch.join("vm.raw");
    let tar = Path::new(&std::env::var_os("HOME").unwrap()).join(".cache/windlass/debian/debian.tar");
    assert!(
        tar.is_file(),
        "no {}: run `make deps` as root, which makes it",
        tar.display()
    );
    disk::sparse(&image, 2 << 30).unwrap();
    sh("/usr/sbin/mke2fs -q -F -t ext4 \"$1\"", &[&image]);
    {
        let mounted = Mounted::new(&image, scratch.join("mnt"));
        sh("tar --numeric-owner -C \"$1\" -xpf \"$2\"", &[&mounted.0, &tar]);
    }
    sh("while losetup -j \"$1\" | grep -q .; do sleep 0.1; done", &[&image]);
    round(&scratch, &image, |root| {
        // names are looked up as on this machine; what is installed starts no server
        let apt = r#"
cp -L /etc/resolv.conf /etc/hosts "$1/etc/"
printf '#!/bin/sh\nexit 101\n' > "$1/usr/sbin/policy-rc.d"; chmod +x "$1/usr/sbin/policy-rc.d"
export DEBIAN_FRONTEND=noninteractive
chroot "$1" apt-get update -q -o Acquire::Retries=3 >&2
chroot "$1" apt-get install -y -q -o Acquire::Retries=3 --no-install-recommends nginx-light redis-server >&2
chroot "$1" dpkg-query -W redis-server >&2
chroot "$1" apt-get purge -y -q nginx-light >&2
"#;
        sh(apt, &[root]);
    });
}
