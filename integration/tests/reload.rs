//! SIGHUP on the real binary: what can be taken up is, what needs a restart is named, a bad file changes nothing.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use windlass_integration::process::{Running, Signal, Windlass};
use windlass_integration::scratch::Scratch;

const PATIENCE: Duration = Duration::from_secs(60);

struct Daemon {
    scratch: Scratch,
    file: PathBuf,
    windlass: Windlass,
    running: Running,
}

impl Daemon {
    fn start(configuration: &str) -> Self {
        let scratch = Scratch::new("reload").unwrap();
        let file = scratch.join("windlass.toml");
        std::fs::write(&file, configuration).unwrap();
        let windlass = Windlass::new(&scratch.join("state"))
            .unwrap()
            .env("WINDLASS_LOG__FORMAT", "json");
        // whoever asks reads no file: it may be a bad one
        let serving = windlass.clone().env("WINDLASS_CONFIG", &file);
        let running = serving.spawn(&["serve"]).unwrap();
        let serves = running.wait_for_line(PATIENCE, |line| line.contains("\"serving\""));
        serves.expect("it serves");
        Self {
            scratch,
            file,
            windlass,
            running,
        }
    }

    /// Writes the file anew and sends SIGHUP; the log lines up to the one that ends the reload.
    fn reload(&self, configuration: &str) -> Vec<Value> {
        std::fs::write(&self.file, configuration).unwrap();
        self.running.signal(Signal::HUP).unwrap();
        let mut said = Vec::new();
        let last = self.running.wait_for_line(PATIENCE, |line| {
            said.push(serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")));
            line.contains("SIGHUP")
        });
        last.expect("a reload says how it went");
        said
    }

    fn status(&self) -> Value {
        self.windlass.run(&["status", "--json"]).unwrap().success().json()
    }

    fn mailbox_max(&self) -> Value {
        let status = self.status();
        let concerns = status["concerns"].as_array().unwrap();
        let of = |name: &str| concerns.iter().find(|c| c["concern"] == name).unwrap().clone();
        assert_eq!(of("jobs")["mailbox_messages_max"], 1000, "the house's own stays");
        of("snapshot")["mailbox_messages_max"].clone()
    }
}

fn told<'a>(said: &'a [Value], key: &str) -> &'a Value {
    let line = said.iter().find(|line| line["key"] == key);
    line.unwrap_or_else(|| panic!("nothing of {key} in {said:?}"))
}

