//! Capabilities (capabilities(7)): the rights of root, one by one.

use rustix::io::Result;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities,
};

/// One that a concern may need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Capability {
    /// To read and write files whatever their mode says: disks belong to the users of hypervisors.
    DacOverride,
    /// To read files and search directories whatever their mode says.
    DacReadSearch,
    /// To see which files processes of others hold open.
    SysPtrace,
}

impl Capability {
    /// As the kernel's documents spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::DacOverride => "CAP_DAC_OVERRIDE",
            Self::DacReadSearch => "CAP_DAC_READ_SEARCH",
            Self::SysPtrace => "CAP_SYS_PTRACE",
        }
    }

    fn bits(self) -> CapabilitySet {
        match self {
            Self::DacOverride => CapabilitySet::DAC_OVERRIDE,
            Self::DacReadSearch => CapabilitySet::DAC_READ_SEARCH,
            Self::SysPtrace => CapabilitySet::SYS_PTRACE,
        }
    }
}

fn union(kept: &[Capability]) -> CapabilitySet {
    kept.iter().fold(CapabilitySet::empty(), |all, one| all | one.bits())
}

/// Those of `wanted` that this thread hasn't.
pub(crate) fn missing(wanted: &[Capability]) -> Vec<Capability> {
    let has = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    wanted.iter().copied().filter(|one| !has.contains(one.bits())).collect()
}

/// Drops every other one: from the bounding set too, where that may be done, so that no program brings one back.
pub(crate) fn keep(kept: &[Capability]) -> Result<()> {
    let kept = union(kept);
    let now = capabilities(None)?;
    if now.effective.contains(CapabilitySet::SETPCAP) {
        for one in CapabilitySet::all().iter().filter(|one| !kept.contains(*one)) {
            // the kernel may know fewer than we do
            let _unknown_to_it = remove_capability_from_bounding_set(one);
        }
    }
    let _older_kernels_have_none = clear_ambient_capability_set();
    set_capabilities(
        None,
        CapabilitySets {
            effective: now.permitted & kept,
            permitted: now.permitted & kept,
            inheritable: CapabilitySet::empty(),
        },
    )
}

/// What is left, by name.
pub(crate) fn left() -> Vec<String> {
    let has = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    has.iter_names().map(|(name, _)| format!("CAP_{name}")).collect()
}
