//! `plan` and `place`.

use wire::rack_scheduler::{Placement, PlanReport, RackAsk, RackPlaced};

use super::commit::Reservation;
use super::held::Held;
use super::{Counts, Scheduler};
use crate::core::ask::Ask;
use crate::core::change::{self, Takes};
use crate::core::inventory::Inventory;
use crate::core::ledger::{PlacementRecord, RESIDENT_BYTES_MAX, Resident, Taken};
use crate::core::place::{Plan, place};
use crate::core::{check, shortfall};
use crate::{Kind, RackError, Result};

/// Longest idempotency key, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 256;

/// What a decision makes of the view.
enum Decided {
    Takes(Box<PlacementRecord>, Takes, Held),
    Nowhere(Box<PlanReport>),
}

impl Scheduler {
    /// Where VMs would go.
    ///
    /// # Errors
    /// As [`Ask::check`]; when the state can't be read.
    pub async fn plan(&self, request: &RackAsk) -> Result<PlanReport> {
        self.refresh().await?;
        let mut view = self.view();
        let (table, fits) = view.table();
        let ask = Ask::check(table, request)?;
        let plan = place(table, fits, &ask);
        let missing = (!plan.fits()).then(|| shortfall::find(table, fits, &ask, &plan));
        Ok(report(table, &ask, request, &plan, missing))
    }

