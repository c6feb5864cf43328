//! Reading manifest nodes: many small blobs that stand close together.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;

use super::Repo;
use crate::fetch::{self, FetchPlan, open_blob};
use crate::id::IdMap;
use crate::index::Hit;
use crate::manifest::NodeSource;
use crate::pack::PackName;
use crate::{BlobId, FetchLimits, RepoError, Result, io};

/// Gap between nodes that a local read takes along, in bytes: less than a system call costs.
const LOCAL_GAP_BYTES_MAX: u64 = 4 << 10;
/// Longest local read, in bytes.
const LOCAL_READ_BYTES_MAX: u64 = 1 << 20;
/// Nodes below which a local batch is not worth a second thread.
const LOCAL_NODES_MIN: usize = 128;
/// Threads for one batch.
const LOCAL_THREADS_MAX: usize = 4;

/// A node to read: its place in the caller's list, and where it stands.
pub(super) type Wanted = (usize, Hit);

#[async_trait]
impl NodeSource for Repo {
    async fn nodes(&self, ids: &[BlobId]) -> Result<Vec<Bytes>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut wanted: Vec<Wanted> = self.locate_all(ids).await?.into_iter().enumerate().collect();
        let mut nodes = vec![Bytes::new(); ids.len()];
        let local = self.store().local_path(&io::key(&wanted[0].1.name.key())?).is_some();
        wanted.sort_unstable_by_key(|(_, hit)| (hit.name, hit.entry.offset));
        if local {
            let path = |pack: &PackName| Ok(self.store().local_path(&io::key(&pack.key())?));
            for (at, bytes) in self.nodes_of_files(&wanted, path).await? {
                nodes[at] = bytes;
            }
            return Ok(nodes);
        }
        let (found, distant) = self.nodes_of_cache(wanted).await?;
        for (at, bytes) in found.into_iter().chain(self.nodes_by_fetch(distant).await?) {
            nodes[at] = bytes;
        }
        Ok(nodes)
    }
}

/// Nodes of one pack that one read brings.
struct Run {
    path: PathBuf,
    start: u64,
    end: u64,
    nodes: Vec<Wanted>,
}

impl Repo {
    /// Reads nodes, sorted by place, from local files.
    pub(super) async fn nodes_of_files(
        &self,
        wanted: &[Wanted],
        path: impl Fn(&PackName) -> Result<Option<PathBuf>> + Send + Sync,
    ) -> Result<Vec<(usize, Bytes)>> {
        let threads = (wanted.len() / LOCAL_NODES_MIN).clamp(1, LOCAL_THREADS_MAX);
        let part = wanted.len().div_ceil(threads).max(1);
        let key = self.blob_key();
        let mut tasks = Vec::with_capacity(threads);
        for part in wanted.chunks(part) {
            let runs = local_runs(part, &path)?;
            tasks.push(io::blocking("manifest", move || read_local(&key, runs)));
        }
        Ok(futures::future::try_join_all(tasks).await?.concat())
    }

    async fn nodes_by_fetch(&self, wanted: Vec<Wanted>) -> Result<Vec<(usize, Bytes)>> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let limits = FetchLimits::nodes();
        let plan = FetchPlan::new(wanted.iter().map(|(_, hit)| fetch::wanted(*hit)).collect(), &limits);
        let mut found: IdMap<Bytes> = IdMap::default();
        let mut blobs = self.fetch(plan, &limits);
        while let Some(blob) = blobs.next().await {
            let (id, bytes) = blob?;
            found.insert(id, bytes);
        }
        let node = |(at, hit): (usize, Hit)| match found.get(&hit.entry.id) {
            Some(bytes) => Ok((at, bytes.clone())),
            None => Err(RepoError::internal("manifest", "a fetch left a node out")),
        };
        wanted.into_iter().map(node).collect()
    }
}

/// Groups nodes, sorted by place, into reads.
fn local_runs(wanted: &[Wanted], path_of: impl Fn(&PackName) -> Result<Option<PathBuf>>) -> Result<Vec<Run>> {
    let mut runs: Vec<Run> = Vec::new();
    for &(at, hit) in wanted {
        let (start, end) = (
            u64::from(hit.entry.offset),
            u64::from(hit.entry.offset) + u64::from(hit.entry.stored),
        );
        if let Some(run) = runs.last_mut()
            && run.nodes.last().is_some_and(|(_, last)| last.name == hit.name)
        {
            if start.saturating_sub(run.end) <= LOCAL_GAP_BYTES_MAX && end - run.start <= LOCAL_READ_BYTES_MAX {
                run.end = run.end.max(end);
                run.nodes.push((at, hit));
                continue;
            }
            let path = run.path.clone();
            runs.push(Run {
                path,
                start,
                end,
                nodes: vec![(at, hit)],
            });
            continue;
        }
        let path = path_of(&hit.name)?;
        let path = path.ok_or_else(|| RepoError::internal(hit.name.key(), "there is no local file of it"))?;
        runs.push(Run {
            path,
            start,
            end,
            nodes: vec![(at, hit)],
        });
    }
    Ok(runs)
}

fn read_local(key: &[u8; 32], runs: Vec<Run>) -> Result<Vec<(usize, Bytes)>> {
    let mut nodes = Vec::with_capacity(runs.iter().map(|r| r.nodes.len()).sum());
    let mut open: Option<(PathBuf, File)> = None;
    let mut buffer = Vec::new();
    for run in runs {
        let Some((_, first)) = run.nodes.first() else { continue };
        let object = first.name.key();
        let failed = |e: std::io::Error| {
            let kind = match e.kind() {
                std::io::ErrorKind::NotFound => store::Kind::NotFound,
                std::io::ErrorKind::PermissionDenied => store::Kind::Denied,
                std::io::ErrorKind::UnexpectedEof => store::Kind::Truncated,
                _ => store::Kind::Unavailable,
            };
            RepoError::of_referenced(store::StoreError::new(kind, "get_range", object.clone(), e)).at(run.start)
        };
        let file = match open.take() {
            Some(kept) if kept.0 == run.path => &open.insert(kept).1,
            _ => {
                &open
                    .insert((run.path.clone(), File::open(&run.path).map_err(failed)?))
                    .1
            }
        };
        // the index was checked: a run is at most LOCAL_READ_BYTES_MAX, or one blob
        buffer.resize((run.end - run.start) as usize, 0);
        file.read_exact_at(&mut buffer, run.start).map_err(failed)?;
        for (at, hit) in &run.nodes {
            let from = (u64::from(hit.entry.offset) - run.start) as usize;
            let stored = Bytes::copy_from_slice(&buffer[from..from + hit.entry.stored as usize]);
            nodes.push((*at, open_blob(key, &hit.name, &hit.entry, stored)?));
        }
    }
    Ok(nodes)
}
