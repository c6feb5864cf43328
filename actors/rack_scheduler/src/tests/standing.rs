//! The engine on the embedded state: each verb, what it leaves in the records, and what it refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use runtime::ManualClock;
use wire::HostId;
use wire::rack_scheduler::{
    DriftKind, HostState, InventoryArg, Mode, Placement, PlacementState, RackAsk, RackEvacuate, RackExplain, RackGrow,
    RackInventory, RackLoad, RackMark, RackQuota, RackReport, RackShrink, ReportedVm, Resources,
};

use super::asks::{ask, fleet, vms};
use crate::Kind;
use crate::core::ledger::RackRecord;
use crate::engine::{Scheduler, Settings};
use crate::port::{Hosts, Silent};

pub(super) fn scheduler_on(state: Arc<dyn state::State>, clock: Arc<ManualClock>, hosts: Arc<dyn Hosts>) -> Scheduler {
    let tells_hosts = format!("{hosts:?}") != "Silent";
    Scheduler::new(
        HostId::new("h1").unwrap(),
        state,
        Arc::new(bus::InProcess::new()),
        clock,
        hosts,
        Settings {
            tells_hosts,
            ..Settings::default()
        },
    )
}

pub(super) fn embedded() -> (Arc<dyn state::State>, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(1_000_000, 1));
    let of_state = clock.clone() as Arc<dyn runtime::Clock>;
    let database = state::Database::in_memory().unwrap();
    (
        Arc::new(state::Redb::new(database, runtime::state_clock(&of_state))),
        clock,
    )
}

pub(super) async fn with(inventory: InventoryArg) -> Scheduler {
    let (state, clock) = embedded();
    let scheduler = scheduler_on(state, clock, Arc::new(Silent));
    scheduler
        .load(&RackLoad {
            inventory,
            replace: false,
        })
        .await
        .unwrap();
    scheduler
}

/// Every rack's record, as the state has it.
pub(super) async fn records(scheduler: &Scheduler) -> BTreeMap<String, RackRecord> {
    scheduler.refresh().await.unwrap();
    let ids: Vec<String> = scheduler.view().racks().keys().cloned().collect();
    let mut records = BTreeMap::new();
    for id in ids {
        let record = scheduler.read_rack(&id).await.unwrap().1;
        assert_eq!(record.oversold(), Vec::<&str>::new(), "rack {id}");
        records.insert(id, record);
    }
    records
}

pub(super) fn booked(records: &BTreeMap<String, RackRecord>) -> u64 {
    let taken = records.values().flat_map(|r| &r.bookings).flat_map(|b| &b.taken);
    taken.map(|t| t.vms.len() as u64).sum()
}

pub(super) fn names(placement: &Placement) -> BTreeSet<String> {
    placement
        .groups
        .iter()
        .flat_map(|g| &g.hosts)
        .flat_map(|h| h.vms.clone())
        .collect()
}

#[tokio::test]
async fn what_is_placed_is_booked_once_and_given_back_whole() {
    let scheduler = with(fleet(6, 4)).await;
    let before = records(&scheduler).await;
    let placed = scheduler.place(&ask(20, 5), Some("req-1")).await.unwrap();
    assert_eq!((placed.groups.len(), names(&placed).len()), (5, 20));
    let racks: BTreeSet<_> = placed.groups.iter().map(|g| g.rack.clone().unwrap()).collect();
    assert_eq!(racks.len(), 5, "apart means apart");
    assert_eq!(booked(&records(&scheduler).await), 20);
    // the same request id: the same answer, nothing more is booked
    let again = scheduler.place(&ask(20, 5), Some("req-1")).await.unwrap();
    assert!(again.duplicate);
    assert_eq!(
        (&again.groups, booked(&records(&scheduler).await)),
        (&placed.groups, 20)
    );
    // for something else it is a conflict
    let other = scheduler.place(&ask(10, 5), Some("req-1")).await.unwrap_err();
    assert_eq!(other.kind, Kind::Conflict);
    assert_eq!(scheduler.show(&placed.id[..6]).await.unwrap().id, placed.id);
    let released = scheduler.release(&placed.id).await.unwrap();
    assert_eq!(released.vms, 20);
    let mut after = records(&scheduler).await;
    after.values_mut().for_each(|r| r.by = None);
    assert_eq!(after, before, "exactly what was taken came back");
    assert_eq!(scheduler.release(&placed.id).await.unwrap().vms, 0);
    assert_eq!(
        scheduler.show(&placed.id).await.unwrap().state,
        PlacementState::Released
    );
    assert_eq!(scheduler.release("nope").await.unwrap_err().kind, Kind::NotFound);
}

