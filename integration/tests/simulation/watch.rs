//! Looks at every write that the servers take, and at what clients were told: what must never happen is said here.

use std::collections::BTreeMap;

use jobs::{Record, Worker, invariants};
use nats::testing::OPERATION;
use serde_json::Value;
use wire::HostId;
use wire::job::JobState;

use super::racks;
use super::server::Message;
use super::world::host_name;

/// When a lease ends by the servers' clock.
const EXPIRES: &str = "Windlass-Expires-Ms";
/// How long it may take from a look at a beat to the word that its host is lost: three calls of the state, each with its tries.
const LOOK_MS: u64 = 4_500;
/// How far a host's idea of the servers' clock may be off, in milliseconds: half of what the slowest answer takes, for each of two
/// hosts.
const CLOCK_MS: u64 = 800;
/// Beats that a host may miss.
const BEATS_MISSED_MAX: u64 = 3;

/// A write that the servers took.
pub struct Write<'a> {
    pub host: usize,
    pub boot: &'a str,
    pub before: Option<&'a Message>,
    pub after: &'a Message,
    pub now_ms: u64,
}

#[derive(Debug)]
struct Beat {
    boot: String,
    count: u64,
    at_ms: u64,
}

#[derive(Debug)]
struct Seen {
    record: Record,
    at_ms: u64,
    forgotten: bool,
}

/// See the head of the file.
#[derive(Debug)]
pub struct Watcher {
    lease_ms: u64,
    beat_ms: u64,
    beats: BTreeMap<String, Vec<Beat>>,
    records: BTreeMap<String, Seen>,
    /// By request id: the job that it names.
    named: BTreeMap<String, String>,
    /// Jobs that a client was told of.
    acknowledged: BTreeMap<String, u64>,
    /// What is wrong; the first thing only.
    wrong: Option<String>,
    pub counts: Counts,
}

/// What happened, so that a world in which nothing happens is seen.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    pub acknowledged: u64,
    pub ended: u64,
    pub taken_over: u64,
    pub lost_hosts: u64,
    pub duplicates: u64,
    pub placed: u64,
    pub heard: u64,
}

fn text(message: &Message) -> String {
    String::from_utf8_lossy(&message.payload).into_owned()
}

fn record_of(message: &Message) -> Option<Record> {
    if message.header(OPERATION).is_some() {
        return None;
    }
    /// As the crate `nats` keeps it, in part.
    #[derive(serde::Deserialize)]
    struct Kept {
        record: Record,
    }
    let kept: Kept = serde_json::from_slice(&message.payload).ok()?;
    Some(kept.record)
}

/// Who holds a lease that has not ended.
fn holder(message: &Message, now_ms: u64) -> Option<String> {
    let expires_ms: u64 = message.header(EXPIRES)?.parse().ok()?;
    let live = message.header(OPERATION).is_none() && expires_ms > now_ms;
    live.then(|| text(message))
}

impl Watcher {
    pub fn new(lease_ms: u64, beat_ms: u64) -> Self {
        Self {
            lease_ms,
            beat_ms,
            beats: BTreeMap::new(),
            records: BTreeMap::new(),
            named: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            wrong: None,
            counts: Counts::default(),
        }
    }

    pub fn wrong(&self) -> Option<&str> {
        self.wrong.as_deref()
    }

    pub fn say_wrong(&mut self, why: impl Into<String>) {
        self.wrong.get_or_insert(why.into());
    }

    /// Looks at a write; its words for a reader, if there is one.
    pub fn see(&mut self, write: &Write<'_>, traced: bool) -> Option<String> {
        let subject = write.after.subject.as_str();
        let wrong = if let Some((_queue, id)) = subject
            .strip_prefix("$KV.windlass_jobs.job.")
            .and_then(|key| key.split_once('.'))
        {
            self.see_record(id, write)
        } else if let Some(host) = subject.strip_prefix("$KV.windlass.hosts.beats.") {
            self.see_beat(host, write)
        } else if let Some(host) = subject.strip_prefix("$KV.windlass.hosts.leases.") {
            Self::see_lease(host, write)
        } else if let Some(host) = subject.strip_prefix("$KV.windlass.hosts.lost.") {
            self.see_lost(host, write)
        } else if subject.starts_with("windlass.v1.job.") {
            self.see_queued(write)
        } else {
            racks::wrong_with(subject, &write.after.payload)
        };
        if let Some(wrong) = wrong {
            self.say_wrong(wrong);
        }
        traced.then(|| self.words(write))
    }

    fn words(&self, write: &Write<'_>) -> String {
        let who = format!("{}/{}", host_name(write.host), write.boot);
        let after = write.after;
        let what = match record_of(after) {
            Some(record) => format!(
                "{} attempt {} of {}",
                record.job.state.as_str(),
                record.job.attempts,
                record.job.host.as_ref().map_or("nobody", HostId::as_str)
            ),
            None if after.header(OPERATION).is_some() => "(deleted)".to_owned(),
            None => {
                let mut text = text(after);
                text.truncate(text.char_indices().nth(60).map_or(text.len(), |(at, _)| at));
                text
            }
        };
        format!("{who}: {} #{} {what}", after.subject, after.sequence)
    }

