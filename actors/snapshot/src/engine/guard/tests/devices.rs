//! Who stands on a block device, its partitions, or the device that it is a partition of, by a made-up `/sys`: device mapper,
//! MD and btrfs among them, which not every kernel has. `integration/tests/devices.rs` has real ones.

use std::os::unix::fs::symlink;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use super::*;

/// A device `sdz` with the partitions `sdz1` and `sdz2`; nodes of all three, which need no driver. `None` without root.
fn host() -> Option<Host> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: no device nodes to be had, this test is left out");
        return None;
    }
    let host = Host::new();
    let whole = "sys/devices/sdz";
    for (minor, (name, directory)) in [
        ("sdz", whole.to_owned()),
        ("sdz1", format!("{whole}/sdz1")),
        ("sdz2", format!("{whole}/sdz2")),
    ]
    .into_iter()
    .enumerate()
    {
        fs::create_dir_all(host.root.join(&directory).join("holders")).unwrap();
        host.write(&format!("{directory}/dev"), &format!("240:{minor}\n"));
        if minor > 0 {
            host.write(&format!("{directory}/partition"), &format!("{minor}\n"));
        }
        fs::create_dir_all(host.root.join("sys/dev/block")).unwrap();
        let link = host.root.join(format!("sys/dev/block/240:{minor}"));
        symlink(host.root.join(&directory), link).unwrap();
        let minor = u32::try_from(minor).unwrap();
        let mode = Mode::RUSR | Mode::WUSR;
        mknodat(
            CWD,
            host.root.join(name),
            FileType::BlockDevice,
            mode,
            makedev(240, minor),
        )
        .unwrap();
    }
    Some(host)
}

impl Host {
    /// What is said of each user of a node.
    fn said_of(&self, name: &str) -> Vec<String> {
        let guard = Guard::new(self.root.join("proc"), self.root.join("sys"), 9);
        let path = self.root.join(name);
        let users = guard.users(&path, &fs::metadata(&path).unwrap());
        users.into_iter().map(|user| user.what).collect()
    }
}

#[test]
fn a_free_device_has_no_users() {
    let Some(host) = host() else { return };
    for name in ["sdz", "sdz1", "sdz2"] {
        assert_eq!(host.said_of(name), Vec::<String>::new());
    }
}

#[test]
fn users_of_a_device_its_partitions_and_its_whole_are_named() {
    // what is made: on sdz1; what is said of sdz and of sdz1. Nothing is said of sdz2
    let node = |host: &Host| host.root.join("sdz1").display().to_string().replace(' ', "\\040");
    type Make = fn(&Host, String);
    let table: [(Make, &str); 6] = [
        (
            |host, _| host.write("sys/devices/sdz/sdz1/holders/dm-3", ""),
            "is part of /dev/dm-3",
        ),
        (
            |host, _| host.write("proc/self/mountinfo", "36 35 240:1 / /mnt/x rw - ext4 /dev/sdz1 rw\n"),
            "is mounted at /mnt/x",
        ),
        (
            // a file system with numbers of its own
            |host, node| {
                host.write(
                    "proc/self/mountinfo",
                    &format!("36 35 0:55 / /mnt/x rw - btrfs {node} rw\n"),
                )
            },
            "is mounted at /mnt/x",
        ),
        (
            |host, node| {
                fs::create_dir_all(host.root.join("sys/block/loop3/loop")).unwrap();
                host.write("sys/block/loop3/loop/backing_file", &format!("{node}\n"));
            },
            "backs /dev/loop3",
        ),
        (
            |host, _| {
                fs::create_dir_all(host.root.join("sys/fs/btrfs/u-u-i-d/devices")).unwrap();
                let (from, to) = ("sys/devices/sdz/sdz1", "sys/fs/btrfs/u-u-i-d/devices/sdz1");
                symlink(host.root.join(from), host.root.join(to)).unwrap();
            },
            "is part of the mounted btrfs u-u-i-d",
        ),
        (
            |host, _| {
                symlink(host.root.join("sdz1"), host.root.join("proc/7/fd/12")).unwrap();
                host.write("proc/7/fdinfo/12", "pos:\t0\nflags:\t0100002\n");
            },
            "open for writing",
        ),
    ];
    for (make, said) in table {
        let Some(host) = host() else { return };
        make(&host, node(&host));
        for (name, is) in [("sdz", "its partition sdz1"), ("sdz1", "it")] {
            let all = host.said_of(name);
            assert_eq!(all.len(), 1, "{said}: {all:?}");
            assert!(
                all[0].contains(&format!("{is} ")) && all[0].contains(said),
                "{said}: {all:?}"
            );
        }
        assert_eq!(host.said_of("sdz2"), Vec::<String>::new(), "{said}");
    }
}

#[test]
fn swap_and_what_is_made_of_the_whole_device_are_named_too() {
    let Some(host) = host() else { return };
    let node = host.root.join("sdz1").display().to_string();
    host.write(
        "proc/swaps",
        &format!("Filename Type Size Used Priority\n{node} partition 4 0 -2\n"),
    );
    assert_eq!(host.said_of("sdz"), ["the host swaps to its partition sdz1"]);
    assert_eq!(host.said_of("sdz1"), [format!("the host swaps to it ({node})")]);
    host.write("proc/swaps", "Filename\n");
    // a RAID of whole devices, whose partitions the kernel shows all the same
    host.write("sys/devices/sdz/holders/md9", "");
    assert_eq!(host.said_of("sdz"), ["it is part of /dev/md9"]);
    for name in ["sdz1", "sdz2"] {
        let wanted = "the device sdz that it is a partition of is part of /dev/md9";
        assert_eq!(host.said_of(name), [wanted]);
    }
}
