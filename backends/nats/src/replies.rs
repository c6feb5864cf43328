//! Where answers come back: one subscription for all requests of this process.
//!
//! async-nats has the same, but it keeps the place of a request that timed out for ever; here a place goes with its asker.
//!
//! async-nats reads on whether its subscribers keep up or not, and drops what a subscription's buffer can't hold. So no more
//! requests are under way than their answers have room ([`Replies::room`]): a flood waits before it is sent, where nothing is lost.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::connection::State;
use async_nats::{Client, HeaderMap, Message, StatusCode, Subject as NatsSubject, ToSubject};
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::error::{Kind, NatsError};

/// Requests of one process that may wait for their answers at once; more wait to be sent. A part of
/// [`MESSAGES_QUEUED_MAX`](crate::settings::MESSAGES_QUEUED_MAX), at both ends: of the asker's buffer, for late answers to
/// askers who have gone need room too, and of the server's, which many hosts may ask at once.
pub(crate) const ASKED_AT_ONCE_MAX: usize = 8_192;

/// Who waits for answers; clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waiting(Arc<Mutex<HashMap<u64, Asker>>>);

#[derive(Debug)]
struct Asker {
    // of what was asked: the servers name the subject that they don't let through
    subject: u64,
    tell: oneshot::Sender<Result<Message, NoAnswer>>,
}

impl Waiting {
    fn locked(&self) -> MutexGuard<'_, HashMap<u64, Asker>> {
        // nothing panics under this lock
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// The servers don't let us publish to this subject: whoever asked it hears so now.
    pub(crate) fn forbid(&self, subject: &str) {
        let forbidden = digest(subject);
        let asked: Vec<Asker> = self
            .locked()
            .extract_if(|_, asker| asker.subject == forbidden)
            .map(|(_, asker)| asker)
            .collect();
        for asker in asked {
            let _asker_gone = asker.tell.send(Err(NoAnswer::Forbidden));
        }
    }
}

fn digest(subject: &str) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(subject)
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// The connection is down; nothing was sent.
    #[error("the connection to NATS is down; nothing was sent")]
    NotConnected,
    /// Nobody listens on the subject; nothing was carried out.
    #[error("nobody listens")]
    Nobody,
    /// None came in time.
    #[error("no answer in time")]
    Late,
    /// The server carries less than this; nothing was sent.
    #[error("the server carries at most {0} bytes; nothing was sent")]
    TooLarge(usize),
    /// The servers don't let us ask this; nothing was carried out.
    #[error("the NATS servers don't let us publish this; nothing was carried out")]
    Forbidden,
    /// async-nats refuses to send; nothing was sent.
    #[error("it can't be sent: {0}")]
    Refused(String),
}

/// The subscription and who waits on it.
#[derive(Debug)]
pub(crate) struct Replies {
    client: Client,
    prefix: String,
    next: AtomicU64,
    waiting: Waiting,
    room: Semaphore,
    reader: JoinHandle<()>,
}

/// Text as async-nats takes it, copied once.
pub(crate) struct Text<'a>(pub(crate) &'a str);

impl ToSubject for Text<'_> {
    fn to_subject(&self) -> NatsSubject {
        self.0.into()
    }
}

/// A place among those who wait; gone with its asker.
struct Place<'a> {
    waiting: &'a Waiting,
    token: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiting.locked().remove(&self.token);
    }
}

impl Replies {
    pub(crate) async fn open(client: Client, waiting: Waiting) -> Result<Self, NatsError> {
        let prefix = format!("{}.", client.new_inbox());
        let mut answers = client.subscribe(format!("{prefix}*")).await.map_err(|e| {
            NatsError::new(Kind::Unavailable, format!("no place for answers can be had: {e}")).caused_by(e)
        })?;
        let reader = tokio::spawn({
            let (waiting, prefix_bytes) = (waiting.clone(), prefix.len());
            async move {
                while let Some(message) = answers.next().await {
                    let token = message
                        .subject
                        .get(prefix_bytes..)
                        .and_then(|t| u64::from_str_radix(t, 36).ok());
                    let asker = token.and_then(|token| waiting.locked().remove(&token));
                    if let Some(asker) = asker {
                        let _asker_gone = asker.tell.send(Ok(message));
                    }
                }
            }
        });
        Ok(Self {
            client,
            prefix,
            next: AtomicU64::new(1),
            waiting,
            room: Semaphore::new(ASKED_AT_ONCE_MAX),
            reader,
        })
    }

