//! `latest`, and what every scan of live rows shares: batches made while they are read, from one snapshot.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, RecordBatchOptions, StringViewBuilder, TimestampMicrosecondArray};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use flexmeter_tables::latest::TABLE;
use hashbrown::HashMap;

use super::conform::planning_schema;
use super::pushdown::KeyFilter;
use crate::live::{DeviceRow, LatestReading, LiveSnapshot};

/// Rows of one batch. A device's rows are never split, so a batch may hold a few more.
const BATCH_ROWS: usize = 8192;

/// The table `latest` of one snapshot.
#[derive(Debug)]
pub(super) struct LatestTable {
    schema: SchemaRef,
    snapshot: Arc<LiveSnapshot>,
}

impl LatestTable {
    pub(super) fn new(snapshot: Arc<LiveSnapshot>) -> Self {
        Self {
            schema: planning_schema(TABLE.columns),
            snapshot,
        }
    }
}

#[async_trait]
impl TableProvider for LatestTable {
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
        let rows = LatestRows {
            keys: KeyFilter::of(filters, TIME_COLUMN),
        };
        scan_live(
            &self.snapshot,
            &self.schema,
            rows,
            state.config().target_partitions(),
            projection,
            limit,
        )
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
}

const TIME_COLUMN: &str = "event_time";

#[derive(Debug, Clone)]
struct LatestRows {
    keys: KeyFilter,
}

impl LiveRows for LatestRows {
    type Row<'a> = (&'a DeviceRow, &'a LatestReading);

    fn keys(&self) -> &KeyFilter {
        &self.keys
    }

    fn rows<'a>(&self, device: &'a DeviceRow, out: &mut Vec<Self::Row<'a>>) {
        let wanted = device
            .latest
            .iter()
            .filter(|r| self.keys.wants(r.identifier) && self.keys.covers(r.event_time.micros()));
        out.extend(wanted.map(|reading| (device, reading)));
    }

    fn column(name: &str, rows: &[Self::Row<'_>]) -> Result<ArrayRef> {
        Ok(match name {
            "hardware_id" => texts(rows.iter().map(|(d, _)| d.device.hardware_id.as_str()))?,
            "identifier" => texts(rows.iter().map(|(_, r)| r.identifier.name()))?,
            "unit" => texts(rows.iter().map(|(_, r)| r.identifier.unit()))?,
            "value" => Arc::new(Float64Array::from_iter_values(rows.iter().map(|(_, r)| r.value))),
            TIME_COLUMN => times(rows.iter().map(|(_, r)| r.event_time.micros())),
            other => return Err(unknown_column(other)),
        })
    }
}

/// A column of texts that come again and again: each is written once, every row only points at it.
pub(super) fn texts<'a>(rows: impl Iterator<Item = &'a str> + Clone) -> Result<ArrayRef> {
    let too_long = || DataFusionError::Execution("the texts of one batch have more than 4 GiB".to_owned());
    let mut written = Vec::new();
    // By address: equal texts at two places are written twice, which is no harm.
    let mut places = HashMap::new();
    for text in rows.clone() {
        places.entry((text.as_ptr() as usize, text.len())).or_insert_with(|| {
            written.extend_from_slice(text.as_bytes());
            written.len() - text.len()
        });
    }
    let mut column = StringViewBuilder::new();
    let block = column.append_block(written.into());
    for text in rows {
        let place = places.get(&(text.as_ptr() as usize, text.len())).copied().unwrap_or_default();
        let (place, len) = (
            u32::try_from(place).map_err(|_| too_long())?,
            u32::try_from(text.len()).map_err(|_| too_long())?,
        );
        column.try_append_view(block, place, len)?;
    }
    Ok(Arc::new(column.finish()))
}

pub(super) fn times(micros: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(micros).with_timezone("UTC"))
}

pub(super) fn unknown_column(name: &str) -> DataFusionError {
    DataFusionError::Internal(format!("a live table has no column {name}"))
}

