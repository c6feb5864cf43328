//! Layers, findings, origins and the reference.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::*;

fn root_on(host: &str) -> Surroundings {
    Surroundings {
        is_root: true,
        host_name: host.into(),
        working_dir: "/home/ada".into(),
        ..Surroundings::default()
    }
}

fn user(env: &[(&str, &str)]) -> Surroundings {
    Surroundings {
        env: env.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        is_root: false,
        host_name: "web1.example.com".into(),
        working_dir: "/home/ada".into(),
    }
}

fn file(text: &str) -> FileText {
    FileText {
        path: "/etc/windlass/windlass.toml".into(),
        text: text.into(),
    }
}

fn load_with(text: &str, env: &[(&str, &str)], flags: &Flags) -> Result<Loaded, ConfigError> {
    load(Some(&file(text)), &user(env), flags)
}

#[test]
fn defaults_work_with_nothing_said() {
    let root = load(None, &root_on("web-1"), &Flags::default()).unwrap();
    assert_eq!(root.config.state_dir, Path::new("/var/lib/windlass"));
    assert_eq!(root.config.host_id.as_str(), "web-1");
    assert_eq!(root.config.repo.url, "file:///var/lib/windlass/repo");
    assert_eq!(root.config.gateway.socket, Path::new("/var/lib/windlass/windlass.sock"));
    assert_eq!(root.config.repo.chunker.to_wire(), wire::repo::Chunker::default());
    assert_eq!(root.config.snapshot.common_held_days, 7);
    assert!(root.warnings.is_empty());

    let dirs = |env: &[(&str, &str)]| load(None, &user(env), &Flags::default()).unwrap().config.state_dir;
    assert_eq!(
        dirs(&[("HOME", "/home/ada")]),
        Path::new("/home/ada/.local/state/windlass")
    );
    assert_eq!(
        dirs(&[("HOME", "/home/ada"), ("XDG_STATE_HOME", "/x")]),
        Path::new("/x/windlass")
    );
    assert_eq!(
        dirs(&[("HOME", "/home/ada"), ("XDG_STATE_HOME", "x")]),
        Path::new("/home/ada/.local/state/windlass")
    );
    assert_eq!(dirs(&[]), Path::new("/home/ada/.windlass"));
    assert_eq!(
        load(None, &user(&[]), &Flags::default())
            .unwrap()
            .config
            .host_id
            .as_str(),
        "web1"
    );
}

#[test]
fn host_names_become_tokens() {
    for (name, id) in [
        ("web1.example.com", "web1"),
        ("bär 7", "b-r-7"),
        ("", "localhost"),
        (".x", "localhost"),
    ] {
        assert_eq!(
            load(None, &root_on(name), &Flags::default())
                .unwrap()
                .config
                .host_id
                .as_str(),
            id,
            "{name}"
        );
    }
    let long = "x".repeat(200);
    assert_eq!(
        load(None, &root_on(&long), &Flags::default())
            .unwrap()
            .config
            .host_id
            .as_str()
            .len(),
        64
    );
}

