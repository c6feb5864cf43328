//! One node as Ironic tells of it. What Ironic has no field for is read from `extra`: `rack`, `zone`, `location`, `price_class`,
//! `nic_gbps`, `wear_percent`, and `gpus`, `gpu_model` where the node's properties have none.

use serde_json::Value;
use wire::metal_broker::{Health, Machine, PRICE_CLASS_MAX};

fn figure(value: Option<&Value>) -> Option<u64> {
    let value = value?;
    value.as_u64().or_else(|| value.as_str()?.trim().parse().ok())
}

fn word(value: Option<&Value>) -> Option<String> {
    let text = value?.as_str()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// `sev:true,gpus:2` as pairs.
fn capabilities(properties: &Value) -> Vec<(String, String)> {
    let text = properties
        .get("capabilities")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let pair = |p: &str| {
        p.split_once(':')
            .map(|(k, v)| (k.trim().to_owned(), v.trim().to_owned()))
    };
    text.split(',').filter_map(pair).collect()
}

/// A node as a machine. Figures that are missing are 0, and the broker leaves such a machine out, and says so.
pub(super) fn machine(node: &Value, nics: u64) -> Machine {
    let none = Value::Null;
    let (properties, extra) = (
        node.get("properties").unwrap_or(&none),
        node.get("extra").unwrap_or(&none),
    );
    let capabilities = capabilities(properties);
    let can = |name: &str| capabilities.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone());
    let extra_word = |key: &str| word(extra.get(key));
    let extra_figure = |key: &str| figure(extra.get(key));
    let state = node.get("provision_state").and_then(Value::as_str).unwrap_or_default();
    let flag = |key: &str| node.get(key).and_then(Value::as_bool).unwrap_or(false);
    let has = |key: &str| node.get(key).is_some_and(|v| !v.is_null());
    let traits = node.get("traits").and_then(Value::as_array);
    // traits are CUSTOM_TPM2, HW_CPU_X86_AVX512F: a policy reads them in small letters, our own without their first word
    let trait_name = |t: &Value| Some(t.as_str()?.trim_start_matches("CUSTOM_").to_ascii_lowercase());
    let mut features: Vec<String> = traits.into_iter().flatten().filter_map(trait_name).collect();
    let true_ones = capabilities.iter().filter(|(_, v)| v.eq_ignore_ascii_case("true"));
    features.extend(true_ones.map(|(k, _)| k.to_ascii_lowercase()));
    features.sort_unstable();
    features.dedup();
    let gpus = can("gpus")
        .and_then(|n| n.parse().ok())
        .or_else(|| extra_figure("gpus"))
        .unwrap_or(0);
    let gpu_model = can("gpu_model")
        .or_else(|| extra_word("gpu_model"))
        .filter(|_| gpus > 0);
    let name = word(node.get("name")).or_else(|| word(node.get("uuid")));
    Machine {
        id: name.unwrap_or_default(),
        provider: String::new(),
        cores: figure(properties.get("cpus")).unwrap_or(0),
        memory_gib: figure(properties.get("memory_mb")).unwrap_or(0) / 1_024,
        disk_gib: figure(properties.get("local_gb")).unwrap_or(0),
        gpus,
        gpu_model,
        nics,
        nic_gbps: if nics > 0 {
            extra_figure("nic_gbps").unwrap_or(0)
        } else {
            0
        },
        arch: word(properties.get("cpu_arch")).unwrap_or_else(|| "unknown".into()),
        features,
        price_class: extra_figure("price_class").unwrap_or(0).min(PRICE_CLASS_MAX + 1),
        location: extra_word("location").unwrap_or_else(|| "default".into()),
        zone: extra_word("zone").unwrap_or_else(|| "default".into()),
        rack: extra_word("rack").unwrap_or_else(|| "unknown".into()),
        health: match (flag("maintenance"), has("fault")) {
            (_, true) => Health::Critical,
            _ => Health::Ok,
        },
        wear_percent: extra_figure("wear_percent").unwrap_or(0),
        // a node is cleaned on its way to `available`
        clean: state == "available",
        taken: flag("maintenance") || !matches!(state, "available"),
        labels: [(
            "resource_class".to_owned(),
            word(node.get("resource_class")).unwrap_or_default(),
        )]
        .into_iter()
        .filter(|(_, v)| !v.is_empty())
        .collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_is_read_and_what_is_missing_is_not_guessed_at() {
        let node = json!({
            "uuid": "1be26c0b-03f2-4d2e-ae87-c02d7f33c123", "name": "node-1", "provision_state": "available",
            "maintenance": false, "fault": null, "resource_class": "gpu.large", "traits": ["CUSTOM_TPM2", "HW_CPU_X86_AVX512F"],
            "properties": {"cpus": "64", "memory_mb": 524_288, "local_gb": "3840", "cpu_arch": "x86_64",
                "capabilities": "gpus:2,gpu_model:a100,sriov:true,boot_mode:uefi"},
            "extra": {"rack": "r7", "zone": "z2", "nic_gbps": 25}
        });
        let m = machine(&node, 2);
        assert_eq!(
            (m.id.as_str(), m.cores, m.memory_gib, m.disk_gib),
            ("node-1", 64, 512, 3_840)
        );
        assert_eq!((m.gpus, m.gpu_model.as_deref()), (2, Some("a100")));
        assert_eq!(m.features, ["hw_cpu_x86_avx512f", "sriov", "tpm2"]);
        assert_eq!((m.rack.as_str(), m.zone.as_str(), m.nic_gbps), ("r7", "z2", 25));
        assert!(m.clean && !m.taken);
        let bare = machine(&json!({"uuid": "u1", "name": null, "provision_state": "enroll"}), 0);
        assert_eq!((bare.id.as_str(), bare.cores), ("u1", 0));
        assert!(bare.taken && !bare.clean);
        let broken = machine(&json!({"uuid": "u1", "maintenance": true, "fault": "power failure"}), 0);
        assert_eq!(broken.health, Health::Critical);
        assert!(metal_broker::core::machine::flaw(&machine(&json!({}), 0)).is_some());
    }
}
