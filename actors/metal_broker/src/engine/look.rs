//! What is asked without changing anything: `select`, `explain`, `inventory`, `ls`, `show`, policies, the forecast. And `policy_set`.

use std::sync::Arc;

use wire::metal_broker::{
    Cluster, ClusterListing, ClusterRow, DemandRow, Explanation, ForecastReport, ForecastUse, InventoryReport, Machine,
    MachineRow, MachineState, MetalExplain, MetalForecast, MetalInventory, MetalList, MetalPolicyCheck, MetalPolicySet,
    MetalPolicyTest, MetalSelect, MetalShow, PolicyReport, ProviderRow, Selection,
};

use super::desk::Tenant;
use super::records::{encoded, key};
use super::{Broker, Counts};
use crate::Result;
use crate::core::ask::Role;
use crate::core::fleet::{Busy, Unit};
use crate::core::ledger::{PolicyRecord, VERSION};
use crate::core::name::check_name;
use crate::core::policy::Policy;
use crate::core::{ask, explain, select};

/// Machines, or clusters, in one answer, so that it stays below a message's size.
const SHOWN_MAX: usize = 500;

impl Broker {
    /// Which machines a cluster would get.
    ///
    /// # Errors
    /// `Invalid`, `NotFound`, `Unavailable`.
    pub async fn select(&self, request: &MetalSelect) -> Result<Selection> {
        let roles = ask::check(&request.ask)?;
        self.refresh().await?;
        Counts::up(&self.counts.selected);
        let selection = self.select_now(request, &roles)?;
        if selection.fits {
            return Ok(selection);
        }
        // the view may lag behind what others gave back
        self.catch_up().await?;
        self.select_now(request, &roles)
    }

    /// On the view as it is.
    ///
    /// # Errors
    /// As [`Broker::select`].
    pub fn select_now(&self, request: &MetalSelect, roles: &[Role]) -> Result<Selection> {
        let (now_ms, horizon) = (self.clock.now_ms(), self.settings.horizon);
        let mut desk = self.desk();
        let tenant = desk.tenant(&request.tenant)?;
        let age_s = tenant.age_s(now_ms);
        tenant.market(request.policy.as_deref(), None, now_ms, &horizon, |market| {
            select::report(market, &request.ask, roles, age_s).map(|(selection, _)| selection)
        })
    }

    /// Why these machines and no others.
    ///
    /// # Errors
    /// As [`Broker::select`].
    pub async fn explain(&self, request: &MetalExplain) -> Result<Explanation> {
        let roles = ask::check(&request.ask)?;
        self.refresh().await?;
        let (now_ms, horizon) = (self.clock.now_ms(), self.settings.horizon);
        let mut desk = self.desk();
        let tenant = desk.tenant(&request.tenant)?;
        let age_s = tenant.age_s(now_ms);
        tenant.market(request.policy.as_deref(), None, now_ms, &horizon, |market| {
            explain::explain(market, &request.ask, &roles, request.machine.as_deref(), age_s)
        })
    }

