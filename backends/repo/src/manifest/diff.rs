//! Comparing two manifests: only what differs is read.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use futures::stream::BoxStream;
use tokio::sync::mpsc;

use super::leaves::{LEAF_BATCH, children_of, flatten, leaf_of};
use crate::manifest::{ChunkRef, FANOUT, ManifestRef, NodeSource};
use crate::{BlobId, RepoError, Result};

/// A leaf that is not the same in both manifests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafPair {
    /// Which leaf.
    pub index: u64,
    /// The one's chunks.
    pub a: Vec<ChunkRef>,
    /// The other's chunks.
    pub b: Vec<ChunkRef>,
}

/// The leaves that differ, in order.
pub struct Diff {
    pairs: BoxStream<'static, Result<LeafPair>>,
    nodes_read: Arc<AtomicU64>,
}

impl Diff {
    /// Nodes read so far, of both.
    pub fn nodes_read(&self) -> u64 {
        self.nodes_read.load(Ordering::Relaxed)
    }
}

impl Stream for Diff {
    type Item = Result<LeafPair>;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.pairs.as_mut().poll_next(cx)
    }
}

/// Compares `a` and `b`. Disks of different sizes may be compared: what only one has, the other has as holes. Must be
/// called within tokio.
pub fn diff(a_nodes: Arc<dyn NodeSource>, a: ManifestRef, b_nodes: Arc<dyn NodeSource>, b: ManifestRef) -> Diff {
    let nodes_read = Arc::new(AtomicU64::new(0));
    let (send, receive) = mpsc::channel(1);
    let mut sides = Sides {
        a_nodes,
        a,
        b_nodes,
        b,
        nodes_read: nodes_read.clone(),
        todo: VecDeque::new(),
    };
    tokio::spawn(async move {
        if let Err(e) = sides.start() {
            let _ = send.send(Err(e)).await;
            return;
        }
        while let Some(batch) = sides.next().await.transpose() {
            let failed = batch.is_err();
            if send.send(batch).await.is_err() || failed {
                break;
            }
        }
    });
    Diff {
        pairs: flatten(receive),
        nodes_read,
    }
}

/// Pairs of inner nodes read at once: each brings up to 64 pairs, so this bounds what waits.
const INNER_BATCH: usize = 1024;

/// A node of one side. Its level may be below that of the pair in which it is: a smaller disk's tree is then taken as
/// the first child of nodes that were never written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    level: u8,
    id: BlobId,
}

/// Two places that span the same and differ.
#[derive(Debug, Clone, Copy)]
struct Pair {
    level: u8,
    index: u64,
    a: Option<Place>,
    b: Option<Place>,
}

struct Sides {
    a_nodes: Arc<dyn NodeSource>,
    a: ManifestRef,
    b_nodes: Arc<dyn NodeSource>,
    b: ManifestRef,
    nodes_read: Arc<AtomicU64>,
    /// In order of what they span.
    todo: VecDeque<Pair>,
}

impl Sides {
    fn start(&mut self) -> Result<()> {
        self.a.check()?;
        self.b.check()?;
        let root = |m: &ManifestRef| m.root.map(|id| Place { level: m.height(), id });
        let (a, b) = (root(&self.a), root(&self.b));
        if a != b {
            self.todo.push_back(Pair {
                level: self.a.height().max(self.b.height()),
                index: 0,
                a,
                b,
            });
        }
        Ok(())
    }

    /// The next leaves that differ; `None` at the end.
    async fn next(&mut self) -> Result<Option<Vec<LeafPair>>> {
        while let Some(&Pair { level, .. }) = self.todo.front() {
            let most = if level == 0 { LEAF_BATCH } else { INNER_BATCH };
            let same = self
                .todo
                .iter()
                .take(most)
                .take_while(|pair| pair.level == level)
                .count();
            let batch: Vec<Pair> = self.todo.drain(..same).collect();
            let ids = |side: fn(&Pair) -> Option<Place>| -> Vec<BlobId> {
                batch
                    .iter()
                    .filter_map(side)
                    .filter(|place| place.level == level)
                    .map(|place| place.id)
                    .collect()
            };
            let (a_ids, b_ids) = (ids(|p| p.a), ids(|p| p.b));
            let (a_read, b_read) = futures::join!(self.a_nodes.nodes(&a_ids), self.b_nodes.nodes(&b_ids));
            let (mut a_read, mut b_read) = (a_read?.into_iter(), b_read?.into_iter());
            self.nodes_read
                .fetch_add((a_ids.len() + b_ids.len()) as u64, Ordering::Relaxed);
            if level == 0 {
                let mut pairs = Vec::with_capacity(same);
                for pair in &batch {
                    let a = chunks(&self.a, pair.index, pair.a, &mut a_read)?;
                    let b = chunks(&self.b, pair.index, pair.b, &mut b_read)?;
                    pairs.push(LeafPair {
                        index: pair.index,
                        a,
                        b,
                    });
                }
                return Ok(Some(pairs));
            }
            let mut found = Vec::new();
            for pair in &batch {
                let a = slots(&self.a, pair, pair.a, &mut a_read)?;
                let b = slots(&self.b, pair, pair.b, &mut b_read)?;
                for (slot, (a, b)) in a.into_iter().zip(b).enumerate() {
                    if a != b {
                        found.push(Pair {
                            level: level - 1,
                            index: pair.index * FANOUT as u64 + slot as u64,
                            a,
                            b,
                        });
                    }
                }
            }
            for pair in found.into_iter().rev() {
                self.todo.push_front(pair);
            }
        }
        Ok(None)
    }
}

fn too_few() -> RepoError {
    RepoError::internal("manifest", "a node source answered too few nodes")
}

/// One side's chunks of a leaf.
fn chunks(
    manifest: &ManifestRef,
    index: u64,
    place: Option<Place>,
    read: &mut impl Iterator<Item = Bytes>,
) -> Result<Vec<ChunkRef>> {
    let Some(place) = place else { return Ok(Vec::new()) };
    let bytes = read.next().ok_or_else(too_few)?;
    Ok(leaf_of(manifest, index, &place.id, &bytes)?.chunks)
}

/// One side's children of a pair.
fn slots(
    manifest: &ManifestRef,
    pair: &Pair,
    place: Option<Place>,
    read: &mut impl Iterator<Item = Bytes>,
) -> Result<[Option<Place>; FANOUT]> {
    let mut slots = [None; FANOUT];
    match place {
        None => {}
        Some(place) if place.level < pair.level => slots[0] = Some(place),
        Some(place) => {
            let bytes = read.next().ok_or_else(too_few)?;
            for (child, id) in children_of(manifest, pair.level, pair.index, &place.id, &bytes)? {
                slots[(child % FANOUT as u64) as usize] = Some(Place {
                    level: pair.level - 1,
                    id,
                });
            }
        }
    }
    Ok(slots)
}
