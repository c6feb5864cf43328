//! The records of jobs that were taken, and the request ids, in the key-value bucket `windlass_jobs`.
//!
//! Keys: `job.<queue>.<id>`, `dead.<queue>.<id>` (which records are dead letters), `request.<queue>.<hash>`; the queue is a host, or
//! `@any`. So a host's permissions can let it write what is said of its own jobs and of those that all hosts share, and no
//! other's. Reads go to the stream's leader: a replica may be behind.
//!
//! Nothing is purged or deleted through the servers' API, for who may do that to one key may do it to all: a key is written over
//! with a mark that it is gone, which the servers forget a moment later. The mark of a job whose message still waits stays: it
//! tells whoever gets the message that there is nothing to do.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::stream::{self, DiscardPolicy, StorageType};
use bytes::Bytes;
use jobs::{NewJob, Record, Result, Target, Worker, invariants};
use planted::Fault;
use serde::{Deserialize, Serialize};
use wire::HostId;
use wire::job::{Job, JobId};
use wire::subject::JobSubject;

use super::errors::{failed, unreadable};
use crate::error::NatsError;
use crate::lattice::Lattice;
use crate::streams::{EXPECTED, NotStored, OPERATION, Outgoing, Streams, TTL};

/// A bucket is a stream of this name, and its keys are these subjects.
pub(crate) const STREAM: &str = "KV_windlass_jobs";
pub(crate) const SUBJECTS: &str = "$KV.windlass_jobs";
/// How often a write is tried whose fate is not known.
const WRITE_TRIES: u32 = 6;
/// The pause before the second try, in milliseconds; each is twice the one before.
const WRITE_AGAIN_MS: u64 = 100;
/// How long a mark stays that a key is gone, in seconds: as short as the servers can.
const MARK_KEPT_S: u64 = 1;

/// A record as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) record: Record,
    /// The message that answers for it; 0 while none is known.
    pub(super) message: u64,
    /// Counts the words of its worker, so that others see that it lives.
    pub(super) beats: u64,
}

/// What a request id names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Named {
    pub(super) job: JobId,
    /// Of the request, so that another one under the same id is refused.
    pub(super) digest: String,
    /// The job is no longer kept.
    #[serde(default)]
    pub(super) forgotten: bool,
}

/// A record that is to be written.
pub(super) struct Change<'a> {
    /// What it replaces.
    pub(super) before: Option<&'a Record>,
    pub(super) kept: &'a Kept,
    /// Whose word it is, when it is a worker's.
    pub(super) writer: Option<&'a Worker>,
}

/// The bucket.
#[derive(Debug)]
pub(super) struct Records(pub(super) Arc<dyn Streams>);

/// A value and its revision.
struct Found {
    payload: Bytes,
    revision: u64,
    is_deleted: bool,
}

/// What came of a write.
enum Written {
    At(u64),
    /// Somebody wrote before.
    Overtaken,
}

pub(super) fn digest(request: &serde_json::Value) -> String {
    blake3::hash(request.to_string().as_bytes()).to_hex().to_string()
}

/// Whose queue a job is in: a host's, or the one that all hosts share.
pub(super) type QueueOf = Option<HostId>;

/// A message for a key.
fn to(key: &str, payload: Bytes) -> Outgoing {
    Outgoing::new(format!("{SUBJECTS}.{key}"), payload)
}

/// How long a request id is kept, in whole seconds.
fn kept_s(keep_ms: u64) -> u64 {
    keep_ms.max(1_000) / 1_000
}

fn job_key(queue: &QueueOf, id: &JobId) -> String {
    format!("job.{}.{id}", JobSubject::queue_token(queue.as_ref()))
}

fn dead_key(queue: &QueueOf, id: &JobId) -> String {
    format!("dead.{}.{id}", JobSubject::queue_token(queue.as_ref()))
}

/// Request ids are free text; concern and kind are part of them.
pub(super) fn request_key(queue: &QueueOf, concern: &str, kind: &str, request_id: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [concern, kind, request_id] {
        hasher
            .update(&(part.len() as u64).to_le_bytes())
            .update(part.as_bytes());
    }
    format!(
        "request.{}.{}",
        JobSubject::queue_token(queue.as_ref()),
        hasher.finalize().to_hex()
    )
}

fn queue_of(target: &Target) -> QueueOf {
    match target {
        Target::Host(host) => Some(host.clone()),
        Target::Any => None,
    }
}

/// Ids come from people too; a key takes no wildcard.
fn is_id(id: &JobId) -> bool {
    !id.0.is_empty() && id.0.len() <= 64 && id.0.bytes().all(|b| b.is_ascii_alphanumeric())
}

impl Records {
    /// Makes the bucket when it isn't there.
    pub(super) async fn make(lattice: &Lattice, streams: &dyn Streams) -> std::result::Result<(), NatsError> {
        let config = stream::Config {
            name: STREAM.into(),
            description: Some("windlass: records of jobs".into()),
            subjects: vec![format!("{SUBJECTS}.>")],
            max_messages_per_subject: 1,
            discard: DiscardPolicy::New,
            storage: StorageType::File,
            // a message that rolls up everything would be a purge by a publish
            allow_rollup: false,
            deny_delete: true,
            allow_message_ttl: true,
            // a replica may be behind, and a look at old records costs work
            allow_direct: false,
            ..stream::Config::default()
        };
        lattice.stream(config).await?;
        Self::warn_of_old_ones(streams).await;
        Ok(())
    }

