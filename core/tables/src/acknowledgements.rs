//! `acknowledgements`: one row a device's answer to a command.

use std::sync::Arc;

use arrow::array::{Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use flexmeter_model::outcome::AcknowledgementRow;

use crate::definition::{ColumnDef, ColumnType, TableDef, TableKind};
use crate::dictionary::DeviceDictionary;
use crate::encoder::{RowEncoder, batch_schema, int, long, times};

/// The table.
pub const TABLE: TableDef = TableDef {
    name: "acknowledgements",
    kind: TableKind::History,
    comment: "Every acknowledgement of a command, each exactly once",
    columns: &[
        ColumnDef::new("hardware_id", ColumnType::Text, "device that acknowledges"),
        ColumnDef::new("originating_event_id", ColumnType::Text, "id of the command"),
        ColumnDef::new("response", ColumnType::Text, "the device's answer"),
        ColumnDef::new("event_time", ColumnType::Time, "when it answered, by the device's clock (UTC)"),
        ColumnDef::new("received_at", ColumnType::Time, "when the log appended the message (UTC)"),
        ColumnDef::new("log_partition", ColumnType::Int, "partition of the inbound log"),
        ColumnDef::new("log_offset", ColumnType::Long, "offset of the message in its log partition"),
    ],
    lake_columns: &[],
};

/// Encodes acknowledgements.
#[derive(Debug)]
pub struct AcknowledgementEncoder {
    schema: SchemaRef,
    devices: DeviceDictionary,
    rows: Vec<AcknowledgementRow>,
}

impl Default for AcknowledgementEncoder {
    fn default() -> Self {
        Self {
            schema: batch_schema(&TABLE, &[("hardware_id", DataType::Int32)]),
            devices: DeviceDictionary::default(),
            rows: Vec::new(),
        }
    }
}

impl AcknowledgementEncoder {
    /// Adds one row.
    pub fn push(&mut self, row: &AcknowledgementRow) {
        self.rows.push(row.clone());
    }
}

impl RowEncoder for AcknowledgementEncoder {
    fn n_rows(&self) -> usize {
        self.rows.len()
    }

    fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        let rows = std::mem::take(&mut self.rows);
        let keys = rows.iter().map(|row| self.devices.key(&row.device)).collect();
        RecordBatch::try_new(
            Arc::clone(&self.schema),
            vec![
                self.devices.column(keys)?,
                Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.originating_event_id))),
                Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.response))),
                times(rows.iter().map(|row| row.event_time.micros()).collect()),
                times(rows.iter().map(|row| row.received_at.micros()).collect()),
                Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| int(row.device.partition)))),
                Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| long(row.offset)))),
            ],
        )
    }
}