    /// Places and commits. The same `request_id` has one effect.
    ///
    /// # Errors
    /// `Conflict` when it doesn't fit, or the request id was used for something else; `Busy` when others were faster each time;
    /// as [`Ask::check`]; when the state can't be read or written.
    pub async fn place(&self, request: &RackAsk, request_id: Option<&str>) -> Result<Placement> {
        if request_id.is_some_and(|id| id.is_empty() || id.len() > REQUEST_ID_BYTES_MAX) {
            return Err(RackError::new(
                Kind::Invalid,
                format!("a request id has 1 to {REQUEST_ID_BYTES_MAX} bytes; nothing was placed"),
            ));
        }
        let id = request_id.map_or_else(|| self.fresh_id(), Self::id_from);
        let mut known = match request_id {
            None => None,
            Some(_) => self.kept(&id).await?,
        };
        for _ in 0..self.settings.attempts_max {
            if let Some((_, record)) = known.as_ref().filter(|(_, r)| !r.void) {
                return self.again(record, request);
            }
            let change = self.fresh_id();
            let (record, takes, _held) = match self.decided(request, &id, &change).await? {
                Decided::Takes(record, takes, held) => (*record, takes, held),
                Decided::Nowhere(report) => return Err(no_place(&report)),
            };
            let committed = match self.resident(request_id, &record, &takes)? {
                Some((rack, taken, resident)) => self.decide_in_rack(rack, taken, resident, &change).await,
                None => {
                    let revision = known.as_ref().map(|(r, _)| *r);
                    self.commit(&record, takes, &change, revision).await
                }
            };
            match committed {
                Ok(()) => {
                    let record = self.tell(record).await?;
                    self.placed(&record).await;
                    return Ok(self.shown(&record, false));
                }
                Err(error) if error.kind == Kind::Busy => {
                    Counts::up(&self.counts.replanned);
                    if request_id.is_some() {
                        known = self.kept(&id).await?;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(RackError::new(
            Kind::Busy,
            format!(
                "others booked the same racks {} times in a row; nothing was placed",
                self.settings.attempts_max
            ),
        ))
    }

    async fn decided(&self, request: &RackAsk, id: &str, change: &str) -> Result<Decided> {
        self.refresh().await?;
        let now_ms = self.clock.now_ms();
        let mut view = self.view();
        let (table, fits) = view.table();
        let ask = Ask::check(table, request)?;
        let plan = place(table, fits, &ask);
        debug_assert_eq!(check::violations(table, &ask, &plan), Vec::<String>::new());
        if plan.takes.is_empty() || (!plan.fits() && !ask.best_effort) {
            let missing = shortfall::find(table, fits, &ask, &plan);
            return Ok(Decided::Nowhere(Box::new(report(
                table,
                &ask,
                request,
                &plan,
                Some(missing),
            ))));
        }
        let (mut record, takes) = change::first(table, request, &ask, &plan, id, change, now_ms);
        if self.settings.tells_hosts {
            record.untold = takes.values().flatten().map(|t| t.host.clone()).collect();
            record.untold.sort();
            record.untold.dedup();
        }
        let held = self.hold(&mut view, id, change, &takes);
        Ok(Decided::Takes(Box::new(record), takes, held))
    }

    /// What one rack alone can book and decide: a first placement without a request id, a quota or a host to be told, small
    /// enough for the rack's record.
    fn resident<'a>(
        &self,
        request_id: Option<&str>,
        record: &PlacementRecord,
        takes: &'a Takes,
    ) -> Result<Option<(&'a str, Vec<Taken>, Resident)>> {
        let Some((rack, taken)) = takes.first_key_value().filter(|_| takes.len() == 1) else {
            return Ok(None);
        };
        if request_id.is_some() || record.ask.tenant.is_some() || !record.untold.is_empty() {
            return Ok(None);
        }
        let resident = Resident::new(record)?;
        let bytes = resident.record.len();
        let kept = self.view().rack(rack).map_or(0, |(_, r)| r.residents_bytes());
        let fine = bytes <= RESIDENT_BYTES_MAX && kept + bytes <= self.settings.residents_bytes_max;
        Ok(fine.then(|| (rack.as_str(), taken.clone(), resident)))
    }

    /// Books tentatively, decides, and gives up what was booked when the decision fails.
    pub(super) async fn commit(
        &self,
        record: &PlacementRecord,
        takes: Takes,
        change: &str,
        revision: Option<u64>,
    ) -> Result<()> {
        let reservation = Reservation {
            placement: record.id.clone(),
            change: change.to_owned(),
            tenant: record.ask.tenant.clone().map(|t| (t, change::sums_of(&takes))),
            takes,
        };
        self.reserve(&reservation).await?;
        match self.decide(record, revision).await {
            Ok(_) => {
                for rack in reservation.takes.keys() {
                    self.queue(rack).note_decided(&reservation.placement, change);
                }
                Ok(())
            }
            Err(error) if error.kind == Kind::Busy => {
                self.abandon(&reservation).await;
                Err(error)
            }
            // it may have been decided or not: whoever meets the bookings finds out
            Err(error) => Err(error),
        }
    }

    fn again(&self, record: &PlacementRecord, request: &RackAsk) -> Result<Placement> {
        if record.ask != *request {
            return Err(RackError::new(
                Kind::Conflict,
                format!(
                    "this request id was used for another request, placement {}; nothing was placed",
                    record.id
                ),
            )
            .hint("use a fresh request id"));
        }
        Ok(self.shown(record, true))
    }

    /// A record as its reader sees it.
    pub(super) fn shown(&self, record: &PlacementRecord, duplicate: bool) -> Placement {
        change::shown(record, runtime::rfc3339(record.created_at_ms), duplicate)
    }

    /// Tells the world.
    pub(super) async fn placed(&self, record: &PlacementRecord) {
        self.announcer
            .announce(RackPlaced {
                id: record.id.clone(),
                version: record.revision,
                tenant: record.ask.tenant.clone(),
                vms: record.vms(),
            })
            .await;
    }
}

/// The error of what has no place.
pub(super) fn no_place(report: &PlanReport) -> RackError {
    let unplaced: u64 = report.unplaced.iter().map(|u| u.vms).sum();
    let (why, change) = report
        .shortfall
        .as_ref()
        .map_or(("", None), |s| (s.message.as_str(), s.change.as_ref()));
    let change = change.map(|c| format!("; it would fit with: {c}")).unwrap_or_default();
    RackError::new(
        Kind::Conflict,
        format!("{unplaced} VMs have no place: {why}{change}; nothing was placed"),
    )
    .hint("windlass rack explain says which racks were refused and why; mode = \"best_effort\" places what fits")
}

fn report(
    table: &Inventory,
    ask: &Ask,
    request: &RackAsk,
    plan: &Plan,
    missing: Option<wire::rack_scheduler::Shortfall>,
) -> PlanReport {
    let (record, _) = change::first(table, request, ask, plan, "", "", 0);
    let shown = change::shown(&record, String::new(), false);
    PlanReport {
        fits: plan.fits(),
        groups: shown.groups,
        unplaced: shown.unplaced,
        shortfall: missing,
        gave_way: shown.gave_way,
        racks: plan.racks() as u64,
    }
}
