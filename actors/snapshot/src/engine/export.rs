//! Writes a state of a disk as a whole new sparse raw file.
//!
//! ```text
//! leaves in order -> windows of chunks -> coalesced fetches, many in flight -> OUTPUT.partial-<ulid>
//!   -> fsync -> rename without replacing -> fsync of the directory
//! ```
//!
//! Holes are never written. Memory: one window's chunk list (3 MiB), and what the repository holds of fetched ranges. An
//! error removes the partial file; kill -9 leaves it, and it is in nobody's way: `OUTPUT` is there whole or not at all.

use std::fs::File;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use futures::StreamExt;
use futures::stream::{BoxStream, Fuse};
use repo::manifest::{self, Leaf};
use repo::{BlobId, ManifestRef, Repo};
use rustix::fs::{Advice, CWD, RenameFlags};
use rustix::io::Errno;
use tokio::runtime::Handle;

use crate::engine::progress::Progress;
use crate::engine::restore::{Options, fetch_into};
use crate::{Kind, Result, SnapshotError};

/// What an export moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exported {
    /// Size of the file in bytes.
    pub size_bytes: u64,
    /// Bytes written; the rest are holes.
    pub written_bytes: u64,
    /// Bytes that crossed from the store.
    pub fetched_bytes: u64,
    /// Range reads that took.
    pub fetch_requests: u64,
}

/// A file under way; removed unless it is kept.
struct Partial {
    path: PathBuf,
    kept: bool,
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "can't remove a partial export");
        }
    }
}

/// Writes `manifest` as the new file `output`, readable by its owner alone; `ulid` makes the partial file's name unique.
/// Blocks: call it on a blocking thread.
///
/// # Errors
/// `Conflict` when `output` exists; `NotFound` and `Denied` of its directory; `Full`; `Cancelled`; `Corrupt` when the
/// repository is damaged; the store's. No file is left.
pub fn export(
    repo: &Repo,
    handle: &Handle,
    manifest: ManifestRef,
    output: &Path,
    ulid: &str,
    options: &Options,
    progress: &Progress,
) -> Result<Exported> {
    if output.symlink_metadata().is_ok() {
        return Err(exists(output));
    }
    let mut name = output.as_os_str().to_owned();
    name.push(format!(".partial-{ulid}"));
    let path = PathBuf::from(name);
    let fail = |e: std::io::Error| SnapshotError::io("write", path.display(), &e);
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(fail)?;
    let mut partial = Partial {
        path: path.clone(),
        kept: false,
    };
    file.set_len(manifest.size_bytes).map_err(fail)?;
    progress.begin("export", manifest.size_bytes);
    let mut exported = Exported {
        size_bytes: manifest.size_bytes,
        ..Exported::default()
    };
    let mut leaves = {
        let _entered = handle.enter();
        // Fused: a last window that is full is followed by an empty one.
        manifest::leaves(std::sync::Arc::new(repo.clone()), manifest, 0..manifest.size_bytes).fuse()
    };
    let mut reached = 0;
    let early = EarlyWriteback::default();
    loop {
        let (mut window, end) = handle.block_on(next_window(&mut leaves, options.window_chunks_max, progress))?;
        // Holes between leaves count as done when what follows them is begun.
        let data: u64 = window.iter().map(|at| u64::from(at.len)).sum();
        progress.add(
            end.unwrap_or(manifest.size_bytes)
                .min(manifest.size_bytes)
                .saturating_sub(reached + data),
        );
        reached = end.unwrap_or(reached);
        if window.is_empty() {
            break;
        }
        window.sort_unstable_by_key(|at| (at.id, at.offset));
        let mut ids: Vec<BlobId> = window.iter().map(|at| at.id).collect();
        ids.dedup();
        let fetched = fetch_into(
            repo,
            handle,
            &options.fetch,
            options.threads,
            progress,
            &ids,
            |id, data| {
                let first = window.partition_point(|at| at.id < id);
                for at in window[first..].iter().take_while(|at| at.id == id) {
                    if at.len as usize != data.len() {
                        let why = format!("chunk {id} has {} bytes, but the manifest says {}", data.len(), at.len);
                        return Err(SnapshotError::new(Kind::Corrupt, why).hint("windlass snapshot verify"));
                    }
                    file.write_all_at(&data, at.offset).map_err(fail)?;
                    early.wrote(&file, at.offset..at.offset + data.len() as u64);
                    progress.add(data.len() as u64);
                }
                Ok(())
            },
        )?;
        exported.written_bytes += data;
        exported.fetched_bytes += fetched.stored_bytes;
        exported.fetch_requests += fetched.requests;
    }
    progress.begin("sync", 0);
    file.sync_all().map_err(fail)?;
    progress.check()?; // the last moment at which nothing is to be seen
    publish(&mut partial, output)?;
    Ok(exported)
}

