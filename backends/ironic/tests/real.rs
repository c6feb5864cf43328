//! Against OpenStack Ironic itself, standalone, with its fake hardware.

use integration::bare_metal;
use metal_broker::Kind;
use metal_broker::port::Provider;
use metal_broker::port::conformance::{self, Expected};
use windlass_ironic::{Ironic, Settings};

fn settings(url: &str) -> Settings {
    Settings {
        tenant: "acme".into(),
        kind: "ironic".into(),
        url: url.into(),
        token_file: None,
        answer_timeout_ms: 20_000,
        any_certificate: false,
    }
}

fn node(n: u64, cpus: u64) -> String {
    format!(
        "{{\"name\": \"node-{n}\", \"driver\": \"fake-hardware\", \"resource_class\": \"large\", \
         \"properties\": {{\"cpus\": {cpus}, \"memory_mb\": 131072, \"local_gb\": 480, \"cpu_arch\": \"x86_64\", \
         \"capabilities\": \"sriov:true\"}}, \"extra\": {{\"rack\": \"r{n}\", \"zone\": \"z1\"}}}}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_ironic_conforms_and_knows_who_has_a_machine() {
    let real = bare_metal::Ironic::start().expect("an Ironic");
    for n in 1..=2 {
        real.node(&format!("node-{n}"), &node(n, 32)).expect("a node");
    }
    let provider = Ironic::new("hall", settings(&real.url())).expect("a provider");
    let expected = Expected {
        machines: &["node-1", "node-2"],
        reserves: true,
        secret: "",
    };
    conformance::all(&provider, expected).await;
    let shown = provider.look("node-1").await.expect("it is there");
    assert_eq!((shown.cores, shown.memory_gib, shown.disk_gib), (32, 128, 480));
    assert_eq!(
        (shown.rack.as_str(), shown.features.as_slice()),
        ("r1", &["sriov".to_owned()][..])
    );
    // a node in maintenance is taken, and can't be had
    let (status, _) = real
        .ask("PUT", "/v1/nodes/node-2/maintenance", "{\"reason\": \"fan\"}")
        .expect("an answer");
    assert_eq!(status, 202);
    assert!(provider.look("node-2").await.expect("it is there").taken);
    let refused = provider.take("node-2", "C1").await.expect_err("it is in maintenance");
    assert_eq!(refused.kind, Kind::Conflict, "{refused}");
    // what was refused leaves no allocation behind
    let (_, body) = real.ask("GET", "/v1/allocations", "").expect("an answer");
    assert!(!body.contains("windlass-"), "{body}");
    drop(real);
    assert_eq!(provider.stock().await.expect_err("it has gone").kind, Kind::Unavailable);
}
