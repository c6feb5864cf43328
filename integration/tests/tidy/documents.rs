//! What documents say of the code is so.

use super::*;

/// `path/to/file.rs::function` in a document: the file is there, and has that function.
#[test]
fn each_function_of_the_walks_exists() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let mut named = 0;
    for span in text.split('`').skip(1).step_by(2) {
        let Some((file, function)) = span.split_once(".rs::") else {
            continue;
        };
        let path = root().join(format!("{file}.rs"));
        let source = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{span}: {e}"));
        let defined = [format!("fn {function}("), format!("fn {function}<")];
        assert!(
            defined.iter().any(|d| source.contains(d.as_str())),
            "ARCHITECTURE.md names {span}, and there is no such function"
        );
        named += 1;
    }
    assert!(named > 40, "only {named} functions are named");
    for walk in [
        "`windlass snapshot create`",
        "A placement through NATS",
        "A job whose host died",
    ] {
        assert!(text.contains(&format!("### {walk}")), "no walk {walk}");
    }
}

/// docs/dependencies.md has a row for each direct dependency, and none for what is gone.
#[test]
fn the_table_of_dependencies_is_whole() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).expect("a file of ours");
    let (manifest, table) = (read("Cargo.toml"), read("docs/dependencies.md"));
    let ours = manifest.split("[workspace.dependencies]").nth(1).expect("a section");
    let others = ours.split("# other people's").nth(1).expect("the second part");
    let others = others.split("\n[").next().expect("it ends");
    let rows: Vec<&str> = table
        .lines()
        .filter_map(|l| l.strip_prefix("| ")?.split(" | ").next())
        .flat_map(|cell| cell.split(", "))
        .collect();
    for line in others.lines().filter(|l| l.contains('=') && !l.starts_with('#')) {
        let key = line.split([' ', '=']).next().expect("a name");
        let name = match line.split_once("package = \"") {
            Some((_, rest)) => rest.split('"').next().expect("a name"),
            None => key,
        };
        let found = rows
            .iter()
            .any(|row| *row == name || row.strip_suffix('*').is_some_and(|start| name.starts_with(start)));
        assert!(found, "docs/dependencies.md has no row for {name}");
    }
}