    fn see_record(&mut self, id: &str, write: &Write<'_>) -> Option<String> {
        let Some(after) = record_of(write.after) else {
            let seen = self.records.get_mut(id)?;
            seen.forgotten = true;
            return (!seen.record.job.state.is_final())
                .then(|| format!("job {id} is forgotten while it is {:?}", seen.record.job.state));
        };
        let writer = Worker {
            host: HostId::new(&host_name(write.host)).ok()?,
            boot: write.boot.to_owned(),
        };
        let before = self.records.get(id);
        let mut wrong = match before {
            Some(seen) if seen.forgotten => Some(format!("job {id} begins again after it ended and was forgotten")),
            _ => invariants::misstep(before.map(|s| &s.record), &after, Some(&writer)),
        };
        if let Some(seen) = before {
            let left = &seen.record;
            let by_another = left.job.state == JobState::Running && left.job.host.as_ref() != Some(&writer.host);
            let goes_on = after.job.attempts == left.job.attempts && after.job.state == JobState::Running;
            if by_another && !goes_on {
                self.counts.taken_over += 1;
                let silent_ms = write.now_ms - seen.at_ms;
                if silent_ms < self.lease_ms / 2 {
                    wrong.get_or_insert(format!(
                        "job {id} is taken from {} by {} after {silent_ms} ms of silence",
                        left.job.host.as_ref().map_or("nobody", HostId::as_str),
                        writer.host
                    ));
                }
            }
        }
        if after.job.state.is_final() && before.is_none_or(|s| !s.record.job.state.is_final()) {
            self.counts.ended += 1;
        }
        let seen = Seen {
            record: after,
            at_ms: write.now_ms,
            forgotten: false,
        };
        self.records.insert(id.to_owned(), seen);
        wrong
    }

    /// One request id names one job.
    fn see_queued(&mut self, write: &Write<'_>) -> Option<String> {
        let record = Record::decode(&write.after.payload).ok()?;
        let request_id = record.job.request_id?;
        let id = record.job.id.0;
        let named = self.named.entry(request_id.clone()).or_insert_with(|| id.clone());
        (*named != id).then(|| format!("request {request_id} is both job {named} and job {id}"))
    }

    fn see_beat(&mut self, host: &str, write: &Write<'_>) -> Option<String> {
        let beat: Value = serde_json::from_slice(&write.after.payload).ok()?;
        let beat = Beat {
            boot: beat["boot"].as_str()?.to_owned(),
            count: beat["count"].as_u64()?,
            at_ms: write.now_ms,
        };
        self.beats.entry(host.to_owned()).or_default().push(beat);
        None
    }

    /// A process that begins to serve has its host's id.
    pub fn serves(&mut self, host: usize, boot: &str, lease: Option<&Message>, now_ms: u64) {
        if let Some(holder) = lease.and_then(|lease| holder(lease, now_ms))
            && holder != boot
        {
            let host = host_name(host);
            self.say_wrong(format!("{boot} serves as {host}, whose id {holder} has"));
        }
    }

    fn see_lease(host: &str, write: &Write<'_>) -> Option<String> {
        let before = write
            .before
            .and_then(|before| holder(before, write.now_ms + CLOCK_MS))?;
        let after = write.after;
        let taken = match after.header(OPERATION) {
            // given back, by itself or by the process that has its directory now
            Some(_) => return None,
            None => text(after),
        };
        (taken != before).then(|| format!("the id {host} goes from {before} to {taken} while the lease stands"))
    }

    fn see_lost(&mut self, host: &str, write: &Write<'_>) -> Option<String> {
        let mark: Value = serde_json::from_slice(&write.after.payload).ok()?;
        let (boot, count) = (mark["boot"].as_str()?, mark["count"].as_u64()?);
        self.counts.lost_hosts += 1;
        let beats = self.beats.get(host)?;
        let Some(last) = beats.iter().rposition(|b| b.boot == boot && b.count == count) else {
            return Some(format!("{host} is lost since a beat that it never made"));
        };
        let silent_ms = write.now_ms - beats[last].at_ms;
        if silent_ms < self.beat_ms * BEATS_MISSED_MAX {
            return Some(format!("{host} is lost after {silent_ms} ms"));
        }
        let newer = beats.get(last + 1)?;
        let known_ms = write.now_ms - newer.at_ms;
        (known_ms > LOOK_MS).then(|| format!("{host} is lost, though it has beaten again since {known_ms} ms"))
    }

    /// A client was told that its job is durable.
    pub fn acknowledge(&mut self, request_id: Option<&str>, job: &str, duplicate: bool, at_ms: u64) {
        self.counts.acknowledged += 1;
        self.counts.duplicates += u64::from(duplicate);
        self.acknowledged.entry(job.to_owned()).or_insert(at_ms);
        if let Some(request_id) = request_id {
            let named = self
                .named
                .entry(request_id.to_owned())
                .or_insert_with(|| job.to_owned());
            if *named != job {
                let why = format!("request {request_id} was answered with job {named} and with job {job}");
                self.say_wrong(why);
            }
        }
    }

    /// Acknowledged jobs that have not ended, with how far they are.
    pub fn unended(&self) -> Vec<String> {
        let open = self.acknowledged.keys().filter_map(|id| match self.records.get(id) {
            Some(seen) if seen.record.job.state.is_final() => None,
            Some(seen) => Some(format!("{id} is {:?}", seen.record.job.state)),
            None => Some(format!("{id} has no record")),
        });
        open.collect()
    }
}
