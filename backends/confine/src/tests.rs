//! Each test confines the process that it runs in: nextest gives each its own. Under `cargo test` they run in threads of one
//! process, and each confines its thread alone.

use std::fs;
use std::process::Command;

use super::*;

fn policy(files: Files) -> Policy {
    Policy {
        capabilities: vec![Capability::DacOverride],
        runs_programs: false,
        files,
    }
}

fn of_status(name: &str) -> String {
    let text = fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect(name);
    line.trim_start_matches(':').trim().to_owned()
}

#[test]
fn what_is_given_up_is_gone() {
    assert!(Command::new("/bin/true").status().unwrap().success(), "before");
    let was_root = rustix::process::geteuid().is_root();
    let confined = confine(&policy(Files::Anywhere));
    assert!(
        confined.no_new_privs && matches!(confined.seccomp, Layer::On(_)),
        "{confined:?}"
    );
    assert_eq!(
        (of_status("NoNewPrivs"), of_status("Seccomp")),
        ("1".into(), "2".into())
    );
    let kept = u64::from_str_radix(&of_status("CapEff"), 16).unwrap();
    assert_eq!(kept & !(1 << 1), 0, "no more than CAP_DAC_OVERRIDE");
    if was_root {
        assert_eq!(confined.capabilities, ["CAP_DAC_OVERRIDE"]);
        assert_eq!(u64::from_str_radix(&of_status("CapBnd"), 16).unwrap() & !(1 << 1), 0);
    }
    assert!(Command::new("/bin/true").status().is_err(), "no programs");
    let refused = |done: rustix::io::Result<()>| assert_eq!(done, Err(rustix::io::Errno::PERM));
    refused(rustix::process::chroot("/"));
    refused(rustix::system::sethostname(b"elsewhere"));
    // and what it works with is as it was
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), "a").unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "a");
    assert!(
        std::thread::spawn(|| of_status("Seccomp")).join().unwrap() == "2",
        "threads inherit it"
    );
}

#[test]
fn files_outside_of_its_places_are_out_of_reach() {
    let dir = tempfile::tempdir().unwrap();
    let [disks, looked, other] = ["disks", "looked", "other"].map(|name| dir.path().join(name));
    for place in [&disks, &looked, &other] {
        fs::create_dir(place).unwrap();
        fs::write(place.join("f"), "f").unwrap();
    }
    let places = vec![
        (disks.clone(), Access::Write),
        (looked.clone(), Access::Read),
        (dir.path().join("not there"), Access::Write),
        ("/proc".into(), Access::Read),
    ];
    let confined = confine(&policy(Files::Below(places)));
    if let Layer::Off(why) = &confined.landlock {
        panic!("this kernel has no Landlock, so nothing is shown: {why}");
    }
    fs::write(disks.join("g"), "g").unwrap();
    fs::rename(disks.join("g"), disks.join("h")).unwrap();
    assert_eq!(fs::read_to_string(looked.join("f")).unwrap(), "f");
    let denied = |done: std::io::Result<()>| {
        assert_eq!(done.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    };
    denied(fs::write(looked.join("f"), "changed"));
    denied(fs::write(looked.join("g"), "new"));
    denied(fs::read(other.join("f")).map(drop));
    denied(fs::read("/etc/passwd").map(drop));
    denied(fs::remove_file(other.join("f")));
}
