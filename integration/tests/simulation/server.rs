//! A store as JetStream is one: streams of messages by subject, expected sequences, windows of ids, messages that go by themselves,
//! queues whose messages come again. No clock and no chance: the time comes in.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use bytes::Bytes;
use nats::testing::{Consumer, EXPECTED, MESSAGE_ID, Outgoing, Stored, TTL};
use tokio::sync::oneshot;

/// How long a message's id is remembered, in milliseconds.
const WINDOW_MS: u64 = 120_000;
/// NATS's number for an expected sequence that is another one.
const WRONG_SEQUENCE: u64 = 10_071;
/// NATS's number for a stream that is full.
const TOO_MANY: u64 = 10_077;

/// Why nothing was stored.
#[derive(Debug, Clone)]
pub struct Refused {
    pub code: u64,
    pub words: String,
}

#[derive(Debug, Clone)]
pub struct Message {
    pub sequence: u64,
    pub subject: String,
    pub headers: Vec<(&'static str, String)>,
    pub payload: Bytes,
    gone_ms: Option<u64>,
}

impl Message {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str())
    }

    pub fn stored(&self) -> Stored {
        let headers = self.headers.iter().map(|(n, v)| ((*n).to_owned(), v.clone()));
        Stored {
            sequence: self.sequence,
            subject: self.subject.clone(),
            headers: headers.collect(),
            payload: self.payload.clone(),
        }
    }
}

#[derive(Debug)]
struct Stream {
    name: &'static str,
    begins: &'static str,
    /// A bucket: one message a subject.
    one_each: bool,
    messages_max: u64,
    last: u64,
    messages: BTreeMap<u64, Message>,
    of_subject: BTreeMap<String, BTreeSet<u64>>,
    ids: HashMap<String, (u64, u64)>,
}

/// A message on its way to whoever pulled.
#[derive(Debug)]
pub struct Parcel {
    pub sequence: u64,
    pub payload: Bytes,
}

#[derive(Debug)]
struct Waiting {
    until_ms: u64,
    hand_over: oneshot::Sender<Parcel>,
}

#[derive(Debug)]
struct Queue {
    stream: &'static str,
    config: Consumer,
    /// Everything up to here was delivered once.
    floor: u64,
    /// Delivered and not acknowledged: when it comes again.
    pending: BTreeMap<u64, u64>,
    again: BTreeSet<u64>,
    waiting: VecDeque<Waiting>,
}

/// The servers, as one.
#[derive(Debug)]
pub struct Server {
    streams: Vec<Stream>,
    queues: BTreeMap<String, Queue>,
}

fn matches(filter: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for wanted in filter.split('.') {
        match (wanted, tokens.next()) {
            (">", Some(_)) => return true,
            (_, None) => return false,
            ("*", Some(_)) => {}
            (wanted, Some(token)) if wanted != token => return false,
            _ => {}
        }
    }
    tokens.next().is_none()
}

impl Stream {
    fn remove(&mut self, sequence: u64) -> Option<Message> {
        let message = self.messages.remove(&sequence)?;
        if let Some(of) = self.of_subject.get_mut(&message.subject) {
            of.remove(&sequence);
            if of.is_empty() {
                self.of_subject.remove(&message.subject);
            }
        }
        Some(message)
    }

    fn last_of(&self, filter: &str) -> Option<&Message> {
        let sequence = match filter.contains(['*', '>']) {
            false => self.of_subject.get(filter)?.last().copied(),
            true => {
                let of = self.of_subject.iter().filter(|(s, _)| matches(filter, s));
                of.filter_map(|(_, sequences)| sequences.last().copied()).max()
            }
        };
        self.messages.get(&sequence?)
    }

