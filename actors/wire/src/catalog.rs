//! Every endpoint and event with its schema. `windlass schema` prints it; golden tests keep it from drifting.

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use crate::subject::{HostId, Subject, SubjectError};

/// Who answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// Any host that serves the concern.
    Cluster,
    /// One host: the request names a path, pid, NIC or device there.
    Host,
}

/// What a request does, and so what it takes to be heard in a fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// It looks, and changes nothing. Nobody has to sign it.
    Reads,
    /// It changes something: a member of the fleet signs it.
    Changes,
    /// The same, and its concern keeps request ids: under one request id it has one effect, whoever sends it again.
    ChangesOnce,
}

impl Intent {
    /// True when a member of the fleet has to stand behind it.
    pub fn is_signed(self) -> bool {
        self != Intent::Reads
    }
}

/// What a person may do. Each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look: what there is, how it is, what was done. No bytes of disks.
    Viewer,
    /// Run the place: snapshots and their return, placements, jobs, hosts' orders.
    Operator,
    /// Everything: what forgets or deletes, what writes to a path that the asker names, what says how things are to be.
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 3] = [Role::Viewer, Role::Operator, Role::Admin];
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Role {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|role| role.as_str() == text);
        known.ok_or_else(|| format!("'{text}' is no role; there are viewer, operator and admin"))
    }
}

/// Who may ask a verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// Anybody who is let in.
    Viewer,
    /// Operators and admins.
    Operator,
    /// Admins.
    Admin,
    /// Hosts ask it of each other; of people, admins.
    Host,
}

impl Asker {
    /// The least role of a person that may ask.
    pub fn role(self) -> Role {
        match self {
            Self::Viewer => Role::Viewer,
            Self::Operator => Role::Operator,
            Self::Admin | Self::Host => Role::Admin,
        }
    }
}

/// A request type names its subject and its reply.
pub trait Request: Serialize + DeserializeOwned + JsonSchema + Send + 'static {
    /// What comes back in `{"ok": …}`.
    type Reply: Serialize + DeserializeOwned + JsonSchema + Send + 'static;
    /// The concern's one spelling.
    const CONCERN: &'static str;
    /// The verb.
    const VERB: &'static str;
    /// Who answers.
    const ADDRESS: Address;
    /// What it does. Who doesn't say is taken to change something.
    const INTENT: Intent = Intent::Changes;
    /// One line for people.
    const ABOUT: &'static str;
    /// Who may ask; who doesn't say leaves it to admins.
    const ASKER: Asker = Asker::Admin;
    /// A full example, for golden tests and documents.
    fn sample() -> Self;
    /// A full example of the reply.
    fn sample_reply() -> Self::Reply;
    /// The subject to send this to; `host` counts only for [`Address::Host`].
    fn subject(host: &HostId) -> Result<Subject, SubjectError> {
        match Self::ADDRESS {
            Address::Cluster => Subject::cluster(Self::CONCERN, Self::VERB),
            Address::Host => Subject::host(host, Self::CONCERN, Self::VERB),
        }
    }
}

/// An event's data names its subject.
pub trait Topic: Serialize + DeserializeOwned + JsonSchema + Send + 'static {
    /// The concern's one spelling.
    const CONCERN: &'static str;
    /// What happened.
    const WHAT: &'static str;
    /// One line for people.
    const ABOUT: &'static str;
    /// A full example, for golden tests and documents.
    fn sample() -> Self;
    /// The subject that this is published on.
    fn subject() -> Result<Subject, SubjectError> {
        Subject::event(Self::CONCERN, Self::WHAT)
    }
}

type SchemaOf = fn(&mut SchemaGenerator) -> Value;

/// One request of the catalog.
pub struct Endpoint {
    /// The concern's one spelling.
    pub concern: &'static str,
    /// The verb.
    pub verb: &'static str,
    /// Who answers.
    pub address: Address,
    /// What it does.
    pub intent: Intent,
    /// One line for people.
    pub about: &'static str,
    /// Who may ask.
    pub asker: Asker,
    /// Example of the request and of the reply.
    pub samples: (Value, Value),
    request_schema: SchemaOf,
    reply_schema: SchemaOf,
}

impl Endpoint {
    /// JSON Schemas of the request and of the reply, each whole in itself.
    pub fn schemas(&self) -> (Value, Value) {
        let settings = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
        let mut generator = settings.into_generator();
        (
            (self.request_schema)(&mut generator),
            (self.reply_schema)(&mut generator),
        )
    }
}

/// One event of the catalog.
pub struct EventKind {
    /// The concern's one spelling.
    pub concern: &'static str,
    /// What happened.
    pub what: &'static str,
    /// One line for people.
    pub about: &'static str,
    /// Example of the data.
    pub sample: Value,
    schema: SchemaOf,
}

fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    generator.subschema_for::<T>().to_value()
}

fn value<T: Serialize>(sample: T) -> Value {
    serde_json::to_value(sample).unwrap_or(Value::Null)
}

/// The messages of one concern, a row each.
#[derive(Default)]
pub struct Room {
    endpoints: Vec<Endpoint>,
    events: Vec<EventKind>,
}

