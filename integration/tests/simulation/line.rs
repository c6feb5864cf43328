//! A process's line to the servers: the seam of the crate `nats` over a simulated network.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use nats::NatsError;
use nats::testing::{
    Ack, Consumer, Delivered, EXPECTED, Follows, MESSAGE_ID, NoAnswer, NotStored, Outgoing, Pulls, Stored, Streams,
    Tailed, not_answered,
};
use serde_json::json;
use tokio::time::Instant;

use super::world::{Inner, Process, World, pause};

/// How long a server may take to answer.
pub const ANSWER_MS: u64 = 400;
/// A line that has been cut for so long knows it.
const CUT_KNOWN_AFTER_MS: u64 = 2_000;
/// How long it takes to begin following anew.
const FOLLOW_AGAIN_MS: u64 = 300;
/// Messages that come together.
const TOGETHER: usize = 16;

/// See the head of the file; clones are the same line.
#[derive(Debug, Clone)]
pub struct Line(Arc<Ends>);

#[derive(Debug)]
struct Ends {
    world: Arc<World>,
    process: Process,
    count: AtomicU64,
}

type Result<T> = std::result::Result<T, NatsError>;

impl Line {
    pub fn of(world: &Arc<World>, process: Process) -> Self {
        Self(Arc::new(Ends {
            world: world.clone(),
            process,
            count: AtomicU64::new(0),
        }))
    }

    async fn exchange<T: Send + 'static>(
        &self,
        act: impl Fn(&mut Inner, u64) -> T + Send + Sync + 'static,
    ) -> Result<T> {
        let until = Instant::now() + Duration::from_millis(ANSWER_MS);
        let answer = self.0.world.exchange(self.0.process, until, true, act).await;
        answer.ok_or_else(|| not_answered("no answer in time"))
    }
}

#[async_trait]
impl Streams for Line {
    fn ack_timeout(&self) -> Duration {
        Duration::from_millis(ANSWER_MS)
    }

    fn unique(&self) -> String {
        format!("{}.{}", self.0.process, self.0.count.fetch_add(1, Ordering::SeqCst))
    }

    async fn ask(&self, message: &Outgoing, deadline: Instant) -> std::result::Result<Bytes, NoAnswer> {
        let Ends { world, process, .. } = &*self.0;
        if world.cut_for_ms(*process).is_some_and(|ms| ms > CUT_KNOWN_AFTER_MS) {
            world.living(*process).await;
            return Err(NoAnswer::NotConnected);
        }
        let (sender, message) = (*process, message.clone());
        let answer = world.exchange(*process, deadline, true, move |inner, now_ms| {
            match inner.publish(sender, &message, now_ms) {
                Ok(sequence) => json!({"stream": "S", "seq": sequence}),
                Err(refused) => json!({"error": {"err_code": refused.code, "description": refused.words}}),
            }
        });
        let answer = answer.await.ok_or(NoAnswer::Late)?;
        Ok(Bytes::from(answer.to_string()))
    }

    fn look_elsewhere(&self) {}

    async fn publish(&self, message: &Outgoing) -> std::result::Result<u64, NotStored> {
        let (sender, message) = (self.0.process, message.clone());
        // the network itself repeats nothing; what is sent twice has a name or an expectation, or says that it is
        let twice = message.header(MESSAGE_ID).or(message.header(EXPECTED)).is_some();
        let until = Instant::now() + Duration::from_millis(ANSWER_MS);
        let act = move |inner: &mut Inner, now_ms| inner.publish(sender, &message, now_ms);
        match self.0.world.exchange(self.0.process, until, twice, act).await {
            Some(Ok(sequence)) => Ok(sequence),
            Some(Err(refused)) if refused.words.contains("maximum messages") => Err(NotStored::Full(refused.words)),
            Some(Err(refused)) => Err(NotStored::Overtaken(refused.words)),
            None => Err(NotStored::Unclear("no answer in time".into())),
        }
    }

    async fn last(&self, stream: &'static str, subject: &str) -> Result<Option<Stored>> {
        let subject = subject.to_owned();
        self.exchange(move |inner, _| inner.server.last(stream, &subject)).await
    }

    async fn subjects(&self, stream: &'static str, filter: &str) -> Result<Vec<String>> {
        let filter = filter.to_owned();
        self.exchange(move |inner, _| inner.server.subjects(stream, &filter))
            .await
    }

    async fn count(&self, stream: &'static str) -> Result<u64> {
        self.exchange(move |inner, _| inner.server.count(stream)).await
    }