    fn publish(&mut self, message: &Outgoing, now_ms: u64) -> Result<u64, Refused> {
        let id = message.header(MESSAGE_ID);
        if let Some((sequence, at_ms)) = id.and_then(|id| self.ids.get(id))
            && now_ms - at_ms < WINDOW_MS
        {
            return Ok(*sequence);
        }
        if let Some(expected) = message.header(EXPECTED).and_then(|text| text.parse::<u64>().ok()) {
            let found = self.last_of(&message.subject).map_or(0, |m| m.sequence);
            if found != expected {
                let words = format!("wrong last sequence: {found}");
                return Err(Refused {
                    code: WRONG_SEQUENCE,
                    words,
                });
            }
        }
        if self.messages.len() as u64 >= self.messages_max {
            let words = "maximum messages exceeded".to_owned();
            return Err(Refused { code: TOO_MANY, words });
        }
        self.last += 1;
        let sequence = self.last;
        if let Some(id) = id {
            self.ids.insert(id.to_owned(), (sequence, now_ms));
        }
        if self.one_each {
            let before: Vec<u64> = self
                .of_subject
                .get(&message.subject)
                .into_iter()
                .flatten()
                .copied()
                .collect();
            before.into_iter().for_each(|sequence| drop(self.remove(sequence)));
        }
        let ttl_s = message
            .header(TTL)
            .and_then(|t| t.trim_end_matches('s').parse::<u64>().ok());
        let stored = Message {
            sequence,
            subject: message.subject.clone(),
            headers: message.headers.clone(),
            payload: message.payload.clone(),
            gone_ms: ttl_s.map(|s| now_ms + s * 1_000),
        };
        self.of_subject
            .entry(message.subject.clone())
            .or_default()
            .insert(sequence);
        self.messages.insert(sequence, stored);
        Ok(sequence)
    }
}

impl Server {
    pub fn new(jobs_open_max: u64) -> Self {
        let stream = |name, begins, one_each, messages_max| Stream {
            name,
            begins,
            one_each,
            messages_max,
            last: 0,
            messages: BTreeMap::new(),
            of_subject: BTreeMap::new(),
            ids: HashMap::new(),
        };
        Self {
            streams: vec![
                stream("WINDLASS_JOBS", "windlass.v1.job.", false, jobs_open_max),
                stream("KV_windlass_jobs", "$KV.windlass_jobs.", true, u64::MAX),
                stream("KV_windlass", "$KV.windlass.", true, u64::MAX),
            ],
            queues: BTreeMap::new(),
        }
    }

    fn stream(&self, name: &str) -> &Stream {
        self.streams
            .iter()
            .find(|s| s.name == name)
            .expect("a stream that there is")
    }

    fn stream_mut(&mut self, name: &str) -> &mut Stream {
        let found = self.streams.iter_mut().find(|s| s.name == name);
        found.expect("a stream that there is")
    }

    fn of_subject(&mut self, subject: &str) -> &mut Stream {
        let found = self.streams.iter_mut().find(|s| subject.starts_with(s.begins));
        found.expect("a subject that a stream takes")
    }

    /// What the subject has now.
    pub fn now_at(&mut self, subject: &str) -> Option<Message> {
        self.of_subject(subject).last_of(subject).cloned()
    }

    pub fn publish(&mut self, message: &Outgoing, now_ms: u64) -> Result<u64, Refused> {
        self.of_subject(&message.subject).publish(message, now_ms)
    }

    pub fn last(&self, stream: &str, filter: &str) -> Option<Stored> {
        self.stream(stream).last_of(filter).map(Message::stored)
    }

    pub fn delete(&mut self, stream: &str, sequence: u64) -> bool {
        for queue in self.queues.values_mut().filter(|q| q.stream == stream) {
            queue.pending.remove(&sequence);
            queue.again.remove(&sequence);
        }
        self.stream_mut(stream).remove(sequence).is_some()
    }

    pub fn subjects(&self, stream: &str, filter: &str) -> Vec<String> {
        let all = self.stream(stream).of_subject.keys();
        all.filter(|s| matches(filter, s)).cloned().collect()
    }

    pub fn count(&self, stream: &str) -> u64 {
        self.stream(stream).messages.len() as u64
    }

    /// At most so many messages behind `seen`, in order.
    pub fn after(&self, stream: &str, filters: &[String], seen: u64, most: usize) -> Vec<Stored> {
        let behind = self.stream(stream).messages.range(seen + 1..);
        let wanted = behind.filter(|(_, m)| filters.iter().any(|filter| matches(filter, &m.subject)));
        wanted.take(most).map(|(_, m)| m.stored()).collect()
    }

