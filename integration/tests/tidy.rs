//! The house rules of ARCHITECTURE.md as tests: which way things point, where things live, how files look.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const LINES_MAX: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("integration/ stands in the root")
        .to_owned()
}

/// A workspace crate: where it stands and what it depends on, by package name. Dev-dependencies don't count.
struct Crate {
    dir: PathBuf,
    needs: BTreeSet<String>,
}

fn crates() -> BTreeMap<String, Crate> {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(
        out.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    let metadata: Value = serde_json::from_slice(&out.stdout).expect("cargo metadata prints JSON");
    let mut all = BTreeMap::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let manifest = PathBuf::from(package["manifest_path"].as_str().expect("a path"));
        let needs = package["dependencies"]
            .as_array()
            .expect("dependencies")
            .iter()
            .filter(|d| d["kind"].is_null())
            .map(|d| d["name"].as_str().expect("a name").to_owned())
            .collect();
        let dir = manifest
            .parent()
            .expect("a directory")
            .strip_prefix(root())
            .expect("in the root")
            .to_owned();
        all.insert(
            package["name"].as_str().expect("a name").to_owned(),
            Crate { dir, needs },
        );
    }
    all
}

/// CONTRIBUTING's example of a concern: in nobody's build, and so without goldens, pages and evidence of its own.
const EXAMPLE: &str = "echo";

fn concerns(all: &BTreeMap<String, Crate>) -> Vec<(String, &Crate)> {
    all.iter()
        .filter(|(_, c)| is_concern(&c.dir))
        .map(|(_, c)| (c.dir.file_name().expect("a name").to_string_lossy().into_owned(), c))
        .collect()
}

fn is_concern(dir: &Path) -> bool {
    dir.starts_with("actors") && !dir.ends_with("wire") && !dir.ends_with("runtime")
}

/// Every Rust source of ours, with its text.
fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for top in ["src", "actors", "backends", "config", "integration"] {
        walk(&root().join(top), &mut found);
    }
    assert!(found.len() > 30, "the walk found only {} files", found.len());
    found
}

fn walk(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(dir).expect("a directory of ours") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).expect("UTF-8");
            found.push((path.strip_prefix(root()).expect("in the root").to_owned(), text));
        }
    }
}

fn is_test(path: &Path) -> bool {
    path.components()
        .any(|c| matches!(c.as_os_str().to_str(), Some("tests" | "benches" | "integration")))
        || path.file_name().is_some_and(|n| n == "tests.rs")
}

/// The part of a file that ships: what stands before its `mod tests {`.
fn shipped(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod ").next().unwrap_or(text)
}

#[test]
fn concerns_depend_on_ports_and_never_on_one_another() {
    let allowed = [
        "wire", "runtime", "config", "bus", "state", "jobs", "store", "repo", "qcow2",
    ]
    .map(|n| format!("windlass-{n}"));
    let all = crates();
    for (name, concern) in concerns(&all) {
        for need in concern.needs.iter().filter(|n| n.starts_with("windlass")) {
            assert!(
                allowed.contains(need),
                "{name} depends on {need}; concerns meet in wire, over the bus"
            );
        }
    }
}

#[test]
fn wire_and_ports_point_inwards() {
    let all = crates();
    let allow = |name: &str, list: &[&str]| {
        let c = &all[name];
        for need in c.needs.iter().filter(|n| n.starts_with("windlass")) {
            assert!(list.contains(&need.as_str()), "{name} depends on {need}");
        }
    };
    allow("windlass-wire", &[]);
    allow("windlass-store", &[]);
    allow("windlass-bus", &["windlass-wire"]);
    allow("windlass-state", &["windlass-wire"]);
    allow("windlass-jobs", &["windlass-wire", "windlass-state"]);
    allow("windlass-repo", &["windlass-wire", "windlass-store"]);
    allow("windlass-object", &["windlass-store"]);
    allow(
        "windlass-nats",
        &["windlass-wire", "windlass-bus", "windlass-state", "windlass-jobs"],
    );
    allow("windlass-qcow2", &[]);
    allow("windlass-s3", &["windlass-store"]);
    allow("windlass-config", &["windlass-wire"]);
    allow(
        "windlass-runtime",
        &["windlass-wire", "windlass-bus", "windlass-state", "windlass-jobs"],
    );
    let concerns: Vec<String> = concerns(&all)
        .iter()
        .map(|(name, _)| format!("windlass-{name}"))
        .collect();
    for (name, c) in &all {
        assert!(!c.needs.contains("windlass"), "{name} depends on the composition root");
        for need in c.needs.iter().filter(|n| concerns.contains(n)) {
            assert_eq!(
                name, "windlass",
                "{name} depends on the concern {need}; only THE TABLE knows concerns"
            );
        }
    }
}

