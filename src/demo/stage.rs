//! Where the demo happens: its directory, its commands (printed, then run), its interruption.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use wire::{Code, ErrorBody};

use super::Args;

/// Free space that the demo wants for each GiB of its disk: for 2 GiB, 6 GiB.
const FREE_GIB_PER_DISK_GIB: u64 = 3;
/// How often a running command is looked at.
const POLL: Duration = Duration::from_millis(2);

/// The configuration that the demo's commands read.
const CONFIG: &str = "windlass.toml";

/// The demo's directory and what runs in it.
pub(crate) struct Stage {
    dir: tempfile::TempDir,
    program: PathBuf,
    interrupted: Arc<AtomicBool>,
}

/// A command that ended.
pub(crate) struct Ended {
    /// What it wrote to standard output, when that was captured.
    pub stdout: String,
    /// How long it took.
    pub took: Duration,
}

/// Where a command's standard output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    Shown,
    Captured,
}

/// Time at the edge: the demo measures what a person would see.
#[expect(
    clippy::disallowed_methods,
    reason = "the demo measures what a person sees; nothing decides on it"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

pub(crate) fn internal(what: &str, error: impl std::fmt::Display) -> ErrorBody {
    ErrorBody::new(Code::Internal, format!("the demo could not {what}: {error}"))
}

impl Stage {
    /// Makes the directory, after a look at the free space, and starts to listen for Ctrl-C.
    pub fn open(args: &Args) -> Result<Self, ErrorBody> {
        let want_gib = args.size_gib * FREE_GIB_PER_DISK_GIB;
        let parent = roomy_parent(want_gib)?;
        let interrupted = Arc::new(AtomicBool::new(false));
        listen(Arc::clone(&interrupted));
        let dir = tempfile::Builder::new()
            .prefix("windlass-demo-")
            .tempdir_in(&parent)
            .map_err(|e| internal(&format!("make a directory in {}", parent.display()), e))?;
        // whatever is configured for this host must not lead the demo out of its directory
        std::fs::write(dir.path().join(CONFIG), "# all defaults\n")
            .map_err(|e| internal("write its configuration", e))?;
        let program = std::env::current_exe().map_err(|e| internal("find its own program", e))?;
        Ok(Self {
            dir,
            program,
            interrupted,
        })
    }

    /// The demo's directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What to type before the demo's commands work elsewhere.
    pub fn exports(&self) -> String {
        let dir = self.dir().display();
        format!("export WINDLASS_CONFIG={dir}/{CONFIG} WINDLASS_STATE_DIR={dir}/state WINDLASS_REPO=file://{dir}/repo")
    }

    /// A file of the demo.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// True once someone pressed Ctrl-C.
    pub fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// An error once someone pressed Ctrl-C; called between the steps and within the long ones.
    pub fn check(&self) -> Result<(), ErrorBody> {
        if self.interrupted() {
            return Err(ErrorBody::new(Code::Conflict, "interrupted"));
        }
        Ok(())
    }

    /// Removes the directory, or says where it is.
    pub fn close(self, keep: bool) -> Result<(), ErrorBody> {
        if keep {
            let dir = self.dir.keep();
            say(&format!("\nKept: {}   (remove it with: rm -r {0})", dir.display()));
            return Ok(());
        }
        let dir = self.dir.path().to_owned();
        self.dir
            .close()
            .map_err(|e| internal(&format!("remove {}", dir.display()), e))
    }

    /// Prints `line` as a person would type it, runs it in the demo's directory and shows what it prints.
    pub fn show(&self, line: &str) -> Result<Ended, ErrorBody> {
        say(&format!("\n$ {line}"));
        self.finish(line, Output::Shown)
    }

    /// Runs `line` without a word and returns what it prints.
    pub fn quiet(&self, line: &str) -> Result<Ended, ErrorBody> {
        self.finish(line, Output::Captured)
    }

    /// Prints `line` and starts it; its output is shown.
    pub fn start(&self, line: &str) -> Result<Child, ErrorBody> {
        say(&format!("\n$ {line}"));
        self.command(line)
            .stdin(Stdio::null())
            .spawn()
            .map_err(|e| internal(&format!("start '{line}'"), e))
    }

