//! What is known of each tenant: its machines, who has which, its policy, its clusters; and what follows from that.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use state::Watch;
use wire::metal_broker::{ClusterState, Machine};

use crate::core::ask;
use crate::core::fleet::{Busy, Fleet};
use crate::core::forecast::{Gate, History, Horizon, Outlook, outlook};
use crate::core::ledger::{ClusterRecord, StockHead};
use crate::core::pick::{Market, Order};
use crate::core::policy::{Policy, shipped};
use crate::core::replay::gate;
use crate::{Kind, MetalError, Result};

/// What the state said of a key, and at which revision.
pub(super) type Known<T> = (u64, T);

/// One tenant.
#[derive(Debug, Default)]
pub struct Tenant {
    pub(super) stock: BTreeMap<String, Known<Vec<Arc<Machine>>>>,
    pub(super) heads: BTreeMap<String, Known<StockHead>>,
    pub(super) bookings: HashMap<String, Known<String>>,
    pub(super) apart: HashMap<String, Known<String>>,
    pub(super) clusters: BTreeMap<String, Known<ClusterRecord>>,
    pub(super) policy: Option<Known<Arc<Policy>>>,
    /// Machines that weren't what they had been: left alone until their provider is read again.
    pub(super) shunned: HashMap<String, String>,
    /// When this broker first saw a record at its revision, by its own clock: leases end by that.
    pub(super) seen_ms: HashMap<String, (u64, u64)>,
    pub(super) fleet: Fleet,
    pub(super) is_stale: bool,
    orders: HashMap<String, Arc<Order>>,
    outlook: Option<Outlook>,
    shipped: HashMap<String, Arc<Policy>>,
}

