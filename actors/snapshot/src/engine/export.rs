//! Writes a state of a disk as a whole new file: sparse and raw, or qcow2 without a backing image.
//!
//! ```text
//! leaves in order -> windows of chunks -> coalesced fetches, many in flight -> OUTPUT.partial-<ulid>
//!   -> fsync -> rename without replacing -> fsync of the directory
//! ```
//!
//! Holes are never written. Memory: one window's chunk list (3 MiB), leaves that wait for their last chunk (`gather`, 128 MiB at
//! most), and what the repository holds of fetched ranges. An
//! error removes the partial file; kill -9 leaves it, and it is in nobody's way: `OUTPUT` is there whole or not at all.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{BoxStream, Fuse};
use repo::manifest::{self, Leaf};
use repo::{BlobId, ManifestRef, Repo};
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use tokio::runtime::Handle;

use self::gather::Gather;
use crate::core::format::Format;
use crate::engine::progress::Progress;
use crate::engine::raw::RawDisk;
use crate::engine::restore::{Options, fetch_into};
use crate::{Kind, Result, SnapshotError};

/// Threads that open chunks and write leaves. Who writes past the page cache waits for the disk, and leaves its core to the others.
const WRITERS_PER_CORE: usize = 4;

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

/// What is written.
enum Target<'a> {
    Raw(Gather<'a>, u64),
    Qcow2(Box<qcow2::Image>),
}

impl<'a> Target<'a> {
    fn begin(file: &'a File, path: &Path, format: Format, size_bytes: u64) -> Result<Self> {
        let fail = |e: std::io::Error| SnapshotError::io("write", path.display(), &e);
        match format {
            Format::Raw => {
                file.set_len(size_bytes).map_err(fail)?;
                Ok(Self::Raw(Gather::new(file), size_bytes))
            }
            Format::Qcow2 => {
                file.set_len(1).map_err(fail)?; // a disk without a byte is refused
                let medium = Arc::new(RawDisk::open_write(path)?);
                qcow2::create(&*medium, size_bytes, &path.display().to_string())?;
                Ok(Self::Qcow2(Box::new(qcow2::open(medium, path, &Nothing, true)?)))
            }
        }
    }

    /// What comes next: these chunks, each once.
    fn expect(&self, window: &[repo::ChunkRef]) {
        if let Self::Raw(gather, _) = self {
            gather.expect(window);
        }
    }

    /// `len` bytes at `offset`, as `fill` puts them into memory of the target's or `scratch`.
    fn write_with(
        &self,
        path: &Path,
        (offset, len): (u64, usize),
        scratch: &mut Vec<u8>,
        fill: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<()> {
        match self {
            Self::Raw(gather, _) => gather
                .write_with(offset, len, scratch, fill)?
                .map_err(|e| SnapshotError::io("write", path.display(), &e)),
            Self::Qcow2(image) => {
                let data = filled(scratch, len, fill)?;
                Ok(image.write_at(data, offset)?)
            }
        }
    }

    fn sync(&self, file: &File, path: &Path) -> Result<()> {
        match self {
            // the last page may have gone past the end
            Self::Raw(_, size_bytes) => file
                .set_len(*size_bytes)
                .and_then(|()| file.sync_all())
                .map_err(|e| SnapshotError::io("write", path.display(), &e)),
            Self::Qcow2(image) => Ok(image.sync()?),
        }
    }
}

/// `len` bytes of `scratch`, filled.
fn filled(scratch: &mut Vec<u8>, len: usize, fill: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<&[u8]> {
    if scratch.len() < len {
        scratch.resize(len, 0);
    }
    let place = &mut scratch[..len];
    fill(place)?;
    Ok(place)
}

/// A new image stands on nothing.
struct Nothing;

impl qcow2::Files for Nothing {
    fn open(&self, _: &Path) -> std::io::Result<Arc<dyn qcow2::Medium>> {
        Err(std::io::ErrorKind::NotFound.into())
    }
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

/// Writes `manifest` as the new file `output` of that format, readable by its owner alone; `ulid` makes the partial file's name unique.
/// Blocks: call it on a blocking thread.
///
/// # Errors
/// `Conflict` when `output` exists; `NotFound` and `Denied` of its directory; `Full`; `Cancelled`; `Corrupt` when the
/// repository is damaged; the store's. No file is left.
pub fn export(
    repo: &Repo,
    handle: &Handle,
    manifest: ManifestRef,
    (output, format): (&Path, Format),
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
    let target = Target::begin(&file, &path, format, manifest.size_bytes)?;
    progress.begin("export", manifest.size_bytes);
    let mut exported = Exported {
        size_bytes: manifest.size_bytes,
        ..Exported::default()
    };
    let mut leaves = {
        let _entered = handle.enter();
        // Fused: a last window that is full is followed by an empty one.
        manifest::leaves(Arc::new(repo.clone()), manifest, 0..manifest.size_bytes).fuse()
    };
    let mut reached = 0;
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
        target.expect(&window);
        // in the order of the disk, so that leaves are whole soon after they were begun
        let mut ids: Vec<BlobId> = window.iter().map(|at| at.id).collect();
        let mut seen = HashSet::with_capacity(ids.len());
        ids.retain(|id| seen.insert(*id));
        drop(seen);
        window.sort_unstable_by_key(|at| (at.id, at.offset));
        let fetched = fetch_into(
            repo,
            handle,
            &options.fetch,
            WRITERS_PER_CORE * options.threads,
            progress,
            &ids,
            |stored, scratch| {
                let id = stored.id();
                let first = window.partition_point(|at| at.id < id);
                // most chunks have one place, and are opened there; another one costs as much as it would apart
                for at in window[first..].iter().take_while(|at| at.id == id) {
                    if at.len as usize != stored.raw_len() {
                        let has = stored.raw_len();
                        let why = format!("chunk {id} has {has} bytes, but the manifest says {}", at.len);
                        return Err(SnapshotError::new(Kind::Corrupt, why).hint("windlass snapshot verify"));
                    }
                    let place = (at.offset, at.len as usize);
                    target.write_with(&path, place, scratch, |memory| Ok(stored.open_to(memory)?))?;
                    progress.add(u64::from(at.len));
                }
                Ok(())
            },
        )?;
        exported.written_bytes += data;
        exported.fetched_bytes += fetched.stored_bytes;
        exported.fetch_requests += fetched.requests;
    }
    progress.begin("sync", 0);
    target.sync(&file, &path)?;
    progress.check()?; // the last moment at which nothing is to be seen
    publish(&mut partial, output)?;
    Ok(exported)
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

mod gather;
#[cfg(test)]
mod tests;
