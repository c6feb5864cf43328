//! Five schedulers on one inventory, each with several requests under way, by seed: which request takes the next step is rolled,
//! and any scheduler may die between any two steps, with all of its requests. After every write no host is oversold; at the end,
//! when the sweep went over what the dead left, booked is exactly what is committed, and everything that was acknowledged stands.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use futures::task::noop_waker;
use runtime::ManualClock;
use wire::HostId;
use wire::rack_scheduler::{
    HostState, PlacementState, RackAsk, RackEvacuate, RackGrow, RackList, RackLoad, RackMark, RackQuota, RackShrink,
    Resources,
};

use super::asks::{ask, fleet, vms};
use crate::core::invariants;
use crate::core::ledger::{PlacementRecord, RackRecord, TenantRecord};
use crate::engine::{Scheduler, Settings};
use crate::port::Silent;
use crate::scenario::Dice;
use state::Slow;

const SCHEDULERS: usize = 5;
/// Requests of one scheduler that are under way at once.
const AT_ONCE: usize = 3;
const RACKS: u64 = 8;
/// Steps of simulated time, in milliseconds.
const STEP_MS: u64 = 7;

type Task = Pin<Box<dyn Future<Output = Option<String>>>>;

struct World {
    state: Arc<Slow>,
    clock: Arc<ManualClock>,
    dice: Dice,
    schedulers: Vec<Scheduler>,
    tasks: Vec<Option<Task>>,
    known: Vec<String>,
    /// Placements whose caller heard that they stand.
    acknowledged: BTreeSet<String>,
    /// Placements that somebody began to release.
    let_go: BTreeSet<String>,
    begun: u64,
    died: u64,
    writes_checked: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let state = Arc::new(Slow::default());
        let clock = Arc::new(ManualClock::new(1_000_000, seed));
        let mut world = Self {
            schedulers: vec![],
            tasks: (0..SCHEDULERS * AT_ONCE).map(|_| None).collect(),
            state,
            clock,
            dice: Dice::new(seed),
            known: vec![],
            acknowledged: BTreeSet::new(),
            let_go: BTreeSet::new(),
            begun: 0,
            died: 0,
            writes_checked: 0,
        };
        world.schedulers = (0..SCHEDULERS).map(|n| world.scheduler(n)).collect();
        world
    }

    fn scheduler(&self, n: usize) -> Scheduler {
        Scheduler::new(
            HostId::new(&format!("h{n}")).unwrap(),
            self.state.clone(),
            Arc::new(bus::InProcess::new()),
            self.clock.clone(),
            Arc::new(Silent),
            Settings {
                tentative_ms: 400,
                // small, so that racks keep all they may, and sweeps have something to move out
                residents_bytes_max: 4 << 10,
                ..Settings::default()
            },
        )
    }

    /// What a scheduler does next; ends with the id of a placement that it made.
    fn request(&mut self, n: usize) -> Task {
        self.begun += 1;
        let scheduler = self.schedulers[n].clone();
        let id = (!self.known.is_empty()).then(|| {
            let at = self.dice.between(0, self.known.len() as u64 - 1);
            self.known[at as usize].clone()
        });
        let (roll, count) = (self.dice.between(0, 99), self.dice.between(1, 6));
        let host = format!("r{}-h{}", self.dice.between(0, RACKS - 1), self.dice.between(0, 2));
        // some request ids come twice, from another scheduler too
        let request_id = format!("q{}", self.dice.between(0, 40 + self.begun));
        let with_id = self.dice.percent(50);
        let groups = self.dice.between(1, 2);
        if let (70..=91, Some(id)) = (roll, &id) {
            self.let_go.insert(id.clone());
        }
        Box::pin(async move {
            match (roll, id) {
                (0..=44, _) | (_, None) => {
                    let request = RackAsk {
                        tenant: (roll % 3 == 0).then(|| "ads".to_owned()),
                        seed: 1,
                        ..ask(count.max(2), groups)
                    };
                    let request_id = with_id.then_some(request_id.as_str());
                    scheduler.place(&request, request_id).await.ok().map(|p| p.id)
                }
                (45..=59, Some(id)) => {
                    let request = RackGrow {
                        id,
                        vms: vec![vms(count, 1, 256)],
                        groups: vec![],
                    };
                    {
                        let _refused = scheduler.grow(&request, None).await;
                        None
                    }
                }
                (60..=69, Some(id)) => {
                    let request = RackShrink { id, count, vms: vec![] };
                    {
                        let _refused = scheduler.shrink(&request).await;
                        None
                    }
                }
                (70..=91, Some(id)) => {
                    let _refused = scheduler.release(&id).await;
                    None
                }
                (92..=94, _) => {
                    let request = RackEvacuate {
                        host: Some(host),
                        rack: None,
                        state: HostState::Draining,
                        move_groups: true,
                    };
                    {
                        let _refused = scheduler.evacuate(&request).await;
                        None
                    }
                }
                (95..=97, _) => {
                    let request = RackMark {
                        host,
                        state: HostState::Up,
                    };
                    {
                        let _refused = scheduler.mark(&request).await;
                        None
                    }
                }
                _ => {
                    let _refused = scheduler.sweep().await;
                    None
                }
            }
        })
    }

    fn step(&mut self, deaths_percent: u64) {
        self.clock.advance(STEP_MS);
        let slot = self.dice.between(0, (SCHEDULERS * AT_ONCE) as u64 - 1) as usize;
        let n = slot / AT_ONCE;
        if self.tasks[slot].is_none() {
            self.tasks[slot] = Some(self.request(n));
        }
        if self.dice.percent(deaths_percent) {
            // dies here, between two steps; its successor knows nothing
            let all = n * AT_ONCE..(n + 1) * AT_ONCE;
            self.tasks[all].iter_mut().for_each(|task| *task = None);
            self.schedulers[n] = self.scheduler(n);
            self.died += 1;
            return;
        }
        let waker = noop_waker();
        let task = self.tasks[slot].as_mut().expect("there is one");
        if let Poll::Ready(id) = task.as_mut().poll(&mut Context::from_waker(&waker)) {
            self.acknowledged.extend(id.clone());
            self.known.extend(id);
            self.tasks[slot] = None;
            if self.known.len() > 60 {
                self.known.remove(0);
            }
        }
    }

    /// Drives one future to its end, alone.
    fn alone<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = Box::pin(future);
        let waker = noop_waker();
        loop {
            if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return value;
            }
        }
    }

    fn racks(&self) -> BTreeMap<String, RackRecord> {
        self.alone(crate::tests::standing::records(&self.scheduler(0)))
    }

    fn check_no_host_is_oversold(&mut self) {
        let writes = self.state.writes.load(Ordering::SeqCst);
        if writes != self.writes_checked {
            self.writes_checked = writes;
            self.racks();
        }
    }
}

