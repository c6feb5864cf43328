use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use proptest::prelude::*;

use super::*;
use crate::{BlobKind, BlobSink, Put};

const KEY: [u8; 32] = [7; 32];

/// Nodes in memory.
#[derive(Default)]
struct Nodes(Mutex<BTreeMap<BlobId, Bytes>>);

impl BlobSink for Nodes {
    fn id_of(&self, raw: &[u8]) -> BlobId {
        BlobId::keyed(&KEY, raw)
    }
    fn known(&self, id: &BlobId) -> bool {
        self.0.lock().unwrap().contains_key(id)
    }
    fn put(&self, _kind: BlobKind, id: &BlobId, raw: &[u8]) -> Result<Put> {
        let known = self
            .0
            .lock()
            .unwrap()
            .insert(*id, Bytes::copy_from_slice(raw))
            .is_some();
        Ok(if known {
            Put::Known
        } else {
            Put::New {
                stored_bytes: raw.len() as u32,
            }
        })
    }
}

#[async_trait]
impl NodeSource for Nodes {
    async fn nodes(&self, ids: &[BlobId]) -> Result<Vec<Bytes>> {
        let nodes = self.0.lock().unwrap();
        Ok(ids.iter().map(|id| nodes[id].clone()).collect())
    }
}

type Leaves = BTreeMap<u64, Vec<ChunkRef>>;

fn build(nodes: &Nodes, size_bytes: u64, leaves: &Leaves) -> ManifestRef {
    let mut builder = Builder::new(nodes, size_bytes);
    for (index, chunks) in leaves {
        builder.leaf(*index, chunks).unwrap();
    }
    builder.finish().unwrap()
}

fn chunk(offset: u64, len: u32, content: u8) -> ChunkRef {
    ChunkRef {
        offset,
        len,
        id: BlobId::keyed(&KEY, &[content]),
    }
}

/// A leaf from (gap, length, content) triples, cut where the leaf or the disk ends.
fn leaf_from(index: u64, size_bytes: u64, parts: &[(u32, u32, u8)]) -> Vec<ChunkRef> {
    let mut at = index * LEAF_SPAN_BYTES;
    let end = (at + LEAF_SPAN_BYTES).min(size_bytes);
    let mut chunks = Vec::new();
    for (gap, len, content) in parts {
        let offset = at + u64::from(*gap);
        if offset + u64::from(*len) > end {
            break;
        }
        chunks.push(chunk(offset, *len, *content));
        at = offset + u64::from(*len);
    }
    chunks
}

prop_compose! {
    /// A disk of up to three levels above the leaves, mostly holes.
    fn disk()(
        size_bytes in prop_oneof![1..3 * LEAF_SPAN_BYTES, 1..200 * LEAF_SPAN_BYTES, 1..9000 * LEAF_SPAN_BYTES],
        parts in prop::collection::vec((any::<u64>(), prop::collection::vec((0u32..900_000, 1u32..300_000, 0u8..4), 0..8)), 0..40),
    ) -> (u64, Leaves) {
        let count = size_bytes.div_ceil(LEAF_SPAN_BYTES);
        let leaves = parts.into_iter().map(|(index, parts)| {
            let index = index % count;
            (index, leaf_from(index, size_bytes, &parts))
        });
        (size_bytes, leaves.collect())
    }
}

