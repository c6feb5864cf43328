//! The shape that every concern has, and what it costs.

use super::*;

/// CONTRIBUTING's example of a concern: in nobody's build, and so without goldens, pages and evidence of its own.
const EXAMPLE: &str = "echo";

#[test]
fn concerns_depend_on_ports_and_never_on_one_another() {
    let allowed = [
        "wire", "runtime", "config", "bus", "state", "jobs", "store", "repo", "qcow2", "planted",
    ]
    .map(|n| format!("windlass-{n}"));
    let all = crates();
    for (name, concern) in concerns_of(&all) {
        for need in concern.needs.iter().filter(|n| n.starts_with("windlass")) {
            assert!(
                allowed.contains(need),
                "{name} depends on {need}; concerns meet in wire, over the bus"
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
fn core_is_pure() {
    for (path, text) in sources() {
        let in_core = (path.starts_with("actors") || path.starts_with("backends/trust"))
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
    let found = concerns_of(&all);
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
        read("Makefile").contains("--features windlass/example"),
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
