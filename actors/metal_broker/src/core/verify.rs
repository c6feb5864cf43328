//! Whether a machine still is what it was chosen for, as its provider shows it at the moment of the claim.

use wire::metal_broker::{Health, Machine, Member};

use super::ask::Need;
use super::machine::{WORDS, amounts, flaw};

/// What became of a machine between select and claim; `None` where it is as promised.
pub fn differs(promised: &Member, need: &Need, now: &Machine) -> Option<String> {
    if let Some(flaw) = flaw(now) {
        return Some(flaw);
    }
    if now.rack != promised.rack || now.zone != promised.zone {
        return Some(format!(
            "it stands in rack {}, zone {}; rack {}, zone {} was promised",
            now.rack, now.zone, promised.rack, promised.zone
        ));
    }
    if now.health == Health::Critical {
        return Some("its health is critical".into());
    }
    let short = amounts(now)
        .into_iter()
        .zip(need.amounts)
        .position(|(has, wanted)| has < wanted);
    if let Some(d) = short {
        return Some(format!(
            "it has {} {} now, {} are needed",
            amounts(now)[d],
            WORDS[d],
            need.amounts[d]
        ));
    }
    if need.clean && !now.clean {
        return Some("it isn't clean any more".into());
    }
    None
}

/// Whether a machine that came up stands where it was promised; what it says instead.
pub fn elsewhere(promised: &Member, rack: Option<&str>, zone: Option<&str>) -> Option<String> {
    let other = |what: &str, promised: &str, real: Option<&str>| match real {
        Some(real) if real != promised => Some(format!("{what} {real}, {promised} was promised")),
        _ => None,
    };
    other("rack", &promised.rack, rack).or_else(|| other("zone", &promised.zone, zone))
}
