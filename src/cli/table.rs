//! Aligned columns of plain text.

use std::fmt::Write as _;

/// Columns with headings; the last column isn't padded.
#[derive(Debug, Default)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

#[derive(Debug)]
struct Column {
    heading: &'static str,
    right: bool,
}

/// Spaces between two columns.
const GAP: &str = "  ";

impl Table {
    /// A table without columns.
    pub fn new() -> Self {
        Self::default()
    }
    /// Adds a column of text.
    pub fn text(mut self, heading: &'static str) -> Self {
        self.columns.push(Column { heading, right: false });
        self
    }
    /// Adds a column of numbers, aligned to the right.
    pub fn number(mut self, heading: &'static str) -> Self {
        self.columns.push(Column { heading, right: true });
        self
    }
    /// Adds a row; cells that are missing stay empty.
    pub fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows.push(cells.into_iter().map(|c| one_line(&c.into())).collect());
    }
    /// True when there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
    /// The text, each line ended.
    pub fn render(&self) -> String {
        let width = |text: &str| text.chars().count();
        let cell = |row: &[String], i: usize| row.get(i).cloned().unwrap_or_default();
        let widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(i, c)| {
                self.rows
                    .iter()
                    .map(|r| width(&cell(r, i)))
                    .max()
                    .unwrap_or(0)
                    .max(width(c.heading))
            })
            .collect();
        let headings: Vec<String> = self.columns.iter().map(|c| c.heading.to_owned()).collect();
        let mut text = String::new();
        for row in std::iter::once(&headings).chain(&self.rows) {
            let mut line = String::new();
            for (i, column) in self.columns.iter().enumerate() {
                let value = cell(row, i);
                let pad = " ".repeat(widths[i].saturating_sub(width(&value)));
                let gap = if i == 0 { "" } else { GAP };
                let _ = if column.right {
                    write!(line, "{gap}{pad}{value}")
                } else {
                    write!(line, "{gap}{value}{pad}")
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Names and values below each other.
pub fn pairs<T: Into<String>>(pairs: impl IntoIterator<Item = (&'static str, T)>) -> String {
    let pairs: Vec<(&str, String)> = pairs.into_iter().map(|(n, v)| (n, one_line(&v.into()))).collect();
    let width = pairs.iter().map(|(n, _)| n.chars().count()).max().unwrap_or(0);
    pairs.iter().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{name:width$}{GAP}{value}");
        text
    })
}

/// Control characters (a path may have any) would break the layout, or the terminal.
pub fn one_line(text: &str) -> String {
    if text.chars().any(char::is_control) {
        text.escape_debug().to_string()
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_tail() {
        let mut table = Table::new().text("NAME").number("SIZE").text("PATH");
        table.row(["a", "1.0 KiB", "/x"]);
        table.row(["longer", "9 B", "/y\n\u{1b}[2J"]);
        table.row(["b"]);
        assert_eq!(
            table.render(),
            "NAME       SIZE  PATH\na       1.0 KiB  /x\nlonger      9 B  /y\\n\\u{1b}[2J\nb\n"
        );
        assert_eq!(pairs([("id", "x"), ("longer", "y")]), "id      x\nlonger  y\n");
    }
}
