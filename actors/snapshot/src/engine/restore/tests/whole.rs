//! Restores that nothing disturbs: what they write, fetch and report.

use std::path::Path;
use std::sync::Arc;

use super::sim::{Fault, SimDisk};
use super::*;
use crate::engine::raw::RawDisk;

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
