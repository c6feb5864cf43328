//! `grow`, `shrink` and `release`.

use wire::rack_scheduler::{Placement, PlacementState, RackGrow, RackReleased, RackShrink, Released};

use super::held::Held;
use super::place::no_place;
use super::view::key;
use super::{Counts, Scheduler, commit};
use crate::core::change::{self, Takes};
use crate::core::ledger::{CHANGES_MAX, GroupRecord, PlacementRecord};
use crate::core::place::place;
use crate::core::shortfall;
use crate::{Kind, RackError, Result};

impl Scheduler {
    /// A standing placement, to be changed, by its id or a unique beginning.
    ///
    /// # Errors
    /// `NotFound` for none; `Invalid` for a beginning of several.
    pub async fn standing(&self, id: &str) -> Result<(u64, PlacementRecord)> {
        crate::core::name::check_name("placement", id)?;
        let found = match self.placement(id).await? {
            Some(found) => Some(found),
            None => self.placement(&self.begins_with(id).await?.id).await?,
        };
        found.filter(|(_, r)| !r.void).ok_or_else(|| Self::absent(id))
    }

    /// A standing placement, to be looked at, by its id or a unique beginning.
    ///
    /// # Errors
    /// `NotFound` for none; `Invalid` for a beginning of several.
    pub(super) async fn seen(&self, id: &str) -> Result<PlacementRecord> {
        crate::core::name::check_name("placement", id)?;
        match self.known(id).await? {
            Some(record) if record.void => Err(Self::absent(id)),
            Some(record) => Ok(record),
            None => self.begins_with(id).await,
        }
    }

    async fn begins_with(&self, id: &str) -> Result<PlacementRecord> {
        let mut found = self.placements().await?;
        found.retain(|record| record.id.starts_with(id) && !record.void);
        match found.len() {
            0 => Err(Self::absent(id)),
            1 => Ok(found.remove(0)),
            n => Err(RackError::new(
                Kind::Invalid,
                format!("{n} placements begin with {id}; nothing was changed"),
            )
            .hint("windlass rack ls")),
        }
    }

    fn must_stand(record: &PlacementRecord) -> Result<()> {
        if record.state != PlacementState::Placed {
            return Err(RackError::new(
                Kind::Conflict,
                format!("placement {} was released; nothing was changed", record.id),
            ));
        }
        if record.changes.len() >= CHANGES_MAX {
            return Err(RackError::new(
                Kind::Conflict,
                format!(
                    "placement {} has seen {CHANGES_MAX} changes, the most; nothing was changed",
                    record.id
                ),
            )
            .hint("place its VMs anew and release it"));
        }
        Ok(())
    }

    /// Adds VMs in the groups' home racks.
    ///
    /// # Errors
    /// `Conflict` when they don't fit there or the placement was released; `Busy` when others were faster each time.
    pub async fn grow(&self, request: &RackGrow, request_id: Option<&str>) -> Result<Placement> {
        for _ in 0..self.settings.attempts_max {
            let (revision, mut record) = self.standing(&request.id).await?;
            let change = request_id.map_or_else(|| self.fresh_id(), |id| Self::id_from(&format!("{}/{id}", record.id)));
            if record.changes.contains(&change) {
                return Ok(self.shown(&record, true));
            }
            Self::must_stand(&record)?;
            self.refresh().await?;
            let (takes, _held) = self.grown(&mut record, request, &change)?;
            change::committed(&mut record, &change, self.clock.now_ms());
            self.note_untold(&mut record, &takes);
            match self.commit(&record, takes, &change, Some(revision)).await {
                Ok(()) => {
                    let record = self.tell(record).await?;
                    self.placed(&record).await;
                    return Ok(self.shown(&record, false));
                }
                Err(error) if error.kind == Kind::Busy => Counts::up(&self.counts.replanned),
                Err(error) => return Err(error),
            }
        }
        Err(self.others_were_faster(&request.id))
    }

    pub(super) fn others_were_faster(&self, id: &str) -> RackError {
        RackError::new(
            Kind::Busy,
            format!(
                "placement {id}, or the racks it uses, changed {} times in a row; nothing was changed",
                self.settings.attempts_max
            ),
        )
    }

    /// Notes that these hosts have to hear of their VMs, where hosts are told at all.
    pub(super) fn note_untold(&self, record: &mut PlacementRecord, takes: &Takes) {
        if self.settings.tells_hosts {
            record.untold.extend(takes.values().flatten().map(|t| t.host.clone()));
            record.untold.sort();
            record.untold.dedup();
        }
    }

    fn grown(&self, record: &mut PlacementRecord, request: &RackGrow, change: &str) -> Result<(Takes, Held)> {
        let counts = change::dealt(record, &request.vms, &request.groups)?;
        let mut view = self.view();
        let (table, fits) = view.table();
        let ask = change::ask_for(table, record, counts, &[])?;
        let plan = place(table, fits, &ask);
        if !plan.fits() {
            let missing = shortfall::find(table, fits, &ask, &plan);
            return Err(no_place(&wire::rack_scheduler::PlanReport {
                fits: false,
                groups: vec![],
                unplaced: change::unplaced(&ask, &plan),
                shortfall: Some(missing),
                gave_way: vec![],
                racks: 0,
            }));
        }
        let takes = change::added(record, table, &plan);
        let held = self.hold(&mut view, &record.id, change, &takes);
        Ok((takes, held))
    }

