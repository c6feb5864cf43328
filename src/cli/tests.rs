//! The command line by table, and its help pages by golden files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::{FromArgMatches, error::ErrorKind};

use super::args::{Cli, ConfigVerb, JobStateArg, JobsVerb, ProgressStyle, Verb};
use super::snapshot::args::{RepoVerb, SnapshotVerb};
use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    let words = std::iter::once("windlass").chain(line.split_whitespace());
    command()
        .try_get_matches_from(words)
        .and_then(|m| Cli::from_arg_matches(&m))
}

fn verb(line: &str) -> Verb {
    parse(line).unwrap_or_else(|e| panic!("{line}: {e}")).verb
}

#[test]
fn clap_finds_no_fault_in_the_tree() {
    command().debug_assert();
}

#[test]
fn global_flags_stand_anywhere() {
    for line in [
        "--json --state-dir /x snapshot ls",
        "snapshot --json ls --state-dir /x",
        "snapshot ls --json --state-dir /x",
    ] {
        let cli = parse(line).unwrap();
        assert!(cli.global.json, "{line}");
        assert_eq!(cli.global.state_dir.as_deref(), Some(Path::new("/x")), "{line}");
    }
    let cli = parse("-y -q --progress plain --repo gs://b --host-id h1 --config /c status").unwrap();
    assert!(cli.global.yes && cli.global.quiet && !cli.global.json);
    assert_eq!(cli.global.progress, ProgressStyle::Plain);
    assert_eq!(cli.global.repo.as_deref(), Some("gs://b"));
}

#[test]
fn snapshot_verbs() {
    let Verb::Snapshot(SnapshotVerb::Create {
        vm,
        disks,
        definition,
        formats,
        crash_consistent,
        job,
    }) = verb("snapshot create --vm web1 --disk /a --disk data=/b --format data=qcow2 --definition /d --request-id r1")
    else {
        panic!("no create")
    };
    assert_eq!(
        (vm.as_str(), disks, definition),
        ("web1", vec!["/a".into(), "data=/b".into()], Some("/d".into()))
    );
    assert_eq!((formats, crash_consistent), (vec!["data=qcow2".to_owned()], false));
    assert_eq!(job.request_id.as_deref(), Some("r1"));
    assert!(matches!(
        verb("snapshot ls"),
        Verb::Snapshot(SnapshotVerb::Ls { vm: None })
    ));
    assert!(matches!(
        verb("snapshot show latest --vm w"),
        Verb::Snapshot(SnapshotVerb::Show { vm: Some(_), .. })
    ));
    assert!(matches!(
        verb("snapshot diff A B"),
        Verb::Snapshot(SnapshotVerb::Diff { disk: None, .. })
    ));
    assert!(matches!(
        verb("snapshot verify --quick"),
        Verb::Snapshot(SnapshotVerb::Verify {
            id: None,
            quick: true,
            ..
        })
    ));
    assert!(matches!(
        verb("snapshot forget A --force"),
        Verb::Snapshot(SnapshotVerb::Forget { force: true, .. })
    ));
    let Verb::Snapshot(SnapshotVerb::Export { format, output, .. }) = verb("snapshot export A --output new.raw") else {
        panic!("no export")
    };
    assert_eq!((format.as_str(), output), ("raw", PathBuf::from("new.raw")));
}

