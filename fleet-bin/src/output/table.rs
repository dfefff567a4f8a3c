//! Tables and figures for people.

use std::time::Duration;

use comfy_table::{Cell, Color, ContentArrangement, presets};
use serde::{Deserialize, Serialize};

use super::style;

/// Columns of a terminal below which tables are not made to fit.
const NARROW: u16 = 40;

/// A table: a head and rows of text.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
    empty: String,
}

impl Table {
    /// A table without rows; `empty` is what is printed as long as there are none.
    pub(crate) fn new(head: &[&str], empty: &str) -> Self {
        Self {
            head: head.iter().map(|name| (*name).to_owned()).collect(),
            rows: Vec::new(),
            empty: empty.to_owned(),
        }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The whole as text.
    pub(crate) fn render(self, color: bool) -> String {
        if self.rows.is_empty() {
            return self.empty;
        }
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING);
        // A terminal that does not know its width says 0, and in a very narrow one every word would be broken.
        let arrangement = match table.width() {
            Some(width) if width < NARROW => ContentArrangement::Disabled,
            _ => ContentArrangement::Dynamic,
        };
        table.set_content_arrangement(arrangement);
        if color {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table.set_header(self.head.iter().map(|name| Cell::new(name.to_uppercase())));
        for row in self.rows {
            table.add_row(row.into_iter().map(cell));
        }
        let lines: Vec<_> = table
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect();
        lines.join("\n")
    }
}

fn cell(text: String) -> Cell {
    let style = style::of_word(&text);
    let cell = Cell::new(text);
    if style == style::GOOD {
        cell.fg(Color::Green)
    } else if style == style::WARN {
        cell.fg(Color::Yellow)
    } else if style == style::BAD {
        cell.fg(Color::Red)
    } else {
        cell
    }
}

/// A value, or a dash where there is none.
pub(crate) fn dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Bytes for people: 1.4 GiB.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{count} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// A time span for people: 340 ms, 2.1 s, 3 m 20 s.
pub(crate) fn duration(span: Duration) -> String {
    let millis = span.as_millis();
    match millis {
        0..1000 => format!("{millis} ms"),
        1000..60_000 => format!("{:.1} s", span.as_secs_f64()),
        _ => format!("{} m {} s", millis / 60_000, millis / 1000 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16777216.0 TiB");
        assert_eq!(duration(Duration::from_millis(340)), "340 ms");
        assert_eq!(duration(Duration::from_millis(2149)), "2.1 s");
        assert_eq!(duration(Duration::from_secs(200)), "3 m 20 s");
    }

    #[test]
    fn a_table_without_rows_says_so_and_one_with_rows_has_no_colour_unless_asked() {
        let mut table = Table::new(&["name", "state"], "none");
        assert_eq!(Table::new(&["name"], "none").render(true), "none");
        table.row(vec!["web".to_owned(), "needs_operator".to_owned()]);
        let text = table.render(false);
        assert!(
            text.contains("NAME") && text.contains("needs_operator"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}
