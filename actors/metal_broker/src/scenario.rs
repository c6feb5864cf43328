//! Random fleets and requests by seed, for tests and benches.

use wire::metal_broker::{ClusterAsk, Domain, Health, Machine, RoleAsk};

/// SplitMix64: small, and the same everywhere.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    /// Below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.any() % n.max(1)
    }
    /// One of these.
    pub fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
    /// A number from 0 to 1.
    pub fn unit(&mut self) -> f64 {
        (self.any() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Kinds of hardware as they are bought: cores, GiB, GiB of disk, GPUs, NICs, Gbit/s, price class.
const KINDS: [[u64; 7]; 12] = [
    [16, 64, 480, 0, 2, 10, 1],
    [16, 128, 960, 0, 2, 10, 1],
    [32, 128, 960, 0, 2, 25, 2],
    [32, 256, 1_920, 0, 2, 25, 3],
    [32, 256, 7_680, 0, 4, 25, 3],
    [64, 256, 1_920, 0, 2, 25, 4],
    [64, 512, 3_840, 0, 4, 25, 4],
    [64, 512, 3_840, 2, 4, 100, 6],
    [96, 768, 3_840, 0, 4, 100, 5],
    [96, 768, 7_680, 4, 4, 100, 7],
    [128, 1_024, 7_680, 0, 4, 100, 6],
    [128, 2_048, 15_360, 8, 8, 200, 9],
];

/// Machines of a hall of `racks` racks in four zones.
pub fn machines(random: &mut Random, count: usize, racks: u64) -> Vec<Machine> {
    let machine = |n: usize| {
        let kind = random.of(&KINDS);
        let rack = random.below(racks);
        let features: Vec<String> = ["sriov", "tpm2"]
            .iter()
            .filter(|_| random.below(4) > 0)
            .map(|f| (*f).to_owned())
            .collect();
        Machine {
            id: format!("m{n:06}"),
            provider: "hall".into(),
            cores: kind[0],
            memory_gib: kind[1],
            disk_gib: kind[2],
            gpus: kind[3],
            gpu_model: (kind[3] > 0).then(|| "a100".to_owned()),
            nics: kind[4],
            nic_gbps: kind[5],
            arch: if random.below(10) == 0 { "aarch64" } else { "x86_64" }.into(),
            features,
            price_class: kind[6],
            location: "fra".into(),
            zone: format!("z{}", rack % 4),
            rack: format!("r{rack}"),
            health: if random.below(20) == 0 {
                Health::Warning
            } else {
                Health::Ok
            },
            wear_percent: random.below(60),
            clean: random.below(8) > 0,
            ..Machine::default()
        }
    };
    (0..count).map(machine).collect()
}

/// What one node wants: a little less than some kind of hardware has.
pub fn role(random: &mut Random, name: &str, count: u64) -> RoleAsk {
    let kind = random.of(&KINDS);
    let least = |random: &mut Random, n: u64| n - n * random.below(40) / 100;
    RoleAsk {
        role: name.into(),
        count,
        cores: least(random, kind[0]),
        memory_gib: least(random, kind[1]),
        disk_gib: least(random, kind[2]),
        gpus: kind[3],
        nics: kind[4].min(2),
        nic_gbps: 10,
        arch: Some("x86_64".into()),
        ..RoleAsk::default()
    }
}

/// A cluster of `nodes` nodes in up to two roles.
pub fn ask(random: &mut Random, nodes: u64) -> ClusterAsk {
    if nodes == 1 {
        return ClusterAsk {
            roles: vec![role(random, "node", 1)],
            ..ClusterAsk::default()
        };
    }
    let control = 1 + random.below(nodes.min(3));
    let mut first = role(random, "control", control);
    if random.below(2) == 0 {
        first.per_domain_max = Some(1);
    }
    let mut roles = vec![first];
    if nodes > control {
        let mut second = role(random, "worker", nodes - control);
        second.domain = random.of(&[Domain::Rack, Domain::Zone]);
        roles.push(second);
    }
    ClusterAsk {
        roles,
        headroom_percent: random.of(&[0, 0, 10]),
        ..ClusterAsk::default()
    }
}