    /// Room for the answer to one more request, until it is dropped; `None` when there was none before `deadline`. What is asked
    /// of JetStream needs none: its few askers must not wait behind a flood.
    pub(crate) async fn room(&self, deadline: Instant) -> Option<SemaphorePermit<'_>> {
        // the semaphore is never closed
        tokio::time::timeout_at(deadline, self.room.acquire()).await.ok()?.ok()
    }

    /// The same without waiting.
    pub(crate) fn room_now(&self) -> Option<SemaphorePermit<'_>> {
        self.room.try_acquire().ok()
    }

    /// Sends, and waits for the one answer until `deadline`.
    pub(crate) async fn ask(
        &self,
        subject: &str,
        headers: HeaderMap,
        payload: Bytes,
        deadline: Instant,
    ) -> Result<Message, NoAnswer> {
        if self.client.connection_state() != State::Connected {
            return Err(NoAnswer::NotConnected);
        }
        let (token, answer) = self.expect(subject);
        let _place = Place {
            waiting: &self.waiting,
            token,
        };
        let (subject, reply) = (Text(subject), self.place(token));
        let asked = async {
            let sent = match headers.is_empty() {
                true => self.client.publish_with_reply(subject, Text(&reply), payload).await,
                false => {
                    self.client
                        .publish_with_reply_and_headers(subject, Text(&reply), headers, payload)
                        .await
                }
            };
            sent.map_err(|e| self.refused(e))?;
            answer.await.map_err(|_place_lost| NoAnswer::Late)?
        };
        let message = tokio::time::timeout_at(deadline, asked)
            .await
            .map_err(|_elapsed| NoAnswer::Late)??;
        match message.status {
            Some(StatusCode::NO_RESPONDERS) => Err(NoAnswer::Nobody),
            _ => Ok(message),
        }
    }

    /// A place for the answer to one question.
    fn expect(&self, subject: &str) -> (u64, oneshot::Receiver<Result<Message, NoAnswer>>) {
        let token = self.next.fetch_add(1, Ordering::Relaxed);
        let (tell, answer) = oneshot::channel();
        let asker = Asker {
            subject: digest(subject),
            tell,
        };
        self.waiting.locked().insert(token, asker);
        (token, answer)
    }

    fn refused(&self, error: async_nats::PublishError) -> NoAnswer {
        match error.kind() {
            async_nats::PublishErrorKind::MaxPayloadExceeded => NoAnswer::TooLarge(self.client.max_payload()),
            _ => NoAnswer::Refused(error.to_string()),
        }
    }

    /// Returns once the server has taken what this connection sent before.
    pub(crate) async fn barrier(&self, deadline: Instant) -> Result<(), NoAnswer> {
        let (token, answer) = self.expect("");
        let _place = Place {
            waiting: &self.waiting,
            token,
        };
        let to_ourselves = self.place(token);
        let passed = async {
            let sent = self.client.publish(to_ourselves, Bytes::new()).await;
            sent.map_err(|e| self.refused(e))?;
            answer.await.map_err(|_place_lost| NoAnswer::Late)?
        };
        tokio::time::timeout_at(deadline, passed)
            .await
            .map_err(|_elapsed| NoAnswer::Late)?
            .map(|_itself| ())
    }

    /// The subject of the answer with this token.
    fn place(&self, token: u64) -> String {
        let mut text = String::with_capacity(self.prefix.len() + TOKEN_CHARS_MAX);
        text.push_str(&self.prefix);
        push_base36(&mut text, token);
        text
    }

    /// A text that nobody else makes, in this process or another.
    pub(crate) fn unique(&self) -> String {
        self.place(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Requests that wait for an answer.
    #[cfg(test)]
    pub(crate) fn waiting_count(&self) -> usize {
        self.waiting.locked().len()
    }
}

impl Drop for Replies {
    fn drop(&mut self) {
        // it holds a part of the client, which would keep the connection
        self.reader.abort();
    }
}

/// Digits of the largest token.
const TOKEN_CHARS_MAX: usize = 13;

fn push_base36(text: &mut String, mut number: u64) {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut digits = [0_u8; TOKEN_CHARS_MAX];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = DIGITS[usize::try_from(number % 36).unwrap_or(0)];
        number /= 36;
        if number == 0 {
            return text.extend(digits[at..].iter().map(|digit| char::from(*digit)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_their_text() {
        for n in [0, 1, 35, 36, u64::MAX] {
            let mut text = String::new();
            push_base36(&mut text, n);
            assert_eq!(u64::from_str_radix(&text, 36), Ok(n));
        }
    }
}
