//! Hosts that refuse, and hosts that beat: what becomes of placements on them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use wire::HostId;
use wire::rack_scheduler::{DriftKind, Provided, RackInventory, RackLoad, RackProvide, RackWithdraw};

use super::asks::{ask, fleet};
use super::standing::{booked, embedded, names, records, scheduler_on};
use crate::Kind;
use crate::engine::{Scheduler, Settings};
use crate::port::{Hosts, Silent};

/// Hosts that refuse by name, and remember what they were told.
#[derive(Debug, Default)]
struct Stubborn {
    refuse: BTreeSet<String>,
    has: Mutex<BTreeMap<String, BTreeSet<String>>>,
    /// Hosts that don't hear of VMs that leave them.
    deaf: Mutex<BTreeSet<String>>,
}

#[async_trait]
impl Hosts for Stubborn {
    async fn provide(&self, host: &str, message: RackProvide) -> Provided {
        if self.refuse.contains(host) {
            return Provided {
                accepted: false,
                why: Some("no".into()),
            };
        }
        let vms = message.vms.into_iter().map(|v| v.vm).collect();
        self.has.lock().unwrap().insert(host.to_owned(), vms);
        Provided {
            accepted: true,
            why: None,
        }
    }
    async fn withdraw(&self, host: &str, message: RackWithdraw) -> bool {
        if self.deaf.lock().unwrap().contains(host) {
            return false;
        }
        if let Some(has) = self.has.lock().unwrap().get_mut(host) {
            has.retain(|vm| !message.vms.contains(vm));
        }
        true
    }
}

#[tokio::test]
async fn a_host_that_refuses_is_replaced_and_the_others_stay() {
    let (state, clock) = embedded();
    let probe = scheduler_on(state.clone(), clock.clone(), Arc::new(Silent));
    probe
        .load(&RackLoad {
            inventory: fleet(2, 3),
            replace: false,
        })
        .await
        .unwrap();
    let planned = probe.plan(&ask(8, 2)).await.unwrap();
    let refused = planned.groups[0].hosts[0].host.clone();
    let hosts = Arc::new(Stubborn {
        refuse: [refused.clone()].into(),
        ..Stubborn::default()
    });
    let scheduler = scheduler_on(state, clock, hosts.clone());
    let placed = scheduler.place(&ask(8, 2), None).await.unwrap();
    assert_eq!(
        placed.groups[1], planned.groups[1],
        "the others stay where they were planned"
    );
    assert_eq!(placed.groups[0].rack, planned.groups[0].rack);
    assert!(placed.groups[0].hosts.iter().all(|h| h.host != refused));
    assert_eq!((names(&placed).len(), booked(&records(&scheduler).await)), (8, 8));
    let told: usize = hosts.has.lock().unwrap().values().map(BTreeSet::len).sum();
    assert_eq!(told, 8, "each VM has one host that took it");
    scheduler.release(&placed.id).await.unwrap();
    let told: usize = hosts.has.lock().unwrap().values().map(BTreeSet::len).sum();
    assert_eq!(told, 0);
}

#[tokio::test]
async fn when_every_host_refuses_nothing_stays_booked() {
    let (state, clock) = embedded();
    let hosts = Arc::new(Stubborn {
        refuse: (0..3).map(|n| format!("r0-h{n}")).collect(),
        ..Stubborn::default()
    });
    let scheduler = scheduler_on(state, clock, hosts);
    scheduler
        .load(&RackLoad {
            inventory: fleet(1, 3),
            replace: false,
        })
        .await
        .unwrap();
    let placed = scheduler.place(&ask(4, 1), None).await.unwrap();
    assert_eq!(
        (placed.fits, names(&placed).len(), booked(&records(&scheduler).await)),
        (false, 0, 0)
    );
    assert_eq!(placed.unplaced.iter().map(|u| u.vms).sum::<u64>(), 4);
}

#[tokio::test]
async fn a_host_that_did_not_hear_that_vms_left_it_is_told_again() {
    let (state, clock) = embedded();
    let hosts = Arc::new(Stubborn::default());
    let scheduler = scheduler_on(state, clock, hosts.clone());
    let load = RackLoad {
        inventory: fleet(2, 3),
        replace: false,
    };
    scheduler.load(&load).await.unwrap();
    let told = || hosts.has.lock().unwrap().values().map(BTreeSet::len).sum::<usize>();
    let placed = scheduler.place(&ask(8, 2), None).await.unwrap();
    assert_eq!(told(), 8);
    let deaf = placed.groups[0].hosts[0].clone();
    hosts.deaf.lock().unwrap().insert(deaf.host.clone());
    scheduler.release(&placed.id).await.unwrap();
    // given back all the same; the host still believes that it has them
    assert_eq!(booked(&records(&scheduler).await), 0);
    assert_eq!(told(), deaf.vms.len());
    scheduler.sweep().await.unwrap();
    assert_eq!(told(), deaf.vms.len(), "it still doesn't hear");
    hosts.deaf.lock().unwrap().clear();
    scheduler.sweep().await.unwrap();
    assert_eq!(told(), 0);
    let (_, record) = scheduler.placement(&placed.id).await.unwrap().unwrap();
    assert!(record.unheard.is_empty());
    assert_eq!(scheduler.sweep().await.unwrap(), 0, "nothing is left to do");
}

