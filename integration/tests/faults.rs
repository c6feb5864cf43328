//! Bad input and faults on the real binary: a clear error with its code, nothing lost, nothing half-visible.

mod fixture;

use std::path::{Path, PathBuf};
use std::process::Command;

use fixture::{SMALL_DISK_BYTES, create, fails, list, show, small_stage, text, try_create, try_restore, verify};
use windlass_integration::disk;
use windlass_integration::process::{Ended, Windlass};
use wire::Code;

/// Every file below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory of the test's") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path))
        } else {
            found.push(path)
        }
    }
    found
}

#[test]
fn disks_that_are_none_are_refused() {
    let stage = small_stage("bad-disks");
    let (windlass, _) = stage.windlass("w");
    fails(
        try_create(&windlass, &stage.scratch.join("missing.raw")),
        Code::NotFound,
    );
    fails(
        try_create(&windlass, &stage.scratch.dir("directory").unwrap()),
        Code::Invalid,
    );
    fails(try_create(&windlass, Path::new("/dev/null")), Code::Invalid);
    let empty = stage.scratch.join("empty.raw");
    disk::sparse(&empty, 0).unwrap();
    fails(try_create(&windlass, &empty), Code::Invalid);
    let definition = [
        "snapshot",
        "create",
        "--json",
        "--vm",
        "web1",
        "--disk",
        &show(&stage.good),
        "--definition",
        "/nowhere.xml",
    ];
    fails(windlass.run(&definition).unwrap(), Code::NotFound);
    assert!(list(&windlass).is_empty(), "a create that failed is listed");
}

#[test]
fn restores_that_make_no_sense_are_refused_and_change_nothing() {
    let stage = small_stage("bad-restores");
    let (windlass, _) = stage.windlass("w");
    let disk = stage.scratch.join("disk.raw");
    stage.put(&stage.good, &disk);
    let id = create(&windlass, &disk);
    stage.put(&stage.bad, &disk);

    let other = stage.scratch.join("other.raw");
    stage.put(&stage.bad, &other);
    assert!(fails(try_restore(&windlass, &id, &other), Code::Invalid).contains("never recorded"));
    let longer = stage.scratch.join("longer.raw");
    stage.put(&stage.bad, &longer);
    std::fs::File::options()
        .write(true)
        .open(&longer)
        .unwrap()
        .set_len(SMALL_DISK_BYTES + 4096)
        .unwrap();
    let named = |path: &Path| {
        [
            "restore",
            "--json",
            "--yes",
            "--vm",
            "web1",
            "--to",
            &id,
            "--disk",
            &format!("disk={}", show(path)),
        ]
        .map(String::from)
    };
    assert!(fails(windlass.run(&named(&longer)).unwrap(), Code::Invalid).contains("size"));
    fails(
        windlass.run(&named(&stage.scratch.join("missing.raw"))).unwrap(),
        Code::NotFound,
    );
    fails(
        try_restore(&windlass, "01ARZ3NDEKTSV4RRFFQ69G5FAV", &disk),
        Code::NotFound,
    );
    let without_yes = ["restore", "--json", "--vm", "web1", "--to", &id, "--disk", &show(&disk)];
    fails(windlass.run(&without_yes).unwrap(), Code::Invalid);
    let undo = windlass
        .run(&["restore", "--json", "--yes", "--vm", "web1", "--undo"])
        .unwrap();
    fails(undo, Code::NotFound);

    disk::assert_same(&stage.bad, &disk);
    assert_eq!(list(&windlass).len(), 1, "a refused restore left a snapshot");
}

