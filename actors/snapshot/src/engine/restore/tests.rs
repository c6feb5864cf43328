//! Restores of a simulated disk that is killed or loses power at every write, and of real files.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use repo::manifest::{Builder, LEAF_SPAN_BYTES};
use repo::{BlobKind, BlobSink, ChunkRef, RepoParams, SessionLimits, SnapshotDraft};
use wire::snapshot::SnapshotKind;

use super::*;
use crate::engine::journal::{Direction, Intent, Journals, State};
use crate::engine::raw::RawDisk;
use sim::{Fault, SimDisk};

mod sim;

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

#[test]
fn a_restore_ends_in_the_target_and_its_report_adds_up() {
    for seed in 0..6 {
        let world = World::new();
        let (a, b) = two_states(seed, 20);
        let states = world.store(&[&a, &b]);
        let options = if seed % 2 == 0 { tight() } else { Options::default() };
        let disk = SimDisk::new(&states[0].1, Fault::None);
        let mut journal = world.begin(states[0].0, states[1].0);
        let report = world.run(&disk, &mut journal, &options).unwrap();
        assert!(disk.durable() == states[1].1, "seed {seed}");
        assert_eq!(journal.record().phase, Phase::Done);
        let side = |m| Side {
            nodes: Arc::new(world.repo.clone()),
            manifest: m,
        };
        let planned = plan_only(
            &world.repo,
            world.runtime.handle(),
            &side(states[0].0),
            &side(states[1].0),
            &options,
            Rates::default(),
            &Progress::default(),
        )
        .unwrap();
        let expected = DiskRestore {
            name: "root".into(),
            path: report.path.clone(),
            phases_s: report.phases_s.clone(),
            ..planned.disk
        };
        assert_eq!(report, expected, "a plan tells what a restore does, seed {seed}");
        assert!(
            report.copied_bytes > 0 && report.fetched_bytes > 0 && report.hole_bytes > 0,
            "{report:?}"
        );
        assert_eq!(disk.written_bytes(), report.written_bytes, "each place is written once");
    }
}

#[test]
fn only_what_is_nowhere_on_the_disk_is_fetched() {
    let world = World::new();
    let (a, b) = two_states(3, 15);
    let states = world.store(&[&a, &b]);
    let mut nowhere: Vec<(u64, u32)> = Vec::new();
    let here: Vec<(u64, u32)> = lay(&a).iter().map(|(_, len, number)| (*number, *len)).collect();
    for (_, len, number) in lay(&b) {
        if !here.contains(&(number, len)) && !nowhere.contains(&(number, len)) {
            nowhere.push((number, len));
        }
    }
    let compressed: u64 = nowhere
        .iter()
        .map(|(number, len)| zstd::bulk::compress(&content(*number, *len), 1).unwrap().len() as u64)
        .sum();
    let disk = SimDisk::new(&states[0].1, Fault::None);
    let report = world
        .run(&disk, &mut world.begin(states[0].0, states[1].0), &Options::default())
        .unwrap();
    assert_eq!(
        report.fetched_raw_bytes,
        nowhere.iter().map(|(_, len)| u64::from(*len)).sum::<u64>()
    );
    assert!(
        report.fetched_bytes * 100 <= compressed * 105,
        "{} fetched, {compressed} needed",
        report.fetched_bytes
    );
}

#[test]
fn equal_states_touch_nothing() {
    let world = World::new();
    let (a, _) = two_states(1, 0);
    let states = world.store(&[&a]);
    let disk = SimDisk::new(&states[0].1, Fault::None);
    let report = world
        .run(&disk, &mut world.begin(states[0].0, states[0].0), &tight())
        .unwrap();
    assert_eq!((report.ranges, report.written_bytes, report.verified_bytes), (0, 0, 0));
    assert_eq!(disk.changes(), 0);
}

