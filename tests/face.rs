//! The real binary as people and scripts meet it: answers, exit codes, the daemon and a single command beside it.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a temporary directory"),
        }
    }
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
        command
            .args(line.split_whitespace())
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        for (name, _) in std::env::vars_os().filter(|(n, _)| n.to_string_lossy().starts_with("WINDLASS_")) {
            command.env_remove(name);
        }
        command
            .env("WINDLASS_STATE_DIR", self.path("s"))
            .env("WINDLASS_HOST_ID", "h1")
            .env("WINDLASS_REPO__CACHE_DIR", self.path("cache"))
            .env("HOME", self.dir.path());
        command
    }
    fn run(&self, line: &str) -> Output {
        self.command(line).output().expect("windlass runs")
    }
    /// Runs with `--json`; the document and the exit code.
    fn json(&self, line: &str) -> (Value, i32) {
        let out = self.run(&format!("{line} --json"));
        let text = String::from_utf8_lossy(&out.stdout);
        let value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{line}: {e}: {text}"));
        (value, out.status.code().expect("an exit code"))
    }
    fn disk(&self, name: &str) {
        let bytes: Vec<u8> = (0..200_000u32)
            .flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes())
            .collect();
        std::fs::write(self.path(name), bytes).expect("a disk");
    }
    fn serve(&self) -> Daemon {
        self.serve_with(&mut self.command("serve")).0
    }
    /// Serves; what the log said until then is the second.
    fn serve_with(&self, command: &mut Command) -> (Daemon, String) {
        let child = command.stderr(Stdio::piped()).spawn().expect("windlass serves");
        let mut daemon = Daemon(child);
        let mut log = BufReader::new(daemon.0.stderr.take().expect("piped"));
        let mut said = String::new();
        while log.read_line(&mut said).expect("a log") > 0 {
            if said.lines().last().is_some_and(|line| line.contains("serving")) {
                // the log goes on into nothing, so that the daemon never blocks on it
                std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
                return (daemon, said);
            }
        }
        panic!("the daemon ended: {said}");
    }
}

struct Daemon(Child);

impl Daemon {
    fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &pid])
                .status()
                .expect("kill runs")
                .success()
        );
    }
    fn wait(mut self) -> Option<i32> {
        self.0.wait().expect("it ends").code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _ended_already = self.0.wait();
    }
}

fn code_of(answer: &Value) -> &str {
    answer["error"]["code"].as_str().unwrap_or("no error")
}

#[test]
fn a_single_command_needs_no_daemon() {
    let home = Home::new();
    home.disk("web1.raw");
    let (made, code) = home.json("snapshot create --vm web1 --disk web1.raw");
    assert_eq!((code, made["vm"].as_str()), (0, Some("web1")), "{made}");
    assert_eq!(made["disks"][0]["path"].as_str(), home.path("web1.raw").to_str());
    let (listing, code) = home.json("snapshot ls");
    assert_eq!((code, &listing["snapshots"][0]["id"]), (0, &made["id"]));
    let (shown, _) = home.json("snapshot show latest --vm web1");
    assert_eq!(shown["id"], made["id"]);
    assert_eq!(home.json("snapshot verify --quick").1, 0);
    let (jobs, _) = home.json("jobs ls");
    assert_eq!(jobs["jobs"].as_array().map(Vec::len), Some(2));
    let (sent, code) = home.json("send snapshot.ls {}");
    assert_eq!((code, sent), (0, listing));
    assert!(home.path("s/repo").is_dir());
}

#[test]
fn errors_have_their_exit_codes_and_places() {
    let home = Home::new();
    home.disk("web1.raw");
    for (line, code, exit) in [
        ("snapshot create --vm web1 --disk absent.raw", "not_found", 3),
        ("snapshot create --vm web1 --disk .", "invalid", 2),
        ("restore --vm web1 --to latest --disk web1.raw", "invalid", 2),
        ("restore --vm web1 --undo", "invalid", 2),
        ("jobs show nope", "not_found", 3),
        ("snapshot crate", "invalid", 2),
        ("status", "unavailable", 8),
        ("watch", "unavailable", 8),
        ("--config absent.toml config show", "not_found", 3),
        ("check-config absent.toml", "not_found", 3),
        ("send nobody.home", "invalid", 2),
        (
            "--repo absent snapshot create --vm web1 --disk web1.raw",
            "not_found",
            3,
        ),
        ("--repo http://x repo show", "invalid", 2),
        ("--repo absent repo show", "not_found", 3),
    ] {
        let (answer, got) = home.json(line);
        assert_eq!((code_of(&answer), got), (code, exit), "{line}: {answer}");
        // for people: nothing on standard output, three parts on standard error
        let out = home.run(line);
        let err = String::from_utf8_lossy(&out.stderr);
        assert_eq!((out.status.code(), out.stdout.len()), (Some(exit), 0), "{line}: {err}");
        assert!(err.contains("error: "), "{line}: {err}");
    }
    assert!(
        !home.path("absent").exists(),
        "a repository that was only named was made"
    );
}