#[test]
fn restore_is_an_alias_and_takes_one_way_at_a_time() {
    for line in [
        "restore --vm w --to latest --disk d",
        "snapshot restore --vm w --to latest --disk d",
    ] {
        let args = match verb(line) {
            Verb::Restore(args) | Verb::Snapshot(SnapshotVerb::Restore(args)) => args,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            (args.vm.as_str(), args.to.as_deref(), args.disks.len()),
            ("w", Some("latest"), 1)
        );
    }
    for line in [
        "restore --vm w --undo",
        "restore --vm w --to A --plan",
        "restore --vm w --to A --output n --disk d",
    ] {
        verb(line);
    }
    for (line, kind) in [
        ("restore --vm w", ErrorKind::MissingRequiredArgument),
        ("restore --to A", ErrorKind::MissingRequiredArgument),
        ("restore --vm w --to A --undo", ErrorKind::ArgumentConflict),
        ("restore --vm w --to A --plan --output n", ErrorKind::ArgumentConflict),
        ("restore --vm w --undo --plan", ErrorKind::ArgumentConflict),
        ("restore --vm w --undo --output n", ErrorKind::ArgumentConflict),
        ("snapshot create --vm w", ErrorKind::MissingRequiredArgument),
        ("jobs ls --count 0", ErrorKind::ValueValidation),
        ("snapsho ls", ErrorKind::InvalidSubcommand),
        ("", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
    ] {
        assert_eq!(parse(line).map(|_| ()).unwrap_err().kind(), kind, "{line}");
    }
}

#[test]
fn the_other_verbs() {
    assert!(matches!(verb("repo init"), Verb::Repo(RepoVerb::Init)));
    assert!(matches!(
        verb("jobs ls"),
        Verb::Jobs(JobsVerb::Ls { count: 20, state: None })
    ));
    assert!(matches!(
        verb("jobs ls --state dead"),
        Verb::Jobs(JobsVerb::Ls {
            state: Some(JobStateArg::Dead),
            ..
        })
    ));
    assert!(matches!(verb("jobs dead"), Verb::Jobs(JobsVerb::Dead { count: 20 })));
    assert!(matches!(verb("jobs retry A"), Verb::Jobs(JobsVerb::Retry { .. })));
    assert!(matches!(verb("jobs watch A"), Verb::Jobs(JobsVerb::Watch { .. })));
    assert!(matches!(
        verb("config show --origin"),
        Verb::Config(ConfigVerb::Show { origin: true })
    ));
    assert!(matches!(verb("check-config"), Verb::CheckConfig { file: None }));
    assert!(matches!(
        verb("watch snapshot.created --count 1"),
        Verb::Watch { count: Some(1), .. }
    ));
    let Verb::Send(send) = verb("send house.status") else {
        panic!("no send")
    };
    assert_eq!(send.what.request, "{}");
    for line in ["serve", "status", "demo", "schema", "completions bash", "man"] {
        verb(line);
    }
}

/// Every command with its words joined by `-`, as its man page is called.
fn walk(name: &str, command: &clap::Command, found: &mut Vec<(String, clap::Command)>) {
    found.push((name.to_owned(), command.clone()));
    for sub in command.get_subcommands().filter(|s| s.get_name() != "help") {
        walk(&format!("{name}-{}", sub.get_name()), sub, found);
    }
}

fn helps() -> Vec<(String, String)> {
    let mut command = command().term_width(100);
    command.build();
    let mut all = Vec::new();
    walk("windlass", &command, &mut all);
    all.into_iter()
        .map(|(name, mut c)| (name, c.render_long_help().to_string()))
        .collect()
}

#[test]
fn golden_help_of_every_verb() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/golden");
    let helps = helps();
    assert!(helps.len() > 25, "only {} verbs were found", helps.len());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(&dir).unwrap();
        for entry in std::fs::read_dir(&dir).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        for (name, help) in &helps {
            std::fs::write(dir.join(format!("{name}.txt")), help).unwrap();
        }
    }
    let kept: BTreeSet<String> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|e| {
            e.unwrap()
                .file_name()
                .to_string_lossy()
                .trim_end_matches(".txt")
                .to_owned()
        })
        .collect();
    assert_eq!(
        kept,
        helps.iter().map(|(n, _)| n.clone()).collect(),
        "UPDATE_GOLDEN=1 cargo test -p windlass"
    );
    for (name, help) in &helps {
        let kept = std::fs::read_to_string(dir.join(format!("{name}.txt"))).unwrap();
        assert!(
            kept == *help,
            "the help of {name} differs: UPDATE_GOLDEN=1 cargo test -p windlass\n{help}"
        );
        assert!(help.is_ascii(), "the help of {name} has more than ASCII");
    }
}

