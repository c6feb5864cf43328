//! Which ranges of a disk differ between two lists of chunks.

use std::ops::Range;

use repo::ChunkRef;

/// Ranges whose chunks differ, sorted and merged. Both lists are sorted by offset. A chunk that stands in both at the same
/// offset with the same id is equal; whatever any other chunk covers may differ; holes on both sides are equal.
pub fn differing(a: &[ChunkRef], b: &[ChunkRef]) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let mut add = |chunk: &ChunkRef| {
        let range = chunk.offset..chunk.offset + u64::from(chunk.len);
        match ranges.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => ranges.push(range),
        }
    };
    let (mut i, mut j) = (0, 0);
    loop {
        match (a.get(i), b.get(j)) {
            (None, None) => break,
            (Some(x), Some(y)) if x == y => (i, j) = (i + 1, j + 1),
            (Some(x), y) if y.is_none_or(|y| x.offset <= y.offset) => {
                add(x);
                i += 1;
            }
            (_, Some(y)) => {
                add(y);
                j += 1;
            }
            (Some(_), None) => break, // taken by the arm before the last
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use repo::BlobId;

    use super::*;

    fn chunk(offset: u64, len: u32, id: u8) -> ChunkRef {
        ChunkRef {
            offset,
            len,
            id: BlobId::from_bytes([id; 32]),
        }
    }

    #[test]
    fn equal_chunks_and_holes_do_not_differ() {
        let a = [chunk(0, 10, 1), chunk(10, 10, 2), chunk(40, 10, 3)];
        assert!(differing(&a, &a).is_empty());
        assert!(differing(&[], &[]).is_empty());
    }

    #[test]
    fn whatever_another_chunk_covers_differs() {
        let a = [chunk(0, 10, 1), chunk(10, 10, 2), chunk(40, 10, 3)];
        let b = [chunk(0, 10, 1), chunk(12, 20, 4), chunk(60, 5, 5)];
        assert_eq!(differing(&a, &b), [10..32, 40..50, 60..65]);
        assert_eq!(differing(&b, &a), [10..32, 40..50, 60..65]);
        assert_eq!(differing(&a, &[]), [0..20, 40..50]);
    }
}
