//! The concern's mailbox: decides nothing itself; each verb runs as an effect of the engine.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use bus::Bus;
use runtime::{Call, Concern, Effect, Round, Routes};
use serde_json::{Value, json};
use wire::metal_broker::{
    Cluster, ClusterListing, Explanation, ForecastReport, InventoryReport, Machine, Member, MetalClaim, MetalConfirm,
    MetalExplain, MetalForecast, MetalInventory, MetalList, MetalPolicyCheck, MetalPolicySet, MetalPolicyTest,
    MetalQuarantine, MetalRelease, MetalSelect, MetalShow, PolicyReport, Quarantined, Selection,
};
use wire::rack_scheduler::{HostArg, HostState, InventoryArg, RackLoad, RackMark, Resources};
use wire::{Code, ErrorBody, Headers, HostId, Request};

use crate::engine::Broker;
use crate::port::RackHosts;
use crate::{Kind, MetalError, Result};

/// The metal broker; see the head of the crate.
pub struct MetalBroker {
    broker: Broker,
    asked: u64,
}

impl MetalBroker {
    /// The concern as the keeper's factory builds it, again after each death: it has no state of its own to lose.
    pub fn new(broker: Broker) -> Self {
        Self { broker, asked: 0 }
    }

    fn run<T: 'static, F>(&mut self, work: impl FnOnce(Broker) -> F) -> Effect<Self, T>
    where
        F: Future<Output = Result<T>> + 'static,
    {
        self.asked += 1;
        let work = work(self.broker.clone());
        Effect::run(async move { work.await.map_err(ErrorBody::from) })
    }

    fn select(&mut self, request: MetalSelect, _: &Call) -> Effect<Self, Selection> {
        self.run(|b| async move { b.select(&request).await })
    }
    fn explain(&mut self, request: MetalExplain, _: &Call) -> Effect<Self, Explanation> {
        self.run(|b| async move { b.explain(&request).await })
    }
    fn claim(&mut self, request: MetalClaim, call: &Call) -> Effect<Self, Cluster> {
        let id = call.headers.request_id.clone();
        self.run(|b| async move { b.claim(&request, id.as_deref()).await })
    }
    fn confirm(&mut self, request: MetalConfirm, _: &Call) -> Effect<Self, Cluster> {
        self.run(|b| async move { b.confirm(&request).await })
    }
    fn release(&mut self, request: MetalRelease, _: &Call) -> Effect<Self, Cluster> {
        self.run(|b| async move { b.release(&request).await })
    }
    fn quarantine(&mut self, request: MetalQuarantine, _: &Call) -> Effect<Self, Quarantined> {
        self.run(|b| async move { b.quarantine(&request).await })
    }
    fn inventory(&mut self, request: MetalInventory, _: &Call) -> Effect<Self, InventoryReport> {
        self.run(|b| async move { b.inventory(&request).await })
    }
    fn policy_check(&mut self, request: MetalPolicyCheck, _: &Call) -> Effect<Self, PolicyReport> {
        self.run(|_| async move { Broker::policy_check(&request) })
    }
    fn policy_test(&mut self, request: MetalPolicyTest, _: &Call) -> Effect<Self, Selection> {
        self.run(|b| async move { b.policy_test(&request).await })
    }
    fn policy_set(&mut self, request: MetalPolicySet, _: &Call) -> Effect<Self, PolicyReport> {
        self.run(|b| async move { b.policy_set(&request).await })
    }
    fn forecast(&mut self, request: MetalForecast, _: &Call) -> Effect<Self, ForecastReport> {
        self.run(|b| async move { b.forecast(&request).await })
    }
    fn list(&mut self, request: MetalList, _: &Call) -> Effect<Self, ClusterListing> {
        self.run(|b| async move { b.list(&request).await })
    }
    fn show(&mut self, request: MetalShow, _: &Call) -> Effect<Self, Cluster> {
        self.run(|b| async move { b.show(&request).await })
    }
}

impl Concern for MetalBroker {
    const NAME: &'static str = "metal_broker";
    fn routes() -> Routes<Self> {
        Routes::new()
            .on(Self::select)
            .on(Self::explain)
            .on(Self::claim)
            .on(Self::confirm)
            .on(Self::release)
            .on(Self::quarantine)
            .on(Self::inventory)
            .on(Self::policy_check)
            .on(Self::policy_test)
            .on(Self::policy_set)
            .on(Self::forecast)
            .on(Self::list)
            .on(Self::show)
    }
    fn observed(&self) -> Value {
        let counts = &self.broker.counts;
        json!({
            "asked_total": self.asked,
            "selected_total": counts.selected.load(Ordering::Relaxed),
            "claimed_total": counts.claimed.load(Ordering::Relaxed),
            "refused_total": counts.refused.load(Ordering::Relaxed),
            "conflicts_total": counts.conflicts.load(Ordering::Relaxed),
            "not_as_promised_total": counts.not_as_promised.load(Ordering::Relaxed),
            "replaced_total": counts.replaced.load(Ordering::Relaxed),
            "unread_total": counts.unread.load(Ordering::Relaxed),
            "providers": self.broker.providers.len(),
        })
    }
    /// Providers are read, leases end, and what others left unfinished is gone on with.
    fn round(&self) -> Option<Round> {
        let broker = self.broker.clone();
        let every = Duration::from_millis(broker.settings.sweep_every_ms);
        Some(Round::every(every, move || {
            let broker = broker.clone();
            async move { broker.go_round().await }
        }))
    }
}

/// The rack scheduler, reached over the bus.
#[derive(Debug)]
pub struct OverBus {
    /// The bus.
    pub bus: Arc<dyn Bus>,
    /// This host.
    pub host: HostId,
    /// How long the rack scheduler may take to answer, in milliseconds.
    pub timeout_ms: u64,
}

impl OverBus {
    async fn tell<R: Request>(&self, message: &R) -> std::result::Result<(), ErrorBody> {
        let headers = Headers {
            timeout_ms: Some(self.timeout_ms),
            ..Headers::default()
        };
        bus::call(&*self.bus, &self.host, message, headers).await.map(|_| ())
    }
}

fn untold(machine: &str, error: &ErrorBody) -> MetalError {
    MetalError::new(
        Kind::Unavailable,
        format!("the rack scheduler has not taken machine {machine}: {}", error.message),
    )
}

#[async_trait]
impl RackHosts for OverBus {
    async fn join(&self, member: &Member, machine: &Machine) -> Result<()> {
        let mut labels = machine.labels.clone();
        labels.insert("metal_role".into(), member.role.clone());
        let load = RackLoad {
            inventory: InventoryArg {
                hosts: vec![HostArg {
                    id: machine.id.clone(),
                    rack: machine.rack.clone(),
                    capacity: Resources {
                        vcpus: machine.cores,
                        memory_mib: machine.memory_gib.saturating_mul(1_024),
                        disk_gib: machine.disk_gib,
                        gpus: machine.gpus,
                        nics: machine.nics,
                    },
                    labels,
                    state: HostState::Up,
                }],
                ..InventoryArg::default()
            },
            replace: false,
        };
        self.tell(&load).await.map_err(|e| untold(&machine.id, &e))
    }
    async fn leave(&self, machine: &str) -> Result<()> {
        let mark = RackMark {
            host: machine.to_owned(),
            state: HostState::Lost,
        };
        match self.tell(&mark).await {
            // it never joined: nothing to leave
            Err(error) if error.code == Code::NotFound => Ok(()),
            told => told.map_err(|e| untold(machine, &e)),
        }
    }
}
