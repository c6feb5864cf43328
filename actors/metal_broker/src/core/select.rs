//! From a request to machines: one node by the cheapest-first search, more as a set; and where it doesn't fit, what is missing.

use std::collections::BTreeMap;

use wire::metal_broker::{Chosen, ClusterAsk, ForecastUse, Health, Missing, Selection};

use super::ask::Role;
use super::fleet::{Busy, Fleet, Unit};
use super::pick::{Errors, Judge, Market};
use super::policy::values;
use super::set::{Choice, Wish, choose};
use crate::Result;

/// Nodes that stand already, where machines are replaced: role and machine, by index.
pub type Standing = Vec<(usize, u32)>;

/// What was chosen.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// The machines of each role.
    pub choice: Choice,
    /// Rules that erred.
    pub errors: Errors,
}

impl Outcome {
    /// Every node has a machine.
    pub fn fits(&self) -> bool {
        self.choice.missing.iter().all(|n| *n == 0)
    }
}

/// Chooses.
///
/// # Errors
/// `Invalid` where a required rule errs.
pub fn select(market: Market<'_>, ask: &ClusterAsk, roles: &[Role], standing: &Standing) -> Result<Outcome> {
    let time = values::time(market.now_ms);
    let mut errors = Errors::new();
    let stands = |role: usize| standing.iter().filter(move |(r, _)| *r == role);
    let wanted: Vec<usize> = (0..roles.len())
        .map(|r| roles[r].count.saturating_sub(stands(r).count()))
        .collect();
    let one_alone = standing.is_empty() && wanted.iter().sum::<usize>() == 1;
    if one_alone {
        let mut choice = Choice {
            chosen: vec![Vec::new(); roles.len()],
            missing: wanted.clone(),
            cost: 0,
        };
        let only = wanted.iter().position(|n| *n == 1).unwrap_or(0);
        let best = Judge::new(market, ask, &roles[only], &time).single(&mut errors)?;
        if let Some(offer) = best {
            (choice.chosen[only], choice.missing[only], choice.cost) = (vec![offer], 0, offer.0);
        }
        return Ok(Outcome { choice, errors });
    }
    let mut wishes = Vec::new();
    for (at, role) in roles.iter().enumerate() {
        let mut domains: BTreeMap<u32, usize> = BTreeMap::new();
        for (_, unit) in stands(at) {
            *domains.entry(market.fleet.unit(*unit).domain(role.domain)).or_default() += 1;
        }
        wishes.push(Wish {
            count: wanted[at],
            per_domain_max: role.per_domain_max,
            standing: domains,
            offers: match wanted[at] {
                0 => Vec::new(),
                _ => Judge::new(market, ask, role, &time).offers(&mut errors)?,
            },
        });
    }
    let choice = choose(&wishes, market.policy.weights.spread);
    Ok(Outcome { choice, errors })
}

/// The answer to a request.
///
/// # Errors
/// As [`select`].
pub fn report(market: Market<'_>, ask: &ClusterAsk, roles: &[Role], age_s: u64) -> Result<(Selection, Outcome)> {
    let outcome = select(market, ask, roles, &Standing::new())?;
    let fits = outcome.fits();
    let time = values::time(market.now_ms);
    let (mut chosen, mut missing) = (Vec::new(), Vec::new());
    let mut unheard = Errors::new();
    for (role, (picked, short)) in roles
        .iter()
        .zip(outcome.choice.chosen.iter().zip(&outcome.choice.missing))
    {
        let mut judge = Judge::new(market, ask, role, &time);
        for (cost, at) in picked.iter().filter(|_| fits) {
            let machine = &market.fleet.unit(*at).machine;
            chosen.push(Chosen {
                role: role.name.clone(),
                machine: machine.id.clone(),
                rack: machine.rack.clone(),
                zone: machine.zone.clone(),
                cost_millionths: *cost,
                terms: judge.terms(*at, &mut unheard)?,
            });
        }
        if *short > 0 {
            missing.push(lacking(market, role, *short as u64, &mut judge)?);
        }
    }
    let gate = &market.outlook.gate;
    let selection = Selection {
        fits,
        chosen,
        cost_millionths: if fits { outcome.choice.cost } else { 0 },
        policy: market.policy.name.clone(),
        forecast: ForecastUse {
            used: gate.open,
            why: gate.why.clone(),
        },
        rule_errors: outcome.errors.values().cloned().collect(),
        missing,
        inventory_age_s: age_s,
    };
    Ok((selection, outcome))
}

/// Why a machine can't be had now, whoever asks; and what would have to change.
pub fn not_free(unit: &Unit) -> Option<(String, String)> {
    let told = match &unit.busy {
        Some(Busy::Claimed(cluster)) => (
            format!("cluster {cluster} has it"),
            format!("release of cluster {cluster}"),
        ),
        Some(Busy::Quarantined(why)) => (
            format!("it is quarantined: {why}"),
            format!("windlass metal quarantine {} --lift", unit.machine.id),
        ),
        None if unit.machine.taken => (
            "its provider has it in hand".into(),
            "the provider lets go of it".into(),
        ),
        None if unit.machine.health == Health::Critical => ("its health is critical".into(), "a repair".into()),
        None => return None,
    };
    Some(told)
}

/// What most machines fail by that might serve a role.
fn lacking(market: Market<'_>, role: &Role, nodes: u64, judge: &mut Judge<'_>) -> Result<Missing> {
    let fleet: &Fleet = market.fleet;
    let mut reasons: BTreeMap<String, (u64, String)> = BTreeMap::new();
    let (mut unheard, mut may) = (Errors::new(), 0);
    for (at, unit) in (0_u32..).zip(&fleet.units) {
        let class = &fleet.classes[unit.class as usize];
        let fails = match class.hardware.lacks(&role.need) {
            Some((_, change)) => Some((format!("lack: {change}"), change)),
            None => not_free(unit),
        };
        let fails = match fails {
            Some(fails) => Some(fails),
            None => judge.fails(at, &mut unheard)?.map(|rule| {
                (
                    format!("rule '{rule}'"),
                    format!("rule '{rule}' of policy {}", market.policy.name),
                )
            }),
        };
        match fails {
            None => may += 1,
            Some((why, change)) => {
                let why = if why.starts_with("cluster ") {
                    "a cluster has it".into()
                } else {
                    why
                };
                let reason = reasons.entry(why).or_insert((0, change));
                reason.0 += 1;
            }
        }
    }
    let all = fleet.units.len();
    let most = reasons.into_iter().max_by_key(|(_, (n, _))| *n);
    let (why, change) = match most {
        None if all == 0 => (
            "there are no machines".to_owned(),
            "a provider with machines".to_owned(),
        ),
        None => (
            format!("{may} of {all} machines may serve, and they stand in too few places or serve other roles"),
            "a higher per_domain_max, or more machines in other domains".to_owned(),
        ),
        Some((why, (n, change))) => (
            format!("{may} of {all} machines may serve; {n} of the others by: {why}"),
            change,
        ),
    };
    Ok(Missing {
        role: role.name.clone(),
        nodes,
        why,
        change,
    })
}
