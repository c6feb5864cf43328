//! The records of jobs that were taken, and the request ids, in the key-value bucket `windlass_jobs`.
//!
//! Keys: `job.<queue>.<id>`, `dead.<queue>.<id>` (which records are dead letters), `request.<queue>.<hash>`; the queue is a host, or
//! `@any`. So a host's permissions can let it write what is said of its own jobs and of those that all hosts share, and no
//! other's. Reads go to the stream's leader: a replica may be behind.
//!
//! Nothing is purged or deleted through the servers' API, for who may do that to one key may do it to all: a key is written over
//! with a mark that it is gone, which the servers forget a moment later. The mark of a job whose message still waits stays: it
//! tells whoever gets the message that there is nothing to do.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{self, DiscardPolicy, LastRawMessageErrorKind, StorageType};
use bytes::Bytes;
use futures::TryStreamExt;
use jobs::{NewJob, Record, Result, Target};
use serde::{Deserialize, Serialize};
use wire::HostId;
use wire::job::{Job, JobId};
use wire::subject::JobSubject;

use super::errors::{failed, unreadable};
use crate::error::NatsError;
use crate::lattice::Lattice;

/// A bucket is a stream of this name, and its keys are these subjects.
pub(crate) const STREAM: &str = "KV_windlass_jobs";
pub(crate) const SUBJECTS: &str = "$KV.windlass_jobs";
/// How often a write is tried whose fate is not known.
const WRITE_TRIES: u32 = 6;
/// The pause before the second try, in milliseconds; each is twice the one before.
const WRITE_AGAIN_MS: u64 = 100;
/// The header that marks a key as deleted.
const OPERATION: &str = "KV-Operation";
/// How long a mark stays that a key is gone: as short as the servers can.
const MARK_KEPT: Duration = Duration::from_secs(1);

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

/// The bucket.
#[derive(Debug)]
pub(super) struct Records {
    context: Context,
    stream: stream::Stream,
}

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
    pub(super) async fn open(lattice: &Lattice) -> std::result::Result<Self, NatsError> {
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
        let records = Self {
            context: lattice.jetstream().clone(),
            stream: lattice.stream(config).await?,
        };
        records.warn_of_old_ones().await;
        Ok(records)
    }

    /// Builds before 0.1.0 had keys without a queue, which nobody reads any more.
    async fn warn_of_old_ones(&self) {
        if let Ok(listed) = self.stream.info_with_subjects(format!("{SUBJECTS}.job.*")).await
            && let Ok(subjects) = listed.try_collect::<Vec<(String, usize)>>().await
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
        match self.stream.get_last_raw_message_by_subject(&subject).await {
            Ok(message) => Ok(Some(Found {
                is_deleted: message.headers.get(OPERATION).is_some(),
                payload: message.payload,
                revision: message.sequence,
            })),
            Err(e) if matches!(e.kind(), LastRawMessageErrorKind::NoMessageFound) => Ok(None),
            Err(e) => Err(failed(&format!("reading {key}"), e)),
        }
    }

    /// Writes where the key still has `revision` (0: never written, or long gone). A write whose fate is not known is tried
    /// again; when somebody was there before, it may have been ourselves.
    async fn write(&self, key: &str, message: PublishMessage, revision: u64, payload: &[u8]) -> Result<Written> {
        let subject = format!("{SUBJECTS}.{key}");
        let message = message.expected_last_subject_sequence(revision);
        let mut pause_ms = WRITE_AGAIN_MS;
        let mut tries = 0;
        loop {
            tries += 1;
            let published = match self.context.send_publish(subject.clone(), message.clone()).await {
                Ok(acknowledged) => acknowledged.await,
                Err(e) => Err(e),
            };
            let error = match published {
                Ok(ack) => return Ok(Written::At(ack.sequence)),
                Err(e) => e,
            };
            if error.kind() == PublishErrorKind::WrongLastSequence {
                if tries > 1
                    && let Some(found) = self.read(key).await?
                    && found.payload == payload
                {
                    return Ok(Written::At(found.revision));
                }
                return Ok(Written::Overtaken);
            }
            if error.kind() == PublishErrorKind::MaxPayloadExceeded || tries >= WRITE_TRIES {
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
    pub(super) async fn swap(&self, kept: &Kept, revision: u64) -> Result<Option<u64>> {
        let id = &kept.record.job.id;
        let payload = Bytes::from(
            serde_json::to_vec(kept).map_err(|e| unreadable(&format!("the record of job {id}, to be written,"), e))?,
        );
        let message = PublishMessage::build().payload(payload.clone());
        match self
            .write(&job_key(&kept.record.job.target, id), message, revision, &payload)
            .await?
        {
            Written::At(revision) => Ok(Some(revision)),
            Written::Overtaken => Ok(None),
        }
    }

    /// Writes the mark over a key that still has `revision`; for good where it `stays`.
    async fn mark_gone(&self, key: &str, revision: u64, stays: bool) -> Result<bool> {
        let mark = PublishMessage::build().header(OPERATION, "PURGE");
        let mark = if stays { mark } else { mark.ttl(MARK_KEPT) };
        Ok(matches!(self.write(key, mark, revision, &[]).await?, Written::At(_)))
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
        let listed = self.stream.info_with_subjects(format!("{prefix}*.*")).await;
        let subjects: Vec<(String, usize)> = match listed {
            Ok(subjects) => subjects.try_collect().await,
            Err(e) => Err(e),
        }
        .map_err(|e| failed("listing the records", e))?;
        let filed = |subject: &String| {
            let (queue, id) = subject.strip_prefix(&prefix)?.split_once('.')?;
            Some((JobId(id.to_owned()), JobSubject::queue_of_token(queue).ok()?))
        };
        Ok(subjects.iter().filter_map(|(subject, _)| filed(subject)).collect())
    }

    /// Notes that a job is, or is about to be, a dead letter.
    pub(super) async fn note_dead(&self, queue: &QueueOf, id: &JobId) -> Result<()> {
        let key = dead_key(queue, id);
        let noted = async |revision| {
            let message = PublishMessage::build().payload(Bytes::from_static(b"dead"));
            let written = self.write(&key, message, revision, b"dead").await?;
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
            let message = PublishMessage::build()
                .payload(payload.clone())
                .ttl(Duration::from_millis(keep_ms.max(1_000)));
            if let Written::At(_) = self.write(&key, message, revision, &payload).await? {
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
        let message = PublishMessage::build()
            .payload(payload.clone())
            .ttl(Duration::from_millis(keep_ms.max(1_000)));
        self.write(&key, message, found.revision, &payload).await.map(|_| ())
    }
}
