//! `[echo]`: the example of CONTRIBUTING.md.

use serde::{Deserialize, Serialize};

use crate::key::{Key, KeyType, Preset, Reload, Section};

/// The example.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// How often a job says a text.
    pub times: u64,
}

pub(crate) static SECTION: Section = Section {
    name: "echo",
    about: "Says back what it is told.",
    reload: Reload::All,
    keys: &[Key {
        path: "echo.times",
        kind: KeyType::Integer { min: 1, max: 1000 },
        preset: Preset::Integer(3),
        about: "How often a job says a text.",
    }],
};
