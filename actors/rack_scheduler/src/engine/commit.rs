//! Booking, deciding, settling: see `core::ledger` for why this can't oversell.

use bytes::Bytes;
use futures::future::join_all;
use planted::Fault;
use serde::Serialize;

use super::view::{key, read};
use super::writing::RECORD_ATTEMPTS_MAX;
use super::{Counts, Scheduler};
use crate::core::amounts::{DIM_WORDS, Sums};
use crate::core::change::Takes;
use crate::core::ledger::{Booking, Leaving, PlacementRecord, RackChange, Resident, Share, Taken, TenantRecord};
use crate::{Kind, RackError, Result};

/// What one placement remembers of hosts that didn't hear.
const UNHEARD_MAX: usize = 1_000;

/// What a change takes, before it is decided.
#[derive(Debug, Clone)]
pub struct Reservation {
    /// The placement.
    pub placement: String,
    /// The change.
    pub change: String,
    /// By rack.
    pub takes: Takes,
    /// Of whose quota, and how much.
    pub tenant: Option<(String, Sums)>,
}

/// A value as the state keeps it.
pub(super) fn encoded(value: &impl Serialize) -> Result<Bytes> {
    let json = serde_json::to_vec(value);
    json.map(Bytes::from).map_err(|e| {
        RackError::new(
            Kind::Internal,
            format!("a record can't be written: {e}; nothing was changed"),
        )
    })
}

pub(super) fn lost(error: &state::StateError) -> bool {
    matches!(error.kind, state::Kind::Conflict | state::Kind::NotFound)
}

impl Scheduler {
    /// Books everything tentatively, or nothing.
    ///
    /// # Errors
    /// `Busy` when others were faster: plan again. `Conflict` when the quota has no room.
    pub async fn reserve(&self, reservation: &Reservation) -> Result<()> {
        let until_ms = self.clock.now_ms().saturating_add(self.settings.tentative_ms);
        if let Some((tenant, sums)) = &reservation.tenant {
            self.reserve_quota(tenant, *sums, reservation, until_ms).await?;
        }
        let each = reservation.takes.iter().map(|(rack, taken)| {
            let booking = Booking {
                placement: reservation.placement.clone(),
                change: reservation.change.clone(),
                until_ms: Some(until_ms),
                taken: taken.clone(),
            };
            let change = RackChange::Book {
                booking,
                resident: None,
                by: self.host.to_string(),
            };
            async move { self.change_rack(rack, change).await }
        });
        let results = join_all(each).await;
        match results.into_iter().find_map(std::result::Result::err) {
            None => Ok(()),
            Some(error) => {
                self.abandon(reservation).await;
                Err(error)
            }
        }
    }

    /// Gives up what was booked and not decided. What can't be given up now is dropped once its time has passed.
    pub async fn abandon(&self, reservation: &Reservation) {
        let (placement, change) = (&reservation.placement, &reservation.change);
        let each = reservation.takes.keys().map(|rack| async move {
            let dropped = RackChange::Drop {
                placement: placement.clone(),
                change: change.clone(),
            };
            if let Err(error) = self.change_rack(rack, dropped).await {
                tracing::warn!(rack, %error, "a tentative booking stays until its time has passed");
            }
        });
        join_all(each).await;
        if let Some((tenant, _)) = &reservation.tenant {
            let dropped = self.change_tenant(tenant, |record| {
                record.drop_change(placement, change);
                Ok(())
            });
            if let Err(error) = dropped.await {
                tracing::warn!(tenant, %error, "a tentative share stays until its time has passed");
            }
        }
    }

    /// Books and decides in one write of the one rack that a first placement touches.
    ///
    /// # Errors
    /// `Busy` when others were faster, or the rack keeps as many placements as it may: plan again.
    pub(super) async fn decide_in_rack(
        &self,
        rack: &str,
        taken: Vec<Taken>,
        resident: Resident,
        change: &str,
    ) -> Result<()> {
        let booking = Booking {
            placement: resident.placement.clone(),
            change: change.to_owned(),
            until_ms: None,
            taken,
        };
        let change = RackChange::Book {
            booking,
            resident: Some(resident),
            by: self.host.to_string(),
        };
        self.change_rack(rack, change).await?;
        Counts::up(&self.counts.committed);
        Ok(())
    }

