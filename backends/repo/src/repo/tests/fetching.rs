//! Fetch plans: every blob once, within the limits, for whatever was asked.

use std::sync::OnceLock;

use proptest::prelude::*;

use super::*;

/// One repository of 200 chunks in several packs for all cases.
fn shared() -> &'static (tokio::runtime::Runtime, Repo, Vec<BlobId>) {
    static SHARED: OnceLock<(tokio::runtime::Runtime, Repo, Vec<BlobId>)> = OnceLock::new();
    SHARED.get_or_init(|| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let repo = runtime.block_on(async {
            let (_, repo) = memory_repo().await;
            let limits = SessionLimits {
                pack_bytes: 1 << 20,
                ..SessionLimits::default()
            };
            let session = repo.begin(limits).await.unwrap();
            let putter = session.clone();
            tokio::task::spawn_blocking(move || {
                (0..200).for_each(|n| {
                    let raw = content(n);
                    putter.put(BlobKind::Data, &putter.id_of(&raw), &raw).unwrap();
                });
            })
            .await
            .unwrap();
            session
                .finish(draft(
                    "web1",
                    crate::ManifestRef {
                        size_bytes: SIZE,
                        root: None,
                    },
                ))
                .await
                .unwrap();
            repo
        });
        let ids = (0..200).map(|n| repo.id_of(&content(n))).collect();
        (runtime, repo, ids)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn each_id_comes_once_and_ranges_waste_little(
        wanted in prop::collection::vec(0usize..200, 0..300),
        in_flight_max in 0usize..40,
        memory_bytes_max in prop_oneof![Just(0u64), 1u64..200_000, Just(96 << 20)],
        range_bytes_max in prop_oneof![Just(0u64), 1u64..200_000, Just(4 << 20)],
    ) {
        let (runtime, repo, all) = shared();
        let limits = FetchLimits { in_flight_max, memory_bytes_max, range_bytes_max, ..FetchLimits::default() };
        let ids: Vec<BlobId> = wanted.iter().map(|n| all[*n]).collect();
        let plan = repo.plan_fetch(&ids, &limits).unwrap();
        let unique: std::collections::BTreeSet<usize> = wanted.iter().copied().collect();
        let stored: u64 = unique.iter().map(|n| u64::from(repo.index().find(&all[*n]).unwrap().entry.stored)).sum();
        prop_assert_eq!(plan.blobs(), unique.len() as u64);
        prop_assert_eq!(plan.raw_bytes(), unique.iter().map(|n| content(*n as u64).len() as u64).sum::<u64>());
        prop_assert!(plan.requests() <= plan.blobs());
        prop_assert!((plan.fetched_bytes() - stored) * 1000 <= plan.fetched_bytes() * 30);
        for range in &plan.ranges {
            prop_assert!(range.entries.len() == 1 || range.end - range.start <= range_bytes_max);
        }
        if unique.len() == 200 && range_bytes_max == 4 << 20 {
            prop_assert!(plan.requests() <= repo.index().segments()[0].packs() as u64);
        }
        let fetched: Vec<(BlobId, Bytes)> =
            runtime.block_on(async { repo.fetch(plan, &limits).map(Result::unwrap).collect().await });
        prop_assert_eq!(fetched.len(), unique.len());
        let fetched: BTreeMap<BlobId, Bytes> = fetched.into_iter().collect();
        for n in unique {
            prop_assert!(fetched[&all[n]] == content(n as u64));
        }
    }
}

#[test]
fn a_consumer_that_goes_away_ends_the_work() {
    let (runtime, repo, all) = shared();
    runtime.block_on(async {
        let limits = FetchLimits {
            memory_bytes_max: 64 << 10,
            ..FetchLimits::default()
        };
        let mut blobs = repo.fetch(repo.plan_fetch(all, &limits).unwrap(), &limits);
        blobs.next().await.unwrap().unwrap();
        drop(blobs);
    });
}
