//! What a power loss may leave of a log of operations.

use std::collections::BTreeSet;
use std::fs;

use super::super::*;
use crate::scratch::Scratch;
use crate::tree;

fn create(dir: Ino, name: &str, ino: Ino) -> Op {
    Op::Create {
        dir,
        name: name.into(),
        ino,
        node: Node::File,
        mode: 0o644,
    }
}
fn mkdir(dir: Ino, name: &str, ino: Ino) -> Op {
    Op::Create {
        dir,
        name: name.into(),
        ino,
        node: Node::Directory,
        mode: 0o755,
    }
}
fn write(ino: Ino, offset: u64, data: &[u8]) -> Op {
    Op::Write {
        ino,
        offset,
        data: data.into(),
        sync: false,
    }
}
fn rename(ino: Ino, from_dir: Ino, from: &str, to_dir: Ino, to: &str) -> Op {
    Op::Rename {
        ino,
        from_dir,
        from: from.into(),
        to_dir,
        to: to.into(),
    }
}

/// The tree after a crash behind operation `at`, as `name=content` lines.
fn state(log: &Log, at: usize, policy: Policy, rules: Rules) -> BTreeSet<String> {
    let scratch = Scratch::new("model").unwrap();
    let initial = scratch.dir("initial").unwrap();
    for (path, (_, node)) in &log.initial {
        match node {
            Node::Directory => fs::create_dir_all(initial.join(path)).unwrap(),
            _ => fs::write(initial.join(path), b"old").unwrap(),
        }
    }
    let after = scratch.join("after");
    CrashStates::with_rules(&initial, log, rules)
        .materialise(at, policy, &after)
        .unwrap();
    let mut lines = BTreeSet::new();
    for (path, found) in tree::read(&after).unwrap() {
        let content = match found {
            tree::Found::Directory => "/".to_owned(),
            _ => String::from_utf8_lossy(&fs::read(after.join(&path)).unwrap()).replace('\0', "0"),
        };
        lines.insert(format!("{}={content}", path.display()));
    }
    lines
}

fn lines(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|s| (*s).to_owned()).collect()
}

fn log(initial: &[(&str, Ino, Node)], ops: Vec<Op>) -> Log {
    Log {
        initial: initial.iter().map(|(p, i, n)| ((*p).into(), (*i, n.clone()))).collect(),
        ops,
    }
}

const STRICT: Rules = Rules {
    fsync_of_file_keeps_its_entry: false,
};

#[test]
fn the_safe_way_to_replace_a_file_never_loses_it() {
    let log = log(
        &[("f", 2, Node::File)],
        vec![
            create(1, "t", 3),
            write(3, 0, b"new"),
            Op::Fsync { ino: 3 },
            rename(3, 1, "t", 1, "f"),
            Op::FsyncDir { ino: 1 },
        ],
    );
    for at in 0..5 {
        for seed in 0..40 {
            let state = state(&log, at, Policy::Random(seed), STRICT);
            let f = state.iter().find(|l| l.starts_with("f=")).unwrap();
            assert!(f == "f=old" || (at >= 3 && f == "f=new"), "after {at}: {state:?}");
        }
    }
    assert_eq!(state(&log, 3, Policy::Nothing, STRICT), lines(&["f=old"]));
    assert_eq!(state(&log, 3, Policy::Everything, STRICT), lines(&["f=new"]));
    assert_eq!(state(&log, 4, Policy::Nothing, STRICT), lines(&["f=new"]));
}

#[test]
fn a_rename_without_fsync_of_the_data_may_leave_an_empty_file() {
    let log = log(
        &[("f", 2, Node::File)],
        vec![
            create(1, "t", 3),
            write(3, 0, b"new"),
            rename(3, 1, "t", 1, "f"),
            Op::FsyncDir { ino: 1 },
        ],
    );
    assert_eq!(state(&log, 3, Policy::Nothing, STRICT), lines(&["f="]));
    assert_eq!(state(&log, 3, Policy::Everything, STRICT), lines(&["f=new"]));
    let seen: BTreeSet<_> = (0..60)
        .map(|seed| state(&log, 3, Policy::Random(seed), STRICT))
        .collect();
    assert_eq!(seen, [lines(&["f="]), lines(&["f=000"]), lines(&["f=new"])].into());
}

#[test]
fn fsync_of_a_file_keeps_its_data_and_not_its_name() {
    let log = log(&[], vec![create(1, "f", 2), write(2, 0, b"data"), Op::Fsync { ino: 2 }]);
    assert_eq!(state(&log, 2, Policy::Nothing, STRICT), lines(&[]));
    let lenient = Rules {
        fsync_of_file_keeps_its_entry: true,
    };
    assert_eq!(state(&log, 2, Policy::Nothing, lenient), lines(&["f=data"]));
    assert_eq!(state(&log, 1, Policy::Nothing, lenient), lines(&[]));
}

#[test]
fn fsync_covers_what_was_before_it_alone() {
    let ops = vec![
        write(2, 0, b"AAA"),
        Op::Fsync { ino: 2 },
        write(2, 1, b"B"),
        write(2, 3, b"C"),
    ];
    let log = log(&[("f", 2, Node::File), ("g", 3, Node::File)], ops);
    assert_eq!(state(&log, 0, Policy::Nothing, STRICT), lines(&["f=old", "g=old"]));
    assert_eq!(state(&log, 3, Policy::Nothing, STRICT), lines(&["f=AAA", "g=old"]));
    assert_eq!(
        state(&log, 3, Policy::ReorderedLast, STRICT),
        lines(&["f=AAAC", "g=old"])
    );
    let seen: BTreeSet<_> = (0..80)
        .map(|seed| state(&log, 3, Policy::Random(seed), STRICT))
        .collect();
    let f: BTreeSet<_> = seen.iter().flatten().filter(|l| l.starts_with("f=")).cloned().collect();
    assert_eq!(f, lines(&["f=AAA", "f=ABA", "f=AAA0", "f=ABA0", "f=AAAC", "f=ABAC"]));
}

