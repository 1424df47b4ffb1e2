//! `alerts`: one row an accepted alert.

use std::sync::Arc;

use arrow::array::{Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use flexmeter_model::outcome::AlertRow;

use crate::definition::{ColumnDef, ColumnType, TableDef, TableKind};
use crate::dictionary::DeviceDictionary;
use crate::encoder::{RowEncoder, batch_schema, int, long, times};

/// The table. `metadata` is JSON text and not an Arrow map: every client reads text, few read maps.
pub const TABLE: TableDef = TableDef {
    name: "alerts",
    kind: TableKind::History,
    comment: "Every accepted alert, each exactly once",
    columns: &[
        ColumnDef::new("hardware_id", ColumnType::Text, "device that raised the alert"),
        ColumnDef::new("type", ColumnType::Text, "kind of alert, for example power.lastgasp"),
        ColumnDef::new("level", ColumnType::Text, "Info, Warning, Error or Critical"),
        ColumnDef::new("message", ColumnType::Text, "free text"),
        ColumnDef::new("metadata", ColumnType::Text, "name and value pairs as a JSON object of strings"),
        ColumnDef::new("event_time", ColumnType::Time, "when it happened, by the device's clock (UTC)"),
        ColumnDef::new("received_at", ColumnType::Time, "when the log appended the message (UTC)"),
        ColumnDef::new("log_partition", ColumnType::Int, "partition of the inbound log"),
        ColumnDef::new("log_offset", ColumnType::Long, "offset of the message in its log partition"),
    ],
    lake_columns: &[],
};

/// Encodes accepted alerts.
#[derive(Debug)]
pub struct AlertEncoder {
    schema: SchemaRef,
    devices: DeviceDictionary,
    rows: Vec<AlertRow>,
}

impl Default for AlertEncoder {
    fn default() -> Self {
        Self {
            schema: batch_schema(&TABLE, &[("hardware_id", DataType::Int32)]),
            devices: DeviceDictionary::default(),
            rows: Vec::new(),
        }
    }
}

impl AlertEncoder {
    /// Adds one row.
    pub fn push(&mut self, row: &AlertRow) {
        self.rows.push(row.clone());
    }
}

impl RowEncoder for AlertEncoder {
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
                Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.alert_type))),
                Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.level.as_str()))),
                Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.message))),
                Arc::new(StringArray::from_iter_values(rows.iter().map(|row| json_object(&row.metadata)))),
                times(rows.iter().map(|row| row.event_time.micros()).collect()),
                times(rows.iter().map(|row| row.received_at.micros()).collect()),
                Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| int(row.device.partition)))),
                Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| long(row.offset)))),
            ],
        )
    }
}

/// The pairs as JSON, in the order sent. A name sent twice stays twice: readers of JSON take the last, and nothing is lost.
fn json_object(pairs: &[(String, String)]) -> String {
    let mut json = String::from("{");
    for (name, value) in pairs {
        if json.len() > 1 {
            json.push(',');
        }
        json.push_str(&serde_json::Value::from(name.as_str()).to_string());
        json.push(':');
        json.push_str(&serde_json::Value::from(value.as_str()).to_string());
    }
    json.push('}');
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_become_a_json_object() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(json_object(&[]), "{}");
        assert_eq!(json_object(&[pair("position", "open")]), r#"{"position":"open"}"#);
        assert_eq!(json_object(&[pair("a\"", "\n"), pair("b", "ü")]), r#"{"a\"":"\n","b":"ü"}"#);
    }
}
