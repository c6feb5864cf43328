//! How long it takes to read 1,000 Redfish systems, 64 controllers at a time, each request of which takes a while; a few take long.
//!
//! `cargo bench -p windlass-redfish --bench refresh`

#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::time::{Duration, Instant};

use axum::Router;
use axum::http::{StatusCode, Uri};
use metal_broker::port::Provider;
use metal_broker::scenario::Random;
use serde_json::{Value, json};
use windlass_redfish::{Redfish, Settings};

const CONTROLLERS: u64 = 1_000;
const AT_ONCE: u64 = 64;
/// Requests that one such controller gets: root, systems, system.
const REQUESTS: u64 = 3;

/// `/<milliseconds>/…` is answered after so long.
async fn answer(uri: Uri) -> (StatusCode, String) {
    let late = uri.path().split('/').nth(1).and_then(|ms| ms.parse().ok()).unwrap_or(0);
    tokio::time::sleep(Duration::from_millis(late)).await;
    let link = |path: &str| json!({ "@odata.id": format!("/{late}{path}") });
    let system: Value =
        json!({"Id": "1", "ProcessorSummary": {"CoreCount": 16}, "MemorySummary": {"TotalSystemMemoryGiB": 64}});
    let body = match uri.path().trim_end_matches('/').rsplit('/').next() {
        Some("v1") => json!({ "Systems": link("/redfish/v1/Systems") }),
        Some("Systems") => json!({ "Members": [link("/redfish/v1/Systems/1")] }),
        _ => system,
    };
    (StatusCode::OK, body.to_string())
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("threads");
    runtime.block_on(async {
        let mut random = Random(1);
        let (mut text, mut sum_ms, mut slowest_ms) = (format!("tenant = \"t\"\nkind = \"redfish\"\nat_once = {AT_ONCE}\n"), 0, 0);
        let mut servers = Vec::new();
        // a server for each lateness: a controller's root can't be moved below a path
        for late in [20_u64, 40, 80, 160, 1_000] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            servers.push((late, listener.local_addr().expect("an address")));
            let app = Router::new().fallback(move |uri: Uri| {
                let uri: Uri = format!("/{late}{}", uri.path().trim_start_matches(&format!("/{late}"))).parse().expect("a path");
                answer(uri)
            });
            tokio::spawn(async move { axum::serve(listener, app).await });
        }
        for n in 0..CONTROLLERS {
            let at = if random.below(100) == 0 { 4 } else { random.below(4) as usize };
            let (late, address) = servers[at];
            sum_ms += late * REQUESTS;
            slowest_ms = slowest_ms.max(late * REQUESTS);
            text.push_str(&format!("[[controllers]]\nurl = \"http://{address}\"\nid = \"m{n}\"\nrack = \"r\"\narch = \"x86_64\"\n"));
        }
        let settings: Settings = toml::from_str(&text).expect("a provider's file");
        let provider = Redfish::new("hall", settings).expect("a provider");
        let begun = Instant::now();
        let stock = provider.stock().await.expect("a stock");
        let took = begun.elapsed();
        println!(
            "{} of {CONTROLLERS} systems in {took:.2?}, {AT_ONCE} at a time; the slowest alone takes {slowest_ms} ms, all by {AT_ONCE} {} ms",
            stock.machines.len(),
            sum_ms / AT_ONCE
        );
    });
}
