//! What a running daemon takes up when its configuration is read again, and what needs a restart.

use crate::error::ConfigError;
use crate::key::{Reload, sections};
use crate::load::{Loaded, Origin, assemble};
use crate::value::Value;

/// True when a running daemon takes a new value of this key up.
pub fn is_taken_up(path: &str) -> bool {
    sections().iter().any(|section| {
        let key = section.keys.iter().find(|key| key.path == path);
        key.is_some_and(|key| match section.reload {
            Reload::All => true,
            Reload::Only(leaves) => leaves.contains(&key.leaf()),
            Reload::None => false,
        })
    })
}

/// A key whose value is another one now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Dotted path.
    pub key: &'static str,
    /// What is in force until now.
    pub from: Value,
    /// What was said.
    pub to: Value,
    /// Who said it.
    pub origin: Origin,
    /// False when it needs a restart: the old value stays in force.
    pub taken_up: bool,
}

/// What follows from reading the configuration again.
#[derive(Debug, Clone)]
pub struct Reloaded {
    /// From now on.
    pub in_force: Loaded,
    /// In the order of the reference file.
    pub changes: Vec<Change>,
}

impl Loaded {
    /// What is in force when `fresh` was read while this is: new values of the keys that can be taken up, old ones of the rest.
    ///
    /// # Errors
    /// [`crate::Kind::Invalid`] when new and old values don't go together; this stays in force then.
    pub fn reload(&self, fresh: &Loaded) -> Result<Reloaded, ConfigError> {
        let mut origins = self.origins.clone();
        let mut changes = Vec::new();
        for key in crate::keys() {
            let (Some((from, _)), Some((to, origin))) = (self.origins.get(key.path), fresh.origins.get(key.path))
            else {
                continue;
            };
            let taken_up = is_taken_up(key.path);
            if taken_up {
                origins.insert(key.path, (to.clone(), origin.clone()));
            }
            if from != to {
                changes.push(Change {
                    key: key.path,
                    from: from.clone(),
                    to: to.clone(),
                    origin: origin.clone(),
                    taken_up,
                });
            }
        }
        Ok(Reloaded {
            in_force: assemble(origins, fresh.warnings.clone())?,
            changes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FileText, Flags, Surroundings, load};

    fn loaded(text: &str) -> Loaded {
        let file = FileText {
            path: "/etc/windlass/windlass.toml".into(),
            text: text.into(),
        };
        load(Some(&file), &Surroundings::default(), &Flags::default()).unwrap()
    }

    #[test]
    fn every_key_that_is_taken_up_is_a_key() {
        for section in sections() {
            let Reload::Only(leaves) = section.reload else { continue };
            for leaf in leaves {
                let path = format!("{}.{leaf}", section.name);
                assert!(crate::key(&path).is_some() && is_taken_up(&path), "{path}");
            }
        }
        assert!(is_taken_up("snapshot.threads") && !is_taken_up("bus.mode") && !is_taken_up("host_id"));
    }

    #[test]
    fn new_values_are_in_force_where_they_can_be_and_named_where_not() {
        let old = loaded("[log]\nlevel = \"info\"\n[host]\nbeat_ms = 700\n");
        let new = loaded("[log]\nlevel = \"debug\"\n[host]\nbeat_ms = 800\n[snapshot]\ncommon_held_days = 9\n");
        let reloaded = old.reload(&new).unwrap();
        let told: Vec<_> = reloaded
            .changes
            .iter()
            .map(|c| (c.key, c.from.to_string(), c.to.to_string(), c.taken_up))
            .collect();
        let text = |t: &str| Value::Text(t.into()).to_string();
        assert_eq!(
            told,
            [
                ("host.beat_ms", "700".into(), "800".into(), false),
                ("log.level", text("info"), text("debug"), true),
                ("snapshot.common_held_days", "7".into(), "9".into(), true),
            ]
        );
        let config = &reloaded.in_force.config;
        assert_eq!(
            (
                config.host.beat_ms,
                config.log.level.as_str(),
                config.snapshot.common_held_days
            ),
            (700, "debug", 9)
        );
        // what was taken up is no change the next time; what wasn't is told again
        let again = reloaded.in_force.reload(&new).unwrap();
        assert_eq!(again.changes.len(), 1);
        // and back to the defaults
        let back = reloaded.in_force.reload(&loaded("")).unwrap();
        assert_eq!(back.in_force.config.snapshot.common_held_days, 7);
        assert_eq!(
            back.in_force.origin("snapshot.common_held_days"),
            Some(&Origin::Default)
        );
    }
}
