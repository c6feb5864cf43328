//! What a host, and what a person's verb, may publish and hear on the servers: no more than they need. Made of the same builders
//! that make the subjects themselves, so that neither can drift from the other.
//!
//! ```text
//! a host    publishes  requests to any host of a concern, what hosts ask each other, its own events, jobs of its own and of the
//!                      queue that all share, its own keys and those that hosts share, JetStream's API for exactly that
//!           hears      its own requests, cluster-wide ones in their queue groups, its own inbox
//! a person  publishes  the verbs of their role; hears their own inbox, and follows events
//! both      answer     whoever asked them, and nobody else
//! ```
//!
//! What is absent: no purge, no deletion of messages, no change of streams, no consumer on jobs but those of its own queues, and
//! no subject of another host.

use data_encoding::BASE64URL_NOPAD;
use nkeys::{KeyPair, KeyPairType};
use secret::Reference;
use serde_json::{Value, json};
use state::{Key, Prefix};
use wire::catalog::Endpoint;
use wire::subject::{EventPlace, JobSubject};
use wire::{Address, Asker, ConcernName, HostId, PersonId, Role, Sender, Subject};

use crate::error::{Kind, NatsError};
use crate::jobs::{queue, records};
use crate::state::{compaction, keys};
use crate::{events, state as kept_state};

/// How long the servers let an answer come after its request, in seconds: twice as long as most askers wait.
const ANSWER_WITHIN_S: u64 = 60;
/// JetStream's API.
const API: &str = "$JS.API";
/// JetStream's acknowledgements.
const ACK: &str = "$JS.ACK";
/// NATS's services protocol.
const SERVICES: &str = "$SRV.>";

/// What a host is let do beyond what every host is: its concerns, and which keys of the state.
pub struct Grants {
    /// The concerns that it serves.
    pub concerns: Vec<ConcernName>,
    /// The requests of all concerns.
    pub endpoints: Vec<Endpoint>,
    /// Keys that only this host writes.
    pub own_keys: Vec<Key>,
    /// Below these every host writes.
    pub shared_keys: Vec<Prefix>,
}

/// What somebody may do on the servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permissions {
    party: Sender,
    publish: Vec<String>,
    subscribe: Vec<String>,
    // answers to one request: a service's client hears one of each service
    answers_max: usize,
}

impl Permissions {
    /// What a host may do.
    ///
    /// # Errors
    /// `Invalid` when an endpoint can't be a subject.
    pub fn of_host(host: &HostId, grants: &Grants) -> Result<Self, NatsError> {
        let party = Sender::Host(host.clone());
        let mut publish = vec![format!("{}.>", party.inbox()), Subject::below_host(host)];
        let mut subscribe = publish.clone();
        subscribe.push(SERVICES.to_owned());
        for e in &grants.endpoints {
            match e.address {
                Address::Cluster => {
                    let subject = Subject::cluster(e.concern, e.verb).map_err(|e| invalid(&e))?;
                    publish.push(subject.to_string());
                    // outside of its group it would hear what others are asked
                    subscribe.push(format!("{subject} {}", subject.queue_group().unwrap_or_default()));
                }
                Address::Host if e.asker == Asker::Host => {
                    publish.push(Subject::to_any_host(e.concern, e.verb).map_err(|e| invalid(&e))?);
                }
                Address::Host => {}
            }
        }
        publish.push(EventPlace::told_by(host));
        publish.extend(grants.own_keys.iter().map(keys::subject));
        publish.extend(grants.shared_keys.iter().map(keys::below));
        publish.push(compaction::floor_subject());
        for queue in [Some(host), None] {
            publish.extend(of_queue(&grants.concerns, queue));
        }
        publish.extend(of_streams());
        Ok(Self {
            answers_max: grants
                .endpoints
                .iter()
                .map(|e| e.concern)
                .collect::<std::collections::BTreeSet<_>>()
                .len(),
            party,
            publish,
            subscribe,
        })
    }

