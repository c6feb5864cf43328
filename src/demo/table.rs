//! The closing table.

use std::time::Duration;

/// One step of the demo; `None` is shown as a dash: the step does no such thing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Row {
    /// What was done.
    pub step: String,
    /// Bytes allocated to the disk at the time.
    pub on_disk: Option<u64>,
    /// Bytes read from the disk.
    pub read: Option<u64>,
    /// Bytes put into the repository, as stored.
    pub stored: Option<u64>,
    /// Bytes copied from elsewhere on the disk.
    pub copied: Option<u64>,
    /// Bytes that came from the repository, as stored.
    pub fetched: Option<u64>,
    /// Bytes written to the disk.
    pub written: Option<u64>,
    /// How long the command took.
    pub took: Duration,
}

const HEAD: [&str; 8] = [
    "step", "on disk", "read", "stored", "copied", "fetched", "written", "seconds",
];

/// The table, as wide as its cells want it: the first column to the left, figures to the right.
pub(crate) fn render(rows: &[Row]) -> String {
    let mut lines = vec![HEAD.map(str::to_owned)];
    lines.extend(rows.iter().map(|row| {
        let cell = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), bytes);
        [
            row.step.clone(),
            cell(row.on_disk),
            cell(row.read),
            cell(row.stored),
            cell(row.copied),
            cell(row.fetched),
            cell(row.written),
            format!("{:.2}", row.took.as_secs_f64()),
        ]
    }));
    let width = |column: usize| lines.iter().map(|l| l[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        let mut shown = format!("{:<w$}", line[0], w = widths[0]);
        for (cell, w) in line.iter().zip(&widths).skip(1) {
            shown.push_str(&format!("  {cell:>w$}"));
        }
        text.push_str(shown.trim_end());
        text.push('\n');
        if number == 0 {
            text.push_str(&"-".repeat(widths.iter().sum::<usize>() + 2 * (HEAD.len() - 1)));
            text.push('\n');
        }
    }
    text
}

/// A count of bytes for people: three figures and a unit of 1024.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{count} B"),
        _ if value < 10.0 => format!("{value:.2} {}", UNITS[unit]),
        _ if value < 100.0 => format!("{value:.1} {}", UNITS[unit]),
        _ => format!("{value:.0} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_three_figures() {
        for (count, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1 << 20, "1.00 MiB"),
            (295 << 20, "295 MiB"),
            (3 << 29, "1.50 GiB"),
            (1023 << 20, "1.00 GiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn columns_line_up_and_absent_figures_are_dashes() {
        let rows = [
            Row {
                step: "snapshot".into(),
                read: Some(5 << 20),
                took: Duration::from_millis(1500),
                ..Row::default()
            },
            Row {
                step: "a longer step".into(),
                ..Row::default()
            },
        ];
        let text = render(&rows);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines.iter().all(|l| l.len() == lines[0].len()), "{text}");
        assert!(
            lines[2].contains("5.00 MiB") && lines[2].ends_with("1.50") && lines[3].contains(" - "),
            "{text}"
        );
    }
}
