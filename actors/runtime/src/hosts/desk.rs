//! The concern `hosts`: tells of hosts, and passes on what people tell them to do.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use wire::hosts::{HostCordon, HostDrain, HostInfo, HostList, HostListing, HostOrder, HostShow, HostUncordon};
use wire::members::{HostMembers, HostMembership, HostRevoke, HostRevoked, HostToken, HostTokenGranted};
use wire::{Code, ErrorBody, HostId};

use super::{Hosts, Membership, ORDERS, key};
use crate::concern::{Call, Concern, Effect, Routes};

/// The concern.
pub(crate) struct HostBook(pub(crate) Arc<Hosts>);

impl Concern for HostBook {
    const NAME: &'static str = "hosts";
    fn routes() -> Routes<Self> {
        Routes::new()
            .on(Self::list)
            .on(Self::show)
            .on(Self::cordon)
            .on(Self::uncordon)
            .on(Self::drain)
            .on(Self::token)
            .on(Self::revoke)
            .on(Self::members)
    }
    fn observed(&self) -> Value {
        let known = self.0.book().all(self.0.clock.monotonic_ms()).len();
        let mut observed = json!({"hosts": known, "order": self.0.book().order_of(self.0.host())});
        if let Some(membership) = &self.0.options.membership {
            let members = membership.members().members;
            observed["members"] = members.iter().filter(|m| !m.revoked).count().into();
            for (reason, count) in membership.refused() {
                observed[format!("refused_{reason}_total")] = count.into();
            }
        }
        observed
    }
}

fn info(hosts: &Hosts, host: &HostId) -> Result<HostInfo, ErrorBody> {
    let info = hosts.book().info(host, hosts.clock.monotonic_ms());
    info.ok_or_else(|| {
        ErrorBody::new(
            Code::NotFound,
            format!("no host '{host}' has ever beaten here; nothing was changed"),
        )
        .hint("windlass hosts ls")
    })
}

impl HostBook {
    fn list(&mut self, _: HostList, _: &Call) -> Effect<Self, HostListing> {
        let hosts = self.0.book().all(self.0.clock.monotonic_ms());
        Effect::answer(Ok(HostListing { hosts }))
    }
    fn show(&mut self, request: HostShow, _: &Call) -> Effect<Self, HostInfo> {
        Effect::answer(info(&self.0, &request.host))
    }
    fn cordon(&mut self, request: HostCordon, _: &Call) -> Effect<Self, HostInfo> {
        self.tell(request.host, HostOrder::Cordon)
    }
    fn uncordon(&mut self, request: HostUncordon, _: &Call) -> Effect<Self, HostInfo> {
        self.tell(request.host, HostOrder::Serve)
    }
    fn drain(&mut self, request: HostDrain, _: &Call) -> Effect<Self, HostInfo> {
        self.tell(request.host, HostOrder::Drain)
    }

    fn membership(&self) -> Result<Arc<dyn Membership>, ErrorBody> {
        self.0.options.membership.clone().ok_or_else(|| {
            let message = format!(
                "{} stands alone: there is no fleet to belong to; nothing was changed",
                self.0.host()
            );
            ErrorBody::new(Code::Conflict, message).hint("docs/lattice.md tells how hosts meet")
        })
    }
    fn members(&mut self, _: HostMembers, _: &Call) -> Effect<Self, HostMembership> {
        Effect::answer(self.membership().map(|membership| membership.members()))
    }
    fn token(&mut self, request: HostToken, _: &Call) -> Effect<Self, HostTokenGranted> {
        let membership = self.membership();
        Effect::run(async move { membership?.grant(&request).await })
    }
    fn revoke(&mut self, request: HostRevoke, _: &Call) -> Effect<Self, HostRevoked> {
        let membership = self.membership();
        Effect::run(async move { membership?.revoke(&request).await })
    }

    fn tell(&mut self, host: HostId, order: HostOrder) -> Effect<Self, HostInfo> {
        let hosts = self.0.clone();
        Effect::run(async move { hosts.tell(host, order).await })
    }
}

impl Hosts {
    /// Durable when it is answered; the host obeys as soon as it hears of it, also after it was away.
    pub(crate) async fn tell(&self, host: HostId, order: HostOrder) -> Result<HostInfo, ErrorBody> {
        info(self, &host)?;
        let value = serde_json::to_vec(&order)
            .map_err(|e| ErrorBody::new(Code::Internal, format!("the order can't be encoded: {e}")))?;
        let revision = self.state.put(&key(ORDERS, &host)?, Bytes::from(value)).await?;
        self.book().order(host.clone(), order, revision);
        if host == *self.host() {
            self.ordered.notify_one();
        }
        let info = info(self, &host)?;
        let told = wire::hosts::HostChanged(info.clone());
        self.desk.announcer.announce(told).await;
        Ok(info)
    }
}