#[test]
fn an_o_dsync_write_is_durable_and_others_are_not() {
    let synced = Op::Write {
        ino: 2,
        offset: 4,
        data: (*b"S").into(),
        sync: true,
    };
    let log = log(&[("f", 2, Node::File)], vec![write(2, 0, b"X"), synced]);
    assert_eq!(state(&log, 1, Policy::Nothing, STRICT), lines(&["f=old0S"]));
}

#[test]
fn a_new_directory_needs_the_fsync_of_the_one_above() {
    let log = log(
        &[],
        vec![
            mkdir(1, "d", 2),
            create(2, "f", 3),
            Op::Fsync { ino: 3 },
            Op::FsyncDir { ino: 2 },
            Op::FsyncDir { ino: 1 },
        ],
    );
    assert_eq!(state(&log, 3, Policy::Nothing, STRICT), lines(&[]));
    assert_eq!(state(&log, 4, Policy::Nothing, STRICT), lines(&["d=/", "d/f="]));
}

#[test]
fn names_of_one_directory_survive_in_order() {
    let ops = vec![
        create(1, "a", 2),
        create(1, "b", 3),
        Op::Remove {
            dir: 1,
            name: "a".into(),
        },
        create(1, "c", 4),
    ];
    let log = log(&[], ops);
    let seen: BTreeSet<_> = (0..80)
        .map(|seed| state(&log, 3, Policy::Random(seed), STRICT))
        .collect();
    let expected = [
        lines(&[]),
        lines(&["a="]),
        lines(&["a=", "b="]),
        lines(&["b="]),
        lines(&["b=", "c="]),
    ];
    assert_eq!(seen, expected.into());
}

#[test]
fn a_rename_between_directories_never_loses_the_file() {
    let initial = [
        ("a", 2, Node::Directory),
        ("b", 3, Node::Directory),
        ("a/f", 4, Node::File),
    ];
    let log = log(&initial, vec![rename(4, 2, "f", 3, "g"), Op::FsyncDir { ino: 2 }]);
    assert_eq!(
        state(&log, 1, Policy::Nothing, STRICT),
        lines(&["a=/", "b=/", "a/f=old"])
    );
    let seen: BTreeSet<_> = (0..60)
        .map(|seed| state(&log, 0, Policy::Random(seed), STRICT))
        .collect();
    let expected = [
        lines(&["a=/", "b=/", "a/f=old"]),
        lines(&["a=/", "b=/", "a/f=old", "b/g=old"]),
        lines(&["a=/", "b=/", "b/g=old"]),
    ];
    assert_eq!(seen, expected.into());
}

#[test]
fn writes_tear_at_pages() {
    let mut data = vec![b'n'; 3 * 4096];
    data.push(b'n');
    let log = log(&[("f", 2, Node::File)], vec![write(2, 4000, &data)]);
    let mut kinds = BTreeSet::new();
    for seed in 0..200 {
        let state = state(&log, 0, Policy::Random(seed), STRICT);
        let f = state
            .iter()
            .next()
            .unwrap()
            .strip_prefix("f=")
            .unwrap()
            .as_bytes()
            .to_vec();
        let new: Vec<usize> = (0..f.len()).filter(|i| f[*i] == b'n').collect();
        let parts = [4000..4096, 4096..8192, 8192..12_288, 12_288..16_289];
        kinds.insert(parts.map(|p| {
            let n = new.iter().filter(|i| p.contains(*i)).count();
            assert!(n == 0 || n == p.len(), "a part of a page at {p:?}");
            n > 0
        }));
    }
    assert!(kinds.len() >= 15, "only {} of 16 combinations were seen", kinds.len());
}

#[test]
fn truncation_and_holes_are_changes_like_others() {
    let ops = vec![
        Op::Zero {
            ino: 2,
            offset: 1,
            length: 1,
        },
        Op::SetSize { ino: 2, size: 2 },
        Op::Extend { ino: 2, size: 5 },
        Op::Zero {
            ino: 2,
            offset: 0,
            length: 100,
        },
    ];
    let log = log(&[("f", 2, Node::File)], ops);
    assert_eq!(state(&log, 2, Policy::Everything, STRICT), lines(&["f=o0000"]));
    assert_eq!(state(&log, 3, Policy::Everything, STRICT), lines(&["f=00000"]));
    assert_eq!(state(&log, 3, Policy::Nothing, STRICT), lines(&["f=old"]));
}

#[test]
fn a_point_past_the_end_is_an_error_and_points_are_thinned() {
    let log = log(
        &[],
        vec![
            create(1, "a", 2),
            Op::Mark("here".into()),
            create(1, "b", 3),
            Op::FsyncDir { ino: 1 },
        ],
    );
    let scratch = Scratch::new("model").unwrap();
    let states = CrashStates::new(scratch.path(), &log);
    let e = states.materialise(4, Policy::Nothing, &scratch.join("x")).unwrap_err();
    assert_eq!(e.kind(), std::io::ErrorKind::InvalidInput);
    assert_eq!(log.crash_points(10), [0, 2, 3]);
    assert_eq!(log.crash_points(2), [0, 3]);
    assert_eq!(log.mark("here"), Some(1));
}
