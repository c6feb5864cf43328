//! The daemon gives up what it doesn't need, and does its work all the same.
#![expect(clippy::unwrap_used, reason = "test code; its helpers are no #[test]")]

use std::time::Duration;

use windlass_integration::process::{Running, Windlass};
use windlass_integration::scratch::Scratch;

const PATIENCE: Duration = Duration::from_secs(60);

fn serving(windlass: &Windlass) -> Running {
    let daemon = windlass.spawn(&["serve"]).unwrap();
    let line = daemon.wait_for_line(PATIENCE, |line| line.contains("serving"));
    assert!(line.is_some(), "it serves");
    daemon
}

fn of_process(daemon: &Running, name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect(name);
    line.trim_start_matches(':').trim().to_owned()
}

/// Capabilities by number, as the kernel counts them: DAC_OVERRIDE, DAC_READ_SEARCH, SYS_PTRACE.
const KEPT: u64 = (1 << 1) | (1 << 2) | (1 << 19);

#[test]
fn a_daemon_keeps_what_its_concerns_need_and_works() {
    let scratch = Scratch::new("hardening").unwrap();
    let windlass = Windlass::new(&scratch.join("state")).unwrap();
    let daemon = serving(&windlass);
    assert_eq!(of_process(&daemon, "NoNewPrivs"), "1");
    assert_eq!(of_process(&daemon, "Seccomp"), "2");
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        let bits = u64::from_str_radix(&of_process(&daemon, set), 16).unwrap();
        assert!(
            set == "CapBnd" && !rustix::process::geteuid().is_root() || bits & !KEPT == 0,
            "{set}: {bits:x}"
        );
    }
    let status = windlass.run(&["status", "--json"]).unwrap().success().json();
    let hardening = &status["hardening"];
    assert_eq!(hardening["no_new_privs"], true);
    assert!(
        hardening["seccomp"].as_str().unwrap().starts_with("on: "),
        "{hardening}"
    );
    assert!(windlass.run(&["status"]).unwrap().success().stdout.contains("seccomp"));
    // disks are anywhere
    let disk = scratch.join("web1.raw");
    std::fs::write(&disk, vec![7; 1 << 20]).unwrap();
    let create = ["snapshot", "create", "--vm", "web1", "--disk", disk.to_str().unwrap()];
    windlass.run(&create).unwrap().success();
    daemon.terminate().unwrap();
    assert!(daemon.wait(PATIENCE).unwrap().status.success());
}

#[test]
fn a_daemon_whose_disks_have_their_place_reaches_no_others() {
    let scratch = Scratch::new("hardening-dirs").unwrap();
    let [disks, elsewhere] = ["disks", "elsewhere"].map(|name| scratch.dir(name).unwrap());
    for dir in [&disks, &elsewhere] {
        std::fs::write(dir.join("web1.raw"), vec![7; 1 << 20]).unwrap();
    }
    let windlass = Windlass::new(&scratch.join("state"))
        .unwrap()
        .env("WINDLASS_HARDENING__DISK_DIRS", &disks);
    let daemon = serving(&windlass);
    let create = |dir: &std::path::Path| {
        let disk = dir.join("web1.raw").display().to_string();
        windlass
            .run(&["snapshot", "create", "--vm", "web1", "--disk", &disk, "--json"])
            .unwrap()
    };
    let id = create(&disks).success().json()["id"].as_str().unwrap().to_owned();
    // put back where it was changed, and written as a new file beside it
    std::fs::write(disks.join("web1.raw"), vec![8; 1 << 20]).unwrap();
    windlass
        .run(&["restore", "--vm", "web1", "--to", &id, "--yes"])
        .unwrap()
        .success();
    assert_eq!(std::fs::read(disks.join("web1.raw")).unwrap(), vec![7; 1 << 20]);
    let refused = create(&elsewhere);
    assert!(!refused.status.success(), "{refused:?}");
    assert!(refused.stdout.contains("ermission denied"), "{}", refused.stdout);
    let status = windlass.run(&["status", "--json"]).unwrap().success().json();
    let landlock = status["hardening"]["landlock"].as_str().unwrap().to_owned();
    assert!(
        landlock.contains("its places") && !landlock.starts_with("off"),
        "{landlock}"
    );
    daemon.terminate().unwrap();
    assert!(daemon.wait(PATIENCE).unwrap().status.success());
}

/// Off is off, and said.
#[test]
fn hardening_can_be_switched_off() {
    let scratch = Scratch::new("hardening-off").unwrap();
    let windlass = Windlass::new(&scratch.join("state"))
        .unwrap()
        .env("WINDLASS_HARDENING__MODE", "off");
    let daemon = windlass.spawn(&["serve"]).unwrap();
    let said = daemon.wait_for_line(PATIENCE, |line| line.contains("hardening.mode is off"));
    assert!(said.is_some());
    daemon.wait_for_line(PATIENCE, |line| line.contains("serving")).unwrap();
    assert_eq!(of_process(&daemon, "Seccomp"), "0");
    let status = windlass.run(&["status", "--json"]).unwrap().success().json();
    assert_eq!(status.get("hardening"), None);
}
