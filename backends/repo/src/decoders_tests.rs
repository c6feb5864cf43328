//! Changed bytes into every decoder: an error or the right answer, never a panic, never memory by a forged count.

use bytes::Bytes;
use proptest::prelude::*;

use crate::blob::{Compression, compress};
use crate::config::RepoConfig;
use crate::fetch::open_blob;
use crate::index::testing as index;
use crate::manifest::{ChunkRef, Node, decode, testing as node};
use crate::pack::{self, Entry, FOOTER_BYTES, PackBuilder, PackName, SealedPack};
use crate::testing::{content, draft, params};
use crate::{BlobId, BlobKind, Kind, ManifestRef, RepoError, SnapshotDoc, SnapshotId};

const KEY: [u8; 32] = [3; 32];

/// A way to damage bytes.
#[derive(Debug, Clone)]
enum Damage {
    Set(usize, u8),
    Number(usize, u64),
    Cut(usize),
    Grow(usize),
}

fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let one = prop_oneof![
        4 => (any::<usize>(), any::<u8>()).prop_map(|(at, to)| Damage::Set(at, to)),
        2 => (any::<usize>(), prop_oneof![Just(u64::MAX), Just(0), any::<u64>(), 1u64 << 31..1 << 33])
            .prop_map(|(at, to)| Damage::Number(at, to)),
        1 => any::<usize>().prop_map(Damage::Cut),
        1 => (1usize..200).prop_map(Damage::Grow),
    ];
    prop::collection::vec(one, 1..4)
}

fn apply(bytes: &[u8], damage: &[Damage]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for one in damage {
        let len = bytes.len().max(1);
        match one {
            Damage::Set(at, to) => bytes.iter_mut().skip(at % len).take(1).for_each(|b| *b = *to),
            // the headers' numbers stand in the first and last bytes
            Damage::Number(at, to) => {
                let at = if at % 2 == 0 {
                    at / 2 % len.min(128)
                } else {
                    len - 1 - at / 2 % len.min(128)
                };
                bytes
                    .iter_mut()
                    .skip(at)
                    .zip(to.to_le_bytes())
                    .for_each(|(b, n)| *b = n);
            }
            Damage::Cut(at) => bytes.truncate(at % len),
            Damage::Grow(by) => bytes.extend(std::iter::repeat_n(0xa5, *by)),
        }
    }
    bytes
}

fn sample_pack() -> SealedPack {
    let mut builder = PackBuilder::default();
    for number in 0..5 {
        let raw = content(number);
        let id = BlobId::keyed(&KEY, &raw);
        compress(&raw, 1, |compression, stored| {
            let entry = Entry {
                id,
                offset: 0,
                stored: 0,
                raw: raw.len() as u32,
                kind: BlobKind::Data,
                compression,
            };
            builder.push(entry, stored, 0);
        })
        .unwrap();
    }
    builder.seal()
}

/// A node is read after its id was checked, so a high version is what its writer wrote.
fn refused(error: &RepoError) -> bool {
    matches!(error.kind, Kind::Corrupt | Kind::TooNew { .. })
}

