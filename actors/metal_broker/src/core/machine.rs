//! What a machine's figures mean, and which of them can't be.

use wire::metal_broker::{AMOUNT_MAX, FEATURES_MAX, Machine, PRICE_CLASS_MAX};

use super::name::is_name;

/// What is counted of a machine and of a node.
pub const DIMENSIONS: usize = 6;
/// Amounts by dimension: cores, memory, disk, GPUs, interfaces, speed.
pub type Amounts = [u64; DIMENSIONS];
/// Names of the dimensions, as policies and people know them.
pub const NAMES: [&str; DIMENSIONS] = ["cores", "memory_gib", "disk_gib", "gpus", "nics", "nic_gbps"];
/// The dimensions in words: what a machine has too little of.
pub const WORDS: [&str; DIMENSIONS] = [
    "cores",
    "GiB of memory",
    "GiB of disk",
    "GPUs",
    "network interfaces",
    "Gbit/s on its fastest interface",
];
/// Most cores: more is a slip of the pen or of a controller.
const CORES_MAX: u64 = 4_096;
/// Most memory, in GiB: 64 TiB.
const MEMORY_GIB_MAX: u64 = 65_536;
/// Most GPUs.
const GPUS_MAX: u64 = 64;
/// Most interfaces.
const NICS_MAX: u64 = 256;
/// The fastest interface, in Gbit/s.
const NIC_GBPS_MAX: u64 = 3_200;

/// What a machine has.
pub fn amounts(machine: &Machine) -> Amounts {
    [
        machine.cores,
        machine.memory_gib,
        machine.disk_gib,
        machine.gpus,
        machine.nics,
        machine.nic_gbps,
    ]
}

/// Why a machine can't be taken into the inventory; `None` when it can. One that is left out is told of, never guessed at.
pub fn flaw(machine: &Machine) -> Option<String> {
    let most = [CORES_MAX, MEMORY_GIB_MAX, AMOUNT_MAX, GPUS_MAX, NICS_MAX, NIC_GBPS_MAX];
    let has = amounts(machine);
    for (d, (n, max)) in has.iter().zip(most).enumerate() {
        if *n > max {
            return Some(format!("it says {n} {}; more than {max} can't be", WORDS[d]));
        }
    }
    if machine.cores == 0 || machine.memory_gib == 0 {
        return Some("it says no cores or no memory".into());
    }
    if machine.nics == 0 && machine.nic_gbps > 0 {
        return Some(format!("no network interface, and yet {} Gbit/s", machine.nic_gbps));
    }
    if machine.gpus == 0 && machine.gpu_model.is_some() {
        return Some("a kind of GPU, and no GPU".into());
    }
    if machine.wear_percent > 100 {
        return Some(format!("disks worn to {} %", machine.wear_percent));
    }
    if machine.price_class > PRICE_CLASS_MAX {
        return Some(format!(
            "price class {}; {PRICE_CLASS_MAX} is the dearest",
            machine.price_class
        ));
    }
    if machine.features.len() > FEATURES_MAX || machine.labels.len() > FEATURES_MAX {
        return Some(format!("more than {FEATURES_MAX} features or labels"));
    }
    let named = [
        ("id", &machine.id),
        ("arch", &machine.arch),
        ("location", &machine.location),
        ("zone", &machine.zone),
        ("rack", &machine.rack),
    ];
    let names = named.into_iter().chain(machine.features.iter().map(|f| ("feature", f)));
    for (what, name) in names.chain(machine.gpu_model.iter().map(|m| ("gpu_model", m))) {
        if !is_name(name) {
            let shown: String = name.chars().take(40).collect();
            return Some(format!("its {what} '{}' is not a name", shown.escape_debug()));
        }
    }
    let long = |text: &String| text.len() > 256;
    let odd = machine.labels.iter().find(|(k, v)| k.is_empty() || long(k) || long(v));
    odd.map(|(key, _)| {
        let shown: String = key.chars().take(40).collect();
        format!("its label '{}' is too long, or empty", shown.escape_debug())
    })
}

/// Machines that can be taken in, by id, and what is wrong with the others.
pub fn sound(machines: Vec<Machine>) -> (Vec<Machine>, Vec<String>) {
    let (mut good, mut troubles): (Vec<Machine>, Vec<String>) = (Vec::new(), Vec::new());
    let mut seen = std::collections::HashSet::new();
    for mut machine in machines {
        machine.features.sort_unstable();
        machine.features.dedup();
        let shown: String = machine.id.chars().take(64).collect();
        if let Some(why) = flaw(&machine) {
            troubles.push(format!("machine {}: {why}; it is left out", shown.escape_debug()));
        } else if !seen.insert(machine.id.clone()) {
            troubles.push(format!("machine {shown} stands twice; the second is left out"));
        } else {
            good.push(machine);
        }
    }
    good.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    (good, troubles)
}
