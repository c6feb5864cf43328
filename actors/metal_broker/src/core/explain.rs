//! Why these machines and no others: for each other one the first rule that it fails, or by how much others are better, and what
//! would have to change.

use wire::metal_broker::{ClusterAsk, Explanation, Term, WhyNot};

use super::ask::Role;
use super::pick::{Errors, Judge, Market};
use super::policy::values;
use super::select::{not_free, report};
use crate::{Kind, MetalError, Result};

/// Most machines of one answer.
const OTHERS_MAX: usize = 1_000;

/// Explains.
///
/// # Errors
/// As [`report`]; `NotFound` for a machine that this tenant doesn't have.
pub fn explain(
    market: Market<'_>,
    ask: &ClusterAsk,
    roles: &[Role],
    only: Option<&str>,
    age_s: u64,
) -> Result<Explanation> {
    let (selection, outcome) = report(market, ask, roles, age_s)?;
    let fleet = market.fleet;
    let only = match only {
        None => None,
        Some(id) => Some(fleet.find(id).ok_or_else(|| {
            MetalError::new(
                Kind::NotFound,
                format!("machine {id} is not in this tenant's inventory; nothing was changed"),
            )
            .hint("windlass metal inventory")
        })?),
    };
    let time = values::time(market.now_ms);
    let fits = outcome.fits();
    let is_chosen = |at: u32| fits && outcome.choice.chosen.iter().flatten().any(|(_, c)| *c == at);
    let (mut others, mut left_out) = (Vec::new(), 0);
    for (role, picked) in roles.iter().zip(&outcome.choice.chosen) {
        let mut judge = Judge::new(market, ask, role, &time);
        let dearest = picked.last().copied().filter(|_| fits);
        for at in (0_u32..).take(fleet.units.len()) {
            if only.is_some_and(|o| o != at) || (is_chosen(at) && only.is_none()) {
                continue;
            }
            if others.len() >= OTHERS_MAX {
                left_out += 1;
                continue;
            }
            if is_chosen(at) && picked.iter().any(|(_, c)| *c == at) {
                continue;
            }
            others.push(why_not(market, role, &mut judge, at, dearest)?);
        }
    }
    Ok(Explanation {
        selection,
        others,
        others_left_out: left_out,
    })
}

fn why_not(
    market: Market<'_>,
    role: &Role,
    judge: &mut Judge<'_>,
    at: u32,
    dearest: Option<(i64, u32)>,
) -> Result<WhyNot> {
    let unit = market.fleet.unit(at);
    let mut unheard = Errors::new();
    let told = |fails: Option<String>, more: Option<i64>, terms: Vec<Term>, change: String| WhyNot {
        machine: unit.machine.id.clone(),
        role: role.name.clone(),
        fails,
        costs_more_millionths: more,
        terms,
        change,
    };
    let hardware = &market.fleet.classes[unit.class as usize].hardware;
    if let Some((fails, change)) = hardware.lacks(&role.need).or_else(|| not_free(unit)) {
        return Ok(told(Some(fails), None, vec![], change));
    }
    if let Some(rule) = judge.fails(at, &mut unheard)? {
        let change = match rule {
            "it isn't clean" => "it is wiped, or the request takes machines that aren't".to_owned(),
            rule => format!("rule '{rule}' of policy {}", market.policy.name),
        };
        return Ok(told(Some(format!("rule: {rule}")), None, vec![], change));
    }
    let mine = judge.terms(at, &mut unheard)?;
    let sum = |terms: &[Term]| terms.iter().map(|t| t.cost_millionths).sum::<i64>();
    let Some((cost, chosen)) = dearest else {
        return Ok(told(None, None, mine, "enough machines for the other nodes".into()));
    };
    let theirs = judge.terms(chosen, &mut unheard)?;
    let more = sum(&mine) - cost;
    let difference = difference(&mine, &theirs);
    let change = match (more, difference.first()) {
        (1.., Some(most)) => format!("{} millionths less, most of it by {}", more, most.name),
        (0, _) => format!(
            "a smaller id: it is as good as {}",
            market.fleet.unit(chosen).machine.id
        ),
        _ => "a domain in which fewer nodes of the role stand: the set as a whole would cost more with it".to_owned(),
    };
    Ok(told(None, Some(more), difference, change))
}

/// What is more against one machine than against another, the most first.
fn difference(mine: &[Term], theirs: &[Term]) -> Vec<Term> {
    let mut terms: Vec<Term> = mine.to_vec();
    for term in theirs {
        match terms.iter_mut().find(|t| t.name == term.name) {
            Some(same) => same.cost_millionths -= term.cost_millionths,
            None => terms.push(Term {
                name: term.name.clone(),
                cost_millionths: -term.cost_millionths,
            }),
        }
    }
    terms.retain(|t| t.cost_millionths != 0);
    terms.sort_by_key(|t| std::cmp::Reverse(t.cost_millionths));
    terms
}
