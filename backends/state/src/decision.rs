//! Changes of several keys that happen together or not at all, on a [`State`] that changes one key at a time.
//!
//! ```text
//! 1. decision/<id>   created: open, its end, its keys
//! 2. each key        its settled value, and beside it the wanted one, tentative on decision <id>   (compare-and-set)
//! 3. decision/<id>   open -> committed      <- this one compare-and-set is the change; before it nothing has happened
//! 4. each key        the wanted value, settled; then decision/<id> goes
//! ```
//!
//! Whoever meets a tentative key looks at its decision. Committed: the wanted value counts. Open and in time: the settled one
//! counts, and nobody else may change the key. Open and over: the decision is made `aborted` first, by compare-and-set, so that
//! its maker can't commit any more; then the settled value counts. Gone: it was aborted, for a committed one goes after its last
//! key was settled. So a maker that dies anywhere leaves keys that others can go on with when its time is over, and clocks
//! that differ cost time and nothing else.
//!
//! Keys that are changed in this way are read and written in this way alone: their stored form is this module's.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::{Entry, Key, Kind, LIST_ENTRIES_MAX, NowMs, Prefix, Result, State, StateError, VALUE_BYTES_MAX};

/// Most keys of one decision.
pub const DECISION_KEYS_MAX: usize = 128;
/// Longest value of a key, in bytes: the settled and the wanted one stand side by side for a while.
pub const DECIDED_BYTES_MAX: usize = VALUE_BYTES_MAX / 2 - 1_024;
/// Where decisions stand.
const DECISIONS: &str = "decision";
const SETTLED: u8 = 0;
const TENTATIVE: u8 = 1;

/// One key of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The key.
    pub key: Key,
    /// The revision that [`Decisions::read`] gave; 0 where there was nothing.
    pub revision: u64,
    /// What it shall be; `None`: nothing.
    pub value: Option<Bytes>,
}

/// What counts now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The value; `None` where there is nothing (or a first value that isn't decided yet).
    pub value: Option<Bytes>,
    /// To be named in a [`Wish`]; 0 where there is nothing.
    pub revision: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Open,
    Committed,
    Aborted,
}

/// What stands at `decision/<id>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    verdict: Verdict,
    expires_at_ms: u64,
    keys: Vec<String>,
}

/// A stored key.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stored {
    Settled(Bytes),
    Tentative {
        decision: String,
        settled: Option<Bytes>,
        wanted: Option<Bytes>,
    },
}

#[derive(Serialize, Deserialize)]
struct Head {
    decision: String,
    settled_bytes: Option<usize>,
    wanted_bytes: Option<usize>,
}

/// Decides on a state.
#[derive(Clone)]
pub struct Decisions {
    state: Arc<dyn State>,
    now_ms: NowMs,
}

/// What a tentative key comes to.
enum Outcome {
    Wanted,
    Former,
    Pending { ms: u64 },
}

impl Decisions {
    /// On this state, by this time.
    pub fn new(state: Arc<dyn State>, now_ms: NowMs) -> Self {
        Self { state, now_ms }
    }

    /// What counts at a key now.
    ///
    /// # Errors
    /// As the state's; `Corrupt` for a key that wasn't written by this module.
    pub async fn read(&self, key: &Key) -> Result<Settled> {
        loop {
            let Some(entry) = self.state.get(key).await? else {
                return Ok(Settled {
                    value: None,
                    revision: 0,
                });
            };
            let (decision, settled) = match decoded(&entry)? {
                Stored::Settled(value) => {
                    return Ok(Settled {
                        value: Some(value),
                        revision: entry.revision,
                    });
                }
                Stored::Tentative { decision, settled, .. } => (decision, settled),
            };
            if let Outcome::Pending { .. } = self.outcome(&decision).await? {
                return Ok(Settled {
                    value: settled,
                    revision: entry.revision,
                });
            }
            self.settle(key).await?;
        }
    }

    /// Changes all keys or none. `id` is made anew for each change; the change has to be decided within `ttl_ms`.
    ///
    /// # Errors
    /// `Conflict` when a key has another revision, is in the hands of another decision, or the time was over before the end;
    /// nothing was changed then. `Invalid` for too many keys, one key twice, or a large value. After `Unavailable` the
    /// change may have been made: who must know reads.
    pub async fn change(&self, id: &str, wishes: &[Wish], ttl_ms: u64) -> Result<()> {
        check(wishes)?;
        let place = place(id)?;
        let record = Record {
            verdict: Verdict::Open,
            expires_at_ms: (self.now_ms)().saturating_add(ttl_ms),
            keys: wishes.iter().map(|w| w.key.to_string()).collect(),
        };
        let opened = self.state.create(&place, encoded_record(&record)?).await?;
        let prepared = async {
            for wish in wishes {
                self.prepare(id, wish).await?;
            }
            Ok(())
        };
        if let Err(why) = prepared.await {
            // what can't be undone now is undone by who meets it later
            let _later = self.abandon(&place, &record, opened).await;
            return Err(why);
        }
        let committed = Record {
            verdict: Verdict::Committed,
            ..record.clone()
        };
        match self.state.update(&place, encoded_record(&committed)?, opened).await {
            Ok(_) => {}
            Err(e) if matches!(e.kind, Kind::Conflict | Kind::NotFound) => {
                let why = format!("decision {id} was not made within its {ttl_ms} ms; nothing was changed");
                return Err(StateError::new(Kind::Conflict, why).caused_by(e));
            }
            Err(e) => return Err(e),
        }
        // decided: from here on a fault costs time alone
        let _later = self.finish(&place, &committed).await;
        Ok(())
    }