    async fn time_ms(&self, _: &'static str) -> Result<i128> {
        self.exchange(move |_, now_ms| i128::from(now_ms)).await
    }

    async fn consumer(&self, stream: &'static str, consumer: Consumer) -> Result<Arc<dyn Pulls>> {
        let name = consumer.name.clone();
        self.exchange(move |inner, _| inner.server.consumer(stream, consumer.clone()))
            .await?;
        Ok(Arc::new(Puller {
            line: self.clone(),
            name: name.into(),
        }))
    }

    fn follow(&self, stream: &'static str, filters: Vec<String>, seen: u64) -> Box<dyn Follows> {
        Box::new(Follower {
            line: self.clone(),
            stream,
            filters,
            seen,
            at_hand: VecDeque::new(),
            open: false,
        })
    }
}

#[derive(Debug)]
struct Puller {
    line: Line,
    name: Arc<str>,
}

#[async_trait]
impl Pulls for Puller {
    async fn pull(&self, wait: Duration) -> Result<Option<Box<dyn Delivered>>> {
        let Ends { world, process, .. } = &*self.line.0;
        let until = Instant::now() + wait;
        let name = self.name.clone();
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let asked = self
            .line
            .exchange(move |inner, now_ms| inner.server.pull(&name, now_ms + wait_ms));
        let pulled = tokio::time::timeout_at(until, asked.await?).await;
        world.living(*process).await;
        let Ok(Ok(parcel)) = pulled else {
            tokio::time::sleep_until(until).await;
            return Ok(None);
        };
        match world.comes(*process) {
            Some(ms) => pause(ms).await,
            // it comes again when its time is over
            None => {
                tokio::time::sleep_until(until).await;
                return Ok(None);
            }
        }
        world.living(*process).await;
        Ok(Some(Box::new(InHand {
            line: self.line.clone(),
            consumer: self.name.clone(),
            sequence: parcel.sequence,
            payload: parcel.payload,
        })))
    }
}

#[derive(Debug)]
struct InHand {
    line: Line,
    consumer: Arc<str>,
    sequence: u64,
    payload: Bytes,
}

#[async_trait]
impl Delivered for InHand {
    fn payload(&self) -> &Bytes {
        &self.payload
    }

    fn sequence(&self) -> Result<u64> {
        Ok(self.sequence)
    }

    async fn ack(&self, ack: Ack) -> Result<()> {
        let Ends { world, process, .. } = &*self.line.0;
        let (consumer, sequence) = (self.consumer.clone(), self.sequence);
        match ack {
            Ack::Progress => world.say(*process, move |inner, now_ms| {
                inner.server.progress(&consumer, sequence, now_ms);
            }),
            Ack::Back => world.say(*process, move |inner, _| inner.server.back(&consumer, sequence)),
            Ack::Done => {
                let served = self
                    .line
                    .exchange(move |inner, _| inner.server.done(&consumer, sequence));
                return served.await;
            }
        }
        world.living(*process).await;
        Ok(())
    }
}

struct Follower {
    line: Line,
    stream: &'static str,
    filters: Vec<String>,
    seen: u64,
    at_hand: VecDeque<Stored>,
    open: bool,
}

#[async_trait]
impl Follows for Follower {
    async fn next(&mut self) -> Tailed {
        let ends = self.line.0.clone();
        let Ends { world, process, .. } = &*ends;
        loop {
            world.living(*process).await;
            if let Some(message) = self.at_hand.pop_front() {
                self.seen = message.sequence;
                return Tailed::Message(message);
            }
            if world.cut_for_ms(*process).is_some() {
                self.open = false;
                pause(FOLLOW_AGAIN_MS).await;
                continue;
            }
            if !self.open {
                pause(world.comes(*process).unwrap_or(FOLLOW_AGAIN_MS)).await;
                self.open = true;
                return Tailed::Reopened {
                    skipped: 0,
                    renewed: false,
                };
            }
            let changed = world.changed.notified();
            let found = world
                .lock()
                .server
                .after(self.stream, &self.filters, self.seen, TOGETHER);
            if found.is_empty() {
                changed.await;
                continue;
            }
            match world.comes(*process) {
                Some(ms) => {
                    pause(ms).await;
                    self.at_hand = found.into();
                }
                // the line broke: it is followed from there anew
                None => self.open = false,
            }
        }
    }

    fn seen(&self) -> u64 {
        self.seen
    }
}
