//! Journals on a real filesystem.

use super::*;

fn intent(vm: &str, disk: &str) -> Intent {
    let state = |snapshot: &str| State {
        snapshot: snapshot.into(),
        manifest: ManifestRef {
            size_bytes: 4096,
            root: Some(repo::BlobId::from_bytes([7; 32])),
        },
    };
    Intent {
        restore: "01JCXQ6Y9D3W6V3S1W8Y5Z4K2M".into(),
        vm: vm.into(),
        disk: disk.into(),
        path: "/srv/web1.raw".into(),
        identity: (3, 99),
        repo_url: "memory://".into(),
        repo_id: "R".into(),
        target: state("T"),
        common: state("C"),
        started_at: "2026-11-24T03:00:00Z".into(),
        format: None,
    }
}

fn journals() -> (tempfile::TempDir, Journals) {
    let dir = tempfile::tempdir().unwrap();
    let journals = Journals::new(dir.path());
    (dir, journals)
}

#[test]
fn a_journal_is_found_noted_turned_and_removed() {
    let (_dir, journals) = journals();
    assert_eq!(journals.find("web1", "root").unwrap(), None);
    let mut journal = journals.create(intent("web1", "root")).unwrap();
    journal.note(Phase::Copy, 17, "p").unwrap();
    let found = journals.find("web1", "root").unwrap().unwrap();
    assert_eq!((found.record().checkpoint, found.record().plan.as_str()), (17, "p"));
    assert_eq!(found.record().to_and_from().0.snapshot, "T");
    journal.turn(Direction::Undo).unwrap();
    let found = journals.find("web1", "root").unwrap().unwrap();
    assert_eq!(
        (found.record().checkpoint, found.record().direction),
        (0, Direction::Undo)
    );
    assert_eq!(found.record().to_and_from().0.snapshot, "C");
    found.remove().unwrap();
    assert!(journals.list().unwrap().is_empty());
}

#[test]
fn a_second_restore_of_the_disk_is_refused_with_the_way_on() {
    let (_dir, journals) = journals();
    journals.create(intent("web1", "root")).unwrap();
    let error = journals.create(intent("web1", "root")).unwrap_err();
    assert_eq!(error.kind, Kind::Conflict);
    assert!(error.hint.unwrap().contains("--undo"));
    journals.create(intent("web1", "data")).unwrap();
    assert_eq!(journals.list().unwrap().len(), 2);
    assert_eq!(journals.touching(Path::new("/elsewhere"), (3, 99)).unwrap().len(), 2);
    assert_eq!(journals.touching(Path::new("/srv/web1.raw"), (1, 1)).unwrap().len(), 2);
    assert_eq!(journals.touching(Path::new("/elsewhere"), (1, 1)).unwrap().len(), 0);
}

#[test]
fn names_never_collide_nor_leave_the_directory() {
    let (dir, journals) = journals();
    let long = "a".repeat(128);
    let paths: Vec<_> = [
        ("a@b", "c"),
        ("a", "b@c"),
        ("../../etc", "x"),
        (&long, &long),
        (&long, "b"),
    ]
    .map(|(vm, disk)| journals.create(intent(vm, disk)).unwrap().path().to_owned())
    .into();
    let mut unique = paths.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), paths.len());
    assert!(paths.iter().all(|p| p.parent() == Some(&dir.path().join("restores"))));
}

#[test]
fn any_flipped_byte_is_an_error_that_says_what_to_do() {
    let (_dir, journals) = journals();
    let journal = journals.create(intent("web1", "root")).unwrap();
    let good = std::fs::read(journal.path()).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        std::fs::write(journal.path(), &bad).unwrap();
        let error = journals.find("web1", "root").unwrap_err();
        assert!(
            matches!(error.kind, Kind::Corrupt | Kind::Invalid),
            "byte {at}: {error}"
        );
        assert!(error.hint.is_some());
    }
    for len in 0..good.len() {
        std::fs::write(journal.path(), &good[..len]).unwrap();
        assert_eq!(
            journals.find("web1", "root").unwrap_err().kind,
            Kind::Corrupt,
            "cut to {len}"
        );
    }
    assert!(journals.list().unwrap()[0].is_err());
}

#[test]
fn a_newer_version_is_named() {
    let (_dir, journals) = journals();
    let journal = journals.create(intent("web1", "root")).unwrap();
    let text = std::fs::read_to_string(journal.path()).unwrap();
    std::fs::write(journal.path(), text.replacen(" v1 ", " v3 ", 1)).unwrap();
    let error = journals.find("web1", "root").unwrap_err();
    assert_eq!(error.kind, Kind::Invalid);
    assert!(error.message.contains("version 3"), "{error}");
}

#[test]
fn another_file_in_the_disks_place_is_refused() {
    let (_dir, journals) = journals();
    let journal = journals.create(intent("web1", "root")).unwrap();
    journal.check_disk(Path::new("/srv/web1.raw"), 99, 4096).unwrap();
    for (inode, size) in [(98, 4096), (99, 8192)] {
        assert_eq!(
            journal
                .check_disk(Path::new("/srv/web1.raw"), inode, size)
                .unwrap_err()
                .kind,
            Kind::Conflict
        );
    }
}

#[test]
fn what_a_kill_leaves_before_the_rename_does_no_harm() {
    let (_dir, journals) = journals();
    let journal = journals.create(intent("web1", "root")).unwrap();
    std::fs::write(journal.path().with_extension("json.tmp"), "half").unwrap();
    assert_eq!(journals.list().unwrap().len(), 1);
    assert_eq!(
        journals.find("web1", "root").unwrap().unwrap().record(),
        journal.record()
    );
}
