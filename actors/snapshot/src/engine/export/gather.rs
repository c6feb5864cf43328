//! Chunks of a raw export, gathered into whole leaves that go to the medium past the page cache: nothing of a whole new file is
//! read again here, and filling fresh pages of the cache costs more than decompressing into them.
//!
//! At most [`GATHERED_MAX`] leaves are in memory. Chunks of other leaves go the usual way at once. No page is shared by two
//! leaves, so the two ways never meet.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use repo::ChunkRef;
use repo::manifest::LEAF_SPAN_BYTES;
use rustix::io::Errno;

use super::filled;
use crate::engine::raw::{AlignedBuffer, DIRECT_ALIGN_BYTES as PAGE_BYTES};

/// Leaves in memory, 4 MiB each.
const GATHERED_MAX: usize = 32;

/// Writes a window of chunks after the other into one file.
#[derive(Debug)]
pub(super) struct Gather<'a> {
    file: &'a File,
    /// The same file, written past the page cache; none where the file system knows no such thing.
    direct: Option<File>,
    gathered_max: usize,
    state: Mutex<State>,
    spare: Mutex<Vec<AlignedBuffer>>,
}

/// Leaves that the window still has something for.
#[derive(Debug, Default)]
struct State {
    leaves: HashMap<u64, Waiting>,
    gathered: usize,
}

/// What a leaf still waits for.
#[derive(Debug)]
struct Waiting {
    missing_bytes: u64,
    /// None: nothing came yet. A leaf that found no room writes each of its chunks itself.
    room: Option<Room>,
}

#[derive(Debug, Clone)]
enum Room {
    Gathered(Arc<Mutex<Gathered>>),
    None,
}

/// The chunks that came, at their places in the leaf.
#[derive(Debug)]
struct Gathered {
    memory: AlignedBuffer,
    /// Where they begin and end, in bytes from the leaf's start.
    filled: Vec<(usize, usize)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Gather<'a> {
    /// Over an empty file of the right length.
    pub(super) fn new(file: &'a File) -> Self {
        Self::with(file, GATHERED_MAX)
    }

    fn with(file: &'a File, gathered_max: usize) -> Self {
        let direct = File::options()
            .write(true)
            .custom_flags(rustix::fs::OFlags::DIRECT.bits().cast_signed())
            .open(format!("/proc/self/fd/{}", file.as_raw_fd()));
        Self {
            file,
            direct: direct.ok(),
            gathered_max,
            state: Mutex::default(),
            spare: Mutex::default(),
        }
    }

    /// Says what comes next: these chunks, each once. Whole leaves.
    pub(super) fn expect(&self, window: &[ChunkRef]) {
        if self.direct.is_none() {
            return;
        }
        let mut state = lock(&self.state);
        *state = State::default();
        for chunk in window {
            let waiting = state.leaves.entry(chunk.offset / LEAF_SPAN_BYTES).or_insert(Waiting {
                missing_bytes: 0,
                room: None,
            });
            waiting.missing_bytes += u64::from(chunk.len);
        }
    }

    /// Takes a chunk, on any thread, as `fill` puts it into its leaf, or into `scratch` if that isn't gathered; the last one of a leaf
    /// writes it. Outside, `fill`'s error; inside, that of writing.
    pub(super) fn write_with(
        &self,
        offset: u64,
        len: usize,
        scratch: &mut Vec<u8>,
        fill: impl FnOnce(&mut [u8]) -> crate::Result<()>,
    ) -> crate::Result<io::Result<()>> {
        let leaf = offset / LEAF_SPAN_BYTES;
        let Some(gathered) = self.room_of(leaf) else {
            return Ok(self.file.write_all_at(filled(scratch, len, fill)?, offset));
        };
        let start = (offset % LEAF_SPAN_BYTES) as usize;
        {
            let mut gathered = lock(&gathered);
            fill(&mut gathered.memory.bytes()[start..start + len])?;
            gathered.filled.push((start, start + len));
        }
        // counted after it was filled, so that whoever counts the last one finds all of them
        if !self.is_last(leaf, len as u64) {
            return Ok(Ok(()));
        }
        let mut gathered = lock(&gathered);
        let written = self.write_leaf(leaf * LEAF_SPAN_BYTES, &mut gathered);
        let memory = std::mem::replace(&mut gathered.memory, AlignedBuffer::new(0));
        lock(&self.spare).push(memory);
        Ok(written)
    }

    fn room_of(&self, leaf: u64) -> Option<Arc<Mutex<Gathered>>> {
        let mut state = lock(&self.state);
        let State { leaves, gathered } = &mut *state;
        let room = leaves.get_mut(&leaf)?.room.get_or_insert_with(|| {
            if *gathered >= self.gathered_max {
                return Room::None;
            }
            *gathered += 1;
            let spare = lock(&self.spare).pop();
            Room::Gathered(Arc::new(Mutex::new(Gathered {
                memory: spare.unwrap_or_else(|| AlignedBuffer::new(LEAF_SPAN_BYTES as usize)),
                filled: Vec::new(),
            })))
        });
        match room {
            Room::Gathered(gathered) => Some(Arc::clone(gathered)),
            Room::None => None,
        }
    }

    fn is_last(&self, leaf: u64, bytes: u64) -> bool {
        let mut state = lock(&self.state);
        let Some(waiting) = state.leaves.get_mut(&leaf) else {
            return false;
        };
        waiting.missing_bytes = waiting.missing_bytes.saturating_sub(bytes);
        let last = waiting.missing_bytes == 0;
        if last {
            state.leaves.remove(&leaf);
            state.gathered -= 1;
        }
        last
    }