#[test]
fn to_and_from_all_zeros() {
    let world = World::new();
    let (a, _) = two_states(1, 0);
    let states = world.store(&[&a, &vec![]]);
    for (from, to) in [(0, 1), (1, 0)] {
        let disk = SimDisk::new(&states[from].1, Fault::None);
        let mut journal = world.begin(states[from].0, states[to].0);
        world.run(&disk, &mut journal, &tight()).unwrap();
        journal.remove().unwrap();
        assert!(disk.durable() == states[to].1);
    }
}

/// Kills the restore at these changes of the disk in turn, on the way of `fault`; then goes on or undoes, being killed
/// a second time on that way too.
fn killed_at_changes(seed: u64, changes: impl Fn(usize) -> Vec<usize>, fault: impl Fn(usize, u64) -> Fault) {
    let world = World::new();
    let (a, b) = two_states(seed, 20);
    let states = world.store(&[&a, &b]);
    let whole = SimDisk::new(&states[0].1, Fault::None);
    let mut journal = world.begin(states[0].0, states[1].0);
    world.run(&whole, &mut journal, &tight()).unwrap();
    journal.remove().unwrap();
    let mut seeded = Seeded(seed);
    for at in changes(whole.changes()) {
        let disk = SimDisk::new(&states[0].1, fault(at, seeded.next()));
        let error = world
            .run(&disk, &mut world.begin(states[0].0, states[1].0), &tight())
            .unwrap_err();
        assert!(
            error.message.contains("unfinished") && error.hint.unwrap().contains("--undo"),
            "{}",
            error.message
        );
        let undo = seeded.below(2) == 1;
        let again = SimDisk::new(&disk.after(), fault(seeded.below(40) as usize, seeded.next()));
        let mut journal = world.journal();
        if undo {
            journal.turn(Direction::Undo).unwrap();
        }
        let second = world.run(&again, &mut journal, &tight());
        let last = SimDisk::new(
            &if second.is_ok() { again.durable() } else { again.after() },
            Fault::None,
        );
        let mut journal = world.journal();
        world.run(&last, &mut journal, &tight()).unwrap();
        journal.remove().unwrap();
        assert!(
            last.durable() == states[usize::from(!undo)].1,
            "seed {seed}, killed at change {at}, undo {undo}"
        );
    }
}

#[test]
fn killed_at_any_write_it_goes_on_or_back() {
    killed_at_changes(11, |count| (0..count).collect(), |at, _| Fault::Kill { at });
}

#[test]
fn after_power_loss_at_any_write_it_goes_on_or_back() {
    killed_at_changes(
        21,
        |count| (0..count).step_by(2).collect(),
        |at, seed| Fault::PowerLoss { at, seed },
    );
    killed_at_changes(
        22,
        |count| (1..count).step_by(5).collect(),
        |at, seed| Fault::PowerLoss { at, seed },
    );
}

#[test]
fn a_disk_that_is_not_what_its_snapshot_says_is_fetched_instead() {
    let world = World::new();
    let (a, b) = two_states(5, 0);
    let states = world.store(&[&a, &b]);
    let mut bytes = states[0].1.clone();
    for at in (0..bytes.len()).step_by(300_001) {
        bytes[at] ^= 0xff;
    }
    let disk = SimDisk::new(&bytes, Fault::None);
    let report = world
        .run(&disk, &mut world.begin(states[0].0, states[1].0), &Options::default())
        .unwrap();
    assert!(report.fetched_raw_bytes > 0);
    // Places that were equal in both snapshots are not a restore's to look at; all others are right.
    let differing = |at: usize| {
        report
            .first_ranges
            .iter()
            .any(|r| (r.offset_bytes..r.offset_bytes + r.length_bytes).contains(&(at as u64)))
    };
    let durable = disk.durable();
    assert!((0..bytes.len()).all(|at| durable[at] == states[1].1[at] || !differing(at)));
}

