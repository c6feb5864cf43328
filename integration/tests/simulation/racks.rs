//! The rack scheduler in a simulated world: one on each host, all on one inventory, none of which waits for another.

use std::collections::{BTreeMap, BTreeSet};

use rack_scheduler::core::invariants;
use rack_scheduler::core::ledger::{PlacementRecord, RackRecord};
use rack_scheduler::engine::{Scheduler, Settings};
use rack_scheduler::port::Silent;
use wire::rack_scheduler::{
    Divide, HostArg, InventoryArg, Level, PlaceArg, PlacementState, RackAsk, RackGrow, RackLoad, RackShrink, Resources,
    VmSpec,
};

use super::host::Ports;
use super::server::Server;

/// Racks, and hosts of each.
const RACKS: usize = 4;
const HOSTS: usize = 2;
/// How long a tentative booking stands, in milliseconds.
const TENTATIVE_MS: u64 = 2_500;
/// Where the records stand at the servers.
const RECORDS: &str = "$KV.windlass.rack_scheduler.racks.";
const PLACEMENTS: &str = "$KV.windlass.rack_scheduler.placements.";

/// What somebody wants of a scheduler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    Place {
        request_id: Option<u64>,
        vms: u64,
        groups: u64,
    },
    /// Of the placement that was made in so many-th place.
    Grow {
        nth: u64,
        vms: u64,
    },
    Shrink {
        nth: u64,
        vms: u64,
    },
    Release {
        nth: u64,
    },
}

/// What clients know of placements.
#[derive(Debug, Default)]
pub struct Known {
    /// In order.
    pub placed: Vec<String>,
    /// Somebody began to give them back.
    pub let_go: BTreeSet<String>,
    /// By request id: what it became.
    pub named: BTreeMap<u64, String>,
}

pub fn scheduler(ports: &Ports) -> Scheduler {
    Scheduler::new(
        ports.host.clone(),
        ports.state.clone(),
        ports.bus.clone(),
        ports.clock.clone(),
        std::sync::Arc::new(Silent),
        Settings {
            tentative_ms: TENTATIVE_MS,
            // small, so that racks keep all they may, and sweeps have something to move out
            residents_bytes_max: 3 << 10,
            ..Settings::default()
        },
    )
}

/// What everybody schedules on.
pub fn inventory() -> RackLoad {
    let racks = (0..RACKS).map(|r| PlaceArg {
        id: format!("r{r}"),
        level: Level::Rack,
        within: None,
    });
    let hosts = (0..RACKS * HOSTS).map(|n| HostArg {
        id: format!("r{}-h{}", n / HOSTS, n % HOSTS),
        rack: format!("r{}", n / HOSTS),
        capacity: Resources {
            vcpus: 8,
            memory_mib: 8_192,
            ..Resources::default()
        },
        labels: BTreeMap::new(),
        state: wire::rack_scheduler::HostState::Up,
    });
    RackLoad {
        inventory: InventoryArg {
            places: racks.collect(),
            hosts: hosts.collect(),
            ..InventoryArg::default()
        },
        replace: false,
    }
}

fn vms(count: u64) -> Vec<VmSpec> {
    vec![VmSpec {
        count,
        vcpus: 2,
        memory_mib: 1_024,
        ..VmSpec::default()
    }]
}

/// Does what is wished; the placement that was made, if one was.
pub async fn grant(scheduler: &Scheduler, wish: &Wish, id: Option<String>) -> Option<String> {
    let (refused, placed) = match (wish, id) {
        (
            Wish::Place {
                request_id,
                vms: count,
                groups,
            },
            _,
        ) => {
            // one request id, one request
            let (count, groups) = request_id.map_or((*count, *groups), |_| (4, 2));
            let ask = RackAsk {
                vms: vms(count),
                divide: Some(Divide::Groups(groups)),
                ..RackAsk::default()
            };
            let request_id = request_id.map(|id| format!("p{id}"));
            match scheduler.place(&ask, request_id.as_deref()).await {
                Ok(placement) => (None, Some(placement.id)),
                Err(e) => (Some(e), None),
            }
        }
        (Wish::Grow { vms: count, .. }, Some(id)) => {
            let grow = RackGrow {
                id,
                vms: vms(*count),
                groups: vec![],
            };
            (scheduler.grow(&grow, None).await.err(), None)
        }
        (Wish::Shrink { vms: count, .. }, Some(id)) => {
            let shrink = RackShrink {
                id,
                count: *count,
                vms: vec![],
            };
            (scheduler.shrink(&shrink).await.err(), None)
        }
        (Wish::Release { .. }, Some(id)) => (scheduler.release(&id).await.err(), None),
        (_, None) => (None, None),
    };
    // whoever asked hears why; the world looks at what is written
    drop(refused);
    placed
}

/// What is wrong with a rack's record, whoever wrote it.
pub fn wrong_with(subject: &str, payload: &[u8]) -> Option<String> {
    let rack = subject.strip_prefix(RECORDS)?;
    let record: RackRecord = serde_json::from_slice(payload).ok()?;
    invariants::of_rack(rack, &record).into_iter().next()
}

fn all<T: serde::de::DeserializeOwned>(server: &mut Server, below: &str) -> BTreeMap<String, T> {
    let subjects = server.subjects("KV_windlass", &format!("{below}*"));
    let found = subjects.iter().filter_map(|subject| {
        let message = server.now_at(subject)?;
        let value = serde_json::from_slice(&message.payload).ok()?;
        Some((subject[below.len()..].to_owned(), value))
    });
    found.collect()
}

/// What is wrong when nobody has anything under way any more: halves of placements, and what was acknowledged and is gone.
pub fn wrong_at_the_end(server: &mut Server, known: &Known) -> Vec<String> {
    let mut racks: BTreeMap<String, RackRecord> = all(server, RECORDS);
    racks.retain(|id, _| !id.starts_with('='));
    let mut placements: BTreeMap<String, PlacementRecord> = all(server, PLACEMENTS);
    for resident in racks.values().flat_map(|rack| &rack.residents) {
        // a placement's own key goes before what its rack says of it
        if let Ok(record) = resident.read() {
            placements.entry(resident.placement.clone()).or_insert(record);
        }
    }
    let standing: Vec<PlacementRecord> = placements
        .into_values()
        .filter(|p| !p.void && p.state != PlacementState::Released)
        .collect();
    let mut wrong = invariants::halves(&racks, &standing);
    let stand: BTreeSet<&String> = standing.iter().map(|p| &p.id).collect();
    let gone = known
        .placed
        .iter()
        .filter(|id| !known.let_go.contains(*id) && !stand.contains(id));
    wrong.extend(gone.map(|id| format!("placement {id} was acknowledged, and is gone")));
    wrong
}
