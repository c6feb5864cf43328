//! Who belongs to the fleet, as the concern `hosts` asks for it; and what was refused becomes an event.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use runtime::Announcer;
use tokio::sync::mpsc;
use trust::{Refusal, Refused};
use wire::ErrorBody;
use wire::members::{HostMembership, HostRefused, HostRevoke, HostRevoked, HostToken, HostTokenGranted};

use crate::audit::Audit;

/// Refusals that may wait to be told; those beyond are counted by the metrics alone.
const REFUSALS_MAX: usize = 256;
/// A reason is told at most this often.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// The port of `runtime` over [`trust::Membership`].
#[derive(Debug)]
struct Members(trust::Membership);

/// What the concern `hosts` gets.
pub fn of(membership: Option<&trust::Membership>) -> Option<Arc<dyn runtime::Membership>> {
    let membership = membership?.clone();
    Some(Arc::new(Members(membership)))
}

#[async_trait]
impl runtime::Membership for Members {
    fn members(&self) -> HostMembership {
        self.0.members()
    }
    fn refused(&self) -> Vec<(&'static str, u64)> {
        let refused = self.0.fleet().refused().into_iter();
        refused.map(|(reason, count)| (reason.as_str(), count)).collect()
    }
    async fn grant(&self, request: &HostToken) -> Result<HostTokenGranted, ErrorBody> {
        Ok(self.0.grant(request, runtime::rfc3339).await?)
    }
    async fn revoke(&self, request: &HostRevoke) -> Result<HostRevoked, ErrorBody> {
        Ok(self.0.revoke(&request.member).await?)
    }
}

/// Tells everybody of what this host refuses, as long as the process lives.
pub fn tell(membership: &trust::Membership, announcer: Announcer, audit: Audit) {
    let (sender, refusals) = mpsc::channel(REFUSALS_MAX);
    membership.fleet().tell_to(Box::new(move |refused| {
        // the metrics have counted it
        let _full = sender.try_send(refused);
    }));
    tokio::spawn(tell_on(refusals, announcer, audit));
}

async fn tell_on(mut refusals: mpsc::Receiver<Refused>, announcer: Announcer, audit: Audit) {
    while let Some(first) = refusals.recv().await {
        let mut told: BTreeMap<Refusal, (Refused, u64)> = BTreeMap::new();
        let mut refused = Some(first);
        while let Some(one) = refused {
            let count = told.entry(one.reason).or_insert_with(|| (one, 0));
            count.1 += 1;
            refused = refusals.try_recv().ok();
        }
        for (reason, (last, count)) in told {
            let claimed = last.claimed.as_deref().unwrap_or("unknown");
            let why = format!("{}: {reason}", reason.as_str());
            audit.note_denied(claimed, "NATS", &last.what, &why, count);
            announcer.announce(event(&announcer, reason, last, count)).await;
        }
        tokio::time::sleep(TOLD_EVERY).await;
    }
}

fn event(announcer: &Announcer, reason: Refusal, refused: Refused, count: u64) -> HostRefused {
    HostRefused {
        host: announcer.host.clone(),
        what: refused.what,
        claimed: refused.claimed,
        reason: reason.as_str().to_owned(),
        count,
    }
}
