//! Controllers as vendors make them, in the shape of DMTF's mock-ups: served from memory, with their quirks and their faults.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Response, Uri};
use metal_broker::Kind;
use metal_broker::port::Provider;
use metal_broker::port::conformance::{self, Expected};
use serde_json::{Value, json};
use windlass_redfish::{Redfish, Settings};

/// How a controller answers.
#[derive(Debug, Clone)]
enum Manner {
    /// By its tree.
    Tree(HashMap<String, Value>),
    /// A web page, whatever is asked.
    Page,
    /// Never.
    Never,
    /// Without end.
    Endless,
    /// `401`.
    Locked,
    /// Broken off in the middle.
    Torn,
}

#[derive(Debug, Clone)]
struct Controller {
    manner: Manner,
    late: Duration,
    asked: Arc<AtomicUsize>,
    at_once: Arc<(AtomicUsize, AtomicUsize)>,
    wants_login: bool,
}

impl Controller {
    fn of(manner: Manner) -> Self {
        Self {
            manner,
            late: Duration::ZERO,
            asked: Arc::default(),
            at_once: Arc::default(),
            wants_login: false,
        }
    }
    async fn answer(self, uri: Uri, headers: HeaderMap) -> Response<Body> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let now = self.at_once.0.fetch_add(1, Ordering::SeqCst) + 1;
        self.at_once.1.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(self.late).await;
        self.at_once.0.fetch_sub(1, Ordering::SeqCst);
        let reply = |status: u16, kind: &str, body: Body| {
            Response::builder()
                .status(status)
                .header("content-type", kind)
                .body(body)
                .expect("an answer")
        };
        if self.wants_login
            && headers
                .get("authorization")
                .is_none_or(|a| a != "Basic cm9vdDpjYWx2aW4=")
        {
            return reply(401, "application/json", Body::from("{}"));
        }
        match self.manner {
            Manner::Tree(tree) => match tree.get(uri.path().trim_end_matches('/')) {
                Some(body) => reply(200, "application/json", Body::from(body.to_string())),
                None => reply(404, "text/html", Body::from("<html>no</html>")),
            },
            Manner::Page => reply(200, "text/html", Body::from("<!DOCTYPE html><html>iDRAC login</html>")),
            Manner::Never => {
                tokio::time::sleep(Duration::from_secs(3_600)).await;
                reply(200, "application/json", Body::empty())
            }
            Manner::Endless => {
                let chunk = axum::body::Bytes::from(vec![b' '; 1 << 16]);
                let all = futures::stream::repeat_with(move || Ok::<_, std::io::Error>(chunk.clone()));
                reply(200, "application/json", Body::from_stream(all))
            }
            Manner::Locked => reply(401, "application/json", Body::from("{}")),
            Manner::Torn => reply(
                200,
                "application/json",
                Body::from("{\"Systems\": {\"@odata.id\": \"/redf"),
            ),
        }
    }
    async fn serve(self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let app = Router::new().fallback(move |uri: Uri, headers: HeaderMap| self.clone().answer(uri, headers));
        tokio::spawn(async move { axum::serve(listener, app).await });
        url
    }
}

fn tree(all: Value) -> Manner {
    let root = (
        "/redfish/v1".to_owned(),
        json!({"Systems": {"@odata.id": "/redfish/v1/Systems"}}),
    );
    let all = all.as_object().expect("a tree").clone();
    Manner::Tree(std::iter::once(root).chain(all).collect())
}

fn link(path: &str) -> Value {
    json!({ "@odata.id": path })
}