impl Tenant {
    fn busy(&self) -> HashMap<String, Busy> {
        let claimed = |(id, (_, cluster)): (&String, &Known<String>)| (id.clone(), Busy::Claimed(cluster.clone()));
        let apart = |(id, (_, why)): (&String, &Known<String>)| (id.clone(), Busy::Quarantined(why.clone()));
        let shunned = |(id, why): (&String, &String)| (id.clone(), Busy::Quarantined(why.clone()));
        let mut busy: HashMap<String, Busy> = self.shunned.iter().map(shunned).collect();
        busy.extend(self.apart.iter().map(apart));
        // who has it says more than why nobody else should
        busy.extend(self.bookings.iter().map(claimed));
        busy
    }
    /// Brings what follows from the records up to date.
    pub(super) fn ready(&mut self) {
        if self.is_stale {
            let machines = self.stock.values().flat_map(|(_, part)| part.iter().cloned()).collect();
            self.fleet = Fleet::of(machines, &self.busy());
            self.orders.clear();
            self.outlook = None;
            self.is_stale = false;
        }
    }
    /// A machine's state changed: nothing else has to be made anew.
    pub(super) fn changed(&mut self, machine: &str) {
        let busy = match (
            self.bookings.get(machine),
            self.apart.get(machine),
            self.shunned.get(machine),
        ) {
            (Some((_, cluster)), ..) => Some(Busy::Claimed(cluster.clone())),
            (None, Some((_, why)), _) | (None, None, Some(why)) => Some(Busy::Quarantined(why.clone())),
            (None, None, None) => None,
        };
        self.fleet.set_busy(machine, busy);
    }
    /// The policy to go by: a shipped one where one is named, the tenant's own, or the default.
    pub(super) fn policy(&mut self, named: Option<&str>) -> Result<Arc<Policy>> {
        if let (None, Some((_, own))) = (named, &self.policy) {
            return Ok(own.clone());
        }
        let name = named.unwrap_or(shipped::DEFAULT);
        if let Some(known) = self.shipped.get(name) {
            return Ok(known.clone());
        }
        let policy = Arc::new(Policy::read(shipped::text(name)?)?);
        self.shipped.insert(name.to_owned(), policy.clone());
        Ok(policy)
    }
    /// A new policy of its own: what was judged by the old one is void.
    pub(super) fn set_policy(&mut self, revision: u64, policy: Option<Arc<Policy>>) {
        if self.policy.as_ref().is_none_or(|(at, _)| *at < revision) {
            self.policy = policy.map(|p| (revision, p));
            self.orders.clear();
            self.outlook = None;
        }
    }
    /// The fleet in a policy's order; of a policy that is tried out nothing is kept.
    pub(super) fn order(&mut self, named: Option<&str>, policy: &Policy, keep: bool) -> Arc<Order> {
        let name = named.map_or_else(|| "=own".to_owned(), str::to_owned);
        if keep && let Some(order) = self.orders.get(&name) {
            return order.clone();
        }
        let order = Arc::new(Order::of(&self.fleet, policy));
        if keep {
            self.orders.insert(name, order.clone());
        }
        order
    }
    /// What this tenant's clusters asked for, oldest first.
    pub(super) fn history(&self) -> History {
        let mut history = History::default();
        let mut records: Vec<&ClusterRecord> = self.clusters.values().map(|(_, r)| r).collect();
        records.retain(|r| !matches!(r.cluster.state, ClusterState::Void | ClusterState::Claiming));
        records.sort_by_key(|r| r.at_ms);
        for record in records {
            for role in ask::check(&record.cluster.ask).unwrap_or_default() {
                let count = u32::try_from(role.count).unwrap_or(u32::MAX);
                history.note(
                    &role.need,
                    record.at_ms / 1_000,
                    count,
                    record.released_ms.map(|ms| ms / 1_000),
                );
            }
        }
        history
    }
    /// Looks ahead anew.
    pub(super) fn look_ahead(&mut self, now_ms: u64, horizon: &Horizon) {
        let (history, policy) = (self.history(), self.policy(None));
        let gate = match policy {
            Ok(policy) => gate(&history, &self.fleet, &policy.weights, now_ms / 1_000, horizon),
            Err(error) => Gate::shut(error.to_string()),
        };
        self.outlook = Some(outlook(&history, &self.fleet, gate, now_ms / 1_000, horizon));
    }
    /// What is expected.
    pub(super) fn outlook(&mut self, now_ms: u64, horizon: &Horizon) -> Outlook {
        if self.outlook.is_none() {
            self.look_ahead(now_ms, horizon);
        }
        self.outlook
            .clone()
            .unwrap_or_else(|| Outlook::none("nothing was seen"))
    }
    /// The market as it is, for as long as `work` runs.
    pub(super) fn market<T>(
        &mut self,
        named: Option<&str>,
        tried: Option<&Policy>,
        now_ms: u64,
        horizon: &Horizon,
        work: impl FnOnce(Market<'_>) -> Result<T>,
    ) -> Result<T> {
        self.ready();
        if self.outlook.is_none() {
            self.look_ahead(now_ms, horizon);
        }
        let kept;
        let policy: &Policy = match tried {
            Some(policy) => policy,
            None => {
                kept = self.policy(named)?;
                &kept
            }
        };
        let order = self.order(named, policy, tried.is_none());
        let none = Outlook::none("nothing was seen");
        work(Market {
            fleet: &self.fleet,
            policy,
            order: &order,
            outlook: self.outlook.as_ref().unwrap_or(&none),
            now_ms,
        })
    }
    /// Age of the oldest part of the inventory, in seconds.
    pub(super) fn age_s(&self, now_ms: u64) -> u64 {
        let age = |(_, head): &Known<StockHead>| now_ms.saturating_sub(head.read_ms) / 1_000;
        self.heads.values().map(age).max().unwrap_or(0)
    }
    /// The provider that a machine came from.
    pub(super) fn provider_of(&self, machine: &str) -> Option<String> {
        let at = self.fleet.find(machine)?;
        Some(self.fleet.unit(at).machine.provider.clone())
    }
}

/// All tenants.
#[derive(Debug, Default)]
pub struct Desk {
    pub(super) tenants: HashMap<String, Tenant>,
    pub(super) watch: Option<Opaque>,
    pub(super) is_loaded: bool,
    /// The latest revision that the watch told.
    pub(super) seen: u64,
}

/// A watch, which has nothing to print.
pub(super) struct Opaque(pub(super) Watch);

impl std::fmt::Debug for Opaque {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a watch")
    }
}

impl Desk {
    /// A tenant that has, or had, anything.
    ///
    /// # Errors
    /// `NotFound`; in the same words for a tenant that doesn't exist and for one that has no machines.
    pub(super) fn tenant(&mut self, name: &str) -> Result<&mut Tenant> {
        crate::core::name::check_name("tenant", name)?;
        self.tenants.get_mut(name).ok_or_else(|| {
            MetalError::new(
                Kind::NotFound,
                format!("tenant {name} has no machines; nothing was changed"),
            )
            .hint("see [metal_broker] providers_dir in docs/metal_broker.md")
        })
    }
    /// A tenant, made where it wasn't.
    pub(super) fn tenant_or_new(&mut self, name: &str) -> &mut Tenant {
        self.tenants.entry(name.to_owned()).or_default()
    }
}
