//! A machine came up, or did not; in the place that was promised, or in another. One that didn't is quarantined and replaced.

use wire::metal_broker::{Cluster, ClusterState, Member, MemberState, MetalConfirm, MetalQuarantined};

use super::claim::{Setback, member, misfit};
use super::records::{encoded, key, lost, read};
use super::{Broker, Counts};
use crate::core::ask;
use crate::core::fleet::Busy;
use crate::core::ledger::{Apart, ClusterRecord, VERSION};
use crate::core::name::check_name;
use crate::core::select::{self, Standing};
use crate::core::verify;
use crate::{Kind, MetalError, Result};

impl Broker {
    /// A cluster's record.
    ///
    /// # Errors
    /// `NotFound`; in the same words where another tenant has it.
    pub(super) async fn cluster(&self, tenant: &str, id: &str) -> Result<(u64, ClusterRecord)> {
        check_name("tenant", tenant)?;
        check_name("cluster", id)?;
        match self.state.get(&key("clusters", tenant, id)?).await? {
            Some(entry) => Ok((entry.revision, read(&entry)?)),
            None => Err(MetalError::new(
                Kind::NotFound,
                format!("tenant {tenant} has no cluster {id}; nothing was changed"),
            )
            .hint("windlass metal ls")),
        }
    }

    /// Says of a machine whether it came up. All machines up make the cluster `Confirmed`.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` where the machine isn't the cluster's, or none can replace it: then the claim has failed, and all of
    /// it is given back.
    pub async fn confirm(&self, request: &MetalConfirm) -> Result<Cluster> {
        self.refresh().await?;
        for _ in 0..self.settings.attempts_max {
            let (revision, record) = self.cluster(&request.tenant, &request.id).await?;
            let member = standing(&record, &request.machine)?;
            let elsewhere = verify::elsewhere(&member, request.rack.as_deref(), request.zone.as_deref());
            let outcome = match (request.up, elsewhere) {
                (true, None) => self.came_up(revision, record, &request.machine).await,
                (true, Some(why)) => {
                    self.replace(revision, record, &member, &format!("it came up in {why}"))
                        .await
                }
                (false, _) => self.replace(revision, record, &member, "it did not come up").await,
            };
            match outcome {
                Ok(cluster) => return Ok(cluster),
                Err(Setback::Hard(error)) => return Err(error),
                Err(Setback::Again) => self.refresh().await?,
            }
        }
        Err(MetalError::new(
            Kind::Busy,
            format!("cluster {} changes all the time; nothing was changed", request.id),
        ))
    }

    async fn came_up(
        &self,
        revision: u64,
        mut record: ClusterRecord,
        machine: &str,
    ) -> std::result::Result<Cluster, Setback> {
        for member in record.cluster.members.iter_mut().filter(|m| m.machine == machine) {
            if member.state == MemberState::Leased && record.cluster.ask.rack_hosts {
                record.untold.push(machine.to_owned());
            }
            member.state = MemberState::Up;
        }
        if record.is_up() {
            record.cluster.state = ClusterState::Confirmed;
        }
        let written = self.write_cluster(&record, Some(revision)).await?;
        self.desk_cluster(written, &record);
        let (_, record) = self.tell_racks(written, record).await;
        Ok(record.cluster)
    }

    /// Quarantines a machine and puts another in its place. Where none fits, the claim has failed and is given back.
    pub(super) async fn replace(
        &self,
        revision: u64,
        mut record: ClusterRecord,
        gone: &Member,
        why: &str,
    ) -> std::result::Result<Cluster, Setback> {
        self.keep_apart(&record.cluster.tenant, &gone.machine, why).await?;
        let fresh = match self.hold_instead(&record, gone) {
            Ok(fresh) => fresh,
            Err(error) => {
                let id = record.cluster.id.clone();
                self.given_back(revision, record).await?;
                return Err(Setback::Hard(MetalError::new(
                    Kind::Conflict,
                    format!(
                        "machine {} of cluster {id}: {why}, and nothing can take its place: {}; the claim failed and all of it was given back",
                        gone.machine, error.message
                    ),
                )
                .hint("windlass metal claim REQUEST")));
            }
        };
        let roles = ask::check(&record.cluster.ask)?;
        let taken = match self.book(&record.cluster, &fresh).await {
            Ok(()) => self.take_at_provider(&record.cluster, &fresh, &roles).await,
            Err(setback) => Err(setback),
        };
        if let Err(setback) = taken {
            self.let_go(&record.cluster, &fresh).await;
            return Err(setback);
        }
        let at = record.cluster.members.iter().position(|m| m.machine == gone.machine);
        if let Some(at) = at {
            record.cluster.members[at] = fresh.clone();
        }
        record.cluster.replaced.push(gone.machine.clone());
        record.cluster.state = ClusterState::Leased;
        record.untold.retain(|m| *m != gone.machine);
        match self.write_cluster(&record, Some(revision)).await {
            Ok(written) => self.desk_cluster(written, &record),
            Err(error) => {
                self.let_go(&record.cluster, &fresh).await;
                return Err(error.into());
            }
        }
        Counts::up(&self.counts.replaced);
        self.let_go(&record.cluster, gone).await;
        Ok(record.cluster)
    }

