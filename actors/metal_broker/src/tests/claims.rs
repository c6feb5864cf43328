//! Claims on a fake provider and a state in memory: races, machines that vanish or moved, leases that end, brokers that die.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use runtime::{Clock, ManualClock};
use state::{Database, State};
use wire::HostId;
use wire::metal_broker::{
    Cluster, ClusterAsk, ClusterState, Machine, MachineState, Member, MetalClaim, MetalConfirm, MetalInventory,
    MetalPolicySet, MetalQuarantine, MetalRelease, MetalSelect, MetalShow, RoleAsk,
};

use crate::engine::{Broker, Settings};
use crate::fake::Fake;
use crate::port::{Provider, RackHosts, conformance};
use crate::scenario::{self, Random};
use crate::{Kind, Result};

/// Brokers on one state.
struct House {
    clock: Arc<ManualClock>,
    state: Arc<dyn State>,
    fakes: Vec<Arc<Fake>>,
    racks: Arc<Heard>,
}

/// What the rack scheduler heard.
#[derive(Debug, Default)]
struct Heard {
    hosts: Mutex<BTreeSet<String>>,
    deaf: Mutex<bool>,
}

#[async_trait]
impl RackHosts for Heard {
    async fn join(&self, _: &Member, machine: &Machine) -> Result<()> {
        if *self.deaf.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(crate::MetalError::new(Kind::Unavailable, "deaf"));
        }
        self.hosts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(machine.id.clone());
        Ok(())
    }
    async fn leave(&self, machine: &str) -> Result<()> {
        self.hosts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(machine);
        Ok(())
    }
}

impl House {
    async fn of(fakes: Vec<Fake>) -> (Self, Broker) {
        let clock = Arc::new(ManualClock::new(1_700_000_000_000, 1));
        let shared: Arc<dyn Clock> = clock.clone();
        let state = state::Redb::new(Database::in_memory().unwrap(), runtime::state_clock(&shared));
        let house = Self {
            clock,
            state: Arc::new(state),
            fakes: fakes.into_iter().map(Arc::new).collect(),
            racks: Arc::default(),
        };
        let broker = house.broker("h1");
        broker.refresh().await.unwrap();
        broker.read_providers(None).await;
        (house, broker)
    }
    fn broker(&self, host: &str) -> Broker {
        let providers = self.fakes.iter().map(|f| f.clone() as Arc<dyn Provider>).collect();
        let settings = Settings {
            provider_timeout_ms: 200,
            stock_timeout_ms: 500,
            ..Settings::default()
        };
        Broker::new(
            HostId::new(host).unwrap(),
            self.state.clone(),
            Arc::new(bus::InProcess::new()),
            self.clock.clone(),
            providers,
            self.racks.clone(),
            settings,
        )
    }
}

fn machine(id: &str, rack: &str) -> Machine {
    Machine {
        id: id.into(),
        cores: 32,
        memory_gib: 128,
        nics: 1,
        arch: "x86_64".into(),
        location: "fra".into(),
        zone: "z1".into(),
        rack: rack.into(),
        clean: true,
        ..Machine::default()
    }
}

fn three() -> Fake {
    Fake::new(
        "acme",
        "hall",
        vec![machine("m1", "r1"), machine("m2", "r2"), machine("m3", "r3")],
    )
}

fn claim(nodes: u64) -> MetalClaim {
    MetalClaim {
        tenant: "acme".into(),
        ask: ClusterAsk {
            roles: vec![RoleAsk {
                role: "node".into(),
                count: nodes,
                cores: 16,
                memory_gib: 64,
                per_domain_max: Some(1),
                ..RoleAsk::default()
            }],
            ..ClusterAsk::default()
        },
        policy: None,
    }
}

fn machines(cluster: &Cluster) -> Vec<&str> {
    cluster.members.iter().map(|m| m.machine.as_str()).collect()
}

fn confirm(cluster: &Cluster, machine: &str, up: bool, rack: Option<&str>) -> MetalConfirm {
    MetalConfirm {
        tenant: cluster.tenant.clone(),
        id: cluster.id.clone(),
        machine: machine.into(),
        up,
        rack: rack.map(str::to_owned),
        zone: None,
    }
}

fn release(cluster: &Cluster) -> MetalRelease {
    MetalRelease {
        tenant: cluster.tenant.clone(),
        id: cluster.id.clone(),
    }
}