/// Tells of hosts as the concern `hosts` does.
async fn tell_of(bus: Arc<bus::InProcess>, hosts: Vec<wire::hosts::HostInfo>) {
    use bus::Bus as _;
    let service = bus::Service {
        concern: wire::ConcernName::new("hosts").unwrap(),
        host: HostId::new("h1").unwrap(),
        endpoints: vec![bus::Endpoint::of::<wire::hosts::HostList>()],
        queue_requests_max: 8,
    };
    let mut incoming = bus.serve(service).await.unwrap();
    tokio::spawn(async move {
        while let Some(delivery) = incoming.next().await {
            let listing = wire::hosts::HostListing { hosts: hosts.clone() };
            delivery
                .responder
                .answer(bus::answer_bytes(Ok(serde_json::to_value(listing).unwrap())));
        }
    });
}

#[tokio::test]
async fn hosts_that_beat_join_and_those_that_are_lost_take_nothing() {
    use wire::Request as _;
    let sample = wire::hosts::HostList::sample_reply().hosts[0].clone();
    let beat = |id: &str, rack: &str, state| {
        let mut info = sample.clone();
        info.host = HostId::new(id).unwrap();
        info.state = state;
        info.facts.rack = Some(rack.into());
        info.facts.row = Some("a".into());
        info.facts.zone = Some("z1".into());
        info.facts.capacity = wire::hosts::HostCapacity {
            vcpus: 8,
            memory_bytes: 8 << 30,
            disk_bytes: 1 << 40,
            gpus: 2,
            nics: 16,
        };
        info
    };
    use wire::hosts::HostState as Beat;
    let (state, clock) = embedded();
    let on = |bus: Arc<bus::InProcess>| {
        let settings = Settings {
            vcpus_sold_percent: 200,
            ..Settings::default()
        };
        Scheduler::new(
            HostId::new("h1").unwrap(),
            state.clone(),
            bus,
            clock.clone(),
            Arc::new(Silent),
            settings,
        )
    };
    let bus = Arc::new(bus::InProcess::new());
    let scheduler = on(bus.clone());
    assert_eq!(
        scheduler.take_beats().await.unwrap_err().kind,
        Kind::Unavailable,
        "nobody tells of hosts"
    );
    tell_of(
        bus,
        vec![
            beat("n1", "r1", Beat::Up),
            beat("n2", "r1", Beat::Up),
            beat("n3", "r2", Beat::Up),
        ],
    )
    .await;
    assert_eq!(scheduler.take_beats().await.unwrap(), 2);
    assert_eq!(
        scheduler.take_beats().await.unwrap(),
        0,
        "the same beats change nothing"
    );
    let report = scheduler.inventory(&RackInventory::default()).await.unwrap();
    assert_eq!(
        (
            report.hosts_total,
            report.racks[0].sold.vcpus,
            report.racks[0].zone.as_str()
        ),
        (3, 32, "z1")
    );
    assert_eq!((report.racks[0].sold.gpus, report.racks[0].sold.nics), (4, 32));
    let placed = scheduler.place(&ask(4, 2), None).await.unwrap();
    // a rack's host falls silent: what is booked stays, and it takes nothing new
    let bus = Arc::new(bus::InProcess::new());
    tell_of(
        bus.clone(),
        vec![
            beat("n1", "r1", Beat::Up),
            beat("n2", "r1", Beat::Up),
            beat("n3", "r2", Beat::Lost),
        ],
    )
    .await;
    let scheduler = on(bus);
    assert_eq!(scheduler.take_beats().await.unwrap(), 1);
    assert_eq!(booked(&records(&scheduler).await), 4);
    assert_eq!(
        scheduler.place(&ask(4, 2), None).await.unwrap_err().kind,
        Kind::Conflict
    );
    // a host that lost memory has less than is booked on it: the inventory says so, and takes it for what it is now
    let bus = Arc::new(bus::InProcess::new());
    let smaller = |id: &str| {
        let mut info = beat(id, "r1", Beat::Up);
        info.facts.capacity.memory_bytes = 1 << 30;
        info
    };
    tell_of(bus.clone(), vec![smaller("n1"), smaller("n2")]).await;
    let scheduler = on(bus);
    assert_eq!(scheduler.take_beats().await.unwrap(), 1);
    let shown = RackInventory {
        rack: Some("r1".into()),
        ..RackInventory::default()
    };
    let report = scheduler.inventory(&shown).await.unwrap();
    let short = report.racks[0].hosts.iter().filter(|h| h.booked.memory_mib > 0);
    for host in short {
        let drift: Vec<_> = host
            .drift
            .iter()
            .map(|d| (d.kind, d.booked.memory_mib, d.actual.memory_mib))
            .collect();
        assert_eq!(drift, vec![(DriftKind::Short, host.booked.memory_mib, 1024)]);
    }
    let drifts: usize = report.racks[0].hosts.iter().map(|h| h.drift.len()).sum();
    assert!(drifts > 0);
    scheduler.release(&placed.id).await.unwrap();
    assert_eq!(booked(&records(&scheduler).await), 0);
}
