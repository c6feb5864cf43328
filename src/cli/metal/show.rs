//! Replies of the metal broker as text for people.

use std::fmt::Write as _;

use wire::metal_broker::{
    Cluster, ClusterListing, ClusterState, Explanation, ForecastReport, ForecastUse, Health, InventoryReport, Machine,
    MachineState, MemberState, PolicyReport, Quarantined, RuleRow, Selection, Term,
};

use crate::cli::table::{Table, pairs};
use crate::cli::units::{count, time};

fn state(state: ClusterState) -> &'static str {
    match state {
        ClusterState::Claiming => "claiming",
        ClusterState::Leased => "leased",
        ClusterState::Confirmed => "confirmed",
        ClusterState::Released => "released",
        ClusterState::Void => "void",
    }
}

fn machine_state(state: MachineState) -> &'static str {
    match state {
        MachineState::Free => "free",
        MachineState::Claimed => "claimed",
        MachineState::Quarantined => "quarantined",
        MachineState::Taken => "taken",
        MachineState::Broken => "broken",
    }
}

/// Millionths as a number of four digits behind the point.
fn cost(millionths: i64) -> String {
    format!("{:.4}", millionths as f64 / 1e6)
}

fn terms(terms: &[Term]) -> String {
    let told: Vec<String> = terms
        .iter()
        .map(|t| format!("{} {}", t.name, cost(t.cost_millionths)))
        .collect();
    told.join(", ")
}

fn forecast_line(forecast: &ForecastUse) -> String {
    format!(
        "{}: {}",
        if forecast.used { "counts" } else { "doesn't count" },
        forecast.why
    )
}

/// `windlass metal select`, `policy test`
pub fn selection(s: &Selection) -> String {
    let head = pairs([
        ("fits", if s.fits { "yes" } else { "no" }.to_owned()),
        ("policy", s.policy.clone()),
        ("cost", cost(s.cost_millionths)),
        ("forecast", forecast_line(&s.forecast)),
        ("inventory", format!("{} s old", count(s.inventory_age_s))),
    ]);
    let mut table = Table::new()
        .text("ROLE")
        .text("MACHINE")
        .text("RACK")
        .text("ZONE")
        .number("COST")
        .text("OF");
    for c in &s.chosen {
        table.row([
            c.role.clone(),
            c.machine.clone(),
            c.rack.clone(),
            c.zone.clone(),
            cost(c.cost_millionths),
            terms(&c.terms),
        ]);
    }
    let mut text = format!("{head}\n");
    if !table.is_empty() {
        text.push_str(&table.render());
    }
    for m in &s.missing {
        let _ = writeln!(text, "missing: {} of role {}: {}", count(m.nodes), m.role, m.why);
        let _ = writeln!(text, "it would take: {}", m.change);
    }
    for e in &s.rule_errors {
        let _ = writeln!(
            text,
            "rule '{}' erred {} times and excluded nothing, such as on {}: {}",
            e.rule,
            count(e.times),
            e.machine,
            e.why
        );
    }
    text
}

/// `windlass metal explain`
pub fn explanation(e: &Explanation) -> String {
    let mut table = Table::new()
        .text("MACHINE")
        .text("ROLE")
        .text("WHY NOT")
        .text("WHAT WOULD HAVE TO CHANGE");
    for o in &e.others {
        let why = match (&o.fails, o.costs_more_millionths) {
            (Some(fails), _) => fails.clone(),
            (None, Some(more)) => format!("costs {} more: {}", cost(more), terms(&o.terms)),
            (None, None) => "it may serve".into(),
        };
        table.row([o.machine.clone(), o.role.clone(), why, o.change.clone()]);
    }
    let mut text = format!("{}\n{}", selection(&e.selection), table.render());
    if e.others_left_out > 0 {
        let _ = writeln!(text, "and {} more; --machine ID tells of one", count(e.others_left_out));
    }
    text
}

/// `windlass metal claim`, `confirm`, `release`, `show`
pub fn cluster(c: &Cluster) -> String {
    let mut head = vec![
        ("cluster", c.id.clone()),
        ("tenant", c.tenant.clone()),
        ("state", state(c.state).to_owned()),
        ("since", time(&c.claimed_at)),
    ];
    if let Some(name) = &c.ask.name {
        head.push(("name", name.clone()));
    }
    if !c.replaced.is_empty() {
        head.push(("replaced", c.replaced.join(", ")));
    }
    if c.duplicate {
        head.push(("request", "came before; this is what became of it".into()));
    }
    let mut table = Table::new()
        .text("ROLE")
        .text("MACHINE")
        .text("STATE")
        .text("RACK")
        .text("ZONE")
        .text("PROVIDER");
    for m in &c.members {
        let state = match m.state {
            MemberState::Leased => "leased",
            MemberState::Up => "up",
        };
        table.row([
            m.role.clone(),
            m.machine.clone(),
            state.to_owned(),
            m.rack.clone(),
            m.zone.clone(),
            m.provider.clone(),
        ]);
    }
    format!("{}\n{}", pairs(head), table.render())
}