    /// Goes on with decisions whose maker died; returns how many. To be called now and then.
    ///
    /// # Errors
    /// As the state's.
    pub async fn sweep(&self) -> Result<usize> {
        let below = Prefix::below(&Key::new(DECISIONS)?);
        let (mut swept, mut after) = (0, None);
        loop {
            let page = self.state.list(&below, after.as_ref(), LIST_ENTRIES_MAX).await?;
            for entry in &page {
                let id = entry.key.as_str().trim_start_matches("decision/");
                if let Outcome::Pending { .. } = self.outcome(id).await? {
                    continue;
                }
                self.finish(&entry.key, &decoded_record(entry)?).await?;
                swept += 1;
            }
            after = page.last().map(|entry| entry.key.clone());
            if page.len() < LIST_ENTRIES_MAX {
                return Ok(swept);
            }
        }
    }

    /// Puts the wanted value beside the settled one.
    async fn prepare(&self, id: &str, wish: &Wish) -> Result<()> {
        let key = &wish.key;
        let moved = |now: u64| {
            let why = format!(
                "key {key} has revision {now} and not {}; nothing was changed",
                wish.revision
            );
            StateError::new(Kind::Conflict, why)
        };
        let settled = match self.state.get(key).await? {
            None if wish.revision == 0 => None,
            None => return Err(moved(0)),
            Some(entry) if entry.revision != wish.revision => return Err(moved(entry.revision)),
            Some(entry) => match decoded(&entry)? {
                Stored::Settled(value) => Some(value),
                Stored::Tentative { decision, .. } => return Err(self.taken(key, &decision).await?),
            },
        };
        let tentative = Stored::Tentative {
            decision: id.to_owned(),
            settled,
            wanted: wish.value.clone(),
        };
        let bytes = encoded(&tentative)?;
        match wish.revision {
            0 => self.state.create(key, bytes).await,
            revision => self.state.update(key, bytes, revision).await,
        }
        .map(|_revision| ())
    }

    async fn taken(&self, key: &Key, decision: &str) -> Result<StateError> {
        let left = match self.outcome(decision).await? {
            Outcome::Pending { ms } => format!("for {ms} ms more"),
            Outcome::Wanted | Outcome::Former => "and is being settled".to_owned(),
        };
        let why = format!("key {key} is in the hands of decision {decision} {left}; nothing was changed");
        Ok(StateError::new(Kind::Conflict, why))
    }

    /// What a decision comes to; one whose time is over is aborted here.
    async fn outcome(&self, id: &str) -> Result<Outcome> {
        let place = place(id)?;
        loop {
            let Some(entry) = self.state.get(&place).await? else {
                return Ok(Outcome::Former);
            };
            let record = decoded_record(&entry)?;
            match record.verdict {
                Verdict::Committed => return Ok(Outcome::Wanted),
                Verdict::Aborted => return Ok(Outcome::Former),
                Verdict::Open => {}
            }
            let left_ms = record.expires_at_ms.saturating_sub((self.now_ms)());
            if left_ms > 0 {
                return Ok(Outcome::Pending { ms: left_ms });
            }
            let aborted = Record {
                verdict: Verdict::Aborted,
                ..record
            };
            match self
                .state
                .update(&place, encoded_record(&aborted)?, entry.revision)
                .await
            {
                Ok(_) => return Ok(Outcome::Former),
                // its maker or another reader was quicker: look again
                Err(e) if matches!(e.kind, Kind::Conflict | Kind::NotFound) => {}
                Err(e) => return Err(e),
            }
        }
    }

    async fn abandon(&self, place: &Key, record: &Record, opened: u64) -> Result<()> {
        let aborted = Record {
            verdict: Verdict::Aborted,
            ..record.clone()
        };
        self.state.update(place, encoded_record(&aborted)?, opened).await?;
        self.finish(place, &aborted).await
    }

