//! QEMU's tools: images are made, written, checked and compared by those whose format it is; and loop devices.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Runs a program to its end.
///
/// # Errors
/// What it said on failing; `NotFound` with the package to install.
pub fn run(program: &str, package: &str, arguments: &[&str]) -> io::Result<String> {
    let out = command(program, package, arguments)?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    Err(io::Error::other(format!(
        "{program} {}: {}: {}{}",
        arguments.join(" "),
        out.status,
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr).trim()
    )))
}

fn command(program: &str, package: &str, arguments: &[&str]) -> io::Result<std::process::Output> {
    Command::new(program)
        .args(arguments)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| missing(&e, program, package))
}

fn missing(error: &io::Error, program: &str, package: &str) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("{program}: {error}: install the package {package}"),
    )
}

/// `qemu-img` with these arguments.
///
/// # Errors
/// As [`run`].
pub fn img(arguments: &[&str]) -> io::Result<String> {
    run("qemu-img", "qemu-utils", arguments)
}

/// Commands of `qemu-io` on an image.
///
/// # Errors
/// As [`run`]; also when a command failed, which `qemu-io` tells in words alone.
pub fn io_commands(image: &Path, format: &str, commands: &[&str]) -> io::Result<String> {
    let mut arguments = vec!["-f", format];
    for command in commands {
        arguments.extend(["-c", command]);
    }
    let image = image.display().to_string();
    arguments.push(&image);
    let said = run("qemu-io", "qemu-utils", &arguments)?;
    if said.contains("failed") || said.contains("error") {
        return Err(io::Error::other(format!("qemu-io of {image}: {said}")));
    }
    Ok(said)
}

/// What `qemu-img check` says of a qcow2 image: how many clusters are leaked.
///
/// # Errors
/// When it found errors.
pub fn check(image: &Path) -> io::Result<u64> {
    let image = image.display().to_string();
    let out = command(
        "qemu-img",
        "qemu-utils",
        &["check", "-f", "qcow2", "--output=json", &image],
    )?;
    let said = String::from_utf8_lossy(&out.stdout);
    let report: serde_json::Value = serde_json::from_str(&said).unwrap_or_default();
    let count = |what: &str| report[what].as_u64().unwrap_or(0);
    match out.status.code() {
        Some(0 | 3) if count("corruptions") == 0 && count("check-errors") == 0 => Ok(count("leaks")),
        _ => Err(io::Error::other(format!(
            "qemu-img check of {image}: {}: {said}{}",
            out.status,
            String::from_utf8_lossy(&out.stderr)
        ))),
    }
}

/// Panics when two disks hold different bytes.
///
/// # Panics
/// Then, or when they can't be read.
#[track_caller]
pub fn assert_same((format_a, a): (&str, &Path), (format_b, b): (&str, &Path)) {
    let (shown_a, shown_b) = (a.display().to_string(), b.display().to_string());
    let arguments = ["compare", "-f", format_a, "-F", format_b, &shown_a, &shown_b];
    if let Err(error) = img(&arguments) {
        panic!("{error}");
    }
}

/// A VM that was started and doesn't run: it holds its disk.
#[derive(Debug)]
pub struct PausedVm {
    child: Child,
}

impl PausedVm {
    /// Starts `qemu-system-x86_64` with a disk.
    ///
    /// # Errors
    /// What QEMU said when it didn't stay.
    pub fn start(disk: &Path, format: &str) -> io::Result<Self> {
        let program = "qemu-system-x86_64";
        let drive = format!("file={},format={format},if=virtio", disk.display());
        let mut child = Command::new(program)
            .args([
                "-S",
                "-accel",
                "tcg",
                "-m",
                "16",
                "-nodefaults",
                "-display",
                "none",
                "-monitor",
                "stdio",
            ])
            .args(["-drive", &drive])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| missing(&e, program, "qemu-system-x86"))?;
        // its prompt comes when its disks are open
        let mut said = Vec::new();
        let mut out = child
            .stdout
            .take()
            .ok_or_else(|| io::Error::other("qemu has no output"))?;
        let mut byte = [0];
        while !said.ends_with(b"(qemu)") && io::Read::read(&mut out, &mut byte)? == 1 {
            said.push(byte[0]);
        }
        child.stdout = Some(out);
        let mut vm = Self { child };
        if said.ends_with(b"(qemu)") {
            return Ok(vm);
        }
        let mut error = String::new();
        if let Some(mut pipe) = vm.child.stderr.take() {
            io::Read::read_to_string(&mut pipe, &mut error)?;
        }
        Err(io::Error::other(format!("{program} ended: {error}")))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for PausedVm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A loop device on a file; detached when dropped.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
}

impl LoopDevice {
    /// Attaches a file.
    ///
    /// # Errors
    /// What losetup said: it needs root.
    pub fn attach(file: &Path) -> io::Result<Self> {
        let said = run(
            "losetup",
            "mount",
            &["--find", "--show", "--partscan", &file.display().to_string()],
        )?;
        Ok(Self {
            path: said.trim().into(),
        })
    }

    /// Attaches a file to the device that an earlier one had.
    ///
    /// # Errors
    /// As [`LoopDevice::attach`].
    pub fn attach_at(path: &Path, file: &Path) -> io::Result<Self> {
        let (device, file) = (path.display().to_string(), file.display().to_string());
        run("losetup", "mount", &[&device, &file])?;
        Ok(Self { path: path.into() })
    }

    /// `/dev/loop…`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the device as large as its file is now.
    ///
    /// # Errors
    /// What losetup said.
    pub fn follow_size(&self) -> io::Result<()> {
        run("losetup", "mount", &["-c", &self.path.display().to_string()]).map(drop)
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let shown = self.path.display().to_string();
        let _ = run("losetup", "mount", &["--detach", &shown]);
        // to detach takes as long as someone still looks at it
        for _ in 0..50 {
            if run("losetup", "mount", &[&shown]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
