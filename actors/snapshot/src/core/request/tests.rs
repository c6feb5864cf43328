use super::*;

fn disk(text: &str) -> DiskArg {
    match text.split_once('=') {
        Some((name, path)) => DiskArg {
            name: Some(name.into()),
            path: path.into(),
            format: None,
        },
        None => DiskArg {
            name: None,
            path: text.into(),
            format: None,
        },
    }
}

fn disks(texts: &[&str]) -> Vec<DiskArg> {
    texts.iter().map(|t| disk(t)).collect()
}

#[test]
fn disks_get_their_names_from_their_files() {
    let named = name_disks("web1", &disks(&["/srv/web1.raw", "data=/srv/x.img", "/dev/vda"])).unwrap();
    let names: Vec<&str> = named.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(names, ["web1", "data", "vda"]);
}

#[test]
fn bad_creates_are_refused() {
    for (vm, texts) in [
        ("web1", vec![]),
        ("", vec!["/a.raw"]),
        ("web 1", vec!["/a.raw"]),
        ("../etc", vec!["/a.raw"]),
        ("web1", vec!["/a.raw", "/a.raw"]),
        ("web1", vec!["/x/a.raw", "/y/a.raw"]),
        ("web1", vec!["/"]),
        ("web1", vec!["a b=/a.raw"]),
        ("web1", vec!["/.hidden"]),
    ] {
        assert_eq!(
            name_disks(vm, &disks(&texts)).unwrap_err().kind,
            Kind::Invalid,
            "{vm} {texts:?}"
        );
    }
    let many: Vec<DiskArg> = (0..65).map(|i| disk(&format!("/d{i}.raw"))).collect();
    assert_eq!(name_disks("web1", &many).unwrap_err().kind, Kind::Invalid);
}

#[test]
fn restores_find_their_disks() {
    let recorded = [
        Recorded {
            name: "root",
            path: "/srv/a.raw",
        },
        Recorded {
            name: "data",
            path: "/srv/b.raw",
        },
    ];
    let find = |texts: &[&str]| match_disks("web1", "01J", &recorded, &disks(texts));
    assert_eq!(find(&[]).unwrap().len(), 2);
    assert_eq!(find(&["/srv/b.raw"]).unwrap()[0].name, "data");
    assert_eq!(find(&["data"]).unwrap()[0].path, "/srv/b.raw");
    assert_eq!(
        find(&["data=/new/b.raw"]).unwrap(),
        [NamedDisk {
            name: "data".into(),
            path: "/new/b.raw".into(),
            format: None,
        }]
    );
    for bad in [
        &["/srv/c.raw"][..],
        &["swap=/srv/a.raw"],
        &["/srv/a.raw", "root=/x"],
        &["root=/x", "data=/x"],
    ] {
        let error = find(bad).unwrap_err();
        assert_eq!(error.kind, Kind::Invalid, "{bad:?}");
    }
    assert!(find(&["/srv/c.raw"]).unwrap_err().message.contains("never recorded"));
}

#[test]
fn snapshots_are_chosen_by_id_beginning_or_latest() {
    let all = [
        ("01JCXQ6Y9D3W6V3S1W8Y5Z4K2M", SnapshotKind::User),
        ("01JCXQ6Y9D3W6V3S1W8Y5Z4K2N", SnapshotKind::User),
        ("01JCXQ7AAAAAAAAAAAAAAAAAAA", SnapshotKind::Common),
    ];
    assert_eq!(
        choose(Some("w"), &all, "latest").unwrap(),
        all[1].0,
        "a common snapshot is never 'latest'"
    );
    assert_eq!(choose(None, &all, "01jcxq7aa").unwrap(), all[2].0);
    assert_eq!(choose(None, &all, all[0].0).unwrap(), all[0].0);
    assert_eq!(
        choose(None, &all, "01JCXQ6Y9D").unwrap_err().kind,
        Kind::Invalid,
        "fits two"
    );
    assert_eq!(choose(None, &all, "01J").unwrap_err().kind, Kind::Invalid, "too short");
    assert_eq!(choose(None, &all, "latest").unwrap_err().kind, Kind::Invalid, "whose");
    assert_eq!(choose(Some("w"), &[], "latest").unwrap_err().kind, Kind::NotFound);
    assert_eq!(choose(None, &all, "01JZZZZZZZ").unwrap_err().kind, Kind::NotFound);
}
