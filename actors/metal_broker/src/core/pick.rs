//! Holding machines against one role: what the policy allows, what a machine costs, and of what parts.
//!
//! A class is judged once for all its machines, lazily and the cheapest first; machines only where the policy reads what is their
//! own. What a class is judged by a rule that reads neither request nor time holds until the inventory or the policy changes, and
//! is kept in the [`Order`].

use std::collections::BTreeMap;
use std::sync::OnceLock;

use wire::metal_broker::{ClusterAsk, Health, Machine, RuleError, Term};

use super::ask::Role;
use super::fleet::{Fleet, Unit};
use super::forecast::Outlook;
use super::machine::{DIMENSIONS, NAMES};
use super::policy::values::{self, Scope, Shown};
use super::policy::{ONE, Policy, Rule};
use super::replay::excess;
use super::set::Offer;
use crate::{Kind, MetalError, Result};

/// What a rule said: yes, no, or why it erred.
type Verdict = std::result::Result<bool, String>;

/// A fleet in the order that a policy gives it: valid until either changes.
#[derive(Debug)]
pub struct Order {
    /// What counts against each machine whoever wants it: health, wear, dirt, in millionths.
    pub blemish: Vec<i64>,
    /// The machines of each class, those with the fewest blemishes first.
    pub members: Vec<Vec<u32>>,
    verdicts: Vec<OnceLock<Verdict>>,
    hardware: Vec<OnceLock<Shown>>,
}

fn blemish(machine: &Machine, policy: &Policy) -> i64 {
    let weights = &policy.weights;
    let health = match machine.health {
        Health::Ok => 0,
        Health::Unknown => weights.health / 2,
        Health::Warning | Health::Critical => weights.health,
    };
    let wear = weights.wear * machine.wear_percent.min(100) as i64 / 100;
    health + wear + if machine.clean { 0 } else { weights.clean }
}

impl Order {
    /// Of a fleet, by a policy.
    pub fn of(fleet: &Fleet, policy: &Policy) -> Self {
        let blemish: Vec<i64> = fleet.units.iter().map(|u| blemish(&u.machine, policy)).collect();
        let sorted = |members: &Vec<u32>| {
            let mut members = members.clone();
            members.sort_by_key(|at| (blemish[*at as usize], *at));
            members
        };
        Self {
            members: fleet.classes.iter().map(|c| sorted(&c.members)).collect(),
            verdicts: empty(fleet.classes.len() * policy.rules.len()),
            hardware: empty(fleet.classes.len()),
            blemish,
        }
    }
}

fn empty<T>(n: usize) -> Vec<OnceLock<T>> {
    (0..n).map(|_| OnceLock::new()).collect()
}

/// What a selection is made from.
#[derive(Debug, Clone, Copy)]
pub struct Market<'a> {
    /// The machines.
    pub fleet: &'a Fleet,
    /// The policy.
    pub policy: &'a Policy,
    /// The fleet in the policy's order.
    pub order: &'a Order,
    /// What is expected.
    pub outlook: &'a Outlook,
    /// Now, Unix milliseconds.
    pub now_ms: u64,
}

/// Rules that erred, by name.
pub type Errors = BTreeMap<String, RuleError>;

/// One role before the market.
#[derive(Debug)]
pub struct Judge<'a> {
    market: Market<'a>,
    role: &'a Role,
    cluster: Shown,
    time: &'a Shown,
    beyond: u64,
    short: Vec<i64>,
    racks: BTreeMap<u32, Shown>,
}

impl<'a> Judge<'a> {
    /// For a role of a request.
    pub fn new(market: Market<'a>, ask: &ClusterAsk, role: &'a Role, time: &'a Shown) -> Self {
        let outlook = market.outlook;
        let (beyond, short) = match outlook.gate.open {
            true => {
                let free = outlook.free(market.fleet.classes.iter().map(|c| c.free));
                (outlook.beyond(&role.need), outlook.short(&free, role.count as u64))
            }
            false => (0, Vec::new()),
        };
        Self {
            market,
            role,
            cluster: values::cluster(ask, role),
            time,
            beyond,
            short,
            racks: BTreeMap::new(),
        }
    }

    /// What counts against a class but for scores: excess, price, forecast.
    fn class_cost(&self, class: u32) -> i64 {
        let Market { fleet, policy, .. } = self.market;
        let hardware = &fleet.classes[class as usize].hardware;
        let over = excess(
            &hardware.amounts,
            &self.role.need.amounts,
            &fleet.scale,
            &policy.weights,
        );
        over + self.price(class) + self.forecast(class)
    }
    fn price(&self, class: u32) -> i64 {
        let price = self.market.fleet.classes[class as usize].hardware.price_class;
        self.market.policy.weights.price * price as i64 / wire::metal_broker::PRICE_CLASS_MAX as i64
    }
    fn forecast(&self, class: u32) -> i64 {
        if self.beyond == 0 {
            return 0;
        }
        let missed = self.market.outlook.missed(class as usize, self.beyond, &self.short);
        missed * self.market.policy.weights.forecast / ONE
    }

