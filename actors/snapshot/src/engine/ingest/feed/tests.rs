#![expect(clippy::single_range_in_vec_init, reason = "leaves may have a single run of data")]

use super::*;

fn fit(runs: &[Range<usize>], leaf_len: usize) -> Vec<Range<usize>> {
    let mut fitted = Vec::new();
    for run in runs {
        add_run(&mut fitted, run.clone(), leaf_len);
    }
    fitted
}

#[test]
fn runs_are_widened_to_blocks_and_joined_over_what_is_no_hole() {
    const LEN: usize = 4 << 20;
    let one = |run: Range<usize>| vec![run];
    assert_eq!(fit(&[100_000..100_001], LEN), one(98_304..102_400));
    // 16 KiB is a hole, less isn't.
    assert_eq!(
        fit(&[65_536..69_632, 86_016..90_112], LEN),
        [65_536..69_632, 86_016..90_112]
    );
    assert_eq!(fit(&[65_536..69_633, 86_016..90_112], LEN), one(65_536..90_112));
    // The same towards the leaf's ends.
    assert_eq!(fit(&[12_288..20_480], LEN), one(0..20_480));
    assert_eq!(fit(&[16_384..20_480], LEN), one(16_384..20_480));
    assert_eq!(fit(&[LEN - 20_480..LEN - 12_288], LEN), one(LEN - 20_480..LEN));
    assert_eq!(fit(&[LEN - 20_480..LEN - 16_384], LEN), one(LEN - 20_480..LEN - 16_384));
    // A short last leaf.
    assert_eq!(fit(&[512..1024], 5000), one(0..5000));
    assert_eq!(fit(&[0..100, 30_000..30_001], 30_001), [0..4096, 28_672..30_001]);
}