    /// Builds before 0.1.0 had keys without a queue, which nobody reads any more.
    async fn warn_of_old_ones(streams: &dyn Streams) {
        if let Ok(subjects) = streams.subjects(STREAM, &format!("{SUBJECTS}.job.*")).await
            && !subjects.is_empty()
        {
            tracing::warn!(
                records = subjects.len(),
                "records of jobs of an earlier build are not read any more; once all hosts are of this build: \
                 nats stream purge {STREAM} --subject '{SUBJECTS}.job.*'"
            );
        }
    }

    async fn read(&self, key: &str) -> Result<Option<Found>> {
        let subject = format!("{SUBJECTS}.{key}");
        match self.0.last(STREAM, &subject).await {
            Ok(Some(message)) => Ok(Some(Found {
                is_deleted: message.header(OPERATION).is_some(),
                payload: message.payload,
                revision: message.sequence,
            })),
            Ok(None) => Ok(None),
            Err(e) => Err(failed(&format!("reading {key}"), e)),
        }
    }

    /// Writes where the key still has `revision` (0: never written, or long gone). A write whose fate is not known is tried
    /// again; when somebody was there before, it may have been ourselves.
    async fn write(&self, key: &str, message: Outgoing, revision: u64) -> Result<Written> {
        let message = match planted::is(Fault::RecordWrittenUncompared) {
            true => message,
            false => message.with(EXPECTED, revision),
        };
        let mut pause_ms = WRITE_AGAIN_MS;
        let mut tries = 0;
        loop {
            tries += 1;
            let error = match self.0.publish(&message).await {
                Ok(sequence) => return Ok(Written::At(sequence)),
                Err(e) => e,
            };
            if let NotStored::Overtaken(_) = error {
                if tries > 1
                    && let Some(found) = self.read(key).await?
                    && found.payload == message.payload
                {
                    return Ok(Written::At(found.revision));
                }
                return Ok(Written::Overtaken);
            }
            if matches!(error, NotStored::TooLarge(_)) || tries >= WRITE_TRIES {
                return Err(failed(&format!("writing {key}"), error));
            }
            tracing::debug!(key, %error, tries, "a write was not acknowledged yet");
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            pause_ms *= 2;
        }
    }

    /// The record of a job, and its revision; that of a deleted one is the revision of its mark, that of none is 0.
    pub(super) async fn get(&self, queue: &QueueOf, id: &JobId) -> Result<(Option<Kept>, u64)> {
        if !is_id(id) {
            return Ok((None, 0));
        }
        self.read_record(&job_key(queue, id), id).await
    }

    /// The same of a job whose queue isn't known; costs the servers more.
    pub(super) async fn find(&self, id: &JobId) -> Result<(Option<Kept>, u64)> {
        if !is_id(id) {
            return Ok((None, 0));
        }
        self.read_record(&format!("job.*.{id}"), id).await
    }

    async fn read_record(&self, key: &str, id: &JobId) -> Result<(Option<Kept>, u64)> {
        let Some(found) = self.read(key).await? else {
            return Ok((None, 0));
        };
        if found.is_deleted {
            return Ok((None, found.revision));
        }
        let kept =
            serde_json::from_slice(&found.payload).map_err(|e| unreadable(&format!("the record of job {id}"), e))?;
        Ok((Some(kept), found.revision))
    }

    /// Writes a record where it still has `revision`; its new revision, or `None` when somebody was there before.
    pub(super) async fn swap(&self, change: Change<'_>, revision: u64) -> Result<Option<u64>> {
        let Change { before, kept, writer } = change;
        let id = &kept.record.job.id;
        debug_assert_eq!(invariants::misstep(before, &kept.record, writer), None);
        let payload = Bytes::from(
            serde_json::to_vec(kept).map_err(|e| unreadable(&format!("the record of job {id}, to be written,"), e))?,
        );
        let key = job_key(&kept.record.job.target, id);
        match self.write(&key, to(&key, payload), revision).await? {
            Written::At(revision) => Ok(Some(revision)),
            Written::Overtaken => Ok(None),
        }
    }

    /// Writes the mark over a key that still has `revision`; for good where it `stays`.
    async fn mark_gone(&self, key: &str, revision: u64, stays: bool) -> Result<bool> {
        let mark = to(key, Bytes::new()).with(OPERATION, "PURGE");
        let mark = if stays { mark } else { mark.with(TTL, MARK_KEPT_S) };
        Ok(matches!(self.write(key, mark, revision).await?, Written::At(_)))
    }

    /// Forgets a record that still has `revision`. Where the job's message still waits the mark stays, until
    /// [`Records::message_gone`].
    pub(super) async fn forget(&self, queue: &QueueOf, id: &JobId, revision: u64, is_waiting: bool) -> Result<bool> {
        self.mark_gone(&job_key(queue, id), revision, is_waiting).await
    }