/// Dell: ids with dots, memory in powers of ten, drives behind controllers, wear.
fn dell() -> Manner {
    let s = "/redfish/v1/Systems/System.Embedded.1";
    tree(json!({
        "/redfish/v1/Systems": {"Members": [link(s)]},
        s: {"Id": "System.Embedded.1", "Status": {"Health": "OK", "HealthRollup": "Warning", "State": "Enabled"},
            "ProcessorSummary": {"Count": 2, "CoreCount": 64}, "MemorySummary": {"TotalSystemMemoryGiB": 476.8},
            "Processors": link(&format!("{s}/Processors")), "Memory": link(&format!("{s}/Memory")),
            "Storage": link(&format!("{s}/Storage")), "EthernetInterfaces": link(&format!("{s}/EthernetInterfaces"))},
        format!("{s}/Processors"): {"Members": [link(&format!("{s}/Processors/CPU.1")), link(&format!("{s}/Processors/GPU.1"))]},
        format!("{s}/Processors/CPU.1"): {"ProcessorType": "CPU", "TotalCores": 64, "InstructionSet": "x86-64"},
        format!("{s}/Processors/GPU.1"): {"ProcessorType": "GPU", "Model": "NVIDIA A100"},
        format!("{s}/Memory"): {"Members": [link(&format!("{s}/Memory/A1")), link(&format!("{s}/Memory/A2"))]},
        format!("{s}/Memory/A1"): {"CapacityMiB": 262_144}, format!("{s}/Memory/A2"): {"CapacityMiB": 262_144},
        format!("{s}/Storage"): {"Members": [link(&format!("{s}/Storage/RAID.1"))]},
        format!("{s}/Storage/RAID.1"): {"Drives": [link("/redfish/v1/D/0"), link("/redfish/v1/D/1"), link("/redfish/v1/D/gone")]},
        "/redfish/v1/D/0": {"CapacityBytes": 1_920_383_410_176_u64, "PredictedMediaLifeLeftPercent": 93},
        "/redfish/v1/D/1": {"CapacityBytes": "1920383410176", "PredictedMediaLifeLeftPercent": null},
        format!("{s}/EthernetInterfaces"): {"Members": [link(&format!("{s}/EthernetInterfaces/NIC.1")), link(&format!("{s}/EthernetInterfaces/NIC.2"))]},
        format!("{s}/EthernetInterfaces/NIC.1"): {"SpeedMbps": 25_000, "Status": {"State": "Enabled"}},
        format!("{s}/EthernetInterfaces/NIC.2"): {"SpeedMbps": null, "Status": {"State": "Disabled"}},
    }))
}

/// HPE of old: links with a slash at the end, no processors collection that can be read, SimpleStorage alone, figures as text.
fn hpe() -> Manner {
    let s = "/redfish/v1/Systems/1";
    tree(json!({
        "/redfish/v1/Systems": {"Members": [link(&format!("{s}/"))]},
        s: {"Id": 1, "Status": {"Health": null}, "ProcessorSummary": {"Count": 2, "CoreCount": "32"},
            "MemorySummary": {"TotalSystemMemoryGiB": "256"}, "Processors": link(&format!("{s}/Processors/")),
            "SimpleStorage": link(&format!("{s}/SimpleStorage/")), "EthernetInterfaces": link(&format!("{s}/Eth/"))},
        format!("{s}/SimpleStorage"): {"Members": [link(&format!("{s}/SimpleStorage/1/"))]},
        format!("{s}/SimpleStorage/1"): {"Devices": [{"CapacityBytes": 480_103_981_056_u64}, {"Status": {"State": "Absent"}, "CapacityBytes": 9}]},
        format!("{s}/Eth"): {"Members": [link(&format!("{s}/Eth/1/"))]}, format!("{s}/Eth/1"): {"SpeedMbps": "10000"},
    }))
}

/// A chassis of blades: several systems, two pages, one slot empty.
fn blades() -> Manner {
    let blade = |n: u64| {
        json!({"Id": format!("blade{n}"), "Status": {"Health": "OK", "State": "Enabled"}, "ProcessorSummary": {"CoreCount": 16},
            "MemorySummary": {"TotalSystemMemoryGiB": 64}})
    };
    tree(json!({
        "/redfish/v1/Systems": {"Members": [link("/redfish/v1/Systems/b1"), link("/redfish/v1/Systems/b2")],
            "Members@odata.nextLink": "/redfish/v1/Systems/page2"},
        "/redfish/v1/Systems/page2": {"Members": [link("/redfish/v1/Systems/b3")]},
        "/redfish/v1/Systems/b1": blade(1), "/redfish/v1/Systems/b2": blade(2),
        "/redfish/v1/Systems/b3": {"Id": "blade3", "Status": {"State": "Absent"}},
    }))
}

fn one(url: &str, id: &str) -> String {
    format!("[[controllers]]\nurl = \"{url}\"\nid = \"{id}\"\nrack = \"r-{id}\"\narch = \"x86_64\"\n")
}