#[test]
fn a_disk_in_use_is_refused() {
    let stage = small_stage("in-use");
    let (windlass, _) = stage.windlass("w");
    let disk = stage.scratch.join("disk.raw");
    stage.put(&stage.good, &disk);
    let id = create(&windlass, &disk);
    std::fs::write(&disk, std::fs::read(&stage.bad).unwrap()).unwrap();

    let run = |program: &str, arguments: &[&str]| {
        let out = Command::new(program)
            .args(arguments)
            .output()
            .unwrap_or_else(|e| panic!("{program}: {e}"));
        assert!(
            out.status.success(),
            "{program} {arguments:?}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    };
    let device = run("losetup", &["--find", "--show", &show(&disk)]);
    let loops = std::panic::catch_unwind(|| fails(try_restore(&windlass, &id, &disk), Code::Conflict));
    let point = stage.scratch.dir("mnt").unwrap();
    run("mount", &["-o", "ro", &device, &show(&point)]);
    let mounted = std::panic::catch_unwind(|| fails(try_restore(&windlass, &id, &disk), Code::Conflict));
    run("umount", &[&show(&point)]);
    run("losetup", &["--detach", &device]);
    assert!(loops.unwrap().contains(&device));
    assert!(mounted.unwrap().contains(&show(&point)));

    let held = std::fs::File::options().read(true).write(true).open(&disk).unwrap();
    let said = fails(try_restore(&windlass, &id, &disk), Code::Conflict);
    assert!(
        said.contains(&std::process::id().to_string()),
        "does not name who has it open: {said}"
    );
    drop(held);
    disk::assert_same(&stage.bad, &disk);
    try_restore(&windlass, &id, &disk).success();
    disk::assert_same(&stage.good, &disk);
}

#[test]
fn a_disk_that_changes_while_it_is_read_is_noticed() {
    let stage = small_stage("changing");
    let (windlass, _) = stage.windlass("w");
    let disk = stage.scratch.join("disk.raw");
    stage.put(&stage.good, &disk);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let ended = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0_u64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                n += 1;
                disk::overwrite(&disk, n % 1000 * 4096, &n.to_le_bytes()).unwrap();
            }
        });
        let ended = try_create(&windlass, &disk);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        ended
    });
    assert!(fails(ended, Code::Conflict).contains("changed"));
    assert!(list(&windlass).is_empty());
}

#[test]
fn a_repository_that_is_not_there_newer_or_taken_is_told() {
    let stage = small_stage("repos");
    let (windlass, url) = stage.windlass("w");
    let elsewhere = format!("file://{}", stage.scratch.join("nothing-here").display());
    let missing = ["snapshot", "ls", "--json", "--repo", &elsewhere];
    fails(windlass.run(&missing).unwrap(), Code::NotFound);
    fails(
        windlass
            .run(&["snapshot", "ls", "--json", "--repo", "ftp://x/y"])
            .unwrap(),
        Code::Invalid,
    );
    create(&windlass, &stage.good);
    fails(windlass.run(&["repo", "init", "--json"]).unwrap(), Code::Conflict);
    // as a windlass of version 7 would write it: the checksum covers the words before it, in every version
    let config = Path::new(url.trim_start_matches("file://")).join("config");
    let text = std::fs::read_to_string(&config).unwrap();
    let (_, body) = text.split_once('\n').unwrap();
    let words = "windlass repository v7";
    let sum = blake3::Hasher::new()
        .update(words.as_bytes())
        .update(body.as_bytes())
        .finalize()
        .to_hex();
    std::fs::write(&config, format!("{words} blake3={sum}\n{body}")).unwrap();
    let said = fails(windlass.run(&["snapshot", "ls", "--json"]).unwrap(), Code::Invalid);
    assert!(said.contains('7'), "does not name the version: {said}");
    fails(try_create(&windlass, &stage.good), Code::Invalid);
}