fn without_holes(leaves: &Leaves) -> Vec<Leaf> {
    let some = leaves.iter().filter(|(_, chunks)| !chunks.is_empty());
    some.map(|(index, chunks)| Leaf {
        index: *index,
        chunks: chunks.clone(),
    })
    .collect()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

fn read(nodes: &Arc<Nodes>, manifest: ManifestRef, range: Range<u64>) -> Vec<Leaf> {
    let nodes = nodes.clone();
    run(async {
        super::leaves(nodes, manifest, range)
            .map(Result::unwrap)
            .collect()
            .await
    })
}

fn differences(nodes: &Arc<Nodes>, a: ManifestRef, b: ManifestRef) -> (Vec<LeafPair>, u64) {
    let nodes = nodes.clone();
    run(async move {
        let mut diff = super::diff(nodes.clone(), a, nodes, b);
        let mut pairs = Vec::new();
        while let Some(pair) = diff.next().await {
            pairs.push(pair.unwrap());
        }
        (pairs, diff.nodes_read())
    })
}

fn naive(a: &Leaves, b: &Leaves) -> Vec<LeafPair> {
    let all: BTreeSet<u64> = a.keys().chain(b.keys()).copied().collect();
    let side = |leaves: &Leaves, index| leaves.get(&index).cloned().unwrap_or_default();
    let pairs = all.into_iter().map(|index| LeafPair {
        index,
        a: side(a, index),
        b: side(b, index),
    });
    pairs.filter(|pair| pair.a != pair.b).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn leaves_come_back((size, leaves) in disk(), start in any::<u64>(), len in any::<u64>()) {
        let nodes = Arc::new(Nodes::default());
        let manifest = build(&nodes, size, &leaves);
        let expected = without_holes(&leaves);
        prop_assert_eq!(manifest.root.is_none(), expected.is_empty());
        prop_assert_eq!(&read(&nodes, manifest, 0..u64::MAX), &expected);
        let start = start % size;
        let range = start..start.saturating_add(len % size);
        let touched = leaf_range(size, &range);
        let part: Vec<Leaf> = expected.into_iter().filter(|leaf| touched.contains(&leaf.index)).collect();
        prop_assert_eq!(read(&nodes, manifest, range), part);
    }

    #[test]
    fn the_difference_is_the_naive_one((a_size, a) in disk(), (b_size, other) in disk(), share in 0u8..3) {
        // half of the time the second is the first with changes
        let (b_size, b) = if share > 0 {
            let mut b = a.clone();
            for (index, chunks) in other.into_iter().take(usize::from(share) * 3) {
                let index = index % a_size.div_ceil(LEAF_SPAN_BYTES);
                let parts: Vec<_> = chunks.iter().map(|c| (1000, c.len, 9)).collect();
                b.insert(index, leaf_from(index, a_size, &parts));
            }
            (a_size, b)
        } else {
            (b_size, other)
        };
        let nodes = Arc::new(Nodes::default());
        let (ma, mb) = (build(&nodes, a_size, &a), build(&nodes, b_size, &b));
        let (pairs, nodes_read) = differences(&nodes, ma, mb);
        prop_assert_eq!(&pairs, &naive(&a, &b));
        if pairs.is_empty() && a_size == b_size {
            prop_assert_eq!(nodes_read, 0);
            prop_assert_eq!(ma, mb);
        }
        // at most every level once for each place and side
        prop_assert!(nodes_read <= 2 * 5 * (pairs.len() as u64 + 1));
    }
}

#[test]
fn chunks_out_of_place_are_refused() {
    let nodes = Nodes::default();
    let size = 3 * LEAF_SPAN_BYTES - 100;
    let wrong: [(u64, Vec<ChunkRef>); 6] = [
        (0, vec![chunk(LEAF_SPAN_BYTES - 10, 20, 1)]),
        (0, vec![chunk(10, 20, 1), chunk(20, 20, 1)]),
        (0, vec![chunk(10, 0, 1)]),
        (1, vec![chunk(10, 20, 1)]),
        (2, vec![chunk(size - 10, 20, 1)]),
        (3, vec![chunk(3 * LEAF_SPAN_BYTES, 20, 1)]),
    ];
    for (index, chunks) in wrong {
        let mut builder = Builder::new(&nodes, size);
        let error = builder.leaf(index, &chunks).expect_err("out of place");
        assert_eq!(error.kind, crate::Kind::Invalid, "{error}");
    }
    let mut builder = Builder::new(&nodes, size);
    builder.leaf(1, &[]).unwrap();
    assert_eq!(builder.leaf(1, &[]).expect_err("twice").kind, crate::Kind::Invalid);
    let huge = Builder::new(&nodes, u64::MAX).finish().expect_err("too large");
    assert_eq!(huge.kind, crate::Kind::Invalid);
}

#[test]
fn heights_follow_from_sizes() {
    let height = |leaves: u64| {
        ManifestRef {
            size_bytes: leaves * LEAF_SPAN_BYTES,
            root: None,
        }
        .height()
    };
    assert_eq!(
        [0, 1, 2, 64, 65, 4096, 4097, 1 << 18, (1 << 18) + 1].map(height),
        [0, 0, 1, 1, 2, 2, 3, 3, 4]
    );
}
