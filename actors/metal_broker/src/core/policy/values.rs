//! What expressions read.

use std::collections::HashMap;

use cel::Value;
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use wire::metal_broker::{ClusterAsk, Health, Machine};

use super::super::ask::Role;
use super::super::fleet::{Hardware, Rack};
use super::super::machine::NAMES;

/// Fields of `machine` that all of one hardware class have in common.
pub const MACHINE: &[&str] = &[
    "cores",
    "memory_gib",
    "disk_gib",
    "gpus",
    "nics",
    "nic_gbps",
    "gpu_model",
    "arch",
    "features",
    "price_class",
    "location",
];
/// Fields of `machine` that are its own.
pub const MACHINE_OWN: &[&str] = &[
    "id",
    "provider",
    "rack",
    "zone",
    "health",
    "wear_percent",
    "clean",
    "labels",
];
/// Fields of `cluster`: the request, and the role that a machine would serve.
pub const CLUSTER: &[&str] = &[
    "name",
    "role",
    "count",
    "nodes",
    "cores",
    "memory_gib",
    "disk_gib",
    "gpus",
    "nics",
    "nic_gbps",
    "gpu_model",
    "arch",
    "features",
    "location",
    "headroom_percent",
];
/// Fields of `rack`.
pub const RACK: &[&str] = &["name", "location", "machines", "free"];
/// Fields of `time`, UTC: `weekday` is 1 on Monday and 7 on Sunday.
pub const TIME: &[&str] = &["unix_s", "hour", "weekday"];

/// A value that expressions read.
pub type Shown = Box<dyn Val>;

fn shown(fields: HashMap<String, Value>) -> Shown {
    let null = || Box::new(cel::common::types::CelNull) as Shown;
    Value::from(fields).try_into().unwrap_or_else(|_| null())
}

fn number(n: u64) -> Value {
    Value::Int(i64::try_from(n).unwrap_or(i64::MAX))
}

fn text(text: &str) -> Value {
    Value::from(text)
}

fn list(words: &[String]) -> Value {
    Value::from(words.iter().map(|w| text(w)).collect::<Vec<_>>())
}

fn hardware_fields(hardware: &Hardware) -> HashMap<String, Value> {
    let mut fields: HashMap<String, Value> = NAMES
        .iter()
        .zip(hardware.amounts)
        .map(|(name, n)| ((*name).to_owned(), number(n)))
        .collect();
    fields.insert("gpu_model".into(), text(hardware.gpu_model.as_deref().unwrap_or("")));
    fields.insert("arch".into(), text(&hardware.arch));
    fields.insert("features".into(), list(&hardware.features));
    fields.insert("price_class".into(), number(hardware.price_class));
    fields.insert("location".into(), text(&hardware.location));
    fields
}

/// `machine` for a whole class.
pub fn hardware(hardware: &Hardware) -> Shown {
    shown(hardware_fields(hardware))
}

/// `machine` with what is its own.
pub fn machine(hardware: &Hardware, machine: &Machine) -> Shown {
    let mut fields = hardware_fields(hardware);
    let health = match machine.health {
        Health::Ok => "ok",
        Health::Unknown => "unknown",
        Health::Warning => "warning",
        Health::Critical => "critical",
    };
    let labels: HashMap<String, Value> = machine.labels.iter().map(|(k, v)| (k.clone(), text(v))).collect();
    fields.extend([
        ("id".to_owned(), text(&machine.id)),
        ("provider".to_owned(), text(&machine.provider)),
        ("rack".to_owned(), text(&machine.rack)),
        ("zone".to_owned(), text(&machine.zone)),
        ("health".to_owned(), text(health)),
        ("wear_percent".to_owned(), number(machine.wear_percent)),
        ("clean".to_owned(), Value::Bool(machine.clean)),
        ("labels".to_owned(), Value::from(labels)),
    ]);
    shown(fields)
}

/// `cluster` for a role.
pub fn cluster(ask: &ClusterAsk, role: &Role) -> Shown {
    let need = &role.need;
    let mut fields: HashMap<String, Value> = NAMES
        .iter()
        .zip(need.amounts)
        .map(|(name, n)| ((*name).to_owned(), number(n)))
        .collect();
    let word = |word: &Option<String>| text(word.as_deref().unwrap_or(""));
    let nodes = ask.roles.iter().fold(0_u64, |sum, r| sum.saturating_add(r.count));
    fields.extend([
        ("name".to_owned(), word(&ask.name)),
        ("role".to_owned(), text(&role.name)),
        ("count".to_owned(), number(role.count as u64)),
        ("nodes".to_owned(), number(nodes)),
        ("gpu_model".to_owned(), word(&need.gpu_model)),
        ("arch".to_owned(), word(&need.arch)),
        ("features".to_owned(), list(&need.features)),
        ("location".to_owned(), word(&need.location)),
        ("headroom_percent".to_owned(), number(ask.headroom_percent)),
    ]);
    shown(fields)
}

/// `rack`.
pub fn rack(rack: &Rack) -> Shown {
    shown(HashMap::from([
        ("name".to_owned(), text(&rack.name)),
        ("location".to_owned(), text(&rack.location)),
        ("machines".to_owned(), number(u64::from(rack.machines))),
        ("free".to_owned(), number(u64::from(rack.free))),
    ]))
}

/// `time`.
pub fn time(now_ms: u64) -> Shown {
    let (unix_s, days) = (now_ms / 1_000, now_ms / 86_400_000);
    shown(HashMap::from([
        ("unix_s".to_owned(), number(unix_s)),
        ("hour".to_owned(), number(unix_s / 3_600 % 24)),
        // the first of January 1970 was a Thursday
        ("weekday".to_owned(), number((days + 3) % 7 + 1)),
    ]))
}

/// What one evaluation reads.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// `machine`.
    pub machine: &'a Shown,
    /// `cluster`.
    pub cluster: &'a Shown,
    /// `rack`, where the expression is asked of a machine.
    pub rack: Option<&'a Shown>,
    /// `time`.
    pub time: &'a Shown,
}

impl VariableResolver for Scope<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let value = match variable {
            "machine" => self.machine,
            "cluster" => self.cluster,
            "rack" => self.rack?,
            "time" => self.time,
            _ => return None,
        };
        Some(CowVal::Borrowed(&**value))
    }
}