#[tokio::test]
async fn what_does_not_fit_says_why_and_books_nothing() {
    let scheduler = with(fleet(2, 1)).await;
    let error = scheduler.place(&ask(9, 2), None).await.unwrap_err();
    assert_eq!(error.kind, Kind::Conflict);
    assert!(
        error.message.contains("vCPUs") && error.message.contains("it would fit with"),
        "{error}"
    );
    assert_eq!(booked(&records(&scheduler).await), 0);
    let plan = scheduler.plan(&ask(9, 2)).await.unwrap();
    assert!(!plan.fits && plan.shortfall.is_some());
    let request = RackExplain {
        id: None,
        ask: Some(ask(9, 2)),
    };
    let why = scheduler.explain(&request).await.unwrap();
    assert!(!why.fits && why.groups[0].refused[0].racks == 2, "{why:?}");
    let best = RackAsk {
        mode: Mode::BestEffort,
        ..ask(9, 2)
    };
    let placed = scheduler.place(&best, None).await.unwrap();
    assert_eq!(
        (placed.fits, placed.unplaced.len(), booked(&records(&scheduler).await)),
        (false, 1, 8)
    );
}

#[tokio::test]
async fn grow_stays_at_home_and_shrink_takes_the_youngest() {
    let scheduler = with(fleet(4, 4)).await;
    let placed = scheduler.place(&ask(6, 3), None).await.unwrap();
    let grow = RackGrow {
        id: placed.id.clone(),
        vms: vec![vms(4, 1, 512)],
        groups: vec![],
    };
    let grown = scheduler.grow(&grow, Some("g")).await.unwrap();
    assert_eq!(names(&grown).len(), 10);
    for (before, after) in placed.groups.iter().zip(&grown.groups) {
        assert_eq!(before.rack, after.rack);
        let sizes = |g: &wire::rack_scheduler::PlacedGroup| g.hosts.iter().map(|h| h.vms.len()).sum::<usize>();
        assert!((3..=4).contains(&sizes(after)), "evenness within one");
    }
    assert!(scheduler.grow(&grow, Some("g")).await.unwrap().duplicate);
    assert_eq!(booked(&records(&scheduler).await), 10);
    let shrink = |count, vms: &[&str]| RackShrink {
        id: placed.id.clone(),
        count,
        vms: vms.iter().map(|v| (*v).to_owned()).collect(),
    };
    let shrunk = scheduler.shrink(&shrink(0, &["g1-0"])).await.unwrap();
    assert!(!names(&shrunk).contains("g1-0"));
    let shrunk = scheduler.shrink(&shrink(3, &[])).await.unwrap();
    assert_eq!((names(&shrunk).len(), booked(&records(&scheduler).await)), (6, 6));
    assert_eq!(
        scheduler.shrink(&shrink(0, &["g9-9"])).await.unwrap_err().kind,
        Kind::NotFound
    );
    assert_eq!(scheduler.shrink(&shrink(6, &[])).await.unwrap_err().kind, Kind::Invalid);
    // numbers are never given twice
    let again = scheduler.grow(&grow, Some("h")).await.unwrap();
    assert!(!names(&again).contains("g1-0"));
    let huge = RackGrow {
        vms: vec![vms(1000, 1, 1)],
        ..grow
    };
    assert_eq!(scheduler.grow(&huge, None).await.unwrap_err().kind, Kind::Conflict);
}

#[tokio::test]
async fn a_lost_host_moves_its_vms_within_the_rack_and_a_lost_rack_its_groups() {
    let scheduler = with(fleet(3, 3)).await;
    let placed = scheduler.place(&ask(8, 2), None).await.unwrap();
    let home = placed.groups[0].rack.clone().unwrap();
    let host = placed.groups[0].hosts[0].host.clone();
    let evacuate = |host: Option<String>, rack: Option<String>| RackEvacuate {
        host,
        rack,
        state: HostState::Lost,
        move_groups: false,
    };
    let report = scheduler.evacuate(&evacuate(Some(host.clone()), None)).await.unwrap();
    assert!(report.stuck.is_empty() && !report.moved.is_empty(), "{report:?}");
    let after = scheduler.show(&placed.id).await.unwrap();
    assert_eq!(names(&after), names(&placed), "VMs keep their names");
    assert_eq!(after.groups[1], placed.groups[1], "nothing else moved");
    assert_eq!(after.groups[0].rack, placed.groups[0].rack);
    assert!(after.groups[0].hosts.iter().all(|h| h.host != host));
    assert_eq!(booked(&records(&scheduler).await), 8);

    let report = scheduler.evacuate(&evacuate(None, Some(home.clone()))).await.unwrap();
    assert!(report.stuck.is_empty(), "{report:?}");
    let after = scheduler.show(&placed.id).await.unwrap();
    assert!(after.groups.iter().all(|g| g.rack.as_ref() != Some(&home)));
    assert_ne!(after.groups[0].rack, after.groups[1].rack, "apart still");
    assert_eq!((names(&after), booked(&records(&scheduler).await)), (names(&placed), 8));
    // only one rack is left: the other group can't go anywhere
    let other = after.groups[1].rack.clone().unwrap();
    let report = scheduler.evacuate(&evacuate(None, Some(other))).await.unwrap();
    assert_eq!(report.stuck.iter().map(|s| s.vms).sum::<u64>(), 4, "{report:?}");
    assert_eq!(booked(&records(&scheduler).await), 8, "what is stuck stays booked");
    assert_eq!(
        scheduler.evacuate(&evacuate(None, None)).await.unwrap_err().kind,
        Kind::Invalid
    );
    assert_eq!(
        scheduler
            .evacuate(&evacuate(Some("x".into()), None))
            .await
            .unwrap_err()
            .kind,
        Kind::NotFound
    );
}

