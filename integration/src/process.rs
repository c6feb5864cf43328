//! Runs the `windlass` binary.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use rustix::process::Signal;

use crate::netns::Namespace;
use crate::secrets;

/// A run that takes longer is killed and is an error.
pub const RUN_TIMEOUT: Duration = Duration::from_secs(300);

/// How often a running process is looked at.
const POLL: Duration = Duration::from_millis(1);

#[expect(clippy::disallowed_methods, reason = "a test of a process measures real time")]
fn now() -> Instant {
    Instant::now()
}

/// The `windlass` binary that was built beside this test; `WINDLASS_BIN` names another.
///
/// # Errors
/// `NotFound` with how to build it.
pub fn binary() -> io::Result<PathBuf> {
    binary_named("windlass", "WINDLASS_BIN")
}

fn binary_named(name: &str, variable: &str) -> io::Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(path.into());
    }
    // The test is <target>/<profile>/deps/<test>-<hash>, or <target>/<profile>/examples/<name>.
    let test = std::env::current_exe()?;
    let beside = test
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file());
    beside.ok_or_else(|| {
        let why = format!(
            "no {name} beside {}: run `cargo build -p {name}` first, or set {variable}",
            test.display()
        );
        io::Error::new(io::ErrorKind::NotFound, why)
    })
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
}

impl Ended {
    /// Exit code; `None` when a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// True when SIGKILL ended it.
    pub fn was_killed(&self) -> bool {
        self.status.signal() == Some(9)
    }

    /// The one JSON document that it printed.
    ///
    /// # Panics
    /// When it is none, with all that was said.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        match serde_json::from_str(self.stdout.trim()) {
            Ok(value) => value,
            Err(e) => panic!("no JSON: {e}\n{self:?}"),
        }
    }

    /// Itself, when it ended with 0.
    ///
    /// # Panics
    /// When it did not, with all that was said.
    #[track_caller]
    pub fn success(self) -> Self {
        assert!(
            self.status.success(),
            "{}\nstdout: {}\nstderr: {}",
            self.status,
            self.stdout,
            self.stderr
        );
        self
    }

    /// Itself, when it ended with `code`.
    ///
    /// # Panics
    /// When it did not, with all that was said.
    #[track_caller]
    pub fn failure(self, code: i32) -> Self {
        assert_eq!(
            self.code(),
            Some(code),
            "{}\nstdout: {}\nstderr: {}",
            self.status,
            self.stdout,
            self.stderr
        );
        self
    }
}

/// How to run the binary: with a state directory of its own, and none of the caller's `WINDLASS_…` variables.
#[derive(Debug, Clone)]
pub struct Windlass {
    binary: PathBuf,
    environment: Vec<(OsString, OsString)>,
    timeout: Duration,
    place: Option<Namespace>,
}

impl Windlass {
    /// Runs with `WINDLASS_STATE_DIR` at `state_dir`, and `HOME` and the XDG directories below it.
    ///
    /// # Errors
    /// As [`binary`].
    pub fn new(state_dir: &Path) -> io::Result<Self> {
        Ok(Self::with_binary(&binary()?, state_dir))
    }

    /// As [`Windlass::new`] with a certain program.
    pub fn with_binary(binary: &Path, state_dir: &Path) -> Self {
        let home = state_dir.with_extension("home");
        let environment = vec![
            ("WINDLASS_STATE_DIR".into(), state_dir.into()),
            // root's would be the machine's own
            ("WINDLASS_REPO__CACHE_DIR".into(), home.join("cache").into()),
            // for who looks for it afterwards; whoever needs a key names its own
            ("AWS_SECRET_ACCESS_KEY".into(), secrets::planted("aws").into()),
            ("HOME".into(), home.clone().into()),
            ("XDG_CONFIG_HOME".into(), home.join("config").into()),
            ("XDG_STATE_HOME".into(), home.join("state").into()),
            ("XDG_RUNTIME_DIR".into(), home.join("run").into()),
        ];
        Self {
            binary: binary.to_owned(),
            environment,
            timeout: RUN_TIMEOUT,
            place: None,
        }
    }