#[test]
fn sighup_takes_up_what_can_be_names_the_rest_and_refuses_what_is_wrong() {
    let daemon = Daemon::start("[runtime]\nmailbox_messages_max = 7\n");
    assert_eq!(daemon.mailbox_max(), 7);
    let changed = "[log]\nlevel = \"info,windlass=debug\"\n[host]\nrack = \"r7\"\n\
                   [runtime]\nmailbox_messages_max = 9\ndrain_timeout_s = 3\n[snapshot]\ncommon_held_days = 1\n";
    let said = daemon.reload(changed);
    for (key, from, to) in [
        ("runtime.mailbox_messages_max", "7", "9"),
        ("runtime.drain_timeout_s", "30", "3"),
        ("snapshot.common_held_days", "7", "1"),
    ] {
        let line = told(&said, key);
        assert_eq!(
            (&line["from"], &line["to"], &line["message"]),
            (&from.into(), &to.into(), &"reloaded".into())
        );
        let origin = line["origin"].as_str().unwrap();
        assert!(origin.contains("windlass.toml"), "{origin}");
    }
    assert_eq!(told(&said, "log.level")["level"], "INFO");
    let rack = told(&said, "host.rack");
    assert_eq!(rack["level"], "WARN");
    assert!(rack["message"].as_str().unwrap().contains("needs a restart"), "{rack}");
    assert_eq!(
        (&said.last().unwrap()["taken_up"], &said.last().unwrap()["need_restart"]),
        (&4.into(), &1.into())
    );
    assert_eq!(daemon.mailbox_max(), 9);

    // each of these is refused whole, and the daemon goes on by what it had
    for bad in [
        "[runtime]\nmailbox_messages_max = 0\n",
        "[runtime]\nmailbox_messages_max = 11\ndrain_timeout_s = \"soon\"\n",
        "[runtime\n",
        "[repo.chunker]\nmin_bytes = 4194304\navg_bytes = 1024\n[runtime]\nmailbox_messages_max = 12\n",
    ] {
        let said = daemon.reload(bad);
        let last = said.last().unwrap();
        assert_eq!(last["level"], "ERROR", "{last}");
        let message = last["message"].as_str().unwrap();
        assert!(
            message.contains("the earlier one stays in force") && message.contains("windlass.toml"),
            "{message}"
        );
        assert_eq!(daemon.mailbox_max(), 9, "after {bad}");
    }
    std::fs::remove_file(&daemon.file).unwrap();
    daemon.running.signal(Signal::HUP).unwrap();
    let gone = daemon.running.wait_for_line(PATIENCE, |line| line.contains("SIGHUP"));
    assert!(gone.expect("a file that is gone is told").contains("stays in force"));
    assert_eq!(daemon.mailbox_max(), 9);

    // the same file again: only what needs a restart is told again; then a typing error, a warning as at the start
    let said = daemon.reload(changed);
    let of_reload = said.iter().filter(|line| line["target"] == "windlass::reload");
    assert_eq!(of_reload.count(), 2, "{said:?}");
    let said = daemon.reload(&format!("{changed}[gatway]\nlisten = \"\"\n"));
    assert!(
        said.iter()
            .any(|l| l["message"].as_str().unwrap_or_default().contains("gatway")),
        "{said:?}"
    );

    daemon.running.terminate().unwrap();
    let ended = daemon.running.wait(PATIENCE).unwrap().success();
    let draining = ended.stderr.lines().find(|l| l.contains("draining")).unwrap();
    assert!(draining.contains("\"timeout_s\":3"), "{draining}");
    drop(daemon.scratch);
}

/// New limits hold for what comes next: repositories are written by the compression level of the day, and jobs wait by it.
#[test]
fn concerns_live_by_the_new_settings_without_a_restart() {
    let daemon = Daemon::start("");
    daemon.windlass.run(&["repo", "init"]).unwrap().success();
    let disk = daemon.scratch.join("web1.raw");
    std::fs::write(&disk, vec![7; 1 << 20]).unwrap();
    let disk = disk.display().to_string();
    let create = ["snapshot", "create", "--vm", "web1", "--json", "--disk", &disk];
    daemon.windlass.run(&create).unwrap().success();
    daemon.windlass.run(&["snapshot", "ls"]).unwrap().success();
    let status = daemon.status();
    let asked = |status: &Value| {
        let concerns = status["concerns"].as_array().unwrap();
        let snapshot = concerns.iter().find(|c| c["concern"] == "snapshot").unwrap();
        snapshot["observed"]["asked_total"].as_u64().unwrap()
    };
    assert_eq!(asked(&status), 2, "repo init and snapshot ls");
    let said = daemon.reload("[snapshot]\njobs_parallel_max = 3\n[repo]\npack_bytes = 1048576\n");
    assert_eq!(told(&said, "snapshot.jobs_parallel_max")["to"], "3");
    assert_eq!(asked(&daemon.status()), 0, "it was built anew");
    daemon.windlass.run(&create).unwrap().success();
    daemon.reload("[snapshot]\njobs_parallel_max = 1\n");
    daemon.windlass.run(&create).unwrap().success();
    let listed = daemon
        .windlass
        .run(&["snapshot", "ls", "--json"])
        .unwrap()
        .success()
        .json();
    assert_eq!(listed["snapshots"].as_array().unwrap().len(), 3);
}
