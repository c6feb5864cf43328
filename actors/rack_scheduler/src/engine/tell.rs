//! Hosts and the world hear of what was decided: `provide`, `withdraw`, events.
//!
//! A host is told after the decision. Which hosts have to hear yet stands in the placement's record, so a scheduler that dies
//! in between leaves the telling to the next sweep. A host that refuses, or doesn't answer, loses its VMs to others of the same
//! rack; nothing else moves.

use wire::rack_scheduler::{ProvideVm, RackProvide, RackWithdraw, Unplaced};

use super::Scheduler;
use super::evacuate::Leave;
use crate::Result;
use crate::core::change::vm_name;
use crate::core::ledger::{Leaving, PlacementRecord};

impl Scheduler {
    /// Tells the hosts that have to hear, and replaces those that refuse.
    ///
    /// # Errors
    /// When the state can't be read or written; what was decided stands, and the sweep goes on.
    pub(super) async fn tell(&self, mut record: PlacementRecord) -> Result<PlacementRecord> {
        let mut refused: Vec<String> = Vec::new();
        while let Some(host) = record.untold.first().cloned() {
            let answer = match provide(&record, &host) {
                None => None,
                Some(message) => Some(self.hosts.provide(&host, message).await),
            };
            if let Some(why) = answer.filter(|a| !a.accepted).map(|a| a.why.unwrap_or_default()) {
                tracing::info!(placement = record.id, host, why, "a host refused; its VMs go elsewhere");
                refused.push(host.clone());
                self.replace(&record.id, &host, &why, &refused).await?;
            }
            record = self.told(&record.id, &host).await?;
        }
        Ok(record)
    }

    /// Notes that a host has heard.
    async fn told(&self, id: &str, host: &str) -> Result<PlacementRecord> {
        for _ in 0..self.settings.attempts_max {
            let (revision, mut record) = self.standing(id).await?;
            let before = record.untold.len();
            record.untold.retain(|h| h != host);
            if record.untold.len() == before || self.rewrite(&record, revision).await? {
                return Ok(record);
            }
        }
        Err(self.others_were_faster(id))
    }

    /// Moves what a placement has on a host that refused it; what has no other place is given back and counted as unplaced.
    async fn replace(&self, id: &str, host: &str, why: &str, refused: &[String]) -> Result<()> {
        let leave = Leave {
            hosts: vec![host.to_owned()],
            avoid: refused.to_vec(),
            whole_groups: false,
        };
        if self.leave_hosts(id, &leave).await?.stuck.is_empty() {
            return Ok(());
        }
        for _ in 0..self.settings.attempts_max {
            let (revision, mut record) = self.standing(id).await?;
            for group in &record.groups {
                let vms: u64 = group
                    .on
                    .iter()
                    .filter(|o| o.host == host)
                    .map(|o| o.vms.len() as u64)
                    .sum();
                if vms > 0 {
                    record.unplaced.push(Unplaced {
                        group: group.name.clone(),
                        vms,
                    });
                }
            }
            record.leave(|_, on, _| on.host == host);
            record
                .gave_way
                .push(format!("host {host} refused ({why}), and no other has room"));
            record.revision += 1;
            if self.rewrite(&record, revision).await? {
                // the host that refused has nothing to give back
                let of_host = record.leaving.iter().filter(|l| l.host == host);
                let heard: Vec<Leaving> = of_host.cloned().collect();
                self.finish(id, &heard).await?;
                return Ok(());
            }
        }
        Err(self.others_were_faster(id))
    }

    /// Tells hosts of VMs that leave them; returns what was heard. The rest is told again by the sweep.
    pub(super) async fn withdraw_leaving(&self, id: &str) -> Result<Vec<Leaving>> {
        match self.kept(id).await?.filter(|_| self.settings.tells_hosts) {
            Some((_, record)) => Ok(self.withdraw(&record, &record.leaving).await),
            None => Ok(vec![]),
        }
    }

    async fn withdraw(&self, record: &PlacementRecord, leaving: &[Leaving]) -> Vec<Leaving> {
        let mut heard = Vec::new();
        for left in leaving {
            let name = |(g, vm): (u32, u32)| vm_name(&record.groups[g as usize], vm);
            let vms: Vec<String> = record.still_gone(left).into_iter().map(name).collect();
            let message = RackWithdraw {
                placement: record.id.clone(),
                vms,
            };
            if message.vms.is_empty() || self.hosts.withdraw(&left.host, message).await {
                heard.push(left.clone());
            } else {
                tracing::warn!(
                    placement = record.id,
                    host = left.host,
                    "a host didn't hear that VMs left it; it is told again"
                );
            }
        }
        heard
    }

    /// Tells hosts again that didn't hear.
    ///
    /// # Errors
    /// `Busy` when others were faster each time; when the state can't be read or written.
    pub(super) async fn withdraw_again(&self, record: &PlacementRecord) -> Result<()> {
        let heard = self.withdraw(record, &record.unheard).await;
        for _ in 0..self.settings.attempts_max {
            let (revision, mut record) = self.standing(&record.id).await?;
            let before = record.unheard.len();
            record.unheard.retain(|l| !heard.contains(l));
            if record.unheard.len() == before || self.rewrite(&record, revision).await? {
                return Ok(());
            }
        }
        Err(self.others_were_faster(&record.id))
    }
}

/// What a host has to hear of a placement; nothing when it has no VMs of it.
fn provide(record: &PlacementRecord, host: &str) -> Option<RackProvide> {
    let mut vms = Vec::new();
    let mut rack = None;
    for group in &record.groups {
        for on in group.on.iter().filter(|o| o.host == host) {
            rack = group.rack.clone();
            vms.extend(on.vms.iter().map(|vm| ProvideVm {
                vm: vm_name(group, *vm),
                group: group.name.clone(),
                needs: record.classes[on.class as usize].needs.to_wire(),
            }));
        }
    }
    Some(RackProvide {
        placement: record.id.clone(),
        version: record.revision,
        rack: rack?,
        vms,
    })
}