    /// Takes VMs out.
    ///
    /// # Errors
    /// `NotFound` for a VM that isn't there; `Invalid` for none or all of them; `Busy` when others were faster each time.
    pub async fn shrink(&self, request: &RackShrink) -> Result<Placement> {
        for _ in 0..self.settings.attempts_max {
            let (revision, mut record) = self.standing(&request.id).await?;
            Self::must_stand(&record)?;
            let going = going(&record, request)?;
            record.leave(|group, _, vm| going.contains(&(group.name.clone(), vm)));
            record.revision += 1;
            record.changed_at_ms = self.clock.now_ms();
            if self.rewrite(&record, revision).await? {
                let (_, record) = self.finished(&record.id).await?;
                self.placed(&record).await;
                return Ok(self.shown(&record, false));
            }
        }
        Err(self.others_were_faster(&request.id))
    }

    /// Gives everything back.
    ///
    /// # Errors
    /// `NotFound` for an unknown placement; `Busy` when others were faster each time.
    pub async fn release(&self, id: &str) -> Result<Released> {
        for _ in 0..self.settings.attempts_max {
            let (revision, mut record) = self.standing(id).await?;
            let id = record.id.clone();
            let vms = match record.state {
                PlacementState::Released => return Ok(Released { id, vms: 0 }),
                PlacementState::Releasing => 0,
                PlacementState::Placed => record.leave(|_, _, _| true),
            };
            record.state = PlacementState::Releasing;
            record.unplaced.clear();
            record.revision += 1;
            record.changed_at_ms = self.clock.now_ms();
            if self.rewrite(&record, revision).await? {
                self.finished(&id).await?;
                self.announcer.announce(RackReleased { id: id.clone() }).await;
                return Ok(Released { id, vms });
            }
        }
        Err(self.others_were_faster(id))
    }

    /// Writes a record that needs no booking. False when it changed since.
    pub(super) async fn rewrite(&self, record: &PlacementRecord, revision: u64) -> Result<bool> {
        let written = self
            .state
            .update(&key("placements", &record.id)?, commit::encoded(record)?, revision)
            .await;
        match written {
            Ok(_) => {
                Counts::up(&self.counts.committed);
                Ok(true)
            }
            Err(error) if matches!(error.kind, state::Kind::Conflict | state::Kind::NotFound) => {
                Counts::up(&self.counts.conflicts);
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Gives back what left, tells its hosts, and reads the record anew.
    pub(super) async fn finished(&self, id: &str) -> Result<(u64, PlacementRecord)> {
        let heard = self.withdraw_leaving(id).await?;
        self.finish(id, &heard).await?;
        self.placement(id)
            .await?
            .ok_or_else(|| RackError::new(Kind::NotFound, format!("placement {id} has gone meanwhile")))
    }
}

/// VMs that a shrink names, or chooses: of the largest groups the youngest.
fn going(record: &PlacementRecord, request: &RackShrink) -> Result<std::collections::BTreeSet<(String, u32)>> {
    let invalid = |why: String| Err(RackError::new(Kind::Invalid, format!("{why}; nothing was changed")));
    let mut going = std::collections::BTreeSet::new();
    if request.vms.is_empty() == (request.count == 0) {
        return invalid("a shrink names VMs or a count".into());
    }
    for vm in &request.vms {
        let found = record.groups.iter().find_map(|g| {
            let number: u32 = vm.strip_prefix(&g.name)?.strip_prefix('-')?.parse().ok()?;
            g.on.iter()
                .any(|o| o.vms.contains(&number))
                .then(|| (g.name.clone(), number))
        });
        match found {
            Some(vm) => going.insert(vm),
            None => {
                let shown: String = vm.chars().take(64).collect();
                return Err(RackError::new(
                    Kind::NotFound,
                    format!("placement {} has no VM {shown}; nothing was changed", record.id),
                )
                .hint(format!("windlass rack show {}", record.id)));
            }
        };
    }
    let mut left: Vec<(Vec<u32>, &GroupRecord)> = record
        .groups
        .iter()
        .map(|g| {
            let mut vms: Vec<u32> = g.on.iter().flat_map(|o| o.vms.iter().copied()).collect();
            vms.sort_unstable();
            (vms, g)
        })
        .collect();
    for _ in 0..request.count.min(record.vms()) {
        let largest = left.iter_mut().rev().max_by_key(|(vms, _)| vms.len());
        if let Some((vms, group)) = largest
            && let Some(vm) = vms.pop()
        {
            going.insert((group.name.clone(), vm));
        }
    }
    if going.len() as u64 >= record.vms() {
        return Err(RackError::new(
            Kind::Invalid,
            format!(
                "placement {} has {} VMs: nothing would be left; nothing was changed",
                record.id,
                record.vms()
            ),
        )
        .hint(format!("windlass rack release {}", record.id)));
    }
    Ok(going)
}
