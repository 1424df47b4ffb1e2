//! An output dataset for people: the nodes, and where they are at their worst.

use std::fmt::Write as _;

use flexmeter_grid::pgm::Tables;
use serde_json::Value;

/// Rows shown of one table; the others are counted.
const N_ROWS_MAX: usize = 40;

/// A number as wide as the column, all phases of it.
fn text(value: &Value, digits: usize) -> String {
    match value {
        Value::Array(phases) => phases.iter().map(|phase| text(phase, digits)).collect::<Vec<_>>().join(" "),
        Value::Number(number) if number.is_f64() => format!("{:.digits$}", number.as_f64().unwrap_or(f64::NAN)),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

/// The tables that people look at first.
pub(super) fn of(tables: &Tables) -> String {
    let mut out = String::new();
    for (component, columns) in [
        (
            "node",
            &[
                ("id", 0),
                ("energized", 0),
                ("u_pu", 5),
                ("u_pu_sigma", 6),
                ("u_angle", 5),
                ("p", 1),
                ("q", 1),
                ("voltage_observable", 0),
                ("injection_observable", 0),
            ][..],
        ),
        (
            "line",
            &[
                ("id", 0),
                ("loading", 3),
                ("p_from", 1),
                ("p_from_sigma", 1),
                ("q_from", 1),
                ("i_from", 2),
            ][..],
        ),
        (
            "transformer",
            &[
                ("id", 0),
                ("loading", 3),
                ("p_from", 1),
                ("p_from_sigma", 1),
                ("q_from", 1),
                ("i_from", 2),
            ][..],
        ),
        ("source", &[("id", 0), ("p", 1), ("q", 1), ("i", 2)][..]),
    ] {
        let Some(rows) = tables.get(component).and_then(Value::as_array).filter(|rows| !rows.is_empty()) else {
            continue;
        };
        let columns: Vec<&(&str, usize)> = columns.iter().filter(|(name, _)| rows[0].get(*name).is_some()).collect();
        let cells: Vec<Vec<String>> = rows
            .iter()
            .take(N_ROWS_MAX)
            .map(|row| columns.iter().map(|(name, digits)| text(&row[*name], *digits)).collect())
            .collect();
        let widths: Vec<usize> = columns
            .iter()
            .enumerate()
            .map(|(at, (name, _))| cells.iter().map(|row| row[at].len()).chain([name.len()]).max().unwrap_or(0))
            .collect();
        let line = |cells: &[&str]| {
            let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
            padded.join("  ")
        };
        let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
        let _ = writeln!(out, "\n{component}\n{}", line(&names));
        for row in &cells {
            let _ = writeln!(out, "{}", line(&row.iter().map(String::as_str).collect::<Vec<_>>()));
        }
        if rows.len() > N_ROWS_MAX {
            let _ = writeln!(out, "... and {} more (--json or --output has them all)", rows.len() - N_ROWS_MAX);
        }
    }
    out
}

/// Active power that the branches lose, W.
pub(super) fn losses_w(tables: &Tables) -> f64 {
    let sum = |value: &Value| match value {
        Value::Array(phases) => phases.iter().filter_map(Value::as_f64).sum(),
        value => value.as_f64().unwrap_or(0.0),
    };
    ["line", "transformer", "link"]
        .iter()
        .filter_map(|component| tables.get(*component)?.as_array())
        .flatten()
        .map(|row| sum(&row["p_from"]) + sum(&row["p_to"]))
        .sum()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_line_up_and_long_tables_say_what_they_leave_out() {
        let mut tables = Tables::new();
        let rows: Vec<Value> = (0..50)
            .map(|id| json!({"id": id, "u_pu": [1.0, 0.98765, null], "p": -3.25}))
            .collect();
        tables.insert("node".into(), rows.into());
        let text = of(&tables);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "node");
        assert_eq!(lines[2], "id               u_pu     p");
        assert_eq!(lines[3], " 0  1.00000 0.98765 -  -3.2");
        assert_eq!(lines.last().copied(), Some("... and 10 more (--json or --output has them all)"));
    }

    #[test]
    fn losses_are_what_goes_in_and_does_not_come_out() {
        let mut tables = Tables::new();
        tables.insert("line".into(), json!([{"p_from": [10.0, 5.0], "p_to": [-9.0, -4.5]}]));
        tables.insert("transformer".into(), json!([{"p_from": 3.0, "p_to": -2.0}]));
        assert_eq!(losses_w(&tables), 2.5);
    }
}
