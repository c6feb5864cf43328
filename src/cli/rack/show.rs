//! Replies of the rack scheduler as text for people, and topology as applications read it.

use std::fmt::Write as _;

use serde_json::{Value, json};
use wire::rack_scheduler::{
    EvacuateReport, Explanation, HostRow, HostState, Loaded, PlacedGroup, Placement, PlacementState, PlanReport,
    RackListing, Released, Resources, RoomReport, Shortfall, TenantQuota, Unplaced, WhatifReport,
};

use super::args::TopologyFormat;
use crate::cli::table::{Table, pairs};
use crate::cli::units::{count, size, time};

fn state(state: PlacementState) -> &'static str {
    match state {
        PlacementState::Placed => "placed",
        PlacementState::Releasing => "releasing",
        PlacementState::Released => "released",
    }
}

fn host_state(state: HostState) -> &'static str {
    match state {
        HostState::Up => "up",
        HostState::Draining => "draining",
        HostState::Lost => "lost",
        HostState::Cordoned => "cordoned",
    }
}

fn mib(mib: u64) -> String {
    size(mib.saturating_mul(1 << 20))
}

fn resources(r: &Resources) -> String {
    let parts = [
        (r.vcpus, format!("{} vCPUs", count(r.vcpus))),
        (r.memory_mib, format!("{} memory", mib(r.memory_mib))),
        (r.disk_gib, format!("{} disk", mib(r.disk_gib.saturating_mul(1024)))),
        (r.gpus, format!("{} GPUs", count(r.gpus))),
        (r.nics, format!("{} NICs", count(r.nics))),
    ];
    let some: Vec<String> = parts
        .into_iter()
        .filter(|(n, _)| *n > 0)
        .map(|(_, text)| text)
        .collect();
    if some.is_empty() {
        "nothing".into()
    } else {
        some.join(", ")
    }
}

/// `used of all` in whole percent.
fn percent(used: u64, all: u64) -> String {
    match (u128::from(used) * 100).checked_div(u128::from(all)) {
        None => "-".into(),
        Some(percent) => format!("{percent} %"),
    }
}

fn groups(groups: &[PlacedGroup]) -> String {
    let mut table = Table::new()
        .text("GROUP")
        .text("RACK")
        .text("ROW")
        .text("ZONE")
        .number("VMS")
        .number("HOSTS")
        .text("WHY");
    for g in groups {
        let vms: usize = g.hosts.iter().map(|h| h.vms.len()).sum();
        table.row([
            g.name.clone(),
            g.rack.clone().unwrap_or_else(|| "-".into()),
            g.row.clone(),
            g.zone.clone(),
            vms.to_string(),
            g.hosts.len().to_string(),
            g.why.clone(),
        ]);
    }
    table.render()
}

fn remarks(unplaced: &[Unplaced], gave_way: &[String]) -> String {
    let mut text = String::new();
    for u in unplaced {
        let _ = writeln!(text, "no place: {} VMs of group {}", count(u.vms), u.group);
    }
    for g in gave_way {
        let _ = writeln!(text, "gave way: {g}");
    }
    text
}

fn shortfall(s: &Shortfall) -> String {
    let mut text = format!("why: {}\nmissing: {}\n", s.message, resources(&s.missing));
    if let Some(change) = &s.change {
        let _ = writeln!(text, "it would fit with: {change}");
    }
    text
}

/// `windlass rack place`, `show`, `grow`, `shrink`
pub fn placement(p: &Placement) -> String {
    let mut head = vec![
        ("placement", p.id.clone()),
        ("state", state(p.state).to_owned()),
        ("since", time(&p.created_at)),
        ("version", p.version.to_string()),
    ];
    if let Some(tenant) = &p.tenant {
        head.push(("tenant", tenant.clone()));
    }
    if p.duplicate {
        head.push(("request", "came before; this is what became of it".into()));
    }
    let rest = remarks(&p.unplaced, &p.gave_way);
    format!("{}\n{}{rest}", pairs(head), groups(&p.groups))
}

