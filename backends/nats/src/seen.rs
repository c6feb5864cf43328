//! What the servers kept when this host looked last, so that a store that was lost shows.
//!
//! A stream that was made anew has another time of making; one that lost its end (a lone server without `sync_interval:
//! always`, after a power cut) has the same, and ends earlier than it did.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::NatsError;
use crate::lattice::Lattice;
use crate::tail::state_of;

/// What each stream was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen(BTreeMap<String, Mark>);

/// One stream as it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// When it was made, Unix nanoseconds.
    created_ns: i64,
    /// Its last sequence.
    last: u64,
}

/// A stream that isn't what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Its name.
    pub stream: String,
    /// What is gone, for people.
    pub what: String,
}

impl Lattice {
    /// Makes the streams of this process again where they are missing, and compares all of them with `before`.
    ///
    /// # Errors
    /// `Unavailable` when the servers don't answer.
    pub async fn compare(&self, before: &Seen) -> Result<(Seen, Vec<Loss>), NatsError> {
        let (mut now, mut losses) = (Seen::default(), Vec::new());
        for name in self.restore_streams().await? {
            let (created_ns, _, last) = state_of(self, &name).await?;
            if let Some(mark) = before.0.get(&name)
                && let Some(what) = lost(mark, created_ns, last)
            {
                losses.push(Loss {
                    stream: name.clone(),
                    what: format!("stream {name} of the NATS servers {what}"),
                });
            }
            now.0.insert(name, Mark { created_ns, last });
        }
        Ok((now, losses))
    }
}

fn lost(before: &Mark, created_ns: i64, last: u64) -> Option<String> {
    if before.created_ns != created_ns {
        return Some(format!(
            "was made anew: what it held up to sequence {} is gone. Was a server's store removed or replaced?",
            before.last
        ));
    }
    (last < before.last).then(|| {
        format!(
            "ends at sequence {last} and ended at {}: what was acknowledged in between is gone. A lone server needs \
             sync_interval: always",
            before.last
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_stream_and_a_shorter_one_are_losses() {
        let before = Mark {
            created_ns: 5,
            last: 10,
        };
        assert_eq!(lost(&before, 5, 10), None);
        assert_eq!(lost(&before, 5, 11), None);
        assert!(lost(&before, 6, 99).unwrap().contains("made anew"));
        assert!(lost(&before, 5, 9).unwrap().contains("ends at sequence 9"));
    }
}
