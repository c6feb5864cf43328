//! Power loss at any write: of what was written since the last sync, any sectors may be there and any may not.

use super::*;

/// Some of what was not synced, sector by sector.
fn state_after(durable: &[u8], unsynced: &[(u64, Vec<u8>)], mut seed: u64) -> Vec<u8> {
    let mut bytes = durable.to_vec();
    for (offset, data) in unsynced {
        let mut at = 0;
        while at < data.len() {
            let len = (512 - (*offset as usize + at) % 512).min(data.len() - at);
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            if seed >> 62 != 0 {
                apply(&mut bytes, offset + at as u64, &data[at..at + len]);
            }
            at += len;
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn power_loss_leaves_leaks_at_most(steps in steps(), cluster_bits in 9..13_u32, seed: u64) {
        let medium = empty(cluster_bits);
        let image = open_test(&medium, &NoFiles);
        let mut model = vec![0; SIZE as usize];
        let (mut durable, mut unsynced) = (medium.bytes(), Vec::new());
        medium.take_log();
        // what must be there, and what may be there in its place since
        let mut may: Vec<Vec<u8>> = vec![model.clone()];
        for one in steps.iter().chain([&Step::Sync]) {
            step(&image, &mut model, one);
            may.push(model.clone());
            for (number, op) in medium.take_log().into_iter().enumerate() {
                match op {
                    Op::Write(at, data) => unsynced.push((at, data)),
                    Op::Sync => {
                        for (at, data) in unsynced.drain(..) {
                            apply(&mut durable, at, &data);
                        }
                    }
                }
                let left = state_after(&durable, &unsynced, seed.wrapping_add(number as u64));
                let checked = check(&left);
                prop_assert!(checked.is_ok(), "{checked:?}");
                let again = open_test(&Memory::new(left), &NoFiles);
                let found = content(&again);
                for (at, byte) in found.iter().enumerate() {
                    prop_assert!(may.iter().any(|m| m[at] == *byte), "byte {at} was never {byte}");
                }
            }
            if matches!(one, Step::Sync) {
                may = vec![model.clone()];
            }
        }
    }
}
