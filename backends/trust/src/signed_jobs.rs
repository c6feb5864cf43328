//! Who stands behind a job: whoever queues it signs it, whoever takes it checks that before it begins.
//!
//! Signed is what stays the same while a job lives: its id, what it is, for whom, its request, and which retry of it. So neither its
//! message nor its record can be changed by anybody who writes to the servers, a retry can't be made up, and a job of one id is never
//! run as another.

use jobs::{Authority, Record};
use wire::ErrorBody;

use crate::core::refusal::Refusal;
use crate::core::stamp::{Domain, Stamp};
use crate::fleet::Fleet;

/// How long a member's word on a job counts, in milliseconds: a week. A job that waited longer is set aside; whoever retries it signs
/// it anew.
pub const JOB_MS_MAX: u64 = 7 * 24 * 3_600_000;
/// How far ahead of the fleet's clock a job may be signed, in milliseconds.
const AHEAD_MS_MAX: u64 = 120_000;

/// [`Authority`] of a member.
#[derive(Debug, Clone)]
pub struct SignedJobs(Fleet);

impl SignedJobs {
    /// The authority of the member that this process speaks as.
    pub fn of(fleet: Fleet) -> Self {
        Self(fleet)
    }

    /// Signed by one who is a member, or was one, and as it was signed.
    fn is_intact(&self, record: &Record) -> Result<(), Refusal> {
        let stamp: Stamp = record.authority.as_deref().ok_or(Refusal::Unsigned)?.parse()?;
        let known = self.0.book().entry(&stamp.sender).map(|entry| entry.row.key.clone());
        let key = known.ok_or(Refusal::Unknown)?;
        with_parts(record, |parts| stamp.check(&key, Domain::Job, parts))
    }

    fn heard(&self, record: &Record) -> Result<(), Refusal> {
        let stamp: Stamp = record.authority.as_deref().ok_or(Refusal::Unsigned)?.parse()?;
        let now_ms = self.0.now_ms();
        let age_ms = now_ms.saturating_sub(stamp.time_ms);
        if age_ms > JOB_MS_MAX || stamp.time_ms.saturating_sub(now_ms) > AHEAD_MS_MAX {
            return Err(Refusal::Stale);
        }
        with_parts(record, |parts| self.0.check(&stamp, Domain::Job, parts))
    }
}

impl Authority for SignedJobs {
    fn sign(&self, record: &mut Record) -> Result<(), ErrorBody> {
        let stamp = with_parts(record, |parts| self.0.sign(Domain::Job, parts));
        record.authority = match stamp {
            Ok(stamp) => Some(stamp.to_string()),
            Err(reason) => return Err(reason.error(format!("job {}", record.job.id))),
        };
        Ok(())
    }

    fn check(&self, record: &Record) -> Result<(), ErrorBody> {
        self.heard(record).map_err(|reason| {
            let what = format!("job {}", record.job.id);
            self.0.refuse(&what, record.authority.as_deref(), reason);
            let hint = match reason {
                Refusal::Stale | Refusal::Revoked => {
                    format!("look at it, and if it is wanted: windlass jobs retry {}", record.job.id)
                }
                _ => "nobody can queue it again; if it is wanted, ask for it anew".to_owned(),
            };
            reason.error(what).hint(hint)
        })
    }

    fn intact(&self, record: &Record) -> Result<(), ErrorBody> {
        self.is_intact(record).map_err(|reason| {
            let what = format!("job {}", record.job.id);
            reason
                .error(what)
                .hint("nobody can queue it again; if it is wanted, ask for it anew")
        })
    }
}

fn with_parts<T>(record: &Record, then: impl FnOnce(&[&[u8]]) -> Result<T, Refusal>) -> Result<T, Refusal> {
    let job = &record.job;
    // JSON values always encode
    let request = serde_json::to_vec(&job.request).map_err(|_| Refusal::Unreadable)?;
    let (hash, retries) = (blake3::hash(&request), record.retries.to_le_bytes());
    // an absent text is no part, an empty one is
    fn optional(text: Option<&str>) -> (&[u8], &[u8]) {
        text.map_or((b"-", b""), |text| (b"+", text.as_bytes()))
    }
    let (has_request_id, request_id) = optional(job.request_id.as_deref());
    let (has_target, target) = optional(job.target.as_ref().map(wire::HostId::as_str));
    then(&[
        job.id.0.as_bytes(),
        job.concern.as_bytes(),
        job.kind.as_bytes(),
        has_request_id,
        request_id,
        has_target,
        target,
        &retries,
        hash.as_bytes(),
    ])
}
