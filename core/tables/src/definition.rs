//! What a table is: its name, its columns and what they mean. SQL schemas, the lake's schemas, column comments and the documentation
//! are all made from these definitions.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::{acknowledgements, alerts, grid, latest, load_profile, measurements, operations, rejections};

/// Key of a column's comment in its Arrow field metadata; Delta, Spark and DataFusion look for the same word.
pub const COMMENT_KEY: &str = "comment";

/// The column every lake table is partitioned by.
pub const DAY: ColumnDef = ColumnDef {
    name: "day",
    column_type: ColumnType::Date,
    nullable: false,
    comment: "UTC day of the row; the lake's partition column",
};

/// The types a column can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// UTF-8 text.
    Text,
    /// A moment: microseconds, UTC.
    Time,
    /// A day, UTC.
    Date,
    /// A double.
    Float,
    /// A 32-bit integer.
    Int,
    /// A 64-bit integer.
    Long,
    /// True or false.
    Bool,
}

impl ColumnType {
    /// The Arrow type SQL shows and the lake stores.
    #[must_use]
    pub fn arrow(self) -> DataType {
        match self {
            Self::Text => DataType::Utf8,
            Self::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Date => DataType::Date32,
            Self::Float => DataType::Float64,
            Self::Int => DataType::Int32,
            Self::Long => DataType::Int64,
            Self::Bool => DataType::Boolean,
        }
    }
}

/// One column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColumnDef {
    /// Its name in SQL and in the lake.
    pub name: &'static str,
    /// Its type.
    pub column_type: ColumnType,
    /// Whether it may be null.
    pub nullable: bool,
    /// What it holds, with its unit.
    pub comment: &'static str,
}

impl ColumnDef {
    /// A column that is never null.
    #[must_use]
    pub const fn new(name: &'static str, column_type: ColumnType, comment: &'static str) -> Self {
        Self {
            name,
            column_type,
            nullable: false,
            comment,
        }
    }

    /// A column that may be null.
    #[must_use]
    pub const fn nullable(name: &'static str, column_type: ColumnType, comment: &'static str) -> Self {
        Self {
            name,
            column_type,
            nullable: true,
            comment,
        }
    }

    /// The Arrow field, its comment in the metadata.
    #[must_use]
    pub fn field(&self) -> Field {
        self.field_as(self.column_type.arrow())
    }

    /// The same with another type, for batches in memory.
    #[must_use]
    pub fn field_as(&self, data_type: DataType) -> Field {
        let comment = HashMap::from([(COMMENT_KEY.to_owned(), self.comment.to_owned())]);
        Field::new(self.name, data_type, self.nullable).with_metadata(comment)
    }
}

/// Where a table's rows come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    /// The lake and its not yet committed tail.
    History,
    /// A live view in memory.
    Live,
    /// Newest rows from memory, the past from the lake.
    LiveAndHistory,
    /// Made of other tables when it is asked for.
    View,
    /// What an operator handed over; it does not change while the process runs.
    Reference,
}

impl TableKind {
    /// The words used in the documentation.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::History => "history",
            Self::Live => "live",
            Self::LiveAndHistory => "live + history",
            Self::View => "view of history",
            Self::Reference => "reference",
        }
    }
}

/// One table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableDef {
    /// Its name in SQL, and its folder in the lake.
    pub name: &'static str,
    /// Where its rows come from.
    pub kind: TableKind,
    /// What a row is.
    pub comment: &'static str,
    /// The columns SQL shows, in order.
    pub columns: &'static [ColumnDef],
    /// Further columns its lake form has, before [`DAY`].
    pub lake_columns: &'static [ColumnDef],
}

impl TableDef {
    /// Whether the lake keeps this table.
    #[must_use]
    pub const fn in_lake(&self) -> bool {
        matches!(self.kind, TableKind::History | TableKind::LiveAndHistory)
    }

