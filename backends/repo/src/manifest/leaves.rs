//! Reading a manifest's leaves in order.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::mpsc;

use crate::manifest::{FANOUT, Leaf, ManifestRef, Node, NodeSource, decode, leaf_range, leaves_below};
use crate::{BlobId, RepoError, Result};

/// Leaves read at once.
pub(super) const LEAF_BATCH: usize = 512;
/// Inner nodes read at once: each brings up to 64 items, so this bounds what waits.
const INNER_BATCH: usize = 256;
/// Batches read ahead of the consumer.
const BATCHES_AHEAD: usize = 2;

/// The leaves that touch `range` (bytes of the disk), in order, prefetched in batches; those that are all holes are
/// skipped. Must be called within tokio.
pub fn leaves(
    nodes: Arc<dyn NodeSource>,
    manifest: ManifestRef,
    range: Range<u64>,
) -> BoxStream<'static, Result<Leaf>> {
    let (send, receive) = mpsc::channel(BATCHES_AHEAD);
    tokio::spawn(async move {
        let mut walk = Walk::new(manifest, &range);
        loop {
            let batch = walk.next(&*nodes).await.transpose();
            let Some(batch) = batch else { break };
            let failed = batch.is_err();
            if send.send(batch).await.is_err() || failed {
                break;
            }
        }
    });
    flatten(receive)
}

/// The items of batches that come through a channel.
pub(super) fn flatten<T: Send + 'static>(receive: mpsc::Receiver<Result<Vec<T>>>) -> BoxStream<'static, Result<T>> {
    stream::unfold(receive, |mut receive| async move {
        let batch = receive.recv().await?;
        let items: Vec<Result<T>> = match batch {
            Ok(items) => items.into_iter().map(Ok).collect(),
            Err(e) => vec![Err(e)],
        };
        Some((stream::iter(items), receive))
    })
    .flatten()
    .boxed()
}

/// A walk through a manifest's leaves, batch by batch.
struct Walk {
    manifest: ManifestRef,
    wanted: Range<u64>,
    /// Level, index on that level and id; in order of what they span.
    todo: VecDeque<(u8, u64, BlobId)>,
    fault: Option<RepoError>,
}

impl Walk {
    fn new(manifest: ManifestRef, range: &Range<u64>) -> Self {
        let fault = manifest.check().err();
        let todo = manifest.root.iter().map(|root| (manifest.height(), 0, *root)).collect();
        Self {
            manifest,
            wanted: leaf_range(manifest.size_bytes, range),
            todo,
            fault,
        }
    }

    /// The next leaves; `None` at the end.
    async fn next(&mut self, nodes: &dyn NodeSource) -> Result<Option<Vec<Leaf>>> {
        if let Some(fault) = self.fault.take() {
            self.todo.clear();
            return Err(fault);
        }
        while let Some(&(level, ..)) = self.todo.front() {
            let most = if level == 0 { LEAF_BATCH } else { INNER_BATCH };
            let same = self.todo.iter().take(most).take_while(|item| item.0 == level).count();
            let batch: Vec<_> = self.todo.drain(..same).collect();
            let ids: Vec<BlobId> = batch.iter().map(|item| item.2).collect();
            let read = nodes.nodes(&ids).await?;
            if level == 0 {
                let leaf = |(item, bytes): (&(u8, u64, BlobId), &bytes::Bytes)| {
                    leaf_of(&self.manifest, item.1, &item.2, bytes)
                };
                return Ok(Some(batch.iter().zip(&read).map(leaf).collect::<Result<Vec<_>>>()?));
            }
            let mut children = Vec::with_capacity(same * 8);
            for ((_, index, id), bytes) in batch.iter().zip(&read) {
                for (child, child_id) in children_of(&self.manifest, level, *index, id, bytes)? {
                    let span = leaves_below(level - 1);
                    if child * span < self.wanted.end && (child + 1) * span > self.wanted.start {
                        children.push((level - 1, child, child_id));
                    }
                }
            }
            for child in children.into_iter().rev() {
                self.todo.push_front(child);
            }
        }
        Ok(None)
    }
}

/// Decodes the leaf at `index`.
pub(crate) fn leaf_of(manifest: &ManifestRef, index: u64, id: &BlobId, bytes: &[u8]) -> Result<Leaf> {
    let Node::Leaf(view) = decode(id, bytes, 0)? else {
        return Err(RepoError::internal(
            format!("manifest node {id}"),
            "an inner node on level 0",
        ));
    };
    let chunks = view.chunks(index);
    if chunks
        .last()
        .is_some_and(|c| c.offset + u64::from(c.len) > manifest.size_bytes)
    {
        return Err(RepoError::corrupt(
            format!("manifest node {id}"),
            "has a chunk past the end of the disk",
        ));
    }
    Ok(Leaf { index, chunks })
}

/// Decodes the inner node at `index` of `level`: its children's indexes on the level below and their ids.
pub(crate) fn children_of(
    manifest: &ManifestRef,
    level: u8,
    index: u64,
    id: &BlobId,
    bytes: &[u8],
) -> Result<Vec<(u64, BlobId)>> {
    let Node::Inner(view) = decode(id, bytes, level)? else {
        return Err(RepoError::internal(
            format!("manifest node {id}"),
            "a leaf above level 0",
        ));
    };
    let children: Vec<(u64, BlobId)> = view
        .children()
        .map(|(slot, child)| (index * FANOUT as u64 + slot as u64, child))
        .collect();
    let beyond = |child: &(u64, BlobId)| child.0 * leaves_below(level - 1) >= manifest.leaf_count();
    if children.last().is_some_and(beyond) || children.iter().any(|(_, id)| id.is_zero()) {
        return Err(RepoError::corrupt(
            format!("manifest node {id}"),
            "has a child past the end of the disk, or none",
        ));
    }
    Ok(children)
}
