//! `rejections`: one row a rejected message, or a rejected measurement of an otherwise good one.

use std::sync::Arc;

use arrow::array::{Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use flexmeter_model::outcome::RejectionRow;

use crate::definition::{ColumnDef, ColumnType, TableDef, TableKind};
use crate::encoder::{RowEncoder, batch_schema, int, long, times};

/// The table.
pub const TABLE: TableDef = TableDef {
    name: "rejections",
    kind: TableKind::History,
    comment: "Every message, or single measurement of a message, that was rejected, with the reason and the payload",
    columns: &[
        ColumnDef::nullable("hardware_id", ColumnType::Text, "the device, as far as it is known"),
        ColumnDef::new("reason", ColumnType::Text, "stable reason code, for example out_of_range"),
        ColumnDef::new("detail", ColumnType::Text, "what exactly is wrong"),
        ColumnDef::new(
            "payload",
            ColumnType::Text,
            "the payload, invalid UTF-8 replaced, cut at 65536 bytes; several rejections of one message share 8192 bytes",
        ),
        ColumnDef::new("received_at", ColumnType::Time, "when the log appended the message (UTC)"),
        ColumnDef::new("log_partition", ColumnType::Int, "partition of the inbound log"),
        ColumnDef::new("log_offset", ColumnType::Long, "offset of the message in its log partition"),
    ],
    lake_columns: &[],
};

/// Encodes rejections.
#[derive(Debug)]
pub struct RejectionEncoder {
    schema: SchemaRef,
    rows: Vec<(u32, RejectionRow)>,
}

impl Default for RejectionEncoder {
    fn default() -> Self {
        Self {
            schema: batch_schema(&TABLE, &[]),
            rows: Vec::new(),
        }
    }
}

impl RejectionEncoder {
    /// Adds one row of this log partition.
    pub fn push(&mut self, partition: u32, row: &RejectionRow) {
        self.rows.push((partition, row.clone()));
    }
}

impl RowEncoder for RejectionEncoder {
    fn n_rows(&self) -> usize {
        self.rows.len()
    }

    fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        let rows = std::mem::take(&mut self.rows);
        RecordBatch::try_new(
            Arc::clone(&self.schema),
            vec![
                Arc::new(
                    rows.iter()
                        .map(|(_, row)| row.hardware_id.as_ref().map(|id| id.as_str()))
                        .collect::<StringArray>(),
                ),
                Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, row)| row.reason.as_str()))),
                Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, row)| &row.detail))),
                Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, row)| &row.payload))),
                times(rows.iter().map(|(_, row)| row.received_at.micros()).collect()),
                Arc::new(Int32Array::from_iter_values(rows.iter().map(|(partition, _)| int(*partition)))),
                Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, row)| long(row.offset)))),
            ],
        )
    }
}
