//! What surrounds windlass fails: a file system is full, or may not be written.

mod fixture;

use std::path::PathBuf;

use fixture::{SMALL_DISK_BYTES, create, fails, list, small_stage, text, try_create, try_restore, verify};
use windlass_integration::limits::Mounted;
use windlass_integration::process::Windlass;
use windlass_integration::{Random, disk, tree};
use wire::Code;

#[test]
fn a_full_repository_loses_nothing() {
    let stage = small_stage("full-repository");
    let small = Mounted::small(&stage.scratch.join("small"), 6 << 20).unwrap();
    let windlass = Windlass::new(&stage.scratch.dir("state").unwrap())
        .unwrap()
        .env("WINDLASS_REPO", format!("file://{}/repo", small.path().display()));
    windlass.run(&["repo", "init", "--json"]).unwrap().success();
    let tiny = stage.scratch.join("tiny.raw");
    disk::sparse(&tiny, 1 << 20).unwrap();
    disk::overwrite(&tiny, 0, b"a little").unwrap();
    let id = create(&windlass, &tiny);
    let large = stage.scratch.join("large.raw");
    disk::sparse(&large, 12 << 20).unwrap();
    disk::overwrite(&large, 0, &disk::random_bytes(&mut Random::new(5), 12 << 20)).unwrap();
    fails(try_create(&windlass, &large), Code::Unavailable);
    let seen = list(&windlass);
    assert_eq!(seen.len(), 1);
    assert_eq!(text(&seen[0], "id"), id);
    verify(&windlass);
}

#[test]
fn a_full_disk_stops_a_restore_which_goes_on_when_there_is_room() {
    let stage = small_stage("full-disk");
    let (windlass, _) = stage.windlass("w");
    let small = Mounted::small(&stage.scratch.join("small"), 24 << 20).unwrap();
    let disk = small.path().join("disk.raw");
    stage.put(&stage.good, &disk);
    let id = create(&windlass, &disk);
    // all of it becomes a hole, and something else takes the room
    let file = std::fs::File::options().write(true).open(&disk).unwrap();
    disk::punch_hole(&file, 0, SMALL_DISK_BYTES).unwrap();
    drop(file);
    let ballast = small.path().join("ballast");
    std::fs::write(&ballast, vec![1; 20 << 20]).unwrap();
    fails(try_restore(&windlass, &id, &disk), Code::Unavailable);
    std::fs::remove_file(&ballast).unwrap();
    try_restore(&windlass, &id, &disk).success();
    disk::assert_same(&stage.good, &disk);
}

#[test]
fn no_permission_is_told() {
    let stage = small_stage("denied");
    let (windlass, url) = stage.windlass("w");
    let disk = stage.scratch.dir("there").unwrap().join("disk.raw");
    stage.put(&stage.good, &disk);
    let id = create(&windlass, &disk);
    std::fs::write(&disk, std::fs::read(&stage.bad).unwrap()).unwrap();
    {
        let _fixed = Mounted::read_only(&stage.scratch.join("there")).unwrap();
        fails(try_restore(&windlass, &id, &disk), Code::Denied);
        let repo = PathBuf::from(url.trim_start_matches("file://"));
        let before = tree::read(&repo).unwrap();
        let _repo = Mounted::read_only(&repo).unwrap();
        fails(try_create(&windlass, &disk), Code::Denied);
        assert!(tree::differences(&before, &tree::read(&repo).unwrap()).is_empty());
    }
    disk::assert_same(&stage.bad, &disk);
    try_restore(&windlass, &id, &disk).success();
}
