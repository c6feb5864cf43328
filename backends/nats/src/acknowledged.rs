//! Writes that the servers acknowledge: the one way in which anything is put into a stream.
//!
//! A write has an id of its own. When no acknowledgement comes (a leader was killed, an answer was lost) it is sent again under
//! the same id, and JetStream's window of ids keeps it from being stored twice.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use crate::replies::NoAnswer;
use crate::streams::{MESSAGE_ID, Outgoing, Streams};

/// How many times the time of one acknowledgement a write may take in all.
const PATIENCE: u32 = 3;
/// The wait before a write is sent again that nobody was there to take.
const AGAIN: Duration = Duration::from_millis(150);

/// What JetStream answers.
#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    error: Option<Refusal>,
}

/// Why JetStream kept nothing.
#[derive(Debug, Deserialize)]
pub(crate) struct Refusal {
    /// NATS's number of the error.
    #[serde(default)]
    pub(crate) err_code: u64,
    /// And its words.
    #[serde(default)]
    pub(crate) description: String,
}

/// Why a write is not known to be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotKept {
    /// It was sent, and no acknowledgement came: it may be there.
    #[error("not acknowledged within {0} ms; it may have been written")]
    Unknown(u64),
    /// It was not taken.
    #[error("{}; nothing was written", .0.description)]
    Refused(Refusal),
    /// It was not sent, or nobody took it.
    #[error("{0}; nothing was written")]
    NotSent(NoAnswer),
    /// The acknowledgement can't be read: it may be there.
    #[error("the acknowledgement can't be read ({0}); it may have been written")]
    Unreadable(serde_json::Error),
}

/// Writes, and returns the sequence that the servers gave it.
pub(crate) async fn keep(streams: &dyn Streams, message: Outgoing) -> Result<u64, NotKept> {
    let ack = streams.ack_timeout();
    let until = Instant::now() + ack * PATIENCE;
    let message = message.with(MESSAGE_ID, streams.unique());
    let mut sent = false;
    loop {
        let deadline = (Instant::now() + ack).min(until);
        let why = match streams.ask(&message, deadline).await {
            Ok(answer) => return read(&answer),
            Err(why) => why,
        };
        sent |= matches!(why, NoAnswer::Late);
        // what was never sent is for the caller to send again; what was sent has to come to an end
        let again = match &why {
            NoAnswer::Late | NoAnswer::Nobody => true,
            NoAnswer::NotConnected => sent,
            NoAnswer::TooLarge(_) | NoAnswer::Refused(_) | NoAnswer::Forbidden => false,
        };
        if !again || Instant::now() + AGAIN >= until {
            if again && !matches!(why, NoAnswer::NotConnected) {
                // it answers us, and nobody behind it does: it may be cut off from the others
                streams.look_elsewhere();
            }
            return Err(match sent {
                true => NotKept::Unknown(u64::try_from((ack * PATIENCE).as_millis()).unwrap_or(u64::MAX)),
                false => NotKept::NotSent(why),
            });
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn read(payload: &[u8]) -> Result<u64, NotKept> {
    match serde_json::from_slice::<Answer>(payload) {
        Ok(Answer { error: None, seq }) => Ok(seq),
        Ok(Answer {
            error: Some(refusal), ..
        }) => Err(NotKept::Refused(refusal)),
        Err(e) => Err(NotKept::Unreadable(e)),
    }
}
