//! README's "With S3", run as it is written.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::path::Path;
use std::process::Command;

use windlass_integration::process;
use windlass_integration::scratch::Scratch;

/// The commands below a heading of README.
fn commands(heading: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = std::fs::read_to_string(root.join("README.md")).unwrap();
    let (_, section) = text.split_once(&format!("\n## {heading}\n")).expect("the heading");
    let (_, block) = section.split_once("```sh\n").expect("its commands");
    block.split_once("\n```").expect("their end").0.to_owned()
}

#[test]
fn the_commands_with_s3_work_as_written() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let scratch = Scratch::new("readme").unwrap();
    for name in ["scripts", "docs"] {
        std::os::unix::fs::symlink(root.join(name), scratch.join(name)).unwrap();
    }
    let commands = commands("With S3");
    assert!(
        commands.contains("windlass restore") && commands.contains("cmp "),
        "{commands}"
    );
    let binary = process::binary().unwrap();
    let path = format!(
        "{}:{}",
        binary.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let garage = scratch.join("garage");
    let run = |script: &str| {
        let mut command = Command::new("bash");
        for (name, _) in std::env::vars_os().filter(|(n, _)| n.as_encoded_bytes().starts_with(b"WINDLASS_")) {
            command.env_remove(name);
        }
        command
            .args(["-euo", "pipefail", "-c", script])
            .current_dir(scratch.path())
            .env("PATH", &path)
            .env("WINDLASS_STATE_DIR", scratch.join("state"))
            .env("WINDLASS_GARAGE_DIR", &garage)
            .output()
            .unwrap()
    };
    let ended = run(&commands);
    // also when a command failed half-way
    let stopped = run("sh scripts/garage.sh stop");
    let said = format!(
        "{}\n{}",
        String::from_utf8_lossy(&ended.stdout),
        String::from_utf8_lossy(&ended.stderr)
    );
    assert!(ended.status.success(), "{}\n{said}", ended.status);
    assert!(stopped.status.success(), "{stopped:?}");
    assert!(said.contains("store honours"), "{said}");
    assert!(!garage.join("pid").exists());
}
