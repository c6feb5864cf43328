use serde_json::json;

use super::*;

#[test]
fn figures_come_in_many_forms() {
    assert_eq!(figure(&json!(32)), Some(32));
    assert_eq!(figure(&json!(31.7)), Some(32));
    assert_eq!(figure(&json!(" 64 ")), Some(64));
    for none in [
        json!(null),
        json!(-1),
        json!("many"),
        json!([]),
        json!(1e300),
        json!({"n": 1}),
    ] {
        assert_eq!(figure(&none), None, "{none}");
    }
}

#[test]
fn modules_are_believed_where_a_summary_contradicts_them() {
    let mut troubles = Vec::new();
    let system = |gib: Value| json!({"MemorySummary": {"TotalSystemMemoryGiB": gib}});
    let module = |mib: Value| json!({"CapacityMiB": mib, "Status": {"State": "Enabled"}});
    let two = [module(json!(32_768)), module(json!(32_768))];
    assert_eq!(memory(&system(json!(64)), &two, "m", &mut troubles), 64);
    assert_eq!(memory(&system(json!(null)), &two, "m", &mut troubles), 64);
    assert_eq!(memory(&system(json!(62.5)), &two, "m", &mut troubles), 64);
    assert!(troubles.is_empty(), "{troubles:?}");
    // 64 GiB told as 59.6 (powers of ten), and four times as much as there is
    assert_eq!(memory(&system(json!(59.6)), &two, "m", &mut troubles), 64);
    assert_eq!(memory(&system(json!(256)), &two, "m", &mut troubles), 64);
    assert_eq!(troubles.len(), 2);
    let absent = json!({"CapacityMiB": 32_768, "Status": {"State": "Absent"}});
    assert_eq!(
        memory(&system(json!(32)), &[two[0].clone(), absent], "m", &mut troubles),
        32
    );
}

#[test]
fn processors_are_counted_by_what_they_are() {
    let cpu = json!({"ProcessorType": "CPU", "TotalCores": 24, "InstructionSet": "x86-64"});
    let gpu = json!({"ProcessorType": "GPU", "Model": "NVIDIA A100-SXM4-40GB"});
    let gone = json!({"ProcessorType": "CPU", "TotalCores": 24, "Status": {"State": "Absent"}});
    let none = json!({});
    let (cores, gpus, kind, arch) = computing(&none, &[cpu.clone(), cpu, gpu.clone(), gpu, gone]);
    assert_eq!((cores, gpus), (48, 2));
    assert_eq!(kind.as_deref(), Some("nvidia_a100-sxm4-40gb"));
    assert_eq!(arch.as_deref(), Some("x86_64"));
    let summary = |s: Value| computing(&json!({ "ProcessorSummary": s }), &[]).0;
    assert_eq!(summary(json!({"CoreCount": 16, "Count": 2})), 16);
    assert_eq!(summary(json!({"Count": 2})), 2);
    assert_eq!(summary(json!(null)), 0);
}

#[test]
fn the_worse_health_counts_and_no_word_is_none() {
    let told = |status: Value| health(&json!({ "Status": status }));
    assert_eq!(
        told(json!({"Health": "OK", "HealthRollup": "Warning"})),
        Health::Warning
    );
    assert_eq!(told(json!({"Health": "Critical"})), Health::Critical);
    assert_eq!(told(json!({"Health": null})), Health::Unknown);
    assert_eq!(told(json!(null)), Health::Unknown);
    assert_eq!(
        own_name(&json!({"Id": "System.Embedded.1"}), "/x/y/"),
        "System_Embedded_1"
    );
    assert_eq!(own_name(&json!({}), "/redfish/v1/Systems/437XR/"), "437XR");
}
