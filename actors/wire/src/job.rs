//! Long work as its followers see it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::catalog::Room;
use crate::messages::{SAMPLE_ID, request, topic};
use crate::{ErrorBody, HostId};

const CONCERN: &str = "jobs";

pub(crate) fn room() -> Room {
    Room::default()
        .request::<JobList>()
        .request::<JobShow>()
        .request::<JobCancel>()
        .request::<JobRetry>()
        .request::<JobCancelOwn>()
        .request::<JobRetryOwn>()
        .topic::<JobChanged>()
}

/// A job's id: a ULID in its 26 characters, so that ids sort by time.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct JobId(pub String);

impl std::fmt::Display for JobId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a job is in its life. `queued -> running -> done | failed | cancelled`; a crash turns `running` into
/// `interrupted`, from where it is resumed (`running`) or ends. A job whose workers died too often is `dead`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Durable, waiting for a worker.
    Queued,
    /// A worker has it.
    Running,
    /// Its worker died; it can be resumed.
    Interrupted,
    /// Finished; `result` is set.
    Done,
    /// Ended with `error`.
    Failed,
    /// Ended because someone asked for it.
    Cancelled,
    /// Set aside: it was delivered as often as the limit allows, and each time its worker died or fell silent.
    Dead,
}

impl JobState {
    /// True when nobody works on it and nobody will, unless a person asks for it again (`jobs.retry`).
    pub fn is_final(self) -> bool {
        matches!(
            self,
            JobState::Done | JobState::Failed | JobState::Cancelled | JobState::Dead
        )
    }
    /// The state as it stands on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            JobState::Queued => "queued",
            JobState::Running => "running",
            JobState::Interrupted => "interrupted",
            JobState::Done => "done",
            JobState::Failed => "failed",
            JobState::Cancelled => "cancelled",
            JobState::Dead => "dead",
        }
    }
}

/// How far a job is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Progress {
    /// What the job is doing now, such as `reading` or `fetching`.
    pub phase: String,
    /// How much of `total` is done, in `unit`.
    pub done: u64,
    /// How much there is; 0 when not known yet.
    pub total: u64,
    /// `bytes`, `objects`, …
    pub unit: String,
    /// Units a second since the phase began.
    pub rate_per_s: f64,
    /// Seconds left at that rate; `None` when not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_s: Option<f64>,
}

/// A job, whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// The concern that does it.
    pub concern: String,
    /// The verb that asked for it.
    pub kind: String,
    /// The idempotency key that it was submitted with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// `traceparent` of the request that asked for it: every attempt at it belongs to that trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The one host that may do it; any host that serves the concern when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<HostId>,
    /// The host that has it, or had it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostId>,
    /// Where it is in its life.
    pub state: JobState,
    /// Someone asked for its end; it ends at its next safe point.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancel_asked: bool,
    /// How far it is.
    pub progress: Progress,
    /// How often a worker took it up.
    pub attempts: u32,
    /// How many of these count towards the limit, beyond which it is `dead`: not those that ended in good order, and none
    /// before a retry.
    #[serde(default)]
    pub deliveries: u32,
    /// When it was accepted, RFC 3339.
    pub submitted_at: String,
    /// When it last changed, RFC 3339.
    pub updated_at: String,
    /// The request, as it was submitted.
    pub request: serde_json::Value,
    /// With `done`: the reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<serde_json::Value>,
    /// With `failed`, `cancelled`, `dead` or `interrupted`: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorBody>,
}

/// Reply of every verb that starts a job: it is durable when this is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobAccepted {
    /// Follow this id.
    pub job: JobId,
    /// True when the request id had been seen before and names that job.
    pub duplicate: bool,
}

/// Asks for a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobShow {
    /// Which.
    pub job: JobId,
}

request!(
    JobShow,
    Job,
    "show",
    Cluster,
    Reads,
    "One job, whole",
    Viewer,
    Self {
        job: JobId(SAMPLE_ID.into()),
    },
    Job::sample()
);

/// Asks for jobs, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobList {
    /// At most this many; 0 means the default of 100. At most 1,000.
    #[serde(default)]
    pub count_max: u32,
    /// Only those in this state; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<JobState>,
}

/// Jobs, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobListing {
    /// The jobs.
    pub jobs: Vec<Job>,
}

request!(
    JobList,
    JobListing,
    "ls",
    Cluster,
    Reads,
    "Jobs, newest first: of this host when it stands alone, else of all hosts",
    Viewer,
    Self {
        count_max: 100,
        state: Some(JobState::Dead),
    },
    JobListing {
        jobs: vec![Job::sample()],
    }
);

/// Asks for the end of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobCancel {
    /// Which.
    pub job: JobId,
}

request!(
    JobCancel,
    Job,
    "cancel",
    Cluster,
    Changes,
    "Stop a job at its next safe point",
    Operator,
    Self {
        job: JobId(SAMPLE_ID.into()),
    },
    Job::sample()
);

/// Asks for a job once more that ended without being done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobRetry {
    /// Which: `dead`, `failed` or `cancelled`.
    pub job: JobId,
}

request!(
    JobRetry,
    Job,
    "retry",
    Cluster,
    Changes,
    "Queue a job again that is dead, failed or cancelled",
    Operator,
    Self {
        job: JobId(SAMPLE_ID.into()),
    },
    Job {
        state: JobState::Queued,
        deliveries: 0,
        progress: Progress::default(),
        ..Job::sample()
    }
);

/// A host asks another one: end a job that is yours. Only a host writes to what is said of its own jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobCancelOwn {
    /// Which.
    pub job: JobId,
}

request!(
    JobCancelOwn,
    Job,
    "cancel_own",
    Host,
    Changes,
    "Stop a job of this host at its next safe point; `cancel` asks this of the job's host",
    Host,
    Self {
        job: JobId(SAMPLE_ID.into()),
    },
    Job::sample()
);

/// A host asks another one: queue a job again that is yours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobRetryOwn {
    /// Which: `dead`, `failed` or `cancelled`.
    pub job: JobId,
}

request!(
    JobRetryOwn,
    Job,
    "retry_own",
    Host,
    Changes,
    "Queue a job of this host again; `retry` asks this of the job's host",
    Host,
    Self {
        job: JobId(SAMPLE_ID.into()),
    },
    Job {
        state: JobState::Queued,
        deliveries: 0,
        progress: Progress::default(),
        ..Job::sample()
    }
);

/// Event: a job changed. Published at each change of state and, at most a few times a second, at progress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct JobChanged(pub Job);

topic!(
    JobChanged,
    "changed",
    "A job changed its state or moved on",
    Self(Job::sample())
);

impl Job {
    /// A job for documents and golden tests.
    pub fn sample() -> Self {
        Self {
            id: JobId(SAMPLE_ID.into()),
            concern: "snapshot".into(),
            kind: "create".into(),
            request_id: Some("nightly-web1-2026-11-24".into()),
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
            target: HostId::new("h1").ok(),
            host: HostId::new("h1").ok(),
            state: JobState::Running,
            cancel_asked: false,
            progress: Progress {
                phase: "reading".into(),
                done: 1 << 20,
                total: 1 << 31,
                unit: "bytes".into(),
                rate_per_s: 1_500_000_000.0,
                eta_s: Some(1.4),
            },
            attempts: 1,
            deliveries: 1,
            submitted_at: "2026-11-24T03:00:00Z".into(),
            updated_at: "2026-11-24T03:00:01Z".into(),
            request: serde_json::json!({"vm": "web1", "disks": [{"path": "/srv/web1.raw"}]}),
            result: None,
            error: None,
        }
    }
}
