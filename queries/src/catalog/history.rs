//! A table of the past: the lake's snapshot and the tail that is not committed yet, each row once.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use flexmeter_tables::{ColumnDef, to_schema};

use super::HistoryView;
use super::conform::{ConformExec, planning_schema};

/// One [`HistoryView`] as a table with exactly the declared columns.
#[derive(Debug)]
pub(super) struct HistoryTable {
    schema: SchemaRef,
    view: HistoryView,
}

impl HistoryTable {
    pub(super) fn new<'a>(columns: impl IntoIterator<Item = &'a ColumnDef>, view: HistoryView) -> Self {
        Self {
            schema: planning_schema(columns),
            view,
        }
    }
}

#[async_trait]
impl TableProvider for HistoryTable {
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
        let schema = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => self.schema.clone(),
        };
        let mut inputs: Vec<Arc<dyn ExecutionPlan>> = Vec::with_capacity(2);
        if let Some(committed) = &self.view.committed {
            let lake_schema = committed.schema();
            let columns = schema
                .fields()
                .iter()
                .map(|f| lake_schema.index_of(f.name()))
                .collect::<Result<Vec<_>, _>>()?;
            let plan = committed.scan(state, Some(&columns), filters, limit).await?;
            inputs.push(ConformExec::wrap(plan, &schema)?);
        }
        if inputs.is_empty() || self.view.tail.iter().any(|batch| batch.num_rows() > 0) {
            let tail = Arc::new(Tail {
                schema: schema.clone(),
                batches: self.view.tail.clone(),
            });
            inputs.push(Arc::new(StreamingTableExec::try_new(schema, vec![tail], None, None, false, limit)?));
        }
        match inputs.pop() {
            Some(only) if inputs.is_empty() => Ok(only),
            last => {
                inputs.extend(last);
                UnionExec::try_new(inputs)
            }
        }
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let Some(committed) = &self.view.committed else {
            return Ok(vec![TableProviderFilterPushDown::Unsupported; filters.len()]);
        };
        // The lake may answer a filter exactly, the tail does not: the filter stays above both.
        let inexact = |support| match support {
            TableProviderFilterPushDown::Exact => TableProviderFilterPushDown::Inexact,
            other => other,
        };
        Ok(committed.supports_filters_pushdown(filters)?.into_iter().map(inexact).collect())
    }
}

/// Rows in memory and those that have become history: each is in one of the two.
#[derive(Debug)]
pub(super) struct LiveAndPast {
    pub(super) live: Arc<dyn TableProvider>,
    pub(super) past: HistoryTable,
}

#[async_trait]
impl TableProvider for LiveAndPast {
    fn schema(&self) -> SchemaRef {
        self.past.schema()
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
        let past = self.past.scan(state, projection, filters, limit).await?;
        let live = self.live.scan(state, projection, filters, limit).await?;
        UnionExec::try_new(vec![past, live])
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
}

/// The tail's batches, cut to the columns a query reads and cast only when it runs.
#[derive(Debug)]
struct Tail {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

impl PartitionStream for Tail {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _ctx: Arc<TaskContext>) -> SendableRecordBatchStream {
        let schema = self.schema.clone();
        let batches = self.batches.clone().into_iter().map(move |batch| Ok(to_schema(&batch, &schema)?));
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), futures::stream::iter(batches)))
    }
}
