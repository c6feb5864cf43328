//! Taking machines: planned on the view, booked by compare-and-set, asked for at the provider, decided by one write.

use std::time::Duration;

use futures::future::join_all;
use wire::metal_broker::{
    Cluster, ClusterAsk, ClusterState, Machine, Member, MemberState, MetalClaim, MetalClaimed, Missing,
};

use super::records::{encoded, key, lost, read};
use super::{Broker, Counts};
use crate::core::ask::{self, Role};
use crate::core::fleet::Busy;
use crate::core::ledger::{Booking, ClusterRecord, VERSION};
use crate::core::name::check_name;
use crate::core::select::{self, Standing};
use crate::core::verify;
use crate::{Kind, MetalError, Result};

/// Why an attempt came to nothing.
#[derive(Debug)]
pub(super) enum Setback {
    /// Others were faster, or a machine isn't what it was: another plan may do.
    Again,
    /// No other plan would.
    Hard(MetalError),
}

impl From<MetalError> for Setback {
    fn from(error: MetalError) -> Self {
        Self::Hard(error)
    }
}

impl From<state::StateError> for Setback {
    fn from(error: state::StateError) -> Self {
        match lost(&error) {
            true => Self::Again,
            false => Self::Hard(error.into()),
        }
    }
}

/// What doesn't fit, as an error.
pub(super) fn misfit(missing: &[Missing]) -> MetalError {
    let told: Vec<String> = missing
        .iter()
        .map(|m| {
            format!(
                "{} nodes of role {} have no machine: {}; it would take {}",
                m.nodes, m.role, m.why, m.change
            )
        })
        .collect();
    MetalError::new(Kind::Conflict, format!("{}; nothing was claimed", told.join("; ")))
        .hint("windlass metal explain REQUEST")
}

impl Broker {
    /// Takes machines for a cluster: all, or none.
    ///
    /// # Errors
    /// `Invalid`, `Conflict` where it doesn't fit, `Busy` where others were faster again and again, `Unavailable`.
    pub async fn claim(&self, request: &MetalClaim, request_id: Option<&str>) -> Result<Cluster> {
        check_name("tenant", &request.tenant)?;
        let roles = ask::check(&request.ask)?;
        let id = match request_id {
            Some(key) => Self::id_from(&request.tenant, key),
            None => self.fresh_id(),
        };
        self.refresh().await?;
        let mut revision = match request_id {
            Some(_) => match self.known(&request.tenant, &id, &request.ask).await? {
                Known::New(revision) => revision,
                Known::Duplicate(cluster) => return Ok(*cluster),
            },
            None => None,
        };
        for _ in 0..self.settings.attempts_max {
            let mut held = self.hold(request, &roles, &id);
            if matches!(&held, Err(error) if error.kind == Kind::Conflict) {
                // the view may lag behind what others gave back
                self.catch_up().await?;
                held = self.hold(request, &roles, &id);
            }
            let members = match held {
                Ok(members) => members,
                Err(error) => {
                    Counts::up(&self.counts.refused);
                    self.give_up(&request.tenant, &id, revision).await;
                    return Err(error);
                }
            };
            match self.attempt(request, &roles, &id, members, &mut revision).await {
                Ok(cluster) => {
                    Counts::up(&self.counts.claimed);
                    self.announcer
                        .announce(MetalClaimed {
                            tenant: cluster.tenant.clone(),
                            id: cluster.id.clone(),
                            machines: cluster.members.iter().map(|m| m.machine.clone()).collect(),
                        })
                        .await;
                    return Ok(cluster);
                }
                Err(Setback::Hard(error)) => {
                    self.give_up(&request.tenant, &id, revision).await;
                    return Err(error);
                }
                Err(Setback::Again) => {
                    Counts::up(&self.counts.conflicts);
                    self.refresh().await?;
                }
            }
        }
        self.give_up(&request.tenant, &id, revision).await;
        Err(MetalError::new(
            Kind::Busy,
            format!(
                "others took the same machines {} times over; nothing was claimed",
                self.settings.attempts_max
            ),
        ))
    }

