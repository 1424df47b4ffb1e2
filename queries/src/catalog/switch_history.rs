//! `switch_history`: where each switch of the grid has stood since when, made of its `switch.position` alerts when it is asked for.
//!
//! The alerts are in the lake exactly once and know their event time, so a report that comes late has its place among the others, and
//! nothing has to be kept a second time. Of several reports of one moment the last in the log counts, as on the street.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::catalog::view::ViewTable;
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::common::JoinType;
use datafusion::datasource::provider_as_source;
use datafusion::error::Result;
use datafusion::functions::expr_fn::contains;
use datafusion::functions_window::expr_fn::{lag, lead, row_number};
use datafusion::logical_expr::{Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, when};
use datafusion::prelude::{col, lit};
use flexmeter_model::grid_bundle::BundleSwitch;
use flexmeter_tables::alerts;
use flexmeter_tables::grid::SWITCH_HISTORY;

use super::HistoryView;
use super::columns::{longs, words};
use super::conform::planning_schema;
use super::history::HistoryTable;
use crate::live::LiveGrid;

/// What the parts are called while the table is made.
const DEVICE: &str = "switch_";
const RANK: &str = "rank_";
const BEFORE: &str = "before_";

/// The table, of the switches that the grid has now.
pub(super) fn provider(grid: &LiveGrid, alerts: HistoryView) -> Result<Arc<dyn TableProvider>> {
    let by_device = || vec![col("hardware_id")];
    let in_time = || vec![col("event_time").sort(true, false)];
    let latest_first = vec![col("log_offset").sort(false, false)];
    let of_a_moment = vec![col("hardware_id"), col("event_time")];
    let rank = row_number().partition_by(of_a_moment).order_by(latest_first).build()?;
    let before = lag(col("position"), Some(1), None)
        .partition_by(by_device())
        .order_by(in_time())
        .build()?;
    let after = lead(col("event_time"), Some(1), None)
        .partition_by(by_device())
        .order_by(in_time())
        .build()?;
    let plan = LogicalPlanBuilder::from(reports(alerts)?)
        .window([rank.alias(RANK)])?
        .filter(col(RANK).eq(lit(1_u64)))?
        .window([before.alias(BEFORE)])?
        // a report of where it stands anyway is no change
        .filter(col(BEFORE).is_null().or(col(BEFORE).not_eq(col("position"))))?
        .window([after.alias("valid_to")])?
        .join(switches(grid)?, JoinType::Inner, (vec!["hardware_id"], vec![DEVICE]), None)?
        .project(SWITCH_HISTORY.columns.iter().map(|column| match column.name {
            "valid_from" => col("event_time").alias("valid_from"),
            name => col(name),
        }))?
        .build()?;
    Ok(Arc::new(ViewTable::new(plan, None)))
}

/// Every report of a position.
fn reports(history: HistoryView) -> Result<LogicalPlan> {
    let alerts = Arc::new(HistoryTable::new(alerts::TABLE.columns, history));
    let is_of_position = col("type").eq(lit("switch.position"));
    // metadata are a JSON object of strings, in which no text can hold an unescaped quotation mark
    let says = |position: &str| contains(col("metadata"), lit(format!(r#""position":"{position}""#)));
    let position: Expr = when(says("closed"), lit("closed")).when(says("open"), lit("open")).end()?;
    LogicalPlanBuilder::scan("reports", provider_as_source(alerts), None)?
        .filter(is_of_position)?
        .project([
            col("hardware_id"),
            position.alias("position"),
            col("event_time"),
            col("received_at"),
            col("log_offset"),
        ])?
        .filter(col("position").is_not_null())?
        .build()
}

/// The switches of the grid, by the device that reports them.
fn switches(grid: &LiveGrid) -> Result<LogicalPlan> {
    let columns = SWITCH_HISTORY
        .columns
        .iter()
        .filter(|column| ["branch_id", "area", "hardware_id"].contains(&column.name));
    let schema = planning_schema(columns);
    let switches: &[BundleSwitch] = &grid.bundle().switches;
    let batch = RecordBatch::try_new(
        schema.clone(),
        vec![
            longs(switches.iter().map(|switch| switch.branch_id)),
            words(switches.iter().map(|switch| &*switch.area)),
            words(switches.iter().map(|switch| switch.hardware_id.as_str())),
        ],
    )?;
    let table = Arc::new(MemTable::try_new(schema, vec![vec![batch]])?);
    LogicalPlanBuilder::scan("switches", provider_as_source(table), None)?
        .project([col("branch_id"), col("area"), col("hardware_id").alias(DEVICE)])?
        .build()
}