/// `windlass metal quarantine`
pub fn quarantined(q: &Quarantined) -> String {
    let what = match q.quarantined {
        true => "is kept from being chosen",
        false => "may be chosen again",
    };
    match &q.cluster {
        Some(cluster) => format!("machine {} {what}; cluster {cluster} has it meanwhile\n", q.machine),
        None => format!("machine {} {what}\n", q.machine),
    }
}

fn hardware(m: &Machine) -> String {
    let mut text = format!("{} cores, {} GiB", m.cores, m.memory_gib);
    if m.disk_gib > 0 {
        let _ = write!(text, ", {} GiB disk", m.disk_gib);
    }
    if m.gpus > 0 {
        let _ = write!(text, ", {} {}", m.gpus, m.gpu_model.as_deref().unwrap_or("GPUs"));
    }
    if m.nics > 0 {
        let _ = write!(text, ", {} NICs of {} Gbit/s", m.nics, m.nic_gbps);
    }
    text
}

fn health(health: Health) -> &'static str {
    match health {
        Health::Ok => "ok",
        Health::Unknown => "unknown",
        Health::Warning => "warning",
        Health::Critical => "critical",
    }
}

/// `windlass metal inventory`
pub fn inventory(r: &InventoryReport) -> String {
    let mut providers = Table::new()
        .text("PROVIDER")
        .text("KIND")
        .number("MACHINES")
        .number("AGE S");
    let mut troubles = String::new();
    for p in &r.providers {
        let age = p.age_s.map_or_else(|| "never read".into(), count);
        providers.row([p.name.clone(), p.kind.clone(), count(p.machines), age]);
        for trouble in &p.troubles {
            let _ = writeln!(troubles, "{}: {}", p.name, crate::cli::table::one_line(trouble));
        }
    }
    let mut machines = Table::new()
        .text("MACHINE")
        .text("STATE")
        .text("HEALTH")
        .text("LOCATION")
        .text("RACK")
        .text("HARDWARE")
        .text("CLUSTER");
    for row in &r.machines {
        let m = &row.machine;
        machines.row([
            m.id.clone(),
            machine_state(row.state).to_owned(),
            health(m.health).to_owned(),
            m.location.clone(),
            m.rack.clone(),
            hardware(m),
            row.cluster.clone().unwrap_or_default(),
        ]);
    }
    format!(
        "{}{troubles}\n{} machines of {} hardware classes\n{}",
        providers.render(),
        count(r.machines_total),
        count(r.classes),
        machines.render()
    )
}

fn rules(heading: &'static str, rules: &[RuleRow]) -> String {
    let mut table = Table::new()
        .text(heading)
        .text("ASKED OF")
        .text("AN ERROR")
        .number("STEPS MAX");
    for r in rules {
        table.row([
            r.name.clone(),
            if r.per_class { "each class" } else { "each machine" }.to_owned(),
            if r.required { "stops the selection" } else { "is told" }.to_owned(),
            count(r.cost),
        ]);
    }
    match table.is_empty() {
        true => String::new(),
        false => table.render(),
    }
}

/// `windlass metal policy check`, `set`
pub fn policy(p: &PolicyReport) -> String {
    let whose = match &p.tenant {
        Some(tenant) => format!("policy {} is tenant {tenant}'s now\n", p.name),
        None => format!("policy {} can be read\n", p.name),
    };
    format!("{whose}{}{}", rules("RULE", &p.rules), rules("SCORE", &p.scores))
}

/// `windlass metal forecast`
pub fn forecast(f: &ForecastReport) -> String {
    let head = pairs([
        ("forecast", forecast_line(&f.gate)),
        ("horizon", format!("{} h", f.horizon_s / 3_600)),
        (
            "windows",
            format!("{} h and {} h", f.long_window_s / 3_600, f.short_window_s / 3_600),
        ),
    ]);
    let mut table = Table::new()
        .text("NODE")
        .number("SEEN")
        .number("LATELY")
        .number("EXPECTED")
        .number("FREE")
        .number("CHANCE OF TOO FEW");
    for d in &f.demand {
        table.row([
            d.need.clone(),
            count(d.seen_long),
            count(d.seen_short),
            format!("{:.1}", d.expected_milli as f64 / 1e3),
            count(d.free),
            format!("{:.1} %", d.short_millionths as f64 / 1e4),
        ]);
    }
    format!("{head}\n{}", table.render())
}

/// `windlass metal ls`
pub fn clusters(l: &ClusterListing) -> String {
    if l.clusters.is_empty() {
        return "no clusters\n".into();
    }
    let mut table = Table::new()
        .text("ID")
        .text("SINCE")
        .text("STATE")
        .number("MACHINES")
        .text("NAME");
    for c in &l.clusters {
        table.row([
            c.id.clone(),
            time(&c.claimed_at),
            state(c.state).to_owned(),
            count(c.machines),
            c.name.clone().unwrap_or_default(),
        ]);
    }
    table.render()
}
