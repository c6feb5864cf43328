//! `windlass rack map`: racks, hosts, how full they are, and a placement's groups in colours.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use wire::rack_scheduler::{HostRow, HostState, RackRow, RoomReport};

/// Eighths of a cell.
const FILL: [char; 9] = [
    ' ', '\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}', '\u{2588}',
];
/// Colours of groups, as terminals number them (256 colours) and as SVG writes them; told apart by people who don't see all
/// colours as well (Okabe and Ito, 2008).
const COLOURS: [(u8, &str); 7] = [
    (214, "#E69F00"),
    (74, "#56B4E9"),
    (36, "#009E73"),
    (227, "#F0E442"),
    (25, "#0072B2"),
    (166, "#D55E00"),
    (175, "#CC79A7"),
];
/// What no group of the placement has.
const OTHERS: &str = "#9a9a9a";
/// Side of a host's cell in the picture, and what is between two, in pixels.
const CELL_PX: usize = 18;
const GAP_PX: usize = 4;
/// Width of a rack's name in the picture, in pixels.
const NAME_PX: usize = 120;

/// How full a host is by its scarcer of vCPUs and memory, in eighths.
fn eighths(host: &HostRow) -> usize {
    let share = |used: u64, all: u64| (u128::from(used) * 8).checked_div(u128::from(all)).unwrap_or(0) as usize;
    let (booked, sold) = (&host.booked, &host.sold);
    let most = share(booked.vcpus, sold.vcpus).max(share(booked.memory_mib, sold.memory_mib));
    most.clamp(usize::from(!host.vms.is_empty()), 8)
}

/// The colour number of each group of the placement, by `<placement>/<group>`.
fn colours(report: &RoomReport, placement: Option<&str>) -> BTreeMap<String, usize> {
    let mut names: Vec<&String> = report
        .racks
        .iter()
        .flat_map(|r| &r.hosts)
        .flat_map(|h| h.vms.keys())
        .collect();
    names.retain(|name| placement.is_some_and(|p| name.split_once('/').is_some_and(|(id, _)| id == p)));
    // g2 before g10
    names.sort_by_key(|name| (name.len(), (*name).clone()));
    names.dedup();
    names
        .into_iter()
        .cloned()
        .enumerate()
        .map(|(n, name)| (name, n % COLOURS.len()))
        .collect()
}

fn colour_of(host: &HostRow, colours: &BTreeMap<String, usize>) -> Option<usize> {
    host.vms.keys().find_map(|name| colours.get(name).copied())
}

fn mark(host: &HostRow) -> Option<char> {
    match host.state {
        HostState::Up => None,
        HostState::Cordoned => Some('/'),
        HostState::Draining => Some('~'),
        HostState::Lost => Some('x'),
    }
}

fn by_row(report: &RoomReport) -> BTreeMap<(String, String), Vec<&RackRow>> {
    let mut rows: BTreeMap<(String, String), Vec<&RackRow>> = BTreeMap::new();
    for rack in &report.racks {
        rows.entry((rack.zone.clone(), rack.row.clone()))
            .or_default()
            .push(rack);
    }
    rows
}