#[test]
fn later_layers_win_and_keep_their_origin() {
    let text = "state_dir = \"/a\"\n[snapshot]\nthreads = 2\ncommon_held_days = 3\n";
    let env = [
        ("WINDLASS_STATE_DIR", "/b"),
        ("WINDLASS_SNAPSHOT__THREADS", "4"),
        ("WINDLASS_REPO__CHUNKER__MODE", "fixed"),
    ];
    let flags = Flags {
        state_dir: Some("c".into()),
        ..Flags::default()
    };
    let loaded = load_with(text, &env, &flags).unwrap();
    assert_eq!(loaded.config.state_dir, Path::new("/home/ada/c"));
    assert_eq!(loaded.config.snapshot.threads, 4);
    assert_eq!(loaded.config.snapshot.common_held_days, 3);
    assert_eq!(
        loaded.config.repo.chunker.to_wire(),
        wire::repo::Chunker::Fixed { chunk_bytes: 64 << 10 }
    );
    // what follows from another key follows its last word
    assert_eq!(loaded.config.repo.url, "file:///home/ada/c/repo");
    assert_eq!(loaded.config.gateway.socket, Path::new("/home/ada/c/windlass.sock"));
    let origin = |path: &str| loaded.origin(path).unwrap().to_string();
    assert_eq!(origin("state_dir"), "flag --state-dir");
    assert_eq!(origin("snapshot.threads"), "environment WINDLASS_SNAPSHOT__THREADS");
    assert_eq!(origin("snapshot.common_held_days"), "/etc/windlass/windlass.toml:4");
    assert_eq!(origin("log.level"), "default");
    assert_eq!(loaded.shown().len(), keys().count());
    let shown = loaded
        .shown()
        .into_iter()
        .find(|s| s.key == "snapshot.threads")
        .unwrap();
    assert_eq!(shown.value, Value::Integer(4));
}

#[test]
fn empty_variables_count_as_absent_and_the_short_name_of_the_repository_wins() {
    let loaded = load_with("", &[("WINDLASS_STATE_DIR", ""), ("HOME", "/h")], &Flags::default()).unwrap();
    assert_eq!(loaded.config.state_dir, Path::new("/h/.local/state/windlass"));
    let env = [("WINDLASS_REPO", "backup"), ("WINDLASS_REPO__URL", "memory://x")];
    let loaded = load_with("", &env, &Flags::default()).unwrap();
    assert_eq!(loaded.config.repo.url, "file:///home/ada/backup");
    assert_eq!(
        loaded.origin("repo.url").unwrap().to_string(),
        "environment WINDLASS_REPO"
    );
    let flags = Flags {
        repo: Some("/srv/my repo".into()),
        ..Flags::default()
    };
    assert_eq!(
        load_with("", &env, &flags).unwrap().config.repo.url,
        "file:///srv/my%20repo"
    );
}

#[test]
fn unknown_keys_name_the_nearest_one_and_their_line() {
    let cases = [
        (
            "\n[snapshot]\nthread = 2",
            "/etc/windlass/windlass.toml:3: unknown key 'snapshot.thread'; did you mean 'snapshot.threads'?",
        ),
        (
            "statedir = \"/x\"",
            "/etc/windlass/windlass.toml:1: unknown key 'statedir'; did you mean 'state_dir'?",
        ),
        (
            "[snapshots]\nthreads = 2",
            "/etc/windlass/windlass.toml:1: unknown section [snapshots]; did you mean [snapshot]?",
        ),
        (
            "socket = \"/x\"",
            "/etc/windlass/windlass.toml:1: unknown key 'socket'; did you mean 'gateway.socket'?",
        ),
        (
            "[repo]\nchunker.mod = \"fixed\"",
            "/etc/windlass/windlass.toml:2: unknown key 'repo.chunker.mod'; did you mean 'repo.chunker.mode'?",
        ),
        (
            "[log]\nzzqq = 1",
            "/etc/windlass/windlass.toml:2: unknown key 'log.zzqq'; the keys of [log] are level, format",
        ),
    ];
    for (text, wanted) in cases {
        let findings = check_text(&file(text));
        assert_eq!(findings.len(), 1, "{text}: {findings:?}");
        assert_eq!(findings[0].to_string(), wanted);
        assert_eq!(findings[0].severity, Severity::UnknownKey);
        // at boot it is a warning
        assert_eq!(load_with(text, &[], &Flags::default()).unwrap().warnings, findings);
    }
    let loaded = load_with("", &[("WINDLASS_SNAPSHOT__THREAD", "2")], &Flags::default()).unwrap();
    assert_eq!(
        loaded.warnings[0].to_string(),
        "environment WINDLASS_SNAPSHOT__THREAD: unknown variable; did you mean WINDLASS_SNAPSHOT__THREADS?"
    );
    let fine = [
        ("WINDLASS_TEST_SEEDS", "3"),
        ("WINDLASS_JSON", "1"),
        ("WINDLASS_CONFIG", "/x"),
    ];
    assert!(check_environment(&user(&fine)).is_empty());
}

