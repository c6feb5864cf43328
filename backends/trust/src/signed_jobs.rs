//! Who stands behind a job: whoever queues it signs it, whoever takes it checks that before it begins.
//!
//! Signed is what stays the same while a job lives: its id, what it is, for whom, its request, and which retry of it. So neither its
//! message nor its record can be changed by anybody who writes to the servers, a retry can't be made up, and a job of one id is never
//! run as another.
//!
//! A host remembers in its own state which jobs have ended on it, for as long as their signatures count. So whoever has the servers
//! can't have a host do a job again by taking its record away and putting its message back, nor can a store that was restored from an
//! old copy.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use jobs::{Authority, Record};
use state::{Key, LIST_ENTRIES_MAX, Prefix, State};
use wire::ErrorBody;
use wire::job::JobId;

use crate::core::refusal::Refusal;
use crate::core::stamp::{Domain, Stamp};
use crate::fleet::Fleet;

/// How long a member's word on a job counts, in milliseconds: a week. A job that waited longer is set aside; whoever retries it signs
/// it anew.
pub const JOB_MS_MAX: u64 = 7 * 24 * 3_600_000;
/// How far ahead of the fleet's clock a job may be signed, in milliseconds.
const AHEAD_MS_MAX: u64 = 120_000;

/// Where a host keeps what has ended on it.
const ENDED: &str = "ended";
/// Ended jobs that are remembered; the oldest go first.
const ENDED_MAX: usize = 100_000;

/// [`Authority`] of a member.
#[derive(Debug, Clone)]
pub struct SignedJobs {
    fleet: Fleet,
    own: Arc<dyn State>,
    /// Which jobs have ended here, and as which retry: ids sort by time.
    ended: Arc<Mutex<BTreeMap<JobId, u32>>>,
}

fn ended_key(job: &JobId) -> state::Result<Key> {
    Key::new(format!("{ENDED}/{job}"))
}

impl SignedJobs {
    /// The authority of the member that this process speaks as; `own` is the host's own state.
    ///
    /// # Errors
    /// When that can't be read.
    pub async fn open(fleet: Fleet, own: Arc<dyn State>) -> state::Result<Self> {
        let prefix = Prefix::below(&Key::new(ENDED)?);
        let (mut ended, mut after) = (BTreeMap::new(), None);
        loop {
            let page = own.list(&prefix, after.as_ref(), LIST_ENTRIES_MAX).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            for entry in page {
                let job = entry.key.as_str().strip_prefix(prefix.as_str()).unwrap_or_default();
                // one that can't be read says that it ended, whatever retry it was
                let retries = std::str::from_utf8(&entry.value)
                    .ok()
                    .and_then(|text| text.parse().ok());
                ended.insert(JobId(job.to_owned()), retries.unwrap_or(u32::MAX));
            }
        }
        Ok(Self {
            fleet,
            own,
            ended: Arc::new(Mutex::new(ended)),
        })
    }

    fn ended(&self) -> MutexGuard<'_, BTreeMap<JobId, u32>> {
        // nothing panics under this lock
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Signed by one who is a member, or was one, and as it was signed.
    fn is_intact(&self, record: &Record) -> Result<(), Refusal> {
        let stamp: Stamp = record.authority.as_deref().ok_or(Refusal::Unsigned)?.parse()?;
        let known = self
            .fleet
            .book()
            .entry(&stamp.sender)
            .map(|entry| entry.row.key.clone());
        let key = known.ok_or(Refusal::Unknown)?;
        with_parts(record, |parts| stamp.check(&key, Domain::Job, parts))
    }

    fn heard(&self, record: &Record) -> Result<(), Refusal> {
        let stamp: Stamp = record.authority.as_deref().ok_or(Refusal::Unsigned)?.parse()?;
        let now_ms = self.fleet.now_ms();
        let age_ms = now_ms.saturating_sub(stamp.time_ms);
        if age_ms > JOB_MS_MAX || stamp.time_ms.saturating_sub(now_ms) > AHEAD_MS_MAX {
            return Err(Refusal::Stale);
        }
        with_parts(record, |parts| self.fleet.check(&stamp, Domain::Job, parts))?;
        match self.ended().get(&record.job.id) {
            Some(retries) if *retries >= record.retries => Err(Refusal::Replayed),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Authority for SignedJobs {
    fn sign(&self, record: &mut Record) -> Result<(), ErrorBody> {
        let stamp = with_parts(record, |parts| self.fleet.sign(Domain::Job, parts));
        record.authority = match stamp {
            Ok(stamp) => Some(stamp.to_string()),
            Err(reason) => return Err(reason.error(format!("job {}", record.job.id))),
        };
        Ok(())
    }

    fn check(&self, record: &Record) -> Result<(), ErrorBody> {
        self.heard(record).map_err(|reason| {
            let what = format!("job {}", record.job.id);
            self.fleet.refuse(&what, record.authority.as_deref(), reason);
            let hint = match reason {
                Refusal::Stale | Refusal::Revoked => {
                    format!("look at it, and if it is wanted: windlass jobs retry {}", record.job.id)
                }
                _ => "nobody can queue it again; if it is wanted, ask for it anew".to_owned(),
            };
            reason.error(what).hint(hint)
        })
    }

    async fn ended(&self, record: &Record) {
        let id = &record.job.id;
        let forgotten = {
            let mut ended = self.ended();
            ended.insert(id.clone(), record.retries);
            match ended.len() > ENDED_MAX {
                true => ended.pop_first().map(|(oldest, _)| oldest),
                false => None,
            }
        };
        let written = async {
            let retries = Bytes::from(record.retries.to_string());
            self.own.put(&ended_key(id)?, retries).await?;
            if let Some(oldest) = forgotten {
                self.own.delete(&ended_key(&oldest)?, None).await?;
            }
            Ok::<_, state::StateError>(())
        };
        if let Err(e) = written.await {
            tracing::warn!(job = %id, error = %e, "that a job has ended here isn't remembered over a restart");
        }
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
