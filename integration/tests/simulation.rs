//! Simulated fleets: five hosts and more, each with the code that ships, over a network and servers that lose, delay, repeat and
//! forget, by seed. docs/simulation.md tells how it works, how to replay a seed, and how a concern brings its core in.
//!
//! `WINDLASS_SEED` alone runs that seed and prints what happened; with `WINDLASS_SIM_SEEDS` it is the first of so many.
#![allow(clippy::unwrap_used, reason = "test code")]

mod simulation {
    pub mod clients;
    pub mod commands;
    pub mod host;
    pub mod line;
    pub mod plan;
    pub mod racks;
    pub mod run;
    pub mod server;
    pub mod shrink;
    pub mod watch;
    pub mod world;
}

/// Faults that these worlds have to find.
const PLANTED: [Fault; 14] = [
    Fault::RecordWrittenUncompared,
    Fault::AcknowledgedEarly,
    Fault::TakenUnwatched,
    Fault::RequestIdForgotten,
    Fault::SubmitUnacknowledged,
    Fault::TicketUnchecked,
    Fault::LostUnlooked,
    Fault::IdTakenAnyway,
    Fault::StateUncompared,
    Fault::PlacementDecidedUncompared,
    Fault::OverdueUnasked,
    Fault::NonceForgotten,
    Fault::SignatureUnchecked,
    Fault::ExclusionIgnored,
];

use std::sync::atomic::{AtomicU64, Ordering};

use planted::Fault;
use simulation::plan::Plan;
use simulation::run::{Outcome, run};
use simulation::shrink::{report, shrink};

/// Seeds of the test, without `WINDLASS_SIM_SEEDS`.
const SEEDS: u64 = 600;
/// Within how many seeds a planted fault has to be found.
const FOUND_WITHIN: u64 = 2_000;
/// Seeds that are run twice.
const TWICE: u64 = 24;

fn number(variable: &str) -> Option<u64> {
    let said = std::env::var(variable).ok();
    said.map(|text| text.parse().expect("a number"))
}

/// The first seed of these for which something is wrong, on all cores.
fn first_wrong(seeds: std::ops::Range<u64>, fault: Option<Fault>, each: impl Fn(&Outcome) + Sync) -> Option<u64> {
    let next = AtomicU64::new(seeds.start);
    let found = AtomicU64::new(u64::MAX);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    // whoever found one still ends the seeds before it
                    if seed >= seeds.end || seed > found.load(Ordering::SeqCst) {
                        return;
                    }
                    let outcome = run(&Plan::of(seed), fault, false);
                    each(&outcome);
                    if outcome.wrong.is_some() {
                        found.fetch_min(seed, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    Some(found.into_inner()).filter(|seed| *seed != u64::MAX)
}

#[test]
fn all_seeds_hold() {
    let seed = number("WINDLASS_SEED").unwrap_or(1);
    let count = match (number("WINDLASS_SIM_SEEDS"), std::env::var_os("WINDLASS_SEED")) {
        (Some(count), _) => count,
        (None, None) => SEEDS,
        (None, Some(_)) => {
            let plan = Plan::of(seed);
            let outcome = run(&plan, None, true);
            eprintln!("{}", report(&plan, &outcome));
            assert_eq!(outcome.wrong, None, "seed {seed}");
            return;
        }
    };
    let sums: [AtomicU64; 6] = Default::default();
    let found = first_wrong(seed..seed.saturating_add(count), None, |outcome| {
        let c = &outcome.counts;
        let each = [
            c.acknowledged,
            c.ended,
            c.taken_over,
            c.lost_hosts,
            c.duplicates,
            outcome.took_ms,
        ];
        for (sum, n) in sums.iter().zip(each) {
            sum.fetch_add(n, Ordering::SeqCst);
        }
    });
    if let Some(seed) = found {
        let plan = shrink(&Plan::of(seed), None);
        let outcome = run(&plan, None, true);
        panic!("WINDLASS_SEED={seed} replays this.\n{}", report(&plan, &outcome));
    }
    let [acknowledged, ended, taken_over, lost, duplicates, took_ms] = sums.map(AtomicU64::into_inner);
    eprintln!(
        "{count} seeds from {seed}: {acknowledged} jobs acknowledged ({duplicates} as duplicates), {ended} ends, {taken_over} taken \
         from another host, {lost} hosts lost, {} hours",
        took_ms / 3_600_000
    );
    // a world in which nothing happens shows nothing
    assert!(
        count < 100
            || (acknowledged > count && taken_over > count / 10 && lost > count / 10 && duplicates > count / 10)
    );
}

#[test]
fn each_planted_fault_is_found() {
    let mut missed = vec![];
    for fault in PLANTED {
        match first_wrong(1..1 + FOUND_WITHIN, Some(fault), |_| ()) {
            Some(seed) => {
                let why = run(&Plan::of(seed), Some(fault), false).wrong.unwrap();
                eprintln!("{fault:?}: seed {seed}: {why}");
            }
            None => missed.push(fault),
        }
    }
    assert!(missed.is_empty(), "not found within {FOUND_WITHIN} seeds: {missed:?}");
}

#[test]
fn one_seed_is_one_run() {
    for seed in 1..=TWICE {
        let plan = Plan::of(seed);
        let (a, b) = (run(&plan, None, true), run(&plan, None, true));
        assert_eq!(a.trace, b.trace, "seed {seed}");
        assert_eq!((a.print, a.wrong), (b.print, b.wrong), "seed {seed}");
    }
}

#[test]
fn a_failing_seed_is_shrunk() {
    let fault = Some(Fault::RequestIdForgotten);
    let seed = first_wrong(1..1 + FOUND_WITHIN, fault, |_| ()).expect("it is found");
    let (whole, small) = (Plan::of(seed), shrink(&Plan::of(seed), fault));
    let outcome = run(&small, fault, true);
    assert!(outcome.wrong.is_some(), "what is left still fails");
    assert!(
        small.steps.len() <= 3 && small.steps.len() < whole.steps.len(),
        "{small}"
    );
    eprintln!("{}", report(&small, &outcome));
}
