//! Building a manifest from its leaves, left to right.

use crate::blob::{BlobKind, BlobSink};
use crate::manifest::node::{encode_inner, encode_leaf};
use crate::manifest::{ChunkRef, FANOUT, ManifestRef, leaves_below};
use crate::{BlobId, RepoError, Result};

/// Builds a manifest: takes leaves in increasing order, puts each node once its last child is known, and so holds one
/// unfinished node a level.
pub struct Builder<'a> {
    sink: &'a dyn BlobSink,
    manifest: ManifestRef,
    height: u8,
    next_leaf: u64,
    /// Unfinished node of each level from 1: its index on its level and its children.
    open: Vec<(u64, Vec<(usize, BlobId)>)>,
    buffer: Vec<u8>,
}

impl<'a> Builder<'a> {
    /// A builder for a disk of `size_bytes`.
    pub fn new(sink: &'a dyn BlobSink, size_bytes: u64) -> Self {
        let manifest = ManifestRef { size_bytes, root: None };
        let height = manifest.height();
        Self {
            sink,
            manifest,
            height,
            next_leaf: 0,
            open: (0..height).map(|_| (0, Vec::with_capacity(FANOUT))).collect(),
            buffer: Vec::new(),
        }
    }

    /// Adds the leaf at `index`; leaves that never come are holes, and so is one without chunks.
    ///
    /// # Errors
    /// `Kind::Invalid` when leaves come out of order, lie past the disk, or have chunks out of place; else the sink's.
    pub fn leaf(&mut self, index: u64, chunks: &[ChunkRef]) -> Result<()> {
        self.manifest.check()?;
        if index < self.next_leaf || index >= self.manifest.leaf_count() {
            let why = format!(
                "leaf {index} of {} came where {} was next",
                self.manifest.leaf_count(),
                self.next_leaf
            );
            return Err(RepoError::invalid("manifest", why));
        }
        self.next_leaf = index + 1;
        if chunks.is_empty() {
            return Ok(());
        }
        encode_leaf(&mut self.buffer, index, self.manifest.size_bytes, chunks)?;
        let id = self.put()?;
        self.add(1, index, id)
    }

    /// Puts what is unfinished and gives the manifest.
    ///
    /// # Errors
    /// The sink's.
    pub fn finish(mut self) -> Result<ManifestRef> {
        self.manifest.check()?;
        for level in 1..=self.height {
            self.close(level)?;
        }
        Ok(self.manifest)
    }

    fn put(&mut self) -> Result<BlobId> {
        let id = self.sink.id_of(&self.buffer);
        self.sink.put(BlobKind::Node, &id, &self.buffer)?;
        Ok(id)
    }

    /// Adds node `id`, at `index` of the level below `level`.
    fn add(&mut self, level: u8, index: u64, id: BlobId) -> Result<()> {
        if level > self.height {
            self.manifest.root = Some(id);
            return Ok(());
        }
        let parent = index / FANOUT as u64;
        let at = usize::from(level) - 1;
        if self.open[at].0 != parent {
            self.close(level)?;
            self.open[at].0 = parent;
        }
        self.open[at].1.push(((index % FANOUT as u64) as usize, id));
        debug_assert!(
            parent < leaves_below(self.height - level).max(1),
            "node within the tree"
        );
        Ok(())
    }

    fn close(&mut self, level: u8) -> Result<()> {
        let at = usize::from(level) - 1;
        if self.open[at].1.is_empty() {
            return Ok(());
        }
        let index = self.open[at].0;
        let mut children = std::mem::take(&mut self.open[at].1);
        encode_inner(&mut self.buffer, level, &children);
        children.clear();
        self.open[at].1 = children;
        let id = self.put()?;
        self.add(level + 1, index, id)
    }
}