#[test]
fn help_names_exit_codes_and_variables() {
    let help = helps().remove(0).1;
    for code in Code::ALL {
        assert!(
            help.contains(&format!("  {}  {}: ", code.exit_code(), code)),
            "{code} is missing:\n{help}"
        );
    }
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for name in ["CONFIG", "STATE_DIR", "HOST_ID", "REPO", "JSON", "YES", "QUIET"] {
        assert!(
            help.contains(&format!("[env: WINDLASS_{name}]")),
            "{name} is missing:\n{help}"
        );
    }
}

#[test]
fn man_pages_and_completions_cover_every_verb() {
    let pages = pages::pages().unwrap();
    let names: BTreeSet<&str> = pages.iter().map(|(n, _)| n.trim_end_matches(".1")).collect();
    assert_eq!(names, helps().iter().map(|(n, _)| n.as_str()).collect());
    let main = String::from_utf8(pages[0].1.clone()).unwrap();
    assert!(main.contains(".TH windlass 1") && main.contains("not_found"), "{main}");
    let mut script = Vec::new();
    clap_complete::generate(clap_complete::Shell::Bash, &mut command(), "windlass", &mut script);
    let script = String::from_utf8(script).unwrap();
    for word in ["snapshot", "restore", "check-config", "--state-dir", "verify"] {
        assert!(script.contains(word), "{word} is missing");
    }
}

#[test]
fn the_repository_travels_only_when_somebody_said_it_here() {
    let around = Surroundings {
        working_dir: "/home/ada".into(),
        ..Surroundings::default()
    };
    let with = |flags: Flags, env: &[(&str, &str)], text: &str| {
        let env = env.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let file = config::FileText {
            path: "/c".into(),
            text: text.into(),
        };
        let loaded = config::load(Some(&file), &Surroundings { env, ..around.clone() }, &flags).unwrap();
        [true, false].map(|to_daemon| named_repo(&loaded, to_daemon))
    };
    assert_eq!(with(Flags::default(), &[], ""), [None, None]);
    assert_eq!(with(Flags::default(), &[], "repo.url = \"/srv/r\""), [None, None]);
    assert_eq!(
        with(Flags::default(), &[("WINDLASS_REPO", "r")], ""),
        [Some("file:///home/ada/r".into()), None]
    );
    let flags = Flags {
        repo: Some("/srv/r".into()),
        ..Flags::default()
    };
    assert_eq!(
        with(flags, &[], ""),
        [Some("file:///srv/r".into()), Some("file:///srv/r".into())]
    );
}

/// Verbs that are made from messages, and that the example of CONTRIBUTING.md is in no binary that doesn't ask for it.
#[test]
fn a_concern_without_a_file_here_has_the_verbs_of_its_messages() {
    let row = crate::concerns::Row {
        noun: "racks",
        ..crate::concerns::TABLE[1]
    };
    let noun = nouns::of(&row);
    assert!(noun.find_subcommand("place").is_some() && noun.find_subcommand("ls").is_some());
    let args = noun.try_get_matches_from(["racks", "ls", "{\"tenant\": \"t\"}", "--timeout-ms", "7"]);
    let sent = args
        .unwrap()
        .subcommand()
        .map(|(verb, args)| nouns::send(&row, verb, args).unwrap());
    let sent = sent.unwrap();
    assert_eq!(
        (sent.subject.as_str(), sent.what.timeout_ms),
        ("rack_scheduler.ls", Some(7))
    );
    assert_eq!(sent.what.request, "{\"tenant\": \"t\"}");
    let said = |line: &str| nouns::sent(&command().try_get_matches_from(line.split(' ')).unwrap()).is_some();
    assert!(!said("windlass rack ls") && !said("windlass status"));
    let shipped = crate::concerns::TABLE.iter().any(|row| row.name == "echo");
    let told = wire::catalog::asyncapi("0").to_string().contains("echo") || config::reference().contains("echo");
    assert_eq!((shipped, told), (cfg!(feature = "example"), cfg!(feature = "example")));
}
