//! The concern `audit`: tells what this host noticed.

use std::sync::atomic::Ordering;

use runtime::{Call, Concern, Effect, Routes};
use serde_json::{Value, json};
use wire::Code;
use wire::audit::{AuditList, AuditListing};

use super::Audit;

/// Entries of a list when the asker names no number.
const LIST_DEFAULT: usize = 100;
/// And the most.
const LIST_MAX: usize = 1_000;
/// An answer ends before it grows over this, in bytes.
const LIST_BYTES_MAX: usize = 768 << 10;

/// The concern.
pub struct AuditBook(pub Audit);

impl Concern for AuditBook {
    const NAME: &'static str = "audit";
    fn routes() -> Routes<Self> {
        Routes::new().on(Self::list)
    }
    fn observed(&self) -> Value {
        let (denied, missed) = (&self.0.0.denied, &self.0.0.missed);
        json!({"denied_total": denied.load(Ordering::Relaxed), "missed_total": missed.load(Ordering::Relaxed)})
    }
}

impl AuditBook {
    fn list(&mut self, request: AuditList, _: &Call) -> Effect<Self, AuditListing> {
        let audit = self.0.clone();
        let count = match usize::try_from(request.count_max).unwrap_or(LIST_MAX) {
            0 => LIST_DEFAULT,
            count => count.min(LIST_MAX),
        };
        Effect::run(async move {
            audit.flush().await;
            let ring = audit.0.ring.lock().await;
            let newest = ring.newest(count, |entry| !request.denied || entry.refused == Some(Code::Denied));
            let mut bytes = 0;
            let mut entries = newest.await?;
            entries.retain(|entry| {
                bytes += serde_json::to_vec(entry).map_or(0, |json| json.len());
                bytes <= LIST_BYTES_MAX
            });
            Ok(AuditListing {
                entries,
                denied_total: audit.0.denied.load(Ordering::Relaxed),
                missed_total: audit.0.missed.load(Ordering::Relaxed),
            })
        })
    }
}