#[test]
fn wrong_values_are_all_told_with_their_lines() {
    let text = "host_id = \"a.b\"\nstate_dir = \"rel\"\n[snapshot]\nthreads = -1\ncommon_held_days = \"7\"\n[log]\nformat = \"jsn\"\nlevel = 3\n[repo]\nurl = \"ftp://x\"\n[runtime]\nmailbox_messages_max = 99999999999999999999\n";
    let error = load_with(text, &[], &Flags::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    let lines: Vec<usize> = error
        .faults()
        .iter()
        .map(|f| match f.place {
            Place::File { line, .. } => line,
            _ => 0,
        })
        .collect();
    assert_eq!(lines, [1, 2, 4, 5, 7, 8, 10, 12]);
    let body = wire::ErrorBody::from(&error);
    assert_eq!(body.code, wire::Code::Invalid);
    assert!(body.message.contains("did you mean 'json'?"), "{}", body.message);
    assert!(
        body.message.contains("wanted is a whole number from 0 to 512"),
        "{}",
        body.message
    );
}

#[test]
fn what_is_no_toml_or_of_another_type_is_told() {
    let first = |text: &str| check_text(&file(text)).remove(0).to_string();
    assert!(
        first("a = \"x").starts_with("/etc/windlass/windlass.toml:1: not TOML: "),
        "{}",
        first("a = \"x")
    );
    assert!(first("\n\nx = 1\nx = 2").starts_with("/etc/windlass/windlass.toml:4: not TOML: "));
    assert_eq!(
        first("log = 3"),
        "/etc/windlass/windlass.toml:1: 'log' is a section: write [log]"
    );
    for value in ["[1]", "true", "1.5", "{ a = 1 }", "2026-11-24"] {
        let text = format!("[snapshot]\nthreads = {value}");
        assert!(
            first(&text).contains(":2: snapshot.threads: a TOML "),
            "{}",
            first(&text)
        );
    }
}

#[test]
fn repository_urls_are_checked_and_never_carry_a_password() {
    let load_url = |url: &str| load_with(&format!("[repo]\nurl = \"{url}\""), &[], &Flags::default());
    for url in [
        "file:///srv/r",
        "memory://x",
        "gs://b/p",
        "az://c",
        "s3://b/p?endpoint=http://h",
    ] {
        assert_eq!(load_url(url).unwrap().config.repo.url, url);
    }
    assert_eq!(load_url("/srv/r").unwrap().config.repo.url, "file:///srv/r");
    for url in ["", "srv/r", "file://srv/r", "http://x", "s3:b"] {
        assert!(load_url(url).is_err(), "{url}");
    }
    let message = load_url("gs://ada:hunter2@b/p").unwrap_err().to_string();
    assert!(!message.contains("hunter2"), "{message}");
}

#[test]
fn keys_that_depend_on_one_another_are_checked_together() {
    let fault = |text: &str| load_with(text, &[], &Flags::default()).unwrap_err().to_string();
    assert_eq!(
        fault("[repo.chunker]\nmin_bytes = 131072"),
        "/etc/windlass/windlass.toml:2: repo.chunker.min_bytes: 131072 is more than repo.chunker.avg_bytes (65536)"
    );
    assert!(fault("[repo.chunker]\nmax_bytes = 32768").contains("less than repo.chunker.avg_bytes"));
    assert!(fault("[repo.chunker]\nchunk_bytes = 5000").contains("5000 is not a multiple of 4096"));
    assert!(fault("[repo.chunker]\navg_bytes = 65537").contains("not a multiple of 2"));
}

#[test]
fn log_filters_are_checked() {
    let level = |text: &str| load_with(&format!("[log]\nlevel = \"{text}\""), &[], &Flags::default()).is_ok();
    assert!(level("info") && level("DEBUG") && level("warn,windlass_repo=debug") && level("off"));
    assert!(!level("") && !level("loud") && !level("info,=x") && !level("windlass=loud"));
}

#[test]
fn the_file_is_chosen_by_flag_then_variable_then_place() {
    let env = user(&[("HOME", "/home/ada"), ("WINDLASS_CONFIG", "b.toml")]);
    assert_eq!(
        choose_file(Some(Path::new("a.toml")), &env),
        Some(("/home/ada/a.toml".into(), true))
    );
    assert_eq!(choose_file(None, &env), Some(("/home/ada/b.toml".into(), true)));
    let bare = user(&[("HOME", "/home/ada")]);
    assert_eq!(
        choose_file(None, &bare),
        Some(("/home/ada/.config/windlass/windlass.toml".into(), false))
    );
    assert_eq!(
        choose_file(None, &root_on("x")),
        Some(("/etc/windlass/windlass.toml".into(), false))
    );
    assert_eq!(choose_file(None, &user(&[])), None);

    let missing = Path::new("/nowhere/windlass.toml");
    assert_eq!(read_file(missing, false).unwrap(), None);
    assert_eq!(read_file(missing, true).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(read_file(Path::new("/"), true).unwrap_err().kind(), Kind::Unreadable);
}

fn reference_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("windlass.toml")
}

#[test]
fn golden_reference_is_made_from_the_table() {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(reference_path(), reference()).unwrap();
    }
    let kept = std::fs::read_to_string(reference_path()).unwrap();
    assert!(
        kept == reference(),
        "config/windlass.toml differs: UPDATE_GOLDEN=1 cargo test -p windlass-config"
    );
}