#[test]
fn the_daemon_serves_is_alone_and_drains() {
    let home = Home::new();
    home.disk("web1.raw");
    let daemon = home.serve();
    let (status, code) = home.json("status");
    assert_eq!(
        (code, status["host"].as_str(), status["pid"].as_u64()),
        (0, Some("h1"), Some(u64::from(daemon.0.id())))
    );
    let (second, code) = home.json("serve");
    assert_eq!((code_of(&second), code), ("conflict", 4), "{second}");
    let mut watch = home
        .command("watch snapshot.created --count 1 --json")
        .stdout(Stdio::piped())
        .spawn()
        .expect("runs");
    // the watcher has no sign that it listens; events that come before are not for it, so take snapshots until one is heard
    let ended = loop {
        assert_eq!(home.json("snapshot create --vm web1 --disk web1.raw").1, 0);
        if let Some(ended) = watch.try_wait().expect("it can be asked") {
            break ended;
        }
    };
    assert!(ended.success());
    let heard = std::io::read_to_string(watch.stdout.take().expect("piped")).expect("UTF-8");
    let event: Value = serde_json::from_str(&heard).expect("one event a line");
    assert_eq!(event["type"], "windlass.snapshot.created");
    daemon.signal("TERM");
    assert_eq!(daemon.wait(), Some(0));
    assert!(!home.path("s/windlass.sock").exists());
    assert_eq!(home.json("snapshot ls").1, 0, "the state is free again");
}

#[test]
fn a_killed_daemon_leaves_nothing_in_the_way() {
    let home = Home::new();
    let daemon = home.serve();
    daemon.signal("KILL");
    assert_eq!(daemon.wait(), None);
    assert!(
        home.path("s/windlass.sock").exists(),
        "a killed daemon can't remove its socket"
    );
    assert_eq!(home.json("jobs ls").1, 0);
    let daemon = home.serve();
    assert_eq!(home.json("status").1, 0);
    daemon.signal("INT");
    assert_eq!(daemon.wait(), Some(0));
}

#[test]
fn another_machine_works_through_the_gateway() {
    use std::os::unix::fs::PermissionsExt;
    let (there, here) = (Home::new(), Home::new());
    there.disk("web1.raw");
    let token = there.path("token");
    std::fs::write(&token, "0123456789abcdef0123456789abcdef\n").expect("a file");
    let mut serve = there.command("serve");
    serve
        .env("WINDLASS_GATEWAY__LISTEN", "127.0.0.1:0")
        .env("WINDLASS_GATEWAY__TOKEN_FILE", &token);
    // the file is everybody's: nobody is let in by it
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o644)).expect("it is ours");
    let refused = serve.output().expect("runs");
    assert_eq!(
        refused.status.code(),
        Some(5),
        "{}",
        String::from_utf8_lossy(&refused.stderr)
    );
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
    let (daemon, log) = there.serve_with(&mut serve);
    let address = log
        .split_whitespace()
        .find_map(|word| word.strip_prefix("address="))
        .unwrap_or_else(|| panic!("no address in {log}"));
    let ask = |line: &str, token: &std::path::Path| {
        let mut command = here.command(&format!("--json {line}"));
        command
            .env("WINDLASS_GATEWAY", format!("http://{address}"))
            .env("WINDLASS_GATEWAY_TOKEN_FILE", token)
            .env("WINDLASS_HOST_ID", "h2");
        let out = command.output().expect("windlass runs");
        let value: Value = serde_json::from_slice(&out.stdout).expect("JSON");
        (value, out.status.code())
    };
    let disk = there.path("web1.raw").display().to_string();
    let (made, code) = ask(&format!("snapshot create --vm web1 --disk {disk}"), &token);
    assert_eq!((code, made["host"].as_str()), (Some(0), Some("h1")), "{made}");
    assert_eq!(ask("snapshot ls", &token).0["snapshots"][0]["id"], made["id"]);
    assert_eq!(ask("status", &token).0["host"], "h1");
    assert!(!here.path("s").exists(), "nothing is done here");
    let wrong = here.path("wrong");
    std::fs::write(&wrong, "x".repeat(40)).expect("a file");
    std::fs::set_permissions(&wrong, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
    assert_eq!(ask("snapshot ls", &wrong).1, Some(5));
    daemon.signal("TERM");
    assert_eq!(daemon.wait(), Some(0));
    let (gone, code) = ask("snapshot ls", &token);
    assert_eq!((code_of(&gone), code), ("unavailable", Some(8)));
}
