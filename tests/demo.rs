//! `windlass demo` as a person runs it: whole, in a directory of its own, and interrupted.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

fn demo(tmp: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
    command
        .args(["demo", "--size-gib", "1"])
        .env("TMPDIR", tmp)
        .stdin(Stdio::null());
    command
}

fn left_behind(tmp: &Path) -> Vec<std::ffi::OsString> {
    std::fs::read_dir(tmp)
        .expect("the directory is there")
        .map(|e| e.expect("an entry").file_name())
        .collect()
}

#[test]
fn the_demo_holds_what_it_promises_and_leaves_nothing() {
    let tmp = tempfile::tempdir_in("/var/tmp").unwrap();
    let out = demo(tmp.path()).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{text}\n{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(text.matches("in every byte").count(), 3, "{text}");
    for part in [
        "$ kill -9 ",
        "restore, run again",
        "restore --undo",
        "full restore",
        "Three commands",
    ] {
        assert!(text.contains(part), "no '{part}' in\n{text}");
    }
    assert!(left_behind(tmp.path()).is_empty(), "{:?}", left_behind(tmp.path()));
}

#[test]
fn an_interrupted_demo_cleans_up() {
    let tmp = tempfile::tempdir_in("/var/tmp").unwrap();
    let mut child = demo(tmp.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while left_behind(tmp.path()).is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it began");
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = i32::try_from(child.id()).unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::INT,
    )
    .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(left_behind(tmp.path()).is_empty(), "{:?}", left_behind(tmp.path()));
}
