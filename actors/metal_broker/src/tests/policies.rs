//! Policies: what is refused before it runs, what errs, and what is shipped.

use wire::metal_broker::{ClusterAsk, Machine, RoleAsk};

use crate::Kind;
use crate::core::policy::{Policy, shipped};
use crate::tests::exact::Bench;

fn rule(allow: &str) -> String {
    format!("name = \"p\"\n[[rules]]\nname = \"r\"\nallow = '''{allow}'''\n")
}

fn refused(text: &str) -> String {
    let error = Policy::read(text).expect_err(text);
    assert_eq!(error.kind, Kind::Invalid);
    error.message
}

fn machine(id: &str, gpus: u64) -> Machine {
    Machine {
        id: id.into(),
        cores: 32,
        memory_gib: 128,
        gpus,
        nics: 1,
        arch: "x86_64".into(),
        location: "fra".into(),
        zone: "z".into(),
        rack: format!("r-{id}"),
        clean: true,
        ..Machine::default()
    }
}

fn ask(count: u64) -> ClusterAsk {
    ClusterAsk {
        roles: vec![RoleAsk {
            role: "node".into(),
            count,
            cores: 8,
            memory_gib: 8,
            ..RoleAsk::default()
        }],
        ..ClusterAsk::default()
    }
}

#[test]
fn what_is_shipped_can_be_read() {
    for (name, text) in shipped::SHIPPED {
        assert_eq!(Policy::read(text).unwrap().name, *name);
    }
    assert_eq!(shipped::text("none").unwrap_err().kind, Kind::NotFound);
}

#[test]
fn what_names_nothing_is_refused_with_what_there_is() {
    assert!(refused(&rule("machine.cors > 1")).contains("cores"));
    assert!(refused(&rule("cluster.gpu > 1")).contains("gpus"));
    assert!(refused(&rule("machin.cores > 1")).contains("machine, cluster, rack and time"));
    assert!(refused(&rule("rack.size > 1")).contains("free"));
    assert!(refused(&rule("machine.cores >")).contains("can't be compiled"));
    assert!(refused("name = \"p\"\nwishes = 1\n").contains("wishes"));
    assert!(refused("name = \"p\"\n[weights]\ncores = -1.0\n").contains("from 0"));
    assert!(refused("name = \"p\"\n[weights]\ncores = nan\n").contains("from 0"));
    assert!(refused("name = \"no name\"\n").contains("not a name"));
}

#[test]
fn a_policy_that_never_ends_never_begins() {
    let list = format!("[{}]", vec!["1"; 100].join(","));
    let nested = format!("{list}.all(a, {list}.all(b, {list}.all(c, {list}.all(d, a + b + c + d > 0))))");
    assert!(refused(&rule(&nested)).contains("steps"));
    // what a loop makes is as long as what it was made from: doubling is seen, too
    let doubled = "[machine.features.map(a, machine.features.map(b, a + b))].all(x, x.all(y, y.all(z, z != '')))";
    assert!(refused(&rule(doubled)).contains("steps"));
    let deep = format!("{}true{}", "(".repeat(3_000), ")".repeat(3_000));
    refused(&rule(&deep));
    refused(&rule(&format!("{}{}", "[".repeat(2_000), "]".repeat(2_000))));
    refused(&rule(&format!("{}1{} > 0", "-(".repeat(1_000), ")".repeat(1_000))));
    assert!(refused(&rule(&"a".repeat(5_000))).contains("bytes"));
    let many: String = (0..65)
        .map(|n| format!("[[rules]]\nname = \"{n}\"\nallow = \"true\"\n"))
        .collect();
    assert!(refused(&format!("name = \"p\"\n{many}")).contains("more than"));
    // a loop over what a machine has is fine
    let fine = Policy::read(&rule("machine.features.all(f, f != 'slow')")).unwrap();
    let cost = fine.rules[0].facts.cost;
    assert!(cost > 256, "each of the features costs a step: {cost}");
}

