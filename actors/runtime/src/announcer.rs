//! Publishes a host's events.

use std::sync::Arc;

use bus::Bus;
use wire::event::CloudEvent;
use wire::{HostId, Topic};

use crate::{Clock, rfc3339, ulid};

/// Where a host's events go: it gives each its id, its time and its host. Clones are the same.
#[derive(Debug, Clone)]
pub struct Announcer {
    /// The host that the events tell of.
    pub host: HostId,
    /// Where they are published.
    pub bus: Arc<dyn Bus>,
    /// Their times and ids.
    pub clock: Arc<dyn Clock>,
}

impl Announcer {
    /// Publishes what happened, in the trace of the present task. That it could not be published is logged: it is no fault of
    /// what happened, and whoever must know asks.
    pub async fn announce<T: Topic>(&self, data: T) {
        let (id, time) = (ulid(&*self.clock), rfc3339(self.clock.now_ms()));
        let event = CloudEvent::new(id, &self.host, time, data);
        if let Err(error) = bus::announce(&*self.bus, &event).await {
            tracing::warn!(%error, event = event.kind, id = event.id, "an event was not published");
        }
    }
}