    /// Words are parted at spaces: the demo's names have none, and no shell is in between.
    fn command(&self, line: &str) -> Command {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        let mut command = if first == "windlass" {
            Command::new(&self.program)
        } else {
            Command::new(first)
        };
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("WINDLASS_") {
                command.env_remove(name);
            }
        }
        command
            .args(words)
            .current_dir(self.dir())
            .env("WINDLASS_STATE_DIR", self.path("state"))
            .env("WINDLASS_REPO", format!("file://{}", self.path("repo").display()))
            .env("WINDLASS_CONFIG", self.path(CONFIG));
        command
    }

    fn finish(&self, line: &str, output: Output) -> Result<Ended, ErrorBody> {
        self.check()?;
        let mut command = self.command(line);
        // through a file, so that no pipe can fill up while we wait
        let captured = tempfile::tempfile_in(self.dir()).map_err(|e| internal("make a file", e))?;
        if output == Output::Captured {
            let shared = captured.try_clone().and_then(|out| Ok((out, captured.try_clone()?)));
            let (out, err) = shared.map_err(|e| internal("share a file", e))?;
            command.stdout(out).stderr(if line.contains("--json") {
                Stdio::inherit()
            } else {
                Stdio::from(err)
            });
        }
        let started = now();
        let mut child = command
            .stdin(Stdio::null())
            .spawn()
            .map_err(|e| internal(&format!("start '{line}'"), e))?;
        let status = self.wait(&mut child)?;
        let took = started.elapsed();
        self.check()?;
        let stdout = read_back(captured)?;
        if !status.success() {
            say(stdout.trim_end());
            let how = status.signal().map_or_else(
                || format!("exit code {}", status.code().unwrap_or(-1)),
                |s| format!("signal {s}"),
            );
            return Err(
                ErrorBody::new(Code::Internal, format!("the demo stopped: '{line}' ended with {how}"))
                    .hint("windlass demo --keep leaves the directory for a look"),
            );
        }
        Ok(Ended { stdout, took })
    }

    /// Waits for a command; ends it when someone pressed Ctrl-C.
    pub fn wait(&self, child: &mut Child) -> Result<ExitStatus, ErrorBody> {
        loop {
            if let Some(status) = child.try_wait().map_err(|e| internal("wait for a command", e))? {
                return Ok(status);
            }
            if self.interrupted() {
                // it is gone already when that was to be: then there is nothing to end
                let _ = child.kill();
            }
            std::thread::sleep(POLL);
        }
    }
}

fn read_back(mut file: File) -> Result<String, ErrorBody> {
    use std::io::{Read, Seek};
    let mut text = String::new();
    file.rewind()
        .and_then(|()| file.read_to_string(&mut text))
        .map_err(|e| internal("read a command's output", e))?;
    Ok(text)
}

/// Prints a line. A reader that went away (`| head`) must not end the demo before it cleaned up.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// The temporary directory of the environment, else of the system, else the larger one of the system.
fn roomy_parent(want_gib: u64) -> Result<PathBuf, ErrorBody> {
    let mut places = vec![std::env::temp_dir()];
    if std::env::var_os("TMPDIR").is_none() {
        places.push("/var/tmp".into());
    }
    let mut seen = Vec::new();
    for place in places {
        match free_bytes(&place) {
            Ok(free) if free >= want_gib << 30 => return Ok(place),
            Ok(free) => seen.push(format!(
                "{} has {:.1} GiB",
                place.display(),
                free as f64 / (1u64 << 30) as f64
            )),
            Err(error) => seen.push(format!("{}: {error}", place.display())),
        }
    }
    Err(ErrorBody::new(
        Code::Unavailable,
        format!(
            "the demo needs {want_gib} GiB of free space ({}); nothing was done",
            seen.join(", ")
        ),
    )
    .hint("TMPDIR=/a/roomier/place windlass demo"))
}

fn free_bytes(path: &Path) -> std::io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail * stat.f_frsize)
}

/// Sets the flag on SIGINT and SIGTERM, from a thread of its own; returns once it listens. Where that can't be had, the
/// default stays: the demo dies at once and leaves its directory.
fn listen(flag: Arc<AtomicBool>) {
    use tokio::signal::unix::{SignalKind, signal};
    let (ready, wait) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
            return;
        };
        runtime.block_on(async {
            let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
                return;
            };
            drop(ready);
            tokio::select! {
                _ = int.recv() => {}
                _ = term.recv() => {}
            }
            flag.store(true, Ordering::Relaxed);
        });
    });
    // ends when the sender is dropped: once it listens, or once it can't
    let _ = wait.recv();
}