async fn free(broker: &Broker) -> usize {
    let request = MetalInventory {
        tenant: "acme".into(),
        ..MetalInventory::default()
    };
    let report = broker.inventory(&request).await.unwrap();
    report.machines.iter().filter(|m| m.state == MachineState::Free).count()
}

#[tokio::test]
async fn the_fake_conforms() {
    let expected = conformance::Expected {
        machines: &["m1", "m2", "m3"],
        reserves: true,
        secret: "",
    };
    conformance::all(&three(), expected).await;
}

#[tokio::test]
async fn a_claim_is_leased_confirmed_and_given_back() {
    let (house, broker) = House::of(vec![three()]).await;
    let mut request = claim(2);
    request.ask.rack_hosts = true;
    let cluster = broker.claim(&request, Some("once")).await.unwrap();
    assert_eq!(
        (cluster.state, machines(&cluster)),
        (ClusterState::Leased, vec!["m1", "m2"])
    );
    let again = broker.claim(&request, Some("once")).await.unwrap();
    assert!(again.duplicate && again.id == cluster.id);
    assert_eq!(
        broker.claim(&claim(1), Some("once")).await.unwrap_err().kind,
        Kind::Conflict
    );
    assert_eq!(house.fakes[0].inside().taken.len(), 2);
    assert_eq!(free(&broker).await, 1);
    let refused = broker.claim(&claim(2), None).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Conflict);
    assert!(refused.message.contains("a cluster has it"), "{refused}");
    *house.racks.deaf.lock().unwrap() = true;
    broker
        .confirm(&confirm(&cluster, "m1", true, Some("r1")))
        .await
        .unwrap();
    let up = broker.confirm(&confirm(&cluster, "m2", true, None)).await.unwrap();
    assert_eq!(up.state, ClusterState::Confirmed);
    assert!(house.racks.hosts.lock().unwrap().is_empty());
    *house.racks.deaf.lock().unwrap() = false;
    broker.go_round().await;
    assert_eq!(house.racks.hosts.lock().unwrap().len(), 2, "it is told again");
    // another broker sees the same, and gives it back
    let other = house.broker("h2");
    assert_eq!(
        other.release(&release(&cluster)).await.unwrap().state,
        ClusterState::Released
    );
    assert_eq!(
        other.release(&release(&cluster)).await.unwrap().state,
        ClusterState::Released
    );
    assert!(house.racks.hosts.lock().unwrap().is_empty());
    assert!(house.fakes[0].inside().taken.is_empty());
    assert_eq!((free(&broker).await, free(&other).await), (3, 3));
    assert_eq!(
        broker
            .confirm(&confirm(&cluster, "m1", true, None))
            .await
            .unwrap_err()
            .kind,
        Kind::Conflict
    );
}

#[tokio::test]
async fn a_machine_that_vanished_or_moved_since_is_not_handed_out() {
    let (house, broker) = House::of(vec![three()]).await;
    house.fakes[0].inside().machines.remove("m1");
    house.fakes[0].inside().machines.get_mut("m2").unwrap().rack = "r9".into();
    let cluster = broker.claim(&claim(1), None).await.unwrap();
    assert_eq!(machines(&cluster), ["m3"]);
    // two in two racks can't be had: of those that are left one has gone and one stands elsewhere
    let error = broker.claim(&claim(1), None).await.unwrap_err();
    assert_eq!(error.kind, Kind::Conflict, "{error}");
    assert_eq!(house.fakes[0].inside().taken.len(), 1, "what was tried is given back");
    // its provider is read again: it may be had where it stands
    house.clock.advance(600_000);
    broker.go_round().await;
    let cluster = broker.claim(&claim(1), None).await.unwrap();
    assert_eq!(
        (machines(&cluster), cluster.members[0].rack.as_str()),
        (vec!["m2"], "r9")
    );
}