/// One flipped byte in each file of the repository in turn: pack, index, snapshot, config (manifest nodes stand in packs).
#[test]
fn a_flipped_byte_anywhere_is_found_and_named() {
    let stage = small_stage("flipped");
    let (windlass, url) = stage.windlass("w");
    let id = create(&windlass, &stage.good);
    verify(&windlass);
    let repo = PathBuf::from(url.trim_start_matches("file://"));
    let mut kinds = std::collections::BTreeSet::new();
    for file in files(&repo) {
        let whole = std::fs::read(&file).unwrap();
        let name = file.strip_prefix(&repo).unwrap().display().to_string();
        kinds.insert(name.split('/').next().unwrap().to_owned());
        for at in [0, whole.len() / 3, whole.len() / 2, whole.len() - 2] {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            std::fs::write(&file, &bytes).unwrap();
            let ended = windlass.run(&["snapshot", "verify", "--json"]).unwrap();
            let said = fails(ended, Code::Corrupt);
            assert!(
                said.contains(&name) || said.contains("config"),
                "byte {at} of {name}: does not name it: {said}"
            );
            let out = stage.scratch.join("out.raw");
            let export = windlass
                .run(&["snapshot", "export", &id, "--json", "--output", &show(&out)])
                .unwrap();
            if export.code() == Some(0) {
                // the byte was none that a restore reads (a trailer, say): then what came out is right
                disk::assert_same(&stage.good, &out);
                std::fs::remove_file(&out).unwrap();
            } else {
                fails(export, Code::Corrupt);
                assert!(!out.exists(), "a failed export left a file");
            }
        }
        std::fs::write(&file, &whole).unwrap();
    }
    assert_eq!(
        kinds.into_iter().collect::<Vec<_>>(),
        ["config", "index", "packs", "snapshots"]
    );
    verify(&windlass);
}

/// A damaged index is made anew from the packs; a damaged snapshot can be thrown away by someone who insists.
#[test]
fn an_index_can_be_made_anew_and_a_damaged_snapshot_thrown_away() {
    let stage = small_stage("rebuilt");
    let (windlass, url) = stage.windlass("w");
    let repo = PathBuf::from(url.trim_start_matches("file://"));
    let id = create(&windlass, &stage.good);
    for index in files(&repo.join("index")) {
        let mut bytes = std::fs::read(&index).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&index, bytes).unwrap();
    }
    fails(windlass.run(&["snapshot", "verify", "--json"]).unwrap(), Code::Corrupt);
    let rebuilt = windlass
        .run(&["repo", "rebuild-index", "--json"])
        .unwrap()
        .success()
        .json();
    assert!(rebuilt["blobs"].as_u64().unwrap() > 50, "{rebuilt}");
    verify(&windlass);
    let snapshot = repo.join("snapshots").join(&id);
    let mut bytes = std::fs::read(&snapshot).unwrap();
    bytes[200] ^= 1;
    std::fs::write(&snapshot, bytes).unwrap();
    fails(
        windlass.run(&["snapshot", "forget", &id, "--json"]).unwrap(),
        Code::Corrupt,
    );
    windlass
        .run(&["snapshot", "forget", &id, "--force", "--json"])
        .unwrap()
        .success();
    assert!(list(&windlass).is_empty());
}

#[test]
fn a_damaged_pack_stops_a_restore_which_goes_on_when_it_is_mended() {
    let stage = small_stage("mended");
    let (windlass, url) = stage.windlass("w");
    let disk = stage.scratch.join("disk.raw");
    stage.put(&stage.good, &disk);
    let id = create(&windlass, &disk);
    let packs: Vec<(PathBuf, Vec<u8>)> = files(&Path::new(url.trim_start_matches("file://")).join("packs"))
        .into_iter()
        .map(|p| (p.clone(), std::fs::read(p).unwrap()))
        .collect();
    std::fs::write(&disk, std::fs::read(&stage.bad).unwrap()).unwrap();
    for (path, whole) in &packs {
        // the header and the nodes stay, all chunks are damaged
        if whole.len() > 1 << 20 {
            let mut bytes = whole.clone();
            (64..whole.len()).step_by(997).for_each(|at| bytes[at] ^= 1);
            std::fs::write(path, bytes).unwrap();
        }
    }
    fails(try_restore(&windlass, &id, &disk), Code::Corrupt);
    for (path, whole) in &packs {
        std::fs::write(path, whole).unwrap();
    }
    try_restore(&windlass, &id, &disk).success();
    disk::assert_same(&stage.good, &disk);
    windlass
        .run(&["restore", "--json", "--yes", "--vm", "web1", "--undo"])
        .unwrap()
        .success();
    disk::assert_same(&stage.bad, &disk);
}