    /// What a person's verbs may do. Below `asked_keys` stands who asks to be let in.
    ///
    /// # Errors
    /// `Invalid` when an endpoint can't be a subject.
    pub fn of_person(
        person: &PersonId,
        role: Role,
        endpoints: &[Endpoint],
        asked_keys: &[Prefix],
    ) -> Result<Self, NatsError> {
        let party = Sender::Person(person.clone());
        let inbox = format!("{}.>", party.inbox());
        let mut publish = vec![inbox.clone(), SERVICES.to_owned(), api("STREAM.INFO", events::STREAM)];
        // to join the fleet by a token: the grant is read, and asked for; and the servers' clock is told there
        publish.extend([
            api("STREAM.INFO", kept_state::STREAM),
            api("STREAM.MSG.GET", kept_state::STREAM),
        ]);
        publish.extend(asked_keys.iter().map(keys::below));
        for e in endpoints.iter().filter(|e| e.asker.role() <= role) {
            publish.push(match e.address {
                Address::Cluster => {
                    let subject = Subject::cluster(e.concern, e.verb);
                    subject.map_err(|e| invalid(&e))?.to_string()
                }
                Address::Host => Subject::to_any_host(e.concern, e.verb).map_err(|e| invalid(&e))?,
            });
        }
        publish.extend(following(events::STREAM));
        Ok(Self {
            party,
            publish,
            subscribe: vec![inbox],
            answers_max: 0,
        })
    }

    /// A user as it stands in a server's configuration, below `authorization.users` or an account's `users`. By `nkey` when one is
    /// given, else by a password that the server takes from its environment.
    pub fn server_conf(&self, nkey: Option<&str>) -> String {
        let quoted = |subjects: &[String]| {
            let lines = subjects
                .iter()
                .map(|subject| format!("      {}", Value::from(subject.as_str())));
            lines.collect::<Vec<_>>().join("\n")
        };
        let who = match nkey {
            Some(nkey) => format!("nkey: {nkey}"),
            None => format!(
                "user: {}, password: ${}",
                Value::from(self.party.user()),
                self.password_variable()
            ),
        };
        let answers = match self.answers_max {
            0 => String::new(),
            max => format!("\n    allow_responses: {{ max: {max}, expires: \"{ANSWER_WITHIN_S}s\" }}"),
        };
        format!(
            "{{\n  {who}\n  permissions: {{\n    publish: {{ allow: [\n{}\n    ] }}\n    subscribe: {{ allow: [\n{}\n    ] \
             }}{answers}\n  }}\n}}\n",
            quoted(&self.publish),
            quoted(&self.subscribe)
        )
    }

    /// The variable of the server's environment that has the password.
    pub fn password_variable(&self) -> String {
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        };
        let (kind, name) = match &self.party {
            Sender::Host(host) => ("HOST", host.as_str()),
            Sender::Person(person) => ("PERSON", person.as_str()),
        };
        let name: String = name.chars().map(plain).collect();
        format!("WINDLASS_{kind}_{name}_PASSWORD")
    }

    /// A user's JWT for the holder of `nkey`, signed by the account whose seed is there.
    ///
    /// # Errors
    /// `Denied` when it can't be read, `Invalid` when it holds no account's seed. The seed is in neither.
    pub fn signed(&self, name: &str, nkey: &str, place: &Reference) -> Result<String, NatsError> {
        let seed = place
            .read()
            .map_err(|e| NatsError::new(Kind::Denied, e.to_string()).caused_by(e))?;
        let not_one = || NatsError::new(Kind::Invalid, format!("{place} holds no seed of an account (SA...)"));
        let account = KeyPair::from_seed(seed.expose().trim()).map_err(|_it_may_be_quoted| not_one())?;
        if account.key_pair_type() != KeyPairType::Account {
            return Err(not_one());
        }
        let claims = json!({
            "jti": blake3::hash(self.claims().to_string().as_bytes()).to_hex().to_string(), "iss": account.public_key(),
            "name": name, "sub": nkey, "nats": self.claims(),
        });
        let encode = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let head = encode(&json!({"typ": "JWT", "alg": "ed25519-nkey"}));
        let text = format!("{head}.{}", encode(&claims));
        let signature = account.sign(text.as_bytes()).map_err(|_no_seed| not_one())?;
        Ok(format!("{text}.{}", BASE64URL_NOPAD.encode(&signature)))
    }

    /// The part `nats` of a user's JWT.
    pub fn claims(&self) -> Value {
        let mut claims = json!({
            "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1,
            "pub": {"allow": self.publish}, "sub": {"allow": self.subscribe},
        });
        if self.answers_max > 0 {
            claims["resp"] = json!({"max": self.answers_max, "ttl": ANSWER_WITHIN_S * 1_000_000_000});
        }
        claims
    }
}

