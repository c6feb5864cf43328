//! `evacuate`: VMs leave a host or a rack. Whatever doesn't have to move stays where it is.

use std::collections::BTreeMap;

use wire::rack_scheduler::{EvacuateReport, HostState, Moved, RackEvacuate, Stuck};

use super::held::Held;
use super::{Counts, Scheduler};
use crate::core::change::{self, Takes, vm_name};
use crate::core::ledger::PlacementRecord;
use crate::core::place::place;
use crate::core::shortfall;
use crate::{Kind, RackError, Result};

/// VMs by group and class: what moves.
type Waiting = BTreeMap<(u32, u32), Vec<u32>>;

/// What a move takes, what became of it, and its hold on the room.
type Move = (Takes, Outcome, Option<Held>);

/// What has to leave, and what may not be used.
#[derive(Debug, Clone)]
pub(super) struct Leave {
    pub(super) hosts: Vec<String>,
    /// Hosts that are not to be used either.
    pub(super) avoid: Vec<String>,
    /// Groups whose VMs are on these hosts get another home.
    pub(super) whole_groups: bool,
}

/// What became of one placement.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) moved: Vec<Moved>,
    pub(super) stuck: Vec<Stuck>,
}

impl Scheduler {
    /// Marks the host, or every host of the rack, and moves what is on it.
    ///
    /// # Errors
    /// `NotFound` for an unknown host or rack; `Invalid` for neither or both, or a state that empties nothing.
    pub async fn evacuate(&self, request: &RackEvacuate) -> Result<EvacuateReport> {
        if !matches!(request.state, HostState::Draining | HostState::Lost) {
            return Err(RackError::new(
                Kind::Invalid,
                "an evacuation leaves hosts draining or lost; nothing was changed",
            ));
        }
        self.refresh().await?;
        let (rack, hosts) = match (&request.host, &request.rack) {
            (Some(host), None) => (self.known_rack_of(host)?, vec![host.clone()]),
            (None, Some(rack)) => {
                crate::core::name::check_name("rack", rack)?;
                let record = self.read_rack(rack).await?.1;
                (rack.clone(), record.hosts.iter().map(|h| h.id.clone()).collect())
            }
            _ => {
                return Err(RackError::new(
                    Kind::Invalid,
                    "an evacuation names a host or a rack; nothing was changed",
                ));
            }
        };
        self.set_states(&rack, &hosts, request.state).await?;
        let leave = Leave {
            hosts: hosts.clone(),
            avoid: vec![],
            whole_groups: request.rack.is_some(),
        };
        let mut report = EvacuateReport {
            hosts: hosts.len() as u64,
            moved: vec![],
            stuck: vec![],
        };
        for id in self.placements_on(&rack, &hosts).await? {
            let mut outcome = self.evacuated(&id, &leave).await?;
            if !outcome.stuck.is_empty() && request.move_groups && !leave.whole_groups {
                let whole = Leave {
                    whole_groups: true,
                    ..leave.clone()
                };
                outcome = self.evacuated(&id, &whole).await?;
            }
            report.moved.extend(outcome.moved);
            report.stuck.extend(outcome.stuck);
        }
        Ok(report)
    }

    /// Placements with VMs on these hosts of a rack, by the rack's present record.
    async fn placements_on(&self, rack: &str, hosts: &[String]) -> Result<Vec<String>> {
        let (_, record) = self.read_rack(rack).await?;
        let on = |b: &&crate::core::ledger::Booking| b.taken.iter().any(|t| hosts.contains(&t.host));
        let mut ids: Vec<String> = record.bookings.iter().filter(on).map(|b| b.placement.clone()).collect();
        ids.sort();
        ids.dedup();
        Ok(ids)
    }

    /// Moves what one placement has on these hosts, and tells whoever has to hear.
    async fn evacuated(&self, id: &str, leave: &Leave) -> Result<Outcome> {
        let outcome = self.leave_hosts(id, leave).await?;
        if let Some((_, record)) = self.placement(id).await?.filter(|(_, r)| !r.untold.is_empty()) {
            self.tell(record).await?;
        }
        Ok(outcome)
    }