    /// The one write that decides. `None`: there was no record when the change began.
    ///
    /// # Errors
    /// `Busy` when the record changed since: what was booked is void, plan again.
    pub async fn decide(&self, record: &PlacementRecord, revision: Option<u64>) -> Result<u64> {
        let (at, value) = (key("placements", &record.id)?, encoded(record)?);
        let written = match revision {
            _ if planted::is(Fault::PlacementDecidedUncompared) => self.state.put(&at, value).await,
            None => self.state.create(&at, value).await,
            Some(revision) => self.state.update(&at, value, revision).await,
        };
        match written {
            Ok(revision) => {
                Counts::up(&self.counts.committed);
                Ok(revision)
            }
            Err(error) if lost(&error) => {
                Counts::up(&self.counts.conflicts);
                Err(RackError::new(
                    Kind::Busy,
                    format!(
                        "placement {} was changed by others meanwhile; nothing was changed",
                        record.id
                    ),
                ))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a change was committed; if not, it never will be once this returns.
    pub(super) async fn is_committed(&self, placement: &str, change: &str) -> Result<bool> {
        if planted::is(Fault::OverdueUnasked) {
            return Ok(false);
        }
        for _ in 0..RECORD_ATTEMPTS_MAX {
            let fenced = match self.kept(placement).await? {
                Some((_, record)) if record.changes.iter().any(|c| c == change) => return Ok(true),
                Some((revision, mut record)) => {
                    record.changed_at_ms = self.clock.now_ms();
                    let at = key("placements", placement)?;
                    self.state.update(&at, encoded(&record)?, revision).await
                }
                None => {
                    let void = PlacementRecord::void(placement, self.clock.now_ms());
                    self.state.create(&key("placements", placement)?, encoded(&void)?).await
                }
            };
            match fenced {
                Ok(_) => return Ok(false),
                Err(error) if lost(&error) => Counts::up(&self.counts.conflicts),
                Err(error) => return Err(error.into()),
            }
        }
        Err(RackError::new(
            Kind::Busy,
            format!("placement {placement} was changed by others again and again; nothing was changed"),
        ))
    }

    async fn reserve_quota(&self, tenant: &str, sums: Sums, reservation: &Reservation, until_ms: u64) -> Result<()> {
        let share = Share {
            placement: reservation.placement.clone(),
            change: reservation.change.clone(),
            until_ms: Some(until_ms),
            sums,
            revision: 0,
        };
        self.change_tenant(tenant, |record| {
            record.book(share.clone()).map_err(|(d, free)| {
                RackError::new(
                    Kind::Conflict,
                    format!(
                        "tenant {tenant} may book {free} {} more, and this wants {}; nothing was placed",
                        DIM_WORDS[d], sums[d]
                    ),
                )
                .hint(format!("windlass rack quota {tenant}"))
            })
        })
        .await
    }

    /// Changes a tenant's record, when there is one, by compare-and-set.
    pub(super) async fn change_tenant(
        &self,
        tenant: &str,
        mut change: impl FnMut(&mut TenantRecord) -> Result<()>,
    ) -> Result<()> {
        let at = key("tenants", tenant)?;
        for _ in 0..RECORD_ATTEMPTS_MAX {
            let Some(entry) = self.state.get(&at).await? else {
                return Ok(());
            };
            let mut record: TenantRecord = read(&entry)?;
            for (placement, of_change) in record.overdue(self.clock.now_ms()) {
                match self.is_committed(&placement, &of_change).await? {
                    true => {
                        if let Some((_, p)) = self.kept(&placement).await? {
                            record.set(&placement, &p.changes, p.sums(), p.revision);
                        }
                    }
                    false => record.drop_change(&placement, &of_change),
                }
            }
            change(&mut record)?;
            match self.state.update(&at, encoded(&record)?, entry.revision).await {
                Ok(_) => return Ok(()),
                Err(error) if lost(&error) => Counts::up(&self.counts.conflicts),
                Err(error) => return Err(error.into()),
            }
        }
        Err(RackError::new(
            Kind::Busy,
            format!("tenant {tenant} was changed by others again and again; nothing was changed"),
        ))
    }

    /// Gives back what a committed change leaves, then notes that nothing is left to do but to tell the hosts that haven't
    /// `heard`. Any step may come twice.
    ///
    /// # Errors
    /// When the state can't be written; the same call, or the next sweep, goes on.
    pub(super) async fn finish(&self, id: &str, heard: &[Leaving]) -> Result<u64> {
        let mut given = 0;
        for _ in 0..RECORD_ATTEMPTS_MAX {
            let Some((revision, mut record)) = self.kept(id).await? else {
                return Ok(given);
            };
            for leaving in &record.leaving {
                let back = RackChange::GiveBack {
                    placement: id.to_owned(),
                    host: leaving.host.clone(),
                    vms: leaving.vms.clone(),
                    changes: record.changes[..leaving.after.min(record.changes.len())].to_vec(),
                };
                match self.change_rack(&leaving.rack, back).await {
                    Ok(applied) => given += applied.vms,
                    // the rack was taken out of the inventory, and its bookings with it
                    Err(error) if error.kind == Kind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            if let Some(tenant) = &record.ask.tenant {
                let sums = record.sums();
                self.change_tenant(tenant, |t| {
                    t.set(id, &record.changes, sums, record.revision);
                    Ok(())
                })
                .await?;
            }
            let releasing = record.state == wire::rack_scheduler::PlacementState::Releasing;
            if record.leaving.is_empty() && !releasing {
                return Ok(given);
            }
            let left = std::mem::take(&mut record.leaving);
            if self.settings.tells_hosts {
                record.unheard.extend(left.into_iter().filter(|l| !heard.contains(l)));
                // a host that never hears shows as drift when it reports; the record stays small
                let many = record.unheard.len().saturating_sub(UNHEARD_MAX);
                record.unheard.drain(..many);
            }
            if releasing {
                record.state = wire::rack_scheduler::PlacementState::Released;
            }
            match self
                .state
                .update(&key("placements", id)?, encoded(&record)?, revision)
                .await
            {
                Ok(_) => return Ok(given),
                Err(error) if lost(&error) => Counts::up(&self.counts.conflicts),
                Err(error) => return Err(error.into()),
            }
        }
        Err(RackError::new(
            Kind::Busy,
            format!("placement {id} was changed by others again and again; the rest is given back later"),
        ))
    }
}