/// Checks that a text is the public key of a user.
///
/// # Errors
/// `Invalid` when it isn't.
pub fn check_user_key(text: &str) -> Result<(), NatsError> {
    match KeyPair::from_public_key(text) {
        Ok(key) if key.key_pair_type() == KeyPairType::User => Ok(()),
        _ => Err(
            NatsError::new(Kind::Invalid, "that is no public key of a user of NATS (U...)")
                .hint("nk -gen user -pubout"),
        ),
    }
}

fn invalid(why: &dyn std::fmt::Display) -> NatsError {
    NatsError::new(Kind::Invalid, format!("a subject can't be made: {why}"))
}

fn api(what: &str, stream: &str) -> String {
    format!("{API}.{what}.{stream}")
}

/// A queue of jobs: what is put into it and taken from it, and what is said of its jobs.
fn of_queue(concerns: &[ConcernName], host: Option<&HostId>) -> Vec<String> {
    let token = JobSubject::queue_token(host);
    let mut allowed: Vec<String> = ["job", "dead", "request"]
        .map(|kind| format!("{}.{kind}.{token}.*", records::SUBJECTS))
        .into();
    for concern in concerns {
        let (name, waiting) = (queue::consumer_name(concern, host), JobSubject::queue(concern, host));
        let stream = queue::STREAM;
        allowed.push(waiting.clone());
        // the filter is a part of the subject, so that no consumer of this name can have another one
        allowed.push(format!("{}.{name}.{waiting}", api("CONSUMER.CREATE", stream)));
        allowed.push(format!("{}.{name}", api("CONSUMER.MSG.NEXT", stream)));
        allowed.push(format!("{ACK}.{stream}.{name}.>"));
    }
    allowed
}

/// The streams of a fleet: they are made where they are missing, looked at, read by key, and followed.
fn of_streams() -> Vec<String> {
    let mut allowed = Vec::new();
    for stream in [kept_state::STREAM, events::STREAM, queue::STREAM, records::STREAM] {
        allowed.extend(["STREAM.INFO", "STREAM.CREATE"].map(|what| api(what, stream)));
    }
    for stream in [kept_state::STREAM, queue::STREAM, records::STREAM] {
        allowed.push(api("STREAM.MSG.GET", stream));
    }
    for stream in [kept_state::STREAM, events::STREAM] {
        allowed.extend(following(stream));
    }
    allowed
}