    /// Finds and holds one machine in place of another; the others of the cluster stand where they stand.
    fn hold_instead(&self, record: &ClusterRecord, gone: &Member) -> Result<Member> {
        let roles = ask::check(&record.cluster.ask)?;
        let (now_ms, horizon) = (self.clock.now_ms(), self.settings.horizon);
        let mut desk = self.desk();
        let tenant = desk.tenant(&record.cluster.tenant)?;
        let (ask, members) = (&record.cluster.ask, &record.cluster.members);
        let fresh = tenant.market(record.policy.as_deref(), None, now_ms, &horizon, |market| {
            let mut stands = Standing::new();
            for m in members.iter().filter(|m| m.machine != gone.machine) {
                let role = roles.iter().position(|r| r.name == m.role);
                stands.extend(role.zip(market.fleet.find(&m.machine)));
            }
            // one that its provider doesn't show any more stands all the same: only the missing one is looked for
            let mut asked = roles.clone();
            for (at, role) in asked.iter_mut().enumerate() {
                let standing = stands.iter().filter(|(r, _)| *r == at).count();
                role.count = standing + usize::from(role.name == gone.role);
            }
            let outcome = select::select(market, ask, &asked, &stands)?;
            let found = asked.iter().zip(&outcome.choice.chosen);
            let mut found = found.filter_map(|(role, picked)| Some((role, picked.first()?)));
            match found.next() {
                Some((role, (_, at))) => Ok(member(role, &market.fleet.unit(*at).machine)),
                None => {
                    let one: Vec<_> = asked.into_iter().filter(|r| r.name == gone.role).collect();
                    let (selection, _) = select::report(market, ask, &one, 0)?;
                    Err(match selection.missing.is_empty() {
                        true => MetalError::new(Kind::Conflict, "what is free stands in a domain that is full"),
                        false => misfit(&selection.missing),
                    })
                }
            }
        })?;
        let id = record.cluster.id.clone();
        tenant.bookings.insert(fresh.machine.clone(), (0, id.clone()));
        tenant.fleet.set_busy(&fresh.machine, Some(Busy::Claimed(id)));
        Ok(fresh)
    }

    /// Keeps a machine from being chosen, durably, and says so.
    pub(super) async fn keep_apart(&self, tenant: &str, machine: &str, why: &str) -> Result<()> {
        let apart = Apart {
            version: VERSION,
            why: why.chars().take(256).collect(),
        };
        let revision = self
            .state
            .put(&key("apart", tenant, machine)?, encoded(&apart)?)
            .await?;
        {
            let mut desk = self.desk();
            let known = desk.tenant_or_new(tenant);
            known.apart.insert(machine.to_owned(), (revision, apart.why.clone()));
            known.changed(machine);
        }
        self.announcer
            .announce(MetalQuarantined {
                tenant: tenant.to_owned(),
                machine: machine.to_owned(),
                why: apart.why,
            })
            .await;
        Ok(())
    }

    /// Tells the rack scheduler what it hasn't heard yet: machines that are up join, machines of a cluster that was given back
    /// leave. What can't be told now is told in the next round.
    pub(super) async fn tell_racks(&self, revision: u64, mut record: ClusterRecord) -> (u64, ClusterRecord) {
        let mut told = Vec::new();
        for machine in &record.untold {
            let member = record.cluster.members.iter().find(|m| m.machine == *machine);
            let outcome = match (member, record.cluster.state) {
                (_, ClusterState::Released) | (None, _) => self.racks.leave(machine).await,
                (Some(member), _) => match self.machine(&record.cluster.tenant, machine) {
                    Some(shown) => self.racks.join(member, &shown).await,
                    None => Ok(()),
                },
            };
            match outcome {
                Ok(()) => told.push(machine.clone()),
                Err(error) => {
                    tracing::warn!(%error, %machine, "the rack scheduler has not heard of a machine; it is told again");
                }
            }
        }
        if told.is_empty() {
            return (revision, record);
        }
        record.untold.retain(|m| !told.contains(m));
        match self.write_cluster(&record, Some(revision)).await {
            Ok(written) => {
                self.desk_cluster(written, &record);
                (written, record)
            }
            Err(error) => {
                // it is told again, which changes nothing
                tracing::debug!(%error, lost = lost(&error), "what was told could not be noted");
                (revision, record)
            }
        }
    }
}

fn standing(record: &ClusterRecord, machine: &str) -> Result<Member> {
    let id = &record.cluster.id;
    if !matches!(record.cluster.state, ClusterState::Leased | ClusterState::Confirmed) {
        return Err(MetalError::new(
            Kind::Conflict,
            format!("cluster {id} has no machines any more, or not yet; nothing was changed"),
        ));
    }
    let found = record.cluster.members.iter().find(|m| m.machine == machine);
    found.cloned().ok_or_else(|| {
        MetalError::new(
            Kind::NotFound,
            format!("cluster {id} has no machine {machine}; nothing was changed"),
        )
        .hint(format!("windlass metal show {id}"))
    })
}