    /// What a policy means.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn policy_check(request: &MetalPolicyCheck) -> Result<PolicyReport> {
        Policy::read(&request.text).map(|policy| policy.report())
    }

    /// What would be selected by a policy that isn't the tenant's yet.
    ///
    /// # Errors
    /// As [`Broker::select`].
    pub async fn policy_test(&self, request: &MetalPolicyTest) -> Result<Selection> {
        let policy = Policy::read(&request.text)?;
        let roles = ask::check(&request.ask)?;
        self.refresh().await?;
        let (now_ms, horizon) = (self.clock.now_ms(), self.settings.horizon);
        let mut desk = self.desk();
        let tenant = desk.tenant(&request.tenant)?;
        let age_s = tenant.age_s(now_ms);
        tenant.market(None, Some(&policy), now_ms, &horizon, |market| {
            select::report(market, &request.ask, &roles, age_s).map(|(selection, _)| selection)
        })
    }

    /// Makes a policy the tenant's own.
    ///
    /// # Errors
    /// `Invalid`, `Unavailable`.
    pub async fn policy_set(&self, request: &MetalPolicySet) -> Result<PolicyReport> {
        check_name("tenant", &request.tenant)?;
        let policy = Policy::read(&request.text)?;
        self.refresh().await?;
        let report = PolicyReport {
            tenant: Some(request.tenant.clone()),
            ..policy.report()
        };
        let record = PolicyRecord {
            version: VERSION,
            text: request.text.clone(),
        };
        let at = key("policies", &request.tenant, "own")?;
        let revision = self.state.put(&at, encoded(&record)?).await?;
        let mut desk = self.desk();
        desk.tenant_or_new(&request.tenant)
            .set_policy(revision, Some(Arc::new(policy)));
        Ok(report)
    }

    /// What is expected to be asked for.
    ///
    /// # Errors
    /// As [`Broker::select`].
    pub async fn forecast(&self, request: &MetalForecast) -> Result<ForecastReport> {
        self.catch_up().await?;
        let (now_ms, horizon) = (self.clock.now_ms(), self.settings.horizon);
        let mut desk = self.desk();
        let tenant = desk.tenant(&request.tenant)?;
        tenant.ready();
        let outlook = tenant.outlook(now_ms, &horizon);
        let history = tenant.history();
        let (seen, _) = history.seen(now_ms / 1_000, &horizon);
        let free = outlook.free(tenant.fleet.classes.iter().map(|c| c.free));
        let short = outlook.short(&free, 0);
        let rows = outlook.needs.iter().enumerate().map(|(at, need)| DemandRow {
            need: need.text(),
            seen_long: seen.get(at).map_or(0, |s| s.0),
            seen_short: seen.get(at).map_or(0, |s| s.1),
            expected_milli: (outlook.lambda[at] * 1_000.0).round() as u64,
            free: free[at],
            short_millionths: u64::try_from(short[at]).unwrap_or(0),
        });
        Ok(ForecastReport {
            horizon_s: horizon.horizon_s,
            long_window_s: horizon.long_s,
            short_window_s: horizon.short_s,
            gate: ForecastUse {
                used: outlook.gate.open,
                why: outlook.gate.why.clone(),
            },
            demand: rows.collect(),
        })
    }

    /// A tenant's machines.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn inventory(&self, request: &MetalInventory) -> Result<InventoryReport> {
        check_name("tenant", &request.tenant)?;
        self.catch_up().await?;
        if request.refresh {
            self.read_providers(Some(&request.tenant)).await;
        }
        let now_ms = self.clock.now_ms();
        let mut desk = self.desk();
        let tenant = desk.tenant(&request.tenant)?;
        tenant.ready();
        let after = request.after.as_deref().unwrap_or("");
        let units = tenant.fleet.units.iter().filter(|u| u.machine.id.as_str() > after);
        let mut rows: Vec<MachineRow> = units.take(SHOWN_MAX + 1).map(|u| row(tenant, u, now_ms)).collect();
        let more = rows.len() > SHOWN_MAX;
        rows.truncate(SHOWN_MAX);
        Ok(InventoryReport {
            providers: providers(tenant, now_ms),
            machines_total: tenant.fleet.units.len() as u64,
            classes: tenant.fleet.classes.len() as u64,
            more_after: rows.last().filter(|_| more).map(|r| r.machine.id.clone()),
            machines: rows,
        })
    }

    /// A tenant's clusters.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn list(&self, request: &MetalList) -> Result<ClusterListing> {
        check_name("tenant", &request.tenant)?;
        self.catch_up().await?;
        let mut desk = self.desk();
        let Some(tenant) = desk.tenants.get_mut(&request.tenant) else {
            return Ok(ClusterListing::default());
        };
        let after = request.after.clone().unwrap_or_default();
        let records = tenant
            .clusters
            .values()
            .map(|(_, r)| &r.cluster)
            .filter(|c| c.id > after);
        let mut clusters: Vec<ClusterRow> = records
            .take(SHOWN_MAX + 1)
            .map(|c| ClusterRow {
                id: c.id.clone(),
                name: c.ask.name.clone(),
                state: c.state,
                machines: c.members.len() as u64,
                claimed_at: c.claimed_at.clone(),
            })
            .collect();
        let more = clusters.len() > SHOWN_MAX;
        clusters.truncate(SHOWN_MAX);
        Ok(ClusterListing {
            more_after: clusters.last().filter(|_| more).map(|c| c.id.clone()),
            clusters,
        })
    }

    /// A cluster.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn show(&self, request: &MetalShow) -> Result<Cluster> {
        let (_, record) = self.cluster(&request.tenant, &request.id).await?;
        Ok(record.cluster)
    }
}

fn row(tenant: &Tenant, unit: &Unit, now_ms: u64) -> MachineRow {
    let machine: &Machine = &unit.machine;
    let state = match (&unit.busy, unit.is_free()) {
        (Some(Busy::Claimed(_)), _) => MachineState::Claimed,
        (Some(Busy::Quarantined(_)), _) => MachineState::Quarantined,
        (None, true) => MachineState::Free,
        (None, false) if machine.taken => MachineState::Taken,
        (None, false) => MachineState::Broken,
    };
    let head = tenant.heads.get(&machine.provider);
    MachineRow {
        state,
        cluster: tenant.bookings.get(&machine.id).map(|(_, c)| c.clone()),
        age_s: head.map_or(0, |(_, h)| now_ms.saturating_sub(h.read_ms) / 1_000),
        machine: machine.clone(),
    }
}

fn providers(tenant: &Tenant, now_ms: u64) -> Vec<ProviderRow> {
    let mut machines = std::collections::HashMap::<&str, u64>::new();
    for unit in &tenant.fleet.units {
        *machines.entry(unit.machine.provider.as_str()).or_default() += 1;
    }
    let row = |(name, (_, head)): (&String, &super::desk::Known<crate::core::ledger::StockHead>)| ProviderRow {
        name: name.clone(),
        kind: head.kind.clone(),
        machines: machines.get(name.as_str()).copied().unwrap_or(0),
        age_s: (head.read_ms > 0).then(|| now_ms.saturating_sub(head.read_ms) / 1_000),
        troubles: head.troubles.clone(),
    };
    tenant.heads.iter().map(row).collect()
}