/// Bytes after which the kernel is asked to begin with what was written.
const EARLY_WRITEBACK_BYTES: u64 = 8 << 20;

/// Has the kernel write to the medium while the rest is being fetched: without, it begins with the fsync at the end, and
/// everybody waits for it.
#[derive(Debug, Default)]
struct EarlyWriteback {
    /// Written since it was last asked: how much, and where.
    due: Mutex<(u64, Range<u64>)>,
}

impl EarlyWriteback {
    fn wrote(&self, file: &File, range: Range<u64>) {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let (bytes, place) = &mut *due;
        *bytes += range.end - range.start;
        *place = match place.is_empty() {
            true => range,
            false => place.start.min(range.start)..place.end.max(range.end),
        };
        if *bytes < EARLY_WRITEBACK_BYTES {
            return;
        }
        let (_, place) = std::mem::take(&mut *due);
        drop(due);
        // Linux begins to write dirty pages of a run that is said not to be needed, and waits for none of them. It is
        // advice: where it is refused, the fsync has more to do.
        let _ = rustix::fs::fadvise(
            file,
            place.start,
            NonZeroU64::new(place.end - place.start),
            Advice::DontNeed,
        );
    }
}

/// The next chunks, at most a leaf's more than `chunks_max`, and the end of the last leaf.
async fn next_window(
    leaves: &mut Fuse<BoxStream<'static, repo::Result<Leaf>>>,
    chunks_max: usize,
    progress: &Progress,
) -> Result<(Vec<repo::ChunkRef>, Option<u64>)> {
    let (mut window, mut end) = (Vec::new(), None);
    while window.len() < chunks_max.max(1) {
        let Some(leaf) = leaves.next().await else { break };
        progress.check()?;
        let mut leaf = leaf?;
        end = Some((leaf.index + 1).saturating_mul(manifest::LEAF_SPAN_BYTES));
        window.append(&mut leaf.chunks);
    }
    Ok((window, end))
}

fn exists(output: &Path) -> SnapshotError {
    SnapshotError::new(
        Kind::Conflict,
        format!("{} exists already; it was left as it is", output.display()),
    )
    .hint("name another file")
}

fn publish(partial: &mut Partial, output: &Path) -> Result<()> {
    let fail = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::AlreadyExists => exists(output),
        _ => SnapshotError::io("make", output.display(), &e),
    };
    match rustix::fs::renameat_with(CWD, &partial.path, CWD, output, RenameFlags::NOREPLACE) {
        Ok(()) => partial.kept = true,
        // The filesystem doesn't know the flag: a link doesn't replace either, and the partial name is then removed.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            std::fs::hard_link(&partial.path, output).map_err(fail)?
        }
        Err(e) => return Err(fail(e.into())),
    }
    let directory = match output.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let synced = File::open(directory).and_then(|d| d.sync_all());
    synced.map_err(|e| SnapshotError::io("make durable the name of", output.display(), &e))
}

#[cfg(test)]
mod tests;
