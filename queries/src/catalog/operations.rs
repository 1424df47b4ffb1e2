//! The tables of grid operation: `reliability` as it is in one snapshot; `outages`, `reconfigurations` and `faults` with their past.
//!
//! A row of those three has a name for good. In memory is what it is now; the lake has it as it was when it came to its end, and once
//! more for each correction since. The row in memory counts, else the lake's newest one, unless it says that there was nothing. The
//! choice is an ordinary logical plan over both.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use datafusion::catalog::view::ViewTable;
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::datasource::provider_as_source;
use datafusion::error::Result;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{ExprFunctionExt, LogicalPlanBuilder};
use datafusion::prelude::{col, lit};
use flexmeter_model::EventTime;
use flexmeter_tables::operation_rows::{OperationEncoder, OperationRow, Version};
use flexmeter_tables::operations::{FAULTS, OUTAGES, RECONFIGURATIONS};
use flexmeter_tables::{RowEncoder, TableDef};

use super::HistoryView;
use super::columns::{floats, floats_or_null, longs, longs_or_null};
use super::conform::{conform_batch, planning_schema};
use super::history::{HistoryTable, LiveAndPast};
use crate::live::{Keyed, LiveGrid};

/// How new a row is among those of its id: 1 for the newest.
const RANK: &str = "rank_";

/// Whether this is a table of grid operation that has a past.
pub(super) fn is_one(table: &TableDef) -> bool {
    [OUTAGES.name, RECONFIGURATIONS.name, FAULTS.name].contains(&table.name)
}

/// A table for which [`is_one`] says yes: what is in memory, and the past of what is not.
pub(super) fn merged(table: &TableDef, grid: &LiveGrid, history: HistoryView) -> Result<Arc<dyn TableProvider>> {
    let now = match table.name {
        name if name == OUTAGES.name => encoded(grid.outages())?,
        name if name == RECONFIGURATIONS.name => encoded(grid.reconfigurations())?,
        _ => encoded(grid.faults())?,
    };
    let schema = planning_schema(table.file_columns());
    let live = MemTable::try_new(schema.clone(), vec![vec![conform_batch(&now, &schema)?]])?;
    let versions = LiveAndPast {
        live: Arc::new(live),
        past: HistoryTable::new(table.file_columns(), history),
    };
    let columns = || table.columns.iter().map(|column| col(column.name));
    let newest_first = vec![col("log_time").sort(false, false)];
    let rank = row_number()
        .partition_by(columns().take(1).collect())
        .order_by(newest_first)
        .build()?;
    let plan = LogicalPlanBuilder::scan("versions", provider_as_source(Arc::new(versions)), None)?
        .window([rank.alias(RANK)])?
        .filter(col(RANK).eq(lit(1_u64)).and(!col("withdrawn")))?
        .project(columns())?
        .build()?;
    Ok(Arc::new(ViewTable::new(plan, None)))
}

/// What is in memory is newer than anything else.
fn encoded<R: OperationRow>(rows: &Keyed<R>) -> Result<RecordBatch> {
    let mut encoder = OperationEncoder::default();
    for (key, row) in rows.iter() {
        encoder.push(Version {
            key: key.clone(),
            row: row.clone(),
            log_time: EventTime::from_micros(i64::MAX),
            is_withdrawn: false,
        });
    }
    Ok(encoder.finish()?)
}

/// The columns of `reliability`.
pub(super) fn reliability(grid: &LiveGrid) -> Vec<ArrayRef> {
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