/// For a terminal: a line a rack, a cell a host.
pub fn text(report: &RoomReport, placement: Option<&str>, colour: bool) -> String {
    let colours = colours(report, placement);
    let width = report.racks.iter().map(|r| r.id.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for ((zone, row), racks) in by_row(report) {
        let _ = writeln!(text, "zone {zone}, row {row}");
        for rack in racks {
            let mut cells = String::new();
            for host in &rack.hosts {
                let cell = mark(host).unwrap_or(FILL[eighths(host)]);
                match colour_of(host, &colours).filter(|_| colour) {
                    Some(n) => {
                        let _ = write!(cells, "\u{1b}[38;5;{}m{cell}\u{1b}[0m", COLOURS[n].0);
                    }
                    None => cells.push(cell),
                }
            }
            let mut here: Vec<&str> = rack
                .hosts
                .iter()
                .flat_map(|h| h.vms.keys())
                .filter(|n| colours.contains_key(*n))
                .filter_map(|n| Some(n.split_once('/')?.1))
                .collect();
            here.sort_unstable();
            here.dedup();
            let _ = writeln!(text, "  {:width$} |{cells}| {}", rack.id, here.join(" "));
        }
    }
    text.push_str("each cell a host, as full as it is booked; / cordoned, ~ draining, x lost\n");
    text
}

/// As a picture.
pub fn svg(report: &RoomReport, placement: Option<&str>) -> String {
    let colours = colours(report, placement);
    let most = report.racks.iter().map(|r| r.hosts.len()).max().unwrap_or(0);
    let lines = report.racks.len() + by_row(report).len();
    let (width, height) = (
        NAME_PX + most * (CELL_PX + GAP_PX) + 200,
        (lines + 2) * (CELL_PX + GAP_PX),
    );
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let mut y = GAP_PX;
    for ((zone, row), racks) in by_row(report) {
        let _ = writeln!(
            svg,
            "<text x=\"4\" y=\"{}\" font-weight=\"bold\">zone {zone}, row {row}</text>",
            y + 13
        );
        y += CELL_PX + GAP_PX;
        for rack in racks {
            let _ = writeln!(svg, "<text x=\"12\" y=\"{}\">{}</text>", y + 13, rack.id);
            for (n, host) in rack.hosts.iter().enumerate() {
                host_cell(&mut svg, host, NAME_PX + n * (CELL_PX + GAP_PX), y, &colours);
            }
            y += CELL_PX + GAP_PX;
        }
    }
    let mut x = 12;
    for (name, n) in &colours {
        let group = name.split_once('/').map_or("", |(_, group)| group);
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"10\" height=\"10\" fill=\"{}\"/><text x=\"{}\" y=\"{}\">{group}</text>",
            COLOURS[*n].1,
            x + 14,
            y + 10
        );
        x += 22 + 8 * group.len();
    }
    svg + "</svg>\n"
}

fn host_cell(svg: &mut String, host: &HostRow, x: usize, y: usize, colours: &BTreeMap<String, usize>) {
    let fill = colour_of(host, colours).map_or(OTHERS, |n| COLOURS[n].1);
    let high = CELL_PX * eighths(host) / 8;
    let border = if host.state == HostState::Up { "#444" } else { "#c00" };
    let state = mark(host).map(|m| format!(" ({m})")).unwrap_or_default();
    let names: Vec<String> = host.vms.iter().map(|(name, n)| format!("{name}: {n}")).collect();
    let _ = writeln!(
        svg,
        "<g><title>{}{state} {}</title><rect x=\"{x}\" y=\"{}\" width=\"{CELL_PX}\" height=\"{high}\" fill=\"{fill}\"/><rect x=\"{x}\" y=\"{y}\" width=\"{CELL_PX}\" height=\"{CELL_PX}\" fill=\"none\" stroke=\"{border}\"/></g>",
        host.id,
        names.join(", "),
        y + CELL_PX - high
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::Request as _;
    use wire::rack_scheduler::RackInventory;

    #[test]
    fn a_map_has_every_host_its_fill_and_its_groups() {
        let mut report = RackInventory::sample_reply();
        let id = "01JCXQ6Y9D3W6V3S1W8Y5Z4K2M";
        report.racks[0].hosts[0].booked.vcpus = 32;
        let mut lost = report.racks[0].hosts[0].clone();
        lost.state = HostState::Lost;
        lost.vms.clear();
        report.racks[0].hosts.push(lost);
        assert_eq!(
            text(&report, Some(id), false),
            "zone z1, row a\n  r17 |\u{2584}x| g0\neach cell a host, as full as it is booked; / cordoned, ~ draining, x lost\n"
        );
        assert!(text(&report, Some(id), true).contains("\u{1b}[38;5;214m\u{2584}\u{1b}[0m"));
        let picture = svg(&report, Some(id));
        assert!(picture.contains(COLOURS[0].1) && picture.contains("r17-h3 01JCXQ6Y9D3W6V3S1W8Y5Z4K2M/g0: 1"));
        assert_eq!(picture.matches("<g>").count(), 2);
    }
}