#[tokio::test]
async fn one_that_does_not_come_up_or_comes_up_elsewhere_is_quarantined_and_replaced() {
    let (house, broker) = House::of(vec![three()]).await;
    let cluster = broker.claim(&claim(1), None).await.unwrap();
    let cluster = broker.confirm(&confirm(&cluster, "m1", false, None)).await.unwrap();
    assert_eq!(
        (machines(&cluster), &cluster.replaced[..]),
        (vec!["m2"], &["m1".to_owned()][..])
    );
    let cluster = broker
        .confirm(&confirm(&cluster, "m2", true, Some("r7")))
        .await
        .unwrap();
    assert_eq!((machines(&cluster), cluster.state), (vec!["m3"], ClusterState::Leased));
    // and where nothing is left the claim fails, and all of it is given back
    let error = broker
        .confirm(&confirm(&cluster, "m3", true, Some("r8")))
        .await
        .unwrap_err();
    assert_eq!(error.kind, Kind::Conflict);
    assert!(error.message.contains("the claim failed"), "{error}");
    let request = MetalShow {
        tenant: "acme".into(),
        id: cluster.id.clone(),
    };
    assert_eq!(broker.show(&request).await.unwrap().state, ClusterState::Released);
    assert!(house.fakes[0].inside().taken.is_empty());
    assert_eq!(free(&broker).await, 0);
    let lift = MetalQuarantine {
        tenant: "acme".into(),
        machine: "m2".into(),
        lift: true,
        why: String::new(),
    };
    broker.quarantine(&lift).await.unwrap();
    assert_eq!(machines(&broker.claim(&claim(1), None).await.unwrap()), ["m2"]);
}

#[tokio::test]
async fn a_lease_that_ends_replaces_the_machine() {
    let (house, broker) = House::of(vec![three()]).await;
    let cluster = broker.claim(&claim(2), None).await.unwrap();
    broker.confirm(&confirm(&cluster, "m1", true, None)).await.unwrap();
    broker.go_round().await;
    house.clock.advance(broker.settings.lease_ms);
    // a clock of another host says nothing: whoever saw it first only now waits a lease of its own
    let other = house.broker("h2");
    other.go_round().await;
    let show = MetalShow {
        tenant: "acme".into(),
        id: cluster.id.clone(),
    };
    assert_eq!(machines(&broker.show(&show).await.unwrap()), ["m1", "m2"]);
    broker.go_round().await;
    assert_eq!(machines(&broker.show(&show).await.unwrap()), ["m1", "m3"]);
}