    /// Whether a request came before, and what became of it.
    async fn known(&self, tenant: &str, id: &str, ask: &ClusterAsk) -> Result<Known> {
        let Some(entry) = self.state.get(&key("clusters", tenant, id)?).await? else {
            return Ok(Known::New(None));
        };
        let record: ClusterRecord = read(&entry)?;
        if record.cluster.ask != *ask {
            return Err(MetalError::new(
                Kind::Conflict,
                format!("this request id came before with another request (cluster {id}); nothing was claimed"),
            )
            .hint("use a new request id"));
        }
        match record.cluster.state {
            ClusterState::Void => Ok(Known::New(Some(entry.revision))),
            ClusterState::Claiming => Err(MetalError::new(
                Kind::Busy,
                format!("cluster {id} is being claimed by the same request; nothing was changed"),
            )),
            _ => Ok(Known::Duplicate(Box::new(Cluster {
                duplicate: true,
                ..record.cluster
            }))),
        }
    }

    /// Plans, and holds in this process what was planned, so that its other requests plan around it.
    fn hold(&self, request: &MetalClaim, roles: &[Role], id: &str) -> Result<Vec<Member>> {
        let (now_ms, horizon) = (self.clock.now_ms(), self.settings.horizon);
        let mut desk = self.desk();
        let tenant = desk.tenant(&request.tenant)?;
        let ask = &request.ask;
        let members = tenant.market(request.policy.as_deref(), None, now_ms, &horizon, |market| {
            let outcome = select::select(market, ask, roles, &Standing::new())?;
            if !outcome.fits() {
                let (selection, _) = select::report(market, ask, roles, 0)?;
                return Err(misfit(&selection.missing));
            }
            let member = |role: &Role, at: u32| member(role, &market.fleet.unit(at).machine);
            let each = roles.iter().zip(&outcome.choice.chosen);
            Ok(each
                .flat_map(|(role, picked)| picked.iter().map(|(_, at)| member(role, *at)))
                .collect::<Vec<Member>>())
        })?;
        for member in &members {
            tenant.bookings.insert(member.machine.clone(), (0, id.to_owned()));
            tenant
                .fleet
                .set_busy(&member.machine, Some(Busy::Claimed(id.to_owned())));
        }
        Ok(members)
    }

    /// One attempt: the intent, the bookings, the providers' word, the decision. What it took, it gives back when it fails.
    async fn attempt(
        &self,
        request: &MetalClaim,
        roles: &[Role],
        id: &str,
        members: Vec<Member>,
        revision: &mut Option<u64>,
    ) -> std::result::Result<Cluster, Setback> {
        let now_ms = self.clock.now_ms();
        let mut record = ClusterRecord {
            version: VERSION,
            at_ms: now_ms,
            released_ms: None,
            policy: request.policy.clone(),
            untold: Vec::new(),
            cluster: Cluster {
                id: id.to_owned(),
                tenant: request.tenant.clone(),
                ask: request.ask.clone(),
                state: ClusterState::Claiming,
                members,
                claimed_at: runtime::rfc3339(now_ms),
                replaced: Vec::new(),
                duplicate: false,
            },
        };
        let taken = match self.write_cluster(&record, *revision).await {
            Ok(written) => {
                *revision = Some(written);
                self.take_all(&record.cluster, roles).await
            }
            Err(error) => Err(error.into()),
        };
        if let Err(setback) = taken {
            self.undo(&record.cluster).await;
            return Err(setback);
        }
        record.cluster.state = ClusterState::Leased;
        match self.write_cluster(&record, *revision).await {
            Ok(written) => {
                *revision = Some(written);
                self.desk_cluster(written, &record);
                Ok(record.cluster)
            }
            Err(error) => {
                // somebody took this claim for dead and dropped it, or the state can't be written: `Leased` may or may not stand
                // then, and the sweep, which reads it, goes on with either
                if lost(&error) {
                    self.undo(&record.cluster).await;
                    *revision = None;
                    return Err(Setback::Hard(MetalError::new(
                        Kind::Busy,
                        format!("cluster {id} was dropped by another broker as overdue; nothing was claimed"),
                    )));
                }
                Err(Setback::Hard(error.into()))
            }
        }
    }

