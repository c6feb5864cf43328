//! `[log]`: what is logged, and how.

use serde::{Deserialize, Serialize};

use crate::key::{Key, KeyType, Preset, Reload, Section};

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// Filter directives.
    pub level: String,
    /// For people or for machines.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

pub(crate) static SECTION: Section = Section {
    name: "log",
    about: "Logs go to standard error.",
    reload: Reload::Only(&["level"]),
    keys: &[
        Key {
            path: "log.level",
            kind: KeyType::LogFilter,
            preset: Preset::Text("info"),
            about: "What is logged by `windlass serve`: a level, or a list such as \"info,windlass_repo=debug\". One-shot verbs log warnings only, unless this is set.",
        },
        Key {
            path: "log.format",
            kind: KeyType::Choice(&["text", "json"]),
            preset: Preset::Text("text"),
            about: "Lines for people (text) or one JSON object a line (json).",
        },
    ],
};