/// `windlass rack plan`
pub fn plan(p: &PlanReport) -> String {
    let head = match p.fits {
        true => format!("it fits, in {} racks\n\n", p.racks),
        false => "it doesn't fit\n\n".into(),
    };
    let missing = p.shortfall.as_ref().map(shortfall).unwrap_or_default();
    format!(
        "{head}{}{}{missing}",
        groups(&p.groups),
        remarks(&p.unplaced, &p.gave_way)
    )
}

/// `windlass rack ls`
pub fn placements(listing: &RackListing) -> String {
    if listing.placements.is_empty() {
        return "no placements\n".into();
    }
    let mut table = Table::new()
        .text("ID")
        .text("SINCE")
        .text("STATE")
        .text("TENANT")
        .number("GROUPS")
        .number("VMS")
        .number("UNPLACED");
    for p in &listing.placements {
        table.row([
            p.id.clone(),
            time(&p.created_at),
            state(p.state).into(),
            p.tenant.clone().unwrap_or_default(),
            count(p.groups),
            count(p.vms),
            count(p.unplaced),
        ]);
    }
    table.render()
}

/// `windlass rack release`
pub fn released(r: &Released) -> String {
    match r.vms {
        0 => format!("{} was given back before\n", r.id),
        n => format!("{} is given back: {} VMs\n", r.id, count(n)),
    }
}

/// `windlass rack evacuate`
pub fn evacuated(r: &EvacuateReport) -> String {
    let mut text = format!(
        "{} hosts take nothing new; {} VMs moved\n",
        count(r.hosts),
        count(r.moved.len() as u64)
    );
    if !r.moved.is_empty() {
        let mut table = Table::new().text("VM").text("FROM").text("TO").text("PLACEMENT");
        for m in &r.moved {
            table.row([&m.vm, &m.from, &m.to, &m.placement].map(String::as_str));
        }
        text += &table.render();
    }
    for s in &r.stuck {
        let _ = writeln!(
            text,
            "stuck: {} VMs of group {} of {}: {}",
            s.vms, s.group, s.placement, s.why
        );
    }
    text
}

/// `windlass rack explain`
pub fn explanation(e: &Explanation) -> String {
    let mut text = String::new();
    for g in &e.groups {
        let _ = writeln!(
            text,
            "{} -> {}: {}",
            g.group,
            g.rack.as_deref().unwrap_or("nowhere"),
            g.why
        );
        let _ = writeln!(text, "  {} racks could take it alone", count(g.racks_able));
        for r in &g.refused {
            let name = serde_json::to_value(r.constraint).ok();
            let name = name.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
            let _ = writeln!(text, "  {} could not: {name} (such as {})", count(r.racks), r.example);
        }
    }
    text + &e.shortfall.as_ref().map(shortfall).unwrap_or_default()
}

/// `windlass rack whatif`
pub fn whatif(r: &WhatifReport, group_vms: u64) -> String {
    let runs_out = r.runs_out.and_then(|c| serde_json::to_value(c).ok());
    pairs([
        ("VMs that fit", count(r.vms)),
        (
            "groups",
            format!(
                "{} of {} VMs, in {} racks",
                count(r.groups),
                count(group_vms),
                count(r.racks)
            ),
        ),
        (
            "runs out first",
            runs_out
                .as_ref()
                .and_then(Value::as_str)
                .unwrap_or("nothing")
                .to_owned(),
        ),
        ("left then", resources(&r.left)),
    ])
}

