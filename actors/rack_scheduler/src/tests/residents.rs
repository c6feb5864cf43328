//! Placements of one rack are booked and decided in one write of its record, and many of them in the same one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use wire::rack_scheduler::{PlacementState, RackAsk, RackGrow, RackList, RackLoad};

use super::asks::{ask, fleet, vms};
use super::standing::{booked, embedded, records, scheduler_on, with};
use crate::core::ledger::RESIDENTS_BYTES_MAX;
use crate::engine::Scheduler;
use crate::port::Silent;

fn key(id: &str) -> state::Key {
    state::Key::new(format!("rack_scheduler/placements/{id}")).unwrap()
}

async fn has_key(scheduler: &Scheduler, id: &str) -> bool {
    scheduler.state.get(&key(id)).await.unwrap().is_some()
}

async fn residents(scheduler: &Scheduler) -> usize {
    records(scheduler).await.values().map(|r| r.residents.len()).sum()
}

#[tokio::test]
async fn one_rack_takes_one_write_and_keeps_the_placement_until_somebody_changes_it() {
    let (state, clock) = embedded();
    let one = scheduler_on(state.clone(), clock.clone(), Arc::new(Silent));
    let other = scheduler_on(state, clock, Arc::new(Silent));
    let load = RackLoad {
        inventory: fleet(4, 3),
        replace: false,
    };
    one.load(&load).await.unwrap();
    other.refresh().await.unwrap();
    let placed = one.place(&ask(3, 1), None).await.unwrap();
    assert_eq!(one.counts.rack_writes.load(Ordering::Relaxed), 1);
    assert!(!has_key(&one, &placed.id).await);
    // another scheduler finds it by id, by a beginning, and in its list; looking changes nothing
    assert_eq!(other.show(&placed.id).await.unwrap(), placed);
    assert_eq!(other.show(&placed.id[..20]).await.unwrap(), placed);
    assert_eq!(other.list(&RackList::default()).await.unwrap().placements.len(), 1);
    assert!(!has_key(&one, &placed.id).await && residents(&one).await == 1);
    let request = RackGrow {
        id: placed.id.clone(),
        vms: vec![vms(2, 1, 512)],
        groups: vec![],
    };
    let grown = other.grow(&request, None).await.unwrap();
    assert_eq!(grown.version, 2);
    assert!(has_key(&one, &placed.id).await && residents(&one).await == 0);
    assert_eq!(one.show(&placed.id).await.unwrap().version, 2);
    assert_eq!(one.list(&RackList::default()).await.unwrap().placements.len(), 1);
    assert_eq!(one.release(&placed.id).await.unwrap().vms, 5);
    assert_eq!(booked(&records(&one).await), 0);
    assert_eq!(other.show(&placed.id).await.unwrap().state, PlacementState::Released);
}

#[tokio::test]
async fn a_resident_is_released_exactly_and_remembered() {
    let scheduler = with(fleet(2, 2)).await;
    let placed = scheduler.place(&ask(4, 1), None).await.unwrap();
    assert_eq!(booked(&records(&scheduler).await), 4);
    assert_eq!(scheduler.release(&placed.id).await.unwrap().vms, 4);
    assert_eq!(scheduler.release(&placed.id).await.unwrap().vms, 0);
    assert_eq!(residents(&scheduler).await, 0);
    assert_eq!(booked(&records(&scheduler).await), 0);
}

#[tokio::test]
async fn quotas_request_ids_and_several_racks_are_decided_under_a_key() {
    let scheduler = with(fleet(4, 3)).await;
    let of_tenant = RackAsk {
        tenant: Some("ads".into()),
        ..ask(2, 1)
    };
    let placed = [
        scheduler.place(&of_tenant, None).await.unwrap(),
        scheduler.place(&ask(2, 1), Some("once")).await.unwrap(),
        scheduler.place(&ask(2, 2), None).await.unwrap(),
    ];
    for placement in &placed {
        assert!(has_key(&scheduler, &placement.id).await);
    }
    assert_eq!(residents(&scheduler).await, 0);
    // what was decided becomes firm with the next write of its rack
    let tentative = |scheduler: Scheduler| async move {
        let records = records(&scheduler).await;
        let bookings = records.values().flat_map(|r| &r.bookings);
        bookings.filter(|b| b.until_ms.is_some()).count()
    };
    let before = tentative(scheduler.clone()).await;
    for _ in 0..8 {
        scheduler.place(&ask(1, 1), None).await.unwrap();
    }
    assert!(tentative(scheduler.clone()).await < before);
}

#[tokio::test]
async fn requests_that_wait_for_one_rack_share_a_write() {
    let scheduler = with(fleet(1, 40)).await;
    let (one, two) = (ask(1, 1), ask(2, 1));
    let requests = (0..64).map(|n| {
        let request = if n % 2 == 0 { &one } else { &two };
        scheduler.place(request, None)
    });
    for placed in futures::future::join_all(requests).await {
        placed.unwrap();
    }
    assert_eq!(booked(&records(&scheduler).await), 96);
    let writes = scheduler.counts.rack_writes.load(Ordering::Relaxed);
    assert!(writes < 32, "{writes} writes for 64 requests");
    assert_eq!(scheduler.counts.replanned.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_rack_that_keeps_all_it_may_leaves_the_rest_to_keys_and_a_sweep_empties_it() {
    let mut scheduler = with(fleet(1, 60)).await;
    scheduler.settings.residents_bytes_max = 4 << 10;
    let mut placed = Vec::new();
    for _ in 0..40 {
        placed.push(scheduler.place(&ask(1, 1), None).await.unwrap());
    }
    let kept = residents(&scheduler).await;
    assert!((2..20).contains(&kept), "{kept} residents");
    assert!(records(&scheduler).await["r0"].residents_bytes() <= 4 << 10);
    assert!(scheduler.sweep().await.unwrap() > 0);
    assert_eq!(residents(&scheduler).await, 0);
    for placement in &placed {
        assert!(has_key(&scheduler, &placement.id).await);
        assert_eq!(scheduler.show(&placement.id).await.unwrap(), *placement);
    }
    const { assert!(RESIDENTS_BYTES_MAX < state::VALUE_BYTES_MAX / 4) };
}

#[tokio::test]
async fn schedulers_fill_racks_of_their_own_while_there_are_some() {
    let (state, clock) = embedded();
    let named = |name: &str| {
        let mut scheduler = scheduler_on(state.clone(), clock.clone(), Arc::new(Silent));
        scheduler = Scheduler::new(
            wire::HostId::new(name).unwrap(),
            scheduler.state,
            scheduler.announcer.bus,
            scheduler.clock,
            scheduler.hosts,
            scheduler.settings,
        );
        scheduler
    };
    let (one, two) = (named("one"), named("two"));
    let load = RackLoad {
        inventory: fleet(4, 4),
        replace: false,
    };
    one.load(&load).await.unwrap();
    let home = |placed: &wire::rack_scheduler::Placement| placed.groups[0].rack.clone().unwrap();
    let first = home(&one.place(&ask(2, 1), None).await.unwrap());
    let second = home(&two.place(&ask(2, 1), None).await.unwrap());
    assert_ne!(first, second);
    for _ in 0..3 {
        assert_eq!(home(&one.place(&ask(2, 1), None).await.unwrap()), first);
        assert_eq!(home(&two.place(&ask(2, 1), None).await.unwrap()), second);
    }
    // when nothing else is left, everybody uses what there is
    let mut placed = 0;
    while one.place(&ask(2, 1), None).await.is_ok() {
        placed += 1;
    }
    assert_eq!(placed, (4 * 4 * 8 / 4) - 8);
}