    /// Moves what one placement has on these hosts.
    pub(super) async fn leave_hosts(&self, id: &str, leave: &Leave) -> Result<Outcome> {
        for _ in 0..self.settings.attempts_max {
            let Some((revision, mut record)) = self.placement(id).await?.filter(|(_, r)| !r.void) else {
                return Ok(Outcome::default());
            };
            self.refresh().await?;
            let change = self.fresh_id();
            let (takes, outcome, _held) = match self.moved(&mut record, leave, &change)? {
                Some(found) => found,
                None => return Ok(Outcome::default()),
            };
            if takes.is_empty() {
                return Ok(outcome);
            }
            change::committed(&mut record, &change, self.clock.now_ms());
            self.note_untold(&mut record, &takes);
            match self.commit(&record, takes, &change, Some(revision)).await {
                Ok(()) => {
                    let (_, record) = self.finished(id).await?;
                    self.placed(&record).await;
                    return Ok(outcome);
                }
                Err(error) if error.kind == Kind::Busy => Counts::up(&self.counts.replanned),
                Err(error) => return Err(error),
            }
        }
        Err(self.others_were_faster(id))
    }

    /// Decides where one placement's VMs go; `None` when it has nothing there.
    fn moved(&self, record: &mut PlacementRecord, leave: &Leave, change: &str) -> Result<Option<Move>> {
        let touched: Vec<u32> = (0..record.groups.len() as u32)
            .filter(|g| {
                record.groups[*g as usize]
                    .on
                    .iter()
                    .any(|o| leave.hosts.contains(&o.host))
            })
            .collect();
        if touched.is_empty() {
            return Ok(None);
        }
        let mut from_where: BTreeMap<(u32, u32), String> = BTreeMap::new();
        let mut waiting: Waiting = BTreeMap::new();
        for g in &touched {
            for on in &record.groups[*g as usize].on {
                if leave.whole_groups || leave.hosts.contains(&on.host) {
                    waiting.entry((*g, on.class)).or_default().extend(&on.vms);
                    from_where.extend(on.vms.iter().map(|vm| ((*g, *vm), on.host.clone())));
                }
            }
        }
        let before = record.clone();
        let leaves = |group: &crate::core::ledger::GroupRecord, host: &str| {
            let g = before.groups.iter().position(|other| other.name == group.name);
            let touched = g.is_some_and(|g| touched.contains(&(g as u32)));
            touched && (leave.whole_groups || leave.hosts.iter().any(|h| h == host))
        };
        record.leave(|group, on, _| leaves(group, &on.host));
        let counts = (0..record.groups.len() as u32)
            .map(|g| {
                let of = |class: u32| waiting.get(&(g, class)).map_or(0, |vms| vms.len() as u32);
                (0..record.classes.len() as u32).map(of).collect()
            })
            .collect();
        let rehome = if leave.whole_groups { touched.clone() } else { vec![] };
        let mut view = self.view();
        let numbers: Vec<usize> = leave
            .hosts
            .iter()
            .chain(&leave.avoid)
            .filter_map(|h| view.host(h))
            .collect();
        let (table, fits) = view.table();
        // a host that refused is up, and still not to be used
        let rooms: Vec<_> = numbers.iter().map(|h| (*h, table.room(*h))).collect();
        numbers
            .iter()
            .for_each(|h| table.set_room(*h, &crate::core::amounts::Amounts::default()));
        let planned = change::ask_for(table, record, counts, &rehome).map(|ask| {
            let plan = place(table, fits, &ask);
            let missing = (!plan.fits()).then(|| shortfall::find(table, fits, &ask, &plan).message);
            (ask, plan, missing)
        });
        rooms.iter().for_each(|(h, room)| table.set_room(*h, room));
        let (_, plan, missing) = planned?;
        if let Some(why) = missing {
            *record = before;
            let stuck = |g: &u32| {
                let of_group = waiting.iter().filter(|((group, _), _)| group == g);
                Stuck {
                    placement: record.id.clone(),
                    group: record.groups[*g as usize].name.clone(),
                    vms: of_group.map(|(_, vms)| vms.len() as u64).sum(),
                    why: why.clone(),
                }
            };
            let outcome = Outcome {
                moved: vec![],
                stuck: touched.iter().map(stuck).collect(),
            };
            return Ok(Some((Takes::new(), outcome, None)));
        }
        let takes = change::moved(record, table, &plan, &mut waiting);
        let moved = takes.values().flatten().flat_map(|taken| {
            let group = &record.groups[taken.group as usize];
            let from = &from_where;
            let placement = &record.id;
            taken.vms.iter().map(move |vm| Moved {
                placement: placement.clone(),
                vm: vm_name(group, *vm),
                from: from.get(&(taken.group, *vm)).cloned().unwrap_or_default(),
                to: taken.host.clone(),
            })
        });
        let outcome = Outcome {
            moved: moved.collect(),
            stuck: vec![],
        };
        let held = self.hold(&mut view, &record.id, change, &takes);
        Ok(Some((takes, outcome, Some(held))))
    }
}
