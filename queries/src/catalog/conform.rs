//! One schema, exactly: columns cast to the declared types, whatever files and dictionaries say.
//!
//! Delta gives string views or plain strings, the tail gives dictionaries, and DataFusion compares field metadata when it plans. A plan
//! of ours therefore declares one schema and conforms to it batch by batch.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use datafusion::common::Statistics;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::CardinalityEffect;
use datafusion::physical_plan::filter_pushdown::{ChildPushdownResult, FilterDescription, FilterPushdownPhase, FilterPushdownPropagation};
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SendableRecordBatchStream};
use flexmeter_tables::{ColumnDef, ColumnType};
use futures::StreamExt;

/// The schema queries are planned with: the SQL types, but text as string views, which is how the lake is read without copying every
/// text; clients are given plain strings at the very end. No metadata: comments are served by `information_schema` and Flight SQL, from
/// the definitions.
pub(super) fn planning_schema<'a>(columns: impl IntoIterator<Item = &'a ColumnDef>) -> SchemaRef {
    let planned = |column: &ColumnDef| match column.column_type {
        ColumnType::Text => DataType::Utf8View,
        other => other.arrow(),
    };
    let fields: Vec<_> = columns.into_iter().map(|c| Field::new(c.name, planned(c), c.nullable)).collect();
    Arc::new(Schema::new(fields))
}

/// The type a client sees for a type a plan gives: no views, no dictionaries.
pub(crate) fn plain_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => plain_type(values),
        DataType::List(item) => DataType::List(plain_field(item)),
        DataType::LargeList(item) => DataType::LargeList(plain_field(item)),
        DataType::ListView(item) => DataType::List(plain_field(item)),
        DataType::LargeListView(item) => DataType::LargeList(plain_field(item)),
        DataType::FixedSizeList(item, n) => DataType::FixedSizeList(plain_field(item), *n),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain_field).collect()),
        DataType::Map(entries, sorted) => DataType::Map(plain_field(entries), *sorted),
        DataType::RunEndEncoded(_, values) => plain_type(values.data_type()),
        other => other.clone(),
    }
}

fn plain_field(field: &Arc<Field>) -> Arc<Field> {
    Arc::new(Field::new(field.name(), plain_type(field.data_type()), field.is_nullable()))
}

/// The batch with exactly this schema. Columns are matched by position.
pub(crate) fn conform_batch(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
        if column.data_type() == field.data_type() {
            Ok(column.clone())
        } else {
            cast(column, field.data_type())
        }
    });
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns.collect::<Result<_, _>>()?, &options)
}

/// Conforms its input's columns, by position, to a schema.
#[derive(Debug)]
pub(super) struct ConformExec {
    input: Arc<dyn ExecutionPlan>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    /// Only metadata or nullability differ: what is said about the columns is true of the input's, too.
    same_types: bool,
}

impl ConformExec {
    /// The input itself when it conforms already.
    pub(super) fn wrap(input: Arc<dyn ExecutionPlan>, schema: &SchemaRef) -> Result<Arc<dyn ExecutionPlan>> {
        if input.schema() == *schema {
            return Ok(input);
        }
        if input.schema().fields().len() != schema.fields().len() {
            return Err(DataFusionError::Internal(format!(
                "a table gives {} columns where {} are declared",
                input.schema().fields().len(),
                schema.fields().len()
            )));
        }
        Ok(Arc::new(Self::new(input, schema.clone())))
    }

    fn new(input: Arc<dyn ExecutionPlan>, schema: SchemaRef) -> Self {
        let from = input.properties();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            datafusion::physical_plan::Partitioning::UnknownPartitioning(from.partitioning.partition_count()),
            from.emission_type,
            from.boundedness,
        );
        let types = input
            .schema()
            .fields()
            .iter()
            .zip(schema.fields())
            .all(|(a, b)| a.name() == b.name() && a.data_type() == b.data_type());
        Self {
            input,
            schema,
            properties: Arc::new(properties),
            same_types: types,
        }
    }
}

impl DisplayAs for ConformExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ConformExec")
    }
}

impl ExecutionPlan for ConformExec {
    fn name(&self) -> &'static str {
        "ConformExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(&self, _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => Ok(Arc::new(Self::new(input, self.schema.clone()))),
            _ => Err(DataFusionError::Internal("ConformExec has exactly one input".to_owned())),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let schema = self.schema.clone();
        let batches = self
            .input
            .execute(partition, context)?
            .map(move |batch| Ok(conform_batch(&batch?, &schema)?));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), batches)))
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![if self.same_types {
            ChildStats::At(partition)
        } else {
            ChildStats::Skip
        }]
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        Ok(match inputs.first() {
            Some(statistics) if self.same_types => statistics.clone(),
            _ => Arc::new(Statistics::new_unknown(&self.schema)),
        })
    }

    fn supports_limit_pushdown(&self) -> bool {
        true
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }

    /// Filters that are only known while the query runs (of joins and top-k) reach the files.
    fn gather_filters_for_pushdown(
        &self,
        _: FilterPushdownPhase,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        _: &ConfigOptions,
    ) -> Result<FilterDescription> {
        if self.same_types {
            FilterDescription::from_children(filters, &self.children())
        } else {
            Ok(FilterDescription::all_unsupported(&filters, &self.children()))
        }
    }

    fn handle_child_pushdown_result(
        &self,
        _: FilterPushdownPhase,
        result: ChildPushdownResult,
        _: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        Ok(FilterPushdownPropagation::if_all(result))
    }
}
