//! Plans by table and by property, on a simulated disk.

use proptest::prelude::*;

use super::*;

/// Ids of these tests are numbers.
impl Key for u64 {
    fn prefix(&self) -> u64 {
        *self
    }
}

/// What a chunk with this id and length holds; never a zero byte.
fn content(id: u64, len: u32) -> Vec<u8> {
    (0..u64::from(len))
        .map(|i| ((id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32).wrapping_add(i * 7) % 255) as u8 + 1)
        .collect()
}

/// The id of a chunk with this number: spread over the range of ids, and told by its length too.
fn id(number: u64, len: u32) -> u64 {
    (number << 8 | u64::from(len)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[derive(Debug, Clone, PartialEq)]
struct Disk(Vec<u8>);

impl Disk {
    fn of(chunks: &[Chunk<u64>], size: u64) -> Self {
        let mut bytes = vec![0; size as usize];
        for chunk in chunks {
            bytes[chunk.offset as usize..chunk.end() as usize].copy_from_slice(&content(chunk.id, chunk.len));
        }
        Self(bytes)
    }
    fn holds(&self, at: u64, len: u32, id: u64) -> bool {
        self.read(at, len) == content(id, len)
    }
    fn read(&self, at: u64, len: u32) -> &[u8] {
        &self.0[at as usize..at as usize + len as usize]
    }
    fn write(&mut self, at: u64, data: &[u8]) {
        self.0[at as usize..at as usize + data.len()].copy_from_slice(data);
    }
}

/// Where an execution is killed: after so many whole operations, with so many bytes of the next one's writes done.
#[derive(Debug, Clone, Copy)]
struct Kill {
    after: usize,
    torn: usize,
}

/// Executes a plan as a restore does: every source is checked, and fetched when it isn't what it should be; `careful`
/// leaves alone what is right already. Returns the bytes that were fetched.
fn execute(plan: &Plan<u64>, disk: &mut Disk, careful: bool, kill: Option<Kill>) -> u64 {
    let mut slots = std::collections::HashMap::new();
    let mut fetched = 0;
    let write = |disk: &mut Disk, at: usize, to: u64, data: &[u8]| match kill {
        Some(kill) if at > kill.after => {}
        Some(kill) if at == kill.after => disk.write(to, &data[..kill.torn.min(data.len())]),
        _ => disk.write(to, data),
    };
    for (at, op) in plan.ops().enumerate() {
        match op {
            Op::Copy { from, to, len, id } => {
                if careful && disk.holds(to, len, id) {
                    continue;
                }
                if !disk.holds(from, len, id) {
                    fetched += u64::from(len);
                }
                write(disk, at, to, &content(id, len));
            }
            Op::Stage { from, len, id, slot } => {
                slots.insert(slot, disk.holds(from, len, id));
            }
            Op::WriteStaged { slot, to, len, id } => {
                if careful && disk.holds(to, len, id) {
                    continue;
                }
                if !slots[&slot] {
                    fetched += u64::from(len);
                }
                write(disk, at, to, &content(id, len));
            }
            Op::Fetch { id, len, to } => {
                if careful && to.iter().all(|to| disk.holds(*to, len, id)) {
                    continue;
                }
                fetched += u64::from(len);
                for to in to {
                    write(disk, at, to, &content(id, len));
                }
            }
            Op::Punch { range } => write(disk, at, range.start, &vec![0; (range.end - range.start) as usize]),
        }
        if kill.is_some_and(|kill| at >= kill.after) {
            break;
        }
    }
    fetched
}

fn planned(present: &[Chunk<u64>], target: &[Chunk<u64>], size: u64, staging: u64) -> Plan<u64> {
    let mut needs = Needs::default();
    differences(present, target, 0..size, &mut needs).unwrap();
    let mut wanted = needs.seal();
    for chunk in present {
        wanted.offer(*chunk).unwrap();
    }
    wanted.plan(staging)
}

/// Lays chunks (number, length) out with gaps before them.
fn layout(chunks: &[(u64, u32, u64)]) -> (Vec<Chunk<u64>>, u64) {
    let mut at = 0;
    let mut laid = Vec::new();
    for (number, len, gap) in chunks {
        at += gap;
        laid.push(Chunk {
            offset: at,
            len: *len,
            id: id(*number, *len),
        });
        at += u64::from(*len);
    }
    (laid, at)
}

type Layout = Vec<(u64, u32, u64)>;

/// Two states of a disk: the second made of chunks of the first (permuted, repeated, dropped, shifted by gaps), and of
/// new ones.
fn two_states(new_one_in: u32) -> impl Strategy<Value = (Layout, Layout)> {
    let first = prop::collection::vec((0..60u64, 1..20u32, prop_oneof![4 => Just(0u64), 1 => 1..30u64]), 1..80);
    first.prop_flat_map(move |first| {
        let pool = first.clone();
        let old = (0..pool.len(), prop_oneof![4 => Just(0u64), 1 => 1..30u64])
            .prop_map(move |(i, gap)| (pool[i].0, pool[i].1, gap));
        let new = (1000..1060u64, 1..20u32, 0..5u64);
        let one = if new_one_in == 0 {
            old.boxed()
        } else {
            prop_oneof![new_one_in - 1 => old, 1 => new].boxed()
        };
        let made = prop::collection::vec(one, 0..80);
        let shuffled = Just(first.clone()).prop_shuffle();
        (Just(first), prop_oneof![made, shuffled])
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_plan_turns_one_state_into_the_other((a, b) in two_states(5), staging in 0..200u64) {
        let ((a, a_end), (b, b_end)) = (layout(&a), layout(&b));
        let size = a_end.max(b_end);
        let plan = planned(&a, &b, size, staging);
        prop_assert_eq!(check(&plan), Ok(()));
        let mut disk = Disk::of(&a, size);
        let fetched = execute(&plan, &mut disk, false, None);
        prop_assert_eq!(&disk, &Disk::of(&b, size));
        prop_assert_eq!(fetched, plan.totals().fetched_raw_bytes);
        let totals = plan.totals();
        let places: u64 = plan.places.iter().map(|p| u64::from(p.len)).sum();
        prop_assert_eq!(totals.copied_bytes + totals.fetched_places_bytes, places);
    }

    #[test]
    fn nothing_is_fetched_that_the_disk_holds((a, b) in two_states(0)) {
        let ((a, a_end), (b, b_end)) = (layout(&a), layout(&b));
        let size = a_end.max(b_end);
        let plan = planned(&a, &b, size, 1 << 20);
        prop_assert_eq!(plan.fetches.len(), 0);
        let mut disk = Disk::of(&a, size);
        prop_assert_eq!(execute(&plan, &mut disk, false, None), 0);
        prop_assert_eq!(disk, Disk::of(&b, size));
    }

    #[test]
    fn killed_anywhere_it_is_finished_by_the_same_plan_or_undone_by_the_opposite(
        (a, b) in two_states(5), staging in 0..200u64, kills in prop::collection::vec((any::<prop::sample::Index>(), 0..20usize), 1..4),
        undo in any::<bool>(),
    ) {
        let ((a, a_end), (b, b_end)) = (layout(&a), layout(&b));
        let size = a_end.max(b_end);
        let plan = planned(&a, &b, size, staging);
        let mut disk = Disk::of(&a, size);
        for (nth, (after, torn)) in kills.iter().enumerate() {
            let kill = Kill { after: after.index(plan.len().max(1)), torn: *torn };
            execute(&plan, &mut disk, nth > 0, Some(kill));
        }
        if undo {
            execute(&planned(&b, &a, size, staging), &mut disk, true, None);
            prop_assert_eq!(disk, Disk::of(&a, size));
        } else {
            execute(&plan, &mut disk, true, None);
            prop_assert_eq!(disk, Disk::of(&b, size));
        }
    }
}

fn chunk(offset: u64, len: u32, number: u64) -> Chunk<u64> {
    Chunk {
        offset,
        len,
        id: id(number, len),
    }
}

#[test]
fn equal_states_need_nothing() {
    let a = [chunk(0, 10, 1), chunk(20, 10, 2)];
    assert!(planned(&a, &a, 40, 0).is_empty());
}

#[test]
fn a_swap_stages_the_smaller_one_and_without_room_fetches_it() {
    // [ 1: 10 ][ 2: 6 ] -> [ 2: 6 ][ 1: 10 ]
    let a = [chunk(0, 10, 1), chunk(10, 6, 2)];
    let b = [chunk(0, 6, 2), chunk(6, 10, 1)];
    let totals = planned(&a, &b, 16, 6).totals();
    assert_eq!(
        (totals.copied_bytes, totals.staged_bytes, totals.fetched_raw_bytes),
        (16, 6, 0)
    );
    let totals = planned(&a, &b, 16, 5).totals();
    assert_eq!(
        (totals.copied_bytes, totals.staged_bytes, totals.fetched_raw_bytes),
        (10, 0, 6)
    );
}

#[test]
fn a_chunk_that_overlaps_its_own_place_is_copied_without_staging() {
    let totals = planned(&[chunk(0, 10, 1)], &[chunk(3, 10, 1)], 13, 0).totals();
    assert_eq!(
        (totals.copied_bytes, totals.staged_bytes, totals.hole_bytes),
        (10, 0, 3)
    );
}

#[test]
fn a_source_that_stays_is_preferred_so_a_circle_vanishes() {
    let a = [chunk(0, 8, 1), chunk(8, 8, 2), chunk(16, 8, 1)];
    let b = [chunk(0, 8, 2), chunk(8, 8, 1), chunk(16, 8, 1)];
    let plan = planned(&a, &b, 24, 100);
    assert_eq!(plan.totals().staged_bytes, 0);
    assert!(plan.sources.contains(&16), "{plan:?}");
}

#[test]
fn one_fetch_serves_all_places_and_holes_come_last() {
    let a = [chunk(0, 8, 1), chunk(30, 8, 2)];
    let b = [chunk(0, 8, 5), chunk(8, 8, 5), chunk(16, 8, 2)];
    let plan = planned(&a, &b, 40, 0);
    let ops: Vec<_> = plan.ops().collect();
    assert_eq!(
        ops,
        [
            Op::Copy {
                from: 30,
                to: 16,
                len: 8,
                id: id(2, 8)
            },
            Op::Fetch {
                id: id(5, 8),
                len: 8,
                to: vec![0, 8]
            },
            Op::Punch { range: 30..38 },
        ]
    );
}

#[test]
fn holes_are_joined_and_only_what_was_data_is_punched() {
    let a = [chunk(2, 4, 1), chunk(6, 4, 2), chunk(20, 8, 3)];
    let b = [chunk(22, 2, 4)];
    let mut needs = Needs::default();
    differences(&a, &b, 0..32, &mut needs).unwrap();
    assert_eq!(needs.ranges().collect::<Vec<_>>(), [2..10, 20..28]);
    assert_eq!(planned(&a, &b, 32, 0).punches, [2..10, 20..22, 24..28]);
}

#[test]
fn damaged_lists_are_errors() {
    let mut needs = Needs::default();
    let overlap = [chunk(0, 10, 1), chunk(5, 10, 2)];
    assert_eq!(
        differences(&[], &overlap, 0..32, &mut needs),
        Err(PlanError::Overlap { offset: 5 })
    );
    assert_eq!(
        differences(&overlap, &[], 0..32, &mut needs),
        Err(PlanError::Overlap { offset: 5 })
    );
    assert_eq!(
        differences(&[], &[chunk(30, 10, 1)], 0..32, &mut needs),
        Err(PlanError::Outside { offset: 30 })
    );
    assert_eq!(
        differences(&[], &[chunk(3, 0, 1)], 0..32, &mut needs),
        Err(PlanError::Overlap { offset: 3 })
    );
    let mut wanted = Needs::default().seal();
    wanted.offer(chunk(8, 8, 1)).unwrap();
    assert_eq!(wanted.offer(chunk(12, 8, 1)), Err(PlanError::Overlap { offset: 12 }));
}

#[test]
fn the_check_finds_what_is_broken() {
    let a = [chunk(0, 8, 1), chunk(8, 8, 2), chunk(16, 8, 3)];
    let b = [chunk(0, 8, 2), chunk(8, 8, 3), chunk(16, 8, 4)];
    let good = planned(&a, &b, 24, 100);
    assert_eq!(check(&good), Ok(()));
    let mut swapped = good.clone();
    swapped.steps.reverse();
    assert!(matches!(check(&swapped), Err(Broken::ReadsOverwritten { .. })));
    let mut twice = good.clone();
    twice.steps.push(good.steps[0]);
    assert!(check(&twice).is_err());
    let mut never = good;
    never.steps.pop();
    assert!(matches!(check(&never), Err(Broken::Written { times: 0, .. })));
}

/// Many chunks moved by odd bytes and by one chunk (chains), and exchanged at random (circles within circles).
#[test]
fn many_places_are_planned_in_near_linear_time() {
    const COUNT: u64 = 1 << 16;
    let sizes: Vec<u32> = (0..COUNT).map(|i| 16 + (i * 2_654_435_761 % 64) as u32).collect();
    let state = |order: &mut dyn Iterator<Item = u64>, gap: u64| {
        let mut at = gap;
        order
            .map(|number| {
                let chunk = Chunk {
                    offset: at,
                    len: sizes[number as usize],
                    id: (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15),
                };
                at = chunk.end();
                chunk
            })
            .collect::<Vec<_>>()
    };
    let present = state(&mut (0..COUNT), 0);
    let size = present.last().unwrap().end() + 100;
    let moved = planned(&present, &state(&mut (0..COUNT), 37), size, 1 << 20);
    assert_eq!((moved.fetches.len(), moved.totals().staged_bytes), (0, 0));
    let rotated = planned(&present, &state(&mut (1..COUNT).chain([0]), 0), size, 1 << 20);
    assert_eq!(rotated.fetches.len(), 0);
    // A bijection of 0..COUNT: an odd multiplier modulo a power of two.
    let shuffled = planned(
        &present,
        &state(&mut (0..COUNT).map(|i| i * 0x9E37_79B1 % COUNT), 0),
        size,
        1 << 40,
    );
    assert_eq!(shuffled.fetches.len(), 0);
}
