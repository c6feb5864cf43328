//! What is asked for and what there is: bad figures, the first failing rule, what would have to change, tenants.

use wire::metal_broker::{ClusterAsk, Health, Machine, RoleAsk};

use crate::Kind;
use crate::core::ask::check;
use crate::core::forecast::tail;
use crate::core::machine::{flaw, sound};
use crate::core::verify;
use crate::tests::exact::{Bench, least};

fn machine(id: &str) -> Machine {
    Machine {
        id: id.into(),
        cores: 32,
        memory_gib: 128,
        disk_gib: 500,
        nics: 2,
        nic_gbps: 25,
        arch: "x86_64".into(),
        location: "fra".into(),
        zone: "z1".into(),
        rack: "r1".into(),
        clean: true,
        ..Machine::default()
    }
}

fn ask(cores: u64, memory_gib: u64) -> ClusterAsk {
    ClusterAsk {
        roles: vec![RoleAsk {
            role: "node".into(),
            count: 1,
            cores,
            memory_gib,
            ..RoleAsk::default()
        }],
        ..ClusterAsk::default()
    }
}

#[test]
fn figures_that_cannot_be_are_left_out_and_told() {
    let with = |change: fn(&mut Machine)| {
        let mut m = machine("m1");
        change(&mut m);
        m
    };
    assert_eq!(flaw(&machine("m1")), None);
    type Slip = (fn(&mut Machine), &'static str);
    let wrong: [Slip; 12] = [
        (|m| m.cores = 0, "no cores"),
        (|m| m.memory_gib = 0, "no cores or no memory"),
        (|m| m.cores = 1_000_000, "can't be"),
        (|m| m.memory_gib = u64::MAX, "can't be"),
        (|m| m.nics = 0, "no network interface"),
        (|m| m.gpu_model = Some("a100".into()), "no GPU"),
        (|m| m.wear_percent = 101, "worn"),
        (|m| m.price_class = 10, "price class"),
        (|m| m.id = "a/b".into(), "not a name"),
        (|m| m.rack = String::new(), "not a name"),
        (|m| m.arch = "x".repeat(65), "not a name"),
        (|m| drop(m.labels.insert("k".into(), "v".repeat(300))), "too long"),
    ];
    for (change, word) in wrong {
        let why = flaw(&with(change)).expect(word);
        assert!(why.contains(word), "{why}");
    }
    let (good, troubles) = sound(vec![machine("b"), machine("a"), machine("b"), with(|m| m.cores = 0)]);
    let ids: Vec<&str> = good.iter().map(|m| m.id.as_str()).collect();
    assert_eq!(ids, ["a", "b"]);
    assert_eq!(troubles.len(), 2, "{troubles:?}");
}

#[test]
fn requests_that_contradict_themselves_are_refused() {
    let with = |change: fn(&mut ClusterAsk)| {
        let mut a = ask(1, 1);
        change(&mut a);
        check(&a)
    };
    assert!(check(&ask(1, 1)).is_ok());
    let wrong: [fn(&mut ClusterAsk); 12] = [
        |a| a.roles.clear(),
        |a| a.roles[0].count = 0,
        |a| a.roles[0].count = 257,
        |a| a.roles[0].count = u64::MAX,
        |a| a.roles[0].cores = u64::MAX,
        |a| a.roles[0].per_domain_max = Some(0),
        |a| a.roles[0].gpu_model = Some("a100".into()),
        |a| a.roles[0].role = "no name".into(),
        |a| a.roles.push(a.roles[0].clone()),
        |a| a.headroom_percent = 1_001,
        |a| a.price_class_max = Some(10),
        |a| a.location = Some("..".into()),
    ];
    for (n, change) in wrong.into_iter().enumerate() {
        assert_eq!(with(change).expect_err("it is wrong").kind, Kind::Invalid, "case {n}");
    }
    // room to grow is rounded up, and counts for cores, memory and disk alone
    let mut grows = ask(3, 10);
    (grows.headroom_percent, grows.roles[0].gpus) = (10, 1);
    assert_eq!(check(&grows).unwrap()[0].need.amounts, [4, 11, 0, 1, 0, 0]);
}

#[test]
fn the_first_failing_rule_and_what_would_have_to_change_are_told() {
    let mut small = machine("small");
    small.memory_gib = 32;
    let mut far = machine("far");
    far.location = "ams".into();
    let mut broken = machine("broken");
    broken.health = Health::Critical;
    let mut dirty = machine("dirty");
    dirty.clean = false;
    let mut big = machine("big");
    big.cores = 64;
    let bench = Bench::of(vec![machine("right"), small, far, broken, dirty, big], least());
    let mut wanted = ask(16, 64);
    (wanted.location, wanted.clean) = (Some("fra".into()), true);
    let told = bench.explain(&wanted);
    assert_eq!(told.selection.chosen[0].machine, "right");
    let why = |id: &str| told.others.iter().find(|o| o.machine == id).unwrap();
    assert_eq!(
        why("small").fails.as_deref(),
        Some("has 32 GiB of memory, 64 are needed")
    );
    assert_eq!(why("small").change, "32 more GiB of memory");
    assert_eq!(why("far").fails.as_deref(), Some("its location is ams, fra is needed"));
    assert_eq!(why("broken").fails.as_deref(), Some("its health is critical"));
    assert_eq!(why("dirty").fails.as_deref(), Some("rule: it isn't clean"));
    // 32 more cores of 64, at a weight of 1
    assert_eq!(why("big").costs_more_millionths, Some(500_000));
    assert_eq!(why("big").terms[0].name, "excess.cores");
    assert!(why("big").change.contains("excess.cores"), "{}", why("big").change);
    // and where nothing does, what most fail by
    let told = bench.select(&ask(64, 512));
    assert!(!told.fits && told.chosen.is_empty());
    assert_eq!(told.missing[0].nodes, 1);
    assert!(told.missing[0].change.contains("more"), "{:?}", told.missing);
}

#[test]
fn a_machine_that_changed_since_is_not_as_promised() {
    let bench = Bench::of(vec![machine("m1")], least());
    let roles = check(&ask(16, 64)).unwrap();
    let promised = bench.members(&ask(16, 64));
    let now = |change: fn(&mut Machine)| {
        let mut m = machine("m1");
        change(&mut m);
        verify::differs(&promised[0], &roles[0].need, &m)
    };
    assert_eq!(now(|_| {}), None);
    assert!(now(|m| m.rack = "r2".into()).unwrap().contains("rack r2"));
    assert!(now(|m| m.zone = "z2".into()).unwrap().contains("zone z2"));
    assert!(now(|m| m.memory_gib = 63).unwrap().contains("63 GiB of memory"));
    assert!(now(|m| m.health = Health::Critical).is_some());
    assert!(now(|m| m.cores = 0).is_some());
    assert_eq!(verify::elsewhere(&promised[0], Some("r1"), Some("z1")), None);
    assert!(verify::elsewhere(&promised[0], Some("r9"), None).is_some());
    assert!(verify::elsewhere(&promised[0], None, Some("z9")).is_some());
}

#[test]
fn the_tail_of_what_comes_is_that_of_poisson() {
    assert_eq!(tail(0.0, 0), 0.0);
    // 1 - e^-1, 1 - 2/e
    assert!((tail(1.0, 0) - 0.632_120_558).abs() < 1e-8);
    assert!((tail(1.0, 1) - 0.264_241_117).abs() < 1e-8);
    assert!((tail(400.0, 400) - 0.49).abs() < 0.01);
    assert_eq!(tail(1.0, 1_000_000), 0.0);
    assert!(tail(f64::NAN, 3) == 0.0);
    for free in 0..50 {
        assert!(tail(10.0, free) >= tail(10.0, free + 1));
    }
}