    /// One more environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().into(), value.as_ref().into()));
        self
    }

    /// Runs in a network namespace.
    #[must_use]
    pub fn inside(mut self, place: &Namespace) -> Self {
        self.place = Some(place.clone());
        self
    }

    /// Another limit for [`Windlass::run`].
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    fn command(&self) -> Command {
        let mut command = match &self.place {
            Some(place) => place.command(&self.binary),
            None => Command::new(&self.binary),
        };
        for (name, _) in std::env::vars_os().filter(|(n, _)| n.as_encoded_bytes().starts_with(b"WINDLASS_")) {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(n, v)| (n, v)));
        command
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// When it can't be started, or takes longer than the limit (it is killed then).
    pub fn run<A: AsRef<OsStr>>(&self, arguments: &[A]) -> io::Result<Ended> {
        self.spawn(arguments)?.wait(self.timeout)
    }

    /// Starts it.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn spawn<A: AsRef<OsStr>>(&self, arguments: &[A]) -> io::Result<Running> {
        let mut command = self.command();
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|e| io::Error::new(e.kind(), format!("{} could not be started: {e}", self.binary.display())))?;
        let (sender, lines) = mpsc::channel();
        let stdout = child.stdout.take().map(|pipe| collect(pipe, sender.clone()));
        let stderr = child.stderr.take().map(|pipe| collect(pipe, sender));
        Ok(Running {
            child,
            lines,
            stdout,
            stderr,
        })
    }
}

fn collect(pipe: impl Read + Send + 'static, lines: mpsc::Sender<String>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut all = String::new();
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line);
            all.push_str(&text);
            // Nobody may be listening.
            let _ = lines.send(text.trim_end().to_owned());
            line.clear();
        }
        all
    })
}

/// A process of ours. Dropping it kills it, by its own id.
#[derive(Debug)]
pub struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
}

impl Running {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line on stdout or stderr that `wanted` accepts; `None` when it ended, or the time did.
    pub fn wait_for_line(&self, timeout: Duration, mut wanted: impl FnMut(&str) -> bool) -> Option<String> {
        let until = now() + timeout;
        loop {
            let left = until.checked_duration_since(now())?;
            let line = self.lines.recv_timeout(left).ok()?;
            if wanted(&line) {
                return Some(line);
            }
        }
    }

    /// Bytes that it handed to write(2) and its like so far, pipes included; `None` when it ended.
    pub fn written_bytes(&self) -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/io", self.id())).ok()?;
        text.lines()
            .find_map(|l| l.strip_prefix("wchar: "))?
            .trim()
            .parse()
            .ok()
    }

    /// SIGKILL, now.
    ///
    /// # Errors
    /// I/O errors of killing and waiting.
    pub fn kill(mut self) -> io::Result<Ended> {
        self.child.kill()?;
        self.wait(RUN_TIMEOUT)
    }

    /// SIGKILL after `delay`, unless it ended before.
    ///
    /// # Errors
    /// I/O errors of killing and waiting.
    pub fn kill_after(self, delay: Duration) -> io::Result<Ended> {
        let until = now() + delay;
        self.kill_when(|_| now() >= until)
    }

    /// SIGKILL once it has written `bytes`, unless it ended before.
    ///
    /// # Errors
    /// I/O errors of killing and waiting.
    pub fn kill_after_written(self, bytes: u64) -> io::Result<Ended> {
        self.kill_when(|running| running.written_bytes().is_some_and(|written| written >= bytes))
    }

    /// SIGKILL as soon as `now` answers true, unless it ended before; `now` is asked every millisecond.
    ///
    /// # Errors
    /// I/O errors of killing and waiting; `TimedOut` when neither happens.
    pub fn kill_when(mut self, mut is_time: impl FnMut(&Self) -> bool) -> io::Result<Ended> {
        let until = now() + RUN_TIMEOUT;
        while self.child.try_wait()?.is_none() {
            if is_time(&self) {
                return self.kill();
            }
            if now() >= until {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "it neither ended nor came to the point to be killed at",
                ));
            }
            std::thread::sleep(POLL);
        }
        self.wait(RUN_TIMEOUT)
    }

    /// Asks it to end (SIGTERM).
    ///
    /// # Errors
    /// I/O errors of the signal.
    pub fn terminate(&self) -> io::Result<()> {
        self.signal(Signal::TERM)
    }

    /// Sends it a signal: `STOP` and `CONT` hold it in the middle of its work.
    ///
    /// # Errors
    /// I/O errors of the signal.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let id = i32::try_from(self.id()).ok().and_then(rustix::process::Pid::from_raw);
        let id = id.ok_or_else(|| io::Error::other("a process id of 0"))?;
        rustix::process::kill_process(id, signal).map_err(Into::into)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// `TimedOut` when it takes longer; it is killed then.
    pub fn wait(mut self, timeout: Duration) -> io::Result<Ended> {
        let until = now() + timeout;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if now() >= until {
                self.child.kill()?;
                self.child.wait()?;
                let (stdout, stderr) = self.said();
                let why = format!("still running after {timeout:?}, killed\nstdout: {stdout}\nstderr: {stderr}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            std::thread::sleep(POLL);
        };
        let (stdout, stderr) = self.said();
        Ok(Ended { status, stdout, stderr })
    }

    fn said(&mut self) -> (String, String) {
        let all = |thread: Option<JoinHandle<String>>| thread.and_then(|t| t.join().ok()).unwrap_or_default();
        let (stdout, stderr) = (all(self.stdout.take()), all(self.stderr.take()));
        secrets::keep(&[&stdout, &stderr]);
        (stdout, stderr)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if self.stdout.is_some() || self.stderr.is_some() {
            let _ = self.said();
        }
    }
}

