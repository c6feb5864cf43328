//! Secrets that tests plant, and the look for them in everything that a test run wrote.
//!
//! Every planted secret begins with [`MARK`]. With `WINDLASS_SAID=DIR`, as `make test` sets it, the helpers keep what each process
//! said in `DIR`, and look through each scratch directory before it goes: state, logs, caches. What has the mark and isn't where a
//! secret belongs is written down in `DIR/leaks`. `scripts/secrets.sh` ends the run with a grep over all of it.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// What every planted secret begins with.
pub const MARK: &str = "planted-5ecret";
/// Where a test puts secrets: files that end so.
pub const FILE_ENDING: &str = "secret";
/// Larger files are disks and their pieces.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// A secret of 40 characters.
pub fn planted(name: &str) -> String {
    let mut text = format!("{MARK}-{name}-");
    while text.len() < 40 {
        text.push('0');
    }
    text
}

fn kept_in() -> Option<PathBuf> {
    std::env::var_os("WINDLASS_SAID").map(PathBuf::from)
}

fn append(name: &str, text: &str) -> io::Result<()> {
    let Some(dir) = kept_in() else { return Ok(()) };
    fs::create_dir_all(&dir)?;
    let mut file = fs::File::options().create(true).append(true).open(dir.join(name))?;
    file.write_all(text.as_bytes())
}

/// Keeps what a process said, for the look at the end of the run.
pub(crate) fn keep(said: &[&str]) {
    if kept_in().is_none() {
        return;
    }
    for text in said {
        append(&format!("{}.said", std::process::id()), text).expect("what a process said can be kept");
    }
}

/// Looks through a directory before it goes.
pub(crate) fn look_through(dir: &Path) {
    if kept_in().is_none() {
        return;
    }
    for leak in found_in(dir) {
        let line = format!(
            "{} in {}\n",
            leak.display(),
            std::env::args().collect::<Vec<_>>().join(" ")
        );
        append("leaks", &line).expect("a leak can be written down");
    }
}

/// Files below `dir` that have the mark, but for those that are meant to hold secrets: a test's own, and a server's.
pub fn found_in(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        // it may be unmounted, or gone
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            let (path, Ok(kind)) = (entry.path(), entry.file_type()) else {
                continue;
            };
            if kind.is_dir() {
                dirs.push(path);
            } else if kind.is_file() && !is_meant(&path) && has_mark(&path) {
                found.push(path);
            }
        }
    }
    found
}

fn is_meant(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == FILE_ENDING) || path.ends_with("nats-server.conf")
}

fn has_mark(path: &Path) -> bool {
    let Ok(file) = fs::File::open(path) else { return false };
    if file.metadata().map_or(u64::MAX, |meta| meta.len()) > FILE_BYTES_MAX {
        return false;
    }
    let mut bytes = Vec::new();
    let read = file.take(FILE_BYTES_MAX).read_to_end(&mut bytes);
    read.is_ok() && contains(&bytes)
}

/// True when the mark is in there.
pub fn contains(bytes: &[u8]) -> bool {
    let mark = MARK.as_bytes();
    let mut at = 0;
    while let Some(next) = bytes[at..].iter().position(|b| *b == mark[0]) {
        at += next;
        if bytes[at..].starts_with(mark) {
            return true;
        }
        at += 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    /// The negative control: a leak is found, wherever it is, and a secret in its place isn't one.
    #[test]
    fn a_leak_is_found_and_a_secret_in_its_place_is_none() {
        let scratch = Scratch::new("leaks").unwrap();
        let secret = planted("control");
        assert_eq!(secret.len(), 40);
        let deep = scratch.dir("state/deep").unwrap();
        fs::write(deep.join("nats.secret"), &secret).unwrap();
        fs::write(deep.join("fine"), "planted-5ecre").unwrap();
        assert_eq!(found_in(scratch.path()), Vec::<PathBuf>::new());
        let leak = deep.join("state.redb");
        fs::write(&leak, [&vec![0xfe; 100_000], secret.as_bytes()].concat()).unwrap();
        assert_eq!(found_in(scratch.path()), std::slice::from_ref(&leak));
        // this scratch goes the same way as all others
        fs::remove_file(leak).unwrap();
    }
}