    pub fn consumer(&mut self, stream: &'static str, config: Consumer) {
        let queue = Queue {
            stream,
            config: config.clone(),
            floor: 0,
            pending: BTreeMap::new(),
            again: BTreeSet::new(),
            waiting: VecDeque::new(),
        };
        self.queues.entry(config.name).or_insert(queue);
    }

    pub fn pull(&mut self, consumer: &str, until_ms: u64) -> oneshot::Receiver<Parcel> {
        let (hand_over, receiver) = oneshot::channel();
        if let Some(queue) = self.queues.get_mut(consumer) {
            queue.waiting.push_back(Waiting { until_ms, hand_over });
        }
        receiver
    }

    /// A delivered message is worked on.
    pub fn progress(&mut self, consumer: &str, sequence: u64, now_ms: u64) {
        if let Some(queue) = self.queues.get_mut(consumer)
            && let Some(due_ms) = queue.pending.get_mut(&sequence)
        {
            *due_ms = now_ms + ms(queue.config.ack_wait);
        }
    }

    /// A delivered message goes back.
    pub fn back(&mut self, consumer: &str, sequence: u64) {
        if let Some(queue) = self.queues.get_mut(consumer)
            && queue.pending.remove(&sequence).is_some()
        {
            queue.again.insert(sequence);
        }
    }

    /// A delivered message has served.
    pub fn done(&mut self, consumer: &str, sequence: u64) {
        if let Some(queue) = self.queues.get_mut(consumer) {
            let stream = queue.stream;
            self.delete(stream, sequence);
        }
    }

    /// Another leader: it knows neither who was told to wait nor who said that he works.
    pub fn forget_deliveries(&mut self) {
        for queue in self.queues.values_mut() {
            queue.waiting.clear();
            let pending = std::mem::take(&mut queue.pending);
            queue.again.extend(pending.into_keys());
        }
    }

    /// What the time brings: messages that go by themselves, messages that come again, messages for those who wait.
    pub fn turn(&mut self, now_ms: u64) {
        for stream in &mut self.streams {
            let over = stream
                .messages
                .values()
                .filter(|m| m.gone_ms.is_some_and(|end| end <= now_ms));
            let over: Vec<u64> = over.map(|m| m.sequence).collect();
            over.into_iter().for_each(|sequence| drop(stream.remove(sequence)));
        }
        for queue in self.queues.values_mut() {
            let stream = self
                .streams
                .iter()
                .find(|s| s.name == queue.stream)
                .expect("its stream");
            queue.turn(stream, now_ms);
        }
    }
}

impl Queue {
    fn turn(&mut self, stream: &Stream, now_ms: u64) {
        let due: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, due)| **due <= now_ms)
            .map(|(s, _)| *s)
            .collect();
        for sequence in due {
            self.pending.remove(&sequence);
            self.again.insert(sequence);
        }
        self.again.retain(|sequence| stream.messages.contains_key(sequence));
        self.waiting.retain(|w| w.until_ms > now_ms);
        while !self.waiting.is_empty() {
            let Some(message) = self.next(stream) else { return };
            let Some(waiting) = self.waiting.pop_front() else {
                return;
            };
            self.again.remove(&message.sequence);
            self.floor = self.floor.max(message.sequence);
            self.pending.insert(message.sequence, now_ms + ms(self.config.ack_wait));
            // nobody may be there any more: it comes again when its time is over
            let _whoever_hears = waiting.hand_over.send(Parcel {
                sequence: message.sequence,
                payload: message.payload.clone(),
            });
        }
    }

    fn next<'a>(&self, stream: &'a Stream) -> Option<&'a Message> {
        if let Some(first) = self.again.first() {
            return stream.messages.get(first);
        }
        let behind = stream.messages.range(self.floor + 1..).map(|(_, m)| m);
        behind.into_iter().find(|m| matches(&self.config.filter, &m.subject))
    }
}

fn ms(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
