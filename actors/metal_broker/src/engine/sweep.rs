//! What comes round: providers are read, leases end, and what a broker that died left half done is finished or dropped. How long
//! something has stood is told by this broker's own clock, from when it first saw the record as it is.

use wire::metal_broker::{Cluster, ClusterState, Member, MemberState};

use super::Broker;
use super::claim::Setback;
use super::desk::Tenant;
use super::records::key;
use crate::Result;
use crate::core::ledger::ClusterRecord;

/// What is to be done about a record.
enum Due {
    /// A claim that nobody goes on with.
    Drop(u64, ClusterRecord),
    /// Machines that nobody confirmed.
    Replace(u64, ClusterRecord),
    /// The rack scheduler hasn't heard.
    Tell(u64, ClusterRecord),
    /// A booking of a cluster that doesn't have the machine.
    LetGo(Cluster, Member),
    /// A record that is old enough to be forgotten.
    Forget(u64, ClusterRecord),
}

/// How long a key has stood as it is, in milliseconds.
fn stood_ms(tenant: &mut Tenant, name: String, revision: u64, now_ms: u64) -> u64 {
    let seen = tenant.seen_ms.entry(name).or_insert((revision, now_ms));
    if seen.0 != revision {
        *seen = (revision, now_ms);
    }
    now_ms.saturating_sub(seen.1)
}

impl Broker {
    /// One round.
    pub async fn go_round(&self) {
        if let Err(error) = self.refresh().await {
            tracing::warn!(%error, "the state can't be read; the next round tries again");
            return;
        }
        self.read_providers(None).await;
        for due in self.due() {
            if let Err(error) = self.finish(due).await {
                tracing::warn!(%error, "the metal broker's sweep; it is tried again");
            }
        }
        let (now_ms, horizon) = (self.clock.now_ms(), self.settings.horizon);
        for tenant in self.desk().tenants.values_mut() {
            tenant.ready();
            tenant.look_ahead(now_ms, &horizon);
        }
    }

    fn due(&self) -> Vec<Due> {
        let now_ms = self.clock.now_ms();
        let (tentative_ms, lease_ms) = (self.settings.tentative_ms, self.settings.lease_ms);
        let mut desk = self.desk();
        let mut due = Vec::new();
        for tenant in desk.tenants.values_mut() {
            let clusters: Vec<(u64, ClusterRecord)> = tenant.clusters.values().cloned().collect();
            let mut ended: Vec<(u64, u64, ClusterRecord)> = Vec::new();
            for (revision, record) in clusters {
                let stood = stood_ms(tenant, format!("c/{}", record.cluster.id), revision, now_ms);
                match record.cluster.state {
                    ClusterState::Claiming if stood >= tentative_ms => due.push(Due::Drop(revision, record)),
                    ClusterState::Leased if stood >= lease_ms => due.push(Due::Replace(revision, record)),
                    _ if !record.untold.is_empty() => due.push(Due::Tell(revision, record)),
                    ClusterState::Void | ClusterState::Released => {
                        ended.push((record.released_ms.unwrap_or(record.at_ms), revision, record));
                    }
                    _ => {}
                }
            }
            ended.sort_by_key(|(at_ms, ..)| *at_ms);
            let many = ended.len().saturating_sub(self.settings.clusters_kept_max);
            due.extend(
                ended
                    .drain(..many)
                    .map(|(_, revision, record)| Due::Forget(revision, record)),
            );
            due.extend(astray(tenant, tentative_ms, now_ms));
        }
        due
    }

    async fn finish(&self, due: Due) -> Result<()> {
        let outcome = match due {
            Due::Drop(revision, mut record) => {
                record.cluster.state = ClusterState::Void;
                match self.write_cluster(&record, Some(revision)).await {
                    Ok(written) => {
                        self.desk_cluster(written, &record);
                        self.undo(&record.cluster).await;
                        Ok(())
                    }
                    Err(error) => Err(Setback::from(error)),
                }
            }
            Due::Replace(revision, record) => {
                let late = record.cluster.members.iter().find(|m| m.state == MemberState::Leased);
                match late.cloned() {
                    // the next one is due in the next round, counted from this change
                    Some(member) => {
                        let why = format!("it was not confirmed in {} s", self.settings.lease_ms / 1_000);
                        self.replace(revision, record, &member, &why).await.map(|_| ())
                    }
                    None => Ok(()),
                }
            }
            Due::Tell(revision, record) => {
                self.tell_racks(revision, record).await;
                Ok(())
            }
            Due::LetGo(cluster, member) => {
                self.let_go(&cluster, &member).await;
                Ok(())
            }
            Due::Forget(revision, record) => {
                let at = key("clusters", &record.cluster.tenant, &record.cluster.id)?;
                match self.state.delete(&at, Some(revision)).await {
                    Ok(_) => {
                        let mut desk = self.desk();
                        desk.tenant_or_new(&record.cluster.tenant)
                            .clusters
                            .remove(&record.cluster.id);
                        Ok(())
                    }
                    Err(error) => Err(Setback::from(error)),
                }
            }
        };
        match outcome {
            // somebody else did it
            Ok(()) | Err(Setback::Again) => Ok(()),
            Err(Setback::Hard(error)) => Err(error),
        }
    }
}

/// Bookings that no cluster stands behind any more.
fn astray(tenant: &mut Tenant, tentative_ms: u64, now_ms: u64) -> Vec<Due> {
    let bookings: Vec<(String, u64, String)> = tenant
        .bookings
        .iter()
        .filter(|(_, (revision, _))| *revision > 0)
        .map(|(machine, (revision, cluster))| (machine.clone(), *revision, cluster.clone()))
        .collect();
    let mut due = Vec::new();
    for (machine, revision, id) in bookings {
        let record = tenant.clusters.get(&id).map(|(_, r)| r.clone());
        let member = record
            .as_ref()
            .and_then(|r| r.cluster.members.iter().find(|m| m.machine == machine).cloned());
        if member.is_some() && record.as_ref().is_some_and(ClusterRecord::holds) {
            continue;
        }
        if stood_ms(tenant, format!("b/{machine}"), revision, now_ms) < tentative_ms {
            continue;
        }
        let Some(record) = record else {
            tracing::warn!(%machine, cluster = %id, "a booking of a cluster that has no record; it is left for a person to look at");
            continue;
        };
        let provider = tenant.provider_of(&machine).unwrap_or_default();
        let member = member.unwrap_or_else(|| Member {
            role: String::new(),
            machine,
            provider,
            rack: String::new(),
            zone: String::new(),
            state: MemberState::Leased,
        });
        due.push(Due::LetGo(record.cluster, member));
    }
    due
}
