//! Giving machines back, and keeping them apart.

use wire::metal_broker::{Cluster, ClusterState, Machine, MetalQuarantine, MetalRelease, MetalReleased, Quarantined};

use super::Broker;
use super::claim::Setback;
use super::records::{key, lost};
use crate::core::ledger::ClusterRecord;
use crate::core::name::check_name;
use crate::{Kind, MetalError, Result};

impl Broker {
    /// Gives a cluster's machines back. Again is no error.
    ///
    /// # Errors
    /// `NotFound`; `Busy` where the record changes all the time.
    pub async fn release(&self, request: &MetalRelease) -> Result<Cluster> {
        self.refresh().await?;
        for _ in 0..self.settings.attempts_max {
            let (revision, record) = self.cluster(&request.tenant, &request.id).await?;
            match record.cluster.state {
                ClusterState::Released | ClusterState::Void => return Ok(record.cluster),
                ClusterState::Claiming => {
                    return Err(MetalError::new(
                        Kind::Busy,
                        format!("cluster {} is being claimed; nothing was changed", request.id),
                    ));
                }
                ClusterState::Leased | ClusterState::Confirmed => {}
            }
            match self.given_back(revision, record).await {
                Ok(cluster) => return Ok(cluster),
                Err(Setback::Again) => {}
                Err(Setback::Hard(error)) => return Err(error),
            }
        }
        Err(MetalError::new(
            Kind::Busy,
            format!("cluster {} changes all the time; nothing was changed", request.id),
        ))
    }

    /// The write that counts, and what follows from it.
    pub(super) async fn given_back(
        &self,
        revision: u64,
        mut record: ClusterRecord,
    ) -> std::result::Result<Cluster, Setback> {
        record.cluster.state = ClusterState::Released;
        record.released_ms = Some(self.clock.now_ms());
        if record.cluster.ask.rack_hosts {
            record.untold = record.cluster.members.iter().map(|m| m.machine.clone()).collect();
        }
        let written = self.write_cluster(&record, Some(revision)).await?;
        self.desk_cluster(written, &record);
        let (_, record) = self.tell_racks(written, record).await;
        self.undo(&record.cluster).await;
        self.announcer
            .announce(MetalReleased {
                tenant: record.cluster.tenant.clone(),
                id: record.cluster.id.clone(),
            })
            .await;
        Ok(record.cluster)
    }

    /// Keeps a machine from being chosen, or lets it be chosen again. Who has it, keeps it.
    ///
    /// # Errors
    /// `NotFound` for a machine that isn't this tenant's.
    pub async fn quarantine(&self, request: &MetalQuarantine) -> Result<Quarantined> {
        check_name("tenant", &request.tenant)?;
        check_name("machine", &request.machine)?;
        self.refresh().await?;
        let (known, cluster) = {
            let mut desk = self.desk();
            let tenant = desk.tenant(&request.tenant)?;
            tenant.ready();
            let id = &request.machine;
            let known = tenant.fleet.find(id).is_some() || tenant.apart.contains_key(id);
            (known, tenant.bookings.get(id).map(|(_, cluster)| cluster.clone()))
        };
        if !known {
            return Err(MetalError::new(
                Kind::NotFound,
                format!(
                    "machine {} is not in this tenant's inventory; nothing was changed",
                    request.machine
                ),
            )
            .hint("windlass metal inventory"));
        }
        match request.lift {
            false => {
                let why = if request.why.is_empty() {
                    "by hand"
                } else {
                    &request.why
                };
                self.keep_apart(&request.tenant, &request.machine, why).await?;
            }
            true => {
                match self
                    .state
                    .delete(&key("apart", &request.tenant, &request.machine)?, None)
                    .await
                {
                    Err(error) if !lost(&error) => return Err(error.into()),
                    _ => {}
                }
                let mut desk = self.desk();
                let tenant = desk.tenant_or_new(&request.tenant);
                tenant.apart.remove(&request.machine);
                tenant.shunned.remove(&request.machine);
                tenant.changed(&request.machine);
            }
        }
        Ok(Quarantined {
            machine: request.machine.clone(),
            quarantined: !request.lift,
            why: request.why.clone(),
            cluster,
        })
    }

    /// A machine of a tenant's inventory.
    pub(super) fn machine(&self, tenant: &str, id: &str) -> Option<Machine> {
        let mut desk = self.desk();
        let tenant = desk.tenants.get_mut(tenant)?;
        tenant.ready();
        let at = tenant.fleet.find(id)?;
        Some((*tenant.fleet.unit(at).machine).clone())
    }
}
