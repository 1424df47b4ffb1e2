//! The tables of grid operation, of one snapshot: outages, reliability, reconfigurations and faults. Each has few rows, made at once.

use arrow::array::ArrayRef;
use flexmeter_model::outcome::{OutageRow, ReconfigurationRow, SwitchOperation};
use flexmeter_tables::{TableDef, operations};
use serde_json::json;

use super::columns::{floats, floats_or_null, longs, longs_or_null, times_or_null, truths, words, words_or_null};
use super::grid::position;
use crate::live::{Keyed, LiveGrid};

/// The columns of a table of grid operation; `None` for any other table.
pub(super) fn columns(table: &TableDef, grid: &LiveGrid) -> Option<Vec<ArrayRef>> {
    Some(match table.name {
        name if name == operations::OUTAGES.name => outages(grid.outages()),
        name if name == operations::RELIABILITY.name => reliability(grid),
        name if name == operations::RECONFIGURATIONS.name => reconfigurations(grid.reconfigurations()),
        name if name == operations::FAULTS.name => faults(grid),
        _ => return None,
    })
}

fn keys<R>(rows: &Keyed<R>) -> ArrayRef {
    words(rows.iter().map(|(key, _)| &**key))
}

fn outages(outages: &Keyed<OutageRow>) -> Vec<ArrayRef> {
    let rows = || outages.iter().map(|(_, row)| &**row);
    let alternatives: Vec<String> = rows().map(|row| json!(row.alternatives).to_string()).collect();
    vec![
        keys(outages),
        words(rows().map(|row| &*row.area)),
        longs_or_null(rows().map(|row| row.feeder)),
        words(rows().map(|row| row.device.as_str())),
        words(alternatives.iter().map(String::as_str)),
        longs(rows().map(|row| row.node_id)),
        longs(rows().map(|row| row.n_customers.into())),
        longs(rows().map(|row| row.n_customers_out.into())),
        longs(rows().map(|row| row.n_gasps.into())),
        times_or_null(rows().map(|row| Some(row.opened_at))),
        times_or_null(rows().map(|row| Some(row.reported_at))),
        times_or_null(rows().map(|row| row.closed_at)),
        words_or_null(rows().map(|row| row.closed_because)),
        floats(rows().map(|row| row.confidence)),
        truths(rows().map(|row| row.acknowledged)),
    ]
}

fn reliability(grid: &LiveGrid) -> Vec<ArrayRef> {
    let rows = || grid.reliability().iter().map(|(_, row)| row);
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    vec![
        longs_or_null(rows().map(|row| row.feeder)),
        longs(rows().map(|row| count(row.n_customers))),
        longs(rows().map(|row| count(row.n_sustained))),
        longs(rows().map(|row| count(row.n_momentary))),
        floats(rows().map(|row| row.customer_min)),
        floats_or_null(rows().map(|row| row.saidi_min)),
        floats_or_null(rows().map(|row| row.saifi)),
        floats_or_null(rows().map(|row| row.caidi_min)),
        floats_or_null(rows().map(|row| row.maifi)),
    ]
}

fn reconfigurations(proposals: &Keyed<ReconfigurationRow>) -> Vec<ArrayRef> {
    let rows = || proposals.iter().map(|(_, row)| &**row);
    let step = |step: &SwitchOperation| json!({ "branch_id": step.branch_id, "hardware_id": step.hardware_id.as_str(), "position": position(step.close) });
    let plans: Vec<String> = rows()
        .map(|row| serde_json::Value::from_iter(row.operations.iter().map(step)).to_string())
        .collect();
    vec![
        keys(proposals),
        words(rows().map(|row| row.state)),
        words_or_null(rows().map(|row| row.reason)),
        words_or_null(rows().map(|row| row.decided_by.as_deref())),
        words(plans.iter().map(String::as_str)),
        longs(rows().map(|row| row.operations.len() as i64)),
        longs(rows().map(|row| row.n_done.into())),
        floats(rows().map(|row| row.loss_before_w)),
        floats(rows().map(|row| row.loss_after_w)),
        floats_or_null(rows().map(|row| row.loss_d4_6_w)),
        floats(rows().map(|row| row.voltage_min_pu[0])),
        floats(rows().map(|row| row.voltage_min_pu[1])),
        times_or_null(rows().map(|row| Some(row.proposed_at))),
        times_or_null(rows().map(|row| Some(row.expires_at))),
        times_or_null(rows().map(|row| Some(row.changed_at))),
    ]
}

fn faults(grid: &LiveGrid) -> Vec<ArrayRef> {
    let rows = || grid.faults().iter().map(|(_, row)| row);
    vec![
        keys(grid.faults()),
        words(rows().map(|row| &*row.area)),
        words(rows().map(|row| row.fault_type.as_str())),
        longs(rows().map(|row| row.branch_id)),
        longs(rows().map(|row| row.near_node)),
        floats(rows().map(|row| row.share)),
        floats_or_null(rows().map(|row| row.distance_m)),
        floats_or_null(rows().map(|row| row.distance_sigma_m)),
        floats(rows().map(|row| row.distance_ohm)),
        floats(rows().map(|row| row.resistance_ohm)),
        floats(rows().map(|row| row.probability)),
        words(rows().map(|row| row.candidates.as_str())),
        longs(rows().map(|row| row.n_gasps.into())),
        times_or_null(rows().map(|row| Some(row.event_time))),
        words(rows().map(|row| row.by.as_str())),
    ]
}