fn provider(head: &str, controllers: &[String]) -> Redfish {
    let text = format!(
        "tenant = \"acme\"\nkind = \"redfish\"\n{head}\n{}",
        controllers.concat()
    );
    let settings: Settings = toml::from_str(&text).expect("a provider's file");
    Redfish::new("hall", settings).expect("a provider")
}

#[tokio::test]
async fn vendors_say_the_same_in_many_ways() {
    let secret = tempfile("calvin\n");
    let mut locked = Controller::of(dell());
    locked.wants_login = true;
    let controllers = [
        one(&locked.serve().await, "dell"),
        one(&Controller::of(hpe()).serve().await, "hpe"),
        one(&Controller::of(blades()).serve().await, "chassis"),
    ];
    let head = format!("user = \"root\"\npassword_file = \"{}\"\n", secret.display());
    let provider = provider(&head, &controllers);
    let expected = Expected {
        machines: &["dell", "hpe", "chassis-blade1", "chassis-blade2"],
        reserves: false,
        secret: "calvin",
    };
    conformance::all(&provider, expected).await;
    let stock = provider.stock().await.expect("a stock");
    let m = |id: &str| stock.machines.iter().find(|m| m.id == id).expect("it is there").clone();
    let dell = m("dell");
    assert_eq!((dell.cores, dell.memory_gib, dell.gpus), (64, 512, 1));
    assert_eq!(
        (dell.disk_gib, dell.wear_percent, dell.nics, dell.nic_gbps),
        (3_576, 7, 1, 25)
    );
    assert_eq!(dell.gpu_model.as_deref(), Some("nvidia_a100"));
    assert!(
        stock.troubles.iter().any(|t| t.contains("476") || t.contains("477")),
        "{:?}",
        stock.troubles
    );
    let hpe = m("hpe");
    assert_eq!(
        (hpe.cores, hpe.memory_gib, hpe.disk_gib, hpe.nic_gbps),
        (32, 256, 447, 10)
    );
    assert_eq!(m("chassis-blade2").cores, 16);
    std::fs::remove_file(&secret).expect("it was there");
}

fn tempfile(text: &str) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("windlass-redfish-{}", std::process::id()));
    std::fs::write(&path, text).expect("a file");
    path
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "a test that must end measures real time")]
async fn what_is_slow_broken_or_endless_holds_nobody_up() {
    let mut controllers = Vec::new();
    for (id, manner) in [
        ("page", Manner::Page),
        ("never", Manner::Never),
        ("endless", Manner::Endless),
        ("locked", Manner::Locked),
        ("torn", Manner::Torn),
        ("good", hpe()),
    ] {
        controllers.push(one(&Controller::of(manner).serve().await, id));
    }
    controllers.push(one("http://127.0.0.1:1", "nobody"));
    let provider = provider("answer_timeout_ms = 1500\ncontroller_timeout_ms = 3000\n", &controllers);
    let begun = Instant::now();
    let stock = provider.stock().await.expect("a stock");
    assert!(begun.elapsed() < Duration::from_secs(20));
    let ids: Vec<&str> = stock.machines.iter().map(|m| m.id.as_str()).collect();
    assert_eq!(ids, ["good"]);
    let mut unread = stock.unread.clone();
    unread.sort_unstable();
    assert_eq!(unread, ["endless", "locked", "never", "nobody", "page", "torn"]);
    let told = stock.troubles.join("\n");
    for word in [
        "a page, not JSON",
        "no answer in 1500 ms",
        "more than",
        "401",
        "broken JSON",
        "no connection",
    ] {
        assert!(told.contains(word), "{word}: {told}");
    }
    assert_eq!(
        provider.look("locked").await.expect_err("it is locked").kind,
        Kind::Denied
    );
    assert_eq!(
        provider.take("never", "C1").await.expect_err("it is slow").kind,
        Kind::Unavailable
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_controllers_as_allowed_are_asked_at_once() {
    let mut slow = Controller::of(hpe());
    slow.late = Duration::from_millis(5);
    let watched = slow.at_once.clone();
    let url = slow.serve().await;
    let controllers: Vec<String> = (0..200).map(|n| one(&url, &format!("m{n}"))).collect();
    let provider = provider("at_once = 16\n", &controllers);
    assert_eq!(provider.stock().await.expect("a stock").machines.len(), 200);
    let most = watched.1.load(Ordering::SeqCst);
    assert!((2..=16).contains(&most), "{most} at once");
}
