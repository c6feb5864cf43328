//! What is wrong with a file or an environment: every fault at once, each with its place.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::file::{Entry, FileText, Raw, entries};
use crate::host::Surroundings;
use crate::key::{Key, key, keys, sections};
use crate::nearest::{nearest, nearest_key};
use crate::value::{self, Value};

/// Where a value stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// A line of a file, counted from 1.
    File {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
    },
    /// A variable of the environment.
    Env(String),
    /// A flag.
    Flag(String),
    /// A default that doesn't fit what else was said.
    Default,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Env(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Default => write!(f, "default"),
        }
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// A key that nobody reads: an error for `check-config`, a warning at boot.
    UnknownKey,
    /// A value that can't be used: an error always.
    Wrong,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Where.
    pub place: Place,
    /// How bad it is.
    pub severity: Severity,
    /// What, and what would be right.
    pub message: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// A value that passed.
pub(crate) struct Passed {
    pub(crate) key: &'static Key,
    pub(crate) value: Value,
    pub(crate) place: Place,
}

/// What is wrong with a file's text by itself. `[]` when nothing is.
pub fn check_text(file: &FileText) -> Vec<Finding> {
    read_text(file).1
}

/// What is wrong with the `WINDLASS_…` variables. `[]` when nothing is.
pub fn check_environment(surroundings: &Surroundings) -> Vec<Finding> {
    read_environment(surroundings).1
}

pub(crate) fn read_text(file: &FileText) -> (Vec<Passed>, Vec<Finding>) {
    let at = |line| Place::File {
        path: file.path.clone(),
        line,
    };
    let found = match entries(&file.text) {
        Ok(found) => found,
        Err(fault) => {
            let message = format!("not TOML: {}", fault.message);
            return (
                Vec::new(),
                vec![Finding {
                    place: at(fault.line),
                    severity: Severity::Wrong,
                    message,
                }],
            );
        }
    };
    let (mut passed, mut findings) = (Vec::new(), Vec::new());
    for entry in found {
        let place = at(entry.line);
        let Some(known) = key(&entry.path) else {
            findings.push(unknown(&entry, place));
            continue;
        };
        match from_raw(known, &entry.raw) {
            Ok(value) => passed.push(Passed {
                key: known,
                value,
                place,
            }),
            Err(message) => findings.push(Finding {
                place,
                severity: Severity::Wrong,
                message,
            }),
        }
    }
    (passed, findings)
}

fn from_raw(key: &Key, raw: &Raw) -> Result<Value, String> {
    let other = |what| {
        Err(format!(
            "{}: a TOML {what} won't do; wanted is {}",
            key.path,
            key.kind.wanted()
        ))
    };
    match raw {
        Raw::Text(text) => value::string(key, text),
        Raw::Integer(number) => value::from_integer(key, *number),
        Raw::Table => other("table"),
        Raw::Other(what) => other(what),
    }
}

fn unknown(entry: &Entry, place: Place) -> Finding {
    let is_section = sections().iter().any(|s| s.name == entry.path);
    let severity = if is_section {
        Severity::Wrong
    } else {
        Severity::UnknownKey
    };
    let message = if is_section {
        format!("'{0}' is a section: write [{0}]", entry.path)
    } else if entry.raw == Raw::Table {
        let names = || sections().iter().map(|s| s.name).filter(|n| !n.is_empty());
        let near = match nearest(&entry.path, names()) {
            Some(name) => format!("did you mean [{name}]?"),
            None => format!(
                "there are {}",
                names().map(|n| format!("[{n}]")).collect::<Vec<_>>().join(", ")
            ),
        };
        format!("unknown section [{}]; {near}", entry.path)
    } else {
        match nearest_key(&entry.path) {
            Some(near) => format!("unknown key '{}'; did you mean '{near}'?", entry.path),
            None => format!("unknown key '{}'; {}", entry.path, keys_beside(&entry.path)),
        }
    };
    Finding {
        place,
        severity,
        message,
    }
}

fn keys_beside(path: &str) -> String {
    let section = path.rsplit_once('.').map_or("", |(section, _)| section);
    let names: Vec<&str> = sections()
        .iter()
        .filter(|s| s.name == section)
        .flat_map(|s| s.keys)
        .map(Key::leaf)
        .collect();
    match section {
        "" => format!("the keys before the first section are {}", names.join(", ")),
        _ => format!("the keys of [{section}] are {}", names.join(", ")),
    }
}

/// Variables of windlass that are no configuration keys.
const OTHER_VARIABLES: &[&str] = &[
    "WINDLASS_CONFIG",
    "WINDLASS_GATEWAY",
    "WINDLASS_GATEWAY_TOKEN_FILE",
    "WINDLASS_REPO",
    "WINDLASS_NATS",
    "WINDLASS_JSON",
    "WINDLASS_YES",
    "WINDLASS_QUIET",
    "WINDLASS_GARAGE_DIR",
];
/// Variables of the tests.
const TEST_PREFIX: &str = "WINDLASS_TEST_";
/// Short names of keys that have a flag: `WINDLASS_REPO` goes with `--repo`.
const SHORT: [(&str, &str); 2] = [("WINDLASS_REPO", "repo.url"), ("WINDLASS_NATS", "nats.servers")];

pub(crate) fn read_environment(surroundings: &Surroundings) -> (Vec<Passed>, Vec<Finding>) {
    let (mut passed, mut findings) = (Vec::new(), Vec::new());
    for known in keys() {
        let short = SHORT.iter().find(|(_, path)| *path == known.path);
        let name = short
            .map(|(name, _)| (*name).to_owned())
            .filter(|n| surroundings.var(n).is_some())
            .unwrap_or_else(|| known.env_name());
        let Some(text) = surroundings.var(&name) else { continue };
        let place = Place::Env(name.clone());
        match value::from_text(known, text, &surroundings.working_dir) {
            Ok(value) => passed.push(Passed {
                key: known,
                value,
                place,
            }),
            Err(message) => findings.push(Finding {
                place,
                severity: Severity::Wrong,
                message,
            }),
        }
    }
    for name in surroundings.env.keys().filter(|n| n.starts_with("WINDLASS_")) {
        let is_key = keys().any(|k| k.env_name() == *name);
        if is_key || OTHER_VARIABLES.contains(&name.as_str()) || name.starts_with(TEST_PREFIX) {
            continue;
        }
        let path = name["WINDLASS_".len()..].to_lowercase().replace("__", ".");
        let near = nearest_key(&path).and_then(key).map(Key::env_name);
        let hint = near.map(|n| format!("; did you mean {n}?")).unwrap_or_default();
        let message = format!("unknown variable{hint}");
        findings.push(Finding {
            place: Place::Env(name.clone()),
            severity: Severity::UnknownKey,
            message,
        });
    }
    (passed, findings)
}

pub(crate) fn read_flags(
    flags: &[(&'static str, &'static str, String)],
    working_dir: &Path,
) -> (Vec<Passed>, Vec<Finding>) {
    let (mut passed, mut findings) = (Vec::new(), Vec::new());
    for (name, path, text) in flags {
        let place = Place::Flag((*name).to_owned());
        let known = key(path).expect("flags name keys of the table");
        match value::from_text(known, text, working_dir) {
            Ok(value) => passed.push(Passed {
                key: known,
                value,
                place,
            }),
            Err(message) => findings.push(Finding {
                place,
                severity: Severity::Wrong,
                message,
            }),
        }
    }
    (passed, findings)
}