/// A TCP port on loopback that was free a moment ago, and that this process wasn't given before: the system may name the same one
/// twice while nobody has it, and a server that wants two ports would get one.
///
/// # Errors
/// I/O errors of binding.
pub fn free_port() -> io::Result<u16> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        if GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(port) {
            return Ok(port);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    fn shell() -> (Scratch, Windlass) {
        let scratch = Scratch::new("process").unwrap();
        let run = Windlass::with_binary(Path::new("/bin/sh"), &scratch.join("state"));
        (scratch, run)
    }

    #[test]
    fn output_codes_and_environment() {
        let (scratch, run) = shell();
        let ended = run
            .clone()
            .env("A", "b")
            .run(&["-c", "echo '{\"a\": 1}'; echo oops >&2; exit 3"])
            .unwrap()
            .failure(3);
        assert_eq!(ended.json()["a"], 1);
        assert_eq!(ended.stderr, "oops\n");
        let state = run.run(&["-c", "echo $WINDLASS_STATE_DIR"]).unwrap().success().stdout;
        assert_eq!(state.trim(), scratch.join("state").to_str().unwrap());
        let e = run
            .timeout(Duration::from_millis(50))
            .run(&["-c", "exec sleep 100"])
            .unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn kills_in_the_middle() {
        let (scratch, run) = shell();
        let endless = format!("while :; do echo 0123456789; done > {}/out", scratch.path().display());
        assert!(
            run.spawn(&["-c", &endless])
                .unwrap()
                .kill_after(Duration::from_millis(20))
                .unwrap()
                .was_killed()
        );
        assert!(
            run.spawn(&["-c", &endless])
                .unwrap()
                .kill_after_written(10_000)
                .unwrap()
                .was_killed()
        );
        assert!(std::fs::metadata(scratch.join("out")).unwrap().len() >= 10_000);
        let running = run.spawn(&["-c", "echo one; echo two >&2; exec sleep 100"]).unwrap();
        assert_eq!(running.wait_for_line(RUN_TIMEOUT, |l| l == "two").unwrap(), "two");
        assert_eq!(running.wait_for_line(Duration::from_millis(20), |l| l == "three"), None);
        running.terminate().unwrap();
        assert_eq!(running.wait(RUN_TIMEOUT).unwrap().status.signal(), Some(15));
        assert!(
            !run.spawn(&["-c", "exit 0"])
                .unwrap()
                .kill_after(RUN_TIMEOUT)
                .unwrap()
                .was_killed()
        );
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let (_scratch, run) = shell();
        let running = run.spawn(&["-c", "exec sleep 1000"]).unwrap();
        let id = running.id();
        drop(running);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }

    #[test]
    fn a_binary_that_is_not_built_is_named() {
        let e = binary_named("windlass-none", "WINDLASS_NO_SUCH_VARIABLE").unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::NotFound);
        assert!(e.to_string().contains("cargo build -p windlass-none"), "{e}");
        assert_ne!(free_port().unwrap(), 0);
    }
}
