//! A customer's policy: weights, hard rules and scores. Rules and scores are CEL expressions over `machine`, `cluster`, `rack` and
//! `time`; they are compiled once, and what one evaluation may cost is known then ([`cost`]): an expression that could take more is
//! refused before it ever runs.
//!
//! A rule that errs excludes nothing: the error is told with the selection. Of a `required` rule it stops the selection.

pub mod cost;
pub mod shipped;
pub mod values;

use std::sync::Arc;

use cel::{Context, Env, Program, Value};
use serde::Deserialize;
use wire::metal_broker::{POLICY_BYTES_MAX, PolicyReport, RuleRow};

use self::cost::Facts;
use self::values::Scope;
use super::machine::{DIMENSIONS, NAMES};
use crate::{Kind, MetalError, Result};

/// Most rules, and most scores.
const RULES_MAX: usize = 64;
/// Longest expression, in bytes.
const EXPRESSION_BYTES_MAX: usize = 4_096;
/// Most steps of one evaluation.
pub const COST_MAX: u64 = 20_000;
/// The largest weight.
const WEIGHT_MAX: f64 = 1_000.0;
/// A weight of 1.
pub const ONE: i64 = 1_000_000;

/// What counts how much, in millionths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weights {
    /// Excess, by dimension; all of what the largest machine has counts once.
    pub excess: [i64; DIMENSIONS],
    /// The price class; the dearest counts once.
    pub price: i64,
    /// Health: a warning counts once, no word half.
    pub health: i64,
    /// Wear: all of it counts once.
    pub wear: i64,
    /// A machine that isn't clean.
    pub clean: i64,
    /// The chance that what would be left over is wanted soon.
    pub forecast: i64,
    /// Each pair of a role's nodes in one domain.
    pub spread: i64,
}

/// A rule or a score.
#[derive(Debug)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// An error of it stops the selection.
    pub required: bool,
    /// A score's weight, in millionths.
    pub weight: i64,
    /// What it reads, and what it may cost.
    pub facts: Facts,
    program: Program,
}

/// CEL's functions, which have nothing to print.
struct Functions(Arc<Env>);

impl std::fmt::Debug for Functions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the standard functions")
    }
}