#[test]
fn two_creates_at_once_do_not_meet() {
    let stage = small_stage("two-at-once");
    let (windlass, url) = stage.windlass("w");
    windlass.run(&["repo", "init", "--json"]).unwrap().success();
    // one state directory: the second is told who has it, or comes after; each that was acknowledged is listed
    let both: Vec<Ended> = std::thread::scope(|scope| {
        let run = || scope.spawn(|| try_create(&windlass, &stage.good));
        let (a, b) = (run(), run());
        [a, b].map(|t| t.join().unwrap()).into()
    });
    let done = both.iter().filter(|e| e.code() == Some(0)).count();
    assert!(done >= 1);
    for ended in both {
        if ended.code() != Some(0) {
            fails(ended, Code::Conflict);
        }
    }
    assert_eq!(list(&windlass).len(), done);
    // two hosts on one repository: both succeed
    let hosts: Vec<Windlass> = (0..2)
        .map(|i| {
            Windlass::new(&stage.scratch.dir(format!("host{i}")).unwrap())
                .unwrap()
                .env("WINDLASS_REPO", &url)
        })
        .collect();
    std::thread::scope(|scope| {
        for host in &hosts {
            scope.spawn(|| create(host, &stage.bad));
        }
    });
    assert_eq!(list(&windlass).len(), done + 2);
    verify(&windlass);
}

/// Several disks and a definition are one snapshot; each goes back where it is said to be.
#[test]
fn a_vm_with_two_disks_and_a_definition() {
    let stage = small_stage("two-disks");
    let (windlass, _) = stage.windlass("w");
    let (root, data) = (stage.scratch.join("root.raw"), stage.scratch.join("data.raw"));
    stage.put(&stage.good, &root);
    stage.put(&stage.bad, &data);
    let definition = stage.scratch.join("web1.xml");
    std::fs::write(&definition, "<domain/>").unwrap();
    let made = windlass
        .run(&[
            "snapshot",
            "create",
            "--json",
            "--vm",
            "web1",
            "--disk",
            &show(&root),
            "--disk",
            &format!("d2={}", show(&data)),
            "--definition",
            &show(&definition),
        ])
        .unwrap()
        .success()
        .json();
    assert_eq!(made["disks"].as_array().unwrap().len(), 2);
    assert_eq!(made["definition_bytes"], 9);
    let id = text(&made, "id");
    let moved = stage.scratch.join("moved.raw");
    std::fs::write(&root, std::fs::read(&stage.bad).unwrap()).unwrap();
    stage.put(&stage.good, &moved);
    let back = [
        "restore",
        "--json",
        "--yes",
        "--vm",
        "web1",
        "--to",
        &id,
        "--disk",
        &show(&root),
        "--disk",
        &format!("d2={}", show(&moved)),
    ];
    let plan: Vec<&str> = back.iter().copied().chain(["--plan"]).collect();
    let planned = windlass.run(&plan).unwrap().success().json();
    let report = windlass.run(&back).unwrap().success().json();
    disk::assert_same(&stage.good, &root);
    disk::assert_same(&stage.bad, &moved);
    for (planned, done) in planned["disks"]
        .as_array()
        .unwrap()
        .iter()
        .zip(report["disks"].as_array().unwrap())
    {
        for figure in [
            "ranges",
            "differing_bytes",
            "copied_bytes",
            "fetched_raw_bytes",
            "hole_bytes",
        ] {
            assert_eq!(planned[figure], done[figure], "{figure}: the plan said otherwise");
        }
    }
    windlass
        .run(&["restore", "--json", "--yes", "--vm", "web1", "--undo"])
        .unwrap()
        .success();
    disk::assert_same(&stage.bad, &root);
    disk::assert_same(&stage.good, &moved);
}
