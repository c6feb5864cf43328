//! Exports from a repository in memory.

use super::*;
use crate::engine::restore::tests::{DISK_BYTES, Layout, World, two_states};

fn names(directory: &Path) -> Vec<String> {
    std::fs::read_dir(directory)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn run(
    world: &World,
    manifest: ManifestRef,
    output: &Path,
    options: &Options,
    progress: &Progress,
) -> Result<Exported> {
    export(
        &world.repo,
        world.runtime.handle(),
        manifest,
        (output, Format::Raw),
        "01JCXQ6Y9D3W6V3S1W8Y5Z4K2M",
        options,
        progress,
    )
}

#[test]
fn an_export_equals_the_disk_and_keeps_its_holes() {
    let world = World::new();
    let (a, b) = two_states(1, 20);
    let b: Layout = b[..30].to_vec();
    for (state, window) in world.store(&[&a, &b, &vec![]]).iter().zip([7, 1 << 16, 1 << 16]) {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("copy.raw");
        let options = Options {
            window_chunks_max: window,
            ..Options::default()
        };
        let progress = Progress::default();
        let exported = run(&world, state.0, &output, &options, &progress).unwrap();
        assert!(std::fs::read(&output).unwrap() == state.1);
        assert_eq!(names(dir.path()), ["copy.raw"]);
        assert_eq!(exported.size_bytes, DISK_BYTES);
        let meta = std::fs::metadata(&output).unwrap();
        let allocated = std::os::unix::fs::MetadataExt::blocks(&meta) * 512;
        assert!(
            allocated <= exported.written_bytes + 250 * 4096,
            "{allocated} for {}",
            exported.written_bytes
        );
    }
}

#[test]
fn an_existing_file_is_left_as_it_is() {
    let world = World::new();
    let (a, _) = two_states(1, 20);
    let state = &world.store(&[&a])[0];
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("copy.raw");
    std::fs::write(&output, "mine").unwrap();
    let error = run(&world, state.0, &output, &Options::default(), &Progress::default()).unwrap_err();
    assert_eq!(error.kind, Kind::Conflict);
    assert_eq!(std::fs::read(&output).unwrap(), b"mine");
    // Also when it came while the export ran.
    let path = dir.path().join("p");
    std::fs::write(&path, "new").unwrap();
    let error = publish(&mut Partial { path, kept: false }, &output).unwrap_err();
    assert_eq!(error.kind, Kind::Conflict);
    assert_eq!(names(dir.path()), ["copy.raw"]);
    assert_eq!(std::fs::read(&output).unwrap(), b"mine");
}

#[test]
fn an_error_or_a_cancel_leaves_no_file() {
    let world = World::new();
    let (a, _) = two_states(1, 20);
    let state = &world.store(&[&a])[0];
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("copy.raw");
    let progress = Progress::default();
    progress.cancel();
    let error = run(&world, state.0, &output, &Options::default(), &progress).unwrap_err();
    assert_eq!(error.kind, Kind::Cancelled);
    let bad = ManifestRef {
        size_bytes: DISK_BYTES,
        root: Some(BlobId::from_bytes([9; 32])),
    };
    let error = run(&world, bad, &output, &Options::default(), &Progress::default()).unwrap_err();
    assert_eq!(error.kind, Kind::Corrupt);
    assert!(names(dir.path()).is_empty());
    let error = run(
        &world,
        state.0,
        &dir.path().join("no/copy.raw"),
        &Options::default(),
        &Progress::default(),
    );
    assert_eq!(error.unwrap_err().kind, Kind::NotFound);
}
