use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::segment::{Backing, encode};
use super::*;
use crate::BlobKind;
use crate::blob::Compression;

fn id(prefix: u64, rest: u8) -> BlobId {
    let mut bytes = [rest; 32];
    bytes[..8].copy_from_slice(&prefix.to_be_bytes());
    BlobId::from_bytes(bytes)
}

fn entry(id: BlobId, place: u32) -> Entry {
    Entry {
        id,
        offset: 16 + place,
        stored: 10,
        raw: 20,
        kind: BlobKind::Data,
        compression: Compression::Zstd,
    }
}

fn segment(number: u8, ids: &[BlobId]) -> Arc<Segment> {
    let pack = PackSize {
        name: PackName([number; 32]),
        bytes: 1 << 20,
    };
    let entries = ids.iter().enumerate().map(|(i, id)| entry(*id, i as u32)).collect();
    let bytes = Bytes::from(encode(vec![(pack, entries)]));
    Arc::new(Segment::open(format!("index/{number}"), Backing::Held(bytes)).unwrap())
}

fn ids() -> impl Strategy<Value = Vec<BlobId>> {
    // evenly spread as real ids are, and crowded on few prefixes as they never should be
    let prefix = prop_oneof![4 => any::<u64>(), 1 => 0u64..3, 1 => Just(u64::MAX)];
    prop::collection::vec((prefix, any::<u8>()).prop_map(|(p, r)| id(p, r)), 0..600)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn what_is_in_a_segment_is_found_and_nothing_else(
        parts in prop::collection::vec(ids(), 0..7),
        absent in prop::collection::vec(any::<u64>(), 20),
    ) {
        let index = Index::new(parts.iter().enumerate().map(|(i, ids)| segment(i as u8, ids)).collect());
        let mut known: BTreeMap<BlobId, Vec<u8>> = BTreeMap::new();
        for (number, ids) in parts.iter().enumerate() {
            ids.iter().for_each(|id| known.entry(*id).or_default().push(number as u8));
        }
        for (id, segments) in &known {
            let hit = index.find(id).expect("it is there");
            prop_assert_eq!(hit.entry.id, *id);
            prop_assert!(segments.contains(&hit.name.0[0]));
            prop_assert_eq!(index.segments()[hit.segment as usize].get(hit.segment, hit.record), Some(hit));
        }
        for prefix in absent {
            let other = id(prefix, 1);
            prop_assert_eq!(index.find(&other).is_some(), known.contains_key(&other));
        }
        prop_assert!(index.damage().is_empty());
    }

    #[test]
    fn interpolation_finds_what_halving_finds(mut keys in prop::collection::vec(any::<u64>(), 0..300), key in any::<u64>()) {
        keys.sort_unstable();
        for key in keys.iter().copied().chain([key, 0, u64::MAX]) {
            prop_assert_eq!(
                interpolated_point(keys.len(), key, |i| keys[i]),
                keys.partition_point(|k| *k < key)
            );
        }
    }
}

#[test]
fn marks_name_the_packs_that_were_hit() {
    let (a, b) = (id(5, 1), id(9, 2));
    let index = Index::new(vec![segment(1, &[a]), segment(2, &[b])]);
    let marks = Marks::new(&index);
    assert!(marks.marked(&index).is_empty());
    marks.mark(&index.find(&b).unwrap());
    assert_eq!(
        marks.marked(&index).into_keys().collect::<Vec<_>>(),
        [PackName([2; 32])]
    );
}
