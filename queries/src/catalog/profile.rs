//! `load_profile_15m`: the live windows and the lake's, merged into one row a key.
//!
//! A key (device, window, identifier) may have several rows. Rows of one `generation` are states of the same readings: the largest `n`
//! is the newest, wherever it is. Rows of different generations hold different readings and are added up. The merge is an ordinary
//! logical plan, so filters on the key reach the files and the live rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::view::ViewTable;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::{TableType, provider_as_source};
use datafusion::error::Result;
use datafusion::functions_aggregate::expr_fn::{count, last_value, max, min, sum};
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, TableProviderFilterPushDown, cast, when};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;
use datafusion::prelude::{col, lit};
use flexmeter_model::Identifier;
use flexmeter_model::outcome::ProfileCell;
use flexmeter_tables::load_profile::TABLE;

use super::HistoryView;
use super::conform::planning_schema;
use super::history::HistoryTable;
use super::latest::{LiveRows, scan_live, texts, times, unknown_column};
use super::pushdown::KeyFilter;
use crate::live::{DeviceRow, LiveSnapshot, ProfileWindow};

/// The table's name.
pub(super) const NAME: &str = TABLE.name;
const TIME_COLUMN: &str = "window_start";
const KEY: [&str; 3] = ["hardware_id", TIME_COLUMN, "identifier"];

/// The merged table.
pub(super) fn merged(live: Arc<LiveSnapshot>, history: HistoryView) -> Result<Arc<dyn TableProvider>> {
    let parts = Arc::new(ProfileParts::new(live, history));
    let key = || KEY.into_iter().map(col);
    let newest = |column: &str| last_value(col(column), vec![col("n").sort(true, false)]).alias(format!("{column}_"));
    // The smallest and the largest of a generation's states belong to its newest one: more readings only widen the span.
    let generations = LogicalPlanBuilder::scan("load_profile_parts", provider_as_source(parts), None)?.aggregate(
        key().chain([col("generation")]),
        [
            newest("mean"),
            newest("last"),
            max(col("n")).alias("n_"),
            min(col("min")).alias("min_"),
            max(col("max")).alias("max_"),
            max(col("last_time")).alias("last_time_"),
        ],
    )?;
    let weight = || cast(col("n_"), arrow::datatypes::DataType::Float64);
    let windows = generations.aggregate(
        key(),
        [
            count(lit(1)).alias("n_generations"),
            sum(col("n_")).alias("n"),
            max(col("mean_")).alias("only_mean"),
            sum(col("mean_") * weight()).alias("weighted_sum"),
            min(col("min_")).alias("min"),
            max(col("max_")).alias("max"),
            last_value(col("last_"), vec![col("last_time_").sort(true, false)]).alias("last"),
        ],
    )?;
    // One generation is the rule, and its mean is exact; a quotient would round it.
    let mean = when(col("n_generations").eq(lit(1_i64)), col("only_mean"))
        .otherwise(col("weighted_sum") / cast(col("n"), arrow::datatypes::DataType::Float64))?;
    let columns: Vec<Expr> = TABLE
        .columns
        .iter()
        .map(|c| {
            if c.name == "mean" {
                mean.clone().alias("mean")
            } else {
                col(c.name)
            }
        })
        .collect();
    Ok(Arc::new(ViewTable::new(windows.project(columns)?.build()?, None)))
}

/// All rows of all generations: the lake's, the tail's and the live ones.
#[derive(Debug)]
struct ProfileParts {
    schema: SchemaRef,
    history: HistoryTable,
    live: Arc<LiveSnapshot>,
}

impl ProfileParts {
    fn new(live: Arc<LiveSnapshot>, history: HistoryView) -> Self {
        Self {
            schema: planning_schema(TABLE.file_columns()),
            history: HistoryTable::new(TABLE.file_columns(), history),
            live,
        }
    }
}

#[async_trait]
impl TableProvider for ProfileParts {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let past = self.history.scan(state, projection, filters, limit).await?;
        let rows = ProfileRows {
            keys: KeyFilter::of(filters, TIME_COLUMN),
        };
        let live = scan_live(
            &self.live,
            &self.schema,
            rows,
            state.config().target_partitions(),
            projection,
            limit,
        )?;
        UnionExec::try_new(vec![past, live])
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
}

#[derive(Debug, Clone)]
struct ProfileRows {
    keys: KeyFilter,
}

impl LiveRows for ProfileRows {
    type Row<'a> = (&'a DeviceRow, &'a ProfileWindow, Identifier, &'a ProfileCell);

    fn keys(&self) -> &KeyFilter {
        &self.keys
    }

    fn rows<'a>(&self, device: &'a DeviceRow, out: &mut Vec<Self::Row<'a>>) {
        for window in device.windows.iter().filter(|w| self.keys.covers(w.start.micros())) {
            let wanted = window.cells.iter().filter(|(identifier, _)| self.keys.wants(*identifier));
            out.extend(wanted.map(|(identifier, cell)| (device, window.as_ref(), *identifier, cell)));
        }
    }

    fn column(name: &str, rows: &[Self::Row<'_>]) -> Result<ArrayRef> {
        let real =
            |value: fn(&ProfileCell) -> f64| -> ArrayRef { Arc::new(Float64Array::from_iter_values(rows.iter().map(|r| value(r.3)))) };
        let long = |value: fn(&ProfileCell) -> u64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(
                rows.iter().map(|r| i64::try_from(value(r.3)).unwrap_or(i64::MAX)),
            ))
        };
        Ok(match name {
            "hardware_id" => texts(rows.iter().map(|r| r.0.device.hardware_id.as_str()))?,
            TIME_COLUMN => times(rows.iter().map(|r| r.1.start.micros())),
            "identifier" => texts(rows.iter().map(|r| r.2.name()))?,
            "n" => long(|c| c.n),
            "mean" => real(|c| c.mean),
            "min" => real(|c| c.min),
            "max" => real(|c| c.max),
            "last" => real(|c| c.last),
            "generation" => long(|c| c.generation),
            "last_time" => times(rows.iter().map(|r| r.3.last_time.micros())),
            other => return Err(unknown_column(other)),
        })
    }
}
