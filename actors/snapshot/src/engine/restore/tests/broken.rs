//! Restores that are killed, lose power, meet a disk that is not what it should be, or are cancelled.

use std::sync::Arc;

use super::sim::{Fault, SimDisk};
use super::{Options, Progress, Seeded, World, tight, two_states};
use crate::Kind;
use crate::engine::journal::Direction;

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
