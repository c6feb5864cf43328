//! The image against a model: what was written is there, and what a crash leaves is an image that QEMU accepts.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use crate::create::create_with;
use crate::entry::{self, Entry, OFFSET};
use crate::medium::Medium;
use crate::testing::{Memory, NoFiles, Op, apply};
use crate::{Files, Header, Image, Kind, open};

mod crash;
mod refused;

const SIZE: u64 = 300_000; // no multiple of the cluster size

/// What is done to a disk.
#[derive(Debug, Clone)]
enum Step {
    Write(u64, usize, u8),
    Punch(u64, u64),
    Sync,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..SIZE, 1..6000_usize, 1..=255_u8).prop_map(|(at, len, with)| Step::Write(at, len, with)),
        2 => (0..SIZE, 1..20_000_u64).prop_map(|(at, len)| Step::Punch(at, len)),
        1 => Just(Step::Sync),
    ];
    prop::collection::vec(step, 1..30)
}

/// One backing image under any name.
struct One(Arc<Memory>);

impl Files for One {
    fn open(&self, _: &Path) -> std::io::Result<Arc<dyn Medium>> {
        Ok(self.0.clone())
    }
}

fn empty(cluster_bits: u32) -> Arc<Memory> {
    let medium = Memory::new(Vec::new());
    create_with(&*medium, SIZE, "test", cluster_bits).unwrap();
    medium
}

/// An empty image over `base`, which is raw.
fn overlay(cluster_bits: u32, version: u8) -> Arc<Memory> {
    let mut bytes = empty(cluster_bits).bytes();
    if version == 2 {
        bytes[4..8].copy_from_slice(&2_u32.to_be_bytes());
        bytes[72..104].fill(0); // version 2 has no more than 72 bytes of header
    }
    let at = if version == 2 { 72 } else { 104 };
    bytes[at..at + 11].copy_from_slice(b"\xe2\x79\x2a\xca\0\0\0\x03raw"); // which format it has
    bytes[8..16].copy_from_slice(&200_u64.to_be_bytes());
    bytes[16..20].copy_from_slice(&4_u32.to_be_bytes());
    bytes[200..204].copy_from_slice(b"base");
    Memory::new(bytes)
}

fn open_test(medium: &Arc<Memory>, files: &dyn Files) -> Image {
    open(medium.clone(), Path::new("test"), files, true).unwrap()
}

fn step(image: &Image, model: &mut [u8], step: &Step) {
    match *step {
        Step::Write(at, len, with) => {
            let len = len.min((SIZE - at) as usize);
            let data: Vec<u8> = (0..len).map(|i| with.wrapping_add((i / 97) as u8)).collect();
            image.write_at(&data, at).unwrap();
            model[at as usize..at as usize + len].copy_from_slice(&data);
        }
        Step::Punch(at, len) => {
            let end = (at + len).min(SIZE);
            image.punch(at..end).unwrap();
            model[at as usize..end as usize].fill(0);
        }
        Step::Sync => image.sync().unwrap(),
    }
}

fn content(image: &Image) -> Vec<u8> {
    let mut bytes = vec![0xee; SIZE as usize];
    image.read_at(&mut bytes, 0).unwrap();
    bytes
}

/// The content by way of `next_data`: all else is zeros.
fn content_of_runs(image: &Image) -> Vec<u8> {
    let (mut bytes, mut at) = (vec![0; SIZE as usize], 0);
    while let Some(run) = image.next_data(at).unwrap() {
        assert!(run.start >= at && run.end > run.start && run.end <= SIZE);
        image
            .read_back(&mut bytes[run.start as usize..run.end as usize], run.start)
            .unwrap();
        at = run.end;
    }
    bytes
}

fn assert_content(image: &Image, model: &[u8]) {
    let same = |found: &[u8], how: &str| {
        let at = found.iter().zip(model).position(|(a, b)| a != b);
        assert_eq!(at, None, "first difference ({how})");
    };
    same(&content(image), "read");
    same(&content_of_runs(image), "next_data");
}

