//! `load_profile_15m`: readings by device, quantity and quarter of an hour.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use flexmeter_model::outcome::ProfileRow;

use crate::definition::{ColumnDef, ColumnType, TableDef, TableKind};
use crate::dictionary::{DeviceDictionary, Vocabulary};
use crate::encoder::{RowEncoder, batch_schema, long, times};

/// The table. In the lake a window may have several rows: of one `generation` the row with the largest `n` is the newest; rows of
/// different generations hold different readings and are added up.
pub const TABLE: TableDef = TableDef {
    name: "load_profile_15m",
    kind: TableKind::LiveAndHistory,
    comment: "Load profile: the readings of each device and quantity by 15-minute window, repaired by late data",
    columns: &[
        ColumnDef::new("hardware_id", ColumnType::Text, "device that measured"),
        ColumnDef::new(
            "window_start",
            ColumnType::Time,
            "start of the 15-minute window of event time (UTC)",
        ),
        ColumnDef::new(
            "identifier",
            ColumnType::Text,
            "what was measured, a name of D4.6 Table 2; its unit is that of all values",
        ),
        ColumnDef::new("n", ColumnType::Long, "number of readings in the window"),
        ColumnDef::new("mean", ColumnType::Float, "their mean, in the identifier's unit"),
        ColumnDef::new("min", ColumnType::Float, "the smallest, in the identifier's unit"),
        ColumnDef::new("max", ColumnType::Float, "the largest, in the identifier's unit"),
        ColumnDef::new("last", ColumnType::Float, "the newest by event time, in the identifier's unit"),
    ],
    lake_columns: &[
        ColumnDef::new(
            "generation",
            ColumnType::Long,
            "log offset that opened the window in memory; late readings may open it again",
        ),
        ColumnDef::new("last_time", ColumnType::Time, "event time of column last (UTC)"),
    ],
};

/// Encodes load-profile rows, in the lake's form.
#[derive(Debug)]
pub struct ProfileEncoder {
    schema: SchemaRef,
    vocabulary: Vocabulary,
    devices: DeviceDictionary,
    rows: Vec<ProfileRow>,
}

impl ProfileEncoder {
    /// An empty encoder.
    #[must_use]
    pub fn new(vocabulary: &Vocabulary) -> Self {
        let dictionaries = [("hardware_id", DataType::Int32), ("identifier", DataType::UInt8)];
        Self {
            schema: batch_schema(&TABLE, &dictionaries),
            vocabulary: vocabulary.clone(),
            devices: DeviceDictionary::default(),
            rows: Vec::new(),
        }
    }

    /// Adds one row.
    pub fn push(&mut self, row: &ProfileRow) {
        self.rows.push(row.clone());
    }
}

impl RowEncoder for ProfileEncoder {
    fn n_rows(&self) -> usize {
        self.rows.len()
    }

    fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        let rows = std::mem::take(&mut self.rows);
        let keys = rows.iter().map(|row| self.devices.key(&row.device)).collect();
        let floats = |value: fn(&ProfileRow) -> f64| -> ArrayRef { Arc::new(Float64Array::from_iter_values(rows.iter().map(value))) };
        let longs =
            |value: fn(&ProfileRow) -> u64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| long(value(row))))) };
        RecordBatch::try_new(
            Arc::clone(&self.schema),
            vec![
                self.devices.column(keys)?,
                times(rows.iter().map(|row| row.window_start.micros()).collect()),
                self.vocabulary
                    .identifiers(rows.iter().map(|row| row.identifier.index() as u8).collect())?,
                longs(|row| row.cell.n),
                floats(|row| row.cell.mean),
                floats(|row| row.cell.min),
                floats(|row| row.cell.max),
                floats(|row| row.cell.last),
                longs(|row| row.cell.generation),
                times(rows.iter().map(|row| row.cell.last_time.micros()).collect()),
            ],
        )
    }
}