    /// Writes what came, page by page: the rest of a page that is partly filled is zeros, as a hole would be.
    fn write_leaf(&self, leaf_offset: u64, gathered: &mut Gathered) -> io::Result<()> {
        let Gathered { memory, filled } = gathered;
        filled.sort_unstable();
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for (number, &(start, end)) in filled.iter().enumerate() {
            let first_page = start / PAGE_BYTES * PAGE_BYTES;
            let pages_end = end.next_multiple_of(PAGE_BYTES);
            match runs.last_mut() {
                // zeros from the chunk before on were filled then
                Some(run) if first_page < run.1 => run.1 = pages_end,
                _ => {
                    memory.bytes()[first_page..start].fill(0);
                    runs.push((first_page, pages_end));
                }
            }
            let next = filled.get(number + 1).map_or(pages_end, |next| next.0);
            memory.bytes()[end..next.clamp(end, pages_end)].fill(0);
        }
        // runs that meet are one write
        runs.dedup_by(|next, run| {
            run.1 == next.0 && {
                run.1 = next.1;
                true
            }
        });
        for (start, end) in runs {
            self.write_pages(&memory.bytes()[start..end], leaf_offset + start as u64)?;
        }
        Ok(())
    }

    fn write_pages(&self, pages: &[u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while let Some(direct) = &self.direct
            && done < pages.len()
        {
            match direct.write_at(&pages[done..], offset + done as u64) {
                Ok(written) if written > 0 && written % PAGE_BYTES == 0 => done += written,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if Errno::from_io_error(&e) != Some(Errno::INVAL) => return Err(e),
                // "not like this": the rest goes the usual way, which also tells what is really wrong
                _ => break,
            }
        }
        self.file.write_all_at(&pages[done..], offset + done as u64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use repo::BlobId;

    use super::*;

    /// Runs of data with lengths and gaps of any kind, in three leaves.
    fn layouts() -> impl Strategy<Value = Vec<(u64, u32)>> {
        let span = LEAF_SPAN_BYTES;
        proptest::collection::vec((0..3 * span, 1u32..200_000), 1..40).prop_map(move |mut wanted| {
            wanted.sort_unstable();
            let mut free_from = 0;
            let mut layout = Vec::new();
            for (offset, len) in wanted {
                let offset = offset.max(free_from);
                let leaf_end = (offset / span + 1) * span;
                let len = u64::from(len).min(leaf_end - offset);
                if offset + len <= 3 * span {
                    layout.push((offset, len as u32));
                    free_from = offset + len;
                }
            }
            layout
        })
    }

    fn copy(gather: &Gather<'_>, data: &[u8], offset: u64) {
        let fill = |place: &mut [u8]| {
            place.copy_from_slice(data);
            Ok(())
        };
        let written = gather.write_with(offset, data.len(), &mut Vec::new(), fill);
        written.unwrap().unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        #[test]
        fn what_was_gathered_is_what_was_written(layout in layouts(), seed: u64, room in 0usize..4, on_shm: bool) {
            let place = if on_shm { tempfile::tempfile_in("/dev/shm") } else { tempfile::tempfile() };
            let file = place.unwrap();
            let size = layout.last().map_or(0, |&(offset, len)| offset + u64::from(len));
            file.set_len(size).unwrap();
            let gather = Gather::with(&file, room);
            let mut wanted = vec![0; size as usize];
            let chunks: Vec<ChunkRef> = layout
                .iter()
                .map(|&(offset, len)| ChunkRef { offset, len, id: BlobId::from_bytes([0; 32]) })
                .collect();
            // two windows, so that memory is used again
            for (number, window) in chunks.chunk_by(|a, b| a.offset / LEAF_SPAN_BYTES == b.offset / LEAF_SPAN_BYTES).enumerate() {
                let mut window = window.to_vec();
                gather.expect(&window);
                window.sort_by_key(|c| c.offset.wrapping_mul(seed | 1));
                for chunk in &window {
                    let data = vec![(number * 50) as u8 + (chunk.offset % 50) as u8 + 1; chunk.len as usize];
                    copy(&gather, &data, chunk.offset);
                    wanted[chunk.offset as usize..][..data.len()].copy_from_slice(&data);
                }
            }
            file.set_len(size).unwrap();
            let mut seen = vec![0; size as usize];
            file.read_exact_at(&mut seen, 0).unwrap();
            prop_assert!(seen == wanted);
        }
    }

    #[test]
    fn leaves_of_one_window_share_the_room() {
        let file = tempfile::tempfile().unwrap();
        let gather = Gather::with(&file, 1);
        let chunk = |leaf: u64, part: u64| ChunkRef {
            offset: leaf * LEAF_SPAN_BYTES + part * 6000,
            len: 6000,
            id: BlobId::from_bytes([0; 32]),
        };
        let window: Vec<_> = (0..3).flat_map(|leaf| [chunk(leaf, 0), chunk(leaf, 1)]).collect();
        file.set_len(3 * LEAF_SPAN_BYTES).unwrap();
        gather.expect(&window);
        for part in 0..2 {
            for leaf in 0..3 {
                let data = vec![leaf as u8 + 1; 6000];
                copy(&gather, &data, chunk(leaf, part).offset);
            }
        }
        for leaf in 0..3 {
            let mut seen = vec![0; 12_001];
            file.read_exact_at(&mut seen, leaf * LEAF_SPAN_BYTES).unwrap();
            assert!(
                seen[..12_000].iter().all(|b| *b == leaf as u8 + 1) && seen[12_000] == 0,
                "leaf {leaf}"
            );
        }
    }
}