fn open_all(entries: &[Entry], bytes: &[u8]) {
    let whole = Bytes::copy_from_slice(bytes);
    for entry in entries {
        let end = entry.offset as usize + entry.stored as usize;
        if end <= whole.len()
            && let Ok(raw) = open_blob(&KEY, &PackName([0; 32]), entry, whole.slice(entry.offset as usize..end))
        {
            assert_eq!(BlobId::keyed(&KEY, &raw), entry.id);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn packs(damage in damage()) {
        let pack = sample_pack();
        let bytes = apply(&pack.bytes, &damage);
        match pack::decode_whole(&pack.name, &bytes) {
            Ok(entries) => prop_assert!(bytes == pack.bytes && entries == pack.entries),
            Err(error) => prop_assert_eq!(error.kind, Kind::Corrupt),
        }
        // and as rebuilding reads them, also when the checksum fits what is wrong
        let size = bytes.len() as u64;
        if bytes.len() >= FOOTER_BYTES
            && let Ok(length) = pack::trailer_bytes("p", &bytes[bytes.len() - FOOTER_BYTES..], size)
        {
            let mut trailer = bytes[bytes.len() - length as usize..].to_vec();
            let _ = pack::decode_trailer("p", &trailer, size);
            let check_at = trailer.len() - FOOTER_BYTES + 8;
            let check = blake3::hash(&trailer[..check_at]);
            trailer[check_at..check_at + 32].copy_from_slice(check.as_bytes());
            if let Ok(entries) = pack::decode_trailer("p", &trailer, size) {
                open_all(&entries, &bytes);
            }
        }
    }

    #[test]
    fn segments(damage in damage(), forged in any::<bool>()) {
        let pack = sample_pack();
        let whole = index::encoded(&pack);
        let mut bytes = apply(&whole, &damage);
        if forged {
            index::forge(&mut bytes);
        }
        let changed = bytes != whole;
        let opened = index::open_and_find(bytes.clone(), &pack.entries);
        match opened {
            Ok((found, damaged)) => {
                prop_assert!(changed || (found == pack.entries && !damaged));
                if changed && !forged {
                    // what is found is right, and what is not found was in a damaged page
                    prop_assert!(found == pack.entries || damaged);
                }
                open_all(&found, &pack.bytes);
            }
            Err(error) => prop_assert!(changed && (error.kind == Kind::Corrupt || forged), "{}", error),
        }
    }

    #[test]
    fn documents(damage in damage()) {
        let config = RepoConfig::new(&params()).unwrap();
        let bytes = config.encode().unwrap();
        let changed = apply(&bytes, &damage);
        match RepoConfig::decode(&changed) {
            Ok(read) => prop_assert!(read == config),
            Err(error) => prop_assert_eq!(error.kind, Kind::Corrupt),
        }
        let manifest = ManifestRef { size_bytes: 1 << 30, root: Some(BlobId::keyed(&KEY, b"root")) };
        let doc = SnapshotDoc::from_draft(SnapshotId::new(params().id), draft("web1", manifest));
        let key = SnapshotDoc::key_of(&doc.id);
        let bytes = doc.encode().unwrap();
        match SnapshotDoc::decode(&key, &apply(&bytes, &damage)) {
            Ok(read) => prop_assert_eq!(read, doc),
            Err(error) => prop_assert_eq!(error.kind, Kind::Corrupt),
        }
    }

    #[test]
    fn manifest_nodes(damage in damage(), level in 0u8..3) {
        let id = BlobId::keyed(&KEY, b"node");
        let bytes = if level == 0 {
            let chunk = |i: u64| ChunkRef { offset: i * 70_000, len: 65_536, id };
            node::leaf(&(0..20).map(chunk).collect::<Vec<_>>())
        } else {
            node::inner(level, &[(0, id), (5, id), (63, id)])
        };
        decode(&id, &bytes, level).unwrap();
        match decode(&id, &apply(&bytes, &damage), level) {
            Ok(Node::Leaf(view)) => drop(view.chunks(3)),
            Ok(Node::Inner(view)) => prop_assert!(view.children().all(|(slot, _)| slot < 64)),
            Err(error) => prop_assert!(refused(&error)),
        }
    }

    #[test]
    fn blobs(damage in damage(), raw in prop_oneof![Just(1u32), Just(16 << 20), 1u32..100_000]) {
        let body = content(1);
        let id = BlobId::keyed(&KEY, &body);
        let stored = compress(&body, 1, |_, stored| stored.to_vec()).unwrap();
        let stored = Bytes::from(apply(&stored, &damage));
        for compression in [Compression::Zstd, Compression::None] {
            for raw in [raw, body.len() as u32] {
                let entry = Entry { id, offset: 16, stored: stored.len() as u32, raw, kind: BlobKind::Data, compression };
                match open_blob(&KEY, &PackName([0; 32]), &entry, stored.clone()) {
                    Ok(read) => prop_assert!(read == body),
                    Err(error) => prop_assert_eq!((error.kind, error.offset), (Kind::Corrupt, Some(16))),
                }
            }
        }
    }
}