    async fn take_all(&self, cluster: &Cluster, roles: &[Role]) -> std::result::Result<(), Setback> {
        let booked = join_all(cluster.members.iter().map(|m| self.book(cluster, m))).await;
        booked.into_iter().collect::<std::result::Result<Vec<()>, Setback>>()?;
        let taken = join_all(cluster.members.iter().map(|m| self.take_at_provider(cluster, m, roles))).await;
        taken.into_iter().collect::<std::result::Result<Vec<()>, Setback>>()?;
        Ok(())
    }

    /// Books a machine where nobody has it.
    pub(super) async fn book(&self, cluster: &Cluster, member: &Member) -> std::result::Result<(), Setback> {
        let at = key("bookings", &cluster.tenant, &member.machine)?;
        let booking = Booking {
            version: VERSION,
            cluster: cluster.id.clone(),
        };
        match self.state.create(&at, encoded(&booking)?).await {
            Ok(revision) => {
                let mut desk = self.desk();
                let tenant = desk.tenant_or_new(&cluster.tenant);
                tenant
                    .bookings
                    .insert(member.machine.clone(), (revision, cluster.id.clone()));
                tenant
                    .seen_ms
                    .insert(format!("b/{}", member.machine), (revision, self.clock.now_ms()));
                Ok(())
            }
            Err(error) if error.kind == state::Kind::Conflict => {
                if let Some(entry) = self.state.get(&at).await? {
                    let other: Booking = read(&entry)?;
                    let mut desk = self.desk();
                    let tenant = desk.tenant_or_new(&cluster.tenant);
                    tenant
                        .bookings
                        .insert(member.machine.clone(), (entry.revision, other.cluster));
                    tenant.changed(&member.machine);
                }
                Err(Setback::Again)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes a machine at its provider, which shows it as it is now. One that isn't what was promised is left alone until its
    /// provider is read again.
    pub(super) async fn take_at_provider(
        &self,
        cluster: &Cluster,
        member: &Member,
        roles: &[Role],
    ) -> std::result::Result<(), Setback> {
        let Some(provider) = self.provider(&cluster.tenant, &member.provider) else {
            return Err(Setback::Hard(
                MetalError::new(
                    Kind::Unavailable,
                    format!(
                        "host {} doesn't know provider {} of tenant {}; nothing was claimed",
                        self.host, member.provider, cluster.tenant
                    ),
                )
                .hint("see [metal_broker] providers_dir in docs/metal_broker.md"),
            ));
        };
        let patience = Duration::from_millis(self.settings.provider_timeout_ms);
        let why = match tokio::time::timeout(patience, provider.take(&member.machine, &cluster.id)).await {
            Err(_) => format!("its provider didn't answer in {} ms", self.settings.provider_timeout_ms),
            Ok(Err(error)) => error.message,
            Ok(Ok(now)) => {
                let role = roles.iter().find(|r| r.name == member.role);
                match role.and_then(|role| verify::differs(member, &role.need, &now)) {
                    None => return Ok(()),
                    Some(why) => why,
                }
            }
        };
        Counts::up(&self.counts.not_as_promised);
        tracing::warn!(tenant = %cluster.tenant, machine = %member.machine, %why, "a machine isn't what was promised; another is looked for");
        let mut desk = self.desk();
        let tenant = desk.tenant_or_new(&cluster.tenant);
        tenant.shunned.insert(member.machine.clone(), why);
        tenant.changed(&member.machine);
        Err(Setback::Again)
    }

    /// Gives back what a claim took. What can't be given back now, the sweep gives back.
    pub(super) async fn undo(&self, cluster: &Cluster) {
        join_all(cluster.members.iter().map(|m| self.let_go(cluster, m))).await;
    }

    /// Lets one machine go, where this cluster has it: at its provider first, so that nobody books what can't be taken.
    pub(super) async fn let_go(&self, cluster: &Cluster, member: &Member) {
        if let Err(error) = self.let_go_of(cluster, member).await {
            tracing::warn!(%error, machine = %member.machine, "a machine could not be given back; the sweep tries again");
        }
    }

    async fn let_go_of(&self, cluster: &Cluster, member: &Member) -> Result<()> {
        let at = key("bookings", &cluster.tenant, &member.machine)?;
        let entry = self.state.get(&at).await?;
        let booked = match &entry {
            Some(entry) => read::<Booking>(entry)?.cluster == cluster.id,
            None => false,
        };
        if booked {
            if let Some(provider) = self.provider(&cluster.tenant, &member.provider) {
                let patience = Duration::from_millis(self.settings.provider_timeout_ms);
                let given = tokio::time::timeout(patience, provider.give_back(&member.machine, &cluster.id)).await;
                match given {
                    Ok(given) => given?,
                    Err(_) => {
                        let message = format!("provider {} doesn't answer; the machine stays booked", member.provider);
                        return Err(MetalError::new(Kind::Unavailable, message));
                    }
                }
            }
            if let Some(entry) = entry
                && let Err(error) = self.state.delete(&at, Some(entry.revision)).await
                && !lost(&error)
            {
                return Err(error.into());
            }
        }
        let mut desk = self.desk();
        let tenant = desk.tenant_or_new(&cluster.tenant);
        if tenant
            .bookings
            .get(&member.machine)
            .is_some_and(|(_, c)| *c == cluster.id)
        {
            tenant.bookings.remove(&member.machine);
        }
        tenant.changed(&member.machine);
        Ok(())
    }

    /// Makes the record of a claim that came to nothing `Void`.
    async fn give_up(&self, tenant: &str, id: &str, revision: Option<u64>) {
        let Some(revision) = revision else { return };
        let voided = async {
            let Some(entry) = self.state.get(&key("clusters", tenant, id)?).await? else {
                return Ok(());
            };
            let mut record: ClusterRecord = read(&entry)?;
            if entry.revision == revision && record.cluster.state == ClusterState::Claiming {
                record.cluster.state = ClusterState::Void;
                let written = self.write_cluster(&record, Some(revision)).await?;
                self.desk_cluster(written, &record);
            }
            Ok::<(), MetalError>(())
        };
        if let Err(error) = voided.await {
            tracing::warn!(%error, cluster = id, "a claim that came to nothing stands as under way; the sweep drops it");
        }
    }

    pub(super) async fn write_cluster(
        &self,
        record: &ClusterRecord,
        revision: Option<u64>,
    ) -> std::result::Result<u64, state::StateError> {
        let cluster = &record.cluster;
        let wrong = |e: MetalError| state::StateError::new(state::Kind::Invalid, e.message);
        let at = key("clusters", &cluster.tenant, &cluster.id).map_err(wrong)?;
        let value = encoded(record).map_err(wrong)?;
        match revision {
            None => self.state.create(&at, value).await,
            Some(revision) => self.state.update(&at, value, revision).await,
        }
    }

    /// Notes a record that this broker wrote.
    pub(super) fn desk_cluster(&self, revision: u64, record: &ClusterRecord) {
        let now_ms = self.clock.now_ms();
        let mut desk = self.desk();
        let tenant = desk.tenant_or_new(&record.cluster.tenant);
        let id = &record.cluster.id;
        if tenant.clusters.get(id).is_none_or(|(at, _)| *at < revision) {
            tenant.clusters.insert(id.clone(), (revision, record.clone()));
            tenant.seen_ms.insert(format!("c/{id}"), (revision, now_ms));
        }
    }
}

/// What a request with an id is.
enum Known {
    /// It is new, or came to nothing before: with the revision of that record.
    New(Option<u64>),
    /// It came before.
    Duplicate(Box<Cluster>),
}

/// A machine as a cluster's member.
pub(super) fn member(role: &Role, machine: &Machine) -> Member {
    Member {
        role: role.name.clone(),
        machine: machine.id.clone(),
        provider: machine.provider.clone(),
        rack: machine.rack.clone(),
        zone: machine.zone.clone(),
        state: MemberState::Leased,
    }
}