/// What the walk as a newcomer decided: a concern costs its own directory, its two files and a few rows.
#[test]
fn the_example_of_a_concern_stays_small_and_out_of_every_build() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    let mut own = vec![
        read("actors/echo/Cargo.toml"),
        read("actors/wire/src/echo.rs"),
        read("config/src/echo.rs"),
    ];
    for (path, text) in sources() {
        if path.starts_with("actors/echo") {
            own.push(text);
        }
    }
    let is_line = |line: &&str| !line.trim().is_empty();
    let own: usize = own.iter().map(|text| text.lines().filter(is_line).count()).sum();
    // where it is named by others: a line each, but for its row in THE TABLE
    let (mut rows, mut where_named) = (0, Vec::new());
    for file in [
        "Cargo.toml",
        "src/concerns.rs",
        "actors/wire/src/lib.rs",
        "config/src/lib.rs",
    ] {
        let text = read(file);
        let shipped = shipped(&text);
        let named = shipped
            .lines()
            .filter(|l| is_line(l) && l.to_lowercase().contains(EXAMPLE));
        let row = shipped.contains("name: \"echo\"");
        let count = named.count() + if row { 4 } else { 0 };
        (rows, where_named) = (rows + count, [where_named, vec![format!("{file}: {count}")]].concat());
    }
    assert!(own + rows < 150, "{own} lines of echo's own, and {where_named:?}");
    // nobody else knows it, but for tests
    for (path, text) in sources() {
        let known = ["actors/echo", "actors/wire/src/echo.rs", "config/src/echo.rs"]
            .iter()
            .any(|p| path.starts_with(p));
        let table = ["src/concerns.rs", "actors/wire/src/lib.rs", "config/src/lib.rs"]
            .iter()
            .any(|p| path.ends_with(p));
        if !known && !table && !is_test(&path) {
            let names_it = shipped(&text)
                .lines()
                .any(|l| l.contains("echo::") || l.contains("\"echo\""));
            assert!(!names_it, "{} knows the example", path.display());
        }
    }
    let root = &crates()["windlass"];
    assert!(
        root.needs.contains("windlass-echo"),
        "an optional dependency of the root"
    );
    assert!(
        read("Makefile").contains("--features example"),
        "make test builds and runs it"
    );
}

/// Events get their id, time and host in one place.
#[test]
fn events_are_published_by_the_announcer() {
    for (path, text) in sources() {
        let its_place = path.ends_with("announcer.rs") || path.starts_with("actors/wire") || is_test(&path);
        assert!(
            its_place || !shipped(&text).contains("CloudEvent::new("),
            "{}: runtime::Announcer publishes events",
            path.display()
        );
    }
}

/// A macro is where its reader finds it: what a message says of itself, and what a token is.
#[test]
fn macros_are_few() {
    for (path, text) in sources() {
        let allowed = ["actors/wire/src/messages.rs", "actors/wire/src/subject.rs"]
            .iter()
            .any(|p| path.ends_with(p));
        assert!(
            allowed || is_test(&path) || !shipped(&text).contains("macro_rules!"),
            "{}: a function or a table does",
            path.display()
        );
    }
}

#[test]
fn each_sdk_has_one_room() {
    let owners: [(&str, &[&str]); 14] = [
        ("object_store", &["windlass-object"]),
        ("aws-sdk-s3", &["windlass-s3"]),
        ("aws-config", &["windlass-s3"]),
        ("aws-runtime", &["windlass-s3"]),
        ("aws-credential-types", &["windlass-s3"]),
        ("aws-smithy-async", &["windlass-s3"]),
        ("aws-smithy-types", &["windlass-s3"]),
        ("aws-smithy-runtime-api", &["windlass-s3"]),
        ("aws-smithy-http-client", &["windlass-s3"]),
        ("async-nats", &["windlass-nats"]),
        ("redb", &["windlass-state", "windlass-jobs"]),
        ("config", &["windlass-config"]),
        ("zstd", &["windlass-repo", "windlass-qcow2"]),
        ("axum", &["windlass"]),
    ];
    for (name, c) in crates() {
        for (sdk, rooms) in owners {
            assert!(
                !c.needs.contains(sdk) || rooms.contains(&name.as_str()),
                "{name} uses {sdk}, whose room is {rooms:?}"
            );
        }
    }
}