    /// The message of a forgotten job is gone: so may its mark be.
    pub(super) async fn message_gone(&self, queue: &QueueOf, id: &JobId, revision: u64) {
        self.drop_key(&job_key(queue, id), Some(revision)).await;
    }

    /// Forgets a key, whatever it says, or where it still has that revision. A failure leaves it, which is no harm.
    async fn drop_key(&self, key: &str, revision: Option<u64>) {
        let dropped = async {
            let revision = match revision {
                Some(revision) => revision,
                None => match self.read(key).await? {
                    Some(found) if !found.is_deleted => found.revision,
                    _ => return Ok(false),
                },
            };
            self.mark_gone(key, revision, false).await
        };
        if let Err(e) = dropped.await {
            tracing::debug!(key, error = %e, "a key that is of no more use stays");
        }
    }

    /// All records, or all dead letters, with the queues that they are of.
    pub(super) async fn ids(&self, dead: bool) -> Result<Vec<(JobId, QueueOf)>> {
        let prefix = match dead {
            true => format!("{SUBJECTS}.dead."),
            false => format!("{SUBJECTS}.job."),
        };
        let listed = self.0.subjects(STREAM, &format!("{prefix}*.*")).await;
        let subjects = listed.map_err(|e| failed("listing the records", e))?;
        let filed = |subject: &String| {
            let (queue, id) = subject.strip_prefix(&prefix)?.split_once('.')?;
            Some((JobId(id.to_owned()), JobSubject::queue_of_token(queue).ok()?))
        };
        Ok(subjects.iter().filter_map(filed).collect())
    }

    /// Notes that a job is, or is about to be, a dead letter.
    pub(super) async fn note_dead(&self, queue: &QueueOf, id: &JobId) -> Result<()> {
        let key = dead_key(queue, id);
        let noted = async |revision| {
            let written = self
                .write(&key, to(&key, Bytes::from_static(b"dead")), revision)
                .await?;
            Result::Ok(matches!(written, Written::At(_)))
        };
        if noted(0).await? {
            return Ok(());
        }
        // already noted is as good; a mark that it isn't any more is written over
        match self.read(&key).await? {
            Some(found) if found.is_deleted => noted(found.revision).await.map(|_| ()),
            _ => Ok(()),
        }
    }

    /// It is none any more.
    pub(super) async fn unnote_dead(&self, queue: &QueueOf, id: &JobId) {
        self.drop_key(&dead_key(queue, id), None).await;
    }

    /// Gives a request id to a job, unless it names one already: then that one.
    pub(super) async fn name(
        &self,
        new: &NewJob,
        request_id: &str,
        job: &JobId,
        keep_ms: u64,
    ) -> Result<Option<Named>> {
        let key = request_key(&queue_of(&new.target), &new.concern, &new.kind, request_id);
        let named = Named {
            job: job.clone(),
            digest: digest(&new.request),
            forgotten: false,
        };
        let payload =
            Bytes::from(serde_json::to_vec(&named).map_err(|e| unreadable("a request id, to be written,", e))?);
        let mut revision = 0;
        loop {
            if planted::is(Fault::RequestIdForgotten) {
                return Ok(None);
            }
            let message = to(&key, payload.clone()).with(TTL, kept_s(keep_ms));
            if let Written::At(_) = self.write(&key, message, revision).await? {
                return Ok(None);
            }
            revision = 0;
            if let Some(found) = self.read(&key).await? {
                if found.is_deleted {
                    revision = found.revision;
                    continue;
                }
                let known: Named = serde_json::from_slice(&found.payload).map_err(|e| unreadable("a request id", e))?;
                return Ok(Some(known).filter(|known| known.job != *job));
            }
            // its time was up between the two: once more
        }
    }

    /// Takes a request id back that names this job; an error leaves it, which is no harm: the next submit queues its job.
    pub(super) async fn unname(&self, job: &Job) {
        if let Some(request_id) = &job.request_id {
            let key = request_key(&job.target, &job.concern, &job.kind, request_id);
            self.drop_key(&key, None).await;
        }
    }

    /// Notes at the request id of a job that the job is no longer kept.
    pub(super) async fn note_forgotten(&self, record: &Record, keep_ms: u64) -> Result<()> {
        let job = &record.job;
        let Some(request_id) = &job.request_id else {
            return Ok(());
        };
        let key = request_key(&job.target, &job.concern, &job.kind, request_id);
        let Some(found) = self.read(&key).await?.filter(|found| !found.is_deleted) else {
            return Ok(());
        };
        let mut named: Named = serde_json::from_slice(&found.payload).map_err(|e| unreadable("a request id", e))?;
        if named.job != job.id {
            return Ok(());
        }
        named.forgotten = true;
        let payload =
            Bytes::from(serde_json::to_vec(&named).map_err(|e| unreadable("a request id, to be written,", e))?);
        let message = to(&key, payload).with(TTL, kept_s(keep_ms));
        self.write(&key, message, found.revision).await.map(|_| ())
    }
}