#[test]
fn bytes_that_read_back_wrong_are_written_once_more_then_named() {
    let world = World::new();
    let (a, b) = two_states(7, 20);
    let states = world.store(&[&a, &b]);
    let disk = SimDisk::new(&states[0].1, Fault::None);
    let report = world
        .run(&disk, &mut world.begin(states[0].0, states[1].0), &tight())
        .unwrap();
    let offset = report.first_ranges[2].offset_bytes + 3;
    world.journal().remove().unwrap();

    let disk = SimDisk::new(&states[0].1, Fault::Rot { offset, syncs: 2 });
    world
        .run(&disk, &mut world.begin(states[0].0, states[1].0), &tight())
        .unwrap();
    assert!(disk.durable() == states[1].1, "repaired");
    world.journal().remove().unwrap();

    let disk = SimDisk::new(
        &states[0].1,
        Fault::Rot {
            offset,
            syncs: usize::MAX,
        },
    );
    let error = world
        .run(&disk, &mut world.begin(states[0].0, states[1].0), &tight())
        .unwrap_err();
    assert_eq!(error.kind, Kind::Corrupt);
    assert!(error.message.contains("offset"), "{error}");
}

#[test]
fn cancelled_it_says_how_to_go_on_and_does() {
    let world = World::new();
    let (a, b) = two_states(9, 20);
    let states = world.store(&[&a, &b]);
    let disk = SimDisk::new(&states[0].1, Fault::None);
    let progress = Arc::new(Progress::default());
    disk.on_change(10, {
        let progress = progress.clone();
        move || progress.cancel()
    });
    let error = world
        .run_with(&disk, &mut world.begin(states[0].0, states[1].0), &tight(), &progress)
        .unwrap_err();
    assert_eq!(error.kind, Kind::Cancelled);
    assert!(error.hint.unwrap().contains("windlass restore --vm web1 --to T"));
    world.run(&disk, &mut world.journal(), &tight()).unwrap();
    assert!(disk.durable() == states[1].1);
}

#[test]
fn another_size_is_refused_before_anything_is_written() {
    let world = World::new();
    let (a, b) = two_states(9, 20);
    let states = world.store(&[&a, &b]);
    let disk = SimDisk::new(&states[0].1[1..], Fault::None);
    let error = world
        .run(&disk, &mut world.begin(states[0].0, states[1].0), &tight())
        .unwrap_err();
    assert_eq!(error.kind, Kind::Invalid);
    assert_eq!(disk.changes(), 0);
}

#[test]
fn a_real_file_goes_there_and_back_and_holes_become_holes() {
    let world = World::new();
    // Holes begin and end at blocks, as the chunker makes them.
    let blocks = |bytes: u64| bytes / 4096 * 4096;
    let (a, _) = two_states(13, 20);
    let a: Layout = a
        .iter()
        .map(|(number, len, gap)| (*number, blocks((*len).into()) as u32, blocks(*gap)))
        .collect();
    let b: Layout = a[..20].iter().rev().copied().collect();
    let states = world.store(&[&a, &b]);
    let path = world.state.path().join("web1.raw");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(DISK_BYTES).unwrap();
    for (offset, len, number) in lay(&a) {
        std::os::unix::fs::FileExt::write_all_at(&file, &content(number, len), offset).unwrap();
    }
    drop(file);
    let allocated = |path: &Path| std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(path).unwrap()) * 512;
    let before = allocated(&path);
    let disk = RawDisk::open_write(&path).unwrap();
    let mut journal = world.begin(states[0].0, states[1].0);
    let report = world.run(&disk, &mut journal, &Options::default()).unwrap();
    journal.remove().unwrap();
    assert!(std::fs::read(&path).unwrap() == states[1].1);
    assert_eq!(report.fetched_bytes, 0, "all chunks are on the disk");
    let data: u64 = lay(&b).iter().map(|(_, len, _)| u64::from(*len)).sum();
    assert!(
        allocated(&path) < before && allocated(&path) <= data + 4 * 4096,
        "{} allocated for {data}",
        allocated(&path)
    );
    // A finished restore is undone by one to its common snapshot.
    let mut journal = world.begin(states[1].0, states[0].0);
    world.run(&disk, &mut journal, &Options::default()).unwrap();
    assert!(std::fs::read(&path).unwrap() == states[0].1);
}
