//! What is refused, and that no input does more harm than an error.

use super::*;

fn refused(change: impl FnOnce(&mut Vec<u8>)) -> crate::Error {
    let mut bytes = empty(12).bytes();
    change(&mut bytes);
    open(Memory::new(bytes), Path::new("test"), &NoFiles, true).unwrap_err()
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    for (bits, name) in [(4, "external data file"), (16, "extended L2"), (1 << 40, "came later")] {
        let error = refused(|b| put(b, 72, &u64::to_be_bytes(bits)));
        assert_eq!(error.kind, Kind::Unsupported);
        assert!(error.message.contains(name), "{error}");
    }
    let error = refused(|b| put(b, 32, &2_u32.to_be_bytes()));
    assert!(error.message.contains("encryption"), "{error}");
    for (bits, name) in [(1, "not closed cleanly"), (2, "marked corrupt")] {
        let error = refused(|b| put(b, 72, &u64::to_be_bytes(bits)));
        assert_eq!(error.kind, Kind::Corrupt);
        assert!(error.message.contains(name), "{error}");
        assert!(error.hint.unwrap().contains("qemu-img check -r all"));
    }
}

#[test]
fn internal_snapshots_are_named() {
    let error = refused(|b| {
        let at = b.len();
        b.resize(at + 64, 0);
        put(b, 60, &1_u32.to_be_bytes());
        put(b, 64, &(at as u64).to_be_bytes());
        put(b, at + 12, &[0, 1, 0, 6]);
        put(b, at + 40, b"1before");
    });
    assert_eq!(error.kind, Kind::Unsupported);
    assert!(error.message.contains("1 internal snapshots (before)"), "{error}");
}

#[test]
fn absurd_sizes_and_places_are_corrupt() {
    type Change = fn(&mut Vec<u8>);
    let cases: [(&str, Change); 8] = [
        ("clusters", |b| put(b, 20, &40_u32.to_be_bytes())),
        ("disk size", |b| put(b, 24, &u64::MAX.to_be_bytes())),
        ("no disk", |b| put(b, 24, &[0; 8])),
        ("L1 entries", |b| put(b, 36, &u32::MAX.to_be_bytes())),
        ("L1 place", |b| put(b, 40, &(u64::MAX - 4095).to_be_bytes())),
        ("refcount table place", |b| put(b, 48, &(1_u64 << 40).to_be_bytes())),
        ("refcount table size", |b| put(b, 56, &u32::MAX.to_be_bytes())),
        ("cut short", |b| b.truncate(100)),
    ];
    for (what, change) in cases {
        assert_eq!(refused(change).kind, Kind::Corrupt, "{what}");
    }
}

#[test]
fn truncated_tables_and_clusters_are_errors_that_say_where() {
    let medium = empty(12);
    let image = open_test(&medium, &NoFiles);
    image.write_at(&[7; 100_000], 5000).unwrap();
    image.sync().unwrap();
    let whole = medium.bytes();
    let mut found = vec![0; SIZE as usize];
    let (mut corrupt, mut fine) = (0, 0);
    for len in (4096..whole.len()).step_by(1000) {
        match open(Memory::new(whole[..len].to_vec()), Path::new("test"), &NoFiles, false)
            .and_then(|image| image.read_at(&mut found, 0))
        {
            Ok(()) => fine += 1,
            Err(error) => {
                assert_eq!(error.kind, Kind::Corrupt, "{error}");
                corrupt += 1;
            }
        }
    }
    assert!(corrupt > 10 && fine <= 5, "{corrupt} {fine}");
}

#[test]
fn a_chain_that_is_a_loop_or_endless_is_refused() {
    let medium = overlay(12, 3);
    let mut bytes = medium.bytes();
    put(&mut bytes, 104, b"\xe2\x79\x2a\xca\0\0\0\x05qcow2");
    struct Endless(Vec<u8>);
    impl Files for Endless {
        fn open(&self, _: &Path) -> std::io::Result<Arc<dyn Medium>> {
            Ok(Memory::new(self.0.clone()))
        }
    }
    let error = open(
        Memory::new(bytes.clone()),
        Path::new("a"),
        &Endless(bytes.clone()),
        false,
    )
    .unwrap_err();
    assert!(error.message.contains("more than 64"), "{error}");
    let medium = Memory::new(bytes);
    let error = open(medium.clone(), Path::new("a"), &One(medium), false).unwrap_err();
    assert!(error.message.contains("loop"), "{error}");
}

#[test]
fn a_backing_image_of_unknown_format_may_not_have_one_itself() {
    let mut top = overlay(12, 3).bytes();
    top[104..115].fill(0);
    let below = overlay(12, 3);
    let error = open(Memory::new(top.clone()), Path::new("a"), &One(below), false).unwrap_err();
    assert_eq!(error.kind, Kind::Unsupported);
    assert!(error.hint.unwrap().contains("rebase -u -F qcow2"));
    // one that stands alone is fine
    open(Memory::new(top), Path::new("a"), &One(empty(12)), false).unwrap();
}

#[test]
fn data_that_claims_to_be_where_tables_are_is_not_written() {
    let medium = empty(12);
    let image = open_test(&medium, &NoFiles);
    image.write_at(&[7; 4096], 0).unwrap();
    image.sync().unwrap();
    drop(image);
    let mut bytes = medium.bytes();
    let l1 = entry::table_from(&bytes[12288..12296])[0] & OFFSET;
    put(&mut bytes, l1 as usize, &entry::data(12288).to_be_bytes());
    let image = open_test(&Memory::new(bytes), &NoFiles);
    assert_eq!(image.write_at(&[1; 100], 0).unwrap_err().kind, Kind::Corrupt);
    assert_eq!(image.punch(0..4096).unwrap_err().kind, Kind::Corrupt);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// The fuzz target's property: bytes changed anywhere give an error or a disk, in bounded time and memory.
    #[test]
    fn changed_bytes_do_no_harm(
        changes in prop::collection::vec((0..12_000_usize, any::<u8>()), 1..12), steps in steps(),
    ) {
        let medium = empty(9);
        let image = open_test(&medium, &NoFiles);
        let mut model = vec![0; SIZE as usize];
        steps.iter().for_each(|one| step(&image, &mut model, one));
        image.sync().unwrap();
        drop(image);
        let mut bytes = medium.bytes();
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        crate::use_as_image(&bytes);
    }
}
