//! The NATS services protocol (ADR-32 of NATS): `$SRV.PING`, `INFO` and `STATS` for every service of this process.
//!
//! async-nats has a module for it, which puts each endpoint into a queue group; a host-addressed one must have none. So the
//! protocol is spoken here, by one subscription for all services.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_nats::Client;
use bus::Service;
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use wire::{Address, ErrorBody, Subject};

use crate::error::{Kind, NatsError};
use crate::lattice::Lattice;
use crate::nats_bus::Identity;

const PREFIX: &str = "$SRV";
const TYPE: &str = "io.nats.micro.v1";

/// One service as it is announced.
#[derive(Debug, Clone)]
pub(crate) struct Card(Arc<Facts>);

#[derive(Debug)]
struct Facts {
    name: String,
    id: String,
    host: String,
    endpoints: Vec<Announced>,
}

#[derive(Debug)]
struct Announced {
    name: &'static str,
    subject: String,
    queue_group: String,
    address: Address,
    tally: Arc<Tally>,
}

/// What happened at one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    requests: AtomicU64,
    errors: AtomicU64,
    busy_ns: AtomicU64,
    last_error: Mutex<String>,
}

impl Tally {
    pub(crate) fn answered(&self, took: Duration, error: Option<&ErrorBody>) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.busy_ns.fetch_add(took_ns, Ordering::Relaxed);
        if let Some(error) = error {
            self.failed(format!("{}:{}", error.code.http_status(), error.message));
        }
    }
    pub(crate) fn refused(&self, why: &str) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.failed(format!("400:{why}"));
    }
    fn failed(&self, why: String) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }
}

impl Card {
    pub(crate) fn of(service: &Service, subjects: &[Subject]) -> Self {
        let announced = |(endpoint, subject): (&bus::Endpoint, &Subject)| Announced {
            name: endpoint.verb,
            subject: subject.to_string(),
            queue_group: subject.queue_group().unwrap_or_default().to_owned(),
            address: endpoint.address,
            tally: Arc::default(),
        };
        Self(Arc::new(Facts {
            name: format!("windlass-{}", service.concern),
            id: format!("{}-{:08x}", service.host, getrandom::u32().unwrap_or_default()),
            host: service.host.to_string(),
            endpoints: service.endpoints.iter().zip(subjects).map(announced).collect(),
        }))
    }
    pub(crate) fn tallies(&self) -> Vec<Arc<Tally>> {
        self.0.endpoints.iter().map(|e| e.tally.clone()).collect()
    }

    fn heading(&self, kind: &str, identity: &Identity) -> BTreeMap<&'static str, Value> {
        BTreeMap::from([
            ("type", json!(format!("{TYPE}.{kind}_response"))),
            ("name", json!(self.0.name)),
            ("id", json!(self.0.id)),
            ("version", json!(identity.version)),
            (
                "metadata",
                json!({"host": self.0.host, "wire": wire::WIRE_VERSION.to_string()}),
            ),
        ])
    }

    fn answer(&self, verb: Verb, identity: &Identity) -> Value {
        let endpoints = |of: fn(&Announced, &str) -> Value| {
            let concern = self.0.name.trim_start_matches("windlass-");
            self.0.endpoints.iter().map(|e| of(e, concern)).collect::<Vec<_>>()
        };
        let mut answer = self.heading(verb.as_str(), identity);
        match verb {
            Verb::Ping => {}
            Verb::Info => {
                answer.insert(
                    "description",
                    json!(format!("{} of windlass on {}", self.0.name, self.0.host)),
                );
                answer.insert("endpoints", json!(endpoints(Announced::info)));
            }
            Verb::Stats => {
                answer.insert("started", json!(with_fraction(&identity.started_at)));
                answer.insert("endpoints", json!(endpoints(Announced::stats)));
            }
        }
        json!(answer)
    }
}

impl Announced {
    fn info(&self, concern: &str) -> Value {
        let mut metadata = BTreeMap::from([(
            "address",
            match self.address {
                Address::Cluster => "cluster".to_owned(),
                Address::Host => "host".to_owned(),
            },
        )]);
        let mut catalog = wire::catalog::endpoints().into_iter();
        if let Some(known) = catalog.find(|e| e.concern == concern && e.verb == self.name) {
            let (request, reply) = known.schemas();
            metadata.insert("about", known.about.to_owned());
            metadata.insert("schema.request", request.to_string());
            metadata.insert("schema.reply", reply.to_string());
        }
        json!({"name": self.name, "subject": self.subject, "queue_group": self.queue_group, "metadata": metadata})
    }