/// A group is in one rack.
fn check_homes(records: &[PlacementRecord]) {
    for group in records.iter().flat_map(|record| &record.groups) {
        let racks: BTreeSet<_> = group.on.iter().map(|o| o.host.split('-').next().unwrap()).collect();
        assert!(racks.len() <= 1, "group {} is in racks {racks:?}", group.name);
    }
}

fn run(seed: u64, requests: u64) {
    let mut world = World::new(seed);
    let first = world.scheduler(0);
    world.alone(async {
        let inventory = fleet(RACKS, 3);
        first
            .load(&RackLoad {
                inventory,
                replace: false,
            })
            .await
            .unwrap();
        let quota = Resources {
            vcpus: 60,
            ..Resources::default()
        };
        let tenant = "ads".to_owned();
        first
            .quota(&RackQuota {
                tenant,
                quota: Some(quota),
            })
            .await
            .unwrap();
    });
    let mut steps = 0u64;
    while world.begun < requests {
        world.step(1);
        steps += 1;
        if steps.is_multiple_of(8) {
            world.check_no_host_is_oversold();
        }
    }
    // everyone dies; those who come after find out what was decided
    world.tasks.iter_mut().for_each(|t| *t = None);
    world.clock.advance(10_000);
    let last = world.scheduler(0);
    let (racks, records, tenant) = world.alone(async {
        for _ in 0..4 {
            last.sweep().await.unwrap();
        }
        let racks = crate::tests::standing::records(&last).await;
        let mut records = vec![];
        let listing = last.list(&RackList::default()).await.unwrap();
        for listed in &listing.placements {
            records.push(last.known(&listed.id).await.unwrap().unwrap());
        }
        let quota = RackQuota {
            tenant: "ads".into(),
            quota: Some(Resources::default()),
        };
        (racks, records, last.quota(&quota).await.unwrap())
    });
    let context = format!(
        "seed {seed}: {} requests, {steps} steps, {} deaths",
        world.begun, world.died
    );
    assert!(world.died > requests / 50, "{context}");
    assert!(
        records
            .iter()
            .all(|r| r.state == PlacementState::Placed && r.leaving.is_empty()),
        "{context}"
    );
    check_homes(&records);
    assert_eq!(invariants::halves(&racks, &records), Vec::<String>::new(), "{context}");
    for (id, record) in &racks {
        assert_eq!(invariants::of_rack(id, record), Vec::<String>::new(), "{context}");
    }
    let stand: BTreeSet<&String> = records.iter().map(|r| &r.id).collect();
    let lost = |id: &&String| !world.let_go.contains(*id) && !stand.contains(*id);
    let lost: Vec<&String> = world.acknowledged.iter().filter(lost).collect();
    assert!(lost.is_empty(), "{context}: acknowledged, and gone: {lost:?}");
    let residents: usize = racks.values().map(|r| r.residents.len()).sum();
    let mut of_ads = TenantRecord::default();
    for record in records.iter().filter(|r| r.ask.tenant.is_some()) {
        of_ads.set(&record.id, &record.changes, record.sums(), record.revision);
    }
    assert_eq!(tenant.booked.vcpus, of_ads.booked()[0], "{context}");
    // what everyone gives back leaves nothing
    world.alone(async {
        for record in &records {
            last.release(&record.id).await.unwrap();
        }
        assert!(
            crate::tests::standing::records(&last)
                .await
                .values()
                .all(|r| r.bookings.is_empty())
        );
    });
    eprintln!(
        "{context}; {} acknowledged, {} placements stood, {residents} of them with their rack",
        world.acknowledged.len(),
        records.len()
    );
}

#[test]
fn five_schedulers_that_die_anywhere_never_oversell() {
    let seed: u64 = std::env::var("WINDLASS_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(1);
    let requests: u64 = std::env::var("WINDLASS_RACK_REQUESTS")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(6_000);
    const RUN: u64 = 1_000;
    for n in 0..requests.div_ceil(RUN) {
        run(seed.wrapping_add(n), RUN.min(requests));
    }
}