    /// Settles every key of a decision that is made, then forgets it.
    async fn finish(&self, place: &Key, record: &Record) -> Result<()> {
        for key in &record.keys {
            self.settle(&Key::new(key.clone())?).await?;
        }
        match self.state.delete(place, None).await {
            Err(e) if e.kind != Kind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Makes a tentative key what its decision says; leaves one that is pending.
    async fn settle(&self, key: &Key) -> Result<()> {
        loop {
            let Some(entry) = self.state.get(key).await? else {
                return Ok(());
            };
            let Stored::Tentative {
                decision,
                settled,
                wanted,
            } = decoded(&entry)?
            else {
                return Ok(());
            };
            let value = match self.outcome(&decision).await? {
                Outcome::Wanted => wanted,
                Outcome::Former => settled,
                Outcome::Pending { .. } => return Ok(()),
            };
            let done = match value {
                Some(value) => {
                    self.state
                        .update(key, encoded(&Stored::Settled(value))?, entry.revision)
                        .await
                }
                None => self.state.delete(key, Some(entry.revision)).await,
            };
            match done {
                // somebody else settled it, or took it up again
                Err(e) if matches!(e.kind, Kind::Conflict | Kind::NotFound) => {}
                Err(e) => return Err(e),
                Ok(_) => return Ok(()),
            }
        }
    }
}

fn check(wishes: &[Wish]) -> Result<()> {
    let invalid = |why: String| Err(StateError::new(Kind::Invalid, format!("{why}; nothing was changed")));
    if wishes.is_empty() || wishes.len() > DECISION_KEYS_MAX {
        return invalid(format!(
            "a decision has 1 to {DECISION_KEYS_MAX} keys, not {}",
            wishes.len()
        ));
    }
    let mut seen = BTreeSet::new();
    for wish in wishes {
        if !seen.insert(&wish.key) {
            return invalid(format!("key {} stands twice in one decision", wish.key));
        }
        let bytes = wish.value.as_ref().map_or(0, Bytes::len);
        if bytes > DECIDED_BYTES_MAX {
            return invalid(format!(
                "the value of key {} has {bytes} bytes; at most {DECIDED_BYTES_MAX} are decided on",
                wish.key
            ));
        }
    }
    Ok(())
}

fn place(id: &str) -> Result<Key> {
    Key::new(format!("{DECISIONS}/{id}"))
}

fn encoded_record(record: &Record) -> Result<Bytes> {
    let unwritable = |e| {
        StateError::new(
            Kind::Invalid,
            format!("a decision can't be written: {e}; nothing was changed"),
        )
    };
    serde_json::to_vec(record).map(Bytes::from).map_err(unwritable)
}

fn decoded_record(entry: &Entry) -> Result<Record> {
    serde_json::from_slice(&entry.value).map_err(|e| corrupt(&entry.key, &e.to_string()))
}

fn corrupt(key: &Key, why: &str) -> StateError {
    StateError::new(
        Kind::Corrupt,
        format!("key {key} can't be read as a decided one: {why}; it was left unchanged"),
    )
}

/// A byte that tells which, then the value; or a line of JSON and the two values.
fn encoded(stored: &Stored) -> Result<Bytes> {
    let mut bytes = BytesMut::new();
    match stored {
        Stored::Settled(value) => {
            bytes.put_u8(SETTLED);
            bytes.put_slice(value);
        }
        Stored::Tentative {
            decision,
            settled,
            wanted,
        } => {
            let head = Head {
                decision: decision.clone(),
                settled_bytes: settled.as_ref().map(Bytes::len),
                wanted_bytes: wanted.as_ref().map(Bytes::len),
            };
            let head = serde_json::to_vec(&head).map_err(|e| {
                StateError::new(
                    Kind::Invalid,
                    format!("a tentative key can't be written: {e}; nothing was changed"),
                )
            })?;
            bytes.put_u8(TENTATIVE);
            bytes.put_slice(&head);
            bytes.put_u8(b'\n');
            bytes.put_slice(settled.as_deref().unwrap_or_default());
            bytes.put_slice(wanted.as_deref().unwrap_or_default());
        }
    }
    Ok(bytes.freeze())
}

fn decoded(entry: &Entry) -> Result<Stored> {
    let value = &entry.value;
    match value.first() {
        Some(&SETTLED) => return Ok(Stored::Settled(value.slice(1..))),
        Some(&TENTATIVE) => {}
        _ => return Err(corrupt(&entry.key, "it has another form")),
    }
    let line = value
        .iter()
        .position(|b| *b == b'\n')
        .ok_or_else(|| corrupt(&entry.key, "it has no end of line"))?;
    let head: Head = serde_json::from_slice(&value[1..line]).map_err(|e| corrupt(&entry.key, &e.to_string()))?;
    let (settled, wanted) = (head.settled_bytes.unwrap_or(0), head.wanted_bytes.unwrap_or(0));
    let rest = value.slice(line + 1..);
    if settled.checked_add(wanted) != Some(rest.len()) {
        return Err(corrupt(&entry.key, "its lengths are wrong"));
    }
    Ok(Stored::Tentative {
        decision: head.decision,
        settled: head.settled_bytes.map(|n| rest.slice(..n)),
        wanted: head.wanted_bytes.map(|n| rest.slice(settled..settled + n)),
    })
}

#[cfg(test)]
mod tests;
