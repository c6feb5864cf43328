//! The stream of jobs that are not ended: what waits and what is in hand.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::stream::{self, DiscardPolicy, RetentionPolicy, StorageType};
use jobs::{JobsError, Kind, Limits, Record, Result};
use planted::Fault;
use wire::job::JobId;
use wire::subject::JobSubject;
use wire::{ConcernName, HostId};

use super::JobsOptions;
use super::errors::{failed, unreadable};
use super::records::QueueOf;
use crate::error::NatsError;
use crate::lattice::Lattice;
use crate::streams::{Consumer, MESSAGE_ID, NotStored, Outgoing, Pulls, Streams};

/// The stream's name.
pub(crate) const STREAM: &str = "WINDLASS_JOBS";
/// How often a message is sent that wasn't acknowledged. JetStream drops what it has had already.
const PUBLISH_TRIES: u32 = 6;
/// The pause before the second try, in milliseconds; each is twice the one before.
const PUBLISH_AGAIN_MS: u64 = 200;
/// Pulls that may wait at one consumer: hosts of the fleet.
const PULLS_WAITING_MAX: i64 = 4_096;

/// The stream.
#[derive(Debug)]
pub(super) struct Queue {
    streams: Arc<dyn Streams>,
    jobs_open_max: u64,
    lease: Duration,
}

/// What waits in the stream for a job.
pub(super) struct Waiting {
    pub(super) record: Record,
    pub(super) sequence: u64,
}

impl Queue {
    /// Makes the stream when it isn't there.
    pub(super) async fn make(lattice: &Lattice, options: &JobsOptions) -> std::result::Result<(), NatsError> {
        let limits = options.limits;
        let config = stream::Config {
            name: STREAM.into(),
            description: Some("windlass: jobs that are not ended".into()),
            subjects: vec![JobSubject::every()],
            retention: RetentionPolicy::WorkQueue,
            // a full queue refuses; it never forgets
            discard: DiscardPolicy::New,
            max_messages: i64::try_from(limits.jobs_open_max).unwrap_or(i64::MAX),
            storage: StorageType::File,
            duplicate_window: Duration::from_millis(options.duplicate_window_ms),
            ..stream::Config::default()
        };
        lattice.stream(config).await.map(|_it_is_there| ())
    }

    pub(super) fn over(streams: Arc<dyn Streams>, limits: &Limits) -> Self {
        Self {
            streams,
            jobs_open_max: limits.jobs_open_max,
            lease: Duration::from_millis(limits.lease_ms),
        }
    }

    fn subject(record: &Record) -> Result<JobSubject> {
        let job = &record.job;
        JobSubject::new(&job.concern, job.target.as_ref(), &job.id).map_err(|e| {
            JobsError::new(
                Kind::Invalid,
                format!("the job can't be queued: {e}; nothing was submitted"),
            )
        })
    }

    /// Queues a job; durable when this returns its place. Under a `name` JetStream drops a message that it has had within its
    /// window; that costs the servers something and saves a look in vain, so jobs that nobody asks for twice have none.
    pub(super) async fn publish(&self, record: &Record, name: Option<&str>) -> Result<u64> {
        let subject = Self::subject(record)?.to_string();
        let payload = serde_json::to_vec(record).map_err(|e| {
            JobsError::new(
                Kind::Invalid,
                format!("the job can't be encoded: {e}; nothing was submitted"),
            )
        })?;
        let message = Outgoing::new(subject, payload);
        let message = match name {
            Some(name) => message.with(MESSAGE_ID, format_args!("{}{name}", record.job.id)),
            None => message,
        };
        let mut pause_ms = PUBLISH_AGAIN_MS;
        let mut tries = 0;
        loop {
            tries += 1;
            let error = match self.streams.publish(&message).await {
                Ok(sequence) => return Ok(sequence),
                Err(e) => e,
            };
            match error {
                NotStored::Full(_) => return Err(self.is_full()),
                NotStored::Unclear(_) if planted::is(Fault::SubmitUnacknowledged) => return Ok(0),
                NotStored::Unclear(_) if tries < PUBLISH_TRIES => {
                    tracing::debug!(job = %record.job.id, %error, tries, "a job's message was not acknowledged yet");
                    tokio::time::sleep(Duration::from_millis(pause_ms)).await;
                    pause_ms *= 2;
                    // it may be there, and only its acknowledgement is lost
                    let found = self.find(&record.job.id).await;
                    if let Ok(Some(waiting)) = found
                        && waiting.record.retries == record.retries
                    {
                        return Ok(waiting.sequence);
                    }
                }
                _ => {
                    let what = format!(
                        "job {} was not acknowledged, and may be queued all the same",
                        record.job.id
                    );
                    return Err(failed(&what, error).hint("ask again with the same request id"));
                }
            }
        }
    }

    fn is_full(&self) -> JobsError {
        JobsError::new(
            Kind::Busy,
            format!("{} jobs are open, the most; nothing was submitted", self.jobs_open_max),
        )
        .hint("wait for some to end, or cancel them: windlass jobs ls")
    }

    /// The message of a job, the latest one if there are several.
    pub(super) async fn find(&self, id: &JobId) -> Result<Option<Waiting>> {
        let Ok(subject) = JobSubject::anywhere(id) else {
            return Ok(None);
        };
        match self.streams.last(STREAM, &subject).await {
            Ok(Some(message)) => Ok(Some(Waiting {
                record: decoded(id, &message.payload)?,
                sequence: message.sequence,
            })),
            Ok(None) => Ok(None),
            Err(e) => Err(failed(&format!("looking for job {id}"), e)),
        }
    }

    /// The ids of all jobs that have a message, and the queues that they wait in.
    pub(super) async fn ids(&self) -> Result<Vec<(JobId, QueueOf)>> {
        let listed = self.streams.subjects(STREAM, &JobSubject::every()).await;
        let subjects = listed.map_err(|e| failed("listing the queues", e))?;
        let parsed = subjects.iter().filter_map(|subject| JobSubject::parse(subject).ok());
        Ok(parsed.map(|subject| (subject.job(), subject.host().cloned())).collect())
    }

    pub(super) async fn count(&self) -> Result<u64> {
        let counted = self.streams.count(STREAM).await;
        counted.map_err(|e| failed("counting the queues", e))
    }

    /// The consumer of one queue; made when it isn't there.
    pub(super) async fn consumer(&self, concern: &ConcernName, host: Option<&HostId>) -> Result<Arc<dyn Pulls>> {
        let name = consumer_name(concern, host);
        let consumer = Consumer {
            name: name.clone(),
            filter: JobSubject::queue(concern, host),
            ack_wait: self.lease,
            pulls_max: PULLS_WAITING_MAX,
        };
        let made = self.streams.consumer(STREAM, consumer).await;
        made.map_err(|e| failed(&format!("the queue {name}"), e))
    }
}

/// What the consumer of a queue is called.
pub(crate) fn consumer_name(concern: &ConcernName, host: Option<&HostId>) -> String {
    match host {
        Some(host) => format!("{concern}-on-{host}"),
        None => format!("{concern}-on-any"),
    }
}

pub(super) fn decoded(id: &JobId, payload: &[u8]) -> Result<Record> {
    Record::decode(payload).map_err(|e| unreadable(&format!("job {id}"), e))
}
