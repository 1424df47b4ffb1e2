//! `latest`: the newest value of each device and quantity. Lives in memory only; its rows are made by the counter.

use crate::definition::{ColumnDef, ColumnType, TableDef, TableKind};

/// The table.
pub const TABLE: TableDef = TableDef {
    name: "latest",
    kind: TableKind::Live,
    comment: "The newest value of each device and quantity by event time; of equal times the later message",
    columns: &[
        ColumnDef::new("hardware_id", ColumnType::Text, "device that measured"),
        ColumnDef::new("identifier", ColumnType::Text, "what was measured, a name of D4.6 Table 2"),
        ColumnDef::new("value", ColumnType::Float, "newest value, in the unit of column unit"),
        ColumnDef::new("unit", ColumnType::Text, "the identifier's unit"),
        ColumnDef::new("event_time", ColumnType::Time, "when it was measured, by the device's clock (UTC)"),
    ],
    lake_columns: &[],
};