/// Following a stream by a consumer that the servers forget when nobody reads it.
fn following(stream: &str) -> Vec<String> {
    let create = api("CONSUMER.CREATE", stream);
    vec![
        create.clone(),
        format!("{create}.>"),
        format!("{}.*", api("CONSUMER.MSG.NEXT", stream)),
        format!("{}.*", api("CONSUMER.INFO", stream)),
        format!("{}.*", api("CONSUMER.DELETE", stream)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(host: &str) -> Grants {
        Grants {
            concerns: vec![ConcernName::new("snapshot").unwrap()],
            endpoints: wire::catalog::endpoints(),
            own_keys: vec![Key::new(format!("hosts/beats/{host}")).unwrap()],
            shared_keys: vec![Prefix::below(&Key::new("rack_scheduler").unwrap())],
        }
    }

    /// NATS's own rule of wildcards.
    fn covers(pattern: &str, subject: &str) -> bool {
        let pattern = pattern.split(' ').next().unwrap();
        let (mut wanted, mut tokens) = (pattern.split('.'), subject.split('.'));
        loop {
            match (wanted.next(), tokens.next()) {
                (Some(">"), Some(_)) | (None, None) => return true,
                (Some("*"), Some(_)) => {}
                (Some(a), Some(b)) if a == b => {}
                _ => return false,
            }
        }
    }

    #[test]
    fn a_host_reaches_nothing_of_another() {
        let host = HostId::new("h1").unwrap();
        let allowed = Permissions::of_host(&host, &grants("h1")).unwrap();
        let publishes = |subject: &str| allowed.publish.iter().any(|p| covers(p, subject));
        let hears = |subject: &str| allowed.subscribe.iter().any(|p| covers(p, subject));
        for own in [
            "$KV.windlass.hosts.beats.h1",
            "windlass.v1.event.snapshot.created.h1",
            "windlass.v1.job.snapshot.h1.01J",
            "$KV.windlass_jobs.job.@any.01J",
            "windlass.v1.host.h2.rack_scheduler.provide",
        ] {
            assert!(publishes(own), "{own}");
        }
        for foreign in [
            "$KV.windlass.hosts.beats.h2",
            "$KV.windlass_jobs.job.h2.01J",
            "windlass.v1.event.snapshot.created.h2",
            "windlass.v1.event.snapshot.created",
            "windlass.v1.host.h2.snapshot.restore",
            "windlass.v1.job.snapshot.h2.01J",
            "_INBOX.h2.x",
            "_INBOX.@ada.x",
            "$JS.API.CONSUMER.MSG.NEXT.WINDLASS_JOBS.snapshot-on-h2",
            "$JS.API.CONSUMER.CREATE.WINDLASS_JOBS.snapshot-on-h1.windlass.v1.job.snapshot.h2.*",
            "$JS.API.CONSUMER.CREATE.WINDLASS_JOBS.other",
            "$JS.ACK.WINDLASS_JOBS.snapshot-on-h2.1.2.3.4.5",
            "$JS.API.STREAM.PURGE.WINDLASS_JOBS",
            "$JS.API.STREAM.DELETE.KV_windlass",
            "$JS.API.STREAM.UPDATE.KV_windlass",
            "$JS.API.STREAM.MSG.DELETE.WINDLASS_JOBS",
            "$JS.API.STREAM.MSG.GET.OTHERS",
            "$JS.API.STREAM.INFO.OTHERS",
            "$SYS.REQ.ACCOUNT.PING",
        ] {
            assert!(!publishes(foreign), "{foreign}");
        }
        assert!(hears("_INBOX.h1.x") && hears("windlass.v1.host.h1.house.status"));
        for foreign in [
            "_INBOX.h2.x",
            "windlass.v1.host.h2.house.status",
            "windlass.v1.event.a.b.h2",
        ] {
            assert!(!hears(foreign), "{foreign}");
        }
        let grouped = allowed
            .subscribe
            .iter()
            .filter(|s| s.starts_with("windlass.v1.") && !s.contains(".host."));
        assert!(
            grouped.clone().count() > 0 && grouped.clone().all(|s| s.contains(' ')),
            "only in its group"
        );
    }

    #[test]
    fn a_person_asks_what_their_role_may() {
        let ada = PersonId::new("ada").unwrap();
        let of = |role| Permissions::of_person(&ada, role, &wire::catalog::endpoints(), &[]).unwrap();
        let asks = |role, subject: &str| of(role).publish.iter().any(|p| covers(p, subject));
        let table = [
            ("windlass.v1.host.h1.house.status", [true, true, true]),
            ("windlass.v1.host.h1.snapshot.create", [false, true, true]),
            ("windlass.v1.host.h1.snapshot.forget", [false, false, true]),
            ("$KV.windlass.hosts.orders.h1", [false, false, false]),
            ("windlass.v1.job.snapshot.h1.01J", [false, false, false]),
        ];
        for (subject, may) in table {
            assert_eq!(Role::ALL.map(|role| asks(role, subject)), may, "{subject}");
        }
        assert_eq!(of(Role::Admin).subscribe, ["_INBOX.@ada.>"]);
        assert!(!of(Role::Admin).server_conf(None).contains("allow_responses"));
    }
}