#[tokio::test]
async fn what_a_dead_broker_left_half_claimed_is_dropped() {
    let (house, broker) = House::of(vec![three()]).await;
    // killed at each point of waiting: the state and the provider answer at once, so each poll is a step
    for steps in 1..40 {
        let dead = house.broker("h9");
        dead.refresh().await.unwrap();
        house.fakes[0].inside().late = Duration::from_millis(1);
        let request = claim(2);
        let mut work = Box::pin(dead.claim(&request, None));
        for _ in 0..steps {
            if futures::poll!(work.as_mut()).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
        drop(work);
        house.fakes[0].inside().late = Duration::ZERO;
        // a look catches up with all that was written; the round then sees it
        free(&broker).await;
        broker.go_round().await;
        house.clock.advance(broker.settings.tentative_ms);
        broker.go_round().await;
        broker.go_round().await;
        let listing = broker
            .list(&wire::metal_broker::MetalList {
                tenant: "acme".into(),
                after: None,
            })
            .await
            .unwrap();
        for row in listing.clusters {
            assert_ne!(row.state, ClusterState::Claiming, "step {steps}");
            if row.state == ClusterState::Leased {
                broker
                    .release(&MetalRelease {
                        tenant: "acme".into(),
                        id: row.id,
                    })
                    .await
                    .unwrap();
            }
        }
        assert_eq!(free(&broker).await, 3, "step {steps}");
        assert!(house.fakes[0].inside().taken.is_empty(), "step {steps}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_brokers_for_one_machine_one_wins_each_of_a_thousand_rounds() {
    let (house, one) = House::of(vec![Fake::new("acme", "hall", vec![machine("m1", "r1")])]).await;
    let two = house.broker("h2");
    two.refresh().await.unwrap();
    for round in 0..1_000 {
        let (first, second) = (one.clone(), two.clone());
        let (a, b) = tokio::join!(
            tokio::spawn(async move { first.claim(&claim(1), None).await }),
            tokio::spawn(async move { second.claim(&claim(1), None).await }),
        );
        let won: Vec<Cluster> = [a.unwrap(), b.unwrap()].into_iter().flatten().collect();
        assert_eq!(won.len(), 1, "round {round}");
        assert_eq!(
            house.fakes[0].inside().taken.get("m1"),
            Some(&won[0].id),
            "round {round}"
        );
        one.release(&release(&won[0])).await.unwrap();
    }
}

#[tokio::test]
async fn nothing_of_one_tenant_is_seen_by_another() {
    let other = Fake::new("globex", "hall", vec![machine("g1", "r1")]);
    let (_, broker) = House::of(vec![three(), other]).await;
    let cluster = broker.claim(&claim(1), Some("same id")).await.unwrap();
    let mut theirs = claim(1);
    theirs.tenant = "globex".into();
    let second = broker.claim(&theirs, Some("same id")).await.unwrap();
    assert_eq!(machines(&second), ["g1"]);
    let refused = broker.claim(&theirs, None).await.unwrap_err();
    assert!(
        !refused.message.contains("m2") && !refused.message.contains("acme"),
        "{refused}"
    );
    // another's cluster and machine are as if they were not
    let absent = MetalShow {
        tenant: "globex".into(),
        id: cluster.id.clone(),
    };
    assert_eq!(broker.show(&absent).await.unwrap_err().kind, Kind::NotFound);
    let mut request = release(&cluster);
    request.tenant = "globex".into();
    assert_eq!(broker.release(&request).await.unwrap_err().kind, Kind::NotFound);
    let quarantine = MetalQuarantine {
        tenant: "globex".into(),
        machine: "m2".into(),
        lift: false,
        why: String::new(),
    };
    assert_eq!(broker.quarantine(&quarantine).await.unwrap_err().kind, Kind::NotFound);
    // a policy of one is not the other's
    let policy = MetalPolicySet {
        tenant: "globex".into(),
        text: "name = \"none\"\n[[rules]]\nname = \"n\"\nallow = \"false\"\n".into(),
    };
    broker.policy_set(&policy).await.unwrap();
    let select = MetalSelect {
        tenant: "acme".into(),
        ask: claim(1).ask,
        policy: None,
    };
    assert_eq!(broker.select(&select).await.unwrap().policy, "least_excess");
    let nobody = MetalSelect {
        tenant: "nobody".into(),
        ..select
    };
    assert_eq!(broker.select(&nobody).await.unwrap_err().kind, Kind::NotFound);
}

#[tokio::test]
async fn a_provider_that_is_down_slow_or_tells_nonsense_leaves_what_was_known() {
    let mut random = Random(7);
    let hall = Fake::new("acme", "big", scenario::machines(&mut random, 300, 9));
    let (house, broker) = House::of(vec![three(), hall]).await;
    let request = MetalInventory {
        tenant: "acme".into(),
        refresh: true,
        after: None,
    };
    let total = broker.inventory(&request).await.unwrap().machines_total;
    assert_eq!(total, 303);
    let told = |report: &wire::metal_broker::InventoryReport| {
        let hall = report.providers.iter().find(|p| p.name == "hall").unwrap();
        hall.troubles.join("; ")
    };
    house.fakes[0].inside().down = true;
    let report = broker.inventory(&request).await.unwrap();
    assert_eq!(report.machines_total, 303);
    assert!(told(&report).contains("doesn't answer"), "{}", told(&report));
    house.fakes[0].inside().down = false;
    house.fakes[0].inside().late = Duration::from_secs(60);
    let report = broker.inventory(&request).await.unwrap();
    assert!(told(&report).contains("didn't tell all"), "{}", told(&report));
    assert_eq!(report.machines_total, 303);
    house.fakes[0].inside().late = Duration::ZERO;
    house.fakes[0].inside().unread = vec!["m2".into()];
    house.fakes[0].inside().machines.get_mut("m3").unwrap().cores = 0;
    let report = broker.inventory(&request).await.unwrap();
    assert_eq!(report.machines_total, 302, "m2 stays, m3 says no cores and goes");
    assert!(
        told(&report).contains("m3") && told(&report).contains("m2"),
        "{}",
        told(&report)
    );
    // a million machines are too many, and change nothing
    house.fakes[0].inside().unread.clear();
    let many = (0..1_000_000).map(|n| (format!("x{n}"), Machine::default()));
    house.fakes[0].inside().machines = many.collect();
    let mut patient = house.broker("h2");
    patient.settings.stock_timeout_ms = 60_000;
    patient.refresh().await.unwrap();
    let report = patient.inventory(&request).await.unwrap();
    assert_eq!(report.machines_total, 302);
    assert!(told(&report).contains("more than"), "{}", told(&report));
}
