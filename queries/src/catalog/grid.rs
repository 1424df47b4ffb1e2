//! The grid's tables, of one snapshot. `grid_state` is made area by area while it is read, and only of the areas a query asks for; the
//! others have a row for each area, switch or component and are made at once.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{MemTable, Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use flexmeter_model::outcome::{AreaEstimate, GridStateRow};
use flexmeter_tables::grid_history::suspects_json;
use flexmeter_tables::operations::RELIABILITY;
use flexmeter_tables::{TableDef, grid};

use super::columns::{floats, floats_or_null, ints, longs, longs_or_null, times_or_null, truths, words, words_or_null};
use super::conform::planning_schema;
use super::latest::{texts, unknown_column};
use super::operations;
use super::pushdown::KeyFilter;
use crate::live::LiveGrid;

/// Nodes of one batch of `grid_state`: at most twelve rows each.
const BATCH_NODES: usize = 680;

/// The provider of a table of the grid; `None` for any other table.
pub(super) fn provider(table: &TableDef, grid: &Arc<LiveGrid>) -> Result<Option<Arc<dyn TableProvider>>> {
    if table.name == grid::STATE.name {
        return Ok(Some(Arc::new(StateTable {
            schema: planning_schema(table.columns),
            grid: grid.clone(),
        })));
    }
    let columns = match table.name {
        name if name == grid::QUALITY.name => quality(grid),
        name if name == grid::SWITCHES.name => switches(grid),
        name if name == grid::METERS.name => meters(grid),
        name if name == grid::AREAS.name => areas(grid),
        name if name == grid::NODES.name => nodes(grid),
        name if name == grid::BRANCHES.name => branches(grid),
        name if name == RELIABILITY.name => operations::reliability(grid),
        _ => return Ok(None),
    };
    let schema = planning_schema(table.columns);
    let batch = RecordBatch::try_new(schema.clone(), columns)?;
    Ok(Some(Arc::new(MemTable::try_new(schema, vec![vec![batch]])?)))
}

pub(super) fn position(closed: bool) -> &'static str {
    if closed { "closed" } else { "open" }
}

fn quality(grid: &LiveGrid) -> Vec<ArrayRef> {
    let areas = || grid.areas().values().map(|area| (area, &area.quality));
    let suspects: Vec<String> = areas().map(|(_, quality)| suspects_json(&quality.suspects)).collect();
    vec![
        words(areas().map(|(area, _)| &*area.area)),
        ints(areas().map(|(_, quality)| quality.level)),
        floats(areas().map(|(_, quality)| quality.j)),
        longs(areas().map(|(_, quality)| i64::from(quality.degrees_of_freedom))),
        words(suspects.iter().map(String::as_str)),
        truths(areas().map(|(_, quality)| quality.observable)),
        longs(areas().map(|(_, quality)| i64::from(quality.n_measurements))),
        longs(areas().map(|(_, quality)| i64::from(quality.n_pseudo))),
        words_or_null(areas().map(|(_, quality)| quality.problem.as_deref())),
        times_or_null(areas().map(|(area, _)| LiveGrid::heard_at(area))),
    ]
}

fn switches(grid: &LiveGrid) -> Vec<ArrayRef> {
    let switches = || grid.bundle().switches.iter();
    let now = |branch_id: i64| grid.switches().get(&branch_id);
    vec![
        longs(switches().map(|switch| switch.branch_id)),
        words(switches().map(|switch| &*switch.area)),
        words(switches().map(|switch| switch.hardware_id.as_str())),
        words(switches().map(|switch| position(grid.is_closed(switch.branch_id, switch.normally_closed)))),
        words(switches().map(|switch| position(switch.normally_closed))),
        truths(switches().map(|switch| switch.controllable)),
        times_or_null(switches().map(|switch| now(switch.branch_id).and_then(|row| row.since))),
    ]
}

fn meters(grid: &LiveGrid) -> Vec<ArrayRef> {
    let meters = || grid.bundle().meters.iter();
    vec![
        words(meters().map(|meter| meter.hardware_id.as_str())),
        longs(meters().map(|meter| meter.node_id)),
        words(meters().map(|meter| &*meter.area)),
        longs_or_null(meters().map(|meter| meter.feeder)),
        words(meters().map(|meter| meter.phases)),
        words(meters().map(|meter| meter.role)),
        floats(meters().map(|meter| meter.accuracy_v)),
        floats(meters().map(|meter| meter.accuracy_p)),
    ]
}