/// How a live table's rows come out of a device's row.
pub(super) trait LiveRows: Clone + Send + Sync + std::fmt::Debug + 'static {
    /// One row.
    type Row<'a>: Copy;
    /// The keys the query asks for.
    fn keys(&self) -> &KeyFilter;
    /// Adds the device's rows.
    fn rows<'a>(&self, device: &'a DeviceRow, out: &mut Vec<Self::Row<'a>>);
    /// One column of some rows.
    fn column(name: &str, rows: &[Self::Row<'_>]) -> Result<ArrayRef>;
}

/// A scan of live rows in up to `n_partitions` streams.
pub(super) fn scan_live<R: LiveRows>(
    snapshot: &Arc<LiveSnapshot>,
    schema: &SchemaRef,
    rows: R,
    n_partitions: usize,
    projection: Option<&Vec<usize>>,
    limit: Option<usize>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let schema = match projection {
        Some(columns) => Arc::new(schema.project(columns)?),
        None => schema.clone(),
    };
    let stream = |devices| -> Arc<dyn PartitionStream> {
        Arc::new(LiveStream {
            snapshot: snapshot.clone(),
            schema: schema.clone(),
            rows: rows.clone(),
            devices,
            limit,
        })
    };
    let partitions = match &rows.keys().hardware_ids {
        Some(ids) => vec![stream(Devices::Named(ids.clone()))],
        None => {
            let n = snapshot.n_devices();
            let step = n.div_ceil(n_partitions.max(1)).max(1);
            (0..n.max(1))
                .step_by(step)
                .map(|start| stream(Devices::Range(start, (start + step).min(n))))
                .collect()
        }
    };
    Ok(Arc::new(StreamingTableExec::try_new(schema, partitions, None, None, false, limit)?))
}

#[derive(Debug, Clone)]
enum Devices {
    Range(usize, usize),
    Named(Vec<String>),
}

#[derive(Debug)]
struct LiveStream<R> {
    snapshot: Arc<LiveSnapshot>,
    schema: SchemaRef,
    rows: R,
    devices: Devices,
    limit: Option<usize>,
}

impl<R: LiveRows> PartitionStream for LiveStream<R> {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _ctx: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batches = LiveBatches {
            snapshot: self.snapshot.clone(),
            schema: self.schema.clone(),
            rows: self.rows.clone(),
            devices: self.devices.clone(),
            at: 0,
            rows_left: self.limit.unwrap_or(usize::MAX),
        };
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), futures::stream::iter(batches)))
    }
}

struct LiveBatches<R> {
    snapshot: Arc<LiveSnapshot>,
    schema: SchemaRef,
    rows: R,
    devices: Devices,
    /// Devices of `devices` already read.
    at: usize,
    rows_left: usize,
}

impl<R: LiveRows> LiveBatches<R> {
    /// The next device of the scan: `None` at the end, `Some(None)` for a name nobody has.
    fn next_device<'a>(snapshot: &'a LiveSnapshot, devices: &Devices, at: usize) -> Option<Option<&'a DeviceRow>> {
        match devices {
            Devices::Range(start, end) => (start + at < *end).then(|| snapshot.at(start + at).map(Arc::as_ref)),
            Devices::Named(names) => names.get(at).map(|name| {
                let repeated = names[..at].contains(name);
                if repeated { None } else { snapshot.device(name).map(Arc::as_ref) }
            }),
        }
    }
}

impl<R: LiveRows> Iterator for LiveBatches<R> {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let snapshot = self.snapshot.clone();
        let mut rows = Vec::with_capacity(BATCH_ROWS.min(self.rows_left));
        while rows.len() < BATCH_ROWS.min(self.rows_left) {
            let Some(device) = Self::next_device(&snapshot, &self.devices, self.at) else {
                break;
            };
            self.at += 1;
            if let Some(device) = device {
                self.rows.rows(device, &mut rows);
            }
        }
        if rows.is_empty() {
            return None;
        }
        self.rows_left = self.rows_left.saturating_sub(rows.len());
        let columns: Result<Vec<_>> = self.schema.fields().iter().map(|field| R::column(field.name(), &rows)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        Some(columns.and_then(|columns| Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;

    #[test]
    fn texts_are_written_once_and_read_in_order() {
        let (long, other) = ("electricity.voltage.rms.l1", "another text that is not inlined");
        let rows = [long, "kW", long, other, "", long, "kW"];
        let column = texts(rows.into_iter()).unwrap();
        let column = column.as_string_view();
        assert_eq!(column.iter().map(Option::unwrap).collect::<Vec<_>>(), rows);
        assert_eq!(column.data_buffers()[0].len(), long.len() + other.len() + 2);
    }
}
