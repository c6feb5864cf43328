//! A tenant's quota, and what is booked against it.

use serde::{Deserialize, Serialize};

use super::version;
use crate::core::amounts::{Sums, add};

/// What a change of a placement takes of its tenant's quota.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The placement.
    pub placement: String,
    /// The change; empty for what is firm.
    pub change: String,
    /// Tentative until then, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// How much.
    pub sums: Sums,
    /// Of what is firm: the placement's revision that it was reckoned from.
    #[serde(default)]
    pub revision: u64,
}

/// Value of `rack_scheduler/tenants/<tenant>`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantRecord {
    /// Version of the record.
    #[serde(default = "version")]
    pub version: u32,
    /// The bound; a field that is 0 bounds nothing.
    pub quota: Sums,
    /// What is booked.
    #[serde(default)]
    pub shares: Vec<Share>,
}

impl TenantRecord {
    /// What is booked in sum.
    pub fn booked(&self) -> Sums {
        let mut sums = Sums::default();
        self.shares.iter().for_each(|s| add(&mut sums, &s.sums));
        sums
    }
    /// Books a change; again changes nothing. What is missing comes back when the quota has no room.
    ///
    /// # Errors
    /// The dimension that has too little, and how much is free of it.
    pub fn book(&mut self, share: Share) -> std::result::Result<(), (usize, u64)> {
        let same = |s: &Share| s.placement == share.placement && s.change == share.change;
        if self.shares.iter().any(same) {
            return Ok(());
        }
        let booked = self.booked();
        for (d, quota) in self.quota.iter().enumerate().filter(|(_, q)| **q > 0) {
            if booked[d].saturating_add(share.sums[d]) > *quota && share.sums[d] > 0 {
                return Err((d, quota.saturating_sub(booked[d])));
            }
        }
        self.shares.push(share);
        Ok(())
    }
    /// Sets what a placement has in all, in place of the changes that were committed; an older reckoning changes nothing.
    pub fn set(&mut self, placement: &str, committed: &[String], sums: Sums, revision: u64) {
        let firm = |s: &Share| s.placement == placement && s.change.is_empty();
        if self.shares.iter().any(|s| firm(s) && s.revision > revision) {
            return;
        }
        self.shares
            .retain(|s| s.placement != placement || (!s.change.is_empty() && !committed.contains(&s.change)));
        if sums != Sums::default() {
            self.shares.push(Share {
                placement: placement.to_owned(),
                change: String::new(),
                until_ms: None,
                sums,
                revision,
            });
        }
    }
    /// Drops a change that was never committed.
    pub fn drop_change(&mut self, placement: &str, change: &str) {
        self.shares
            .retain(|s| s.placement != placement || s.change != change || s.until_ms.is_none());
    }
    /// Tentative shares whose end has passed: placement and change.
    pub fn overdue(&self, now_ms: u64) -> Vec<(String, String)> {
        let late = |s: &&Share| s.until_ms.is_some_and(|until| until <= now_ms);
        let name = |s: &Share| (s.placement.clone(), s.change.clone());
        self.shares.iter().filter(late).map(name).collect()
    }
}