/// What `qemu-img check` looks for: every cluster is counted at least as often as it is referred to. Gives how many are
/// counted more often.
fn check(bytes: &[u8]) -> Result<usize, String> {
    let medium = Memory::new(bytes.to_vec());
    let header = Header::read(&*medium, "check").map_err(|e| e.message)?;
    let bits = header.cluster_bits;
    let mut refs: HashMap<u64, u64> = HashMap::new();
    let mut refer = |at: u64, len: u64| {
        for cluster in at >> bits..(at + len).div_ceil(1 << bits) {
            *refs.entry(cluster).or_default() += 1;
        }
    };
    let table = |at: u64, len: u64| {
        let mut bytes = vec![0; len as usize];
        medium
            .read_at(&mut bytes, at)
            .map_err(|e| format!("a table at {at}: {e}"))?;
        Ok::<_, String>(entry::table_from(&bytes))
    };
    refer(0, 1);
    refer(header.l1_offset, u64::from(header.l1_entries) * 8);
    let reftable_bytes = u64::from(header.reftable_clusters) << bits;
    refer(header.reftable_offset, reftable_bytes);
    let mut counted: HashMap<u64, u64> = HashMap::new();
    let per_block = header.cluster_bytes() / 2;
    for (index, block) in table(header.reftable_offset, reftable_bytes)?.into_iter().enumerate() {
        if block == 0 {
            continue;
        }
        refer(block, 1);
        let mut counts = vec![0; header.cluster_bytes() as usize];
        medium
            .read_at(&mut counts, block)
            .map_err(|e| format!("refcount block {index} at {block}: {e}"))?;
        for (at, count) in counts.chunks_exact(2).enumerate() {
            let count = u64::from(u16::from_be_bytes([count[0], count[1]]));
            counted.insert(index as u64 * per_block + at as u64, count);
        }
    }
    for l2 in table(header.l1_offset, u64::from(header.l1_entries) * 8)? {
        if l2 & OFFSET == 0 {
            continue;
        }
        refer(l2 & OFFSET, 1);
        for raw in table(l2 & OFFSET, header.cluster_bytes())? {
            match Entry::decode(raw, bits, header.version)? {
                Entry::Data { host, .. } | Entry::Zero { host: Some(host) } => refer(host, 1),
                Entry::Compressed { offset, len } => refer(offset, len),
                Entry::Unallocated | Entry::Zero { host: None } => {}
            }
        }
    }
    for (cluster, wanted) in &refs {
        let count = counted.get(cluster).copied().unwrap_or(0);
        if count < *wanted {
            return Err(format!(
                "cluster {cluster} is referred to {wanted} times and counted {count} times"
            ));
        }
    }
    let is_leaked = |cluster: &u64, count: u64| count > refs.get(cluster).copied().unwrap_or(0);
    Ok(counted
        .iter()
        .filter(|(cluster, count)| is_leaked(cluster, **count))
        .count())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_was_written_is_there_and_nothing_leaks(steps in steps(), cluster_bits in 9..15_u32) {
        let medium = empty(cluster_bits);
        let image = open_test(&medium, &NoFiles);
        let mut model = vec![0; SIZE as usize];
        for one in &steps {
            step(&image, &mut model, one);
        }
        assert_content(&image, &model);
        image.sync().unwrap();
        assert_content(&image, &model);
        drop(image);
        prop_assert_eq!(check(&medium.bytes()), Ok(0));
        assert_content(&open_test(&medium, &NoFiles), &model);
    }

    #[test]
    fn what_is_below_shows_where_nothing_was_written(
        steps in steps(), cluster_bits in 9..15_u32, version in 2..=3_u8, base_bytes in 0..400_000_usize,
    ) {
        let base = Memory::new((0..base_bytes).map(|i| (i / 61) as u8 | 1).collect());
        let medium = overlay(cluster_bits, version);
        let image = open_test(&medium, &One(base.clone()));
        let mut model = base.bytes();
        model.resize(SIZE as usize, 0);
        assert_content(&image, &model);
        for one in &steps {
            step(&image, &mut model, one);
        }
        assert_content(&image, &model);
        image.sync().unwrap();
        drop(image);
        prop_assert_eq!(check(&medium.bytes()), Ok(0));
        assert_content(&open_test(&medium, &One(base.clone())), &model);
        prop_assert!(base.take_log().is_empty(), "the backing image was written");
    }
}

#[test]
fn clusters_that_were_given_up_are_used_again() {
    let medium = empty(12);
    let image = open_test(&medium, &NoFiles);
    for round in 1..20 {
        image.write_at(&[round; 200_000], 0).unwrap();
        image.sync().unwrap();
        image.punch(0..SIZE).unwrap();
        image.sync().unwrap();
    }
    assert_eq!(image.next_data(0).unwrap(), None);
    assert!(medium.bytes().len() < 250_000, "{}", medium.bytes().len());
}

#[test]
fn the_refcount_table_grows() {
    let medium = Memory::new(Vec::new());
    let size = 24 << 20; // one cluster of 512 bytes tells of 8 MiB
    create_with(&*medium, 1 << 20, "test", 9).unwrap();
    let mut bytes = medium.bytes();
    let l1_bytes = size / (512 * 64) * 8;
    let l1_at = bytes.len().next_multiple_of(512);
    bytes.resize(l1_at + l1_bytes, 0);
    bytes[24..32].copy_from_slice(&(size as u64).to_be_bytes());
    bytes[36..40].copy_from_slice(&((l1_bytes / 8) as u32).to_be_bytes());
    bytes[40..48].copy_from_slice(&(l1_at as u64).to_be_bytes());
    for cluster in 3..(l1_at + l1_bytes).div_ceil(512) {
        let used = u8::from(cluster >= l1_at / 512);
        bytes[1024 + cluster * 2 + 1] = used;
    }
    let medium = Memory::new(bytes);
    let image = open_test(&medium, &NoFiles);
    let data: Vec<u8> = (0..size).map(|i| (i / 1000) as u8 | 1).collect();
    for (at, part) in data.chunks(777_777).enumerate() {
        image.write_at(part, at as u64 * 777_777).unwrap();
    }
    image.sync().unwrap();
    let mut found = vec![0; size];
    image.read_at(&mut found, 0).unwrap();
    assert!(found == data);
    drop(image);
    assert_eq!(check(&medium.bytes()), Ok(0));
}