fn areas(grid: &LiveGrid) -> Vec<ArrayRef> {
    let areas = || grid.bundle().areas.iter();
    vec![
        words(areas().map(|area| &*area.path)),
        ints(areas().map(|area| area.level)),
        words_or_null(areas().map(|area| area.parent.as_deref())),
        longs(areas().map(|area| i64::from(area.n_nodes))),
        longs(areas().map(|area| i64::from(area.n_meters))),
    ]
}

fn nodes(grid: &LiveGrid) -> Vec<ArrayRef> {
    let nodes = || grid.bundle().nodes.iter();
    vec![
        longs(nodes().map(|node| node.id)),
        words_or_null(nodes().map(|node| node.name.as_deref())),
        words(nodes().map(|node| &*node.area)),
        floats(nodes().map(|node| node.u_rated_v)),
        longs_or_null(nodes().map(|node| node.feeder)),
    ]
}

fn branches(grid: &LiveGrid) -> Vec<ArrayRef> {
    let branches = || grid.bundle().branches.iter();
    vec![
        longs(branches().map(|branch| branch.id)),
        words_or_null(branches().map(|branch| branch.name.as_deref())),
        words(branches().map(|branch| branch.kind)),
        longs(branches().map(|branch| branch.from_node)),
        longs(branches().map(|branch| branch.to_node)),
        words(branches().map(|branch| &*branch.area)),
        truths(branches().map(|branch| branch.is_closed)),
        floats_or_null(branches().map(|branch| branch.i_rated_a)),
    ]
}

/// `grid_state`.
#[derive(Debug)]
struct StateTable {
    schema: SchemaRef,
    grid: Arc<LiveGrid>,
}

#[async_trait]
impl TableProvider for StateTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wanted = KeyFilter::of(filters, "event_time").areas;
        let areas = self.grid.areas().values();
        let areas = areas.filter(|area| wanted.as_ref().is_none_or(|wanted| wanted.iter().any(|path| **path == *area.area)));
        let schema = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => self.schema.clone(),
        };
        let stream = StateStream {
            schema: schema.clone(),
            areas: areas.cloned().collect(),
        };
        let exec = StreamingTableExec::try_new(schema, vec![Arc::new(stream)], None, None, false, limit)?;
        Ok(Arc::new(exec))
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
}

#[derive(Debug)]
struct StateStream {
    schema: SchemaRef,
    areas: Vec<Arc<AreaEstimate>>,
}

impl PartitionStream for StateStream {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _ctx: Arc<TaskContext>) -> SendableRecordBatchStream {
        let schema = self.schema.clone();
        let parts: Vec<_> = self
            .areas
            .iter()
            .flat_map(|area| (0..area.states.len()).step_by(BATCH_NODES).map(|from| (area.clone(), from)))
            .collect();
        let batches = parts.into_iter().map(move |(area, from)| batch(&schema, &area, from));
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), futures::stream::iter(batches)))
    }
}

fn batch(schema: &SchemaRef, area: &AreaEstimate, from: usize) -> Result<RecordBatch> {
    let rows: Vec<GridStateRow> = area.rows_of(from..from + BATCH_NODES).collect();
    let column = |name: &str| -> Result<ArrayRef> {
        Ok(match name {
            "area" => texts(rows.iter().map(|row| &*row.area))?,
            "node_id" => longs(rows.iter().map(|row| row.node_id)),
            "phase" => texts(rows.iter().map(|row| row.phase.as_str()))?,
            "quantity" => texts(rows.iter().map(|row| row.quantity.as_str()))?,
            "value" => floats(rows.iter().map(|row| row.value)),
            "sigma" => floats(rows.iter().map(|row| row.sigma)),
            "event_time" => times_or_null(rows.iter().map(|_| LiveGrid::heard_at(area))),
            other => return Err(unknown_column(other)),
        })
    };
    let columns: Vec<ArrayRef> = schema.fields().iter().map(|field| column(field.name())).collect::<Result<_>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}