#[test]
fn actix_is_confined() {
    for (path, text) in sources() {
        if path.starts_with("actors/runtime") || path.ends_with("actor.rs") || is_test(&path) {
            continue;
        }
        assert!(
            !text.contains("use actix") && !text.contains("actix::"),
            "{}: actix lives in runtime and actor.rs",
            path.display()
        );
    }
}

#[test]
fn subjects_are_made_in_wire_alone() {
    for (path, text) in sources() {
        if path.starts_with("actors/wire") || is_test(&path) {
            continue;
        }
        for line in shipped(&text).lines().filter(|l| !l.trim_start().starts_with("//")) {
            assert!(
                !line.contains("\"windlass.v1"),
                "{}: builds a subject by hand: {line}",
                path.display()
            );
        }
    }
}

#[test]
fn no_cellar() {
    for (path, _) in sources() {
        for part in path.components() {
            let part = part.as_os_str().to_string_lossy();
            let stem = part.trim_end_matches(".rs");
            assert!(
                !["common", "utils", "util", "helpers", "misc"].contains(&stem),
                "{}: give the thing a name of its own",
                path.display()
            );
        }
    }
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut bad = Vec::new();
    for (path, text) in sources() {
        let lines = text.lines().count();
        if lines > LINES_MAX {
            bad.push(format!("{}: {lines} lines; at most {LINES_MAX}", path.display()));
        }
        let tests = path.file_name().is_some_and(|n| n == "tests.rs") || is_test(&path);
        if !tests && !text.starts_with("//!") {
            bad.push(format!(
                "{}: the first line should say what the file is for (//!)",
                path.display()
            ));
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn core_is_pure() {
    for (path, text) in sources() {
        let in_core = path.starts_with("actors")
            && path
                .components()
                .any(|c| c.as_os_str() == "core" || c.as_os_str() == "core.rs");
        if !in_core || is_test(&path) {
            continue;
        }
        for word in [
            "tokio",
            "actix",
            "std::fs",
            "std::time",
            "std::env",
            "std::net",
            "std::process",
            "rand::",
            "async fn",
        ] {
            assert!(
                !shipped(&text).contains(word),
                "{}: core.rs decides; '{word}' belongs to the edge",
                path.display()
            );
        }
    }
}

/// Every concern has the same rooms, its row, its config section, its wire goldens and its evidence.
#[test]
fn every_concern_is_whole() {
    let all = crates();
    let found = concerns(&all);
    assert!(!found.is_empty());
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    let (table, reference, samples) = (
        read("src/concerns.rs"),
        read("config/windlass.toml"),
        read("actors/wire/golden/samples.txt"),
    );
    // one that isn't in THE TABLE yet is being built; nothing of it is in the binary
    let has_row = |name: &str| table.contains(&format!("\"{name}\""));
    let whole = found.into_iter().filter(|(name, _)| name != EXAMPLE && has_row(name));
    let mut seen = 0;
    for (name, concern) in whole {
        seen += 1;
        for room in [
            "src/lib.rs",
            "src/core.rs",
            "src/port.rs",
            "src/actor.rs",
            "src/error.rs",
        ] {
            assert!(root().join(&concern.dir).join(room).exists(), "{name} has no {room}");
        }
        assert!(
            reference.contains(&format!("[{name}]")),
            "{name} has no section in config/windlass.toml"
        );
        assert!(samples.contains(&format!("\n{name}.")), "{name} has no wire samples");
        assert!(
            root().join(format!("docs/evidence/{name}.md")).exists(),
            "{name} has no docs/evidence page"
        );
        assert!(
            root().join(format!("docs/{name}.md")).exists(),
            "{name} has no page in docs/"
        );
    }
    // each row is a directory, and each dependency of the root that is a concern has a row
    let rows = table.matches("name: \"").count();
    let built = all["windlass"]
        .needs
        .iter()
        .filter(|need| all.get(*need).is_some_and(|c| is_concern(&c.dir)))
        .count();
    assert_eq!(
        (rows, built),
        (seen + 1, seen + 1),
        "rows of THE TABLE, concerns that the root depends on"
    );
}

/// What a machine of ours is called, or where it gets its packages, is nobody's business.
#[test]
fn nothing_names_this_machine() {
    let out = Command::new("git")
        .args(["ls-files"])
        .current_dir(root())
        .output()
        .expect("git runs");
    for file in String::from_utf8_lossy(&out.stdout).lines() {
        if file == "integration/tests/tidy.rs" || file == "Cargo.lock" {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(root().join(file)) else {
            continue;
        };
        for word in ["/work/main", "/work/shared", "/root/.cargo"] {
            assert!(!text.contains(word), "{file} names {word}");
        }
    }
}
