//! `[runtime]`: actors and jobs.

use serde::{Deserialize, Serialize};

use crate::key::{Key, KeyType, Preset, Reload, Section};

/// Actors and jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runtime {
    /// Messages that may wait for a concern.
    pub mailbox_messages_max: u64,
    /// How long a drain may take, in seconds.
    pub drain_timeout_s: u64,
    /// Deaths within the window that a concern may have.
    pub restart_deaths_max: u64,
    /// The window, in seconds.
    pub restart_window_s: u64,
    /// How long request ids are remembered, in hours.
    pub idempotency_keep_h: u64,
    /// Finished jobs that are kept.
    pub jobs_kept_max: u64,
    /// Jobs that may be open: waiting, running or interrupted.
    pub jobs_open_max: u64,
    /// How long a job's worker may be silent, in seconds.
    pub job_lease_s: u64,
    /// Deliveries of a job to workers that die, before it is set aside.
    pub job_deliveries_max: u64,
}

pub(crate) static SECTION: Section = Section {
    name: "runtime",
    about: "Actors and jobs.",
    reload: Reload::Only(&[
        "mailbox_messages_max",
        "drain_timeout_s",
        "restart_deaths_max",
        "restart_window_s",
        "idempotency_keep_h",
        "jobs_kept_max",
        "jobs_open_max",
        "job_deliveries_max",
    ]),
    keys: &[
        Key {
            path: "runtime.mailbox_messages_max",
            kind: KeyType::Integer { min: 1, max: 1_000_000 },
            preset: Preset::Integer(1000),
            about: "Messages that may wait for a concern; more are answered `busy`.",
        },
        Key {
            path: "runtime.drain_timeout_s",
            kind: KeyType::Integer { min: 0, max: 3600 },
            preset: Preset::Integer(30),
            about: "How long a stopping daemon waits for work in hand; what is left is taken up at the next start.",
        },
        Key {
            path: "runtime.restart_deaths_max",
            kind: KeyType::Integer { min: 0, max: 1000 },
            preset: Preset::Integer(5),
            about: "Deaths that a concern may have within restart_window_s before it is marked failed.",
        },
        Key {
            path: "runtime.restart_window_s",
            kind: KeyType::Integer { min: 1, max: 86_400 },
            preset: Preset::Integer(60),
            about: "The window in which deaths count.",
        },
        Key {
            path: "runtime.idempotency_keep_h",
            kind: KeyType::Integer { min: 1, max: 8760 },
            preset: Preset::Integer(24),
            about: "How long a request id is remembered: within it the same request has one effect.",
        },
        Key {
            path: "runtime.jobs_kept_max",
            kind: KeyType::Integer { min: 1, max: 100_000 },
            preset: Preset::Integer(1000),
            about: "Finished jobs that are kept for `windlass jobs`; the oldest go first.",
        },
        Key {
            path: "runtime.jobs_open_max",
            kind: KeyType::Integer { min: 1, max: 100_000 },
            preset: Preset::Integer(1000),
            about: "Jobs that may wait or run; more are answered `busy`.",
        },
        Key {
            path: "runtime.job_lease_s",
            kind: KeyType::Integer { min: 2, max: 3600 },
            preset: Preset::Integer(30),
            about: "How long a job's worker may be silent before the job is given to another; workers speak three times in it.",
        },
        Key {
            path: "runtime.job_deliveries_max",
            kind: KeyType::Integer { min: 1, max: 1000 },
            preset: Preset::Integer(5),
            about: "How often a job is given to workers that die or fall silent; then it is set aside: `windlass jobs dead`.",
        },
    ],
};
