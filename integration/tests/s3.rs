//! The real binary on real S3 servers: what README says under "With S3", and what the servers honour.

#![allow(clippy::unwrap_used, reason = "test code")]

mod fixture;

use fixture::{create, list, restore_args, small_stage, text, verify};
use windlass_integration::azurite::Azurite;
use windlass_integration::disk;
use windlass_integration::process::Windlass;
use windlass_integration::s3_server::{Garage, Rclone};

/// Snapshots and restores, then the same from a second machine that has the URL and the keys alone.
fn round(with_repo: impl Fn(Windlass, &str) -> Windlass) {
    let stage = small_stage("s3");
    let at = |name: &str, prefix: &str| {
        let windlass = Windlass::new(&stage.scratch.dir(name).unwrap().join("state")).unwrap();
        with_repo(windlass, prefix)
    };
    let here = at("here", "vms/all");
    here.run(&["repo", "init", "--json"]).unwrap().success();
    let disk = stage.scratch.join("disk.raw");
    stage.put(&stage.good, &disk);
    let good = create(&here, &disk);
    stage.put(&stage.bad, &disk);
    let bad = create(&here, &disk);
    assert_eq!(list(&here).len(), 2);
    here.run(&restore_args(&good, &disk)).unwrap().success();
    disk::assert_same(&stage.good, &disk);

    let there = at("there", "vms/all");
    let copy = stage.scratch.join("copy.raw");
    stage.put(&stage.good, &copy);
    let listed = list(&there);
    // the restore kept the state that it replaced
    assert_eq!(listed.len(), 3);
    let out = fixture::show(&stage.scratch.join("out.raw"));
    there
        .run(&["snapshot", "export", "--json", &bad, "--output", &out])
        .unwrap()
        .success();
    disk::assert_same(&stage.bad, out.as_ref());
    verify(&there);
    // another prefix is another repository, and none was made there
    let other = at("other", "vms/other").run(&["snapshot", "ls", "--json"]).unwrap();
    fixture::fails(other, wire::Code::NotFound);
}

#[test]
fn garage_holds_a_repository() {
    let garage = Garage::start().unwrap();
    round(|windlass, prefix| garage.account.windlass(windlass, prefix));
}

#[test]
fn rclone_holds_a_repository() {
    let rclone = Rclone::start().unwrap();
    round(|windlass, prefix| rclone.account.windlass(windlass, prefix));
}

/// Not S3, and the same promise: `az://` on the emulator that Azure's own people keep.
#[test]
fn azurite_holds_a_repository() {
    let azurite = Azurite::start().unwrap();
    round(|windlass, prefix| azurite.windlass(windlass, prefix));
}

#[test]
fn init_writes_down_what_the_server_honours() {
    let (garage, rclone) = (Garage::start().unwrap(), Rclone::start().unwrap());
    let scratch = windlass_integration::scratch::Scratch::new("honours").unwrap();
    for (account, checksums) in [(&garage.account, true), (&rclone.account, false)] {
        let dir = scratch.dir(account.region).unwrap();
        let windlass = account.windlass(Windlass::new(&dir.join("state")).unwrap(), "r");
        let made = windlass.run(&["repo", "init", "--json"]).unwrap().success().json();
        let shown = windlass.run(&["repo", "show", "--json"]).unwrap().success().json();
        assert_eq!(made, shown);
        assert_eq!(text(&shown, "url"), "s3://windlass-tests/r");
        let store = &shown["store"];
        for kept in [
            "ranges",
            "read_after_write",
            "list_after_write",
            "last_modified",
            "list_ordered",
        ] {
            assert_eq!(store[kept], true, "{kept}: {store}");
        }
        // both take If-None-Match and overwrite: the reason why nothing rests on it
        assert_eq!(store["conditional_put"], false, "{store}");
        assert_eq!(store["checksums_checked"], checksums, "{store}");
        // rclone gives back what it was given, right or wrong
        assert_eq!(store["checksums_told"], true, "{store}");
        let for_people = windlass.run(&["repo", "show"]).unwrap().success().stdout;
        assert!(for_people.contains("store does not"), "{for_people}");
        // nothing of the trial stays, and a second init leaves all as it is
        let again = windlass.run(&["repo", "init", "--json"]).unwrap();
        fixture::fails(again, wire::Code::Conflict);
    }
}
