//! Amounts of what hosts have and VMs want, in whole units: one column a dimension.

use serde::{Deserialize, Serialize};
use wire::rack_scheduler::{AMOUNT_MAX, Constraint, Resources, VmSpec};

use crate::{Kind, RackError, Result};

/// Virtual CPUs, MiB of memory, GiB of disk, GPUs, network interfaces.
pub const DIMS: usize = 5;

/// The constraint that stands for each dimension.
pub const DIM_CONSTRAINTS: [Constraint; DIMS] = [
    Constraint::Vcpus,
    Constraint::Memory,
    Constraint::Disk,
    Constraint::Gpus,
    Constraint::Nics,
];

/// What people call each dimension.
pub const DIM_WORDS: [&str; DIMS] = ["vCPUs", "MiB of memory", "GiB of disk", "GPUs", "NICs"];

/// Sums over many hosts or VMs.
pub type Sums = [u64; DIMS];

/// What one host has or one VM wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Amounts(pub [u32; DIMS]);

impl Amounts {
    /// Checks that every field is within bounds; `what` names the object.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn checked(what: &str, r: &Resources) -> Result<Self> {
        let fields = [r.vcpus, r.memory_mib, r.disk_gib, r.gpus, r.nics];
        let mut amounts = [0; DIMS];
        for (d, value) in fields.into_iter().enumerate() {
            amounts[d] = u32::try_from(value)
                .ok()
                .filter(|_| value <= AMOUNT_MAX)
                .ok_or_else(|| {
                    RackError::new(
                        Kind::Invalid,
                        format!(
                            "{what}: {value} {} is more than {AMOUNT_MAX}, the most; nothing was changed",
                            DIM_WORDS[d]
                        ),
                    )
                })?;
        }
        Ok(Self(amounts))
    }
    /// What a VM of that kind wants.
    ///
    /// # Errors
    /// `Invalid` for too much, or for nothing at all.
    pub fn of_vm(what: &str, vm: &VmSpec) -> Result<Self> {
        let amounts = Self::checked(
            what,
            &Resources {
                vcpus: vm.vcpus,
                memory_mib: vm.memory_mib,
                disk_gib: vm.disk_gib,
                gpus: vm.gpus,
                nics: vm.nics,
            },
        )?;
        if amounts.is_zero() {
            return Err(RackError::new(
                Kind::Invalid,
                format!("{what}: a VM that wants nothing can't be placed; nothing was changed"),
            )
            .hint("give it vcpus and memory_mib"));
        }
        Ok(amounts)
    }
    /// For the wire.
    pub fn to_wire(self) -> Resources {
        sums_to_wire(&self.times(1))
    }
    /// Nothing at all.
    #[inline]
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|a| *a == 0)
    }
    /// This fits into `room`.
    #[inline]
    pub fn fits(&self, room: &Amounts) -> bool {
        self.0.iter().zip(&room.0).all(|(a, r)| a <= r)
    }
    /// How often this fits into `room`, at most `most`.
    #[inline]
    pub fn times_in(&self, room: &Amounts, most: u32) -> u32 {
        let per_dim = self.0.iter().zip(&room.0).filter(|(a, _)| **a > 0);
        per_dim.map(|(a, r)| r / a).fold(most, u32::min)
    }
    /// `count` of these, in sum.
    #[inline]
    pub fn times(&self, count: u32) -> Sums {
        self.0.map(|a| u64::from(a) * u64::from(count))
    }
    /// Takes `count` of `other` off; what would be below nothing is nothing.
    #[inline]
    pub fn take(&mut self, other: &Amounts, count: u32) {
        for (mine, theirs) in self.0.iter_mut().zip(other.times(count)) {
            *mine = u32::try_from(u64::from(*mine).saturating_sub(theirs)).unwrap_or(0);
        }
    }
    /// Puts one of `other` back.
    #[inline]
    pub fn give(&mut self, other: &Amounts) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine = mine.saturating_add(theirs);
        }
    }
    /// This much of it is sold for each 100 that there are.
    pub fn oversold(mut self, vcpus_percent: u32, memory_percent: u32) -> Self {
        let sold = |a: u32, percent: u32| u32::try_from(u64::from(a) * u64::from(percent) / 100).unwrap_or(u32::MAX);
        self.0[0] = sold(self.0[0], vcpus_percent);
        self.0[1] = sold(self.0[1], memory_percent);
        self
    }
}

/// Adds up.
#[inline]
pub fn add(sums: &mut Sums, more: &Sums) {
    for (sum, more) in sums.iter_mut().zip(more) {
        *sum = sum.saturating_add(*more);
    }
}

/// Takes off; what would be below nothing is nothing.
#[inline]
pub fn less(sums: &Sums, fewer: &Sums) -> Sums {
    std::array::from_fn(|d| sums[d].saturating_sub(fewer[d]))
}

/// All of it fits into `room`.
#[inline]
pub fn sums_fit(sums: &Sums, room: &Sums) -> bool {
    sums.iter().zip(room).all(|(a, r)| a <= r)
}

/// For the wire.
pub fn sums_to_wire(sums: &Sums) -> Resources {
    Resources {
        vcpus: sums[0],
        memory_mib: sums[1],
        disk_gib: sums[2],
        gpus: sums[3],
        nics: sums[4],
    }
}
