//! What a cluster request means: each role's need, checked.

use wire::metal_broker::{AMOUNT_MAX, ClusterAsk, Domain, NODES_MAX, PRICE_CLASS_MAX, ROLES_MAX, RoleAsk};

use super::machine::{Amounts, DIMENSIONS, NAMES};
use super::name::check_name;
use crate::{Kind, MetalError, Result};

/// Most room to grow, in percent.
const HEADROOM_PERCENT_MAX: u64 = 1_000;
/// Dimensions that room to grow counts for: cores, memory, disk.
const GROWS: [bool; DIMENSIONS] = [true, true, true, false, false, false];

/// What one node must have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Need {
    /// At least so much, room to grow counted in.
    pub amounts: Amounts,
    /// The architecture.
    pub arch: Option<String>,
    /// The kind of GPU.
    pub gpu_model: Option<String>,
    /// Features, sorted.
    pub features: Vec<String>,
    /// Where.
    pub location: Option<String>,
    /// No dearer.
    pub price_class_max: Option<u64>,
    /// Wiped.
    pub clean: bool,
}

/// Nodes of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// So many.
    pub count: usize,
    /// Each.
    pub need: Need,
    /// What they are spread over.
    pub domain: Domain,
    /// Most in one domain.
    pub per_domain_max: Option<usize>,
}

fn wrong(message: impl Into<String>) -> MetalError {
    MetalError::new(Kind::Invalid, message).hint("windlass metal select --help shows a request")
}

/// Checks a request.
///
/// # Errors
/// `Invalid`, naming the role and the field.
pub fn check(ask: &ClusterAsk) -> Result<Vec<Role>> {
    if ask.roles.is_empty() || ask.roles.len() > ROLES_MAX {
        return Err(wrong(format!(
            "a cluster has 1 to {ROLES_MAX} roles; nothing was selected"
        )));
    }
    if ask.headroom_percent > HEADROOM_PERCENT_MAX {
        return Err(wrong(format!(
            "headroom_percent is {}; at most {HEADROOM_PERCENT_MAX}; nothing was selected",
            ask.headroom_percent
        )));
    }
    if ask.price_class_max.is_some_and(|p| p > PRICE_CLASS_MAX) {
        return Err(wrong(format!(
            "price_class_max is at most {PRICE_CLASS_MAX}; nothing was selected"
        )));
    }
    for (what, name) in [("name", &ask.name), ("location", &ask.location)] {
        if let Some(name) = name {
            check_name(what, name)?;
        }
    }
    let roles: Vec<Role> = ask.roles.iter().map(|role| checked(ask, role)).collect::<Result<_>>()?;
    let mut names: Vec<&str> = roles.iter().map(|r| r.name.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(wrong(format!("role {} stands twice; nothing was selected", twice[0])));
    }
    let nodes = ask.roles.iter().fold(0_u64, |sum, r| sum.saturating_add(r.count));
    if nodes > NODES_MAX {
        return Err(wrong(format!(
            "{nodes} nodes; at most {NODES_MAX} of one cluster; nothing was selected"
        )));
    }
    Ok(roles)
}

fn checked(ask: &ClusterAsk, role: &RoleAsk) -> Result<Role> {
    check_name("role", &role.role)?;
    let named = role.arch.iter().chain(&role.gpu_model).chain(&role.features);
    for name in named {
        check_name(&format!("role {}:", role.role), name)?;
    }
    if role.count == 0 {
        return Err(wrong(format!("role {} has no nodes; nothing was selected", role.role)));
    }
    if role.gpu_model.is_some() && role.gpus == 0 {
        return Err(wrong(format!(
            "role {} names a kind of GPU and wants none; nothing was selected",
            role.role
        )));
    }
    if role.per_domain_max == Some(0) {
        return Err(wrong(format!(
            "role {}: per_domain_max of 0 admits no node; nothing was selected",
            role.role
        )));
    }
    let asked = [
        role.cores,
        role.memory_gib,
        role.disk_gib,
        role.gpus,
        role.nics,
        role.nic_gbps,
    ];
    let mut amounts = asked;
    for d in 0..DIMENSIONS {
        if asked[d] > AMOUNT_MAX {
            return Err(wrong(format!(
                "role {}: {} is {}; at most {AMOUNT_MAX}; nothing was selected",
                role.role, NAMES[d], asked[d]
            )));
        }
        if GROWS[d] {
            amounts[d] = (asked[d] * (100 + ask.headroom_percent)).div_ceil(100);
        }
    }
    let mut features = role.features.clone();
    features.sort_unstable();
    features.dedup();
    let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    Ok(Role {
        name: role.role.clone(),
        count: size(role.count),
        need: Need {
            amounts,
            arch: role.arch.clone(),
            gpu_model: role.gpu_model.clone(),
            features,
            location: ask.location.clone(),
            price_class_max: ask.price_class_max,
            clean: ask.clean,
        },
        domain: role.domain,
        per_domain_max: role.per_domain_max.map(size),
    })
}

impl Need {
    /// True when whatever does for `other` does for this, too.
    pub fn is_within(&self, other: &Need) -> bool {
        let least = self.amounts.iter().zip(&other.amounts).all(|(a, b)| a <= b);
        let same = |mine: &Option<String>, theirs: &Option<String>| mine.is_none() || mine == theirs;
        least
            && same(&self.arch, &other.arch)
            && same(&self.gpu_model, &other.gpu_model)
            && same(&self.location, &other.location)
            && self.features.iter().all(|f| other.features.contains(f))
            && self
                .price_class_max
                .is_none_or(|mine| other.price_class_max.is_some_and(|theirs| theirs <= mine))
            && (!self.clean || other.clean)
    }
    /// For people.
    pub fn text(&self) -> String {
        let a = &self.amounts;
        let mut text = format!("{} cores, {} GiB", a[0], a[1]);
        let more = [
            (a[2], "GiB of disk"),
            (a[3], self.gpu_model.as_deref().unwrap_or("GPUs")),
            (a[4], "NICs"),
            (a[5], "Gbit/s"),
        ];
        for (n, unit) in more.into_iter().filter(|(n, _)| *n > 0) {
            text.push_str(&format!(", {n} {unit}"));
        }
        for word in self.arch.iter().chain(&self.features).chain(&self.location) {
            text.push_str(", ");
            text.push_str(word);
        }
        text
    }
}
