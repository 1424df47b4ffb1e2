//! `measurements`: one row a measured value.

use std::sync::Arc;

use arrow::array::{Float64Array, Int32Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use flexmeter_model::Identifier;
use flexmeter_model::outcome::MessageHead;

use crate::definition::{ColumnDef, ColumnType, TableDef, TableKind};
use crate::dictionary::{DeviceDictionary, Vocabulary};
use crate::encoder::{RowEncoder, batch_schema, int, long, times};

/// The table.
pub const TABLE: TableDef = TableDef {
    name: "measurements",
    kind: TableKind::History,
    comment: "Every accepted measurement, each exactly once, including rows accepted but not yet committed to the lake",
    columns: &[
        ColumnDef::new("hardware_id", ColumnType::Text, "device that measured"),
        ColumnDef::new("identifier", ColumnType::Text, "what was measured, a name of D4.6 Table 2"),
        ColumnDef::new("event_time", ColumnType::Time, "when it was measured, by the device's clock (UTC)"),
        ColumnDef::new("value", ColumnType::Float, "measured value, in the unit of column unit"),
        ColumnDef::new("unit", ColumnType::Text, "the identifier's unit"),
        ColumnDef::new("quality", ColumnType::Text, "good, suspect or substituted"),
        ColumnDef::new("received_at", ColumnType::Time, "when the log appended the message (UTC)"),
        ColumnDef::new("log_partition", ColumnType::Int, "partition of the inbound log"),
        ColumnDef::new("log_offset", ColumnType::Long, "offset of the message in its log partition"),
    ],
    lake_columns: &[],
};

/// Encodes accepted measurements.
#[derive(Debug)]
pub struct MeasurementEncoder {
    schema: SchemaRef,
    vocabulary: Vocabulary,
    devices: DeviceDictionary,
    hardware_id: Vec<i32>,
    identifier: Vec<u8>,
    event_time: Vec<i64>,
    value: Vec<f64>,
    quality: Vec<u8>,
    received_at: Vec<i64>,
    log_partition: Vec<i32>,
    log_offset: Vec<i64>,
}

impl MeasurementEncoder {
    /// An empty encoder.
    #[must_use]
    pub fn new(vocabulary: &Vocabulary) -> Self {
        let dictionaries = [
            ("hardware_id", DataType::Int32),
            ("identifier", DataType::UInt8),
            ("unit", DataType::UInt8),
            ("quality", DataType::UInt8),
        ];
        Self {
            schema: batch_schema(&TABLE, &dictionaries),
            vocabulary: vocabulary.clone(),
            devices: DeviceDictionary::default(),
            hardware_id: Vec::new(),
            identifier: Vec::new(),
            event_time: Vec::new(),
            value: Vec::new(),
            quality: Vec::new(),
            received_at: Vec::new(),
            log_partition: Vec::new(),
            log_offset: Vec::new(),
        }
    }

    /// Adds one message: as many rows as it has values.
    pub fn push(&mut self, head: &MessageHead, identifiers: &[Identifier], values: &[f64]) {
        let end = self.value.len() + values.len();
        let key = self.devices.key(&head.device);
        self.value.extend_from_slice(values);
        self.identifier
            .extend(identifiers.iter().map(|identifier| identifier.index() as u8));
        self.hardware_id.resize(end, key);
        self.event_time.resize(end, head.event_time.micros());
        self.received_at.resize(end, head.received_at.micros());
        self.quality.resize(end, head.quality as u8);
        self.log_partition.resize(end, int(head.device.partition));
        self.log_offset.resize(end, long(head.offset));
    }
}

impl RowEncoder for MeasurementEncoder {
    fn n_rows(&self) -> usize {
        self.value.len()
    }

    fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        let (identifiers, units) = self.vocabulary.identifiers_and_units(std::mem::take(&mut self.identifier))?;
        let columns = vec![
            self.devices.column(std::mem::take(&mut self.hardware_id))?,
            identifiers,
            times(std::mem::take(&mut self.event_time)),
            Arc::new(Float64Array::from(std::mem::take(&mut self.value))),
            units,
            self.vocabulary.qualities(std::mem::take(&mut self.quality))?,
            times(std::mem::take(&mut self.received_at)),
            Arc::new(Int32Array::from(std::mem::take(&mut self.log_partition))),
            Arc::new(Int64Array::from(std::mem::take(&mut self.log_offset))),
        ];
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
    }
}
