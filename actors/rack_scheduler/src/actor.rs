//! The concern's mailbox: decides nothing itself; each verb runs as an effect of the engine.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use bus::Bus;
use runtime::{Call, Concern, Effect, Round, Routes};
use serde_json::{Value, json};
use wire::rack_scheduler::{
    EvacuateReport, Explanation, HostRow, Loaded, Placement, PlanReport, Provided, RackEvacuate, RackExplain, RackGrow,
    RackInventory, RackList, RackListing, RackLoad, RackMark, RackPlace, RackPlan, RackProvide, RackQuota, RackRelease,
    RackReport, RackShow, RackShrink, RackWhatif, RackWithdraw, Released, ReportReply, RoomReport, TenantQuota,
    WhatifReport,
};
use wire::{Code, ErrorBody, Headers, HostId, Request};

use crate::Result;
use crate::engine::Scheduler;
use crate::port::Hosts;

/// The rack scheduler; see the head of the crate.
pub struct RackScheduler {
    scheduler: Scheduler,
    asked: u64,
}

impl RackScheduler {
    /// The concern as the keeper's factory builds it, again after each death: it has no state of its own to lose.
    pub fn new(scheduler: Scheduler) -> Self {
        Self { scheduler, asked: 0 }
    }

    fn run<T: 'static, F>(&mut self, work: impl FnOnce(Scheduler) -> F) -> Effect<Self, T>
    where
        F: Future<Output = Result<T>> + 'static,
    {
        self.asked += 1;
        let work = work(self.scheduler.clone());
        Effect::run(async move { work.await.map_err(ErrorBody::from) })
    }

    fn place(&mut self, request: RackPlace, call: &Call) -> Effect<Self, Placement> {
        let id = call.headers.request_id.clone();
        self.run(|s| async move { s.place(&request.ask, id.as_deref()).await })
    }
    fn plan(&mut self, request: RackPlan, _: &Call) -> Effect<Self, PlanReport> {
        self.run(|s| async move { s.plan(&request.ask).await })
    }
    fn release(&mut self, request: RackRelease, _: &Call) -> Effect<Self, Released> {
        self.run(|s| async move { s.release(&request.id).await })
    }
    fn grow(&mut self, request: RackGrow, call: &Call) -> Effect<Self, Placement> {
        let id = call.headers.request_id.clone();
        self.run(|s| async move { s.grow(&request, id.as_deref()).await })
    }
    fn shrink(&mut self, request: RackShrink, _: &Call) -> Effect<Self, Placement> {
        self.run(|s| async move { s.shrink(&request).await })
    }
    fn evacuate(&mut self, request: RackEvacuate, _: &Call) -> Effect<Self, EvacuateReport> {
        self.run(|s| async move { s.evacuate(&request).await })
    }
    fn load(&mut self, request: RackLoad, _: &Call) -> Effect<Self, Loaded> {
        self.run(|s| async move { s.load(&request).await })
    }
    fn inventory(&mut self, request: RackInventory, _: &Call) -> Effect<Self, RoomReport> {
        self.run(|s| async move { s.inventory(&request).await })
    }
    fn mark(&mut self, request: RackMark, _: &Call) -> Effect<Self, HostRow> {
        self.run(|s| async move { s.mark(&request).await })
    }
    fn quota(&mut self, request: RackQuota, _: &Call) -> Effect<Self, TenantQuota> {
        self.run(|s| async move { s.quota(&request).await })
    }
    fn report(&mut self, request: RackReport, _: &Call) -> Effect<Self, ReportReply> {
        self.run(|s| async move { s.report(&request).await })
    }
    fn list(&mut self, request: RackList, _: &Call) -> Effect<Self, RackListing> {
        self.run(|s| async move { s.list(&request).await })
    }
    fn show(&mut self, request: RackShow, _: &Call) -> Effect<Self, Placement> {
        self.run(|s| async move { s.show(&request.id).await })
    }
    fn explain(&mut self, request: RackExplain, _: &Call) -> Effect<Self, Explanation> {
        self.run(|s| async move { s.explain(&request).await })
    }
    fn whatif(&mut self, request: RackWhatif, _: &Call) -> Effect<Self, WhatifReport> {
        self.run(|s| async move { s.whatif(&request).await })
    }
}

impl Concern for RackScheduler {
    const NAME: &'static str = "rack_scheduler";
    fn routes() -> Routes<Self> {
        Routes::new()
            .on(Self::place)
            .on(Self::plan)
            .on(Self::release)
            .on(Self::grow)
            .on(Self::shrink)
            .on(Self::evacuate)
            .on(Self::load)
            .on(Self::inventory)
            .on(Self::mark)
            .on(Self::quota)
            .on(Self::report)
            .on(Self::list)
            .on(Self::show)
            .on(Self::explain)
            .on(Self::whatif)
    }
    fn observed(&self) -> Value {
        let counts = &self.scheduler.counts;
        json!({
            "asked_total": self.asked,
            "committed_total": counts.committed.load(Ordering::Relaxed),
            "rack_writes_total": counts.rack_writes.load(Ordering::Relaxed),
            "conflicts_total": counts.conflicts.load(Ordering::Relaxed),
            "replanned_total": counts.replanned.load(Ordering::Relaxed),
            "settled_for_others_total": counts.settled_for_others.load(Ordering::Relaxed),
            "racks": self.scheduler.view().racks().len(),
        })
    }
    /// Heartbeats are read, and what others left unfinished is gone on with.
    fn round(&self) -> Option<Round> {
        let scheduler = self.scheduler.clone();
        let every = Duration::from_millis(scheduler.settings.sweep_every_ms);
        Some(Round::every(every, move || {
            let scheduler = scheduler.clone();
            async move { scheduler.go_round().await }
        }))
    }
}

/// Hosts reached over the bus.
#[derive(Debug)]
pub struct OverBus {
    /// The bus.
    pub bus: Arc<dyn Bus>,
    /// How long a host may take to answer, in milliseconds.
    pub timeout_ms: u64,
}

impl OverBus {
    async fn ask<R: Request>(&self, host: &str, message: &R) -> std::result::Result<R::Reply, ErrorBody> {
        let host = HostId::new(host).map_err(|e| ErrorBody::new(Code::Invalid, e.to_string()))?;
        let headers = Headers {
            timeout_ms: Some(self.timeout_ms),
            ..Headers::default()
        };
        bus::call(&*self.bus, &host, message, headers).await
    }
}

#[async_trait]
impl Hosts for OverBus {
    async fn provide(&self, host: &str, message: RackProvide) -> Provided {
        self.ask(host, &message).await.unwrap_or_else(|error| Provided {
            accepted: false,
            why: Some(error.message),
        })
    }
    async fn withdraw(&self, host: &str, message: RackWithdraw) -> bool {
        self.ask(host, &message).await.is_ok()
    }
}
