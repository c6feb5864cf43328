//! What a member keeps on its disk.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use integration::scratch::Scratch;

use crate::error::Kind;
use crate::place::Place;

#[test]
fn a_key_is_private_and_not_taken_from_a_file_that_others_read() {
    let scratch = Scratch::new("place").unwrap();
    let place = Place::at(scratch.path());
    assert!(place.identity().unwrap().is_none());
    let made = place.identity_of(1).unwrap();
    assert_eq!(place.identity_of(1).unwrap().public(), made.public());
    let file = scratch.join("identity.key");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&file), 0o600);
    assert_ne!(
        place.identity_of(2).unwrap().public(),
        made.public(),
        "another epoch, another key"
    );
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(place.identity().unwrap_err().kind, Kind::Denied);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    for torn in [
        "",
        "windlass identity v1 1 ",
        "windlass identity v1 x 00",
        "windlass identity v2 1 00",
    ] {
        std::fs::write(&file, torn).unwrap();
        let error = place.identity().unwrap_err();
        assert_eq!(error.kind, Kind::Invalid);
    }
    std::fs::write(scratch.join("fleet.json"), "{").unwrap();
    assert_eq!(place.belonging().unwrap_err().kind, Kind::Invalid);
}
