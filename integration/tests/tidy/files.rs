//! How files look and what may stand in them.

use super::*;

const LINES_MAX: usize = 500;

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

/// What a machine of ours is called, or where it gets its packages, is nobody's business.
#[test]
fn nothing_names_this_machine() {
    let out = Command::new("git")
        .args(["ls-files"])
        .current_dir(root())
        .output()
        .expect("git runs");
    for file in String::from_utf8_lossy(&out.stdout).lines() {
        if file == "integration/tests/tidy/files.rs" || file == "Cargo.lock" {
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

/// The compiler passes over a file that no `mod` names, and so does everybody else.
#[test]
fn every_file_is_named_by_a_module() {
    let all = sources();
    let text: BTreeMap<&Path, &str> = all.iter().map(|(path, text)| (path.as_path(), text.as_str())).collect();
    for (path, _) in &all {
        let stem = path.file_stem().expect("a name").to_string_lossy();
        let dir = path.parent().expect("a directory");
        let is_root = ["lib", "main", "mod"].contains(&&*stem)
            || ["tests", "benches", "examples"]
                .iter()
                .any(|d| dir.ends_with(d) && !dir.starts_with("src"))
                && dir
                    .parent()
                    .is_some_and(|crate_dir| root().join(crate_dir).join("Cargo.toml").exists());
        if is_root {
            continue;
        }
        let above = dir.with_extension("rs");
        let places = [dir.join("lib.rs"), dir.join("main.rs"), dir.join("mod.rs"), above];
        let declared = places.iter().filter_map(|p| text.get(p.as_path())).any(|t| {
            let names = |line: &str| {
                line.trim_start_matches("pub ")
                    .trim_start_matches("pub(crate) ")
                    .to_owned()
            };
            t.lines().any(|l| names(l.trim()).starts_with(&format!("mod {stem};")))
        });
        assert!(declared, "{}: no `mod {stem};` in {places:?}", path.display());
    }
}

/// Words that mean "later" have no place in what lands.
#[test]
fn nothing_is_left_for_later() {
    for (path, text) in sources() {
        for word in ["todo!(", "unimplemented!(", "FIXME", "XXX:", "dbg!("] {
            let ours = path.ends_with("tidy/files.rs");
            assert!(ours || !text.contains(word), "{} says {word}", path.display());
        }
    }
}

/// A method that a decorator doesn't name would pass the wrapped one by.
#[test]
fn decorators_name_every_method() {
    let mut seen = 0;
    for (path, text) in sources() {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let decorators = [
            "counting.rs",
            "flaky.rs",
            "prefixed.rs",
            "throttled.rs",
            "faulty.rs",
            "signed_bus.rs",
            "signed_state.rs",
        ];
        let decorates = decorators.contains(&name.as_str());
        if decorates && path.starts_with("backends") {
            seen += 1;
            assert!(
                text.contains("#[deny(clippy::missing_trait_methods)]"),
                "{}: a default of the port would pass by it",
                path.display()
            );
        }
    }
    assert_eq!(seen, 7, "decorators of ports");
}
