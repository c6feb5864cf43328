#![expect(clippy::single_range_in_vec_init, reason = "leaves may have a single run of data")]

use proptest::prelude::*;

use super::*;

type Id = [u8; 16];

/// Small, so that a leaf of some KiB has many chunks of every kind.
const SMALL: Chunker = Chunker::Fastcdc {
    min_bytes: 64,
    avg_bytes: 256,
    max_bytes: 1024,
};
const FIXED: Chunker = Chunker::Fixed { chunk_bytes: 8192 };

fn id_of(bytes: &[u8]) -> Id {
    blake3::hash(bytes).as_bytes()[..16].try_into().unwrap()
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

fn cut(chunker: &Chunker, leaf: LeafBytes<'_>, old: &[LeafChunk<Id>]) -> (Vec<LeafChunk<Id>>, CutStats) {
    let mut chunks = Vec::new();
    let stats = Cutter::new(chunker).unwrap().cut(leaf, old, id_of, &mut chunks);
    (chunks, stats)
}

fn cut_whole(chunker: &Chunker, bytes: &[u8], old: &[LeafChunk<Id>]) -> (Vec<LeafChunk<Id>>, CutStats) {
    cut(
        chunker,
        LeafBytes {
            bytes,
            runs: &[0..bytes.len()],
        },
        old,
    )
}

/// What `core::cut` promises, in the plainest way: blocks, then runs, then one search per segment by the crate itself.
fn model(chunker: &Chunker, bytes: &[u8]) -> Vec<LeafChunk<Id>> {
    let zero: Vec<bool> = bytes
        .chunks(BLOCK_BYTES)
        .map(|block| block.iter().all(|b| *b == 0))
        .collect();
    if zero.iter().all(|z| *z) {
        return Vec::new();
    }
    let mut hole = vec![false; zero.len()];
    for first in 0..zero.len() {
        let run = zero[first..].iter().take_while(|z| **z).count();
        if run >= HOLE_BLOCKS {
            hole[first..first + run].fill(true);
        }
    }
    let mut chunks = Vec::new();
    let mut block = 0;
    while block < hole.len() {
        let run = hole[block..].iter().take_while(|h| **h == hole[block]).count();
        let (start, end) = (block * BLOCK_BYTES, ((block + run) * BLOCK_BYTES).min(bytes.len()));
        if !hole[block] {
            let mut at = start;
            while at < end {
                let len = match *chunker {
                    Chunker::Fastcdc {
                        min_bytes,
                        avg_bytes,
                        max_bytes,
                    } => {
                        v2020::FastCDC::new(
                            &bytes[at..end],
                            min_bytes as usize,
                            avg_bytes as usize,
                            max_bytes as usize,
                        )
                        .next()
                        .unwrap()
                        .length
                    }
                    Chunker::Fixed { chunk_bytes } => (chunk_bytes as usize - at % chunk_bytes as usize).min(end - at),
                };
                push(&mut chunks, at, len, id_of(&bytes[at..at + len]));
                at += len;
            }
        }
        block += run;
    }
    chunks
}

/// Bytes of a kind: many cut points, none, zeros, repetition.
fn stuff(kind: u8, seed: u64, len: usize) -> Vec<u8> {
    match kind {
        0 | 1 => vec![0; len],
        2 => vec![0x41; len],
        3 => noise(seed, 300).into_iter().cycle().take(len).collect(),
        _ => noise(seed, len),
    }
}

fn leaf() -> impl Strategy<Value = Vec<u8>> {
    let piece = (
        0_u8..8,
        any::<u64>(),
        prop_oneof![1_usize..200, 1_usize..24_000, (1_usize..8).prop_map(|n| n * 4096)],
    );
    (prop::collection::vec(piece, 1..12), prop::option::of(1_usize..40_000)).prop_map(|(pieces, len)| {
        let mut bytes: Vec<u8> = pieces
            .into_iter()
            .flat_map(|(kind, seed, len)| stuff(kind, seed, len))
            .collect();
        bytes.truncate(len.unwrap_or(usize::MAX));
        bytes
    })
}

#[derive(Debug, Clone)]
struct Edit {
    at: f64,
    len: usize,
    kind: u8,
    seed: u64,
    aligned: bool,
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let len = prop_oneof![Just(1_usize), 1_usize..70, 1_usize..9000, 16_384_usize..20_000];
    let edit =
        (0.0_f64..1.0, len, 0_u8..12, any::<u64>(), any::<bool>()).prop_map(|(at, len, kind, seed, aligned)| Edit {
            at,
            len,
            kind,
            seed,
            aligned,
        });
    prop::collection::vec(edit, 0..10)
}

/// Overwrites; kinds 8 to 11 insert, remove, cut short and lengthen, so that data moves and old chunks' ends meet others.
fn apply(bytes: &mut Vec<u8>, edits: &[Edit]) {
    for edit in edits {
        let mut at = (edit.at * bytes.len() as f64) as usize;
        if edit.aligned {
            at -= at % BLOCK_BYTES;
        }
        let end = (at + edit.len).min(bytes.len());
        match edit.kind {
            8 => drop(bytes.splice(at..at, noise(edit.seed, edit.len))),
            9 => drop(bytes.drain(at..end)),
            10 => bytes.truncate(at.max(1)),
            11 => bytes.extend(noise(edit.seed, edit.len)),
            kind => drop(bytes.splice(at..end, stuff(kind, edit.seed, end - at))),
        }
        if bytes.is_empty() {
            bytes.push(1);
        }
    }
}

/// The runs that a filesystem with holes at some of the zero blocks would report, made fit as `LeafBytes` asks.
fn punched(bytes: &[u8], seed: u64) -> Vec<Range<usize>> {
    let blocks = bytes.len().div_ceil(BLOCK_BYTES);
    let pick = noise(seed, blocks);
    let is_data = |b: usize| {
        let block = &bytes[b * BLOCK_BYTES..((b + 1) * BLOCK_BYTES).min(bytes.len())];
        !is_zero(block) || pick[b] < 60
    };
    let mut runs: Vec<Range<usize>> = Vec::new();
    for block in (0..blocks).filter(|b| is_data(*b)) {
        let (start, end) = (block * BLOCK_BYTES, ((block + 1) * BLOCK_BYTES).min(bytes.len()));
        match runs.last_mut() {
            Some(last) if start - last.end < HOLE_BYTES => last.end = end,
            None if start < HOLE_BYTES => runs.push(0..end),
            _ => runs.push(start..end),
        }
    }
    if let Some(last) = runs.last_mut()
        && bytes.len() - last.end < HOLE_BYTES
    {
        last.end = bytes.len();
    }
    runs
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn old_cut_points_change_nothing_but_the_cost(before in leaf(), edits in edits()) {
        let mut after = before.clone();
        apply(&mut after, &edits);
        for chunker in [SMALL, FIXED] {
            let (old, _) = cut_whole(&chunker, &before, &[]);
            prop_assert_eq!(&old, &model(&chunker, &before));
            let (fresh, _) = cut_whole(&chunker, &after, &[]);
            prop_assert_eq!(&fresh, &model(&chunker, &after));
            let (with_old, _) = cut_whole(&chunker, &after, &old);
            prop_assert_eq!(&with_old, &fresh);
        }
    }

    #[test]
    fn written_zeros_and_holes_are_the_same(bytes in leaf(), seed: u64) {
        let runs = punched(&bytes, seed);
        // What lies in holes isn't looked at: it may hold anything.
        let mut dirty = bytes.clone();
        let mut at = 0;
        for run in runs.iter().cloned().chain([bytes.len()..bytes.len()]) {
            dirty[at..run.start].fill(0xee);
            at = run.end;
        }
        for chunker in [SMALL, FIXED] {
            let (whole, _) = cut_whole(&chunker, &bytes, &[]);
            let (sparse, _) = cut(&chunker, LeafBytes { bytes: &dirty, runs: &runs }, &[]);
            prop_assert_eq!(&whole, &sparse);
        }
    }

    #[test]
    fn chunks_and_zeros_make_the_leaf(bytes in leaf()) {
        for chunker in [SMALL, FIXED] {
            let (chunks, stats) = cut_whole(&chunker, &bytes, &[]);
            let mut made = vec![0; bytes.len()];
            let mut at = 0;
            for chunk in &chunks {
                let (start, end) = (chunk.offset as usize, (chunk.offset + chunk.len) as usize);
                prop_assert!(start >= at && end > start);
                prop_assert_eq!(chunk.id, id_of(&bytes[start..end]));
                made[start..end].copy_from_slice(&bytes[start..end]);
                at = end;
            }
            prop_assert!(made == bytes);
            prop_assert_eq!(stats.chunk_bytes, chunks.iter().map(|c| u64::from(c.len)).sum::<u64>());
            prop_assert_eq!(stats.hashed_bytes, stats.chunk_bytes);
        }
    }
}

#[test]
fn unchanged_data_is_hashed_once_and_never_searched() {
    let chunker = Chunker::default();
    let mut bytes = noise(1, 4 << 20);
    bytes[1 << 20..2 << 20].fill(0);
    bytes[(3 << 20) + 5..(3 << 20) + 9000].fill(0);
    let (old, first) = cut_whole(&chunker, &bytes, &[]);
    assert_eq!(
        (first.chunk_bytes, first.recut_bytes, first.hashed_bytes),
        (3 << 20, 3 << 20, 3 << 20)
    );
    assert!((30..80).contains(&old.len()), "{}", old.len());
    let (again, stats) = cut_whole(&chunker, &bytes, &old);
    assert_eq!(again, old);
    assert_eq!((stats.recut_bytes, stats.hashed_bytes), (0, 3 << 20));

    // One byte changed: its chunk alone is searched and hashed anew, and what follows is in step again.
    bytes[2_500_000] ^= 1;
    let (changed, stats) = cut_whole(&chunker, &bytes, &old);
    assert_eq!(changed, cut_whole(&chunker, &bytes, &[]).0);
    assert_eq!(changed.iter().filter(|c| !old.contains(c)).count(), 1);
    assert!(stats.recut_bytes > 0 && stats.recut_bytes <= 256 << 10, "{stats:?}");
    assert_eq!(
        stats.hashed_bytes,
        3 << 20,
        "a search that ends where the old chunk did needs no second hash"
    );
}

#[test]
fn a_chunk_whose_next_byte_changed_may_end_elsewhere() {
    // FastCDC looks at the byte after a chunk: the same chunk before another byte is not always a chunk.
    let bytes = noise(7, 64 << 10);
    let (old, _) = cut_whole(&SMALL, &bytes, &[]);
    let mut moved = 0;
    for chunk in &old[..old.len() - 1] {
        let mut after = bytes.clone();
        after[(chunk.offset + chunk.len) as usize] ^= 0x55;
        let (fresh, _) = cut_whole(&SMALL, &after, &[]);
        assert_eq!(cut_whole(&SMALL, &after, &old).0, fresh);
        moved += usize::from(!fresh.contains(chunk));
    }
    assert!(moved > old.len() / 2, "the case was met {moved} times in {}", old.len());
}

#[test]
fn a_disk_that_grows_or_shrinks_by_bytes_is_cut_as_afresh() {
    // The search looks at two bytes at a time and not at an odd one at the end: met only by lengths near a cut point,
    // and where two cut points stand side by side, as some repeated bytes make them.
    let repeated = (1..=255).map(|byte| vec![byte; 600]);
    for (seed, bytes) in (0..4).map(|seed| noise(seed, 3000)).chain(repeated).enumerate() {
        let of_len: Vec<_> = (1..bytes.len())
            .map(|len| cut_whole(&SMALL, &bytes[..len], &[]).0)
            .collect();
        for (old_index, old) in of_len.iter().enumerate() {
            for index in old_index.saturating_sub(3)..(old_index + 4).min(of_len.len()) {
                assert_eq!(
                    cut_whole(&SMALL, &bytes[..=index], old).0,
                    of_len[index],
                    "{seed} {old_index} {index}"
                );
            }
        }
    }
}

#[test]
fn a_leaf_of_zeros_has_no_chunks_however_short() {
    for len in [1, 511, 4096, 4097, 16_383, 16_384, 100_000] {
        for chunker in [SMALL, FIXED] {
            assert_eq!(cut_whole(&chunker, &vec![0; len], &[]).0, []);
            assert_eq!(
                cut(
                    &chunker,
                    LeafBytes {
                        bytes: &vec![9; len],
                        runs: &[]
                    },
                    &[]
                )
                .0,
                []
            );
            let mut bytes = vec![0; len];
            bytes[len - 1] = 1;
            assert_eq!(cut_whole(&chunker, &bytes, &[]).0, model(&chunker, &bytes));
        }
    }
}

#[test]
fn fixed_chunks_start_at_multiples_from_the_leaf() {
    let mut bytes = noise(3, 100_000);
    bytes[20_480..40_960].fill(0);
    let (chunks, stats) = cut_whole(&FIXED, &bytes, &[]);
    let ends: Vec<_> = chunks.iter().map(|c| (c.offset, c.offset + c.len)).collect();
    assert_eq!(
        ends[..4],
        [(0, 8192), (8192, 16_384), (16_384, 20_480), (40_960, 49_152)]
    );
    assert_eq!(*ends.last().unwrap(), (98_304, 100_000));
    assert_eq!(stats.recut_bytes, 0);
}

#[test]
fn sizes_out_of_range_are_refused() {
    for chunker in [
        Chunker::Fixed { chunk_bytes: 0 },
        Chunker::Fixed { chunk_bytes: 4097 },
        Chunker::Fixed { chunk_bytes: 8 << 20 },
        Chunker::Fastcdc {
            min_bytes: 0,
            avg_bytes: 256,
            max_bytes: 1024,
        },
        Chunker::Fastcdc {
            min_bytes: 65,
            avg_bytes: 256,
            max_bytes: 1024,
        },
        Chunker::Fastcdc {
            min_bytes: 512,
            avg_bytes: 256,
            max_bytes: 1024,
        },
        Chunker::Fastcdc {
            min_bytes: 64,
            avg_bytes: 2048,
            max_bytes: 1024,
        },
        Chunker::Fastcdc {
            min_bytes: 64,
            avg_bytes: 65_536,
            max_bytes: 16 << 20,
        },
    ] {
        assert_eq!(Cutter::new(&chunker).unwrap_err().kind, Kind::Invalid, "{chunker:?}");
    }
    for chunker in [
        Chunker::default(),
        SMALL,
        FIXED,
        Chunker::Fixed { chunk_bytes: 4 << 20 },
    ] {
        Cutter::new(&chunker).unwrap();
    }
}