#[test]
fn reference_is_whole_and_its_values_are_the_defaults() {
    let kept = std::fs::read_to_string(reference_path()).unwrap();
    assert!(
        check_text(&file(&kept)).is_empty(),
        "as it is, the file sets nothing and is fine"
    );
    let is_key = |line: &str| {
        line.strip_prefix('#')
            .is_some_and(|rest| !rest.is_empty() && !rest.starts_with(' '))
    };
    let uncommented: String = kept
        .lines()
        .map(|l| if is_key(l) { &l[1..] } else { l })
        .map(|l| format!("{l}\n"))
        .collect();
    let defaults = load(None, &root_on("web-1"), &Flags::default()).unwrap();
    let said = load(Some(&file(&uncommented)), &root_on("web-1"), &Flags::default()).unwrap();
    assert_eq!(said.config, defaults.config);
    assert!(said.warnings.is_empty());
    // every key was said, none is left to its default
    for shown in said.shown() {
        assert_ne!(shown.origin, Origin::Default, "{}", shown.key);
    }
}

/// The table and the structs name the same keys.
#[test]
fn table_and_structs_agree() {
    fn leaves(prefix: &str, value: &serde_json::Value, found: &mut BTreeSet<String>) {
        match value.as_object() {
            Some(table) => table.iter().for_each(|(name, inner)| {
                let path = if prefix.is_empty() {
                    name.clone()
                } else {
                    format!("{prefix}.{name}")
                };
                leaves(&path, inner, found);
            }),
            None => {
                found.insert(prefix.to_owned());
            }
        }
    }
    let config = load(None, &root_on("x"), &Flags::default()).unwrap().config;
    let mut fields = BTreeSet::new();
    leaves("", &serde_json::to_value(&config).unwrap(), &mut fields);
    assert_eq!(fields, keys().map(|k| k.path.to_owned()).collect());
    // each key is in the section that its path says, and no two share a variable
    for section in sections() {
        for key in section.keys {
            assert_eq!(key.path.rsplit_once('.').map_or("", |(s, _)| s), section.name);
        }
    }
    assert_eq!(keys().map(Key::env_name).collect::<BTreeSet<_>>().len(), keys().count());
}
