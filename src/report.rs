//! Tables for people: aligned columns on stdout.

use std::fmt::Display;

use hdrhistogram::Histogram;

/// Longest latency a histogram tells apart: a minute, in microseconds.
const LATENCY_US_MAX: u64 = 60_000_000;

/// A histogram of latencies in microseconds. Its bounds are fixed, because a growing one saturates at the little it starts with.
pub(crate) fn latency_histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)?)
}

/// A table with a header, printed with aligned columns; numbers are right-aligned.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Starts a table with its column names.
    pub(crate) fn new<const N: usize>(header: [&str; N]) -> Self {
        Self {
            rows: vec![header.iter().map(ToString::to_string).collect()],
        }
    }

    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [&dyn Display; N]) {
        self.rows.push(cells.iter().map(ToString::to_string).collect());
    }

    /// The table as text.
    pub(crate) fn render(&self) -> String {
        let n_columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..n_columns).map(width).collect();
        let mut text = String::new();
        for (i, row) in self.rows.iter().enumerate() {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, &width)| {
                    let padding = " ".repeat(width - cell.chars().count());
                    if cell.parse::<f64>().is_ok() {
                        padding + cell
                    } else {
                        cell.clone() + &padding
                    }
                })
                .collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
            if i == 0 {
                text.push_str(&widths.iter().map(|&width| "-".repeat(width)).collect::<Vec<_>>().join("  "));
                text.push('\n');
            }
        }
        text
    }
}

/// A whole number with thousands separated by thin groups of three.
pub(crate) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_numbers_are_right_aligned() {
        let mut table = Table::new(["what", "n"]);
        table.row([&"accepted", &12]);
        table.row([&"rejected", &3]);
        assert_eq!(table.render(), "what      n\n--------  --\naccepted  12\nrejected   3\n");
    }

    #[test]
    fn a_latency_comes_back_as_it_was_recorded() -> anyhow::Result<()> {
        let mut histogram = latency_histogram()?;
        histogram.saturating_record(12_345);
        assert!(histogram.value_at_quantile(0.5).abs_diff(12_345) < 20);
        Ok(())
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(
            [thousands(0), thousands(999), thousands(1_000), thousands(1_234_567)],
            ["0", "999", "1,000", "1,234,567"]
        );
    }
}