    fn note(&self, rule: &Rule, machine: &str, why: String, errors: &mut Errors) -> Result<()> {
        if rule.required {
            return Err(MetalError::new(
                Kind::Invalid,
                format!(
                    "policy {}: required rule '{}' errs on machine {machine}: {why}; nothing was selected",
                    self.market.policy.name, rule.name
                ),
            )
            .hint("windlass metal policy test FILE REQUEST"));
        }
        let seen = errors.entry(rule.name.clone()).or_insert_with(|| RuleError {
            rule: rule.name.clone(),
            machine: machine.to_owned(),
            why,
            times: 0,
        });
        seen.times += 1;
        Ok(())
    }

    fn scope_of_class(&self, class: u32) -> Scope<'_> {
        let Market { fleet, order, .. } = self.market;
        let hardware = &fleet.classes[class as usize].hardware;
        Scope {
            machine: order.hardware[class as usize].get_or_init(|| values::hardware(hardware)),
            cluster: &self.cluster,
            rack: None,
            time: self.time,
        }
    }
    fn some_machine(&self, class: u32) -> &str {
        let fleet = self.market.fleet;
        let first = fleet.classes[class as usize].members.first();
        first.map_or("", |at| &fleet.unit(*at).machine.id)
    }

    /// The first rule by hardware alone that a class fails.
    fn class_fails(&self, class: u32, errors: &mut Errors) -> Result<Option<&'a str>> {
        let Market { policy, order, .. } = self.market;
        for (n, rule) in policy.rules.iter().enumerate().filter(|(_, r)| !r.facts.per_machine) {
            let asked = || policy.allows(rule, &self.scope_of_class(class));
            let verdict = match rule.facts.per_ask {
                true => asked(),
                false => order.verdicts[class as usize * policy.rules.len() + n]
                    .get_or_init(asked)
                    .clone(),
            };
            match verdict {
                Ok(true) => {}
                Ok(false) => return Ok(Some(&rule.name)),
                Err(why) => self.note(rule, self.some_machine(class), why, errors)?,
            }
        }
        Ok(None)
    }
    fn class_scores(&self, class: u32, errors: &mut Errors) -> Result<i64> {
        let policy = self.market.policy;
        let mut sum = 0;
        for score in policy.scores.iter().filter(|s| !s.facts.per_machine) {
            match policy.counts(score, &self.scope_of_class(class)) {
                Ok(counts) => sum += counts,
                Err(why) => self.note(score, self.some_machine(class), why, errors)?,
            }
        }
        Ok(sum)
    }

    /// The first rule that a machine fails by what is its own.
    fn unit_fails(&mut self, unit: &Unit, errors: &mut Errors) -> Result<Option<&'a str>> {
        let policy = self.market.policy;
        if self.role.need.clean && !unit.machine.clean {
            return Ok(Some("it isn't clean"));
        }
        if policy.rules.iter().all(|r| !r.facts.per_machine) {
            return Ok(None);
        }
        let machine = self.own(unit);
        for rule in policy.rules.iter().filter(|r| r.facts.per_machine) {
            match policy.allows(rule, &self.scope_of(unit, &machine)) {
                Ok(true) => {}
                Ok(false) => return Ok(Some(&rule.name)),
                Err(why) => self.note(rule, &unit.machine.id, why, errors)?,
            }
        }
        Ok(None)
    }
    fn unit_scores(&mut self, unit: &Unit, errors: &mut Errors) -> Result<i64> {
        let policy = self.market.policy;
        if policy.scores.iter().all(|s| !s.facts.per_machine) {
            return Ok(0);
        }
        let (machine, mut sum) = (self.own(unit), 0);
        for score in policy.scores.iter().filter(|s| s.facts.per_machine) {
            match policy.counts(score, &self.scope_of(unit, &machine)) {
                Ok(counts) => sum += counts,
                Err(why) => self.note(score, &unit.machine.id, why, errors)?,
            }
        }
        Ok(sum)
    }
    fn own(&mut self, unit: &Unit) -> Shown {
        let fleet = self.market.fleet;
        let rack = || values::rack(&fleet.racks[unit.rack as usize]);
        self.racks.entry(unit.rack).or_insert_with(rack);
        values::machine(&fleet.classes[unit.class as usize].hardware, &unit.machine)
    }
    fn scope_of<'s>(&'s self, unit: &Unit, machine: &'s Shown) -> Scope<'s> {
        Scope {
            machine,
            cluster: &self.cluster,
            rack: self.racks.get(&unit.rack),
            time: self.time,
        }
    }

    /// Classes that do, with what each costs, the cheapest first.
    fn classes(&self, errors: &mut Errors) -> Result<Vec<(i64, u32)>> {
        let mut classes = Vec::new();
        for class in self.market.fleet.fitting(&self.role.need) {
            classes.push((self.class_cost(class) + self.class_scores(class, errors)?, class));
        }
        classes.sort_unstable();
        Ok(classes)
    }

    /// The best machine for one node: what it costs, and which. Of equals the first by id.
    ///
    /// # Errors
    /// `Invalid` where a required rule errs.
    pub fn single(&mut self, errors: &mut Errors) -> Result<Option<(i64, u32)>> {
        let Market { fleet, order, .. } = self.market;
        let mut best: Option<(i64, u32)> = None;
        for (cost, class) in self.classes(errors)? {
            if best.is_some_and(|(least, _)| cost > least) {
                break;
            }
            if self.class_fails(class, errors)?.is_some() {
                continue;
            }
            for &at in &order.members[class as usize] {
                let cost = cost + order.blemish[at as usize];
                if best.is_some_and(|least| (cost, at) >= least) {
                    // machines of a class come with ever more blemishes, and scores only add
                    break;
                }
                let unit = fleet.unit(at);
                if !unit.is_free() || self.unit_fails(unit, errors)?.is_some() {
                    continue;
                }
                let offer = (cost + self.unit_scores(unit, errors)?, at);
                best = best.map_or(Some(offer), |least| Some(least.min(offer)));
            }
        }
        Ok(best)
    }

    /// Every machine that may serve the role.
    ///
    /// # Errors
    /// `Invalid` where a required rule errs.
    pub fn offers(&mut self, errors: &mut Errors) -> Result<Vec<Offer>> {
        let Market { fleet, order, .. } = self.market;
        let mut offers = Vec::new();
        for (cost, class) in self.classes(errors)? {
            if self.class_fails(class, errors)?.is_some() {
                continue;
            }
            for &at in &order.members[class as usize] {
                let unit = fleet.unit(at);
                if unit.is_free() && self.unit_fails(unit, errors)?.is_none() {
                    let own = order.blemish[at as usize] + self.unit_scores(unit, errors)?;
                    offers.push(Offer {
                        cost: cost + own,
                        unit: at,
                        domain: unit.domain(self.role.domain),
                    });
                }
            }
        }
        Ok(offers)
    }

    /// The policy's rule that a machine fails whose hardware does.
    ///
    /// # Errors
    /// `Invalid` where a required rule errs.
    pub fn fails(&mut self, at: u32, errors: &mut Errors) -> Result<Option<&'a str>> {
        let unit = self.market.fleet.unit(at);
        match self.class_fails(unit.class, errors)? {
            Some(rule) => Ok(Some(rule)),
            None => self.unit_fails(unit, errors),
        }
    }

    /// What a machine costs, by parts that aren't 0.
    ///
    /// # Errors
    /// `Invalid` where a required score errs.
    pub fn terms(&mut self, at: u32, errors: &mut Errors) -> Result<Vec<Term>> {
        let Market {
            fleet, policy, order, ..
        } = self.market;
        let unit = fleet.unit(at);
        let hardware = &fleet.classes[unit.class as usize].hardware;
        let mut terms = Vec::new();
        let mut add = |name: String, cost_millionths: i64| {
            if cost_millionths != 0 {
                terms.push(Term { name, cost_millionths });
            }
        };
        for d in 0..DIMENSIONS {
            let (mut has, mut need) = ([0; DIMENSIONS], [0; DIMENSIONS]);
            (has[d], need[d]) = (hardware.amounts[d], self.role.need.amounts[d]);
            add(
                format!("excess.{}", NAMES[d]),
                excess(&has, &need, &fleet.scale, &policy.weights),
            );
        }
        add("price".into(), self.price(unit.class));
        add("forecast".into(), self.forecast(unit.class));
        add("blemish".into(), order.blemish[at as usize]);
        let machine = self.own(unit);
        for score in &policy.scores {
            match policy.counts(score, &self.scope_of(unit, &machine)) {
                Ok(counts) => add(score.name.clone(), counts),
                Err(why) => self.note(score, &unit.machine.id, why, errors)?,
            }
        }
        Ok(terms)
    }
}