#[tokio::test]
async fn a_tenant_books_no_more_than_its_quota() {
    let scheduler = with(fleet(6, 4)).await;
    let of_ads = |count| RackAsk {
        tenant: Some("ads".into()),
        ..ask(count, 2)
    };
    let first = scheduler.place(&of_ads(4), None).await.unwrap();
    let quota = |quota| RackQuota {
        tenant: "ads".into(),
        quota,
    };
    let set = Resources {
        vcpus: 14,
        ..Resources::default()
    };
    let shown = scheduler.quota(&quota(Some(set))).await.unwrap();
    assert_eq!(shown.booked.vcpus, 8, "what was booked before counts");
    let error = scheduler.place(&of_ads(4), None).await.unwrap_err();
    assert!(
        error.kind == Kind::Conflict && error.message.contains("may book 6 vCPUs more"),
        "{error}"
    );
    assert_eq!(booked(&records(&scheduler).await), 4);
    scheduler.place(&of_ads(2), None).await.unwrap();
    scheduler.release(&first.id).await.unwrap();
    assert_eq!(scheduler.quota(&quota(None)).await.unwrap().booked.vcpus, 4);
    scheduler.place(&of_ads(5), None).await.unwrap();
    assert_eq!(scheduler.quota(&quota(None)).await.unwrap().booked.vcpus, 14);
}

#[tokio::test]
async fn inventories_change_and_what_is_booked_stays() {
    let scheduler = with(fleet(2, 2)).await;
    let placed = scheduler.place(&ask(2, 2), None).await.unwrap();
    let row = scheduler
        .mark(&RackMark {
            host: "r0-h0".into(),
            state: HostState::Cordoned,
        })
        .await
        .unwrap();
    assert_eq!(row.state, HostState::Cordoned);
    let full = scheduler.plan(&ask(8, 1)).await.unwrap();
    assert!(
        !full.fits || full.groups[0].rack.as_deref() == Some("r1"),
        "a cordoned host takes nothing"
    );
    // the same racks with one host fewer
    let mut less = fleet(2, 2);
    let host = placed.groups[0].hosts[0].host.clone();
    less.hosts.retain(|h| h.id != host);
    let load = |replace| RackLoad {
        inventory: less.clone(),
        replace,
    };
    let error = scheduler.load(&load(true)).await.unwrap_err();
    assert!(error.kind == Kind::Conflict && error.message.contains(&host), "{error}");
    scheduler.load(&load(false)).await.unwrap();
    let report = scheduler
        .inventory(&RackInventory {
            hosts: true,
            ..RackInventory::default()
        })
        .await
        .unwrap();
    assert_eq!(
        (
            report.racks_total,
            report.hosts_total,
            booked(&records(&scheduler).await)
        ),
        (2, 4, 2)
    );
    scheduler.release(&placed.id).await.unwrap();
    scheduler.load(&load(true)).await.unwrap();
    let mut elsewhere = fleet(1, 1);
    elsewhere.hosts[0].rack = "r1".into();
    elsewhere.hosts[0].id = scheduler.view().racks()["r0"].1.hosts[0].id.clone();
    let error = scheduler
        .load(&RackLoad {
            inventory: InventoryArg {
                places: vec![],
                ..elsewhere
            },
            replace: false,
        })
        .await
        .unwrap_err();
    assert!(error.message.contains("is in rack r0 already"), "{error}");
}

#[tokio::test]
async fn booked_and_actual_are_compared() {
    let scheduler = with(fleet(1, 1)).await;
    let placed = scheduler.place(&ask(2, 1), None).await.unwrap();
    let has = |vcpus| Resources {
        vcpus,
        memory_mib: 1024,
        ..Resources::default()
    };
    let vm = |vm: &str, vcpus| ReportedVm {
        placement: placed.id.clone(),
        vm: vm.into(),
        has: has(vcpus),
    };
    let report = |vms| RackReport {
        host: "r0-h0".into(),
        vms,
    };
    let same = scheduler
        .report(&report(vec![vm("g0-0", 2), vm("g0-1", 2)]))
        .await
        .unwrap();
    assert_eq!(same.drift, vec![]);
    let reply = scheduler
        .report(&report(vec![vm("g0-0", 4), vm("g0-7", 2)]))
        .await
        .unwrap();
    let mut kinds: Vec<_> = reply.drift.iter().map(|d| (d.vm.as_str(), d.kind)).collect();
    kinds.sort_by_key(|(vm, _)| *vm);
    assert_eq!(
        kinds,
        [
            ("g0-0", DriftKind::Differs),
            ("g0-1", DriftKind::Missing),
            ("g0-7", DriftKind::Unbooked)
        ]
    );
    let shown = scheduler
        .inventory(&RackInventory {
            rack: Some("r0".into()),
            ..RackInventory::default()
        })
        .await
        .unwrap();
    assert_eq!(shown.racks[0].hosts[0].drift.len(), 3);
}
