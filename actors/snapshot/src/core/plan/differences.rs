//! Which places and holes two states of a leaf differ in.

use std::ops::Range;

use super::{Chunk, Key, Needs, PlanError};

/// Adds to `needs` what must be done so that `span` (a leaf), which holds the chunks `present`, comes to hold `target`.
/// What no chunk covers reads as zeros. Leaves come in order of offset.
///
/// # Errors
/// When either list isn't sorted, overlaps, or leaves `span`.
pub fn differences<K: Key>(
    present: &[Chunk<K>],
    target: &[Chunk<K>],
    span: Range<u64>,
    needs: &mut Needs<K>,
) -> Result<(), PlanError> {
    check_leaf(present, &span)?;
    check_leaf(target, &span)?;
    let mut same = present.iter().peekable();
    let mut covered = present.iter().peekable();
    let mut gap = span.start;
    for chunk in target {
        punch_covered(&mut covered, gap..chunk.offset, needs);
        gap = chunk.end();
        while same.next_if(|old| old.offset < chunk.offset).is_some() {}
        if same.peek() != Some(&chunk) {
            needs.place(*chunk)?;
        }
    }
    punch_covered(&mut covered, gap..span.end, needs);
    Ok(())
}

/// Of `gap`, which reads as zeros in the target, what the present state covers with chunks becomes a hole.
fn punch_covered<'a, K: Key + 'a>(
    covered: &mut std::iter::Peekable<impl Iterator<Item = &'a Chunk<K>>>,
    gap: Range<u64>,
    needs: &mut Needs<K>,
) {
    while covered.next_if(|old| old.end() <= gap.start).is_some() {}
    while let Some(old) = covered.peek() {
        if old.offset >= gap.end {
            return;
        }
        needs.hole(old.offset.max(gap.start)..old.end().min(gap.end));
        if old.end() > gap.end {
            return; // it also reaches into the next gap, perhaps
        }
        covered.next();
    }
}

fn check_leaf<K>(chunks: &[Chunk<K>], span: &Range<u64>) -> Result<(), PlanError> {
    let mut end = span.start;
    for chunk in chunks {
        if chunk.len == 0 || chunk.offset < end {
            return Err(PlanError::Overlap { offset: chunk.offset });
        }
        end = chunk.end();
        if end > span.end {
            return Err(PlanError::Outside { offset: chunk.offset });
        }
    }
    Ok(())
}