impl Room {
    /// Adds a request.
    pub fn request<R: Request>(mut self) -> Self {
        self.endpoints.push(Endpoint {
            concern: R::CONCERN,
            verb: R::VERB,
            address: R::ADDRESS,
            intent: R::INTENT,
            about: R::ABOUT,
            asker: R::ASKER,
            samples: (value(R::sample()), value(R::sample_reply())),
            request_schema: schema_of::<R>,
            reply_schema: schema_of::<R::Reply>,
        });
        self
    }
    /// Adds an event.
    pub fn topic<T: Topic>(mut self) -> Self {
        self.events.push(EventKind {
            concern: T::CONCERN,
            what: T::WHAT,
            about: T::ABOUT,
            sample: value(T::sample()),
            schema: schema_of::<T>,
        });
        self
    }
}

/// The role that a request to `subject` needs; of one that no room has, the highest.
pub fn role_of(subject: &Subject) -> Role {
    let known = endpoints()
        .into_iter()
        .find(|e| e.concern == subject.concern() && e.verb == subject.verb());
    known.map_or(Role::Admin, |e| e.asker.role())
}

/// All requests, room by room.
pub fn endpoints() -> Vec<Endpoint> {
    crate::ROOMS.iter().flat_map(|room| room().endpoints).collect()
}

/// All events, room by room.
pub fn events() -> Vec<EventKind> {
    crate::ROOMS.iter().flat_map(|room| room().events).collect()
}

/// The AsyncAPI 3.0 document of the whole wire, with JSON Schemas under `components.schemas`.
pub fn asyncapi(version: &str) -> Value {
    let mut generator = SchemaSettings::draft2020_12()
        .with(|s| s.definitions_path = "/components/schemas".into())
        .into_generator();
    let (mut channels, mut operations, mut messages) = (Map::new(), Map::new(), Map::new());
    for e in endpoints() {
        let id = format!("{}_{}", e.concern, e.verb);
        let (address, host) = match e.address {
            Address::Cluster => (format!("windlass.v1.{}.{}", e.concern, e.verb), None),
            Address::Host => (
                format!("windlass.v1.host.{{host}}.{}.{}", e.concern, e.verb),
                Some(json!({"host": {"description": "The host's id"}})),
            ),
        };
        let answer = json!({
            "oneOf": [
                {"type": "object", "properties": {"ok": (e.reply_schema)(&mut generator)}, "required": ["ok"]},
                {"type": "object", "properties": {"error": schema_of::<crate::ErrorBody>(&mut generator)}, "required": ["error"]},
            ]
        });
        messages.insert(
            format!("{id}_request"),
            json!({
                "summary": e.about, "contentType": "application/json", "x-windlass-signed": e.intent.is_signed(),
                "payload": (e.request_schema)(&mut generator), "examples": [{"payload": e.samples.0}],
            }),
        );
        messages.insert(
            format!("{id}_answer"),
            json!({
                "contentType": "application/json", "payload": answer, "examples": [{"payload": {"ok": e.samples.1}}],
            }),
        );
        let mut channel = json!({
            "address": address,
            "x-role": e.asker.role(),
            "messages": {"request": {"$ref": format!("#/components/messages/{id}_request")}},
        });
        if let Some(parameters) = host {
            channel["parameters"] = parameters;
        }
        channels.insert(id.clone(), channel);
        channels.insert(
            format!("{id}_reply"),
            json!({
                "address": null,
                "messages": {"answer": {"$ref": format!("#/components/messages/{id}_answer")}},
            }),
        );
        operations.insert(
            id.clone(),
            json!({
                "action": "receive", "channel": {"$ref": format!("#/channels/{id}")}, "summary": e.about,
                "reply": {"channel": {"$ref": format!("#/channels/{id}_reply")}},
            }),
        );
    }
    for e in events() {
        let id = format!("event_{}_{}", e.concern, e.what);
        messages.insert(id.clone(), json!({
            "summary": e.about, "contentType": "application/cloudevents+json",
            "payload": {
                "type": "object",
                "description": "CloudEvents 1.0, structured mode",
                "required": ["specversion", "id", "source", "type", "time", "datacontenttype", "data"],
                "properties": {
                    "specversion": {"const": "1.0"}, "id": {"type": "string"}, "source": {"type": "string"},
                    "type": {"const": format!("windlass.{}.{}", e.concern, e.what)}, "time": {"type": "string", "format": "date-time"},
                    "datacontenttype": {"const": "application/json"}, "data": (e.schema)(&mut generator),
                },
            },
            "examples": [{"payload": {"data": e.sample}}],
        }));
        channels.insert(
            id.clone(),
            json!({
                "address": format!("windlass.v1.event.{}.{}", e.concern, e.what),
                "messages": {"event": {"$ref": format!("#/components/messages/{id}")}},
            }),
        );
        operations.insert(
            id.clone(),
            json!({
                "action": "send", "channel": {"$ref": format!("#/channels/{id}")}, "summary": e.about,
            }),
        );
    }
    let schemas = generator.take_definitions(true);
    json!({
        "asyncapi": "3.0.0",
        "info": {"title": "windlass", "version": version,
            "description": "Requests are answered with {\"ok\": …} or {\"error\": {code, message, hint, retry_after_ms}}."},
        "defaultContentType": "application/json",
        "channels": channels, "operations": operations,
        "components": {"messages": messages, "schemas": schemas},
    })
}

#[cfg(test)]
mod tests;