/// `windlass rack inventory`
pub fn inventory(r: &RoomReport) -> String {
    if r.racks.is_empty() {
        return "no racks; windlass rack load FILE brings some\n".into();
    }
    let mut table = Table::new()
        .text("RACK")
        .text("ROW")
        .text("ZONE")
        .text("REGION")
        .number("UP")
        .number("HOSTS")
        .number("VCPUS")
        .number("MEMORY")
        .number("DISK")
        .number("GPUS");
    for rack in &r.racks {
        table.row([
            rack.id.clone(),
            rack.row.clone(),
            rack.zone.clone(),
            rack.region.clone(),
            rack.hosts_up.to_string(),
            rack.hosts_total.to_string(),
            percent(rack.booked.vcpus, rack.sold.vcpus),
            percent(rack.booked.memory_mib, rack.sold.memory_mib),
            percent(rack.booked.disk_gib, rack.sold.disk_gib),
            percent(rack.booked.gpus, rack.sold.gpus),
        ]);
    }
    let mut text = table.render();
    for rack in r.racks.iter().filter(|rack| !rack.hosts.is_empty()) {
        let _ = write!(text, "\n{}", hosts(&rack.hosts));
    }
    text
}

/// Hosts of a rack.
pub fn hosts(rows: &[HostRow]) -> String {
    let mut table = Table::new()
        .text("HOST")
        .text("STATE")
        .number("VCPUS")
        .number("MEMORY")
        .number("VMS")
        .number("DRIFT");
    for h in rows {
        table.row([
            h.id.clone(),
            host_state(h.state).into(),
            format!("{} / {}", h.booked.vcpus, h.sold.vcpus),
            format!("{} / {}", mib(h.booked.memory_mib), mib(h.sold.memory_mib)),
            h.vms.values().sum::<u64>().to_string(),
            h.drift.len().to_string(),
        ]);
    }
    table.render()
}

/// `windlass rack load`
pub fn loaded(l: &Loaded) -> String {
    format!("{} hosts in {} racks\n", count(l.hosts), count(l.racks))
}

/// `windlass rack quota`
pub fn quota(q: &TenantQuota) -> String {
    pairs([
        ("tenant", q.tenant.clone()),
        (
            "may book",
            if q.quota == Resources::default() {
                "without bound".into()
            } else {
                resources(&q.quota)
            },
        ),
        ("has booked", resources(&q.booked)),
    ])
}

/// Failure domains of each VM, for `--json`.
pub fn domains(p: &Placement) -> Value {
    let vms = each_vm(p).map(
        |(g, host, vm)| json!({"vm": vm, "group": g.name, "host": host, "rack": g.rack, "row": g.row, "zone": g.zone}),
    );
    json!({"placement": p.id, "vms": vms.collect::<Vec<_>>()})
}

fn each_vm(p: &Placement) -> impl Iterator<Item = (&PlacedGroup, &str, &str)> {
    p.groups.iter().flat_map(|g| {
        let of_host = move |h| -> Vec<_> {
            let host: &wire::rack_scheduler::PlacedHost = h;
            host.vms
                .iter()
                .map(move |vm| (g, host.host.as_str(), vm.as_str()))
                .collect()
        };
        g.hosts.iter().flat_map(of_host)
    })
}

/// `windlass rack topology`: where each VM stands, as the application reads it.
pub fn topology(p: &Placement, format: TopologyFormat) -> String {
    let mut text = String::new();
    for (g, host, vm) in each_vm(p) {
        let rack = g.rack.as_deref().unwrap_or_default();
        let _ = match format {
            // TableMapping of Hadoop: two columns, and every path of the same depth
            TopologyFormat::Hadoop => writeln!(text, "{vm} /{}/{}/{rack}", g.zone, g.row),
            TopologyFormat::Kafka => writeln!(text, "{vm} broker.rack={rack}"),
            TopologyFormat::Kubernetes => writeln!(
                text,
                "---\napiVersion: v1\nkind: Node\nmetadata:\n  name: {vm}\n  labels:\n    topology.kubernetes.io/zone: \"{}\"\n    windlass.io/row: \"{}\"\n    windlass.io/rack: \"{rack}\"\n    windlass.io/host: \"{host}\"",
                g.zone, g.row
            ),
        };
    }
    text
}