/// A policy.
#[derive(Debug)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// What counts how much.
    pub weights: Weights,
    /// Each must allow a machine.
    pub rules: Vec<Rule>,
    /// What counts beside the weights.
    pub scores: Vec<Rule>,
    functions: Functions,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    name: String,
    #[serde(default)]
    weights: WeightsText,
    #[serde(default)]
    rules: Vec<RuleText>,
    #[serde(default)]
    scores: Vec<ScoreText>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WeightsText {
    cores: Option<f64>,
    memory_gib: Option<f64>,
    disk_gib: Option<f64>,
    gpus: Option<f64>,
    nics: Option<f64>,
    nic_gbps: Option<f64>,
    price: Option<f64>,
    health: Option<f64>,
    wear: Option<f64>,
    clean: Option<f64>,
    forecast: Option<f64>,
    spread: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    name: String,
    allow: String,
    #[serde(default)]
    required: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScoreText {
    name: String,
    value: String,
    weight: f64,
    #[serde(default)]
    required: bool,
}

fn wrong(message: impl Into<String>) -> MetalError {
    MetalError::new(Kind::Invalid, message).hint("windlass metal policy check FILE")
}

fn millionths(name: &str, weight: Option<f64>, preset: f64) -> Result<i64> {
    let weight = weight.unwrap_or(preset);
    if !(0.0..=WEIGHT_MAX).contains(&weight) {
        return Err(wrong(format!(
            "weight {name} is {weight}; it is from 0 to {WEIGHT_MAX}; nothing was changed"
        )));
    }
    Ok((weight * 1e6).round() as i64)
}

impl Weights {
    fn of(text: &WeightsText) -> Result<Self> {
        let given = [
            text.cores,
            text.memory_gib,
            text.disk_gib,
            text.gpus,
            text.nics,
            text.nic_gbps,
        ];
        let mut excess = [0; DIMENSIONS];
        for d in 0..DIMENSIONS {
            excess[d] = millionths(NAMES[d], given[d], 1.0)?;
        }
        Ok(Self {
            excess,
            price: millionths("price", text.price, 0.0)?,
            health: millionths("health", text.health, 0.5)?,
            wear: millionths("wear", text.wear, 0.1)?,
            clean: millionths("clean", text.clean, 0.2)?,
            forecast: millionths("forecast", text.forecast, 1.0)?,
            spread: millionths("spread", text.spread, 0.05)?,
        })
    }
}

impl Policy {
    /// Reads a policy of TOML and compiles it.
    ///
    /// # Errors
    /// `Invalid`: what can't be read, an expression that can't be compiled, names what there is not, or may cost too much.
    pub fn read(text: &str) -> Result<Self> {
        if text.len() > POLICY_BYTES_MAX {
            return Err(wrong(format!(
                "a policy of {} bytes; at most {POLICY_BYTES_MAX}; nothing was changed",
                text.len()
            )));
        }
        let text: Text = toml::from_str(text).map_err(|e| {
            wrong(format!(
                "the policy can't be read: {}; nothing was changed",
                e.to_string().trim()
            ))
        })?;
        super::name::check_name("policy", &text.name)?;
        if text.rules.len() > RULES_MAX || text.scores.len() > RULES_MAX {
            return Err(wrong(format!(
                "policy {}: more than {RULES_MAX} rules or scores; nothing was changed",
                text.name
            )));
        }
        let env = Arc::new(Env::stdlib());
        let rule = |r: &RuleText| compile(&env, &text.name, &r.name, &r.allow, r.required, 0);
        let score = |s: &ScoreText| {
            let weight = millionths(&s.name, Some(s.weight), 0.0)?;
            compile(&env, &text.name, &s.name, &s.value, s.required, weight)
        };
        Ok(Self {
            weights: Weights::of(&text.weights)?,
            rules: text.rules.iter().map(rule).collect::<Result<_>>()?,
            scores: text.scores.iter().map(score).collect::<Result<_>>()?,
            name: text.name.clone(),
            functions: Functions(env),
        })
    }
    /// For people.
    pub fn report(&self) -> PolicyReport {
        let rows = |rules: &[Rule]| {
            let row = |r: &Rule| RuleRow {
                name: r.name.clone(),
                per_class: !r.facts.per_machine,
                required: r.required,
                cost: r.facts.cost,
            };
            rules.iter().map(row).collect()
        };
        PolicyReport {
            name: self.name.clone(),
            rules: rows(&self.rules),
            scores: rows(&self.scores),
            tenant: None,
        }
    }
    /// Whether a rule allows what the scope holds.
    ///
    /// # Errors
    /// Why it erred, for people.
    pub fn allows(&self, rule: &Rule, scope: &Scope<'_>) -> std::result::Result<bool, String> {
        match self.value(rule, scope)? {
            Value::Bool(allowed) => Ok(allowed),
            other => Err(format!("it gives {}; true or false is wanted", other.type_of())),
        }
    }
    /// What a score counts, in millionths: its value from 0 to 1 times its weight. What is beyond counts as the bound.
    ///
    /// # Errors
    /// Why it erred, for people.
    pub fn counts(&self, score: &Rule, scope: &Scope<'_>) -> std::result::Result<i64, String> {
        let value = match self.value(score, scope)? {
            Value::Float(value) if value.is_finite() => value,
            Value::Int(value) => value as f64,
            Value::UInt(value) => value as f64,
            Value::Bool(value) => f64::from(u8::from(value)),
            Value::Float(_) => return Err("it gives no finite number".into()),
            other => return Err(format!("it gives {}; a number is wanted", other.type_of())),
        };
        Ok((value.clamp(0.0, 1.0) * score.weight as f64).round() as i64)
    }
    fn value(&self, rule: &Rule, scope: &Scope<'_>) -> std::result::Result<Value, String> {
        let mut context = Context::with_env(self.functions.0.clone());
        context.set_variable_resolver(scope);
        rule.program.execute(&context).map_err(|e| {
            let mut text = e.to_string();
            if text.len() > 300 {
                text = text.chars().take(300).collect::<String>() + "…";
            }
            text
        })
    }
}

fn compile(env: &Arc<Env>, policy: &str, name: &str, source: &str, required: bool, weight: i64) -> Result<Rule> {
    let at = format!(
        "policy {policy}, '{}'",
        name.chars().take(64).collect::<String>().escape_debug()
    );
    if name.is_empty() || name.len() > 64 {
        return Err(wrong(format!(
            "{at}: a rule's name has 1 to 64 bytes; nothing was changed"
        )));
    }
    if source.len() > EXPRESSION_BYTES_MAX {
        return Err(wrong(format!(
            "{at}: an expression of {} bytes; at most {EXPRESSION_BYTES_MAX}; nothing was changed",
            source.len()
        )));
    }
    let program = env.compile(source).map_err(|e| {
        wrong(format!(
            "{at} can't be compiled: {}; nothing was changed",
            e.to_string().trim()
        ))
    })?;
    let facts = Facts::of(program.expression()).map_err(|why| wrong(format!("{at} {why}; nothing was changed")))?;
    if facts.cost > COST_MAX {
        return Err(wrong(format!(
            "{at} may take {} steps; at most {COST_MAX}; nothing was changed",
            facts.cost
        )));
    }
    Ok(Rule {
        name: name.to_owned(),
        required,
        weight,
        facts,
        program,
    })
}