#[test]
fn what_is_read_decides_how_often_a_rule_is_asked() {
    let facts = |allow: &str| Policy::read(&rule(allow)).unwrap().rules[0].facts;
    let own = facts("machine.cores > 4");
    assert!(!own.per_machine && !own.per_ask);
    let asked = facts("machine.gpus == 0 || cluster.gpus > 0");
    assert!(!asked.per_machine && asked.per_ask);
    assert!(facts("machine.wear_percent < 50").per_machine);
    assert!(facts("rack.free > 2").per_machine);
    assert!(facts("size(machine) > 0").per_machine);
    assert!(facts("time.hour < 20").per_ask);
    // a name that a loop binds hides the outer one
    assert!(!facts("['a'].all(machine, machine != '')").per_machine);
}

#[test]
fn a_rule_that_errs_excludes_nothing_and_is_told() {
    for allow in [
        "machine.cores / machine.gpus > 1",
        "machine.labels.lake == 'near'",
        "machine.cores",
        "machine.cores > 'many'",
        "machine.cores * 9223372036854775807 > 0",
    ] {
        let bench = Bench::of(
            vec![machine("a", 0), machine("b", 0)],
            Policy::read(&rule(allow)).unwrap(),
        );
        let told = bench.select(&ask(2));
        assert!(told.fits, "{allow}");
        assert_eq!(told.rule_errors.len(), 1, "{allow}: {told:?}");
        assert_eq!(told.rule_errors[0].rule, "r");
        let required = rule(allow).replace("name = \"r\"", "name = \"r\"\nrequired = true");
        let bench = Bench::of(vec![machine("a", 0), machine("b", 0)], Policy::read(&required).unwrap());
        let error = bench.try_select(&ask(2)).expect_err(allow);
        assert_eq!(error.kind, Kind::Invalid);
        assert!(error.message.contains("required rule 'r'"), "{error}");
    }
}

#[test]
fn scores_are_bounded_and_count() {
    let scored = |value: &str| {
        let text = format!("name = \"p\"\n[[scores]]\nname = \"s\"\nweight = 2.0\nvalue = '''{value}'''\n");
        let bench = Bench::of(vec![machine("a", 0), machine("b", 0)], Policy::read(&text).unwrap());
        bench.select(&ask(1))
    };
    assert_eq!(scored("machine.id == 'a' ? 1.0 : 0.0").chosen[0].machine, "b");
    assert_eq!(scored("machine.id == 'b' ? 7 : 0").chosen[0].machine, "a");
    let most = scored("1000000.0");
    assert!(
        most.chosen[0]
            .terms
            .iter()
            .any(|t| t.name == "s" && t.cost_millionths == 2_000_000)
    );
    assert_eq!(scored("-5.0").chosen[0].machine, "a");
    assert_eq!(scored("1.0 / 0.0").rule_errors.len(), 1);
    assert_eq!(scored("'far'").rule_errors.len(), 1);
}

#[test]
fn shipped_policies_do_what_they_say() {
    let by = |name: &str, machines: Vec<Machine>, ask: &ClusterAsk| {
        Bench::of(machines, Policy::read(shipped::text(name).unwrap()).unwrap()).select(ask)
    };
    let told = by("keep_gpu_for_gpu", vec![machine("gpu", 4)], &ask(1));
    assert!(!told.fits && told.missing[0].why.contains("GPUs are kept"), "{told:?}");
    let mut cheap = machine("cheap", 0);
    cheap.cores = 256;
    let mut dear = machine("dear", 0);
    dear.price_class = 1;
    let both = vec![cheap, dear];
    assert_eq!(by("cheapest", both.clone(), &ask(1)).chosen[0].machine, "cheap");
    assert_eq!(by("least_excess", both, &ask(1)).chosen[0].machine, "dear");
    let mut near = machine("b", 0);
    near.rack = "r-a".into();
    let mut far = machine("c", 0);
    (far.cores, far.memory_gib) = (64, 512);
    let three = vec![machine("a", 0), near, far];
    let racks = |told: wire::metal_broker::Selection| told.chosen.into_iter().map(|c| c.rack).collect::<Vec<_>>();
    assert_eq!(racks(by("spread", three.clone(), &ask(2))), ["r-a", "r-c"]);
    assert_eq!(racks(by("least_excess", three, &ask(2))), ["r-a", "r-a"]);
}
