//! Makes a failing plan small: fewer things that happen, fewer faults of the network, fewer hosts, as long as something is wrong.

use planted::Fault;

use super::plan::Plan;
use super::run::{Outcome, run};

/// Runs that shrinking may take.
const RUNS_MAX: usize = 1_500;
/// What a world's hosts say all the time; left out of what is printed unless `WINDLASS_SIM_TRACE` is set.
const CHATTER: [&str; 2] = ["$KV.windlass.hosts.beats.", "$KV.windlass.hosts.leases."];

/// The smallest plan that is found and still goes wrong.
pub fn shrink(plan: &Plan, fault: Option<Fault>) -> Plan {
    let mut smallest = plan.clone();
    let mut runs = 0;
    'again: loop {
        for smaller in smallest.smaller() {
            runs += 1;
            if runs > RUNS_MAX {
                return smallest;
            }
            if run(&smaller, fault, false).wrong.is_some() {
                smallest = smaller;
                continue 'again;
            }
        }
        return smallest;
    }
}

/// For people.
pub fn report(plan: &Plan, outcome: &Outcome) -> String {
    let wrong = outcome.wrong.as_deref().unwrap_or("nothing");
    let all = std::env::var_os("WINDLASS_SIM_TRACE").is_some();
    let told = |line: &&String| all || !CHATTER.iter().any(|chatter| line.contains(chatter));
    let shown: Vec<&str> = outcome.trace.iter().filter(told).map(String::as_str).collect();
    format!("{plan}wrong: {wrong}\n{}", shown.join("\n"))
}