    fn stats(&self, _concern: &str) -> Value {
        let requests = self.tally.requests.load(Ordering::Relaxed);
        let busy_ns = self.tally.busy_ns.load(Ordering::Relaxed);
        json!({
            "name": self.name, "subject": self.subject, "queue_group": self.queue_group,
            "num_requests": requests,
            "num_errors": self.tally.errors.load(Ordering::Relaxed),
            "last_error": *self.tally.last_error.lock().unwrap_or_else(PoisonError::into_inner),
            "processing_time": busy_ns,
            "average_processing_time": busy_ns.checked_div(requests).unwrap_or_default(),
            "data": {},
        })
    }
}

/// Some clients read times with a fraction only.
fn with_fraction(time: &str) -> String {
    match (time.contains('.'), time.strip_suffix('Z')) {
        (false, Some(whole)) => format!("{whole}.000Z"),
        _ => time.to_owned(),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Ping,
    Info,
    Stats,
}

impl Verb {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Info => "info",
            Self::Stats => "stats",
        }
    }
}

/// `$SRV.<VERB>[.<name>[.<id>]]`
fn parsed(subject: &str) -> Option<(Verb, Option<&str>, Option<&str>)> {
    let mut tokens = subject.split('.');
    if tokens.next() != Some(PREFIX) {
        return None;
    }
    let verb = match tokens.next()? {
        "PING" => Verb::Ping,
        "INFO" => Verb::Info,
        "STATS" => Verb::Stats,
        _ => return None,
    };
    let asked = (verb, tokens.next(), tokens.next());
    tokens.next().is_none().then_some(asked)
}

type Cards = Mutex<BTreeMap<u64, Card>>;

fn locked(cards: &Cards) -> MutexGuard<'_, BTreeMap<u64, Card>> {
    // nothing panics under this lock
    cards.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers for all services of a connection.
#[derive(Debug)]
pub(crate) struct Announcer {
    cards: Arc<Cards>,
    next: AtomicU64,
    reader: JoinHandle<()>,
}

/// Takes a service out of the announcements when it goes.
pub(crate) struct Registration {
    cards: Weak<Cards>,
    number: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(cards) = self.cards.upgrade() {
            locked(&cards).remove(&self.number);
        }
    }
}

impl Announcer {
    pub(crate) async fn start(lattice: &Lattice, identity: Identity) -> Result<Self, NatsError> {
        let client = lattice.client().clone();
        let mut asked = client
            .subscribe(format!("{PREFIX}.>"))
            .await
            .map_err(|e| NatsError::new(Kind::Unavailable, format!("services can't be announced: {e}")).caused_by(e))?;
        let cards: Arc<Cards> = Arc::default();
        let known = cards.clone();
        let reader = tokio::spawn(async move {
            while let Some(message) = asked.next().await {
                let Some(reply) = message.reply else { continue };
                let Some((verb, name, id)) = parsed(&message.subject) else {
                    continue;
                };
                let meant =
                    |card: &&Card| name.is_none_or(|name| name == card.0.name) && id.is_none_or(|id| id == card.0.id);
                let meant: Vec<Card> = locked(&known).values().filter(meant).cloned().collect();
                for card in meant {
                    tell(&client, reply.clone(), &card.answer(verb, &identity)).await;
                }
            }
        });
        Ok(Self {
            cards,
            next: AtomicU64::new(0),
            reader,
        })
    }

    pub(crate) fn register(&self, card: Card) -> Registration {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        locked(&self.cards).insert(number, card);
        Registration {
            cards: Arc::downgrade(&self.cards),
            number,
        }
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        // it holds a part of the client, which would keep the connection
        self.reader.abort();
    }
}

async fn tell(client: &Client, reply: async_nats::Subject, answer: &Value) {
    if let Err(error) = client.publish(reply, answer.to_string().into()).await {
        tracing::debug!(%error, "an answer of the services protocol was not sent");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_of_each_verb() {
        assert_eq!(parsed("$SRV.PING"), Some((Verb::Ping, None, None)));
        assert_eq!(parsed("$SRV.INFO.a"), Some((Verb::Info, Some("a"), None)));
        assert_eq!(parsed("$SRV.STATS.a.b"), Some((Verb::Stats, Some("a"), Some("b"))));
        for other in ["$SRV.PING.a.b.c", "$SRV.WHAT", "$SRV", "PING"] {
            assert_eq!(parsed(other), None, "{other}");
        }
    }
}
