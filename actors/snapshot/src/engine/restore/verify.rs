//! Reads back what was written, past the page cache, and checks it: chunks by their ids, holes for zeros.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::{Run, parallel};
use crate::{Kind, Result, SnapshotError};

/// Longest run that is read at once, in bytes (a single chunk may be longer).
const RUN_BYTES_MAX: u64 = 4 << 20;

/// What was found wrong.
#[derive(Debug, Default)]
struct Wrong {
    places: Vec<u32>,
    holes: Vec<Range<u64>>,
}

/// What one thread reads at once.
enum Piece {
    /// Places that follow one another without a gap.
    Places(Range<u32>),
    Hole(Range<u64>),
}

impl Run<'_> {
    /// Checks all places and holes; what is wrong is written once more, and checked again.
    pub(super) fn verify(&mut self) -> Result<()> {
        let started = (self.with.clock)();
        let places: u64 = self.plan.places.iter().map(|p| u64::from(p.len)).sum();
        let holes: u64 = self.plan.punches.iter().map(|r| r.end - r.start).sum();
        self.with.progress.begin("verify", places + holes);
        let wrong = self.look_at(self.pieces())?;
        self.report.verified_bytes += places + holes;
        self.spent("verify", started);
        if wrong.places.is_empty() && wrong.holes.is_empty() {
            return Ok(());
        }
        tracing::warn!(
            places = wrong.places.len(), holes = wrong.holes.len(), disk = %self.with.disk.path().display(),
            "read back other bytes than were written; writing them once more"
        );
        self.fetch_again(&wrong.places)?;
        for hole in &wrong.holes {
            self.with.disk.punch(hole.clone())?;
        }
        self.sync()?;
        let again = wrong.places.iter().map(|p| Piece::Places(*p..*p + 1));
        let again = again.chain(wrong.holes.iter().cloned().map(Piece::Hole)).collect();
        let still = self.look_at(again)?;
        let first = still
            .places
            .iter()
            .map(|p| self.plan.place(*p).range())
            .chain(still.holes.iter().cloned());
        match first.min_by_key(|range| range.start) {
            None => Ok(()),
            Some(range) => Err(SnapshotError::new(
                Kind::Corrupt,
                format!(
                    "disk {} gives other bytes back than were written, twice, first at offset {} ({} bytes): the medium is failing",
                    self.with.disk.path().display(),
                    range.start,
                    range.end - range.start
                ),
            )
            .hint("move the disk to another device (windlass restore … --output NEW)")),
        }
    }

    fn pieces(&self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let places = &self.plan.places;
        let mut first = 0;
        for at in 0..places.len() {
            let end = places[at].range().end;
            let goes_on = places
                .get(at + 1)
                .is_some_and(|next| next.offset == end && next.range().end - places[first].offset <= RUN_BYTES_MAX);
            if !goes_on {
                pieces.push(Piece::Places(first as u32..at as u32 + 1));
                first = at + 1;
            }
        }
        for hole in &self.plan.punches {
            let mut at = hole.start;
            while at < hole.end {
                // A hole that the filesystem knows is looked up, not read: one piece.
                let end = if self.is_hole(&(at..hole.end)) {
                    hole.end
                } else {
                    (at + RUN_BYTES_MAX).min(hole.end)
                };
                pieces.push(Piece::Hole(at..end));
                at = end;
            }
        }
        pieces
    }

    fn is_hole(&self, range: &Range<u64>) -> bool {
        match self.with.disk.next_data(range.start) {
            Ok(data) => data.is_none_or(|data| data.start >= range.end),
            Err(_) => false, // then it is read
        }
    }

    fn look_at(&self, mut pieces: Vec<Piece>) -> Result<Wrong> {
        let wrong = Mutex::new(Wrong::default());
        parallel::for_each(&mut pieces, self.with.options.threads, |buffer: &mut Vec<u8>, piece| {
            self.with.progress.check()?;
            match piece {
                Piece::Places(places) => {
                    for place in self.wrong_places(buffer, places.clone())? {
                        wrong.lock().unwrap_or_else(PoisonError::into_inner).places.push(place);
                    }
                }
                Piece::Hole(range) => {
                    if !self.reads_as_zeros(buffer, range)? {
                        wrong
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .holes
                            .push(range.clone());
                    }
                }
            }
            Ok(())
        })?;
        Ok(wrong.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn wrong_places(&self, buffer: &mut Vec<u8>, places: Range<u32>) -> Result<Vec<u32>> {
        let (first, last) = (self.plan.place(places.start), self.plan.place(places.end - 1));
        buffer.resize((last.range().end - first.offset) as usize, 0);
        self.with.disk.read_back(buffer, first.offset)?;
        self.with.progress.add(buffer.len() as u64);
        let is_wrong = |place: &u32| {
            let place = self.plan.place(*place);
            let at = (place.offset - first.offset) as usize;
            self.with.repo.id_of(&buffer[at..at + place.len as usize]) != self.plan.id(place.id)
        };
        Ok(places.filter(is_wrong).collect())
    }

    fn reads_as_zeros(&self, buffer: &mut Vec<u8>, range: &Range<u64>) -> Result<bool> {
        self.with.progress.add(range.end - range.start);
        if self.is_hole(range) {
            return Ok(true);
        }
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(RUN_BYTES_MAX);
            buffer.resize(len as usize, 0);
            self.with.disk.read_back(buffer, at)?;
            if buffer.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            at += len;
        }
        Ok(true)
    }
}