    /// The schema SQL shows.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.columns.iter().map(ColumnDef::field).collect::<Vec<_>>()))
    }

    /// The schema of one data file: the SQL columns and the lake's further ones. The partition column is not in the files.
    #[must_use]
    pub fn file_schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.file_columns().map(ColumnDef::field).collect::<Vec<_>>()))
    }

    /// The columns of [`TableDef::file_schema`].
    pub fn file_columns(&self) -> impl Iterator<Item = &'static ColumnDef> + use<> {
        self.columns.iter().chain(self.lake_columns)
    }

    /// The schema of the lake's table: [`TableDef::file_schema`] and [`DAY`].
    #[must_use]
    pub fn lake_schema(&self) -> SchemaRef {
        let fields: Vec<_> = self.file_columns().chain([&DAY]).map(ColumnDef::field).collect();
        Arc::new(Schema::new(fields))
    }
}

/// All tables this crate defines.
pub const TABLES: &[TableDef] = &[
    measurements::TABLE,
    alerts::TABLE,
    acknowledgements::TABLE,
    rejections::TABLE,
    load_profile::TABLE,
    latest::TABLE,
    grid::STATE,
    grid::QUALITY,
    grid::SWITCHES,
    grid::SWITCH_HISTORY,
    operations::OUTAGES,
    operations::RELIABILITY,
    operations::RECONFIGURATIONS,
    operations::FAULTS,
    grid::METERS,
    grid::AREAS,
    grid::NODES,
    grid::BRANCHES,
];

/// The table of this name.
#[must_use]
pub fn table(name: &str) -> Option<&'static TableDef> {
    TABLES.iter().find(|table| table.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(name: &str) -> Vec<&'static str> {
        table(name).unwrap().columns.iter().map(|c| c.name).collect()
    }

    #[test]
    fn sql_columns_are_the_contract() {
        let stamps = ["event_time", "received_at", "log_partition", "log_offset"];
        assert_eq!(
            columns("measurements"),
            [
                "hardware_id",
                "identifier",
                "event_time",
                "value",
                "unit",
                "quality",
                "received_at",
                "log_partition",
                "log_offset"
            ]
        );
        assert_eq!(
            columns("alerts"),
            [&["hardware_id", "type", "level", "message", "metadata"][..], &stamps[..]].concat()
        );
        assert_eq!(
            columns("acknowledgements"),
            [&["hardware_id", "originating_event_id", "response"][..], &stamps[..]].concat()
        );
        assert_eq!(
            columns("rejections"),
            [
                "hardware_id",
                "reason",
                "detail",
                "payload",
                "received_at",
                "log_partition",
                "log_offset"
            ]
        );
        assert_eq!(
            columns("load_profile_15m"),
            ["hardware_id", "window_start", "identifier", "n", "mean", "min", "max", "last"]
        );
        assert_eq!(columns("latest"), ["hardware_id", "identifier", "value", "unit", "event_time"]);
        assert_eq!(
            columns("grid_state"),
            ["area", "node_id", "phase", "quantity", "value", "sigma", "event_time"]
        );
        let quality = columns("grid_quality");
        let promised = [
            "area",
            "level",
            "j",
            "degrees_of_freedom",
            "suspects",
            "observable",
            "n_measurements",
            "event_time",
        ];
        assert!(promised.iter().all(|column| quality.contains(column)), "{quality:?}");
        assert_eq!(columns("meters")[..4], ["hardware_id", "node_id", "area", "feeder"]);
        let outages = columns("outages");
        let promised = [
            "outage_id",
            "area",
            "device",
            "n_customers",
            "n_gasps",
            "opened_at",
            "closed_at",
            "confidence",
        ];
        assert!(promised.iter().all(|column| outages.contains(column)), "{outages:?}");
    }

    #[test]
    fn every_column_says_what_it_holds() {
        for table in TABLES {
            for field in table.lake_schema().fields() {
                assert!(!field.metadata()[COMMENT_KEY].is_empty(), "{}.{}", table.name, field.name());
            }
        }
    }
}
