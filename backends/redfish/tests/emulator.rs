//! Against `sushy-tools`' emulator: two controllers that are one server, the port's conformance suite, and what goes away.

use integration::bare_metal::{FakeSystem, Sushy};
use metal_broker::port::Provider;
use metal_broker::port::conformance::{self, Expected};
use windlass_redfish::{Redfish, Settings};

const ONE: &str = "27946b59-9e44-4fa7-8e91-f3527a1ef094";
const TWO: &str = "27946b59-9e44-4fa7-8e91-f3527a1ef095";

fn settings(url: &str, more: &str) -> Settings {
    let text = format!(
        "tenant = \"acme\"\nkind = \"redfish\"\n{more}\n[[controllers]]\nurl = \"{url}\"\nid = \"m\"\nrack = \"r1\"\n\
         cores = 32\nmemory_gib = 128\nnic_gbps = 10\narch = \"x86_64\"\n"
    );
    toml_settings(&text)
}

fn toml_settings(text: &str) -> Settings {
    toml::from_str(text).expect("a provider's file")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_emulator_conforms_and_what_it_fails_at_is_told() {
    let systems = [
        FakeSystem {
            uuid: ONE,
            nics: 1,
            has_drive: true,
        },
        FakeSystem {
            uuid: TWO,
            nics: 2,
            has_drive: false,
        },
    ];
    let sushy = Sushy::start(&systems).expect("an emulator");
    let provider = Redfish::new("hall", settings(&sushy.url(), "")).expect("a provider");
    let (one, two) = (format!("m-{ONE}"), format!("m-{TWO}"));
    let expected = Expected {
        machines: &[&one, &two],
        reserves: false,
        secret: "",
    };
    conformance::all(&provider, expected).await;
    let stock = provider.stock().await.expect("a stock");
    let machine = |id: &str| stock.machines.iter().find(|m| m.id == id).expect("it is there");
    assert_eq!((machine(&one).nics, machine(&two).nics), (1, 2));
    // what the controller doesn't tell is what was written beside its address
    assert_eq!((machine(&one).cores, machine(&one).memory_gib), (32, 128));
    assert_eq!(machine(&one).disk_gib, 480, "{:?}", machine(&one));
    assert_eq!(machine(&two).disk_gib, 0);
    assert!(
        stock.troubles.iter().any(|t| t.contains(TWO) && t.contains("500")),
        "{:?}",
        stock.troubles
    );
    let url = sushy.url();
    drop(sushy);
    let stock = provider.stock().await.expect("a stock without an answer");
    assert!(stock.machines.is_empty());
    assert_eq!(stock.unread.len(), 2, "what stood behind it stays: {:?}", stock.unread);
    assert!(stock.troubles[0].contains(&url), "{:?}", stock.troubles);
}
