//! The house rules of ARCHITECTURE.md as tests: which way things point, where things live, how files look.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

mod concerns;
mod documents;
mod files;

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

fn concerns_of(all: &BTreeMap<String, Crate>) -> Vec<(String, &Crate)> {
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

/// The part of a file that ships: what stands before its `mod tests {`. A mere `mod tests;` ends nothing.
fn shipped(text: &str) -> &str {
    const MARK: &str = "#[cfg(test)]\nmod ";
    let is_block = |at: &usize| {
        let line = text[at + MARK.len()..].lines().next();
        line.is_some_and(|line| line.ends_with('{'))
    };
    let begins = text.match_indices(MARK).map(|(at, _)| at).find(is_block);
    begins.map_or(text, |at| &text[..at])
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
    allow("windlass-planted", &[]);
    allow("windlass-state", &["windlass-wire"]);
    allow(
        "windlass-jobs",
        &["windlass-wire", "windlass-state", "windlass-planted"],
    );
    allow("windlass-repo", &["windlass-wire", "windlass-store"]);
    allow("windlass-object", &["windlass-store"]);
    allow(
        "windlass-nats",
        &[
            "windlass-wire",
            "windlass-bus",
            "windlass-state",
            "windlass-jobs",
            "windlass-secret",
            "windlass-planted",
        ],
    );
    allow(
        "windlass-trust",
        &[
            "windlass-wire",
            "windlass-bus",
            "windlass-state",
            "windlass-jobs",
            "windlass-planted",
        ],
    );
    allow("windlass-secret", &["windlass-wire"]);
    allow("windlass-confine", &[]);
    allow("windlass-qcow2", &[]);
    allow("windlass-s3", &["windlass-store"]);
    allow("windlass-json_http", &[]);
    allow("windlass-machine_file", &["windlass-wire", "windlass-metal_broker"]);
    for speaks_http in ["windlass-redfish", "windlass-ironic"] {
        allow(
            speaks_http,
            &["windlass-wire", "windlass-metal_broker", "windlass-json_http"],
        );
    }
    allow("windlass-config", &["windlass-wire"]);
    allow(
        "windlass-runtime",
        &[
            "windlass-wire",
            "windlass-bus",
            "windlass-state",
            "windlass-jobs",
            "windlass-planted",
        ],
    );
    let concerns: Vec<String> = concerns_of(&all)
        .iter()
        .map(|(name, _)| format!("windlass-{name}"))
        .collect();
    for (name, c) in &all {
        assert!(!c.needs.contains("windlass"), "{name} depends on the composition root");
        // what a concern needs from outside is its port, and an adapter is built on that
        let adapts: &[&str] = match name.as_str() {
            "windlass-machine_file" | "windlass-redfish" | "windlass-ironic" => &["windlass-metal_broker"],
            _ => &[],
        };
        let knows = |n: &&String| concerns.contains(n) && !adapts.contains(&n.as_str());
        for need in c.needs.iter().filter(knows) {
            assert_eq!(
                name, "windlass",
                "{name} depends on the concern {need}; only THE TABLE knows concerns"
            );
        }
    }
}

#[test]
fn each_sdk_has_one_room() {
    let owners: [(&str, &[&str]); 18] = [
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
        ("ed25519-dalek", &["windlass-trust"]),
        ("redb", &["windlass-state", "windlass-jobs"]),
        ("config", &["windlass-config"]),
        ("zstd", &["windlass-repo", "windlass-qcow2"]),
        ("axum", &["windlass"]),
        ("reqwest", &["windlass-json_http"]),
        ("csv", &["windlass-machine_file"]),
        ("cel", &["windlass-metal_broker"]),
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

/// The switch of planted faults is a feature; only tests ask for it.
#[test]
fn no_planted_fault_ships() {
    let out = Command::new(env!("CARGO"))
        .args(["tree", "--package", "windlass", "--edges", "normal,build", "--offline"])
        .args(["--format", "{p} {f}", "--prefix", "none"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let tree = String::from_utf8_lossy(&out.stdout);
    let planted: Vec<&str> = tree.lines().filter(|l| l.starts_with("windlass-planted ")).collect();
    assert!(!planted.is_empty(), "the binary's crates ask for faults");
    for line in planted {
        assert!(
            !line.contains("testing"),
            "a shipped binary would have the switch: {line}"
        );
    }
}

/// What is declared is used; what isn't makes every build longer.
#[test]
fn every_dependency_is_used() {
    let all = crates();
    for (name, c) in &all {
        let manifest = std::fs::read_to_string(root().join(&c.dir).join("Cargo.toml")).expect("a manifest");
        let declared = manifest.split("\n[dependencies]\n").nth(1).unwrap_or_default();
        let declared = declared.split("\n[").next().unwrap_or_default();
        let mut sources = Vec::new();
        walk(&root().join(&c.dir).join("src"), &mut sources);
        for line in declared.lines().filter(|l| !l.starts_with('#') && !l.trim().is_empty()) {
            let used = line.split(['.', ' ', '=']).next().unwrap_or_default().replace('-', "_");
            let is_used = |text: &str| {
                [format!("{used}::"), format!("use {used};"), format!("use {used} as")]
                    .iter()
                    .any(|word| text.contains(word.as_str()))
            };
            // brought in for a feature that another crate needs
            let for_a_feature = line.contains("# feature");
            let found = for_a_feature || sources.iter().any(|(_, text)| is_used(text));
            assert!(found, "{name} doesn't use {used}");
        }
    }
}
