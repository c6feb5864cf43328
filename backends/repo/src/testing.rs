//! What the tests of this crate share.

use std::sync::Arc;

use store::{Memory, Store};
use ulid::Ulid;
use wire::repo::Chunker;
use wire::snapshot::{Moved, SnapshotKind};

use crate::manifest::{Builder, LEAF_SPAN_BYTES};
use crate::{
    BlobKind, BlobSink, ChunkRef, DiskEntry, ManifestRef, Repo, RepoParams, Result, Session, SessionLimits,
    SnapshotDoc, SnapshotDraft,
};

pub(crate) fn params() -> RepoParams {
    RepoParams {
        chunker: Chunker::default(),
        created_at: "2026-11-24T03:00:00Z".into(),
        id: Ulid::from_parts(1_795_489_200_000, 1),
        key: std::array::from_fn(|i| i as u8),
        try_store: false,
    }
}

pub(crate) async fn memory_repo() -> (Arc<Memory>, Repo) {
    let memory = Memory::new();
    let repo = Repo::init(memory.clone(), params()).await.unwrap();
    (memory, repo)
}

/// Bytes that don't compress: SplitMix64.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0xd6e8_feb8_6659_fd93);
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        out.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    out.truncate(len);
    out
}

/// A chunk's content by number: some compress, some don't.
pub(crate) fn content(number: u64) -> Vec<u8> {
    let len = 500 + (number as usize * 7919) % 60_000;
    if number.is_multiple_of(3) {
        noise(number, len)
    } else {
        format!("chunk {number} ").repeat(len / 8).into_bytes()
    }
}

/// A disk: chunks by number at offsets.
pub(crate) type Disk = Vec<(u64, u64)>;

/// Puts a disk's chunks and manifest.
pub(crate) fn put_disk(sink: &dyn BlobSink, size_bytes: u64, disk: &Disk) -> Result<ManifestRef> {
    let mut builder = Builder::new(sink, size_bytes);
    let mut leaf: (u64, Vec<ChunkRef>) = (0, Vec::new());
    for (offset, number) in disk {
        let raw = content(*number);
        let id = sink.id_of(&raw);
        sink.put(BlobKind::Data, &id, &raw)?;
        if offset / LEAF_SPAN_BYTES != leaf.0 {
            if !leaf.1.is_empty() {
                builder.leaf(leaf.0, &leaf.1)?;
            }
            leaf = (offset / LEAF_SPAN_BYTES, Vec::new());
        }
        leaf.1.push(ChunkRef {
            offset: *offset,
            len: raw.len() as u32,
            id,
        });
    }
    if !leaf.1.is_empty() {
        builder.leaf(leaf.0, &leaf.1)?;
    }
    builder.finish()
}

pub(crate) fn draft(vm: &str, manifest: ManifestRef) -> SnapshotDraft {
    SnapshotDraft {
        id: None,
        vm: vm.into(),
        kind: SnapshotKind::User,
        host: "h1".into(),
        created_at: "2026-11-24T03:00:00Z".into(),
        held_until: None,
        disks: vec![DiskEntry {
            name: "root".into(),
            path: "/srv/web1.raw".into(),
            format: "raw".into(),
            manifest,
            moved: Moved::default(),
        }],
        definition: None,
        took_s: 0.5,
    }
}

/// Puts a disk on a thread of its own, as callers do.
pub(crate) async fn put_aside(session: &Arc<Session>, size_bytes: u64, disk: &Disk) -> Result<ManifestRef> {
    let (session, disk) = (session.clone(), disk.clone());
    tokio::task::spawn_blocking(move || put_disk(&*session, size_bytes, &disk))
        .await
        .unwrap()
}

/// Takes a snapshot of a disk.
pub(crate) async fn take(repo: &Repo, limits: SessionLimits, size_bytes: u64, disk: &Disk) -> Result<SnapshotDoc> {
    let session = repo.begin(limits).await?;
    let manifest = put_aside(&session, size_bytes, disk).await?;
    session.finish(draft("web1", manifest)).await
}

/// Limits that make many small packs and segments.
pub(crate) fn small() -> SessionLimits {
    SessionLimits {
        pack_bytes: 64 << 10,
        index_entries_max: 40,
        ..SessionLimits::default()
    }
}

/// A disk of `count` chunks from `first` on, spread over several leaves.
pub(crate) fn spread(first: u64, count: u64) -> Disk {
    (0..count)
        .map(|i| (i * 700_000, first + i))
        .filter(|(o, n)| fits(*o, *n))
        .collect()
}

fn fits(offset: u64, number: u64) -> bool {
    let end = offset + content(number).len() as u64;
    offset / LEAF_SPAN_BYTES == (end - 1) / LEAF_SPAN_BYTES
}

/// All objects of a store, by key.
pub(crate) async fn objects(store: &dyn Store) -> std::collections::BTreeMap<String, Vec<u8>> {
    use futures::StreamExt;
    let mut listing = store.list("");
    let mut found = std::collections::BTreeMap::new();
    while let Some(meta) = listing.next().await {
        let meta = meta.unwrap();
        let body = store.get(&meta.key, 1 << 30).await.unwrap();
        found.insert(meta.key.as_str().to_owned(), body.to_vec());
    }
    found
}
