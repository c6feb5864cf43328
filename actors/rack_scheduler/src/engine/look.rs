//! `ls`, `show`, `explain`, `whatif`; and the sweep, which goes on with what others left.

use std::collections::BTreeMap;

use wire::rack_scheduler::{
    Divide, Explanation, Placement, PlacementState, RackAsk, RackExplain, RackList, RackListed, RackListing,
    RackWhatif, VmSpec, WhatifReport,
};

use super::Scheduler;
use super::view::{all, key, read};
use crate::core::ask::Ask;
use crate::core::ledger::{PlacementRecord, RackChange};
use crate::core::place::place;
use crate::core::{shortfall, whatif};
use crate::{Kind, RackError, Result};

/// Placements in one answer.
const LIST_MAX: usize = 1_000;

impl Scheduler {
    /// The record and revision of every placement that has a key.
    async fn kept_placements(&self) -> Result<Vec<(u64, PlacementRecord)>> {
        let entries = all(&*self.state, "rack_scheduler/placements").await?;
        let mut records = Vec::with_capacity(entries.len());
        for entry in &entries {
            records.push((entry.revision, read(entry)?));
        }
        Ok(records)
    }

    /// Every placement's record.
    pub(super) async fn placements(&self) -> Result<Vec<PlacementRecord>> {
        // residents first: one that moves out meanwhile is met under its key, which goes before
        let residents = self.residents().await?;
        let kept = self.kept_placements().await?;
        let by_id = residents.into_iter().chain(kept.into_iter().map(|(_, record)| record));
        let by_id: BTreeMap<String, PlacementRecord> = by_id.map(|r| (r.id.clone(), r)).collect();
        Ok(by_id.into_values().collect())
    }

    /// Placements, oldest first.
    ///
    /// # Errors
    /// When the state can't be read.
    pub async fn list(&self, request: &RackList) -> Result<RackListing> {
        let mut records = self.placements().await?;
        records.retain(|r| {
            let tenant = request.tenant.is_none() || r.ask.tenant == request.tenant;
            !r.void && r.state != PlacementState::Released && tenant
        });
        records.sort_by(|a, b| (a.created_at_ms, &a.id).cmp(&(b.created_at_ms, &b.id)));
        if let Some(after) = &request.after {
            let begin = records
                .iter()
                .position(|r| r.id == *after)
                .map_or(records.len(), |n| n + 1);
            records.drain(..begin);
        }
        let more = records.len() > LIST_MAX;
        records.truncate(LIST_MAX);
        let placements: Vec<RackListed> = records.iter().map(listed).collect();
        Ok(RackListing {
            more_after: placements.last().filter(|_| more).map(|p| p.id.clone()),
            placements,
        })
    }

    /// One placement.
    ///
    /// # Errors
    /// `NotFound` for none; `Invalid` for a beginning of several.
    pub async fn show(&self, id: &str) -> Result<Placement> {
        let record = self.seen(id).await?;
        Ok(self.shown(&record, false))
    }

    /// Why groups are where they are, or why they don't fit.
    ///
    /// # Errors
    /// As [`Ask::check`]; `Invalid` for neither a placement nor a request.
    pub async fn explain(&self, request: &RackExplain) -> Result<Explanation> {
        let wanted: RackAsk = match (&request.id, &request.ask) {
            (Some(id), None) => return self.explain_placed(id).await,
            (None, Some(ask)) => ask.clone(),
            _ => {
                return Err(RackError::new(
                    Kind::Invalid,
                    "explain takes a placement's id or a request",
                ));
            }
        };
        self.refresh().await?;
        let mut view = self.view();
        let (table, fits) = view.table();
        let ask = Ask::check(table, &wanted)?;
        let plan = place(table, fits, &ask);
        Ok(Explanation {
            fits: plan.fits(),
            groups: shortfall::group_whys(table, fits, &ask, &plan),
            shortfall: (!plan.fits()).then(|| shortfall::find(table, fits, &ask, &plan)),
        })
    }

    /// A standing placement: where its groups are, and what the same request would meet elsewhere now.
    async fn explain_placed(&self, id: &str) -> Result<Explanation> {
        let record = self.seen(id).await?;
        self.refresh().await?;
        let mut view = self.view();
        let (table, fits) = view.table();
        let ask = Ask::check(table, &record.ask)?;
        let plan = place(table, fits, &ask);
        let mut groups = shortfall::group_whys(table, fits, &ask, &plan);
        for (why, group) in groups.iter_mut().zip(&record.groups) {
            why.rack.clone_from(&group.rack);
            why.why.clone_from(&group.why);
        }
        Ok(Explanation {
            fits: record.unplaced.is_empty(),
            groups,
            shortfall: None,
        })
    }

    /// How many VMs of a kind fit.
    ///
    /// # Errors
    /// As [`Ask::check`].
    pub async fn whatif(&self, request: &RackWhatif) -> Result<WhatifReport> {
        self.refresh().await?;
        let wanted = RackAsk {
            vms: vec![VmSpec {
                count: request.vm.count.max(1),
                ..request.vm.clone()
            }],
            divide: Some(Divide::Groups(1)),
            inside: request.inside,
            select: request.select.clone(),
            ..RackAsk::default()
        };
        let mut view = self.view();
        let (table, _) = view.table();
        let ask = Ask::check(table, &wanted)?;
        Ok(whatif::whatif(table, &ask))
    }

    /// Goes on with what others left: gives back what left, tells hosts that haven't heard, settles what is overdue, forgets what
    /// was released long ago. Returns how many records it moved on.
    ///
    /// # Errors
    /// When the state can't be read.
    pub async fn sweep(&self) -> Result<u64> {
        self.refresh().await?;
        let now_ms = self.clock.now_ms();
        let mut moved_on = 0;
        for (revision, record) in self.kept_placements().await? {
            let old = record.changed_at_ms.saturating_add(self.settings.keep_ms) < now_ms;
            let gone = record.void || record.state == PlacementState::Released;
            let outcome = if gone && old {
                let deleted = self.state.delete(&key("placements", &record.id)?, Some(revision)).await;
                deleted.map(|_| ()).map_err(RackError::from)
            } else if !record.leaving.is_empty() || record.state == PlacementState::Releasing {
                self.finished(&record.id).await.map(|_| ())
            } else if !record.untold.is_empty() {
                self.tell(record).await.map(|_| ())
            } else if !record.unheard.is_empty() {
                self.withdraw_again(&record).await
            } else {
                continue;
            };
            match outcome {
                Ok(()) => moved_on += 1,
                Err(error) => tracing::warn!(%error, "left for the next sweep"),
            }
        }
        let overdue: Vec<String> = {
            let view = self.view();
            let late = view.racks().iter().filter(|(_, (_, r))| !r.overdue(now_ms).is_empty());
            late.map(|(id, _)| id.clone()).collect()
        };
        for rack in overdue {
            match self.change_rack(&rack, RackChange::Look).await {
                Ok(_) => moved_on += 1,
                Err(error) => tracing::warn!(rack, %error, "left for the next sweep"),
            }
        }
        Ok(moved_on + self.spread_residents().await?)
    }
}

fn listed(record: &PlacementRecord) -> RackListed {
    RackListed {
        id: record.id.clone(),
        state: record.state,
        created_at: runtime::rfc3339(record.created_at_ms),
        tenant: record.ask.tenant.clone(),
        groups: record.groups.iter().filter(|g| g.rack.is_some()).count() as u64,
        vms: record.vms(),
        unplaced: record.unplaced.iter().map(|u| u.vms).sum(),
    }
}
