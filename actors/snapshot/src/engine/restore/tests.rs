//! Restores of a simulated disk that is killed or loses power at every write, and of real files.

use std::collections::HashMap;

use repo::manifest::{Builder, LEAF_SPAN_BYTES};
use repo::{BlobKind, BlobSink, ChunkRef, RepoParams, SessionLimits, SnapshotDraft};
use wire::snapshot::SnapshotKind;

use super::*;
use crate::engine::journal::{Intent, Journals, State};

mod broken;
mod sim;
mod whole;

pub(crate) const DISK_BYTES: u64 = 9 * (1 << 20) + 12_345;

/// Numbers from a seed (splitmix64, doi 10.1145/2660193.2660195).
pub(crate) struct Seeded(pub(crate) u64);

impl Seeded {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}

/// What chunk `number` of `len` bytes holds: half of it compresses.
fn content(number: u64, len: u32) -> Vec<u8> {
    let mut seeded = Seeded(number);
    let mut bytes: Vec<u8> = (0..len / 2).map(|_| seeded.next() as u8 | 1).collect();
    bytes.resize(len as usize, number as u8 | 1);
    bytes
}

/// A state of the disk: chunks (number, length) with gaps before them.
pub(crate) type Layout = Vec<(u64, u32, u64)>;

/// Lays out a state: chunks that would cross a leaf's boundary begin after it; those past the disk's end are dropped.
fn lay(layout: &Layout) -> Vec<(u64, u32, u64)> {
    let mut at = 0;
    let mut laid = Vec::new();
    for (number, len, gap) in layout {
        at += gap;
        if at / LEAF_SPAN_BYTES != (at + u64::from(*len) - 1) / LEAF_SPAN_BYTES {
            at = at.next_multiple_of(LEAF_SPAN_BYTES);
        }
        if at + u64::from(*len) > DISK_BYTES {
            break;
        }
        laid.push((at, *len, *number));
        at += u64::from(*len);
    }
    laid
}

/// Two states: the second has the first's chunks in another order, some twice, shifted by odd bytes, some gone, and
/// `fresh` per cent new ones.
pub(crate) fn two_states(seed: u64, fresh: u64) -> (Layout, Layout) {
    let mut seeded = Seeded(seed);
    let gap = |s: &mut Seeded| if s.below(6) == 0 { s.below(100_000) } else { 0 };
    let a: Layout = (0..200)
        .map(|i| (i, 20_000 + seeded.below(100_000) as u32, gap(&mut seeded)))
        .collect();
    let mut b = Layout::new();
    let mut at = 0;
    while b.len() < 180 {
        let run = 1 + seeded.below(12) as usize;
        let from = match seeded.below(3) {
            0 => seeded.below(80) as usize,
            _ => at % 90,
        };
        for chunk in a.iter().skip(from).take(run) {
            let new = seeded.below(100) < fresh;
            b.push((
                if new { 10_000 + seeded.below(50) } else { chunk.0 },
                chunk.1,
                gap(&mut seeded),
            ));
        }
        at += run;
    }
    (a, b)
}

/// A repository in memory, and what runs it.
pub(crate) struct World {
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) repo: Repo,
    pub(crate) state: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let params = RepoParams::generate(wire::repo::Chunker::default(), "2026-11-24T03:00:00Z").unwrap();
        let repo = runtime.block_on(Repo::init(store::Memory::new(), params)).unwrap();
        Self {
            runtime,
            repo,
            state: tempfile::tempdir().unwrap(),
        }
    }

    /// Stores states of the disk; returns their manifests and bytes.
    pub(crate) fn store(&self, layouts: &[&Layout]) -> Vec<(ManifestRef, Vec<u8>)> {
        let session = self
            .runtime
            .block_on(self.repo.begin(SessionLimits::default()))
            .unwrap();
        let mut states = Vec::new();
        for layout in layouts {
            let mut bytes = vec![0; DISK_BYTES as usize];
            let mut leaves: HashMap<u64, Vec<ChunkRef>> = HashMap::new();
            for (offset, len, number) in lay(layout) {
                let data = content(number, len);
                let id = session.id_of(&data);
                session.put(BlobKind::Data, &id, &data).unwrap();
                bytes[offset as usize..offset as usize + data.len()].copy_from_slice(&data);
                leaves
                    .entry(offset / LEAF_SPAN_BYTES)
                    .or_default()
                    .push(ChunkRef { offset, len, id });
            }
            let mut builder = Builder::new(&*session, DISK_BYTES);
            for index in 0..DISK_BYTES.div_ceil(LEAF_SPAN_BYTES) {
                builder
                    .leaf(index, leaves.get(&index).map_or(&[], Vec::as_slice))
                    .unwrap();
            }
            states.push((builder.finish().unwrap(), bytes));
        }
        let draft = SnapshotDraft {
            id: None,
            vm: "web1".into(),
            kind: SnapshotKind::User,
            host: "h1".into(),
            created_at: "2026-11-24T03:00:00Z".into(),
            held_until: None,
            disks: states
                .iter()
                .enumerate()
                .map(|(i, (manifest, _))| repo::DiskEntry {
                    name: format!("d{i}"),
                    path: "/srv/web1.raw".into(),
                    format: "raw".into(),
                    manifest: *manifest,
                    moved: wire::snapshot::Moved::default(),
                })
                .collect(),
            definition: None,
            took_s: 0.0,
        };
        self.runtime.block_on(session.finish(draft)).unwrap();
        states
    }

    pub(crate) fn journals(&self) -> Journals {
        Journals::new(self.state.path())
    }

    pub(crate) fn begin(&self, common: ManifestRef, target: ManifestRef) -> Journal {
        let state = |snapshot: &str, manifest| State {
            snapshot: snapshot.into(),
            manifest,
        };
        self.journals()
            .create(Intent {
                restore: "01JCXQ6Y9D3W6V3S1W8Y5Z4K2M".into(),
                vm: "web1".into(),
                disk: "root".into(),
                path: "/srv/web1.raw".into(),
                identity: (1, 2),
                repo_url: self.repo.url(),
                repo_id: "R".into(),
                target: state("T", target),
                common: state("C", common),
                started_at: "2026-11-24T03:00:00Z".into(),
                format: None,
            })
            .unwrap()
    }

    pub(crate) fn run(&self, disk: &dyn DiskWrite, journal: &mut Journal, options: &Options) -> Result<DiskRestore> {
        self.run_with(disk, journal, options, &Progress::default())
    }

    pub(crate) fn run_with(
        &self,
        disk: &dyn DiskWrite,
        journal: &mut Journal,
        options: &Options,
        progress: &Progress,
    ) -> Result<DiskRestore> {
        let clock = || 0.0;
        Restore {
            disk,
            repo: &self.repo,
            handle: self.runtime.handle(),
            options,
            progress,
            clock: &clock,
        }
        .run(journal)
    }

    fn journal(&self) -> Journal {
        self.journals().find("web1", "root").unwrap().unwrap()
    }
}

/// Limits so small that a short restore has many batches, checkpoints, windows and little staging.
fn tight() -> Options {
    Options {
        threads: 2,
        batch_bytes_max: 300_000,
        staging_bytes_max: 200_000,
        checkpoint_bytes: 500_000,
        window_chunks_max: 5,
        ..Options::default()
    }
}
